// What the two maximum flow algorithms have in common: the question and the answer.
#pragma once

#include <cstdint>
#include <vector>

#include "levels.hpp"
#include "pulse.hpp"
#include "residual.hpp"

namespace attnflow {

/// One maximum flow: from all of `sources` together to all of `sinks` together. The sets are disjoint and not empty.
struct Terminals {
    std::vector<Node> source_nodes, sink_nodes;
    std::vector<Word> sources, sinks;  // the same as sets of Network::n_words() words
    std::vector<Word> useless;         // nodes that no source reaches or that reach no sink
};

struct Counters {
    std::uint64_t searches = 0;       // breadth-first searches
    std::uint64_t augmentations = 0;  // times flow reached the source (Dinic), pushes (push-relabel)
    std::uint64_t touched = 0;        // edges that carried flow at some time
    std::uint64_t steps = 0;  // of a search's way (Dinic); what a breadth-first search costs is given in steps, too
};

/// A maximum flow algorithm working in a Residual. After solve() the residual holds a maximum flow.
class Solver {
   public:
    virtual ~Solver() = default;
    /// Adds to what `residual` carries, which must be nothing for PushRelabel, and returns the value added. `bound` is an
    /// upper bound on that; reaching it ends the solve, and so does more than any finite flow.
    virtual Units solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) = 0;

    Counters counters;
};

}  // namespace attnflow
