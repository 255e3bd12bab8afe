#include "residual.hpp"

#include <algorithm>

namespace attnflow {

namespace {
constexpr std::size_t initial_slots_log2 = 10;
constexpr std::size_t most_reserved_words = std::size_t{1} << 17;
}  // namespace

Residual::Residual(const CapacityIndex& capacities)
    : capacities_(capacities),
      quantum_(capacities.quantum()),
      edges_(1),
      slots_(std::size_t{1} << initial_slots_log2, 0),
      slot_mask_(slots_.size() - 1),
      shift_(64 - initial_slots_log2),
      first_in_(capacities.network().n_nodes(), 0),
      first_out_(capacities.network().n_nodes(), 0),
      own_row_(capacities.network().n_rows(), 0),
      entered_(capacities.network().n_words(), 0) {
    const Network& net = network();
    link_of_row_.reserve(net.n_rows());
    std::size_t n_straight = 0;
    for (std::size_t e = 0; e < net.links().size(); ++e)
        if (!net.links()[e].diagonal()) n_straight += capacities_.straight(e).size();
    straight_.assign(n_straight, 0);
    Units* straight = straight_.data();
    for (std::size_t e = 0; e < net.links().size(); ++e) {
        const Link& link = net.links()[e];
        link_of_row_.insert(link_of_row_.end(), net.size(link.receiver), static_cast<std::uint32_t>(e));
        const bool square = !link.diagonal() && !capacities_.straight(e).empty();
        links_.push_back({nullptr, own_row_.data() + net.first_row(e), square ? straight : nullptr,
                          capacities_.straight(e).data(), net.first_node(link.giver), net.first_node(link.receiver),
                          net.first_row(e), static_cast<std::uint32_t>(net.first_word(link.receiver)),
                          static_cast<std::uint32_t>(net.words(link.giver)), link.giver, net.size(link.giver),
                          link.diagonal(), link.scalar == Scalar::float32 && link.storage == Storage::strided,
                          link.offset, link.data, link.row_stride, link.column_stride});
        if (square) straight += net.size(link.giver);
    }
    // Room for what real attention touches: growing would hold the old and the new records at once. Pages that are never
    // written cost nothing.
    edges_.reserve(4 * net.n_nodes());
    std::size_t n_words = 0;
    for (const Link& link : net.links())
        if (!link.diagonal()) n_words += std::size_t{net.size(link.receiver)} * net.words(link.giver);
    own_words_.reserve(std::min(n_words, most_reserved_words));
    set_scale(0);
}

void Residual::reset() {
    note_peak();
    // Clearing slot by slot pays while the table is mostly empty. Records go in the order they came, backwards: no probe
    // chain is broken, and lists get their old heads back.
    const bool all_slots = n_base_ == 1 && edges_.size() * 8 > slots_.size();
    if (all_slots) std::fill(slots_.begin(), slots_.end(), 0);
    for (std::size_t id = edges_.size(); id-- > n_base_;) {
        const TouchedEdge& edge = edges_[id];
        first_in_[receiver(edge)] = edge.next_in;
        first_out_[edge.giver] = edge.next_out;
        if (all_slots) continue;
        std::size_t slot = slot_of(edge.row, edge.giver);
        while (slots_[slot] != id) slot = (slot + 1) & slot_mask_;
        slots_[slot] = 0;
    }
    edges_.resize(n_base_);
    for (const EdgeId id : changed_) edges_[id].flow = base_flow_[id];
    changed_.clear();
    if (straight_changed_) {
        if (has_base())
            straight_ = base_straight_;
        else
            std::fill(straight_.begin(), straight_.end(), 0);
    }
    straight_changed_ = false;
    n_straight_touched_ = 0;
    if (has_base())
        entered_ = base_entered_;
    else
        std::fill(entered_.begin(), entered_.end(), 0);
    share_all_rows();
}

void Residual::share_all_rows() {
    for (const std::uint32_t row : rows_owned_) own_row_[row] = 0;
    rows_owned_.clear();
    own_words_.clear();
}

void Residual::set_base() {
    constexpr std::size_t finest = CapacityIndex::n_scales - 1;
    set_scale(finest);
    const Network& net = network();
    const auto words_of = [&](std::size_t e) {
        return links_[e].n_words * std::size_t{net.size(net.links()[e].receiver)};
    };
    if (!has_base()) {
        base_first_word_.assign(links_.size(), 0);
        for (std::size_t e = 0; e < links_.size(); ++e) {
            base_first_word_[e] = base_bits_.size();
            if (links_[e].diagonal) continue;
            const Word* bits = capacities_.bits(finest, e, 0);
            base_bits_.insert(base_bits_.end(), bits, bits + words_of(e));
        }
        base_bits_.push_back(0);  // never empty
    }
    for (const std::uint32_t row : rows_owned_) {
        const std::size_t e = link_of_row_[row];
        std::copy_n(
            own_words_.data() + (own_row_[row] - 1), links_[e].n_words,
            base_bits_.data() + base_first_word_[e] + std::size_t{row - links_[e].first_row} * links_[e].n_words);
    }
    share_all_rows();
    n_base_ = edges_.size();
    base_flow_.resize(n_base_);
    for (std::size_t id = 0; id < n_base_; ++id) base_flow_[id] = edges_[id].flow;
    base_straight_ = straight_;
    base_entered_ = entered_;
    changed_.clear();
    straight_changed_ = false;
    n_straight_touched_ = 0;
    stale_ = true;
    set_scale(finest);
}

void Residual::drop_base() {
    if (!has_base()) return;
    n_base_ = 1;
    changed_.clear();
    base_bits_.clear();
    straight_changed_ = true;
    stale_ = true;
    reset();
    set_scale(0);
}

void Residual::set_scale(std::size_t scale) {
    constexpr std::size_t finest = CapacityIndex::n_scales - 1;
    if (has_base()) scale = finest;
    if (scale == scale_ && !stale_) return;
    scale_ = scale;
    stale_ = false;
    threshold_ = capacities_.threshold(scale_);
    for (std::size_t e = 0; e < links_.size(); ++e)
        if (!links_[e].diagonal)
            links_[e].shared = has_base() ? base_bits_.data() + base_first_word_[e] : capacities_.bits(scale_, e, 0);
    for (const std::uint32_t row : rows_owned_) refresh_row(row);
}

// Rows without a private copy need no refresh: no edge of theirs fell below the old threshold, so none is below the
// new, smaller one.
void Residual::refresh_row(std::uint32_t row) {
    const LinkView& link = links_[link_of_row_[row]];
    const std::size_t receiver = row - link.first_row;
    Word* own = own_words_.data() + (own_row_[row] - 1);
    std::copy_n(link.shared + receiver * link.n_words, link.n_words, own);
    const auto write = [&](std::size_t giver, Units left) {
        left >= threshold_ ? set_bit(own, giver) : clear_bit(own, giver);
    };
    for (EdgeId id = first_in_[link.first_receiver + receiver]; id != 0; id = edges_[id].next_in)
        if (edges_[id].row == row) write(edges_[id].giver - link.first_giver, edges_[id].capacity - edges_[id].flow);
    if (link.straight_flow != nullptr) write(receiver, link.straight[receiver] - link.straight_flow[receiver]);
}

void Residual::place(EdgeId id) {
    std::size_t slot = slot_of(edges_[id].row, edges_[id].giver);
    while (slots_[slot] != 0) slot = (slot + 1) & slot_mask_;
    slots_[slot] = id;
}

Residual::EdgeId Residual::insert(const LinkView& link, std::size_t receiver, std::size_t giver, Units capacity) {
    const Node from = link.first_giver + static_cast<Node>(giver);
    const Node to = link.first_receiver + static_cast<Node>(receiver);
    const auto id = static_cast<EdgeId>(edges_.size());
    if (edges_.size() == edges_.capacity()) edges_.reserve(edges_.size() + edges_.size() / 4 + 256);
    edges_.push_back(
        {0, capacity, from, link.first_row + static_cast<std::uint32_t>(receiver), first_in_[to], first_out_[from]});
    first_in_[to] = id;
    first_out_[from] = id;
    if (edges_.size() * 3 <= slot_mask_ * 2) {
        place(id);
    } else {
        slots_.assign(slots_.size() * 2, 0);
        slot_mask_ = slots_.size() - 1;
        --shift_;
        for (EdgeId each = 1; each <= id; ++each) place(each);
    }
    return id;
}

// The private bits of a row, copied from the shared ones where there are none yet.
Word* Residual::own_row(const LinkView& link, std::size_t receiver) {
    const std::uint32_t row = link.first_row + static_cast<std::uint32_t>(receiver);
    if (own_row_[row] == 0) {
        own_row_[row] = static_cast<std::uint32_t>(own_words_.size()) + 1;
        const Word* shared = link.shared + receiver * link.n_words;
        if (own_words_.capacity() - own_words_.size() < link.n_words)
            own_words_.reserve(own_words_.size() + own_words_.size() / 4 + 16 * link.n_words);
        own_words_.insert(own_words_.end(), shared, shared + link.n_words);
        rows_owned_.push_back(row);
    }
    return own_words_.data() + (own_row_[row] - 1);
}

void Residual::set_row_bit(std::size_t link, std::size_t receiver, std::size_t giver, bool on) {
    const LinkView& view = links_[link];
    if (view.own[receiver] == 0 && test_bit(view.shared + receiver * view.n_words, giver) == on) return;
    Word* own = own_row(view, receiver);
    on ? set_bit(own, giver) : clear_bit(own, giver);
    if (columns_.empty()) return;
    Word* column = columns_.data() + column_rows_[link].first_word + giver * column_rows_[link].n_words;
    on ? set_bit(column, receiver) : clear_bit(column, receiver);
}

void Residual::keep_columns() {
    const Network& net = network();
    column_rows_.assign(links_.size(), {});
    std::size_t n_words = 0;
    for (std::size_t e = 0; e < links_.size(); ++e) {
        if (links_[e].diagonal) continue;
        column_rows_[e] = {n_words, net.words(net.links()[e].receiver)};
        n_words += links_[e].n_givers * column_rows_[e].n_words;
    }
    columns_.assign(n_words, 0);
    for (std::size_t e = 0; e < links_.size(); ++e) {
        if (links_[e].diagonal) continue;
        Word* const columns = columns_.data() + column_rows_[e].first_word;
        for (std::size_t j = 0; j < net.size(net.links()[e].receiver); ++j)
            for (std::size_t w = 0; w < links_[e].n_words; ++w)
                for_each_bit(row(links_[e], j)[w], w * word_bits,
                             [&](std::size_t k) { set_bit(columns + k * column_rows_[e].n_words, j); });
    }
}

void Residual::drop_idle() {
    std::fill(slots_.begin(), slots_.end(), 0);
    std::fill(first_in_.begin(), first_in_.end(), 0);
    std::fill(first_out_.begin(), first_out_.end(), 0);
    std::size_t n = 1;
    for (std::size_t id = 1; id < edges_.size(); ++id) {
        if (edges_[id].flow == 0) continue;
        TouchedEdge& edge = edges_[n] = edges_[id];
        const Node to = receiver(edge);
        edge.next_in = first_in_[to];
        edge.next_out = first_out_[edge.giver];
        first_in_[to] = first_out_[edge.giver] = static_cast<EdgeId>(n);
        place(static_cast<EdgeId>(n++));
    }
    note_peak();
    edges_.resize(n);
}

void Residual::push(std::size_t link, std::size_t receiver, std::size_t giver, Edge edge, Units amount) {
    note_entered(links_[link], receiver);
    if (edge.record == straight_edge) {
        Units& flow = links_[link].straight_flow[giver];
        n_straight_touched_ += flow == 0;
        straight_changed_ = true;
        flow += amount;
    } else {
        change_record(edge.record != 0 ? edge.record : insert(links_[link], receiver, giver, edge.left), amount);
    }
    if (edge.left >= threshold_ && edge.left - amount < threshold_ && !links_[link].diagonal)
        set_row_bit(link, receiver, giver, false);
}

void Residual::preload(std::size_t link, std::size_t receiver, std::size_t giver, Units amount, Units capacity) {
    const LinkView& view = links_[link];
    stale_ = true;
    note_entered(view, receiver);
    const bool straight = receiver == giver && view.straight_flow != nullptr;
    if (straight) {
        view.straight_flow[giver] = amount;
        straight_changed_ = true;
        ++n_straight_touched_;
    } else {
        edges_[insert(view, receiver, giver, capacity)].flow = amount;
    }
    bool fell = false;  // below a threshold, so that the shared bits of some scale are wrong
    for (std::size_t s = 0; s < CapacityIndex::n_scales; ++s)
        fell = fell || (capacity >= capacities_.threshold(s) && capacity - amount < capacities_.threshold(s));
    if (fell && !view.diagonal) own_row(view, receiver);
}

void Residual::cancel(EdgeId id, Units amount) {
    const TouchedEdge& edge = edges_[id];
    const Units before = edge.capacity - edge.flow;
    change_record(id, -amount);
    const std::size_t link = link_of_row_[edge.row];
    if (before < threshold_ && before + amount >= threshold_ && !links_[link].diagonal)
        set_row_bit(link, edge.row - links_[link].first_row, edge.giver - links_[link].first_giver, true);
}

void Residual::cancel_straight(std::size_t link, std::size_t position, Units amount) {
    const LinkView& view = links_[link];
    const Units before = view.straight[position] - view.straight_flow[position];
    view.straight_flow[position] -= amount;
    straight_changed_ = true;
    if (before < threshold_ && before + amount >= threshold_) set_row_bit(link, position, position, true);
}

std::vector<EdgeFlow> Residual::flows() const {
    std::vector<EdgeFlow> out;
    for (std::uint32_t e = 0; e < links_.size(); ++e)
        if (links_[e].straight_flow != nullptr)
            for (std::uint32_t k = 0; k < links_[e].n_givers; ++k)
                if (links_[e].straight_flow[k] != 0) out.push_back({e, k, k, links_[e].straight_flow[k]});
    for (std::size_t id = 1; id < edges_.size(); ++id) {
        const TouchedEdge& edge = edges_[id];
        const std::uint32_t link = link_of_row_[edge.row];
        out.push_back({link, edge.row - links_[link].first_row, edge.giver - links_[link].first_giver, edge.flow});
    }
    return out;
}

void Residual::note_peak() {
    most_edges_ = std::max(most_edges_, edges_.size());
    most_own_words_ = std::max(most_own_words_, own_words_.size());
}

std::size_t Residual::bytes() const {
    return std::max(most_edges_, edges_.size()) * sizeof(TouchedEdge) +
           std::max(most_own_words_, own_words_.size()) * sizeof(Word) + links_.capacity() * sizeof(LinkView) +
           (straight_.capacity() + base_straight_.capacity() + base_flow_.capacity()) * sizeof(Units) +
           (base_bits_.capacity() + columns_.capacity()) * sizeof(Word) +
           (entered_.capacity() + base_entered_.capacity()) * sizeof(Word) +
           (changed_.capacity() + slots_.capacity() + first_in_.capacity() + first_out_.capacity() +
            own_row_.capacity() + rows_owned_.capacity() + link_of_row_.capacity()) *
               sizeof(std::uint32_t);
}

}  // namespace attnflow
