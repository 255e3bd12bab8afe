// Flow along the columns of a chain of layers, before any search.
//
// Problem. In a chain of square layers with straight edges of some weight (the residual stream) nearly all of a maximum
// flow takes one lateral step out of the source's column and one into the sink's, and most of the rest one more in
// between. A search finds those thousands of little paths one at a time. Here they are filled in a pass or two over
// arrays: the source's column and the sink's row of every layer, no records, no hash. Where that reaches an upper bound
// on the flow, the pair is done; else the searches go on from there.
//
// Notation. Layers 0 ... last lead from the source's block to the sink's; node (l, k) lies before layer l. s, t: the
// source's and the sink's position. Column k != s, t
//
//   takes in   arrival[l][k]   <= C[l][k, s]   l < last: from the source (l = 0), or from its column;
//   gives      departure[l][k] <= C[l][t, k]   l > 0: to the sink's column, or (l = last) to the sink;
//   in between its stock passes straight edges.
//
// First pass, layer by layer: a column takes in what it can give to the sink's column later (as early as it can), then
// what it can give to the sink at last. Second pass: a column that could give more takes it from columns that could take
// in more than they can give, by an edge between the two. Third pass: the same through a column in between.
//
// What is taken in is sure to arrive, because it is accounted for at once, against every edge on its way:
//   - gatherable[l][k]: what k can give to the sink's column if it has it after layer l;
//   - sink_room[l]: what the sink's column can carry to the end, if it gets it through layer l + 1 at the earliest;
//   - the source's column passes its spike on, at most what the next straight edge carries;
//   - narrowest[l + 1][k]: all that has entered column k by layer l shall fit through each of the straight edges to come,
//     as if none of it left before. (Crude, and enough: straight edges are wide, what enters is not.)
//
// So what is built is a flow, whatever its value; that the value is a maximum is known when it equals a cut. O(layers * n)
// for the first pass; the second looks only at pairs of a giver and a taker.
#pragma once

#include <vector>

#include "attnflow/capacity.hpp"
#include "residual.hpp"

namespace attnflow {

class ColumnFlow {
   public:
    explicit ColumnFlow(const CapacityIndex& capacities);

    /// Whether filling columns pays on this network: it must have reached the bound for a quarter of the pairs so far.
    /// Every sixteenth question is answered with yes, in case things change.
    bool promising() { return ++asked_ % 16 == 0 || n_filled_ < 8 || n_reached_ * 4 >= n_filled_; }

    /// Builds a flow between two nodes of value <= `bound` and returns its value; 0 where no chain of two or more square
    /// dense links leads from one to the other. `reached`: the nodes that the source reaches.
    Units fill(Node source, Node sink, const std::vector<Word>& reached, Units bound);

    /// Puts the flow of the last fill() into `residual`, which must be empty.
    void load(Residual& residual);

    std::size_t bytes() const;

   private:
    // Flow that changes columns: through `layer` from `giver`, who took it in at layer 0, later (from the source's
    // column: the spike), or by another transfer. One edge may have two of them.
    enum class Origin : std::uint8_t { source, spike, transfer };
    struct Transfer {
        std::uint32_t layer : 24;
        Origin origin : 8;
        std::uint32_t taker, giver;
        Units amount;
    };

    void enter(std::uint32_t source_block, Node sink);
    bool find_layers(std::uint32_t source_block, std::uint32_t sink_block);
    void through_columns(std::size_t layer);
    void between_columns(const std::vector<Word>& reached);
    Units serve(std::size_t layer, std::size_t taker, Units want);
    void depart_later(std::size_t layer, std::size_t k, Units amount);
    void by_relay(const std::vector<Word>& reached);
    void transfer(std::size_t layer, std::size_t taker, std::size_t giver, Units amount, Origin origin);
    void complete();
    // Beyond this a search is cheaper, and takes less memory. Real attention needs some 5 n in all.
    std::size_t most_transfers() const { return (4 + layers_.size()) * n_; }
    bool many_transfers() const { return transfers_.size() >= most_transfers(); }
    Units& at(std::vector<Units>& array, std::size_t layer) const { return array[layer * n_]; }
    const std::vector<Units>& straight(std::size_t layer) const { return capacities_.straight(layers_[layer]); }

    const CapacityIndex& capacities_;
    std::uint64_t asked_ = 0, n_filled_ = 0, n_reached_ = 0;

    // Of the sink.
    std::uint32_t source_block_ = ~std::uint32_t{0};
    Node sink_ = ~Node{0};
    std::vector<std::uint32_t> layers_;  // links from the source's block to the sink's
    std::size_t n_ = 0, last_ = 0, t_ = 0;
    std::vector<Units> into_sink_;   // [layer][k] C[l][t, k]; 0 for k = t and for layer 0
    std::vector<Units> gatherable_;  // [layer][k]
    std::vector<Units> sink_limit_;  // [layer] the narrowest straight edge of column t from this layer on
    std::vector<Units> narrowest_;   // [layer][k] the narrowest straight edge from this layer to layer last - 1

    // Of the pair.
    std::size_t s_ = 0;
    Units left_ = 0;                           // of the bound
    Units direct_ = 0;                         // layer 0, s -> t; for s = t all the way straight
    Units gathered_ = 0;                       // taken in so far for the sink's column
    Units spike_ = 0;                          // stock of the source's column
    std::size_t filled_ = 0;                   // layers that the first pass went through
    std::vector<Units> spent_;                 // [layer] out of the source's column, straight edges aside
    std::vector<Units> collected_;             // [layer] into the sink's column
    std::vector<Units> room_;                  // [layer] what the sink's column can still carry from this layer on
    std::vector<Units> arrival_;               // [layer][k]
    std::vector<Units> departure_;             // [layer][k]
    std::vector<Units> refused_;               // [layer][k] C[l][k, s] - arrival[l][k]
    std::vector<Units> to_gather_;             // [k] stock for the sink's column
    std::vector<Units> wanted_last_;           // [k] what column k could still give through the last layer
    std::vector<Units> entered_;               // [k]
    std::vector<Units> column_;                // [k] C[l][k, s] of the layer at hand
    std::vector<Units> spare_, spare_spike_;   // [k] refused by now: at layer 0, later
    std::vector<Word> givers_, spike_givers_;  // [k] spare > 0, spare_spike > 0
    std::vector<std::uint32_t> next_;          // [layer][taker] where in the row the next walk starts
    std::vector<Transfer> transfers_;
};

}  // namespace attnflow
