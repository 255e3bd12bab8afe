// The loops inside ColumnFlow (columns.hpp), over arrays of one entry a position, compiled for several instruction sets.
#pragma once

#include <vector>

#include "attnflow/capacity.hpp"
#include "lanes.hpp"

namespace attnflow {

/// Flow that changes columns: through `layer` from `giver`, who took it in at layer 0, later (from the source's column:
/// the spike), or by another transfer. One edge may have two of them.
enum class Origin : std::uint8_t { source, spike, transfer };
struct Transfer {
    std::uint32_t layer : 24;
    Origin origin : 8;
    std::uint32_t taker, giver;
    Units amount;
};

/// Capacities count as at most this here, so that eight of them can be added.
inline constexpr Units most_of_an_edge = (Units{1} << 60) - 1;
/// What has been refused over many layers counts as at most this.
inline constexpr Units most_spare = Units{1} << 61;

/// Rows of a matrix, eight capacities at a time.
class Rows {
   public:
    Rows(const CapacityIndex& capacities, std::size_t link);
    /// q of the edges from givers first ... first + 7; 0 beyond the last.
    template <class L>
    ATTNFLOW_INLINE L load(std::size_t receiver, std::size_t first) const {
        if (data_ != nullptr && first + n_lanes <= n_)
            return L::quantise(data_ + static_cast<std::ptrdiff_t>(receiver) * row_stride_ + first, scale_,
                               most_of_an_edge);
        if (packed_ != nullptr && first + n_lanes <= receiver + 1)
            return L::quantise(packed_ + before_row(receiver) + first, scale_, most_of_an_edge);
        Units some[n_lanes];
        load_any(receiver, first, some);
        return L::load(some);
    }
    ATTNFLOW_INLINE void prefetch(std::size_t receiver, std::size_t first) const {
        if (data_ != nullptr) __builtin_prefetch(data_ + static_cast<std::ptrdiff_t>(receiver) * row_stride_ + first);
        if (packed_ != nullptr && first <= receiver) __builtin_prefetch(packed_ + before_row(receiver) + first);
        if (bits_ != nullptr) __builtin_prefetch(bits_ + receiver * n_words_ + first / word_bits);
    }

   private:
    void load_any(std::size_t receiver, std::size_t first, Units* out) const;

    const CapacityIndex& capacities_;
    std::size_t link_, n_;
    const float* data_ = nullptr;    // of aligned, contiguous float32 rows, all entries stored ...
    const float* packed_ = nullptr;  // ... or those of a triangle
    const Word* bits_ = nullptr;     // of a sparse matrix: which entries there are
    std::size_t n_words_ = 0;        // of a row of them
    std::ptrdiff_t row_stride_ = 0;  // in floats
    double scale_ = 0;
};

/// Columns first ... first + n_columns - 1 of a matrix, each contiguous: column i at out + i * stride.
void copy_columns(const CapacityIndex& capacities, std::size_t link, std::size_t first, std::size_t n_columns,
                  Units* out, std::size_t stride);

/// First pass, one layer: columns give what they hold for the sink's column, and take in. All arrays [k], of n entries.
struct Intake {
    const Units *column, *into, *narrowest, *gatherable;  // of the layer
    const Units* reserve;                                 // of what is wanted, not to be kept here
    const Units *to_gather, *held, *wanted;               // so far
    Units *to_gather_after, *held_after, *wanted_after;
    Units *departure, *arrival;
};
struct IntakeTotals {
    Units gathered = 0, arrived = 0, departed = 0;
};
/// `wide`: held is all that ever entered; else what is kept for the last layer, to which to_gather is added.
/// `room`, `left`: limits of what is gathered and of all that arrives, first come first served.
IntakeTotals intake(std::size_t n, bool wide, const Intake& layer, Units room, Units left);
/// The same, one position at a time.
IntakeTotals intake_plain(std::size_t n, bool wide, const Intake& layer, Units room, Units left);

/// stock += arrival - departure; slack = straight - stock.
void carry(std::size_t n, const Units* arrival, const Units* departure, const Units* straight, Units* stock,
           Units* slack);
/// a = min(a, b); out = min(a, b).
void lower(std::size_t n, Units* a, const Units* b);
void least(std::size_t n, const Units* a, const Units* b, Units* out);
/// a += b - c, at least 0 and at most most_spare
void add_difference(std::size_t n, Units* a, const Units* b, const Units* c);

/// As much of `stock` as edges of capacity `into` still take beside `departure` is added to it; returns how much that is.
Units give(std::size_t n, Units* stock, const Units* into, Units* departure);

/// What columns want of others through one layer, [k] up to a multiple of n_lanes, and what limits them.
struct Takers {
    Units *gather, *keep;  // what they want: for the sink's column, which comes first, and for themselves
    Units gather_room;     // what the sink's column can take of all of them
    const Units* ahead;    // what fits through the straight edges ahead of them ...
    Units* added;          // ... where so much was added already
    Units limit;           // what all takers together may take
    Units* gathered;       // what they took for the sink's column
};

/// Those that want something and can hold it.
void find_takers(std::size_t n, const Takers& of, std::vector<std::uint32_t>& takers);

/// Columns pass to each other through one layer: eight givers at a time, all takers that still want something.
struct Sweep {
    const Rows& rows;
    std::uint32_t layer;
    // Of the givers, [k], up to a multiple of n_lanes.
    Units *direct, *spike;  // to give: taken in at layer 0, later
    Units* spike_used;
    const Units* behind;                      // what fits through the straight edges behind them ...
    Units* added;                             // ... where so much was added already
    Units spike_room;                         // what the source's column can still carry for all of them
    const std::vector<std::uint32_t>& order;  // of the eights
    std::vector<std::uint32_t>& takers;
    Takers& to;
    std::uint32_t* next;     // [k] where in that order the row's next walk starts: an edge is used once
    Units* taken = nullptr;  // [giver], for a sweep with a single taker
    std::vector<Transfer>* log = nullptr;
};
/// Returns what was passed; `to`, `direct`, `spike`, `added` (of the givers) and `spike_room` are brought up to date.
Units run(Sweep& sweep);
/// The same with plain arrays for lanes.
Units run_plain(Sweep& sweep);

/// One column passes to all others through one layer, eight takers at a time: where it has to give what takes many edges.
struct Pour {
    const Units* column;  // [k] capacities out of the giver; 0 for k = giver
    std::uint32_t layer, giver;
    Units direct, spike;  // to give, together at most `most`
    Units most;
    Takers& to;
    std::vector<Transfer>* log = nullptr;
};
/// Returns what was passed, of `direct` first; `to` is brought up to date.
Units pour_out(std::size_t n, const Pour& pour);
Units pour_out_plain(std::size_t n, const Pour& pour);

}  // namespace attnflow
