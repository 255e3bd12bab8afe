// Flow along the columns of a chain of layers, before any search.
//
// Problem. In a chain of square layers with straight edges of some weight (the residual stream) nearly all of a maximum
// flow takes one lateral step out of the source's column and one into the sink's, and most of the rest one more in
// between. A search finds those thousands of little paths one at a time. Here they are filled in a pass or two over
// arrays: the source's column and the sink's row of every layer, no records, no hash. Where that reaches an upper bound
// on the flow, the pair is done; else the searches go on from there.
//
// The chain need not lead to the sink: it may end early, at an encoder's top, below a pool, before a set of sinks. Then
// somebody else says what the network behind passes on to the sinks from each node of that block (shared_flow.hpp), and
// no column is the sink's: each gives what it holds through a last layer that leads straight out. A layer may be a
// diagonal, too: straight edges alone.
//
// Notation. Layers 0 ... last lead from the source's block to the sink's; where the chain ends early, layer last is no link
// but what may leave its end. Node (l, k) lies before layer l. s, t: the source's and the sink's position. Column k != s, t
//
//   takes in   arrival[l][k]   <= C[l][k, s]   l < last: from the source (l = 0), or from its column;
//   gives      departure[l][k] <= C[l][t, k]   l > 0: to the sink's column, or (l = last) to the sink;
//   in between its stock passes straight edges.
//
// First pass, layer by layer: a column takes in what it can give to the sink's column later (as early as it can), then
// what it can give to the sink at last (the source's column leaves to the last useful layer what that one can do).
// Second pass: a column that could give more takes it from columns that could take in more than they can give, by an
// edge between the two; who has much to give, as neighbours of the source do, pours it into hundreds of edges at once.
// Third pass: the same through a column in between, for the few columns that lack a good part of the rest (class
// tokens, separators). Where all that falls short of the bound it is done once more, with what the first attempt
// taught: who went short comes first; what the source gave away at layer 0, which can only go where it went, is passed
// on before the spike, which can go anywhere; and where only the sink's column went short, which wants early, nothing
// of layer 0 is kept to the end that could be had later.
//
// What is taken in is sure to arrive, because it is accounted for at once, against every edge on its way:
//   - gatherable[l][k]: what k can give to the sink's column if it has it after layer l;
//   - sink_limit[l]: what the sink's column can carry to the end, if it gets it through layer l - 1 at the earliest;
//   - the source's column passes its spike on, at most what the next straight edge carries;
//   - first pass: what a column keeps for the end, and what else it holds, fits through each of the straight edges to
//     come (narrowest);
//   - later passes: what a column gives through layer l fits through the straight edges up to there (behind), what it
//     takes through those from there on (ahead), each counted beside all that the later passes added to the column.
//
// So what is built is a flow, whatever its value; that the value is a maximum is known when it equals a cut. O(layers * n)
// for the first pass; the second looks only at pairs of a giver and a taker. Both run over eight positions at a time
// (column_loops.hpp), and the columns of sixteen neighbouring sources, which share cache lines, are copied together.
#pragma once

#include <optional>
#include <vector>

#include "attnflow/capacity.hpp"
#include "column_loops.hpp"
#include "residual.hpp"

namespace attnflow {

class ColumnFlow {
   public:
    explicit ColumnFlow(const CapacityIndex& capacities);

    /// Finds the chain that leads from a block to the sinks, or towards them. Comes before all others, which speak of it.
    void enter(std::uint32_t source_block, const std::vector<Node>& sinks);

    /// Whether filling columns pays for sources of this block: there is a chain, and the bound was reached for a quarter of
    /// the pairs so far. Else the 64th question is answered with yes, in case things change, and ever fewer as long as
    /// they do not.
    bool promising() { return !layers_.empty() && (doing_well() || ++so_far().asked % so_far().period == 0); }

    /// The block where the chain ends before the sinks: fill() needs to know what its nodes can pass on to them.
    std::optional<std::uint32_t> early_end() const { return early_end_; }
    /// There is no such flow to start with. Counts as a pair that fell far short.
    void give_up() { so_far().n_filled += far_short; }
    /// [position] in block early_end(): what a flow from there to the sinks, which uses no block of the chain, starts with.
    void demand(const std::vector<Units>& demands);
    /// The nodes of its blocks, but for the last.
    const std::vector<Word>& chain() const { return chain_; }

    /// The sum of what leaves `source` into nodes of `towards`; nothing where that is not at hand.
    std::optional<Units> leaving(Node source, const std::vector<Word>& towards);

    /// Builds a flow from `source` of value <= `bound` and returns its value; 0 where there is no chain. `reached`: the
    /// nodes that the source reaches. `keep`: it will be loaded even if it reaches the bound.
    Units fill(Node source, const std::vector<Word>& reached, Units bound, bool keep);

    /// Whether the last fill() left a flow to load: where it fell far short, a search does no worse from nothing.
    bool can_load() const { return !layers_.empty() && worth_loading_; }
    /// Puts the flow of the last fill() into `residual`, where the chain must carry none. Only what was kept, or fell
    /// short.
    void load(Residual& residual);
    /// [position] in block early_end(): what was loaded leaves there.
    const Units* delivered() { return at(departure_, last_); }

    std::size_t bytes() const;

   private:
    using Array = std::vector<Units>;
    static constexpr std::size_t batch = 16;        // sources whose columns are copied at once: a cache line of float32
    static constexpr std::size_t most_lacking = 4;  // columns that relays serve
    static constexpr std::size_t most_urgent = 32;
    static constexpr std::size_t most_attempts = 2;
    static constexpr std::uint64_t far_short = 3;  // such a pair counts as so many
    // What lacks more than this part of the bound by then, neither the third pass nor a second attempt finds.
    static constexpr Units hopeless = 4;
    static constexpr std::size_t worth_pouring = 8;  // takers among so many columns

    void find_chain();
    void find_any_chain();
    void set_limits();
    void copy_batch();
    /// How filling went for sources of a block.
    struct Experience {
        std::uint64_t asked = 0, period = 64, n_filled = 0, n_reached = 0;
    };
    Experience& so_far() { return experience_[source_block_]; }
    bool doing_well() const {
        const Experience& so_far = experience_[source_block_];
        return so_far.n_filled < 8 || so_far.n_reached * 4 >= so_far.n_filled;
    }
    std::size_t attempt(const std::vector<Word>& reached, Units bound, std::size_t attempts, bool relays);
    void start(const std::vector<Word>& reached, Units bound);
    const Units* reserve(std::size_t layer) const;
    void through_columns(std::size_t layer);
    void account();
    void choose_order();
    void choose_lacking();
    void choose_urgent();
    void begin_layer(std::size_t layer);
    Takers takers_of(std::size_t layer);
    Sweep sweep_of(std::size_t layer, Takers& to);
    void perform(Sweep& sweep);
    void pour_out(std::size_t layer, Takers& to);
    void hide_poured(std::size_t layer);
    void show_poured();
    void exchange_wants_of_urgent(const Takers& to);
    enum class Use : std::uint8_t { both, direct, spike };
    void between_columns(Use use);
    void depart_later(std::size_t layer, Units amount);
    void by_relay();
    void complete();
    // Beyond this a search is cheaper, and takes less memory. Real attention needs some 5 n in all.
    bool many_transfers() const { return transfers_.size() >= (5 + last_) * n_; }
    Units* at(Array& array, std::size_t layer) const { return array.data() + layer * stride_; }
    const Array& straight(std::size_t layer) const { return capacities_.straight(layers_[layer]); }
    // Whether a layer has edges between columns.
    bool lateral(std::size_t layer) const { return !capacities_.network().links()[layers_[layer]].diagonal(); }
    Units sink_straight(std::size_t layer) const { return early_end_ ? 0 : straight(layer)[t_]; }
    // C[layer][k, s] and 0 for k = s.
    const Units* column(std::size_t layer) const { return column(layer, s_); }
    // C[layer][k, giver] and 0 for k = giver, of a giver among the batch of s.
    const Units* column(std::size_t layer, std::size_t giver) const {
        return columns_.data() + ((giver - first_of_batch_) * last_ + layer) * stride_;
    }
    // [k] what fits through the straight edges after `layer`.
    const Units* ahead(std::size_t layer) { return wide_ ? at(narrowest_, 1) : at(ahead_, layer + 1); }
    Units* taken(std::size_t lacking, std::size_t layer) { return at(taken_, lacking * (last_ + 1) + layer); }
    template <class Self, class Visit>
    static void for_each_array(Self& self, Visit&& visit);

    const CapacityIndex& capacities_;
    std::vector<Experience> experience_;  // [block]
    bool worth_loading_ = false;
    bool far_short_ = false;  // what the last fill() found

    // Of the sinks and the block of sources.
    std::uint32_t source_block_ = ~std::uint32_t{0};
    std::vector<Node> sinks_;
    std::vector<std::uint32_t> layers_;  // links from the source's block on
    std::optional<std::uint32_t> early_end_;
    std::vector<Word> chain_;
    std::vector<Rows> rows_;  // [layer]
    std::size_t n_ = 0, stride_ = 0, last_ = 0, t_ = 0;
    bool wide_ = false;  // every straight edge holds half of what the sink can take
    Array into_sink_;    // [layer][k] C[l][t, k]; 0 for k = t and for layer 0
    Array gatherable_;   // [layer][k]
    Array much_;         // [layer] what takes so many edges that pouring pays
    Array sink_limit_;   // [layer] the narrowest straight edge of column t from this layer on
    Array narrowest_;    // [layer][k] the narrowest straight edge from this layer to layer last - 1

    // Of sixteen neighbouring sources.
    std::vector<std::uint32_t> layers_of_batch_;
    std::size_t first_of_batch_ = 0;
    Array columns_;  // [source - first_of_batch_][layer][k]

    // Of the pair: first pass.
    std::size_t s_ = 0;
    Units left_ = 0;          // of the bound
    Units direct_ = 0;        // layer 0, s -> t; for s = t all the way straight
    Units gathered_ = 0;      // taken in so far for the sink's column
    Units spike_ = 0;         // stock of the source's column
    std::size_t filled_ = 0;  // layers that the pass went through
    bool spare_direct_for_gathering_ = false;
    Array spent_;         // [layer] out of the source's column, straight edges aside
    Array collected_;     // [layer] into the sink's column
    Array arrival_;       // [layer][k]
    Array departure_;     // [layer][k]
    Array to_gather_;     // [k] stock for the sink's column
    Array held_;          // [k] wide: all that entered; else stock for the last layer
    Array wanted_first_;  // [k] what column k could give through the last layer
    Array wanted_;        // [k] what it still could
    Array to_gather_after_, held_after_, wanted_after_;

    // Later passes.
    Units spike_room_ = 0;   // what the source's column can carry beyond the first pass up to the layer at hand
    Units spike_used_ = 0;   // and does
    Units room_used_ = 0;    // of the sink's column
    Array through_source_;   // [layer] on the source's straight edge after the first pass
    Array room_;             // [layer] what the sink's column can still carry from this layer on
    Array slack_, ahead_;    // [layer][k] of the straight edge; the least from this layer on. Not wide only
    Array behind_;           // [k] the least slack up to the layer at hand
    Array added_;            // [k] on straight edges, by the later passes (wide: by all)
    Array gatherable_left_;  // [k] what k could still give to the sink's column after the layer at hand
    Array spare_direct_, spare_spike_;  // [k] not taken in by now: at layer 0, later
    Array spike_used_by_;               // [k]
    Array taken_;                       // [lacking][layer][giver]
    Array scratch_, row_, wanted_of_relays_, by_now_, none_, no_limit_, taken_to_gather_;  // [k]
    std::vector<std::uint32_t> order_;            // of the givers, in eights: those with most to give of layer 0 first
    std::vector<std::uint32_t> next_;             // [layer][taker] where in that order the row's next walk starts
    std::vector<std::uint32_t> urgent_;           // takers that come first, the most urgent first
    std::size_t n_lacking_ = 0;                   // those of them that relays may serve
    std::vector<std::uint32_t> open_;             // takers
    std::vector<std::uint32_t> heavy_;            // givers
    std::vector<std::pair<Units, Units>> aside_;  // [urgent] what they want to gather and to keep; 0 when not exchanged
    struct Poured {
        std::uint32_t layer, giver;
    };
    std::vector<Poured> poured_;
    struct Hidden {
        std::uint32_t giver;
        Units direct, spike;
    };
    std::vector<Hidden> hidden_;  // what they have left, while nobody is to ask them
    std::vector<Transfer> transfers_;
    std::vector<Transfer>* log_ = nullptr;
};

}  // namespace attnflow
