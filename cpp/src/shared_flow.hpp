// One maximum flow into a sink, which each of its sources takes over in turn.
//
// Problem. In deep networks nearly all of a source's search is spent near the sink, on ways that were found for the source
// before: thirty layers have to be walked for every thousandth of the flow, though the sources differ in the first layer.
//
// So a maximum flow into the sink is kept that starts at the nodes behind the sources' block, and nowhere in particular: a
// stand-in S* feeds node k with feed[k]. A source s need not reach the sink: it is enough to reach a node k of positive feed
// and take S*'s place there. Most of what it sends does so after one edge.
//
// Why that is exact. The kept flow and what s sends are a flow from {s, S*} to the sink. As long as the residual network has
// a path from s to the sink or to a node of positive feed, s can send more (S* sends less). A flow of s that is a maximum,
// less the flow at hand, splits into paths from s to just these ends, so without one, s sends its maximum. The nodes that s
// reaches then are the source side of the minimum cut nearest s: no flow of S* enters that set (the way back would reach a
// feed), so what leaves it is full of the flow of s alone.
//
// S* may start further on, too, where a chain of layers ends (columns.hpp): all that goes up the chain then goes along
// columns, as far as S*'s feeds, and S*'s flow leaves the chain alone.
//
// What s sends is found by Dinic's algorithm with the feeds as sinks; Residual keeps the flow shared by all sources as its
// base. S* feeds only nodes that s reaches: in causal networks, where a source sees those after it, sources come last first,
// and the flow grows with them.
#pragma once

#include <vector>

#include "dinic.hpp"

namespace attnflow {

class SharedFlow {
   public:
    static constexpr std::size_t fewest_sources = 8;  // the shared flow itself costs about as much as one of them

    explicit SharedFlow(const CapacityIndex& capacities) : capacities_(capacities), net_(capacities.network()) {}

    /// Forgets the flow, and leaves `residual` empty.
    void clear(Residual& residual);
    /// The same, for another sink.
    void enter_sink(Residual& residual);

    /// Sends as much as possible from the source of `terminals` into its sink, at most `bound`, on top of the shared flow,
    /// which is `residual` after reset(). `into_sink`: a bound on what enters the sink from nodes the source reaches. More
    /// than flow_limit() where the source's flow has no bound.
    Units solve(Residual& residual, Levels& levels, Dinic& dinic, const Terminals& terminals, Units into_sink,
                Units bound, Pulse& pulse);

    /// The same in two steps, for a source whose flow up to S* is found elsewhere: S* feeds nodes of `block`, by a flow
    /// that leaves `without` alone, the set of nodes that the other flow may use. [position] what S* feeds; nullptr where
    /// that has no bound.
    const std::vector<Units>* feeds_in(std::uint32_t block, const std::vector<Word>& without, Residual& residual,
                                       Levels& levels, Dinic& dinic, const Terminals& terminals, Units into_sink,
                                       Pulse& pulse);
    /// `residual` has the flow of the source added, which takes S*'s place as far as `delivered` [position] says. Sends
    /// more, at most `bound`.
    Units go_on(const Units* delivered, Residual& residual, Levels& levels, Dinic& dinic, const Terminals& terminals,
                Units bound, Pulse& pulse);

    /// Takes away what is left of the shared flow after solve(), so that `residual` holds the source's own flow.
    void leave_own(Residual& residual, Pulse& pulse);

    std::size_t bytes() const;

   private:
    void start_at(std::uint32_t block, const std::vector<Word>& without, Residual& residual);
    void grow(Residual& residual, Levels& levels, Dinic& dinic, const Terminals& terminals, Units into_sink,
              Pulse& pulse);
    void join(const Terminals& terminals);
    Units into(const Residual& residual, Node node) const;
    Units out_of(const Residual& residual, Node node) const;

    const CapacityIndex& capacities_;
    const Network& net_;
    static constexpr std::uint32_t behind_source = ~std::uint32_t{0};
    std::uint32_t start_ = behind_source;  // the block that S* feeds, or all right behind the sources'
    std::vector<Word> without_;            // nodes that the flow leaves alone; empty: none
    std::vector<Units> demands_;           // [position] in the block that S* feeds
    bool endless_ = false;       // S* reaches the sink through unbounded edges alone: there is nothing to share
    Units value_ = 0;            // of the shared flow
    std::vector<Word> fed_;      // nodes that S* may feed; empty: no flow yet
    std::vector<Node> feeds_;    // those it does
    std::vector<Units> feed_;    // [feed]
    Terminals own_;              // of a source: the sink comes first, then the feeds
    std::vector<Units> room_;    // [sink node of own_]
    std::vector<Units> excess_;  // [node]
};

}  // namespace attnflow
