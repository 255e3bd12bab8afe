#include "coalition_flow.hpp"

#include <algorithm>

#include "take_back.hpp"
#include "terminals.hpp"

namespace attnflow {

CoalitionFlow::CoalitionFlow(const CapacityIndex& capacities, const Terminals& everyone, Units into_sink, Pulse& pulse)
    : capacities_(capacities),
      net_(capacities.network()),
      everyone_(everyone),
      pulse_(pulse),
      residual_(capacities),
      levels_(net_, pulse),
      between_(net_, pulse),
      given_(net_.n_nodes(), 0) {
    of_everyone_ = dinic_.solve_fat_first(residual_, levels_, everyone, into_sink, pulse);
    if (of_everyone_ > capacities.quantum().flow_limit()) return;
    const auto receive = [&](Node node, Units amount) {
        if (!is_sink(node)) given_[node] += amount;
    };
    for (const Node source : everyone.source_nodes) {
        const std::uint32_t position = net_.position_of(source);
        for (const std::uint32_t e : net_.links_out_of(net_.block_of(source)))
            if (const Units flow = residual_.straight_flow(e, position)) {
                receive(net_.first_node(net_.links()[e].receiver) + position, flow);
                residual_.cancel_straight(e, position, flow);
            }
        for (auto id = residual_.first_out(source); id != 0; id = residual_.touched(id).next_out)
            if (const Units flow = residual_.touched(id).flow) {
                receive(residual_.receiver(residual_.touched(id)), flow);
                residual_.cancel(id, flow);
            }
    }
    residual_.drop_idle();
    records_ = residual_.n_records();
    std::vector<Word> doors(net_.n_words(), 0);
    for (const Node source : everyone.source_nodes)
        for (const std::uint32_t e : net_.links_out_of(net_.block_of(source))) {
            const std::uint32_t block = net_.links()[e].receiver;
            for (std::size_t w = net_.first_word(block); w < net_.first_word(block) + net_.words(block); ++w)
                doors[w] = ~(everyone.useless[w] | everyone.sinks[w]);
        }
    for (std::uint32_t block = 0; block < net_.n_blocks(); ++block)
        for (std::size_t w = 0; w < net_.words(block); ++w)
            for_each_bit(doors[net_.first_word(block) + w], w * word_bits,
                         [&](std::size_t k) { doors_.push_back(net_.first_node(block) + static_cast<Node>(k)); });
    ends_.from.assign(net_.n_words(), 0);
    ends_.supply.assign(net_.n_nodes(), 0);
    ends_.room.assign(net_.n_nodes(), 0);
}

bool CoalitionFlow::is_sink(Node node) const { return contains(net_, everyone_.sinks, node); }

// visit(link, receiver, giver) for each edge out of some players' nodes into a node that is not in `without`.
template <class Visit>
void CoalitionFlow::for_each_edge_of(const std::vector<Node>& nodes, const std::vector<Word>& without,
                                     const Visit& visit) const {
    for (const Node from : nodes) {
        const std::uint32_t position = net_.position_of(from);
        for (const std::uint32_t e : net_.links_out_of(net_.block_of(from))) {
            const Residual::LinkView& link = residual_.link(e);
            const std::uint32_t block = net_.links()[e].receiver;
            const Word* excluded = &without[net_.first_word(block)];
            if (link.diagonal) {
                const std::int64_t to = position + link.offset;
                if (to < 0 || to >= static_cast<std::int64_t>(net_.size(block))) continue;
                const auto j = static_cast<std::uint32_t>(to);
                if (!test_bit(excluded, j) && capacities_.at(e, j, position) > 0) visit(e, j, position);
                continue;
            }
            const Word* column = residual_.column(e, position);
            for (std::size_t w = 0; w < net_.words(block); ++w)
                for_each_bit(column[w] & ~excluded[w], w * word_bits,
                             [&](std::size_t j) { visit(e, static_cast<std::uint32_t>(j), position); });
        }
    }
}

// Of the block of a node.
Word* CoalitionFlow::words_of(std::vector<Word>& set, Node node) const {
    return &set[net_.first_word(net_.block_of(node))];
}

void CoalitionFlow::end_supply() {
    for (const Node node : supplied_) {
        ends_.supply[node] = 0;
        clear_bit(words_of(ends_.from, node), net_.position_of(node));
    }
    supplied_.clear();
}

void CoalitionFlow::begin() {
    if (!ready_) residual_.keep_columns();  // not where nobody ever comes
    ready_ = true;
    ends_.excluded = everyone_.useless;
    ends_.to = everyone_.sinks;
    for (const Node sink : everyone_.sink_nodes) ends_.room[sink] = unbounded;
    for (const Node node : doors_) {
        ends_.room[node] += given_[node];
        given_[node] = 0;
        if (ends_.room[node] > 0) set_bit(words_of(ends_.to, node), net_.position_of(node));
    }
    end_supply();
    if (residual_.n_records() < 2 * records_) return;
    residual_.drop_idle();
    records_ = residual_.n_records();
}

Units CoalitionFlow::come(const std::vector<Node>& player, Units bound) {
    Units value = 0;
    for_each_edge_of(player, ends_.excluded, [&](std::uint32_t link, std::uint32_t receiver, std::uint32_t giver) {
        const Node node = net_.first_node(net_.links()[link].receiver) + receiver;
        const Units capacity = capacities_.at(link, receiver, giver);
        const Units taken = std::min(capacity, ends_.room[node]);
        value += taken;
        if (is_sink(node)) return;
        ends_.room[node] -= taken;
        given_[node] += taken;
        if (ends_.room[node] == 0) clear_bit(words_of(ends_.to, node), receiver);
        if (capacity == taken) return;
        if (ends_.supply[node] == 0) supplied_.push_back(node);
        ends_.supply[node] = saturating_sum(ends_.supply[node], capacity - taken);
        set_bit(words_of(ends_.from, node), receiver);
    });
    if (supplied_.empty() || value >= bound) return value;
    for (const Node node : supplied_) given_[node] += ends_.supply[node];
    value += dinic_.solve_between(residual_, between_, ends_, bound - value, pulse_);
    for (const Node node : supplied_) given_[node] -= ends_.supply[node];
    std::erase_if(supplied_, [&](Node node) { return ends_.supply[node] == 0; });
    if (value < bound) end_supply();  // what is left leads nowhere
    return value;
}

std::vector<Word> CoalitionFlow::source_side(const std::vector<Node>& members) {
    std::vector<Word> open = ends_.from, useful = everyone_.useless;
    for (std::size_t w = 0; w < open.size(); ++w) {
        open[w] |= ends_.excluded[w] & ~everyone_.useless[w];
        useful[w] = ~everyone_.useless[w];
    }
    // No flow goes there, so that edges into it are not full.
    for_each_edge_of(members, useful, [&](std::uint32_t link, std::uint32_t receiver, std::uint32_t) {
        set_bit(&open[net_.first_word(net_.links()[link].receiver)], receiver);
    });
    levels_.explore(residual_, open);
    std::vector<Word> side = levels_.visited();
    for (const Node node : members) set_bit(words_of(side, node), net_.position_of(node));
    return side;
}

std::vector<EdgeFlow> CoalitionFlow::own(const std::vector<Node>& members) {
    std::vector<bool> ends(net_.n_nodes(), false);
    for (const Node sink : everyone_.sink_nodes) ends[sink] = true;
    std::vector<Units> excess(net_.n_nodes(), 0);
    for (const Node node : doors_) std::swap(excess[node], ends_.room[node]);
    take_back(residual_, doors_, excess, ends, pulse_);
    std::vector<EdgeFlow> flows = residual_.flows();
    // Who of them sends how much to a node makes no difference inside.
    std::vector<Units> from_members = given_;
    for (const Node sink : everyone_.sink_nodes) from_members[sink] = unbounded;
    for_each_edge_of(members, everyone_.useless, [&](std::uint32_t link, std::uint32_t receiver, std::uint32_t giver) {
        Units& rest = from_members[net_.first_node(net_.links()[link].receiver) + receiver];
        const Units flow = std::min(capacities_.at(link, receiver, giver), rest);
        rest -= flow;
        flows.push_back({link, receiver, giver, flow});
    });
    return flows;
}

std::size_t CoalitionFlow::bytes() const {
    return residual_.bytes() + (ends_.supply.capacity() + ends_.room.capacity() + given_.capacity()) * sizeof(Units);
}

}  // namespace attnflow
