// The flow of a coalition that players join one after the other, and that the next coalition takes over.
//
// Problem. Players differ in their first edges and share the way through the deep layers. One order after the other would
// find that way anew.
//
// So there is one flow for all orders, inside: from nodes that edges of players enter to the sink. It starts as the players'
// maximum flow. At any time a stand-in S* feeds node k with room[k] of it, and the members send the rest. A newcomer with an
// edge of capacity c into node k takes S*'s place there as far as room[k] goes, without a search and without a record: what
// is sent along edges of players never has to come back, as nothing leads on from a player. What is left of c is supply: the
// search looks for ways from nodes of supply to the sink or to nodes of room (dinic.hpp: Ends). After an order S* takes the
// place of all members.
//
// Why that is exact. The inside flow is one from members and S* to the sink, whatever came before. As long as there is a way
// from supply to the sink or to a node of room, members can send more (S* sends less). Without one, they send the maximum:
// nodes that supply reaches are a set that no residual arc leaves, and in which S* feeds nobody. No flow of S* enters
// it either, for the way back would leave it. A way found later would come from outside, and does not enter it, as it could
// not come out: the set stays as it is until the end of the order, and is left out. Any set that no residual arc leaves and
// that has neither sink nor room will do as well, supply or not (between.hpp).
//
// Orders that begin alike are short for it: what the first of them sent inside is there already.
#pragma once

#include <vector>

#include "dinic.hpp"

namespace attnflow {

class CoalitionFlow {
   public:
    /// Finds a maximum flow of all players, the sources of `everyone`, which no link enters. `into_sink`: a bound on it.
    CoalitionFlow(const CapacityIndex& capacities, const Terminals& everyone, Units into_sink, Pulse& pulse);

    /// Its value. Where that is more than flow_limit(), there is no bound, and nobody may come.
    Units of_everyone() const { return of_everyone_; }

    /// Nobody has come.
    void begin();
    /// A player comes, and sends as much as he can beside those before him, at most `bound`.
    Units come(const std::vector<Node>& player, Units bound);

    /// The source side of a minimum cut.
    std::vector<Word> source_side(const std::vector<Node>& members);
    /// The flow of the members. S* goes without it: nobody may come before begin().
    std::vector<EdgeFlow> own(const std::vector<Node>& members);

    const Counters& counters() const { return dinic_.counters; }
    std::size_t bytes() const;

   private:
    template <class Visit>
    void for_each_edge_of(const std::vector<Node>& nodes, const std::vector<Word>& without, const Visit& visit) const;
    bool is_sink(Node node) const;
    Word* words_of(std::vector<Word>& set, Node node) const;
    void end_supply();

    const CapacityIndex& capacities_;
    const Network& net_;
    const Terminals& everyone_;
    Pulse& pulse_;
    Residual residual_;
    Levels levels_;
    Between between_;
    Dinic dinic_;
    Units of_everyone_ = 0;
    bool ready_ = false;        // for players to come
    std::vector<Node> doors_;   // nodes that edges of players enter, but for the sink
    std::vector<Units> given_;  // [node] by members, so far
    Ends ends_;
    std::vector<Node> supplied_;  // nodes that the newcomer's edges with something left enter
    std::size_t records_ = 0;     // when idle ones were dropped last
};

}  // namespace attnflow
