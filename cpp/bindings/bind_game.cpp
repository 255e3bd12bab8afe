// What attnflow.games asks of the kernel: attnflow::prefix_values, attnflow::eliminate.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "attnflow/coalitions.hpp"
#include "attnflow/errors.hpp"
#include "attnflow/star_mesh.hpp"
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

using Doubles = py::array_t<double, py::array::c_style>;

py::tuple eliminated(const Doubles& within, const Doubles& outside) {
    const py::ssize_t n = outside.ndim() == 1 ? outside.shape(0) : -1;
    if (n < 0 || within.ndim() != 2 || within.shape(0) != n || within.shape(1) != n)
        throw InvalidArgument("weights within n nodes must be n x n, and those to outside n");
    const auto size = static_cast<std::size_t>(n);
    std::vector<double> left(within.data(), within.data() + within.size());
    std::vector<double> ground(outside.data(), outside.data() + size);
    Doubles passed({n, n}), pivots(n);
    double* const shares = passed.mutable_data();
    double* const weights = pivots.mutable_data();
    {
        const py::gil_scoped_release no_gil;
        eliminate(size, left.data(), ground.data(), shares, weights);
    }
    return py::make_tuple(passed, pivots);
}

}  // namespace

void bind_game(py::module_& module) {
    module.def("prefix_values", &prefix_value_arrays, py::arg("sizes"), py::arg("links"), py::arg("players"),
               py::arg("sink"), py::arg("orders"), py::kw_only(), py::arg("threads"), py::arg("check"),
               py::arg("progress"),
               "Maximum flow of the first players of each order, joined, for all lengths; see attnflow.games.");
    module.def("eliminate", &eliminated, py::arg("within"), py::arg("outside"),
               "Star-mesh elimination of nodes: (passed, pivots); see attnflow/star_mesh.hpp.");
}
