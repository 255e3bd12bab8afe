// attnflow::solve for Python: numpy arrays in, read-only numpy arrays out.
//
// Capacities are read where numpy has them. The caller holds the arrays alive for the length of the call, so the GIL is
// released while the kernel works; it is taken back a few times a second to look for Ctrl-C and to report progress.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "attnflow/errors.hpp"
#include "attnflow/max_flow.hpp"
#include "bindings.hpp"

namespace py = pybind11;
using namespace attnflow;

namespace {

class PythonMonitor final : public Monitor {
   public:
    explicit PythonMonitor(py::object progress) : progress_(std::move(progress)) {}
    void tick(std::uint64_t done, std::uint64_t total) override {
        const py::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (!progress_.is_none()) progress_(done, total);
    }

   private:
    py::object progress_;
};

Scalar scalar_of(const py::array& array) {
    if (py::isinstance<py::array_t<float>>(array)) return Scalar::float32;
    if (py::isinstance<py::array_t<double>>(array)) return Scalar::float64;
    if (py::isinstance<py::array_t<std::int32_t>>(array)) return Scalar::int32;
    if (py::isinstance<py::array_t<std::int64_t>>(array)) return Scalar::int64;
    throw InvalidArgument("the kernel reads float32, float64, int32 and int64, not " +
                          py::str(array.dtype()).cast<std::string>());
}

// A contiguous array of n entries of T, or nullptr for None.
template <class T>
const T* data_of(const py::object& given, std::size_t n) {
    if (given.is_none()) return nullptr;
    if (!py::isinstance<py::array_t<T, py::array::c_style>>(given))
        throw InvalidArgument("an array of a sparse link has the wrong type");
    const auto array = given.cast<py::array_t<T, py::array::c_style>>();
    if (array.ndim() != 1 || static_cast<std::size_t>(array.size()) != n)
        throw InvalidArgument("an array of a sparse link has " + std::to_string(array.size()) + " entries, not " +
                              std::to_string(n));
    return array.data();
}

// (giver, receiver, array, offset, storage). storage None: a matrix (n_receiver, n_giver), or a vector (n_giver,) for a
// diagonal. Else the array holds stored entries, contiguous: True: a triangle's; (starts, columns, dropped_in, dropped_out,
// causal): a sparse matrix's.
Link link_of(const py::tuple& fields, const std::vector<std::uint32_t>& sizes) {
    Link link;
    link.giver = fields[0].cast<std::uint32_t>();
    link.receiver = fields[1].cast<std::uint32_t>();
    const auto array = fields[2].cast<py::array>();
    link.offset = fields[3].cast<std::int64_t>();
    const auto storage = fields[4].cast<py::object>();
    const bool sparse = py::isinstance<py::tuple>(storage);
    link.scalar = scalar_of(array);
    link.data = static_cast<const std::byte*>(array.data());
    link.storage = sparse               ? Storage::sparse
                   : !storage.is_none() ? Storage::triangle
                   : array.ndim() == 1  ? Storage::diagonal
                                        : Storage::strided;
    if (link.giver >= sizes.size() || link.receiver >= sizes.size()) return link;  // Network names the fault
    const std::size_t givers = sizes[link.giver], receivers = sizes[link.receiver];
    const auto has = [&](std::size_t axis, std::size_t n) {
        const auto i = static_cast<py::ssize_t>(axis);
        return array.ndim() > i && static_cast<std::size_t>(array.shape(i)) == n;
    };
    bool fits = array.ndim() == (link.storage == Storage::strided ? 2 : 1);
    switch (link.storage) {
        case Storage::strided: fits = fits && has(0, receivers) && has(1, givers); break;
        case Storage::diagonal: fits = fits && has(0, givers); break;
        case Storage::triangle: fits = fits && has(0, before_row(givers)); break;
        case Storage::sparse: {
            const auto rest = storage.cast<py::tuple>();
            link.starts = data_of<std::int64_t>(rest[0], receivers + 1);
            link.columns = data_of<std::uint32_t>(rest[1], static_cast<std::size_t>(array.size()));
            link.dropped_in = data_of<double>(rest[2], receivers);
            link.dropped_out = data_of<double>(rest[3], givers);
            link.dropped_causal = rest[4].cast<bool>();
            fits = fits && link.starts != nullptr && link.starts[receivers] == array.size();
            break;
        }
    }
    const bool in_turn = link.storage == Storage::triangle || link.storage == Storage::sparse;
    if (!fits || (in_turn && (array.flags() & py::array::c_style) == 0))
        throw InvalidArgument("the capacities of a link do not fit its blocks");
    link.row_stride = link.storage == Storage::strided ? array.strides(0) : 0;
    link.column_stride = array.strides(array.ndim() - 1);
    return link;
}

Algorithm algorithm_of(const std::string& name) {
    if (name == "auto") return Algorithm::automatic;
    if (name == "dinic") return Algorithm::dinic;
    if (name == "push_relabel") return Algorithm::push_relabel;
    throw InvalidArgument("algorithm is '" + name + "'; it must be 'auto', 'dinic' or 'push_relabel'");
}

// A vector handed over to numpy: no copy, read-only.
template <class T>
py::array give(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
    auto owner = new std::vector<T>(std::move(values));
    const py::capsule release(owner, [](void* data) { delete static_cast<std::vector<T>*>(data); });
    py::array_t<T> array(std::move(shape), owner->data(), release);
    array.attr("setflags")(py::arg("write") = false);
    return array;
}

template <class Convert>
py::array as_floats(const std::vector<Units>& units, const std::vector<py::ssize_t>& shape, Convert&& convert) {
    std::vector<double> values(units.size());
    for (std::size_t i = 0; i < units.size(); ++i) values[i] = convert(units[i]);
    return give(std::move(values), shape);
}

py::dict solve_arrays(const std::vector<std::uint32_t>& sizes, const std::vector<py::tuple>& links,
                      std::vector<std::vector<Node>> sources, std::vector<std::vector<Node>> sinks,
                      const std::string& algorithm, unsigned threads, bool bottlenecks, bool cuts, bool flows,
                      bool check, py::object progress) {
    std::vector<Link> views;
    for (const py::tuple& fields : links) views.push_back(link_of(fields, sizes));
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
    const Statistics& statistics = answer.statistics;
    py::dict stats;
    stats["algorithm"] = statistics.algorithm == Algorithm::push_relabel ? "push_relabel" : "dinic";
    stats["threads"] = statistics.threads;
    stats["edges"] = statistics.edges;
    stats["quantum_exponent"] = -quantum.exponent();
    stats["searches"] = statistics.searches;
    stats["augmentations"] = statistics.augmentations;
    stats["touched_edges"] = statistics.touched;
    stats["index_bytes"] = statistics.index_bytes;
    stats["workspace_bytes"] = statistics.workspace_bytes;
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
