// The residual network of one solve: the shared capacities minus the flow of this solve, and the way back.
//
// Problem. A maximum flow from one source touches about ten edges a node, out of hundreds: copying the capacities for
// every source would cost more than solving. So the capacities stay shared and read-only, and a solve keeps
//
//   straight_  the flow on every straight edge, k -> k of a square dense link, as a plain array: in residual networks
//              these are most of the edges a flow uses, and need neither a search nor a list;
//   edges_     a record for each other edge that ever carried flow: flow, capacity, ends, and two list links;
//   slots_     an open-addressing hash table from (row, giver) to the record;
//   rows       where an edge fell below the current threshold, a private copy of its row of bits, that bit cleared.
//
// reset() walks the records and undoes them, so a solve costs what it touched, not what the network holds (the straight
// flows are cleared whole: 8 bytes a node). It goes back to the empty flow, or to the base: a flow that many solves start
// from (shared_flow.hpp), at the finest scale. The base has bits of its own, and records that stay.
//
// Orientation. Rows belong to receivers, and rows are contiguous. The searches therefore run *against* the edges: they
// stand at a node, look along its row for givers with capacity left, and end at the source. Standing at v, the
// residual arcs are (1) an edge k -> v with capacity left, found in the bits of v's rows, and (2) an edge v -> w that
// carries flow, found in v's list of outgoing records or among the straight flows: cancelling it frees what v sent to w.
//
// Invariants. 0 <= flow <= capacity on every edge. row(...) has bit k set exactly where the edge k -> receiver has
// a residual of at least threshold().
#pragma once

#include <cstdint>
#include <vector>

#include "attnflow/capacity.hpp"
#include "attnflow/max_flow.hpp"

namespace attnflow {

struct TouchedEdge {
    Units flow;
    Units capacity;
    Node giver;
    std::uint32_t row;                // (link, receiver), see Network::first_row
    std::uint32_t next_in, next_out;  // next record into the same receiver / out of the same giver; 0 ends
};

class Residual {
   public:
    using EdgeId = std::uint32_t;  // index into the records; 0 is "untouched"

    /// What the searches need of a link, side by side.
    struct LinkView {
        const Word* shared;        // bits of row 0 at the current scale; nullptr for a diagonal
        const std::uint32_t* own;  // [receiver] 1 + first private word of the row, or 0
        Units* straight_flow;      // [position] flow on the edge position -> position, or nullptr: not square
        const Units* straight;     // [position] its capacity
        Node first_giver, first_receiver;
        std::uint32_t first_row;
        std::uint32_t receiver_word;  // of a node set
        std::uint32_t n_words;
        std::uint32_t giver_block;
        std::uint32_t n_givers;
        bool diagonal;
        bool is_float32;  // and all of it stored
        std::int64_t offset;
        const std::byte* data;  // as in Link
        std::ptrdiff_t row_stride, column_stride;
    };

    /// An edge as it stands: its record, and what it can still take. Straight edges have no record of their own.
    struct Edge {
        EdgeId record;
        Units left;
    };
    static constexpr EdgeId straight_edge = ~EdgeId{0};

    explicit Residual(const CapacityIndex& capacities);

    const CapacityIndex& capacities() const { return capacities_; }
    const Network& network() const { return capacities_.network(); }
    const LinkView& link(std::size_t link) const { return links_[link]; }

    /// Back to the base, which is the empty flow unless set_base() said otherwise. O(touched).
    void reset();
    /// From here on reset() goes back to the flow as it is now, and there is only the finest scale. O(touched); the first
    /// time one bit an edge.
    void set_base();
    /// Back to the empty flow, for good.
    void drop_base();
    bool has_base() const { return !base_bits_.empty(); }

    /// Makes rows speak of residuals >= threshold(scale). Scales are entered from coarse to fine. O(touched).
    void set_scale(std::size_t scale);
    Units threshold() const { return threshold_; }

    /// All rows of a link, side by side. Valid until the next push.
    struct Rows {
        const Word* shared;
        const std::uint32_t* own;
        const Word* own_words;
        std::size_t n_words;
        const Word* operator[](std::size_t receiver) const {
            return own[receiver] != 0 ? own_words + (own[receiver] - 1) : shared + receiver * n_words;
        }
    };
    Rows rows(const LinkView& link) const { return {link.shared, link.own, own_words_.data(), link.n_words}; }

    /// Givers of a receiver position with residual >= threshold(). Valid until the next push.
    const Word* row(const LinkView& link, std::size_t receiver) const { return rows(link)[receiver]; }

    /// From here on column() tells what row() tells, at this scale: one bit an edge more. For searches along the edges.
    void keep_columns();
    /// Receivers of a giver position with residual >= threshold(). Valid until the next push.
    const Word* column(std::size_t link, std::size_t giver) const {
        return columns_.data() + column_rows_[link].first_word + giver * column_rows_[link].n_words;
    }

    /// The edge giver -> receiver (positions) of a link.
    Edge edge(std::size_t link, std::size_t receiver, std::size_t giver) const {
        const LinkView& view = links_[link];
        if (receiver == giver && view.straight_flow != nullptr)
            return {straight_edge, view.straight[giver] - view.straight_flow[giver]};
        if (first_in_[view.first_receiver + receiver] != 0) {
            const EdgeId id = find(view.first_row + static_cast<std::uint32_t>(receiver),
                                   view.first_giver + static_cast<Node>(giver));
            if (id != 0) return {id, edges_[id].capacity - edges_[id].flow};
        }
        if (!view.is_float32) return {0, capacities_.at(link, receiver, giver)};
        return {0, quantum_.floor(static_cast<double>(
                       load<float>(view.data + static_cast<std::ptrdiff_t>(receiver) * view.row_stride +
                                   static_cast<std::ptrdiff_t>(giver) * view.column_stride)))};
    }

    /// Sends `amount` <= edge.left along an edge, looked up by edge() and unchanged since.
    void push(std::size_t link, std::size_t receiver, std::size_t giver, Edge edge, Units amount);
    /// Puts flow on an edge of that capacity that has none yet, ahead of the searches: rows heed it from the next
    /// set_scale() on.
    void preload(std::size_t link, std::size_t receiver, std::size_t giver, Units amount, Units capacity);
    /// Takes `amount` <= flow off an edge that has a record, or off a straight edge.
    void cancel(EdgeId id, Units amount);
    void cancel_straight(std::size_t link, std::size_t position, Units amount);

    /// Forgets the records of edges that carry nothing any more, where there is no base. O(nodes + records).
    void drop_idle();
    std::size_t n_records() const { return edges_.size(); }

    /// Flow on the straight edge of a link at a position, 0 where there is none.
    Units straight_flow(std::size_t link, std::size_t position) const {
        const LinkView& view = links_[link];
        return view.straight_flow != nullptr ? view.straight_flow[position] : 0;
    }

    const TouchedEdge& touched(EdgeId id) const { return edges_[id]; }
    Node receiver(const TouchedEdge& edge) const {
        const LinkView& link = links_[link_of_row_[edge.row]];
        return link.first_receiver + (edge.row - link.first_row);
    }
    /// Nodes that flow entered at some time since reset(), as a set of Network::n_words() words.
    const Word* ever_entered() const { return entered_.data(); }
    EdgeId first_in(Node node) const { return first_in_[node]; }
    EdgeId first_out(Node node) const { return first_out_[node]; }
    /// Edges whose flow has changed since reset(): straight ones that had none, and others.
    std::size_t n_touched() const { return edges_.size() - n_base_ + changed_.size() + n_straight_touched_; }
    /// The flow of every edge that ever carried some.
    std::vector<EdgeFlow> flows() const;

    /// Of memory written so far.
    std::size_t bytes() const;

   private:
    std::size_t slot_of(std::uint32_t row, Node giver) const {
        const std::uint64_t key = std::uint64_t{row} << 32 | giver;
        return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15ULL >> shift_);
    }
    EdgeId find(std::uint32_t row, Node giver) const {
        for (std::size_t slot = slot_of(row, giver);; slot = (slot + 1) & slot_mask_) {
            const EdgeId id = slots_[slot];
            if (id == 0 || (edges_[id].row == row && edges_[id].giver == giver)) return id;
        }
    }
    EdgeId insert(const LinkView& link, std::size_t receiver, std::size_t giver, Units capacity);
    void place(EdgeId id);
    Word* own_row(const LinkView& link, std::size_t receiver);
    void set_row_bit(std::size_t link, std::size_t receiver, std::size_t giver, bool on);
    void refresh_row(std::uint32_t row);
    void change_record(EdgeId id, Units amount) {
        if (id < n_base_ && edges_[id].flow == base_flow_[id]) changed_.push_back(id);
        edges_[id].flow += amount;
    }
    void share_all_rows();
    void note_entered(const LinkView& link, std::size_t receiver) {
        set_bit(entered_.data() + link.receiver_word, receiver);
    }
    void note_peak();

    const CapacityIndex& capacities_;
    Quantum quantum_;  // a copy: capacities are read in the innermost loop
    std::size_t scale_ = 0;
    bool stale_ = true;  // whether rows do not speak of the scale's threshold yet
    Units threshold_ = 1;
    std::vector<LinkView> links_;
    std::vector<Units> straight_;  // [link][position], square dense links
    std::size_t n_straight_touched_ = 0;
    bool straight_changed_ = false;
    std::vector<TouchedEdge> edges_;            // [0] unused
    std::size_t n_base_ = 1;                    // records below are the base's, and stay
    std::vector<Units> base_flow_;              // [record]
    std::vector<Units> base_straight_;          // as straight_
    std::vector<EdgeId> changed_;               // records of the base with another flow by now
    std::vector<Word> base_bits_;               // as CapacityIndex::bits() at the finest scale; empty: no base
    std::vector<std::size_t> base_first_word_;  // [link] in base_bits_
    std::size_t most_edges_ = 1, most_own_words_ = 0;
    std::vector<EdgeId> slots_;                 // power of two, at most 2/3 full
    std::size_t slot_mask_ = 0;                 // slots - 1
    unsigned shift_ = 0;                        // 64 - log2(slots)
    std::vector<EdgeId> first_in_, first_out_;  // [node]
    std::vector<std::uint32_t> own_row_;        // [row] 1 + first word in own_words_, 0 = shared
    std::vector<Word> entered_, base_entered_;  // see ever_entered()
    std::vector<Word> own_words_;
    std::vector<Word> columns_;  // [link][giver][word]; empty: not kept
    struct Columns {
        std::size_t first_word = 0, n_words = 0;
    };
    std::vector<Columns> column_rows_;        // [link]; beside LinkView, which all searches index, to keep that small
    std::vector<std::uint32_t> rows_owned_;   // rows with a private copy
    std::vector<std::uint32_t> link_of_row_;  // [row]
};

}  // namespace attnflow
