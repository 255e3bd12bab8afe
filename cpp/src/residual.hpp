// The residual network of one solve: the shared capacities minus the flow of this solve, and the way back.
//
// Problem. A maximum flow from one source touches about ten edges a node, out of hundreds: copying the capacities for
// every source would cost more than solving. So the capacities stay shared and read-only, and a solve keeps
//
//   edges_   a record for each edge that ever carried flow: flow, capacity, ends, and two list links;
//   slots_   an open-addressing hash table from (row, giver) to the record;
//   rows     where an edge fell below the current threshold, a private copy of its row of bits with that bit cleared.
//
// reset() walks the records and undoes them, so a solve costs what it touched, not what the network holds.
//
// Orientation. Rows belong to receivers, and rows are contiguous. The searches therefore run *against* the edges: they
// stand at a node, look along its row for givers with capacity left, and end at the source. Standing at v, the
// residual arcs are (1) an edge k -> v with capacity left, found in the bits of v's rows, and (2) an edge v -> w that
// carries flow, found in v's list of outgoing records: cancelling it frees what v sent to w.
//
// Invariants. 0 <= flow <= capacity in every record. row(...) has bit k set exactly where the edge k -> receiver has
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
    Node giver, receiver;
    std::uint32_t row;                 // (link, receiver), see Network::first_row
    std::uint32_t next_in, next_out;   // next record into the same receiver / out of the same giver; 0 ends
};

class Residual {
   public:
    using EdgeId = std::uint32_t;  // index into the records; 0 is "untouched"

    explicit Residual(const CapacityIndex& capacities);

    const CapacityIndex& capacities() const { return capacities_; }
    const Network& network() const { return capacities_.network(); }

    /// Back to the empty flow. O(touched).
    void reset();

    /// Makes row() speak of residuals >= threshold(scale). Scales are entered from coarse to fine. O(touched).
    void set_scale(std::size_t scale);
    Units threshold() const { return threshold_; }

    /// Givers of (link, receiver position) with residual >= threshold(). Dense links only. Valid until the next push.
    const Word* row(std::size_t link, std::size_t receiver) const {
        const std::uint32_t own = own_row_[network().first_row(link) + receiver];
        return own != 0 ? own_words_.data() + (own - 1) : capacities_.bits(scale_, link, receiver);
    }

    /// The record of an edge, or 0.
    EdgeId find(std::uint32_t row, Node giver) const;
    const TouchedEdge& edge(EdgeId id) const { return edges_[id]; }
    /// The same, as positions.
    EdgeFlow edge_flow(EdgeId id) const {
        const std::uint32_t link = link_of_row_[edges_[id].row];
        return {link, edges_[id].row - network().first_row(link),
                edges_[id].giver - network().first_node(network().links()[link].giver), edges_[id].flow};
    }
    EdgeId first_in(Node node) const { return first_in_[node]; }
    EdgeId first_out(Node node) const { return first_out_[node]; }
    std::size_t n_touched() const { return edges_.size() - 1; }

    /// Capacity left on the edge giver -> receiver (positions) of a link.
    Units left(std::size_t link, std::size_t receiver, std::size_t giver) const {
        const Network& net = network();
        const EdgeId id = find(net.first_row(link) + static_cast<std::uint32_t>(receiver),
                               net.first_node(net.links()[link].giver) + static_cast<Node>(giver));
        return id != 0 ? edges_[id].capacity - edges_[id].flow : capacities_.at(link, receiver, giver);
    }

    /// Sends `amount` <= left(...) along the edge.
    void push(std::size_t link, std::size_t receiver, std::size_t giver, Units amount);
    /// Takes `amount` <= flow off a touched edge.
    void cancel(EdgeId id, Units amount);

    std::size_t bytes() const;

   private:
    std::size_t slot_of(std::uint32_t row, Node giver) const {
        const std::uint64_t key = std::uint64_t{row} << 32 | giver;
        return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15ULL >> shift_);
    }
    EdgeId touch(std::size_t link, std::size_t receiver, std::size_t giver);
    void grow();
    void set_row_bit(std::size_t link, std::size_t receiver, std::size_t giver, bool on);
    void refresh_row(std::uint32_t row);

    const CapacityIndex& capacities_;
    std::size_t scale_ = 0;
    Units threshold_ = 1;
    std::vector<TouchedEdge> edges_;                 // [0] unused
    std::vector<EdgeId> slots_;                      // power of two, at most half full
    unsigned shift_ = 0;                             // 64 - log2(slots)
    std::vector<EdgeId> first_in_, first_out_;       // [node]
    std::vector<std::uint32_t> own_row_;             // [row] 1 + first word in own_words_, 0 = shared
    std::vector<Word> own_words_;
    std::vector<std::uint32_t> rows_owned_;          // rows with a private copy
    std::vector<std::uint32_t> link_of_row_;         // [row]
};

}  // namespace attnflow
