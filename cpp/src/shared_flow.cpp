#include "shared_flow.hpp"

#include <algorithm>

#include "take_back.hpp"

namespace attnflow {

void SharedFlow::clear(Residual& residual) {
    residual.drop_base();
    value_ = 0;
    fed_.clear();
    feeds_.clear();
    feed_.clear();
}

void SharedFlow::start_at(std::uint32_t block, const std::vector<Word>& without, Residual& residual) {
    if (block == start_ && without == without_) return;
    clear(residual);
    start_ = block;
    without_ = without;
    endless_ = false;
}

void SharedFlow::enter_sink(Residual& residual) {
    clear(residual);
    endless_ = false;
}

Units SharedFlow::into(const Residual& residual, Node node) const {
    Units sum = 0;
    for (const std::uint32_t e : net_.links_into(net_.block_of(node)))
        sum += residual.straight_flow(e, net_.position_of(node));
    for (auto id = residual.first_in(node); id != 0; id = residual.touched(id).next_in)
        sum += residual.touched(id).flow;
    return sum;
}

Units SharedFlow::out_of(const Residual& residual, Node node) const {
    Units sum = 0;
    for (const std::uint32_t e : net_.links_out_of(net_.block_of(node)))
        sum += residual.straight_flow(e, net_.position_of(node));
    for (auto id = residual.first_out(node); id != 0; id = residual.touched(id).next_out)
        sum += residual.touched(id).flow;
    return sum;
}

// Lets S* feed every node where it starts, right behind the sources or in a block, that this source reaches, and makes the flow a
// maximum again.
void SharedFlow::grow(Residual& residual, Levels& levels, Dinic& dinic, const Terminals& terminals, Units into_sink,
                      Pulse& pulse) {
    for (std::size_t w = 0; w < fed_.size(); ++w)
        // What others reached, from where the way back leads nowhere; or a source itself.
        if (fed_[w] & (terminals.useless[w] | terminals.sources[w])) {
            clear(residual);
            break;
        }
    fed_.resize(net_.n_words(), 0);
    Terminals from;
    from.sources.assign(net_.n_words(), 0);
    const auto feed_block = [&](std::uint32_t block) {
        for (std::size_t w = net_.first_word(block); w < net_.first_word(block) + net_.words(block); ++w)
            from.sources[w] = ~(terminals.useless[w] | terminals.sources[w] | terminals.sinks[w] | fed_[w]);
    };
    if (start_ != behind_source)
        feed_block(start_);
    else
        for (const Node source : terminals.source_nodes)
            for (const std::uint32_t e : net_.links_out_of(net_.block_of(source))) feed_block(net_.links()[e].receiver);
    for (std::uint32_t block = 0; block < net_.n_blocks(); ++block)
        for (std::size_t w = net_.first_word(block); w < net_.first_word(block) + net_.words(block); ++w)
            for_each_bit(from.sources[w], (w - net_.first_word(block)) * word_bits, [&](std::size_t k) {
                const Node node = net_.first_node(block) + static_cast<Node>(k);
                if (into(residual, node) > 0)
                    clear_bit(&from.sources[net_.first_word(block)], k);
                else
                    from.source_nodes.push_back(node);
            });
    if (from.source_nodes.empty()) return;
    for (std::size_t w = 0; w < fed_.size(); ++w) fed_[w] |= from.sources[w];
    if (value_ >= into_sink) return;
    from.sink_nodes = terminals.sink_nodes;
    from.sinks = terminals.sinks;
    from.useless = terminals.useless;
    for (std::size_t w = 0; w < without_.size(); ++w) from.useless[w] |= without_[w];
    const Units more = dinic.solve_fat_first(residual, levels, from, into_sink - value_, pulse);
    value_ += more;
    if (value_ > capacities_.quantum().flow_limit()) {
        endless_ = true;
        residual.reset();
        return clear(residual);
    }
    if (more == 0) return;
    residual.set_base();
    feeds_.clear();
    feed_.clear();
    for (std::uint32_t block = 0; block < net_.n_blocks(); ++block)
        for (std::size_t w = 0; w < net_.words(block); ++w)
            for_each_bit(fed_[net_.first_word(block) + w], w * word_bits, [&](std::size_t k) {
                const Node node = net_.first_node(block) + static_cast<Node>(k);
                const Units feed = out_of(residual, node) - into(residual, node);
                if (feed <= 0) return;
                feeds_.push_back(node);
                feed_.push_back(feed);
            });
}

Units SharedFlow::solve(Residual& residual, Levels& levels, Dinic& dinic, const Terminals& terminals, Units into_sink,
                        Units bound, Pulse& pulse) {
    start_at(behind_source, {}, residual);
    if (!endless_) grow(residual, levels, dinic, terminals, into_sink, pulse);
    const bool through_source = std::any_of(terminals.source_nodes.begin(), terminals.source_nodes.end(),
                                            [&](Node source) { return into(residual, source) > 0; });
    if (endless_ || through_source) {  // Dinic's algorithm knows no flow into a source
        clear(residual);
        own_.sink_nodes = terminals.sink_nodes;
        return dinic.solve(residual, levels, terminals, bound, pulse);
    }
    join(terminals);
    return dinic.solve_into(residual, levels, own_, room_, bound, pulse);
}

const std::vector<Units>* SharedFlow::feeds_in(std::uint32_t block, const std::vector<Word>& without,
                                               Residual& residual, Levels& levels, Dinic& dinic,
                                               const Terminals& terminals, Units into_sink, Pulse& pulse) {
    start_at(block, without, residual);
    if (!endless_) grow(residual, levels, dinic, terminals, into_sink, pulse);
    if (endless_) return nullptr;
    demands_.assign(net_.size(block), 0);
    for (std::size_t i = 0; i < feeds_.size(); ++i) demands_[feeds_[i] - net_.first_node(block)] = feed_[i];
    return &demands_;
}

Units SharedFlow::go_on(const Units* delivered, Residual& residual, Levels& levels, Dinic& dinic,
                        const Terminals& terminals, Units bound, Pulse& pulse) {
    join(terminals);
    const std::size_t n_sinks = terminals.sink_nodes.size();
    for (std::size_t i = 0; i < feeds_.size(); ++i) {
        const std::uint32_t position = net_.position_of(feeds_[i]);
        room_[n_sinks + i] -= delivered[position];
        if (room_[n_sinks + i] == 0) clear_bit(&own_.sinks[net_.first_word(start_)], position);
    }
    return dinic.solve_into(residual, levels, own_, room_, bound, pulse);
}

// The feeds become sinks of the source at hand.
void SharedFlow::join(const Terminals& terminals) {
    own_ = terminals;
    room_.assign(terminals.sink_nodes.size(), unbounded);
    own_.sink_nodes.insert(own_.sink_nodes.end(), feeds_.begin(), feeds_.end());
    room_.insert(room_.end(), feed_.begin(), feed_.end());
    for (const Node node : feeds_) {
        const std::uint32_t block = net_.block_of(node);
        set_bit(&own_.sinks[net_.first_word(block)], node - net_.first_node(block));
    }
}

void SharedFlow::leave_own(Residual& residual, Pulse& pulse) {
    excess_.assign(net_.n_nodes(), 0);
    std::vector<bool> ends(net_.n_nodes(), false);
    const std::size_t n_sinks = own_.sink_nodes.size() - feeds_.size();
    for (std::size_t i = 0; i < n_sinks; ++i) ends[own_.sink_nodes[i]] = true;
    for (std::size_t i = 0; i < feeds_.size(); ++i) excess_[feeds_[i]] = room_[n_sinks + i];
    take_back(residual, feeds_, excess_, ends, pulse);
}

std::size_t SharedFlow::bytes() const {
    return (fed_.capacity() + without_.capacity()) * sizeof(Word) + feeds_.capacity() * sizeof(Node) +
           (feed_.capacity() + room_.capacity() + excess_.capacity() + demands_.capacity()) * sizeof(Units);
}

}  // namespace attnflow
