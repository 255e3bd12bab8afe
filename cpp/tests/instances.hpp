// Networks for tests: memory that a Network can view, in every layout that numpy can hand over, and seeded families.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "attnflow/max_flow.hpp"

namespace attnflow::testing {

/// SplitMix64: the same numbers on every platform, which std:: distributions are not.
class Random {
   public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    }
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(next() % n); }
    std::uint32_t between(std::uint32_t low, std::uint32_t high) { return low + below(high - low + 1); }
    bool chance(double p) { return uniform() < p; }
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

   private:
    std::uint64_t state_;
};

/// How a matrix lies in memory.
enum class Layout : std::uint8_t {
    row_major,
    column_major,  // Fortran order
    reversed,      // [::-1, ::-1]: both strides negative
    mirrored,      // [:, ::-1]
    gapped,        // every third column and every second row of a larger matrix
    unaligned,     // one byte off, rows of odd length
    broadcast,     // column stride 0; all entries of a row must be equal
    packed,        // Storage::triangle where that can hold the entries, else row_major
    sparse         // Storage::sparse, every other zero stored
};
inline constexpr Layout layouts[] = {Layout::row_major, Layout::column_major, Layout::reversed, Layout::mirrored,
                                     Layout::gapped,    Layout::unaligned,    Layout::packed,   Layout::sparse};

template <class T>
constexpr Scalar scalar_of() {
    if constexpr (std::is_same_v<T, float>) return Scalar::float32;
    if constexpr (std::is_same_v<T, double>) return Scalar::float64;
    if constexpr (std::is_same_v<T, std::int32_t>) return Scalar::int32;
    return Scalar::int64;
}

/// Calls visit(T{}) with the type of a scalar.
template <class Visit>
void with_type(Scalar scalar, Visit&& visit) {
    switch (scalar) {
        case Scalar::float32: return visit(float{});
        case Scalar::float64: return visit(double{});
        case Scalar::int32: return visit(std::int32_t{});
        case Scalar::int64: return visit(std::int64_t{});
    }
}

inline constexpr Scalar scalars[] = {Scalar::float32, Scalar::float64, Scalar::int32, Scalar::int64};
inline constexpr double infinity = std::numeric_limits<double>::infinity();

/// Owns the memory of links. Buffers are exactly as large as their views, so that an address sanitizer sees every step
/// outside them.
class Store {
   public:
    explicit Store(std::vector<std::uint32_t> sizes) : sizes_(std::move(sizes)) {}

    /// A dense link; value(receiver, giver) gives its entries.
    template <class T, class Value>
    Store& dense(std::uint32_t giver, std::uint32_t receiver, Value&& value, Layout layout = Layout::row_major) {
        const std::size_t rows = sizes_.at(receiver), columns = sizes_.at(giver);
        std::vector<T> values;
        bool lower = rows == columns;
        for (std::size_t j = 0; j < rows; ++j)
            for (std::size_t k = 0; k < columns; ++k) {
                values.push_back(static_cast<T>(value(static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(k))));
                lower = lower && (k <= j || values.back() == T{0});
            }
        if (layout == Layout::packed && !lower) layout = Layout::row_major;
        std::size_t n_zeros = 0;
        const auto stored = [&](std::size_t j, std::size_t k) {
            if (layout == Layout::packed) return k <= j;
            return layout != Layout::sparse || values[j * columns + k] != T{0} || ++n_zeros % 2 == 0;
        };
        Link link = layout == Layout::packed || layout == Layout::sparse
                        ? place_in_turn(rows, columns, sizeof(T), layout, stored)
                        : place(rows, columns, sizeof(T), layout);
        link.giver = giver;
        link.receiver = receiver;
        link.scalar = scalar_of<T>();
        for (std::size_t j = 0; j < rows; ++j)
            for (std::size_t k = 0; k < columns; ++k)
                if (entry(link, j, k) != nullptr) put(link, j, k, values[j * columns + k]);
        links_.push_back(link);
        return *this;
    }

    /// A diagonal giver k -> receiver k + offset; value(k) gives its entries.
    template <class T, class Value>
    Store& diagonal(std::uint32_t giver, std::uint32_t receiver, std::int64_t offset, Value&& value,
                    Layout layout = Layout::row_major) {
        Link link = place(1, sizes_.at(giver), sizeof(T), layout);
        link.giver = giver;
        link.receiver = receiver;
        link.scalar = scalar_of<T>();
        link.storage = Storage::diagonal;
        link.offset = offset;
        for (std::uint32_t k = 0; k < sizes_.at(giver); ++k) put(link, 0, k, static_cast<T>(value(k)));
        links_.push_back(link);
        return *this;
    }

    /// The same, but of matrices, edges are dropped with probability p, except the straight and the unbounded: Storage::sparse
    /// with sums of what was dropped.
    Store thinned(double p, Random& random) const;

    Network network() const { return Network(sizes_, links_); }
    std::vector<Link>& links() { return links_; }

   private:
    Link place(std::size_t rows, std::size_t columns, std::size_t item, Layout layout) {
        const auto n = static_cast<std::ptrdiff_t>(columns), m = static_cast<std::ptrdiff_t>(rows);
        const auto step = static_cast<std::ptrdiff_t>(item);
        std::ptrdiff_t row = n * step, column = step, origin = 0, bytes = m * n * step;
        switch (layout) {
            case Layout::row_major: break;
            case Layout::column_major: row = step, column = m * step; break;
            case Layout::reversed: row = -n * step, column = -step, origin = bytes - step; break;
            case Layout::mirrored: column = -step, origin = (n - 1) * step; break;
            case Layout::gapped:
                column = 3 * step, row = 2 * n * column, bytes = (m - 1) * row + (n - 1) * column + step;
                break;
            case Layout::unaligned: row = n * step + 1, origin = 1, bytes = m * row; break;
            case Layout::broadcast: row = step, column = 0, bytes = m * step; break;
            case Layout::packed:
            case Layout::sparse: break;  // of diagonals: they have no such storage
        }
        buffers_.emplace_back(static_cast<std::size_t>(bytes), std::byte{0x5A});
        Link link;
        link.data = buffers_.back().data() + origin;
        link.row_stride = row;
        link.column_stride = column;
        return link;
    }

    // Entries in turn, row by row, of those that are `stored`, each asked for once.
    template <class Stored>
    Link place_in_turn(std::size_t rows, std::size_t columns, std::size_t item, Layout layout, Stored&& stored) {
        std::vector<std::int64_t> starts{0};
        std::vector<std::uint32_t> givers;
        for (std::size_t j = 0; j < rows; ++j) {
            for (std::size_t k = 0; k < columns; ++k)
                if (stored(j, k)) givers.push_back(static_cast<std::uint32_t>(k));
            starts.push_back(static_cast<std::int64_t>(givers.size()));
        }
        buffers_.emplace_back(givers.size() * item, std::byte{0x5A});
        Link link;
        link.storage = layout == Layout::packed ? Storage::triangle : Storage::sparse;
        link.data = buffers_.back().data();
        if (layout == Layout::packed) return link;
        starts_.push_back(std::move(starts));
        givers_.push_back(std::move(givers));
        link.starts = starts_.back().data();
        link.columns = givers_.back().data();
        return link;
    }

    template <class T>
    static void put(const Link& link, std::size_t j, std::size_t k, T value) {
        // The store owns the memory that the link may only read.
        std::memcpy(const_cast<std::byte*>(entry(link, j, k)), &value, sizeof value);
    }

    std::vector<std::uint32_t> sizes_;
    std::deque<std::vector<std::byte>> buffers_;
    std::deque<std::vector<std::int64_t>> starts_;
    std::deque<std::vector<std::uint32_t>> givers_;
    std::deque<std::vector<double>> sums_;
    std::vector<Link> links_;
};

/// Orders of magnitude, and what is common in them.
enum class Profile : std::uint8_t {
    fractions,  // float, about 1
    peaked,     // float, 2^-u with u uniform up to 60: quantisation rounds
    ties,       // small whole numbers, many zeros
    tiny,       // near the smallest a float of the type holds
    huge,       // near the largest
    wide        // integers up to 2^30 and 2^50
};
inline constexpr Profile profiles[] = {Profile::fractions, Profile::peaked, Profile::ties,
                                       Profile::tiny,      Profile::huge,   Profile::wide};

/// One capacity of a profile; profiles that make no sense for T fall back to ties.
template <class T>
T draw(Profile profile, Random& random) {
    if constexpr (std::is_floating_point_v<T>) {
        constexpr T smallest = std::numeric_limits<T>::denorm_min(), largest = std::numeric_limits<T>::max();
        const auto u = static_cast<T>(random.uniform());
        switch (profile) {
            case Profile::fractions: return u;
            case Profile::peaked: return static_cast<T>(std::exp2(-60.0 * random.uniform()));
            case Profile::tiny: return smallest * static_cast<T>(random.below(1000));
            case Profile::huge: return u * (largest / static_cast<T>(65536));
            case Profile::ties:
            case Profile::wide: break;
        }
    } else if (profile == Profile::wide) {
        const double top = sizeof(T) == 4 ? 0x1p30 : 0x1p50;
        return static_cast<T>(random.uniform() * top);
    }
    return static_cast<T>(random.below(5));
}

enum class Family : std::uint8_t {
    layered_dense,
    layered_causal,
    layered_sparse,
    block_diagonal,
    residual_stream,  // strong straight edges, as half attention, half identity
    two_stacks,       // such layers below others that all look at their top, and perhaps a pool
    ragged_layers,    // blocks of different sizes
    block_dag,        // links between any two blocks, forwards
    cyclic,           // links between any two blocks
    diagonals,        // diagonals with offsets beside dense links; zeros and unbounded entries among them
    one_block_wide    // many blocks of a few nodes: long paths
};
inline constexpr Family families[] = {Family::layered_dense,  Family::layered_causal,  Family::layered_sparse,
                                      Family::block_diagonal, Family::residual_stream, Family::ragged_layers,
                                      Family::block_dag,      Family::cyclic,          Family::diagonals,
                                      Family::one_block_wide, Family::two_stacks};

const char* name(Family family);
const char* name(Profile profile);
const char* name(Scalar scalar);

/// A network of a family, about `width` nodes a block, all links of one scalar and of random layouts.
Store random_network(Family family, Profile profile, Scalar scalar, std::uint32_t width, Random& random);

/// Some single nodes and some sets of the first and last block (or of any, `anywhere`), disjoint.
Query random_query(const Network& network, bool anywhere, Random& random);

}  // namespace attnflow::testing
