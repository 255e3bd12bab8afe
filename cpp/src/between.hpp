// Shortest residual ways between two sets of nodes, searched from both ends.
//
// Problem. Along an order of players (coalition_flow.hpp) one end of a search often is a few nodes that lead to a few others
// and no further, the other end thousands of nodes; and which is which changes. A search from both ends costs what the
// smaller one does, be it that they meet or that there is no way.
//
// Each step moves the end that has done less so far. Where the ends meet, the first one goes on among the nodes that
// the other one visited: it comes to all nodes of shortest ways behind the meeting point, and to few others. A frontier
// node's row or column (residual.hpp) is read once, in however many levels its block has nodes.
#pragma once

#include <array>
#include <vector>

#include "levels.hpp"

namespace attnflow {

class Between : public LevelSets {
   public:
    Between(const Network& network, Pulse& pulse)
        : LevelSets(network),
          pulse_(pulse),
          back_frontier_(network.n_words(), 0),
          back_next_(network.n_words(), 0),
          in_back_next_(network.n_blocks(), 0),
          reach_(network.n_words(), 0) {}

    /// Finds the shortest ways from a node of `from` to a node of `to`, node sets that are disjoint, without `excluded`:
    /// at(i, block) has their nodes after i arcs. Returns the number of arcs; 0: there is no way. Then `excluded` grows by
    /// all that `from` reaches, or by all that does not reach `to`: a set that no residual arc leaves. `residual` keeps columns.
    std::size_t run(const Residual& residual, const std::vector<Word>& from, const std::vector<Word>& to,
                    std::vector<Word>& excluded);

   private:
    template <bool forward, class Mark>
    void step(const Residual& residual, std::uint32_t block, const Word* nodes, std::vector<Word>& unseen,
              const Mark& mark);
    void advance(const Residual& residual, std::size_t level);
    void retreat(const Residual& residual);

    Pulse& pulse_;
    std::vector<Word> unseen_, back_unseen_;                     // by either end, as sets of Network::n_words() words
    std::vector<Word> back_frontier_, back_next_;                // of the other end
    std::vector<std::uint32_t> back_blocks_, back_next_blocks_;  // where these have nodes
    std::vector<char> in_back_next_;                             // [block]
    std::array<std::size_t, 2> work_{};                          // nodes that either end has gone on from
    std::vector<std::uint32_t> positions_;                       // in one step: nodes that it starts from
    std::vector<Word> reach_;                                    // and those it comes to; empty between steps
};

}  // namespace attnflow
