// Upper bounds for networks that know some of their edges by sums alone.
//
// Problem. Large networks are stored without their small edges. Of what was dropped each sparse link knows in[j], no less
// than all that was dropped into receiver j, and out[k], no less than all that was dropped out of giver k. The kept edges
// are solved exactly, and a flow through them is a flow through all: the lower bound. This is the upper one.
//
// Mathematics. The whole capacities are C = K + D, kept and dropped, D >= 0. X(S) is the sum of the capacities X of edges
// that leave a set of nodes S. For every S that holds the sources and no sink
//
//     maximum flow in C  <=  C(S)  =  K(S) + sum over links of D(S).
//
// One link's D(S) is a transport from givers k in S, which have out[k], to receivers j outside S, which take in[j]; so it
// is no more than the largest such transport:
//
//   - where any giver may feed any receiver, the lesser of the sums of out[k] and of in[j];
//   - where nothing was dropped above the diagonal (k <= j), receivers take in ascending order from what the givers up to
//     them have left. That is the largest: whatever an early receiver may take, a later one may, too.
//
// A minimum cut of the kept edges is one S of many, and not always a good one. Nor does what bounds the kept edges bound
// all: "what leaves the sources towards nodes that reach the sink" holds there because all other nodes may be put on the
// sources' side at no cost, but dropped edges may lead from them to the sink. Hence every candidate is a set of nodes,
// and pays for all that was dropped across it. They are (max_flow.cpp): the sources; the sources and all that does not
// reach the sink; all but the sinks; all that is reached but the sinks; and where these do not end the solve, the minimum
// cuts nearest the source and nearest the sink. The second and the fourth have K(S) for nothing, and are the ones that
// are tight for causal networks, where half of the nodes cannot matter.
//
// Arithmetic. Every addend is rounded up to quanta, and sums saturate: `unbounded` is no bound, but no false one.
//
// Complexity. O(nodes) a cut, O(words) where its sides leave few nodes to look at.
#pragma once

#include <vector>

#include "attnflow/capacity.hpp"

namespace attnflow {

class Dropped {
   public:
    explicit Dropped(const CapacityIndex& capacities);

    /// Whether anything was.
    bool any() const { return !links_.empty(); }

    /// Bounds what was dropped of the edges that leave a set of nodes (Network::n_words() words).
    Units across(const std::vector<Word>& source_side) const;

    std::size_t bytes() const;

   private:
    struct Sums {
        std::uint32_t giver, receiver;  // blocks
        bool causal;
        std::vector<Units> in, out;
    };
    Units across(const Sums& link, const Word* givers, const Word* receivers) const;

    const Network& net_;
    std::vector<Sums> links_;  // where anything was dropped
};

}  // namespace attnflow
