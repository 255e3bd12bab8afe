#include "levels.hpp"

#include <bit>

#include "lanes.hpp"

namespace attnflow {

Levels::Levels(const Network& network, Pulse& pulse)
    : LevelSets(network), pulse_(pulse), no_nodes_(network.n_words(), 0) {}

Word* LevelSets::open(std::size_t level, std::uint32_t block) {
    std::uint32_t& offset = table_[level * n_blocks_ + block].offset;
    if (offset == 0) {
        offset = static_cast<std::uint32_t>(words_.size()) + 1;
        words_.resize(words_.size() + network_.words(block), 0);
        next_frontier_.push_back(block);
    }
    return words_.data() + (offset - 1);
}

void Levels::visit(std::size_t level, std::uint32_t block, std::size_t position) {
    set_bit(open(level, block), position);
    set_bit(visited_.data() + network_.first_word(block), position);
}

void LevelSets::close(std::size_t level) {
    for (const std::uint32_t block : next_frontier_) {
        Slot& slot = table_[level * n_blocks_ + block];
        const Word* words = words_.data() + (slot.offset - 1);
        Range range{0, static_cast<std::uint32_t>(network_.words(block))};
        while (range.low < range.high && words[range.low] == 0) ++range.low;
        while (range.low < range.high && words[range.high - 1] == 0) --range.high;
        slot.range = range;
    }
    std::erase_if(next_frontier_, [&](std::uint32_t block) {
        const Range range = table_[level * n_blocks_ + block].range;
        return range.low == range.high;
    });
}

bool Levels::all_visited(std::uint32_t block) const {
    const Word* visited = visited_.data() + network_.first_word(block);
    for (std::size_t w = 0; w < network_.words(block); ++w)
        if (~visited[w] & word_of_all(w, network_.size(block))) return false;
    return true;
}

std::size_t Levels::run(const Residual& residual, const std::vector<Word>& sources, const std::vector<Word>& sinks,
                        const std::vector<Word>& excluded) {
    visited_ = excluded;
    clear();
    for (std::uint32_t b = 0; b < n_blocks_; ++b)
        for (std::size_t w = 0; w < network_.words(b); ++w)
            for_each_bit(sources[network_.first_word(b) + w], w * word_bits, [&](std::size_t i) { visit(0, b, i); });
    close(0);
    for (std::size_t level = 0; !next_frontier_.empty(); ++level) {
        pulse_.beat();
        frontier_.swap(next_frontier_);
        next_frontier_.clear();
        add_level();
        for (const std::uint32_t block : frontier_) expand(residual, level, block);
        close(level + 1);
        for (const std::uint32_t block : next_frontier_) {
            const Word* reached = at(level + 1, block);
            for (std::size_t w = 0; w < network_.words(block); ++w)
                if (reached[w] & sinks[network_.first_word(block) + w]) return level + 1;
        }
    }
    return 0;
}

void Levels::expand(const Residual& residual, std::size_t level, std::uint32_t block) {
    for (const std::uint32_t e : network_.links_out_of(block)) {
        if (all_visited(network_.links()[e].receiver)) continue;
        if (network_.links()[e].diagonal())
            expand_diagonal(residual, level, block, e);
        else
            expand_dense(residual, level, block, e);
    }
    // Whoever sends flow into a frontier node can be asked to send less; there is nobody new to ask where all givers
    // were visited before, which is the rule until the flow bends back.
    for (const std::uint32_t e : network_.links_into(block))
        if (!all_visited(network_.links()[e].giver)) return expand_backward(residual, level, block);
}

// Which of a group of 64 receivers have a word of [low, high) in common with the frontier. Dense rows mostly tell by the
// first of these words; in sparse ones it takes them all, four at a time.
ATTNFLOW_DISPATCH Word receivers_that_meet(const Residual::Rows& rows, std::size_t group, Word candidates,
                                           const Word* frontier, std::size_t low, std::size_t high) {
    const std::size_t fours = (high - low) / 4 * 4;
    Word found = 0;
    for (; candidates != 0; candidates &= candidates - 1) {
        const Word* row = rows[group * word_bits + static_cast<std::size_t>(std::countr_zero(candidates))];
        Word common = row[low] & frontier[low];
        for (std::size_t w = low; common == 0 && w < low + fours; w += 4)
            common = (row[w] & frontier[w]) | (row[w + 1] & frontier[w + 1]) | (row[w + 2] & frontier[w + 2]) |
                     (row[w + 3] & frontier[w + 3]);
        for (std::size_t w = low + fours; common == 0 && w < high; ++w) common = row[w] & frontier[w];
        if (common != 0) found |= candidates & -candidates;
    }
    return found;
}

void Levels::expand_dense(const Residual& residual, std::size_t level, std::uint32_t block, std::uint32_t e) {
    const Link& link = network_.links()[e];
    Word* reached = open(level + 1, link.receiver);  // first: it may move the frontier
    const Word* frontier = at(level, block);
    const std::size_t words = network_.words(link.giver), receivers = network_.size(link.receiver);
    std::size_t low = range(level, block).low, high = range(level, block).high;
    if (words >= 4) {  // whole fours; beyond the range the frontier is empty
        const std::size_t n = std::min(words, (high - low + 3) / 4 * 4);
        low = std::min(low, words - n);
        high = low + n;
    }
    const Residual::Rows rows = residual.rows(residual.link(e));
    Word* visited = visited_.data() + network_.first_word(link.receiver);
    for (std::size_t v = 0; v < network_.words(link.receiver); ++v)
        if (const Word candidates = ~visited[v] & word_of_all(v, receivers)) {
            const Word found = receivers_that_meet(rows, v, candidates, frontier, low, high);
            visited[v] |= found;
            reached[v] |= found;
        }
}

void Levels::expand_diagonal(const Residual& residual, std::size_t level, std::uint32_t block, std::uint32_t e) {
    const Link& link = network_.links()[e];
    const std::size_t first = network_.first_word(link.receiver);
    for (std::size_t w = 0; w < network_.words(block); ++w)
        for_each_bit(at(level, block)[w], w * word_bits, [&](std::size_t k) {
            const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
            if (j < 0 || j >= static_cast<std::int64_t>(network_.size(link.receiver))) return;
            const auto to = static_cast<std::size_t>(j);
            if (test_bit(&visited_[first], to) || residual.edge(e, to, k).left < residual.threshold()) return;
            visit(level + 1, link.receiver, to);
        });
}

void Levels::expand_backward(const Residual& residual, std::size_t level, std::uint32_t block) {
    const Node first = network_.first_node(block);
    const Word* has_inflow = residual.ever_entered() + network_.first_word(block);
    const auto [low, high] = range(level, block);
    for (std::size_t w = low; w < high; ++w)
        for_each_bit(at(level, block)[w] & has_inflow[w], w * word_bits, [&](std::size_t j) {
            for (const std::uint32_t e : network_.links_into(block)) {
                const std::uint32_t from = network_.links()[e].giver;
                if (residual.straight_flow(e, j) >= residual.threshold() &&
                    !test_bit(&visited_[network_.first_word(from)], j))
                    visit(level + 1, from, j);
            }
            for (auto id = residual.first_in(first + static_cast<Node>(j)); id != 0;
                 id = residual.touched(id).next_in) {
                const TouchedEdge& edge = residual.touched(id);
                if (edge.flow < residual.threshold()) continue;
                const std::uint32_t from = network_.block_of(edge.giver);
                const std::size_t position = edge.giver - network_.first_node(from);
                if (!test_bit(&visited_[network_.first_word(from)], position)) visit(level + 1, from, position);
            }
        });
}

void nodes_reached(const CapacityIndex& capacities, const std::vector<Word>& sources, std::vector<Word>& reached,
                   Pulse& pulse) {
    const Network& net = capacities.network();
    constexpr std::size_t finest = CapacityIndex::n_scales - 1;
    reached = sources;
    // Adds what the nodes reached in the giver's block reach through one link; false where that is nothing new.
    const auto advance = [&](std::uint32_t e) {
        const Link& link = net.links()[e];
        const Word* from = &reached[net.first_word(link.giver)];
        Word* to = &reached[net.first_word(link.receiver)];
        const std::size_t receivers = net.size(link.receiver);
        bool any = false;
        if (link.diagonal()) {
            for (std::size_t w = 0; w < net.words(link.giver); ++w)
                for_each_bit(from[w], w * word_bits, [&](std::size_t k) {
                    const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
                    if (j < 0 || j >= static_cast<std::int64_t>(receivers)) return;
                    const auto receiver = static_cast<std::size_t>(j);
                    if (test_bit(to, receiver) || capacities.at(e, receiver, k) == 0) return;
                    set_bit(to, receiver);
                    any = true;
                });
            return any;
        }
        std::size_t low = 0, high = net.words(link.giver);
        while (low < high && from[low] == 0) ++low;
        while (low < high && from[high - 1] == 0) --high;
        const Word* straight = capacities.straight_bits(e);
        for (std::size_t v = 0; v < net.words(link.receiver); ++v) {
            const Word before = to[v];
            if (straight != nullptr) to[v] |= from[v] & straight[v];
            const auto [first, end] = capacities.extent(e, v);
            if (first >= high || end <= low) {
                any = any || to[v] != before;
                continue;
            }
            for_each_bit(~to[v] & word_of_all(v, receivers), v * word_bits, [&](std::size_t j) {
                const Word* row = capacities.bits(finest, e, j);
                for (std::size_t w = low; w < high; ++w)
                    if ((row[w] & from[w]) != 0) return set_bit(to, j);
            });
            any = any || to[v] != before;
        }
        return any;
    };
    std::vector<char> changed(net.n_blocks(), 1);
    for (bool again = true; again;) {
        again = false;
        for (std::uint32_t block = 0; block < net.n_blocks(); ++block) {
            if (changed[block] == 0) continue;
            pulse.beat();
            changed[block] = 0;
            for (const std::uint32_t e : net.links_out_of(block))
                if (advance(e)) {
                    changed[net.links()[e].receiver] = 1;
                    again = true;
                }
        }
    }
}

std::vector<Word> nodes_reaching(const CapacityIndex& capacities, const std::vector<Word>& sinks, Pulse& pulse) {
    const Network& net = capacities.network();
    std::vector<Word> reaching = sinks, frontier = sinks, next;
    const std::size_t finest = CapacityIndex::n_scales - 1;
    for (bool any = true; any;) {
        pulse.check();
        any = false;
        next.assign(net.n_words(), 0);
        for (std::size_t e = 0; e < net.links().size(); ++e) {
            const Link& link = net.links()[e];
            const std::size_t to = net.first_word(link.receiver), from = net.first_word(link.giver);
            const std::size_t n = net.words(link.giver);
            for (std::size_t v = 0; v < net.words(link.receiver); ++v)
                for_each_bit(frontier[to + v], v * word_bits, [&](std::size_t j) {
                    if (link.diagonal()) {
                        const std::int64_t k = static_cast<std::int64_t>(j) - link.offset;
                        if (k < 0 || k >= static_cast<std::int64_t>(net.size(link.giver))) return;
                        const auto giver = static_cast<std::size_t>(k);
                        if (capacities.at(e, j, giver) > 0) set_bit(&next[from], giver);
                        return;
                    }
                    const Word* row = capacities.bits(finest, e, j);
                    for (std::size_t w = 0; w < n; ++w) next[from + w] |= row[w];
                });
        }
        for (std::size_t w = 0; w < next.size(); ++w) {
            next[w] &= ~reaching[w];
            reaching[w] |= next[w];
            any = any || next[w] != 0;
        }
        frontier.swap(next);
    }
    return reaching;
}

std::vector<Word> nodes_reaching(const Residual& residual, const std::vector<Word>& sinks) {
    const Network& net = residual.network();
    std::vector<Word> reaching = sinks;
    std::vector<Node> open;
    const auto visit = [&](std::uint32_t block, std::size_t position) {
        Word* words = &reaching[net.first_word(block)];
        if (test_bit(words, position)) return;
        set_bit(words, position);
        open.push_back(net.first_node(block) + static_cast<Node>(position));
    };
    for (std::uint32_t block = 0; block < net.n_blocks(); ++block)
        for (std::size_t w = 0; w < net.words(block); ++w)
            for_each_bit(sinks[net.first_word(block) + w], w * word_bits,
                         [&](std::size_t i) { open.push_back(net.first_node(block) + static_cast<Node>(i)); });
    while (!open.empty()) {
        const Node node = open.back();
        open.pop_back();
        const std::uint32_t block = net.block_of(node);
        const std::size_t position = net.position_of(node);
        for (const std::uint32_t e : net.links_into(block)) {
            const Residual::LinkView& link = residual.link(e);
            if (link.diagonal) {
                const std::int64_t k = static_cast<std::int64_t>(position) - link.offset;
                if (k < 0 || k >= static_cast<std::int64_t>(link.n_givers)) continue;
                const auto giver = static_cast<std::size_t>(k);
                if (residual.edge(e, position, giver).left >= residual.threshold()) visit(link.giver_block, giver);
                continue;
            }
            const Word* row = residual.row(link, position);
            const Word* known = &reaching[net.first_word(link.giver_block)];
            for (std::size_t w = 0; w < link.n_words; ++w)
                for_each_bit(row[w] & ~known[w], w * word_bits, [&](std::size_t k) { visit(link.giver_block, k); });
        }
        // Whoever gets flow from here can send it back.
        for (const std::uint32_t e : net.links_out_of(block))
            if (residual.straight_flow(e, position) >= residual.threshold()) visit(net.links()[e].receiver, position);
        for (auto id = residual.first_out(node); id != 0; id = residual.touched(id).next_out) {
            const TouchedEdge& edge = residual.touched(id);
            if (edge.flow < residual.threshold()) continue;
            const Node receiver = residual.receiver(edge);
            visit(net.block_of(receiver), net.position_of(receiver));
        }
    }
    return reaching;
}

}  // namespace attnflow
