// Dinic's algorithm on bits, with capacity scaling
//
// Problem. Maximum flow from a source set to a sink set in a network of dense layers, where the flow uses a handful of
// edges of every node out of hundreds, and the same network is solved again for every source.
//
// Notation. tau: the current threshold. An arc is usable if its residual is >= tau. level(v): usable arcs on a shortest
// path from the source to v. The search walks against the edges (residual.hpp says why), from the sink down the levels.
//
// Steps. For tau in (max/2^4, max/2^8, max/2^12, one quantum):
//   1. levels by breadth-first search over usable arcs; if the sink is not reached, next tau;
//   2. a blocking flow: depth-first from the sink. A node is asked for `want` units; it asks nodes one level lower, each
//      for at most what the arc leaves, until it got `want` or has nobody left to ask. A node that delivered less than
//      it was asked for is a dead end for this phase and leaves its level. Several branches are filled in one visit, so
//      a path prefix is walked once, not once an augmentation;
//   3. again from 1.
// A node's next candidate is row & level, a word at a time. The straight edge (k -> k), which is the residual stream
// and holds half of a node's capacity, is tried first: it leads down without touching a new row.
//
// Invariants. While a frame is open, every candidate it has finished with has left row & level: its node is dead, or the
// arc fell below tau. That is why a frame may simply look at its current word again. Shortfalls below tau count as
// satisfied, so that no phase chases crumbs; at the last tau, one quantum, there are none.
//
// Certificate. At tau = 1 the failed search leaves levels.visited(), the source side of the minimum cut nearest the
// source. A solve that reached `bound` needs no last search.
//
// Complexity. O(n^2 m) as Dinic's, per scale; measured growth is in docs/design/kernel.md. The stack is explicit: levels
// can be as many as nodes.
//
// Papers. [Din70] E. A. Dinic, Soviet Math. Doklady 11 (1970); [EK72] capacity scaling, J. Edmonds, R. M. Karp, JACM 19
// (1972).

#include "dinic.hpp"

#include <algorithm>

namespace attnflow {

Units Dinic::solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) {
    const Network& net = residual.network();
    Units value = 0;
    for (std::size_t scale = 0; scale < CapacityIndex::n_scales; ++scale) {
        residual.set_scale(scale);
        const Units tau = residual.threshold();
        while (bound - value >= tau) {
            ++counters.searches;
            pulse.report();
            const std::size_t level = levels.run(residual, terminals.sources, terminals.sinks);
            if (level == 0) break;
            for (const Node sink : terminals.sink_nodes) {
                const std::uint32_t block = net.block_of(sink), position = sink - net.first_node(block);
                const Word* reached = levels.at(level, block);
                if (reached == nullptr || !test_bit(reached, position)) continue;
                value += blocking_flow(residual, levels, level, block, position, bound - value, pulse);
                if (value > residual.capacities().quantum().flow_limit())
                    throw UnboundedFlow("a source reaches a sink through unbounded edges alone");
            }
        }
    }
    counters.touched += residual.n_touched();
    return value;
}

Dinic::Arc Dinic::edge_arc(const Residual& residual, std::uint32_t link, std::uint32_t position, std::uint32_t giver) {
    Arc arc;
    arc.kind = Arc::Kind::edge;
    arc.link = link;
    arc.block = residual.network().links()[link].giver;
    arc.position = giver;
    arc.left = residual.left(link, position, giver);
    return arc;
}

Dinic::Arc Dinic::next_arc(const Residual& residual, Levels& levels, Frame& frame) {
    const Network& net = residual.network();
    const std::vector<std::uint32_t>& into = net.links_into(frame.block);
    const std::size_t below = frame.level - 1;
    if (frame.stage == 0) {
        frame.stage = 1;
        if (below > 0)  // on level 0 there are only sources, and the rows find them at once
            for (const std::uint32_t e : into) {
                const Link& link = net.links()[e];
                if (link.diagonal || frame.position >= net.size(link.giver)) continue;
                const Word* level = levels.at(below, link.giver);
                if (level == nullptr || !test_bit(level, frame.position)) continue;
                if (test_bit(residual.row(e, frame.position), frame.position))
                    return edge_arc(residual, e, frame.position, frame.position);
            }
    }
    for (; frame.stage <= into.size(); ++frame.stage, frame.word = 0) {
        const std::uint32_t e = into[frame.stage - 1];
        const Link& link = net.links()[e];
        const Word* level = levels.at(below, link.giver);
        if (level == nullptr) continue;
        if (link.diagonal) {
            const std::int64_t k = static_cast<std::int64_t>(frame.position) - link.offset;
            if (k < 0 || k >= static_cast<std::int64_t>(net.size(link.giver))) continue;
            const auto giver = static_cast<std::uint32_t>(k);
            if (!test_bit(level, giver)) continue;
            const Arc arc = edge_arc(residual, e, frame.position, giver);
            if (arc.left >= residual.threshold()) return arc;
            continue;
        }
        const Word* row = residual.row(e, frame.position);
        for (const std::size_t n = net.words(link.giver); frame.word < n; ++frame.word)
            if (const Word candidates = row[frame.word] & level[frame.word])
                return edge_arc(residual, e, frame.position,
                                static_cast<std::uint32_t>(frame.word * word_bits) +
                                    static_cast<std::uint32_t>(std::countr_zero(candidates)));
    }
    if (frame.stage == into.size() + 1) {
        ++frame.stage;
        frame.record = residual.first_out(net.first_node(frame.block) + frame.position);
    }
    for (; frame.record != 0; frame.record = residual.edge(frame.record).next_out) {
        const TouchedEdge& edge = residual.edge(frame.record);
        if (edge.flow < residual.threshold()) continue;
        Arc arc;
        arc.block = net.block_of(edge.receiver);
        arc.position = edge.receiver - net.first_node(arc.block);
        const Word* level = levels.at(below, arc.block);
        if (level == nullptr || !test_bit(level, arc.position)) continue;
        arc.kind = Arc::Kind::backward;
        arc.record = frame.record;
        arc.left = edge.flow;
        return arc;
    }
    return {};
}

Units Dinic::blocking_flow(Residual& residual, Levels& levels, std::size_t level, std::uint32_t block,
                           std::uint32_t position, Units want, Pulse& pulse) {
    const Units tau = residual.threshold();
    stack_.clear();
    stack_.push_back({block, position, static_cast<std::uint32_t>(level), want, 0, 0, 0, 0, {}});
    for (;;) {
        Frame& top = stack_.back();
        Arc arc;
        if (top.want - top.got >= tau) {
            arc = next_arc(residual, levels, top);
            if (arc.kind == Arc::Kind::none) clear_bit(levels.at(top.level, top.block), top.position);
        }
        if (arc.kind != Arc::Kind::none && top.level > 1) {
            stack_.push_back({arc.block, arc.position, top.level - 1, std::min(top.want - top.got, arc.left), 0, 0, 0,
                              0, arc});
            continue;
        }
        Units delivered = 0;
        if (arc.kind != Arc::Kind::none) {  // the arc leaves the source
            delivered = std::min(top.want - top.got, arc.left);
            ++counters.augmentations;
        } else {
            delivered = top.got;
            arc = top.by;
            stack_.pop_back();
            if (stack_.empty()) return delivered;
        }
        pulse.beat();
        if (delivered == 0) continue;
        Frame& parent = stack_.back();
        parent.got += delivered;
        if (arc.kind == Arc::Kind::edge)
            residual.push(arc.link, parent.position, arc.position, delivered);
        else
            residual.cancel(arc.record, delivered);
    }
}

}  // namespace attnflow
