#include "sink_cuts.hpp"

#include <algorithm>
#include <bit>

#include "levels.hpp"

namespace attnflow {

void SinkCuts::clear() {
    cuts_.clear();
    best_ = nullptr;
    looked_for_ = used_ = 0;
}

void SinkCuts::confirm() {
    ++used_;
    ++best_->used;
}

// The one link out of the source's block, where nothing else leads into that block or the next, and no sink is there: then
// a node of the next block gets what the source sends it, and nothing more.
const Link* SinkCuts::only_link(const Terminals& terminals) const {
    if (terminals.source_nodes.size() != 1) return nullptr;
    const std::uint32_t block = net_.block_of(terminals.source_nodes[0]);
    if (!net_.links_into(block).empty() || net_.links_out_of(block).size() != 1) return nullptr;
    const Link& link = net_.links()[net_.links_out_of(block)[0]];
    if (link.diagonal() || net_.links_into(link.receiver).size() != 1) return nullptr;
    for (const Node sink : terminals.sink_nodes)
        if (net_.block_of(sink) == link.giver || net_.block_of(sink) == link.receiver) return nullptr;
    return &link;
}

Units SinkCuts::bound(const Terminals& terminals, const std::vector<Word>& reached) {
    Units bound = unbounded;
    const Link* link = cuts_.empty() ? nullptr : only_link(terminals);
    if (link == nullptr) return bound;
    const auto e = static_cast<std::size_t>(link - net_.links().data());
    column_.resize(net_.size(link->receiver));
    capacities_.column(e, net_.position_of(terminals.source_nodes[0]), column_.data());
    best_ = nullptr;
    for (Cut& cut : cuts_) {
        if (cut.link != e) continue;
        if (!std::equal(cut.reached.rbegin(), cut.reached.rend(), reached.rbegin())) measure(cut, reached);
        Units sum = cut.from_later;
        for (std::size_t k = 0; k < column_.size(); ++k)
            sum = saturating_sum(sum, std::min(column_[k], cut.from_second[k]));
        if (sum >= bound) continue;
        bound = sum;
        best_ = &cut;
    }
    return bound;
}

// Adds up what leads into the sink side from `reached`: from all of it, or from what the last source did not reach.
void SinkCuts::measure(Cut& cut, const std::vector<Word>& reached) {
    const std::uint32_t second = net_.links()[cut.link].receiver;
    const std::size_t first = reached.size() - cut.reached.size();
    bool grown = true;
    for (std::size_t w = 0; w < cut.reached.size(); ++w) grown = grown && (cut.reached[w] & ~reached[first + w]) == 0;
    if (!grown) {
        cut.from_later = 0;
        std::fill(cut.from_second.begin(), cut.from_second.end(), 0);
        std::fill(cut.reached.begin(), cut.reached.end(), 0);
    }
    news_.assign(reached.size(), 0);
    for (std::size_t w = 0; w < cut.reached.size(); ++w)
        news_[first + w] = reached[first + w] & ~(cut.reached[w] | cut.sink_side[first + w]);
    std::copy(reached.begin() + static_cast<std::ptrdiff_t>(first), reached.end(), cut.reached.begin());
    for (std::size_t e = 0; e < net_.links().size(); ++e) {
        const Link& into = net_.links()[e];
        const Word* givers = &news_[net_.first_word(into.giver)];
        std::size_t low = 0, high = net_.words(into.giver);
        while (low < high && givers[low] == 0) ++low;
        while (low < high && givers[high - 1] == 0) --high;
        if (low == high) continue;
        const auto add = [&](std::size_t j, std::size_t k) {
            Units& sum = into.giver == second ? cut.from_second[k] : cut.from_later;
            sum = saturating_sum(sum, capacities_.at(e, j, k));
        };
        for (std::size_t v = 0; v < net_.words(into.receiver); ++v)
            for_each_bit(cut.sink_side[net_.first_word(into.receiver) + v], v * word_bits, [&](std::size_t j) {
                if (into.diagonal()) {
                    const std::int64_t k = static_cast<std::int64_t>(j) - into.offset;
                    if (k < 0 || k >= static_cast<std::int64_t>(net_.size(into.giver))) return;
                    const auto giver = static_cast<std::size_t>(k);
                    if (test_bit(givers, giver)) add(j, giver);
                    return;
                }
                const Word* row = capacities_.bits(CapacityIndex::n_scales - 1, e, j);
                for (std::size_t w = low; w < high; ++w)
                    for_each_bit(row[w] & givers[w], w * word_bits, [&](std::size_t k) { add(j, k); });
            });
    }
}

void SinkCuts::keep(const Residual& residual, const Terminals& terminals, const std::vector<Word>& reached) {
    const Link* link = only_link(terminals);
    if (link == nullptr || !capacities_.all_exact() || looked_for_ >= 8 + used_) return;
    ++looked_for_;
    std::vector<Word> sink_side = nodes_reaching(residual, terminals.sinks);
    for (const std::uint32_t block : {link->giver, link->receiver})
        std::fill_n(&sink_side[net_.first_word(block)], net_.words(block), Word{0});
    std::size_t n_nodes = 0;
    for (std::size_t w = 0; w < sink_side.size(); ++w) {
        sink_side[w] = (sink_side[w] & reached[w]) | terminals.sinks[w];  // others may reach more of the sinks
        n_nodes += static_cast<std::size_t>(std::popcount(sink_side[w]));
    }
    if (n_nodes > 4 * net_.n_blocks()) return;
    for (const Cut& cut : cuts_)
        if (cut.sink_side == sink_side) return;
    if (cuts_.size() == most)
        cuts_.erase(
            std::min_element(cuts_.begin(), cuts_.end(), [](const Cut& a, const Cut& b) { return a.used < b.used; }));
    // In a chain of layers the first two blocks come first, and what is reached in the first makes no difference here.
    const bool chain = link->giver == 0 && link->receiver == 1 && net_.n_blocks() > 2;
    const std::size_t first = chain ? net_.first_word(1) : 0;
    cuts_.push_back({static_cast<std::size_t>(link - net_.links().data()), std::move(sink_side), 0,
                     std::vector<Units>(net_.size(link->receiver)), std::vector<Word>(net_.n_words() - first)});
    measure(cuts_.back(), reached);
}

std::size_t SinkCuts::bytes() const {
    std::size_t total = column_.capacity() * sizeof(Units);
    for (const Cut& cut : cuts_)
        total += (cut.sink_side.capacity() + cut.reached.capacity()) * sizeof(Word) +
                 cut.from_second.capacity() * sizeof(Units);
    return total;
}

}  // namespace attnflow
