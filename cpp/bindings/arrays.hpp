// What goes over the border: capacities where numpy has them, results as read-only arrays, progress and Ctrl-C.
//
// The caller holds the arrays alive for the length of a call, so the GIL is released while the kernel works; it is taken back
// a few times a second to look for Ctrl-C and to report progress.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "attnflow/max_flow.hpp"
#include "attnflow/network.hpp"

namespace py = pybind11;

class PythonMonitor final : public attnflow::Monitor {
   public:
    explicit PythonMonitor(py::object progress) : progress_(std::move(progress)) {}
    void tick(std::uint64_t done, std::uint64_t total) override;

   private:
    py::object progress_;
};

/// Links given as (giver, receiver, array, offset, storage). storage None: a matrix (n_receiver, n_giver), or a vector
/// (n_giver,) for a diagonal. Else the array holds stored entries, contiguous: True: a triangle's; (starts, columns,
/// dropped_in, dropped_out, causal): a sparse matrix's. Throws InvalidArgument.
std::vector<attnflow::Link> links_of(const std::vector<py::tuple>& links, const std::vector<std::uint32_t>& sizes);

py::dict stats_of(const attnflow::Statistics& statistics, const attnflow::Quantum& quantum);

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
py::array as_floats(const std::vector<attnflow::Units>& units, const std::vector<py::ssize_t>& shape,
                    Convert&& convert) {
    std::vector<double> values(units.size());
    for (std::size_t i = 0; i < units.size(); ++i) values[i] = convert(units[i]);
    return give(std::move(values), shape);
}
