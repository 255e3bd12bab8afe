// attnflow::solve for Python: numpy arrays in, read-only numpy arrays out.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "attnflow/errors.hpp"
#include "attnflow/max_flow.hpp"
#include "bindings.hpp"

namespace py = pybind11;
using namespace attnflow;

namespace {

Algorithm algorithm_of(const std::string& name) {
    if (name == "auto") return Algorithm::automatic;
    if (name == "dinic") return Algorithm::dinic;
    if (name == "push_relabel") return Algorithm::push_relabel;
    throw InvalidArgument("algorithm is '" + name + "'; it must be 'auto', 'dinic' or 'push_relabel'");
}

py::dict solve_arrays(const std::vector<std::uint32_t>& sizes, const std::vector<py::tuple>& links,
                      std::vector<std::vector<Node>> sources, std::vector<std::vector<Node>> sinks,
                      const std::string& algorithm, unsigned threads, bool bottlenecks, bool cuts, bool flows,
                      bool check, py::object progress) {
    const std::vector<Link> views = links_of(links, sizes);
    const Query query{std::move(sources), std::move(sinks)};
    PythonMonitor monitor(std::move(progress));
    const Options options{algorithm_of(algorithm), threads, bottlenecks, cuts, flows, check, &monitor};
    Answer answer;
    std::size_t n_words = 0;
    {
        const py::gil_scoped_release no_gil;
        const Network network(sizes, views);
        n_words = network.n_words();
        answer = solve(network, query, options);
    }
    const Quantum& quantum = answer.quantum;
    const auto n_sinks = static_cast<py::ssize_t>(query.sinks.size());
    const auto n_sources = static_cast<py::ssize_t>(query.sources.size());
    const std::vector<py::ssize_t> shape{n_sinks, n_sources};
    py::dict out;
    out["values"] = as_floats(answer.value, shape, [&](Units units) { return quantum.nearest(units); });
    out["lower"] = as_floats(answer.value, shape, [&](Units units) { return quantum.lower(units); });
    out["upper"] = as_floats(answer.upper, shape, [&](Units units) {
        return units < unbounded ? quantum.upper(units) : std::numeric_limits<double>::infinity();
    });
    if (bottlenecks) out["bottlenecks"] = give(std::move(answer.bottleneck), shape);
    if (cuts)
        out["source_sides"] =
            give(std::move(answer.source_side), {n_sinks, n_sources, static_cast<py::ssize_t>(n_words)});
    if (flows) {
        std::vector<std::int32_t> link, receiver, giver;
        std::vector<Units> flow;
        for (const EdgeFlow& edge : answer.flows) {
            link.push_back(static_cast<std::int32_t>(edge.link));
            receiver.push_back(static_cast<std::int32_t>(edge.receiver));
            giver.push_back(static_cast<std::int32_t>(edge.giver));
            flow.push_back(edge.flow);
        }
        const std::vector<py::ssize_t> length{static_cast<py::ssize_t>(flow.size())};
        out["flow_link"] = give(std::move(link), length);
        out["flow_receiver"] = give(std::move(receiver), length);
        out["flow_giver"] = give(std::move(giver), length);
        out["flow"] = as_floats(flow, length, [&](Units units) { return quantum.nearest(units); });
    }
    py::dict stats = stats_of(answer.statistics, quantum);
    stats["algorithm"] = answer.statistics.algorithm == Algorithm::push_relabel ? "push_relabel" : "dinic";
    out["stats"] = stats;
    return out;
}

}  // namespace

void bind_solve(py::module_& module) {
    module.def("solve", &solve_arrays, py::arg("sizes"), py::arg("links"), py::arg("sources"), py::arg("sinks"),
               py::kw_only(), py::arg("algorithm"), py::arg("threads"), py::arg("bottlenecks"), py::arg("cuts"),
               py::arg("flows"), py::arg("check"), py::arg("progress"),
               "Maximum flow from every set of source nodes to every set of sink nodes; see attnflow.maxflow.blocks.");
}
