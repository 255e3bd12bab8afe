// Capacities as the algorithms see them: integers, counted in quanta, and indexed by bits.
//
// Problem. Capacities arrive as floating point (or integers) of any scale. Augmenting in floating point loses the
// certificate: sums round, "saturated" becomes a tolerance. So every capacity c is read as the integer
//
//     q(c) = floor(c * 2^K)                                 (quanta of size 2^-K)
//
// and everything after that is exact. K is the largest exponent for which no flow of the query can reach 2^62: with B
// the largest sum of capacities into one of the sinks (or, where that is unbounded, the sum of all finite capacities),
// K = 61 - ceil(log2 B). float32 capacities above 2^-36 B lose nothing. The floored maximum flow is feasible in the
// original capacities; its minimum cut, plus one quantum for every cut edge that was rounded, bounds them from above.
// Integer networks use K = 0 and are exact, or refused.
//
// Storage. Capacities stay where the caller has them and are quantised when they are touched: one multiplication,
// cheaper than the cache miss it follows. What is added is one bit an edge for each of n_scales thresholds, "q(c) is at
// least this", 1/32 of a float32 matrix each: the searches read only bits. Diagonals of square links, which carry most
// of the flow in residual networks, are also kept quantised and contiguous.
//
// Invariants. bits(s, ...) are nested: a bit set at a coarse scale is set at every finer one. threshold(n_scales - 1)
// == 1, so the finest bits are exactly the edges of positive capacity.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "attnflow/entries.hpp"
#include "attnflow/network.hpp"

namespace attnflow {

/// Called every few microseconds of a long pass. May throw, which ends the pass.
using Pause = std::function<void()>;

/// What one streaming pass over the capacities finds out. Throws InvalidCapacity at the first NaN or negative one, and
/// InvalidArgument where some links are integer and some floating point: they share one quantum.
struct CapacitySurvey {
    explicit CapacitySurvey(const Network& network, const Pause& pause = {}, unsigned threads = 1);

    std::vector<double> row_sum;  // [row] sum of one (link, receiver) row, dropped edges included; infinity allowed
    double largest = 0;           // largest finite capacity
    double smallest = std::numeric_limits<double>::infinity();  // smallest positive one
    double total = 0;                                           // sum of the finite capacities, dropped edges included
    bool integers = true;                                       // every link holds integers
};

/// Quanta of 2^-exponent.
class Quantum {
   public:
    Quantum() = default;
    /// For flows that stay at or below `flow_bound`, of which up to `parallel` may be asked for at one node at once;
    /// integers fix the exponent at 0. Throws CapacityOverflow.
    Quantum(double flow_bound, double parallel, bool integers);

    int exponent() const { return exponent_; }
    /// No finite maximum flow exceeds this.
    Units flow_limit() const { return flow_limit_; }

    Units floor(double c) const {
        const double x = in_quanta(c);
        return x >= static_cast<double>(unbounded) ? unbounded : static_cast<Units>(x);
    }
    Units floor(std::int64_t c) const { return c < unbounded ? c : unbounded; }
    /// The least number of quanta that is no less than c >= 0.
    Units ceil(double c) const {
        if (exact(c)) return floor(c);
        return std::min(floor(c) + 1, unbounded);
    }
    bool exact(double c) const {
        const double x = in_quanta(c);
        if (x >= static_cast<double>(unbounded)) return true;
        return static_cast<double>(static_cast<Units>(x)) == x && (x > 0 || c == 0);  // x may have underflowed
    }

    /// Whether quanta are a plain product, c * factor() before rounding down; false for scales beyond float64.
    bool has_factor() const { return exponent_ <= 1000; }
    double factor() const { return scale_; }

    /// The float64 at or below / nearest to / at or above `units` quanta.
    double lower(Units units) const;
    double nearest(Units units) const;
    double upper(Units units) const;

   private:
    // Subnormal capacities can need factors beyond float64.
    double in_quanta(double c) const { return exponent_ <= 1000 ? c * scale_ : std::ldexp(c, exponent_); }

    int exponent_ = 0;
    double scale_ = 1.0;  // 2^exponent_, where that is a float64
    Units flow_limit_ = unbounded - 1;
};

class CapacityIndex {
   public:
    static constexpr std::size_t n_scales = 2;

    CapacityIndex(const Network& network, const CapacitySurvey& survey, const Quantum& quantum, const Pause& pause = {},
                  unsigned threads = 1);

    const Network& network() const { return network_; }
    const Quantum& quantum() const { return quantum_; }
    Units threshold(std::size_t scale) const { return thresholds_[scale]; }

    /// Givers k of a matrix's row with q(c) >= threshold(scale): words(giver block) words.
    const Word* bits(std::size_t scale, std::size_t link, std::size_t receiver) const {
        const LinkIndex& index = index_[link];
        return bits_.data() + index.first_word + (scale * index.rows + receiver) * index.words;
    }

    /// q of the edge giver -> receiver (positions). For a diagonal, `giver` must be receiver - offset.
    Units at(std::size_t link, std::size_t receiver, std::size_t giver) const {
        const LinkIndex& index = index_[link];
        if (receiver == giver && !index.straight.empty()) return index.straight[giver];
        const Link& view = network_.links()[link];
        return view.storage == Storage::strided ? read(view.scalar, entry_of_strided(view, receiver, giver))
                                                : read_stored(link, receiver, giver);
    }

    /// q of the edges into one receiver of a matrix from givers first ... first + n - 1.
    void stretch(std::size_t link, std::size_t receiver, std::size_t first, std::size_t n, Units* out) const;

    /// q of all edges into one receiver / out of one giver of a matrix; `out` holds one entry a giver / receiver.
    void row(std::size_t link, std::size_t receiver, Units* out) const;
    void column(std::size_t link, std::size_t giver, Units* out) const;

    /// q of the edges k -> k of a square matrix, or of a diagonal of offset 0; empty otherwise.
    const std::vector<Units>& straight(std::size_t link) const { return index_[link].straight; }

    /// Positions of a square matrix whose straight edge has a capacity; nullptr for other links.
    const Word* straight_bits(std::size_t link) const {
        return index_[link].straight_bits.empty() ? nullptr : index_[link].straight_bits.data();
    }

    /// Words of a matrix's rows that hold any capacity: of all rows 64 * group ... 64 * group + 63. In a causal matrix
    /// that is half of them.
    struct Range {
        std::uint32_t low = 0, high = 0;  // low <= word < high
    };
    Range extent(std::size_t link, std::size_t group) const { return index_[link].extents[group]; }

    /// Whether that capacity was an exact number of quanta.
    bool exact(std::size_t link, std::size_t receiver, std::size_t giver) const;

    /// Whether every capacity of the network was: then every answer's interval has no width.
    bool all_exact() const { return all_exact_; }

    /// Positive capacities below one quantum: no flow uses them, but an upper bound must count them.
    std::uint64_t n_vanished() const { return n_vanished_; }

    std::size_t bytes() const;

   private:
    struct LinkIndex {
        std::size_t first_word = 0, rows = 0, words = 0;
        std::vector<Units> straight;      // q(C[k, k]) of a square matrix, or of a diagonal with offset 0
        std::vector<Word> straight_bits;  // straight[k] > 0; matrices only
        std::vector<Range> extents;       // [receiver / 64]; matrices only
        bool exact = true;                // every capacity is a whole number of quanta
        std::uint64_t n_vanished = 0;     // see n_vanished()
    };
    void index_link(std::size_t e, const CapacitySurvey& survey, const Pause& pause);
    Units read(Scalar scalar, const std::byte* where) const;
    Units read_stored(std::size_t link, std::size_t receiver, std::size_t giver) const;

    const Network& network_;
    Quantum quantum_;
    std::array<Units, n_scales> thresholds_{};
    std::vector<LinkIndex> index_;  // [link]
    std::vector<Word> bits_;        // [link][scale][receiver][word]
    bool all_exact_ = true;
    std::uint64_t n_vanished_ = 0;
};

inline Units CapacityIndex::read(Scalar scalar, const std::byte* where) const {
    switch (scalar) {
        case Scalar::float32: return quantum_.floor(static_cast<double>(load<float>(where)));
        case Scalar::float64: return quantum_.floor(load<double>(where));
        case Scalar::int32: return load<std::int32_t>(where);
        case Scalar::int64: return quantum_.floor(load<std::int64_t>(where));
    }
    return 0;
}

}  // namespace attnflow
