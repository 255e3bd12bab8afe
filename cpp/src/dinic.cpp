// Dinic's algorithm on bits
//
// Problem. Maximum flow from a source set to a sink set in a network of dense layers, where the flow uses a handful of
// edges of every node out of hundreds, and the same network is solved again for every source.
//
// Notation. tau: the current threshold. An arc is usable if its residual is >= tau. level(v): usable arcs on a shortest
// path from the source to v. The search walks against the edges (residual.hpp says why), from the sink down the levels.
//
// Steps. At tau = one quantum; a flow that others are to be built on (solve_fat_first) at max / 2^10 before:
//   1. levels by breadth-first search over usable arcs; if the sink is not reached, next tau, or done;
//   2. a blocking flow: depth-first from the sink. A node is asked for `want` units; it asks nodes one level lower, each
//      for at most what the arc leaves, until it got `want` or has nobody left to ask. A node that delivered less than
//      it was asked for is a dead end for this phase and leaves its level. Several branches are filled in one visit, so
//      a path prefix is walked once, not once an augmentation;
//   3. again from 1.
// A node's next candidate is row & level, a word at a time. The straight edge (k -> k), which is the residual stream
// and holds half of a node's capacity, is tried first: it leads down without touching a new capacity.
//
// Invariants. While a frame is open, every candidate it has finished with has left row & level: its node is dead, or the
// arc fell below tau. That is why a frame may simply look at its current word again. Shortfalls below tau count as
// satisfied, so that no phase chases crumbs; at one quantum there are none.
//
// Certificate. At tau = 1 a failed search proves the flow maximum; a solve that reached `bound` needs no such search.
//
// Complexity. O(n^2 m) as Dinic's, per scale; measured growth is in docs/design/kernel.md. The stack is explicit: levels
// can be as many as nodes.
//
// Papers. [Din70] E. A. Dinic, Soviet Math. Doklady 11 (1970); [EK72] capacity scaling, J. Edmonds, R. M. Karp, JACM 19
// (1972).

#include "dinic.hpp"

#include <algorithm>

namespace attnflow {

namespace {
constexpr std::size_t finest = CapacityIndex::n_scales - 1;
}

// Searches at the current scale until `bound` is reached or nothing is left. room(i): what sink i can take at most;
// took(i, amount) hears of it.
template <class Room, class Took>
Units Dinic::at_scale(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse,
                      const Room& room, const Took& took) {
    const Network& net = residual.network();
    const Units tau = residual.threshold();
    const auto give = [&](std::uint32_t block, std::uint32_t position, Units want) {
        return from_sources(residual, levels, block, position, want);
    };
    Units value = 0;
    while (bound - value >= tau) {
        ++counters.searches;
        pulse.check();
        const std::size_t level = levels.run(residual, terminals.sources, terminals.sinks, terminals.useless);
        counters.steps +=
            levels.n_levels() * net.n_nodes() / net.n_blocks() / 4;  // measured: a level of n nodes takes as long
        if (level == 0) break;
        for (std::size_t i = 0; i < terminals.sink_nodes.size(); ++i) {
            const Node sink = terminals.sink_nodes[i];
            const std::uint32_t block = net.block_of(sink), position = sink - net.first_node(block);
            const Word* reached = levels.at(level, block);
            if (reached == nullptr || !test_bit(reached, position)) continue;
            const Units want = std::min(bound - value, room(i));
            if (want < tau) continue;
            const Units got = blocking_flow<1>(residual, levels, level, sink, want, pulse, give);
            value += got;
            took(i, got);
            if (value > residual.capacities().quantum().flow_limit()) return value;
        }
    }
    return value;
}

Units Dinic::from_scale(std::size_t scale, Residual& residual, Levels& levels, const Terminals& terminals, Units bound,
                        Pulse& pulse) {
    Units value = 0;
    for (; scale <= finest; ++scale) {
        residual.set_scale(scale);
        value += at_scale(
            residual, levels, terminals, bound - value, pulse, [](std::size_t) { return unbounded; },
            [](std::size_t, Units) {});
        if (value > residual.capacities().quantum().flow_limit()) return value;
    }
    counters.touched += residual.n_touched();
    return value;
}

Units Dinic::solve(Residual& residual, Levels& levels, const Terminals& terminals, Units bound, Pulse& pulse) {
    return from_scale(finest, residual, levels, terminals, bound, pulse);
}

Units Dinic::solve_fat_first(Residual& residual, Levels& levels, const Terminals& terminals, Units bound,
                             Pulse& pulse) {
    return from_scale(residual.has_base() ? finest : 0, residual, levels, terminals, bound, pulse);
}

Units Dinic::solve_into(Residual& residual, Levels& levels, Terminals& terminals, std::vector<Units>& room, Units bound,
                        Pulse& pulse) {
    const Network& net = residual.network();
    residual.set_scale(finest);
    const Units value = at_scale(
        residual, levels, terminals, bound, pulse, [&](std::size_t i) { return room[i]; },
        [&](std::size_t i, Units amount) {
            room[i] -= amount;
            const Node sink = terminals.sink_nodes[i];
            const std::uint32_t block = net.block_of(sink);
            if (room[i] == 0) clear_bit(&terminals.sinks[net.first_word(block)], sink - net.first_node(block));
        });
    counters.touched += residual.n_touched();
    return value;
}

Units Dinic::solve_between(Residual& residual, Between& between, Ends& ends, Units bound, Pulse& pulse) {
    const Network& net = residual.network();
    Units value = 0;
    while (value < bound) {
        ++counters.searches;
        pulse.check();
        const std::size_t level = between.run(residual, ends.from, ends.to, ends.excluded);
        if (level == 0) break;
        const auto give = [&](std::uint32_t block, std::uint32_t position, Units want) {
            Units& supply = ends.supply[net.first_node(block) + position];
            const Units got = std::min(want, supply);
            supply -= got;
            if (supply == 0) {
                clear_bit(between.at(0, block), position);
                clear_bit(&ends.from[net.first_word(block)], position);
            }
            ++counters.augmentations;
            return got;
        };
        for (std::uint32_t block = 0; block < net.n_blocks(); ++block) {
            if (between.at(level, block) == nullptr) continue;
            for (std::size_t w = 0; w < net.words(block); ++w) {
                Word& to = ends.to[net.first_word(block) + w];
                for_each_bit(between.at(level, block)[w] & to, w * word_bits, [&](std::size_t k) {
                    const Node sink = net.first_node(block) + static_cast<Node>(k);
                    const Units want = std::min(bound - value, ends.room[sink]);
                    if (want == 0) return;
                    const Units got = blocking_flow<0>(residual, between, level, sink, want, pulse, give);
                    value += got;
                    ends.room[sink] -= got;
                    if (ends.room[sink] == 0) clear_bit(&to, k % word_bits);
                });
            }
        }
        if (value > residual.capacities().quantum().flow_limit()) break;
    }
    return value;
}

// What a node on level 1 can get: the arcs below it leave sources, which give all they are asked for. Half of all steps
// end here, so it has a loop of its own.
Units Dinic::from_sources(Residual& residual, Levels& levels, std::uint32_t block, std::uint32_t position, Units want) {
    const Units tau = residual.threshold();
    Units got = 0;
    const auto take = [&](std::uint32_t e, std::size_t giver) {
        const Residual::Edge edge = residual.edge(e, position, giver);
        const Units amount = std::min(want - got, edge.left);
        if (amount < tau) return;
        residual.push(e, position, giver, edge, amount);
        got += amount;
        ++counters.augmentations;
    };
    for (const std::uint32_t e : residual.network().links_into(block)) {
        const Residual::LinkView& link = residual.link(e);
        const Word* level = levels.at(0, link.giver_block);
        if (level == nullptr) continue;
        if (link.diagonal) {
            const std::int64_t k = static_cast<std::int64_t>(position) - link.offset;
            if (k >= 0 && k < static_cast<std::int64_t>(link.n_givers) && test_bit(level, static_cast<std::size_t>(k)))
                take(e, static_cast<std::size_t>(k));
            continue;
        }
        const auto [low, high] = levels.range(0, link.giver_block);
        for (std::size_t w = low; w < high && want - got >= tau; ++w)
            for_each_bit(residual.row(link, position)[w] & level[w], w * word_bits, [&](std::size_t k) { take(e, k); });
    }
    if (want - got >= tau) clear_bit(levels.at(1, block), position);
    return got;
}

// Finds the next node one level lower that `frame` can ask, and fills in `child` up to its arc.
bool Dinic::next_arc(const Residual& residual, LevelSets& levels, std::size_t below, Frame& frame, Frame& child) {
    const Network& net = residual.network();
    const std::vector<std::uint32_t>& into = net.links_into(frame.block);
    const auto forward = [&](std::uint32_t e, const Residual::LinkView& link, std::uint32_t giver) {
        child.block = link.giver_block;
        child.position = giver;
        child.link = e;
        child.backward = 0;
        child.edge = residual.edge(e, frame.position, giver);
    };
    for (; frame.stage < into.size(); ++frame.stage, frame.word = 0) {
        const std::uint32_t e = into[frame.stage];
        const Residual::LinkView& link = residual.link(e);
        const Word* level = levels.at(below, link.giver_block);
        if (level == nullptr) continue;
        if (link.diagonal) {
            const std::int64_t k = static_cast<std::int64_t>(frame.position) - link.offset;
            if (k < 0 || k >= static_cast<std::int64_t>(link.n_givers)) continue;
            if (!test_bit(level, static_cast<std::size_t>(k))) continue;
            forward(e, link, static_cast<std::uint32_t>(k));
            if (child.edge.left >= residual.threshold()) return true;
            continue;
        }
        const Word* row = residual.row(link, frame.position);
        if (frame.word == 0) {
            frame.word = 1;
            if (frame.position < link.n_givers && test_bit(level, frame.position) && test_bit(row, frame.position)) {
                forward(e, link, frame.position);
                return true;
            }
        }
        for (; frame.word <= link.n_words; ++frame.word)
            if (const Word candidates = row[frame.word - 1] & level[frame.word - 1]) {
                forward(e, link,
                        (frame.word - 1) * static_cast<std::uint32_t>(word_bits) +
                            static_cast<std::uint32_t>(std::countr_zero(candidates)));
                return true;
            }
    }
    if (frame.stage == into.size()) {
        for (const std::uint32_t e : net.links_out_of(frame.block)) {
            const Units flow = residual.straight_flow(e, frame.position);
            if (flow < residual.threshold()) continue;
            child.block = net.links()[e].receiver;
            const Word* level = levels.at(below, child.block);
            if (level == nullptr || !test_bit(level, frame.position)) continue;
            child.position = frame.position;
            child.link = e;
            child.backward = 1;
            child.edge = {Residual::straight_edge, flow};
            return true;
        }
        ++frame.stage;
        frame.record = residual.first_out(net.first_node(frame.block) + frame.position);
    }
    for (; frame.record != 0; frame.record = residual.touched(frame.record).next_out) {
        const TouchedEdge& edge = residual.touched(frame.record);
        if (edge.flow < residual.threshold()) continue;
        const Node receiver = residual.receiver(edge);
        child.block = net.block_of(receiver);
        child.position = receiver - net.first_node(child.block);
        const Word* level = levels.at(below, child.block);
        if (level == nullptr || !test_bit(level, child.position)) continue;
        child.backward = 1;
        child.edge = {frame.record, edge.flow};
        return true;
    }
    return false;
}

// Fills `sink` by ways down to level `lowest`, where give(block, position, want) says how much a node has.
template <std::size_t lowest, class Give>
Units Dinic::blocking_flow(Residual& residual, LevelSets& levels, std::size_t level, Node sink, Units want,
                           Pulse& pulse, const Give& give) {
    const Units tau = residual.threshold();
    const std::size_t top = level;
    const std::uint32_t block = residual.network().block_of(sink), position = residual.network().position_of(sink);
    if (top == lowest) return give(block, position, want);
    if (stack_.size() <= top) stack_.resize(top + 1);
    const auto enter = [](Frame& frame, Units asked) {
        frame.want = asked;
        frame.got = 0;
        frame.stage = frame.word = 0;
    };
    const Frame* const root = &stack_[top];
    Frame* frame = &stack_[top];  // of `level`; the one below it in memory is a level lower
    frame->block = block;
    frame->position = position;
    enter(*frame, want);
    for (;;) {
        pulse.beat();
        ++counters.steps;
        Frame* child = frame - 1;
        Units delivered = 0;
        const bool unsatisfied = frame->want - frame->got >= tau;
        if (unsatisfied && next_arc(residual, levels, level - 1, *frame, *child)) {
            const Units asked = std::min(frame->want - frame->got, child->edge.left);
            if (level > lowest + 1) {
                enter(*child, asked);
                frame = child;
                --level;
                continue;
            }
            delivered = give(child->block, child->position, asked);
        } else {  // has all it wants, or nobody left to ask
            if (unsatisfied) clear_bit(levels.at(level, frame->block), frame->position);
            delivered = frame->got;
            if (frame == root) return delivered;
            child = frame++;
            ++level;
        }
        if (delivered == 0) continue;
        frame->got += delivered;
        if (child->backward == 0)
            residual.push(child->link, frame->position, child->position, child->edge, delivered);
        else if (child->edge.record == Residual::straight_edge)
            residual.cancel_straight(child->link, child->position, delivered);
        else
            residual.cancel(child->edge.record, delivered);
    }
}

}  // namespace attnflow
