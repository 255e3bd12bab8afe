// Dinic's algorithm on bits. See dinic.cpp.
#pragma once

#include "solver.hpp"

namespace attnflow {

class Dinic final : public Solver {
   public:
    Units solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) override;

    /// The same along fat edges first, as long as the residual has no base: a search more, and a flow on fewer edges.
    Units solve_fat_first(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse);

    /// The same where each of the sinks can take `room` [sink_nodes] at most, which is brought up to date, and so is
    /// terminals.sinks: those that take no more are none.
    Units solve_into(Residual& residual, Levels& levels, Terminals& terminals, std::vector<Units>& room, Units bound,
                     Pulse& pulse);

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
    Units blocking_flow(Residual& residual, Levels& levels, std::size_t level, Node sink, Units want, Pulse& pulse);
    Units from_sources(Residual& residual, Levels& levels, std::uint32_t block, std::uint32_t position, Units want);
    static bool next_arc(const Residual& residual, Levels& levels, std::size_t below, Frame& frame, Frame& child);

    std::vector<Frame> stack_;  // [level]
};

}  // namespace attnflow
