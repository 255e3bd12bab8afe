#include "levels.hpp"

#include <algorithm>

namespace attnflow {

Levels::Levels(const Network& network) : network_(network), n_blocks_(network.n_blocks()) {}

void Levels::visit(std::size_t level, std::uint32_t block, std::size_t position) {
    std::uint32_t& offset = table_[level * n_blocks_ + block];
    if (offset == 0) {
        offset = static_cast<std::uint32_t>(words_.size()) + 1;
        words_.resize(words_.size() + network_.words(block), 0);
        next_frontier_.push_back(block);
    }
    set_bit(words_.data() + (offset - 1), position);
    set_bit(visited_.data() + network_.first_word(block), position);
}

std::size_t Levels::run(const Residual& residual, const std::vector<Word>& sources, const std::vector<Word>& sinks) {
    visited_ = sources;
    words_.clear();
    table_.assign(n_blocks_, 0);
    frontier_.clear();
    for (std::uint32_t b = 0; b < n_blocks_; ++b) {
        const std::size_t first = network_.first_word(b), n = network_.words(b);
        if (std::all_of(&sources[first], &sources[first] + n, [](Word w) { return w == 0; })) continue;
        table_[b] = static_cast<std::uint32_t>(words_.size()) + 1;
        words_.insert(words_.end(), &sources[first], &sources[first] + n);
        frontier_.push_back(b);
    }
    for (std::size_t level = 0; !frontier_.empty(); ++level) {
        table_.resize(table_.size() + n_blocks_, 0);
        next_frontier_.clear();
        for (const std::uint32_t block : frontier_) expand(residual, level, block);
        for (const std::uint32_t block : next_frontier_) {
            const Word* reached = at(level + 1, block);
            for (std::size_t w = 0; w < network_.words(block); ++w)
                if (reached[w] & sinks[network_.first_word(block) + w]) return level + 1;
        }
        frontier_.swap(next_frontier_);
    }
    return 0;
}

void Levels::expand(const Residual& residual, std::size_t level, std::uint32_t block) {
    // visit() may move words_, so the frontier is found anew after each link.
    const std::size_t n_words = network_.words(block);
    for (const std::uint32_t e : network_.links_out_of(block)) {
        const Link& link = network_.links()[e];
        const std::size_t receivers = network_.size(link.receiver);
        if (link.diagonal) {
            for (std::size_t w = 0; w < n_words; ++w) {
                const Word word = at(level, block)[w];
                for_each_bit(word, w * word_bits, [&](std::size_t k) {
                    const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
                    if (j < 0 || j >= static_cast<std::int64_t>(receivers)) return;
                    const auto to = static_cast<std::size_t>(j);
                    if (test_bit(&visited_[network_.first_word(link.receiver)], to)) return;
                    if (residual.left(e, to, k) >= residual.threshold()) visit(level + 1, link.receiver, to);
                });
            }
            continue;
        }
        std::size_t low = 0, high = n_words;  // words of the frontier that hold bits
        {
            const Word* frontier = at(level, block);
            while (frontier[low] == 0) ++low;
            while (frontier[high - 1] == 0) --high;
        }
        const std::size_t visited_from = network_.first_word(link.receiver);
        for (std::size_t v = 0; v < network_.words(link.receiver); ++v) {
            const std::size_t first = v * word_bits;
            const Word all = receivers - first >= word_bits ? ~Word{0} : (Word{1} << (receivers - first)) - 1;
            const Word unvisited = ~visited_[visited_from + v] & all;
            for_each_bit(unvisited, first, [&](std::size_t j) {
                const Word* row = residual.row(e, j);
                const Word* frontier = at(level, block);
                for (std::size_t w = low; w < high; ++w)
                    if (row[w] & frontier[w]) {
                        visit(level + 1, link.receiver, j);
                        return;
                    }
            });
        }
    }
    // Backward arcs: whoever sends flow into a frontier node can be asked to send less.
    const Node first = network_.first_node(block);
    for (std::size_t w = 0; w < n_words; ++w) {
        const Word word = at(level, block)[w];
        for_each_bit(word, w * word_bits, [&](std::size_t j) {
            for (auto id = residual.first_in(first + static_cast<Node>(j)); id != 0; id = residual.edge(id).next_in) {
                const TouchedEdge& edge = residual.edge(id);
                if (edge.flow < residual.threshold()) continue;
                const std::uint32_t from = network_.block_of(edge.giver);
                const std::size_t position = edge.giver - network_.first_node(from);
                if (!test_bit(&visited_[network_.first_word(from)], position)) visit(level + 1, from, position);
            }
        });
    }
}

std::vector<Word> nodes_reaching(const CapacityIndex& capacities, const std::vector<Word>& sinks) {
    const Network& net = capacities.network();
    std::vector<Word> reaching = sinks, frontier = sinks, next;
    const std::size_t finest = CapacityIndex::n_scales - 1;
    for (bool any = true; any;) {
        any = false;
        next.assign(net.n_words(), 0);
        for (std::size_t e = 0; e < net.links().size(); ++e) {
            const Link& link = net.links()[e];
            const std::size_t to = net.first_word(link.receiver), from = net.first_word(link.giver);
            const std::size_t n = net.words(link.giver);
            for (std::size_t v = 0; v < net.words(link.receiver); ++v)
                for_each_bit(frontier[to + v], v * word_bits, [&](std::size_t j) {
                    if (link.diagonal) {
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

}  // namespace attnflow
