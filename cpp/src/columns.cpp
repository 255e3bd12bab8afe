#include "columns.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace attnflow {

ColumnFlow::ColumnFlow(const CapacityIndex& capacities)
    : capacities_(capacities), experience_(capacities.network().n_blocks()) {}

// Where there is but one way on. A layer may be a diagonal: straight edges alone.
void ColumnFlow::find_chain() {
    const Network& net = capacities_.network();
    const auto holds_a_sink = [&](std::uint32_t block) {
        return std::any_of(sinks_.begin(), sinks_.end(), [&](Node sink) { return net.block_of(sink) == block; });
    };
    layers_.clear();
    early_end_.reset();
    std::uint32_t block = source_block_;
    bool lateral = false;
    while (!holds_a_sink(block) && net.links_out_of(block).size() == 1 && layers_.size() < net.n_blocks()) {
        const std::uint32_t e = net.links_out_of(block)[0];
        const Link& link = net.links()[e];
        if (net.size(link.receiver) != net.size(block) || (link.diagonal() && link.offset != 0)) break;
        if (holds_a_sink(link.receiver) && sinks_.size() > 1) break;
        layers_.push_back(e);
        lateral = lateral || !link.diagonal();
        block = link.receiver;
    }
    if (!lateral || layers_.size() == net.n_blocks()) layers_.clear();
    if (layers_.empty()) return find_any_chain();
    if (!holds_a_sink(block)) early_end_ = block;
    if (!early_end_ && layers_.size() < 2) layers_.clear();
}

// A shortest chain of links to a single sink, as far as blocks go.
void ColumnFlow::find_any_chain() {
    if (sinks_.size() > 1) return;
    const Network& net = capacities_.network();
    const std::uint32_t sink_block = net.block_of(sinks_[0]);
    constexpr std::uint32_t none = ~std::uint32_t{0};
    std::vector<std::uint32_t> via(net.n_blocks(), none), queue{source_block_};
    for (std::size_t i = 0; i < queue.size() && via[sink_block] == none; ++i)
        for (const std::uint32_t e : net.links_out_of(queue[i])) {
            const Link& link = net.links()[e];
            if (link.diagonal() || net.size(link.receiver) != net.size(source_block_) ||
                link.receiver == source_block_ || via[link.receiver] != none)
                continue;
            via[link.receiver] = e;
            queue.push_back(link.receiver);
        }
    if (source_block_ == sink_block || via[sink_block] == none) return;
    for (std::uint32_t block = sink_block; block != source_block_; block = net.links()[via[block]].giver)
        layers_.push_back(via[block]);
    std::reverse(layers_.begin(), layers_.end());
    if (layers_.size() < 2) layers_.clear();
}

template <class Self, class Visit>
void ColumnFlow::for_each_array(Self& self, Visit&& visit) {
    for (auto* array : {&self.into_sink_, &self.gatherable_, &self.narrowest_, &self.arrival_, &self.departure_,
                        &self.slack_, &self.ahead_, &self.columns_, &self.taken_})
        visit(*array, false);
    for (auto* array :
         {&self.to_gather_,        &self.held_,         &self.wanted_first_,  &self.wanted_,   &self.to_gather_after_,
          &self.held_after_,       &self.wanted_after_, &self.behind_,        &self.added_,    &self.gatherable_left_,
          &self.spare_direct_,     &self.spare_spike_,  &self.spike_used_by_, &self.scratch_,  &self.row_,
          &self.wanted_of_relays_, &self.by_now_,       &self.none_,          &self.no_limit_, &self.taken_to_gather_})
        visit(*array, true);
}

// What all sources of a block share.
void ColumnFlow::enter(std::uint32_t source_block, const std::vector<Node>& sinks) {
    if (source_block == source_block_ && sinks == sinks_) return;
    const Network& net = capacities_.network();
    source_block_ = source_block;
    sinks_ = sinks;
    find_chain();
    if (layers_.empty()) return;
    rows_.clear();
    chain_.assign(net.n_words(), 0);
    for (const std::uint32_t e : layers_) {
        rows_.emplace_back(capacities_, e);
        const std::uint32_t block = net.links()[e].giver;
        std::fill_n(chain_.begin() + static_cast<std::ptrdiff_t>(net.first_word(block)), net.words(block), ~Word{0});
    }
    n_ = net.size(source_block);
    stride_ = round_to_lanes(n_ + 1);  // without a sink's column, that is an empty one beyond the others
    t_ = early_end_ ? n_ : net.position_of(sinks[0]);
    last_ = early_end_ ? layers_.size() : layers_.size() - 1;
    const std::size_t size = (last_ + 1) * stride_;
    for_each_array(*this, [&](Array& array, bool of_positions) {
        if (of_positions) array.assign(stride_, 0);
    });
    std::fill(no_limit_.begin(), no_limit_.end(), unbounded);
    for (Array* array : {&into_sink_, &gatherable_, &arrival_, &departure_}) array->assign(size, 0);
    narrowest_.assign(size, unbounded);
    for (Array* array : {&spent_, &collected_, &room_, &through_source_, &much_}) array->assign(last_ + 1, 0);
    sink_limit_.assign(last_ + 2, unbounded);
    slack_.clear();
    next_.resize((last_ + 1) * n_);
    for (std::size_t l = last_; l > 0; --l) {
        Units* into = at(into_sink_, l);
        if (!early_end_ && lateral(l)) {
            capacities_.row(layers_[l], t_, into);
            into[t_] = 0;
        }
        sink_limit_[l] = std::min(sink_limit_[l + 1], sink_straight(l));
        // Of a row that is at hand.
        const Units* row = into;
        if (early_end_ && l < last_ && lateral(l)) {
            capacities_.row(layers_[l], n_ / 2, row_.data());
            row = row_.data();
        }
        const double mean = std::accumulate(row, row + n_, 0.0) / static_cast<double>(n_);
        const auto many = static_cast<double>(std::min<std::size_t>(n_ / 16 + 1, 32));
        much_[l] = static_cast<Units>(std::min(many * mean, static_cast<double>(most_of_an_edge)));
        if (l == last_) continue;
        const Units* later = at(gatherable_, l);  // zero after the last but one: nothing is gathered any more
        Units* gatherable = at(gatherable_, l - 1);
        for (std::size_t k = 0; k < n_; ++k) {
            gatherable[k] = saturating_sum(into[k], std::min(straight(l)[k], later[k]));
            at(narrowest_, l)[k] = std::min(at(narrowest_, l + 1)[k], straight(l)[k]);
        }
    }
    set_limits();
}

void ColumnFlow::demand(const std::vector<Units>& demands) {
    std::copy(demands.begin(), demands.end(), at(into_sink_, last_));
    set_limits();
}

void ColumnFlow::set_limits() {
    const Units *into = at(into_sink_, last_), *narrowest = at(narrowest_, 1);
    Units most = 0;
    for (std::size_t k = 0; k < n_; ++k) most = saturating_sum(most, into[k]);
    wide_ = std::all_of(narrowest, narrowest + n_, [&](Units each) { return each >= most / 2; });
    const std::size_t size = (last_ + 1) * stride_;
    if (wide_ || slack_.size() == size) return;  // filled in for each pair
    slack_.assign(size, 0);
    ahead_.assign(size, unbounded);
}

// The columns of the sixteen sources around s_. Those of neighbours lie in the same cache lines.
void ColumnFlow::copy_batch() {
    const std::size_t first = s_ / batch * batch;
    const auto end = layers_.begin() + static_cast<std::ptrdiff_t>(last_);
    if (first == first_of_batch_ && std::equal(layers_of_batch_.begin(), layers_of_batch_.end(), layers_.begin(), end))
        return;
    first_of_batch_ = first;
    layers_of_batch_.assign(layers_.begin(), end);
    const std::size_t width = std::min(batch, n_ - first);
    columns_.resize(batch * last_ * stride_);
    for (std::size_t l = 0; l < last_; ++l) {
        Units* const out = columns_.data() + l * stride_;
        if (lateral(l)) {
            copy_columns(capacities_, layers_[l], first, width, out, last_ * stride_);
            continue;
        }
        for (std::size_t i = 0; i < width; ++i) std::fill_n(out + i * last_ * stride_, stride_, 0);
    }
    for (std::size_t i = 0; i < width; ++i)
        for (std::size_t l = 0; l < last_; ++l) columns_[(i * last_ + l) * stride_ + first + i] = 0;
}

std::optional<Units> ColumnFlow::leaving(Node source, const std::vector<Word>& towards) {
    const Network& net = capacities_.network();
    if (layers_.empty() || !doing_well() || !lateral(0) || net.links_out_of(source_block_).size() > 1)
        return std::nullopt;
    s_ = net.position_of(source);
    copy_batch();
    const std::size_t first = net.first_word(net.links()[layers_[0]].receiver);
    Word low = 0, high = 0, next = 0;  // sums of the lower 16 bits and of the others; bits of the successors
    const auto add = [&](Units each) {
        const auto word = static_cast<Word>(each);
        low += word & 0xFFFF;
        high += word >> 16;
        next |= word + 1;
    };
    for (std::size_t w = 0; w < words_for(n_); ++w) {
        const Units* column = this->column(0) + w * word_bits;
        if (towards[first + w] == ~Word{0})
            for (std::size_t k = 0; k < word_bits; ++k) add(column[k]);
        else
            for_each_bit(towards[first + w], 0, [&](std::size_t k) { add(column[k]); });
    }
    if (next > static_cast<Word>(most_of_an_edge)) return std::nullopt;  // one was cut there
    high += low >> 16;
    const Units sum =
        high >= static_cast<Word>(unbounded) >> 16 ? unbounded : static_cast<Units>(high << 16 | (low & 0xFFFF));
    return test_bit(&towards[first], s_) ? saturating_sum(sum, straight(0)[s_]) : sum;
}

// What the columns want for the last layer, but can still get later: through the last useful layer, which serves nothing
// else; or, where layer 0 is wanted for the sink's column, through any later one.
const Units* ColumnFlow::reserve(std::size_t layer) const {
    if (layer + 1 >= last_) return none_.data();
    if (layer > 0) return column(last_ - 1);
    return spare_direct_for_gathering_ ? by_now_.data() : none_.data();
}

// The first pass through one layer: departures, then arrivals.
void ColumnFlow::through_columns(std::size_t layer) {
    const Units* into = at(into_sink_, layer);
    Units across = 0;  // from the source's column into the sink's
    if (layer > 0) {
        across = std::min({spike_, into[s_], left_, std::max(sink_limit_[layer + 1] - gathered_, Units{0})});
        gathered_ += across;
        collected_[layer] = spent_[layer] = across;
        left_ -= across;
        spike_ -= across;
    }
    const Intake pass{column(layer),
                      into,
                      at(narrowest_, wide_ ? 1 : layer + 1),
                      at(gatherable_, layer),
                      reserve(layer),
                      to_gather_.data(),
                      held_.data(),
                      wanted_.data(),
                      to_gather_after_.data(),
                      held_after_.data(),
                      wanted_after_.data(),
                      at(departure_, layer),
                      at(arrival_, layer)};
    const Units room = std::max(sink_limit_[layer + 2] - gathered_, Units{0});
    const Units left = layer == 0 ? left_ : std::min(left_, spike_);
    const IntakeTotals totals = intake(n_, wide_, pass, room, left);
    to_gather_.swap(to_gather_after_);
    held_.swap(held_after_);
    wanted_.swap(wanted_after_);
    collected_[layer] += totals.departed;
    at(departure_, layer)[s_] = across;
    gathered_ += totals.gathered;
    left_ -= totals.arrived;
    if (layer > 0) {
        spent_[layer] += totals.arrived;
        spike_ = std::min(spike_ - totals.arrived, straight(layer)[s_]);
    }
}

// What the first pass left of everything.
void ColumnFlow::account() {
    if (wide_) {
        added_ = held_;
        std::copy_n(at(narrowest_, 1), n_, behind_.begin());
    } else {
        std::fill(added_.begin(), added_.end(), 0);
        std::fill(scratch_.begin(), scratch_.end(), 0);
        for (std::size_t l = 1; l < last_; ++l)
            carry(n_, at(arrival_, l - 1), at(departure_, l), straight(l).data(), scratch_.data(), at(slack_, l));
        for (std::size_t l = last_; l-- > 1;) least(n_, at(slack_, l), at(ahead_, l + 1), at(ahead_, l));
    }
    through_source_[last_] = 0;
    for (std::size_t l = last_; l-- > 0;) through_source_[l] = through_source_[l + 1] + spent_[l + 1];
    Units collected = direct_;
    for (std::size_t l = 1; l <= last_; ++l) {
        room_[l] = s_ == t_ ? 0 : sink_straight(l) - collected;
        collected += l < last_ ? collected_[l] : 0;
    }
    for (std::size_t l = last_; l-- > 1;) room_[l] = std::min(room_[l], room_[l + 1]);
    for (Array* array : {&spare_direct_, &spare_spike_, &spike_used_by_}) std::fill(array->begin(), array->end(), 0);
    std::fill(next_.begin(), next_.end(), 0);
    poured_.clear();
    spike_used_ = 0;
    room_used_ = 0;
}

// What the source gave away at layer 0 can only be passed on by those it went to: where it is most, takers come first.
void ColumnFlow::choose_order() {
    add_difference(n_, spare_direct_.data(), column(0), at(arrival_, 0));
    spare_direct_[t_] = 0;
    order_.resize(stride_ / n_lanes);
    for (std::uint32_t tile = 0; tile < order_.size(); ++tile) {
        order_[tile] = tile;
        const Units* direct = spare_direct_.data() + tile * n_lanes;
        scratch_[tile] = *std::max_element(direct, direct + n_lanes);
    }
    std::sort(order_.begin(), order_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return std::tie(scratch_[b], a) < std::tie(scratch_[a], b); });
}

// Before anything was passed: the few columns that want a good part of what is left.
void ColumnFlow::choose_lacking() {
    urgent_.clear();
    for (std::uint32_t k = 0; k < n_ && urgent_.size() < most_lacking; ++k)
        if (wanted_[k] > left_ / 16) urgent_.push_back(k);
}

// After an attempt that failed: those first that went short, most first.
void ColumnFlow::choose_urgent() {
    open_.clear();
    for (std::uint32_t k = 0; k < n_; ++k)
        if (wanted_[k] > 0) open_.push_back(k);
    // Only the sink's column still wants, and wants it early: what columns keep to the end, they can get later.
    spare_direct_for_gathering_ = open_.empty() && s_ != t_ && spike_room_ > spike_used_;
    if (spare_direct_for_gathering_) {
        std::fill(by_now_.begin(), by_now_.end(), 0);
        for (std::size_t l = 1; l < last_; ++l) add_difference(n_, by_now_.data(), column(l), none_.data());
    }
    std::sort(open_.begin(), open_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return std::tie(wanted_[b], a) < std::tie(wanted_[a], b); });
    for (const std::uint32_t k : urgent_)
        if (std::find(open_.begin(), open_.end(), k) == open_.end()) open_.push_back(k);
    open_.resize(std::min(open_.size(), most_urgent));
    urgent_ = open_;
}

// What columns and the source's column can pass on by a layer. Layers come in order.
void ColumnFlow::begin_layer(std::size_t layer) {
    if (layer == 1) {
        spike_room_ = unbounded;
        if (!wide_) std::fill(behind_.begin(), behind_.end(), unbounded);
        return;
    }
    const Units room = straight(layer - 2)[s_] - through_source_[layer - 2];
    spike_room_ = s_ == t_ ? 0 : std::min(spike_room_, room);
    if (!wide_) lower(n_, behind_.data(), at(slack_, layer - 1));
}

// What columns want of each other through a layer.
Takers ColumnFlow::takers_of(std::size_t layer) {
    return {.gather = gatherable_left_.data(),
            .keep = wanted_.data(),
            .gather_room = 0,
            .ahead = ahead(layer),
            .added = added_.data(),
            .limit = left_,
            .gathered = taken_to_gather_.data()};
}

// What they have to spare, for `to`.
Sweep ColumnFlow::sweep_of(std::size_t layer, Takers& to) {
    return {.rows = rows_[layer],
            .layer = static_cast<std::uint32_t>(layer),
            .direct = spare_direct_.data(),
            .spike = spare_spike_.data(),
            .spike_used = spike_used_by_.data(),
            .behind = behind_.data(),
            .added = added_.data(),
            .spike_room = spike_room_ - spike_used_,
            .order = order_,
            .takers = open_,
            .to = to,
            .next = next_.data() + layer * n_,
            .taken = nullptr,
            .log = log_};
}

void ColumnFlow::perform(Sweep& sweep) {
    left_ -= run(sweep);
    spike_used_ = spike_room_ - sweep.spike_room;
}

// Neighbours of the source get most of what it gives away (heads that attend to the token before), and need hundreds of
// edges each to pass it on. Their columns have been copied with its own.
void ColumnFlow::pour_out(std::size_t layer, Takers& to) {
    const std::size_t end = std::min(first_of_batch_ + batch, n_);
    for (std::size_t k = first_of_batch_; k < end && left_ > 0; ++k) {
        Units &direct = spare_direct_[k], &spike = spare_spike_[k];
        const Units from_spike = std::min(spike, std::max(spike_room_ - spike_used_, Units{0}));
        const Units most = std::min(direct + from_spike, behind_[k] - added_[k]);
        if (most <= much_[layer]) continue;
        const Units passed =
            attnflow::pour_out(n_, Pour{column(layer, k), static_cast<std::uint32_t>(layer),
                                        static_cast<std::uint32_t>(k), direct, from_spike, most, to, log_});
        const Units of_spike = passed - std::min(passed, direct);
        left_ -= passed;
        added_[k] += passed;
        spike_used_ += of_spike;
        spike_used_by_[k] += of_spike;
        poured_.push_back({static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(k)});
        direct -= passed - of_spike;
        spike -= of_spike;
    }
}

// An edge is used once: who poured through a layer gives nothing to sweeps of that layer, nor do edges that sweeps may have
// used pour.
void ColumnFlow::hide_poured(std::size_t layer) {
    for (const Poured& each : poured_)
        if (each.layer == layer) {
            hidden_.push_back({each.giver, spare_direct_[each.giver], spare_spike_[each.giver]});
            spare_direct_[each.giver] = spare_spike_[each.giver] = 0;
        }
}

void ColumnFlow::show_poured() {
    for (const Hidden& each : hidden_) {
        spare_direct_[each.giver] = each.direct;
        spare_spike_[each.giver] = each.spike;
    }
    hidden_.clear();
}

void ColumnFlow::exchange_wants_of_urgent(const Takers& to) {
    aside_.resize(urgent_.size(), {0, 0});
    for (std::size_t i = 0; i < urgent_.size(); ++i) {
        std::swap(to.gather[urgent_[i]], aside_[i].first);
        if (to.keep != none_.data()) std::swap(to.keep[urgent_[i]], aside_[i].second);
    }
}

// The second pass.
void ColumnFlow::between_columns(Use use) {
    std::fill(gatherable_left_.begin(), gatherable_left_.end(), 0);
    for (std::size_t l = 1; l < last_; ++l)
        add_difference(n_, gatherable_left_.data(), at(into_sink_, l), at(departure_, l));
    for (std::size_t k = 0; k < n_; ++k)
        if (wanted_first_[k] == 0) gatherable_left_[k] = 0;  // out of the source's reach, as a rule
    if (use == Use::spike) std::fill(by_now_.begin(), by_now_.end(), 0);
    for (std::size_t l = 1; l < last_ && left_ > 0 && !many_transfers(); ++l) {
        begin_layer(l);
        if (l > 1 && use == Use::both) add_difference(n_, spare_spike_.data(), column(l - 1), at(arrival_, l - 1));
        if (l > 1 && use == Use::spike) {
            add_difference(n_, by_now_.data(), column(l - 1), at(arrival_, l - 1));
            for (std::size_t k = 0; k < n_; ++k) spare_spike_[k] = std::max(by_now_[k] - spike_used_by_[k], Units{0});
        }
        spare_spike_[t_] = 0;
        add_difference(n_, gatherable_left_.data(), at(departure_, l), at(into_sink_, l));
        gatherable_left_[s_] = 0;
        Takers to = takers_of(l);
        const Units room = l + 2 <= last_ ? std::max(room_[l + 2] - room_used_, Units{0}) : Units{0};
        to.gather_room = room;
        if (!lateral(l)) continue;
        if (use == Use::direct && spare_direct_for_gathering_) to.keep = none_.data();
        Sweep sweep = sweep_of(l, to);
        if (use == Use::spike) hide_poured(l);
        for (std::size_t i = 0; i < n_lacking_ && left_ > 0; ++i) {
            open_.assign(1, urgent_[i]);
            sweep.taken = taken(i, l);
            perform(sweep);
        }
        sweep.taken = nullptr;
        open_.assign(urgent_.begin() + static_cast<std::ptrdiff_t>(n_lacking_), urgent_.end());
        if (left_ > 0 && !open_.empty()) perform(sweep);
        // Those had their turn in this layer, and an edge is used once.
        exchange_wants_of_urgent(to);
        find_takers(n_, to, open_);
        if (open_.size() * worth_pouring >= n_ && use != Use::spike) pour_out(l, to);
        if (use != Use::spike) hide_poured(l);
        if (left_ > 0 && !open_.empty()) {
            sweep.spike_room = spike_room_ - spike_used_;
            perform(sweep);
        }
        exchange_wants_of_urgent(to);
        show_poured();
        room_used_ += room - to.gather_room;
        depart_later(l, room - to.gather_room);
    }
}

// What was taken in through a layer for the sink's column leaves as early as it can.
void ColumnFlow::depart_later(std::size_t layer, Units amount) {
    for (std::size_t l = layer + 1; amount > 0; ++l) {
        const Units given = give(n_, taken_to_gather_.data(), at(into_sink_, l), at(departure_, l));
        collected_[l] += given;
        amount -= given;
    }
}

// The third pass: a column whose givers are exhausted is served through a column in between, in two steps. What is spare
// by a layer is what was by then, less all that any layer used of it.
void ColumnFlow::by_relay() {
    for (std::size_t i = 0; i < n_lacking_; ++i) {
        const std::uint32_t taker = urgent_[i];
        std::fill(by_now_.begin(), by_now_.end(), 0);
        for (std::size_t l = 2; l < last_ && left_ > 0 && wanted_[taker] > 0 && !many_transfers(); ++l) {
            begin_layer(l - 1);
            if (l > 2) add_difference(n_, by_now_.data(), column(l - 2), at(arrival_, l - 2));
            by_now_[t_] = 0;
            if (!lateral(l) || !lateral(l - 1)) continue;
            for (std::size_t k = 0; k < n_; ++k) spare_spike_[k] = std::max(by_now_[k] - spike_used_by_[k], Units{0});
            capacities_.row(layers_[l], taker, row_.data());
            open_.clear();
            for (std::uint32_t k = 0; k < n_; ++k) {
                row_[k] = std::min(row_[k], most_of_an_edge) - taken(i, l)[k];
                if (row_[k] > 0 && k != taker && k != s_ && k != t_) open_.push_back(k);
            }
            wanted_of_relays_ = row_;
            std::fill(scratch_.begin(), scratch_.end(), 0);
            Takers to = takers_of(l - 1);
            to.gather = none_.data();  // relays hold nothing
            to.keep = row_.data();
            to.ahead = no_limit_.data();
            to.added = scratch_.data();
            to.limit = std::min({left_, wanted_[taker], ahead(l)[taker] - added_[taker]});
            if (to.limit <= 0) continue;
            Sweep sweep = sweep_of(l - 1, to);
            const Units before = left_;
            hide_poured(l - 1);
            perform(sweep);
            show_poured();
            const Units got = before - left_;
            if (got == 0) continue;
            added_[taker] += got;
            wanted_[taker] -= got;
            for (std::uint32_t k = 0; k < n_; ++k) {
                const Units amount = wanted_of_relays_[k] - row_[k];
                if (amount == 0) continue;
                taken(i, l)[k] += amount;
                if (log_ != nullptr)
                    log_->push_back({static_cast<std::uint32_t>(l) & 0xFFFFFFU, Origin::transfer, taker, k, amount});
            }
        }
    }
}

void ColumnFlow::start(const std::vector<Word>& reached, Units bound) {
    const Network& net = capacities_.network();
    left_ = bound;
    spike_ = 0;
    if (s_ == t_) {  // one column cannot be both: it carries what goes straight, and the others gather nothing
        direct_ = std::min(left_, std::min(sink_limit_[1], straight(0)[s_]));
        gathered_ = unbounded;
    } else {
        direct_ = std::min({left_, column(0)[t_], sink_limit_[1]});
        gathered_ = direct_;
        spike_ = straight(0)[s_];
    }
    left_ -= direct_;
    transfers_.clear();
    for (Array* array : {&to_gather_, &held_, &spent_, &collected_}) std::fill(array->begin(), array->end(), 0);
    const Units* into = at(into_sink_, last_);
    const Word* there = reached.data() + net.first_word(early_end_ ? *early_end_ : net.links()[layers_[last_]].giver);
    for (std::size_t k = 0; k < n_; ++k) wanted_[k] = test_bit(there, k) ? std::min(into[k], most_of_an_edge) : 0;
    wanted_[s_] = 0;
    wanted_first_ = wanted_;
}

Units ColumnFlow::fill(Node source, const std::vector<Word>& reached, Units bound, bool keep) {
    if (layers_.empty()) return 0;
    s_ = capacities_.network().position_of(source);
    copy_batch();
    const bool probing = !doing_well();
    const std::size_t attempts = probing ? 1 : most_attempts;
    log_ = keep ? &transfers_ : nullptr;
    transfers_.reserve((6 + last_) * n_);  // growing would hold the old and the new ones at once
    const std::size_t best = attempt(reached, bound, attempts, !probing);
    so_far().n_filled += far_short_ ? far_short : 1;
    so_far().n_reached += left_ == 0;
    if (probing) so_far().period = left_ == 0 ? Experience{}.period : so_far().period * 2;
    worth_loading_ = left_ == 0 || (!probing && !far_short_);
    if (!worth_loading_) return 0;
    if (left_ > 0 && (!keep || best + 1 < attempts)) {
        log_ = &transfers_;  // a search needs to know what was done
        attempt(reached, bound, best + 1, true);
    }
    return bound - left_;
}

// Returns which one came nearest to the bound; what is left behind is the last.
std::size_t ColumnFlow::attempt(const std::vector<Word>& reached, Units bound, std::size_t attempts, bool relays) {
    std::size_t best = 0;
    Units least_left = unbounded;
    spare_direct_for_gathering_ = far_short_ = false;
    for (std::size_t attempt = 0; attempt < attempts; ++attempt) {
        start(reached, bound);
        for (filled_ = 0; filled_ < last_ && left_ > 0; ++filled_) through_columns(filled_);
        if (left_ == 0) break;
        // What is left of the spike goes from the source's column to the sink.
        spent_[last_] = std::min({spike_, at(into_sink_, last_)[s_], left_});
        left_ -= spent_[last_];
        if (left_ == 0) break;
        account();
        choose_order();
        if (attempt == 0) choose_lacking();
        n_lacking_ = std::min(urgent_.size(), most_lacking);
        taken_.assign(n_lacking_ * (last_ + 1) * stride_, 0);
        if (attempt == 0) {
            between_columns(Use::both);
        } else {
            between_columns(Use::direct);
            if (left_ > 0) between_columns(Use::spike);
        }
        far_short_ = attempt == 0 && left_ > bound / hopeless;
        if (far_short_) break;
        if (left_ > 0 && relays) by_relay();
        if (left_ < least_left) {
            least_left = left_;
            best = attempt;
        }
        if (left_ == 0 || attempt + 1 == attempts) break;
        choose_urgent();
    }
    return best;
}

std::size_t ColumnFlow::bytes() const {
    std::size_t total = transfers_.capacity() * sizeof(Transfer) + chain_.capacity() * sizeof(Word) +
                        (next_.capacity() + open_.capacity()) * sizeof(std::uint32_t);
    for_each_array(*this, [&](const Array& array, bool) { total += array.capacity() * sizeof(Units); });
    return total;
}

}  // namespace attnflow
