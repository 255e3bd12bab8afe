// Dinic's algorithm on bits, with capacity scaling. See dinic.cpp.
#pragma once

#include "solver.hpp"

namespace attnflow {

class Dinic final : public Solver {
   public:
    Units solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) override;

   private:
    struct Arc {
        enum class Kind : std::uint8_t { none, edge, backward };
        Kind kind = Kind::none;
        std::uint32_t link = 0;        // edge
        Residual::EdgeId record = 0;   // backward
        std::uint32_t block = 0, position = 0;  // the node the arc leads to (against the flow)
        Units left = 0;
    };
    struct Frame {
        std::uint32_t block, position, level;
        Units want, got;
        std::uint32_t stage;       // 0: straight edges; 1 + i: i-th link into the block; then backward arcs
        std::uint32_t word;        // where in the row
        Residual::EdgeId record;   // where in the list of outgoing records
        Arc by;                    // how the parent reached this node
    };

    Units blocking_flow(Residual& residual, Levels& levels, std::size_t level, std::uint32_t block,
                        std::uint32_t position, Units want, Pulse& pulse);
    static Arc next_arc(const Residual& residual, Levels& levels, Frame& frame);
    static Arc edge_arc(const Residual& residual, std::uint32_t link, std::uint32_t position, std::uint32_t giver);

    std::vector<Frame> stack_;
};

}  // namespace attnflow
