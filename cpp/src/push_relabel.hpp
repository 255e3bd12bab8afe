// Highest-label push-relabel with global relabelling. See push_relabel.cpp.
#pragma once

#include "solver.hpp"

namespace attnflow {

class PushRelabel final : public Solver {
   public:
    Units solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) override;

   private:
    // A residual arc out of the node in hand, against the flow: where to, what is left, and how to use it.
    struct Arc {
        Node to;
        Residual::Edge edge;                  // backward: left is what it carries
        std::uint32_t link, receiver, giver;  // not set where a record tells
        bool backward;
    };
    template <class Visit>
    static bool for_each_arc(const Residual& residual, Node node, Visit&& visit);
    static void use(Residual& residual, const Arc& arc, Units amount);

    void relabel_all(Residual& residual, Levels& levels, const Terminals& terminals);
    void activate(Node node);
    void discharge(Residual& residual, Node node, Pulse& pulse);

    std::vector<std::uint32_t> height_;      // [node] lower bound on the residual arcs to a source; n_nodes = none
    std::vector<Units> excess_;              // [node] asked of it and not yet passed on
    std::vector<std::vector<Node>> active_;  // [height] nodes with excess, not terminals; may hold stale entries
    std::vector<std::uint32_t> count_;       // [height] nodes of that height
    std::vector<bool> terminal_;             // [node]
    std::size_t highest_ = 0;
    std::uint64_t relabels_ = 0;
    Units value_ = 0;
    std::vector<bool> is_source_;  // [node]
    std::vector<Arc> downhill_;    // scratch of discharge()
};

}  // namespace attnflow
