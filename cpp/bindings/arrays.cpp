#include "arrays.hpp"

#include <string>

#include "attnflow/entries.hpp"
#include "attnflow/errors.hpp"

using namespace attnflow;

namespace {

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

}  // namespace

void PythonMonitor::tick(std::uint64_t done, std::uint64_t total) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!progress_.is_none()) progress_(done, total);
}

std::vector<Link> links_of(const std::vector<py::tuple>& links, const std::vector<std::uint32_t>& sizes) {
    std::vector<Link> views;
    for (const py::tuple& fields : links) views.push_back(link_of(fields, sizes));
    return views;
}

py::dict stats_of(const Statistics& statistics, const Quantum& quantum) {
    py::dict stats;
    stats["threads"] = statistics.threads;
    stats["edges"] = statistics.edges;
    stats["quantum_exponent"] = -quantum.exponent();
    stats["searches"] = statistics.searches;
    stats["augmentations"] = statistics.augmentations;
    stats["touched_edges"] = statistics.touched;
    stats["index_bytes"] = statistics.index_bytes;
    stats["workspace_bytes"] = statistics.workspace_bytes;
    return stats;
}
