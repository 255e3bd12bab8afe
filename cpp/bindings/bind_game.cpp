// attnflow::prefix_values for Python.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "attnflow/coalitions.hpp"
#include "attnflow/errors.hpp"
#include "bindings.hpp"

using namespace attnflow;

namespace {

// Values leave as they are, in quanta: what is made of them is exact, too.
py::dict prefix_value_arrays(const std::vector<std::uint32_t>& sizes, const std::vector<py::tuple>& links,
                             std::vector<std::vector<Node>> players, std::vector<Node> sink,
                             const py::array_t<std::uint32_t, py::array::c_style>& orders, unsigned threads, bool check,
                             py::object progress) {
    if (orders.ndim() != 2) throw InvalidArgument("orders must be a matrix, one order a row");
    const std::vector<Link> views = links_of(links, sizes);
    const Game game{std::move(players), std::move(sink)};
    const Orders rows{orders.data(), static_cast<std::size_t>(orders.shape(0)),
                      static_cast<std::size_t>(orders.shape(1))};
    PythonMonitor monitor(std::move(progress));
    const GameOptions options{threads, check, &monitor};
    PrefixValues answer;
    {
        const py::gil_scoped_release no_gil;
        answer = prefix_values(Network(sizes, views), game, rows, options);
    }
    py::dict out;
    out["values"] = give(std::move(answer.value), {orders.shape(0), orders.shape(1)});
    out["all"] = answer.all;
    out["exact"] = answer.exact;
    out["exponent"] = answer.quantum.exponent();
    out["stats"] = stats_of(answer.statistics, answer.quantum);
    return out;
}

}  // namespace

void bind_game(py::module_& module) {
    module.def("prefix_values", &prefix_value_arrays, py::arg("sizes"), py::arg("links"), py::arg("players"),
               py::arg("sink"), py::arg("orders"), py::kw_only(), py::arg("threads"), py::arg("check"),
               py::arg("progress"),
               "Maximum flow of the first players of each order, joined, for all lengths; see attnflow.games.");
}
