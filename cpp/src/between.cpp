#include "between.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace attnflow {

namespace {

// Adds the sets of some nodes to `reach`; set_of(i) has the words of node i. In registers, where a set has few words.
template <std::size_t n, class SetOf>
void join_few(Word* reach, const std::vector<std::uint32_t>& nodes, const SetOf& set_of) {
    std::array<Word, n> joined{};
    for (const std::uint32_t i : nodes) {
        const Word* const words = set_of(i);
        for (std::size_t w = 0; w < n; ++w) joined[w] |= words[w];
    }
    for (std::size_t w = 0; w < n; ++w) reach[w] |= joined[w];
}

template <class SetOf>
void join(Word* reach, std::size_t n, const std::vector<std::uint32_t>& nodes, const SetOf& set_of) {
    switch (n) {
        case 1: return join_few<1>(reach, nodes, set_of);
        case 2: return join_few<2>(reach, nodes, set_of);
        case 4: return join_few<4>(reach, nodes, set_of);
        default:
            for (const std::uint32_t i : nodes) {
                const Word* const words = set_of(i);
                for (std::size_t w = 0; w < n; ++w) reach[w] |= words[w];
            }
    }
}

}  // namespace

// One step from nodes of a block, along the residual arcs or against them; mark(block, words) hears of nodes not seen before.
template <bool forward, class Mark>
void Between::step(const Residual& residual, std::uint32_t block, const Word* nodes, std::vector<Word>& unseen,
                   const Mark& mark) {
    positions_.clear();
    for (std::size_t w = 0; w < network_.words(block); ++w)
        for_each_bit(nodes[w], w * word_bits,
                     [&](std::size_t i) { positions_.push_back(static_cast<std::uint32_t>(i)); });
    work_[forward ? 0 : 1] += positions_.size();
    const auto across = [&](std::uint32_t e) {
        const Link& link = network_.links()[e];
        return link.giver == block ? link.receiver : link.giver;
    };
    const auto any_unseen = [&](std::uint32_t other) {
        const Word* words = &unseen[network_.first_word(other)];
        return std::any_of(words, words + network_.words(other), [](Word word) { return word != 0; });
    };
    // Takes what reach_ holds of a block, and leaves it empty.
    const auto see = [&](std::uint32_t other) {
        const std::size_t first = network_.first_word(other), n = network_.words(other);
        Word any = 0;
        for (std::size_t w = first; w < first + n; ++w) {
            reach_[w] &= unseen[w];
            unseen[w] ^= reach_[w];
            any |= reach_[w];
        }
        if (any == 0) return;
        mark(other, &reach_[first]);
        std::fill_n(&reach_[first], n, 0);
    };
    for (const std::uint32_t e : forward ? network_.links_out_of(block) : network_.links_into(block)) {
        const Residual::LinkView& link = residual.link(e);
        const std::uint32_t other = across(e);
        if (!any_unseen(other)) continue;
        Word* const reach = &reach_[network_.first_word(other)];
        if (link.diagonal) {
            for (const std::uint32_t i : positions_) {
                const std::int64_t to = forward ? i + link.offset : i - link.offset;
                if (to < 0 || to >= static_cast<std::int64_t>(network_.size(other))) continue;
                const auto j = static_cast<std::size_t>(to);
                if (residual.edge(e, forward ? j : i, forward ? i : j).left >= residual.threshold()) set_bit(reach, j);
            }
        } else {
            const Residual::Rows rows = residual.rows(link);
            join(reach, network_.words(other), positions_,
                 [&](std::uint32_t i) { return forward ? residual.column(e, i) : rows[i]; });
        }
        see(other);
    }
    // Flow can be sent back: along the way to whoever it came from, against it from whoever it went to.
    const std::vector<std::uint32_t>& flows = forward ? network_.links_into(block) : network_.links_out_of(block);
    if (std::none_of(flows.begin(), flows.end(), [&](std::uint32_t e) { return any_unseen(across(e)); })) return;
    const Units threshold = residual.threshold();
    for (const std::uint32_t e : flows) {
        const Units* const straight = residual.link(e).straight_flow;
        if (straight == nullptr) continue;
        Word* const reach = &reach_[network_.first_word(across(e))];
        for (const std::uint32_t i : positions_)
            if (straight[i] >= threshold) set_bit(reach, i);
    }
    for (const std::uint32_t i : positions_) {
        const Node node = network_.first_node(block) + i;
        for (auto id = forward ? residual.first_in(node) : residual.first_out(node); id != 0;) {
            const TouchedEdge& edge = residual.touched(id);
            id = forward ? edge.next_in : edge.next_out;
            if (edge.flow < threshold) continue;
            const Node to = forward ? edge.giver : residual.receiver(edge);
            const std::uint32_t other = network_.block_of(to);
            set_bit(&reach_[network_.first_word(other)], to - network_.first_node(other));
        }
    }
    for (const std::uint32_t e : flows) see(across(e));
}

// The first end's next level.
void Between::advance(const Residual& residual, std::size_t level) {
    frontier_.swap(next_frontier_);
    next_frontier_.clear();
    add_level();
    for (const std::uint32_t block : frontier_)
        step<true>(residual, block, at(level, block), unseen_, [&](std::uint32_t other, const Word* nodes) {
            Word* words = open(level + 1, other);
            for (std::size_t w = 0; w < network_.words(other); ++w) words[w] |= nodes[w];
        });
}

// The other end's.
void Between::retreat(const Residual& residual) {
    back_next_blocks_.clear();
    for (const std::uint32_t block : back_blocks_) {
        Word* nodes = &back_frontier_[network_.first_word(block)];
        step<false>(residual, block, nodes, back_unseen_, [&](std::uint32_t other, const Word* found) {
            Word* next = &back_next_[network_.first_word(other)];
            for (std::size_t w = 0; w < network_.words(other); ++w) next[w] |= found[w];
            if (in_back_next_[other] != 0) return;
            in_back_next_[other] = 1;
            back_next_blocks_.push_back(other);
        });
        std::fill_n(nodes, network_.words(block), 0);
    }
    for (const std::uint32_t block : back_next_blocks_) in_back_next_[block] = 0;
    back_frontier_.swap(back_next_);
    back_blocks_.swap(back_next_blocks_);
}

std::size_t Between::run(const Residual& residual, const std::vector<Word>& from, const std::vector<Word>& to,
                         std::vector<Word>& excluded) {
    const std::size_t n_words = network_.n_words();
    clear();
    back_blocks_.clear();
    unseen_.resize(n_words);
    back_unseen_.resize(n_words);
    back_frontier_ = to;
    std::fill(back_next_.begin(), back_next_.end(), 0);
    for (std::size_t w = 0; w < n_words; ++w) {
        unseen_[w] = ~(excluded[w] | from[w]);
        back_unseen_[w] = ~(excluded[w] | to[w]);
    }
    work_ = {0, 0};
    for (std::uint32_t block = 0; block < network_.n_blocks(); ++block) {
        const std::size_t first = network_.first_word(block);
        Word any_to = 0;
        for (std::size_t w = 0; w < network_.words(block); ++w) {
            any_to |= to[first + w];
            if (from[first + w] != 0) open(0, block)[w] = from[first + w];
        }
        if (any_to != 0) back_blocks_.push_back(block);
    }
    std::size_t level = 0, arcs_back = 0;
    for (bool met = false; !met;) {
        pulse_.beat();
        if (next_frontier_.empty() || back_blocks_.empty()) {
            const bool all_reached = next_frontier_.empty();
            for (std::size_t w = 0; w < n_words; ++w) excluded[w] |= all_reached ? ~unseen_[w] : back_unseen_[w];
            return 0;
        }
        if (work_[0] <= work_[1]) {
            advance(residual, level++);
        } else {
            retreat(residual);
            ++arcs_back;
        }
        for (const std::uint32_t block : next_frontier_) {
            const Word* nodes = at(level, block);
            for (std::size_t w = 0; w < network_.words(block); ++w)
                met = met || (nodes[w] & ~back_unseen_[network_.first_word(block) + w]) != 0;
        }
    }
    for (const std::uint32_t block : next_frontier_)
        for (std::size_t w = 0; w < network_.words(block); ++w)
            at(level, block)[w] &= ~back_unseen_[network_.first_word(block) + w];
    for (std::size_t w = 0; w < n_words; ++w) unseen_[w] &= ~back_unseen_[w];
    for (; arcs_back > 0; --arcs_back) advance(residual, level++);
    return level;
}

}  // namespace attnflow
