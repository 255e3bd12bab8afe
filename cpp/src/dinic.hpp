// Dinic's algorithm on bits. See dinic.cpp.
#pragma once

#include "between.hpp"
#include "solver.hpp"

namespace attnflow {

/// Two ends of a flow, which are nodes with a limit each.
struct Ends {
    std::vector<Word> from, to;       // node sets: those whose supply, whose room is positive
    std::vector<Units> supply, room;  // [node]
    std::vector<Word> excluded;       // nodes that do not lead from one to the other
};

class Dinic final : public Solver {
   public:
    Units solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) override;

    /// The same along fat edges first, as long as the residual has no base: a search more, and a flow on fewer edges.
    Units solve_fat_first(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse);

    /// The same where each of the sinks can take `room` [sink_nodes] at most, which is brought up to date, and so is
    /// terminals.sinks: those that take no more are none.
    Units solve_into(Residual& residual, Levels& levels, Terminals& terminals, std::vector<Units>& room, Units bound,
                     Pulse& pulse);

    /// From nodes of limited supply to nodes of limited room, at the finest scale; all of `ends` is brought up to date. Less
    /// than `bound`: there is no way left. `residual` keeps columns.
    Units solve_between(Residual& residual, Between& between, Ends& ends, Units bound, Pulse& pulse);

   private:
    // A node on the search's way down, and the residual arc by which the node above it asked.
    struct Frame {
        std::uint32_t block, position;
        std::uint32_t link;  // the arc: an edge of this link, used forward or backward
        std::uint32_t backward;
        Residual::Edge edge;  // the edge's record and what it has left; backward: what it carries
        Units want, got;
        std::uint32_t stage;      // i: i-th link into the block; then backward arcs, straight ones first
        std::uint32_t word;       // where in the row: 0 before the straight edge, then 1 + word
        Residual::EdgeId record;  // where in the list of outgoing records
    };

    Units from_scale(std::size_t scale, Residual& residual, Levels& levels, const Terminals& terminals, Units bound,
                     Pulse& pulse);
    template <class Room, class Took>
    Units at_scale(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse,
                   const Room& room, const Took& took);
    template <std::size_t lowest, class Give>
    Units blocking_flow(Residual& residual, LevelSets& levels, std::size_t level, Node sink, Units want, Pulse& pulse,
                        const Give& give);
    Units from_sources(Residual& residual, Levels& levels, std::uint32_t block, std::uint32_t position, Units want);
    static bool next_arc(const Residual& residual, LevelSets& levels, std::size_t below, Frame& frame, Frame& child);

    std::vector<Frame> stack_;  // [level]
};

}  // namespace attnflow
