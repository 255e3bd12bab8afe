// Highest-label push-relabel with global relabelling
//
// Problem. The same as Dinic's (dinic.cpp); kept beside it because it shares none of its search, and so is an
// independent judge of it, and because it wins where levels grow long.
//
// Notation. As everywhere in this kernel the algorithm walks against the edges: the *sink* floods its in-edges with
// demand, and excess(v) is demand on v not yet passed on to its givers. height(v) <= residual arcs from v to a source.
//
// Steps.
//   1. heights = breadth-first distances from the source; saturate every edge into the sink from a node that the source
//      reaches;
//   2. take an active node of greatest height; pass its excess along arcs that lead down by one; where none is left,
//      lift it above its lowest neighbour;
//   3. after as many lifts as nodes, heights are set to exact distances again; a height that no node has any more cuts
//      off all above it (gap);
//   4. when no active node can reach a source, what the sources gave is the value. Flow that runs in circles is
//      cancelled, and then the remaining excess, along the edges that asked for it, node by node in the order of the
//      flow: the residual holds a flow again, not a preflow.
//
// A sink has no height: demand that came back to it is answered, and no way to a source leads through it.
//
// Invariants. excess >= 0 outside the terminals; height(v) <= height(w) + 1 along every residual arc v -> w, w nearer
// the source. Excess at a node never exceeds the flow that leaves it, which is what step 4 needs.
//
// Complexity. O(n^2 sqrt(m)) pushes. Scanning a row costs n / 64 words plus its set bits.
//
// Papers. [GT88] A. V. Goldberg, R. E. Tarjan, JACM 35 (1988); [CG97] B. V. Cherkassky, A. V. Goldberg, Algorithmica 19
// (1997), global relabelling and highest label.

#include "push_relabel.hpp"

#include <algorithm>
#include <numeric>

#include "take_back.hpp"

namespace attnflow {

// Visits residual arcs until `visit` returns false; returns whether it never did.
template <class Visit>
bool PushRelabel::for_each_arc(const Residual& residual, Node node, Visit&& visit) {
    const Network& net = residual.network();
    const std::uint32_t block = net.block_of(node), position = node - net.first_node(block);
    for (const std::uint32_t e : net.links_into(block)) {
        const Link& link = net.links()[e];
        const Node first = net.first_node(link.giver);
        const auto edge = [&](std::size_t giver) {
            const auto k = static_cast<std::uint32_t>(giver);
            const Residual::Edge found = residual.edge(e, position, giver);
            return found.left == 0 || visit(Arc{first + k, found, e, position, k, false});
        };
        if (link.diagonal()) {
            const std::int64_t k = static_cast<std::int64_t>(position) - link.offset;
            if (k >= 0 && k < static_cast<std::int64_t>(net.size(link.giver)) && !edge(static_cast<std::size_t>(k)))
                return false;
            continue;
        }
        for (std::size_t w = 0; w < net.words(link.giver); ++w)
            for (Word word = residual.row(residual.link(e), position)[w]; word != 0; word &= word - 1)
                if (!edge(w * word_bits + static_cast<std::size_t>(std::countr_zero(word)))) return false;
    }
    for (const std::uint32_t e : net.links_out_of(block)) {
        const Units flow = residual.straight_flow(e, position);
        const Node to = net.first_node(net.links()[e].receiver) + position;
        if (flow > 0 && !visit(Arc{to, {Residual::straight_edge, flow}, e, position, position, true})) return false;
    }
    for (auto id = residual.first_out(node); id != 0; id = residual.touched(id).next_out) {
        const TouchedEdge& edge = residual.touched(id);
        if (edge.flow > 0 && !visit(Arc{residual.receiver(edge), {id, edge.flow}, 0, 0, 0, true})) return false;
    }
    return true;
}

void PushRelabel::use(Residual& residual, const Arc& arc, Units amount) {
    if (!arc.backward)
        residual.push(arc.link, arc.receiver, arc.giver, arc.edge, amount);
    else if (arc.edge.record == Residual::straight_edge)
        residual.cancel_straight(arc.link, arc.receiver, amount);
    else
        residual.cancel(arc.edge.record, amount);
}

void PushRelabel::activate(Node node) {
    const std::uint32_t height = height_[node];
    if (height >= height_.size()) return;
    if (height >= active_.size()) active_.resize(height + 1);
    active_[height].push_back(node);
    highest_ = std::max<std::size_t>(highest_, height);
}

void PushRelabel::relabel_all(Residual& residual, Levels& levels, const Terminals& terminals) {
    const Network& net = residual.network();
    const auto none = static_cast<std::uint32_t>(net.n_nodes());
    levels.explore(residual, terminals.sources, terminals.sinks);
    height_.assign(net.n_nodes(), none);
    std::size_t level = 0;
    for (bool any = true; any; ++level) {
        any = false;
        for (std::uint32_t b = 0; b < net.n_blocks(); ++b)
            if (const Word* nodes = levels.n_levels() > level ? levels.at(level, b) : nullptr)
                for (std::size_t w = 0; w < net.words(b); ++w)
                    for_each_bit(nodes[w], w * word_bits, [&](std::size_t i) {
                        height_[net.first_node(b) + i] = static_cast<std::uint32_t>(level);
                        any = true;
                    });
    }
    count_.assign(net.n_nodes() + 1, 0);
    for (const std::uint32_t height : height_) ++count_[height];
    active_.clear();
    highest_ = 0;
    for (Node node = 0; node < net.n_nodes(); ++node)
        if (excess_[node] > 0 && !terminal_[node]) activate(node);
    relabels_ = 0;
}

void PushRelabel::discharge(Residual& residual, Node node, Pulse& pulse) {
    const auto none = static_cast<std::uint32_t>(height_.size());
    while (excess_[node] > 0 && height_[node] < none) {
        // Pushing changes rows and lists under the scan, so arcs that lead down are collected first.
        downhill_.clear();
        std::uint32_t lowest = none;
        Units room = 0;
        const std::uint32_t below = height_[node] - 1;
        for_each_arc(residual, node, [&](const Arc& arc) {
            const std::uint32_t height = height_[arc.to];
            if (height == below) {
                downhill_.push_back(arc);
                room = saturating_sum(room, arc.edge.left);
                return room < excess_[node];
            }
            lowest = std::min(lowest, height);
            return true;
        });
        for (const Arc& arc : downhill_) {
            const Units amount = std::min(excess_[node], arc.edge.left);
            if (amount == 0) break;
            use(residual, arc, amount);
            ++counters.augmentations;
            excess_[node] -= amount;
            if (excess_[arc.to] == 0 && !terminal_[arc.to]) activate(arc.to);
            excess_[arc.to] += amount;
            if (is_source_[arc.to]) value_ += amount;
        }
        pulse.beat();
        if (excess_[node] == 0) return;
        const std::uint32_t old = height_[node];
        height_[node] = std::min(lowest + 1, none);
        --count_[old];
        ++count_[height_[node]];
        ++relabels_;
        if (count_[old] == 0) {  // a gap: nothing above it reaches a source
            for (std::uint32_t& height : height_)
                if (height > old && height < none) {
                    --count_[height];
                    ++count_[none];
                    height = none;
                }
            return;
        }
        if (height_[node] < highest_) {  // no longer the highest: queue up again
            activate(node);
            return;
        }
    }
}

Units PushRelabel::solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) {
    const Network& net = residual.network();
    residual.set_scale(CapacityIndex::n_scales - 1);
    excess_.assign(net.n_nodes(), 0);
    terminal_.assign(net.n_nodes(), false);
    is_source_.assign(net.n_nodes(), false);
    value_ = 0;
    for (const Node node : terminals.source_nodes) terminal_[node] = is_source_[node] = true;
    for (const Node node : terminals.sink_nodes) terminal_[node] = true;

    ++counters.searches;
    relabel_all(residual, levels, terminals);
    const auto none = static_cast<std::uint32_t>(net.n_nodes());
    const Units limit = residual.capacities().quantum().flow_limit();
    for (const Node sink : terminals.sink_nodes) {
        downhill_.clear();
        for_each_arc(residual, sink, [&](const Arc& arc) {
            const bool inner_sink = terminal_[arc.to] && !is_source_[arc.to];
            if (!arc.backward && !inner_sink && height_[arc.to] < none) downhill_.push_back(arc);
            return true;
        });
        for (const Arc& arc : downhill_) {
            // An unbounded edge need not be flooded beyond what any finite flow could be, plus one to tell.
            const Units amount = std::min(arc.edge.left, limit + 1);
            use(residual, arc, amount);
            if (excess_[arc.to] == 0 && !terminal_[arc.to]) activate(arc.to);
            excess_[arc.to] += amount;
            if (is_source_[arc.to]) value_ += amount;
        }
    }
    while (value_ < bound) {
        while (highest_ > 0 && (highest_ >= active_.size() || active_[highest_].empty())) --highest_;
        if (highest_ == 0) break;
        const Node node = active_[highest_].back();
        active_[highest_].pop_back();
        if (excess_[node] == 0 || height_[node] != highest_) continue;  // stale
        discharge(residual, node, pulse);
        if (relabels_ > net.n_nodes()) {
            ++counters.searches;
            pulse.check();
            relabel_all(residual, levels, terminals);
        }
    }
    // Every node with excess sends at least that much on: it is taken back there, until all of it is back at the sink.
    std::vector<Node> all(net.n_nodes());
    std::iota(all.begin(), all.end(), Node{0});
    take_back(residual, all, excess_, terminal_, pulse);
    counters.touched += residual.n_touched();
    return value_;
}

}  // namespace attnflow
