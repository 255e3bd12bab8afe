// Where capacities lie in memory: the one place that knows how a link is stored.
//
// Whatever the storage, the entries of a row that are stored at all lie evenly spaced; what differs is where they begin,
// how many they are, and which givers they belong to. An edge that is not stored has no capacity.
#pragma once

#include <algorithm>
#include <cstring>

#include "attnflow/network.hpp"

namespace attnflow {

/// An entry's value. memcpy: strided views need not be aligned.
template <class T>
inline T load(const std::byte* where) {
    T value;
    std::memcpy(&value, where, sizeof(T));
    return value;
}

inline std::size_t bytes_of(Scalar scalar) { return scalar == Scalar::float64 || scalar == Scalar::int64 ? 8 : 4; }

/// Entries of a triangle before row j.
constexpr std::size_t before_row(std::size_t j) { return j * (j + 1) / 2; }

/// The first byte of an entry of a strided link.
inline const std::byte* entry_of_strided(const Link& link, std::size_t receiver, std::size_t giver) {
    return link.data + static_cast<std::ptrdiff_t>(receiver) * link.row_stride +
           static_cast<std::ptrdiff_t>(giver) * link.column_stride;
}

/// The first byte of an entry, or nullptr where it is not stored. Of a diagonal, `giver` alone counts.
inline const std::byte* entry(const Link& link, std::size_t receiver, std::size_t giver) {
    switch (link.storage) {
        case Storage::strided: return entry_of_strided(link, receiver, giver);
        case Storage::diagonal: return entry_of_strided(link, 0, giver);
        case Storage::triangle:
            return giver > receiver ? nullptr : link.data + (before_row(receiver) + giver) * bytes_of(link.scalar);
        case Storage::sparse: break;
    }
    const std::uint32_t* const end = link.columns + link.starts[receiver + 1];
    const std::uint32_t* const found = std::lower_bound(link.columns + link.starts[receiver], end, giver);
    if (found == end || *found != giver) return nullptr;
    return link.data + static_cast<std::size_t>(found - link.columns) * bytes_of(link.scalar);
}

/// What is stored of a row: entry i, `step` bytes behind entry i - 1, is the capacity from giver(i); givers ascend.
struct StoredRow {
    const std::byte* first = nullptr;
    std::ptrdiff_t step = 0;
    std::size_t n = 0;
    const std::uint32_t* columns = nullptr;  // nullptr: from givers 0 ... n - 1

    std::size_t giver(std::size_t i) const { return columns != nullptr ? columns[i] : i; }
    const std::byte* entry(std::size_t i) const { return first + static_cast<std::ptrdiff_t>(i) * step; }
};

/// Not of a diagonal.
inline StoredRow stored_row(const Link& link, std::size_t receiver, std::size_t n_givers) {
    const std::size_t size = bytes_of(link.scalar);
    const auto step = static_cast<std::ptrdiff_t>(size);
    if (link.storage == Storage::triangle)
        return {link.data + before_row(receiver) * size, step, receiver + 1, nullptr};
    if (link.storage == Storage::sparse) {
        const auto first = static_cast<std::size_t>(link.starts[receiver]);
        const auto end = static_cast<std::size_t>(link.starts[receiver + 1]);
        return {link.data + first * size, step, end - first, link.columns + first};
    }
    return {entry(link, receiver, 0), link.column_stride, n_givers, nullptr};
}

}  // namespace attnflow
