#include "residual.hpp"

#include <algorithm>

namespace attnflow {

namespace {
constexpr std::size_t initial_slots_log2 = 10;
}

Residual::Residual(const CapacityIndex& capacities)
    : capacities_(capacities),
      edges_(1),
      slots_(std::size_t{1} << initial_slots_log2, 0),
      shift_(64 - initial_slots_log2),
      first_in_(capacities.network().n_nodes(), 0),
      first_out_(capacities.network().n_nodes(), 0),
      own_row_(capacities.network().n_rows(), 0) {
    const Network& net = network();
    link_of_row_.reserve(net.n_rows());
    for (std::size_t e = 0; e < net.links().size(); ++e)
        link_of_row_.insert(link_of_row_.end(), net.size(net.links()[e].receiver), static_cast<std::uint32_t>(e));
}

void Residual::reset() {
    for (std::size_t id = 1; id < edges_.size(); ++id) {
        const TouchedEdge& edge = edges_[id];
        first_in_[edge.receiver] = 0;
        first_out_[edge.giver] = 0;
    }
    // Clearing slot by slot pays while the table is mostly empty.
    if (edges_.size() * 8 > slots_.size()) {
        std::fill(slots_.begin(), slots_.end(), 0);
    } else {
        for (std::size_t id = 1; id < edges_.size(); ++id) {
            std::size_t slot = slot_of(edges_[id].row, edges_[id].giver);
            while (slots_[slot] != id) slot = (slot + 1) & (slots_.size() - 1);
            slots_[slot] = 0;  // every other record goes too: no probe chain is left to break, see below
        }
    }
    edges_.resize(1);
    for (const std::uint32_t row : rows_owned_) own_row_[row] = 0;
    rows_owned_.clear();
    own_words_.clear();
}

void Residual::set_scale(std::size_t scale) {
    scale_ = scale;
    threshold_ = capacities_.threshold(scale);
    for (const std::uint32_t row : rows_owned_) refresh_row(row);
}

// Rows without a private copy need no refresh: no edge of theirs fell below the old threshold, so none is below the
// new, smaller one.
void Residual::refresh_row(std::uint32_t row) {
    const Network& net = network();
    const std::size_t link = link_of_row_[row];
    const std::size_t receiver = row - net.first_row(link);
    const std::uint32_t giver_block = net.links()[link].giver;
    Word* own = own_words_.data() + (own_row_[row] - 1);
    std::copy_n(capacities_.bits(scale_, link, receiver), net.words(giver_block), own);
    const Node first = net.first_node(giver_block);
    for (EdgeId id = first_in_[net.first_node(net.links()[link].receiver) + receiver]; id != 0; id = edges_[id].next_in)
        if (edges_[id].row == row && edges_[id].capacity - edges_[id].flow < threshold_)
            clear_bit(own, edges_[id].giver - first);
}

Residual::EdgeId Residual::find(std::uint32_t row, Node giver) const {
    for (std::size_t slot = slot_of(row, giver);; slot = (slot + 1) & (slots_.size() - 1)) {
        const EdgeId id = slots_[slot];
        if (id == 0 || (edges_[id].row == row && edges_[id].giver == giver)) return id;
    }
}

Residual::EdgeId Residual::touch(std::size_t link, std::size_t receiver, std::size_t giver) {
    const Network& net = network();
    const Link& view = net.links()[link];
    const std::uint32_t row = net.first_row(link) + static_cast<std::uint32_t>(receiver);
    const Node from = net.first_node(view.giver) + static_cast<Node>(giver);
    std::size_t slot = slot_of(row, from);
    for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1))
        if (edges_[slots_[slot]].row == row && edges_[slots_[slot]].giver == from) return slots_[slot];

    const Node to = net.first_node(view.receiver) + static_cast<Node>(receiver);
    const auto id = static_cast<EdgeId>(edges_.size());
    edges_.push_back({0, capacities_.at(link, receiver, giver), from, to, row, first_in_[to], first_out_[from]});
    first_in_[to] = id;
    first_out_[from] = id;
    slots_[slot] = id;
    if (edges_.size() * 2 > slots_.size()) grow();
    return id;
}

void Residual::grow() {
    std::fill(slots_.begin(), slots_.end(), 0);
    slots_.resize(slots_.size() * 2, 0);
    --shift_;
    for (std::size_t id = 1; id < edges_.size(); ++id) {
        std::size_t slot = slot_of(edges_[id].row, edges_[id].giver);
        while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
        slots_[slot] = static_cast<EdgeId>(id);
    }
}

void Residual::set_row_bit(std::size_t link, std::size_t receiver, std::size_t giver, bool on) {
    const Network& net = network();
    const std::uint32_t row = net.first_row(link) + static_cast<std::uint32_t>(receiver);
    if (own_row_[row] == 0) {
        if (on) return;  // still shared, so still set
        own_row_[row] = static_cast<std::uint32_t>(own_words_.size()) + 1;
        const Word* shared = capacities_.bits(scale_, link, receiver);
        own_words_.insert(own_words_.end(), shared, shared + net.words(net.links()[link].giver));
        rows_owned_.push_back(row);
    }
    Word* own = own_words_.data() + (own_row_[row] - 1);
    on ? set_bit(own, giver) : clear_bit(own, giver);
}

void Residual::push(std::size_t link, std::size_t receiver, std::size_t giver, Units amount) {
    TouchedEdge& edge = edges_[touch(link, receiver, giver)];
    const Units before = edge.capacity - edge.flow;
    edge.flow += amount;
    if (before >= threshold_ && before - amount < threshold_ && !network().links()[link].diagonal)
        set_row_bit(link, receiver, giver, false);
}

void Residual::cancel(EdgeId id, Units amount) {
    TouchedEdge& edge = edges_[id];
    const Units before = edge.capacity - edge.flow;
    edge.flow -= amount;
    const std::size_t link = link_of_row_[edge.row];
    if (before < threshold_ && before + amount >= threshold_ && !network().links()[link].diagonal)
        set_row_bit(link, edge.row - network().first_row(link),
                    edge.giver - network().first_node(network().links()[link].giver), true);
}

std::size_t Residual::bytes() const {
    return edges_.capacity() * sizeof(TouchedEdge) + own_words_.capacity() * sizeof(Word) +
           (slots_.capacity() + first_in_.capacity() + first_out_.capacity() + own_row_.capacity() +
            rows_owned_.capacity() + link_of_row_.capacity()) *
               sizeof(std::uint32_t);
}

}  // namespace attnflow
