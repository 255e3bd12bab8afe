#include "columns.hpp"

#include <algorithm>
#include <bit>
#include <tuple>

namespace attnflow {

ColumnFlow::ColumnFlow(const CapacityIndex& capacities) : capacities_(capacities) {}

// A shortest chain of links, as far as blocks go: in a layered network, the only one.
bool ColumnFlow::find_layers(std::uint32_t source_block, std::uint32_t sink_block) {
    const Network& net = capacities_.network();
    constexpr std::uint32_t none = ~std::uint32_t{0};
    std::vector<std::uint32_t> via(net.n_blocks(), none), queue{source_block};
    for (std::size_t i = 0; i < queue.size() && via[sink_block] == none; ++i)
        for (const std::uint32_t e : net.links_out_of(queue[i])) {
            const Link& link = net.links()[e];
            if (link.diagonal || net.size(link.receiver) != net.size(source_block) || link.receiver == source_block ||
                via[link.receiver] != none)
                continue;
            via[link.receiver] = e;
            queue.push_back(link.receiver);
        }
    layers_.clear();
    if (source_block == sink_block || via[sink_block] == none) return false;
    for (std::uint32_t block = sink_block; block != source_block; block = net.links()[via[block]].giver)
        layers_.push_back(via[block]);
    std::reverse(layers_.begin(), layers_.end());
    return layers_.size() >= 2;
}

// What all sources of a sink share.
void ColumnFlow::enter(std::uint32_t source_block, Node sink) {
    const Network& net = capacities_.network();
    source_block_ = source_block;
    sink_ = sink;
    if (!find_layers(source_block, net.block_of(sink))) return layers_.clear();
    n_ = net.size(source_block);
    t_ = net.position_of(sink);
    last_ = layers_.size() - 1;
    for (std::vector<Units>* array : {&into_sink_, &gatherable_, &arrival_, &departure_, &refused_})
        array->assign(layers_.size() * n_, 0);
    for (std::vector<Units>* array : {&to_gather_, &wanted_last_, &entered_, &column_, &spare_, &spare_spike_})
        array->resize(n_);
    next_.resize(layers_.size() * n_);
    givers_.resize(words_for(n_));
    spike_givers_.resize(words_for(n_));
    narrowest_.assign(layers_.size() * n_, unbounded);
    sink_limit_.assign(layers_.size() + 1, unbounded);
    for (std::vector<Units>* array : {&spent_, &collected_, &room_}) array->assign(layers_.size(), 0);
    for (std::size_t l = last_; l > 0; --l) {
        Units* into = &at(into_sink_, l);
        capacities_.row(layers_[l], t_, into);
        into[t_] = 0;
        sink_limit_[l] = std::min(sink_limit_[l + 1], straight(l)[t_]);
        if (l == last_) continue;
        const Units* later = &at(gatherable_, l);  // zero after the last but one: nothing is gathered any more
        Units* gatherable = &at(gatherable_, l - 1);
        for (std::size_t k = 0; k < n_; ++k) {
            gatherable[k] = saturating_sum(into[k], std::min(straight(l)[k], later[k]));
            narrowest_[l * n_ + k] = std::min(narrowest_[(l + 1) * n_ + k], straight(l)[k]);
        }
    }
}

// The first pass through one layer: departures, then arrivals.
void ColumnFlow::through_columns(std::size_t layer) {
    const Units* into = &at(into_sink_, layer);
    const Units* gatherable = &at(gatherable_, layer);
    const Units* narrowest = &at(narrowest_, layer + 1);
    Units* departure = &at(departure_, layer);
    Units* arrival = &at(arrival_, layer);
    Units* refused = &at(refused_, layer);
    capacities_.column(layers_[layer], s_, column_.data());
    column_[s_] = column_[t_] = 0;

    Units across = 0;  // from the source's column into the sink's
    if (layer > 0) {
        across = std::min({spike_, into[s_], left_, std::max(sink_limit_[layer + 1] - gathered_, Units{0})});
        gathered_ += across;
        collected_[layer] = spent_[layer] = across;
        left_ -= across;
        spike_ -= across;
    }
    const Units room_before = std::max(sink_limit_[layer + 2] - gathered_, Units{0});
    const Units left_before = layer == 0 ? left_ : std::min(left_, spike_);
    Units room = room_before, left = left_before, given = 0;
    for (std::size_t k = 0; k < n_; ++k) {
        const Units out = std::min(to_gather_[k], into[k]);
        const Units stock = to_gather_[k] - out;
        const Units most = std::min({column_[k], std::max(narrowest[k] - entered_[k], Units{0}), left});
        const Units gather = std::min({most, gatherable[k] - stock, room});
        const Units keep = std::min(most - gather, wanted_last_[k]);
        departure[k] = out;
        arrival[k] = gather + keep;
        refused[k] = column_[k] - arrival[k];
        to_gather_[k] = stock + gather;
        wanted_last_[k] -= keep;
        entered_[k] += arrival[k];
        room -= gather;
        left -= arrival[k];
        given += out;
    }
    departure[s_] = across;
    collected_[layer] += given;
    gathered_ += room_before - room;
    left_ -= left_before - left;
    if (layer > 0) {
        spent_[layer] += left_before - left;
        spike_ = std::min(spike_ - (left_before - left), straight(layer)[s_]);
    }
}

// The second pass. What columns s and t have left is what their straight edges have left, each counted as if all that
// is still to come went through every one of them that some of it may go through.
void ColumnFlow::between_columns(const std::vector<Word>& reached_nodes) {
    const Network& net = capacities_.network();
    Units spike_left = unbounded, spent = spent_[last_] + spent_[last_ - 1];
    for (std::size_t l = last_ - 1; l-- > 0; spent += spent_[l])
        spike_left = std::min(spike_left, straight(l)[s_] - spent);
    spike_ = s_ == t_ ? 0 : std::max(spike_left, Units{0});
    Units collected = direct_;
    for (std::size_t l = 1; l <= last_; ++l) {
        room_[l] = s_ == t_ ? 0 : straight(l)[t_] - collected;
        collected += l < last_ ? collected_[l] : 0;
    }
    for (std::size_t l = last_; l-- > 1;) room_[l] = std::min(room_[l], room_[l + 1]);

    std::fill(spare_.begin(), spare_.end(), 0);
    std::fill(spare_spike_.begin(), spare_spike_.end(), 0);
    std::fill(givers_.begin(), givers_.end(), 0);
    std::fill(spike_givers_.begin(), spike_givers_.end(), 0);
    std::fill(next_.begin(), next_.end(), 0);
    transfers_.reserve(most_transfers() + 2);  // a step that reaches the limit may add one more
    // [k] what column k could still give to the sink's column after layer l
    std::vector<Units>& gatherable = to_gather_;
    std::fill(gatherable.begin(), gatherable.end(), 0);
    for (std::size_t l = 2; l < last_; ++l)
        for (std::size_t k = 0; k < n_; ++k)
            gatherable[k] = saturating_sum(gatherable[k], into_sink_[l * n_ + k] - departure_[l * n_ + k]);
    Units room_used = 0;
    for (std::size_t l = 1; l < last_ && left_ > 0 && !many_transfers(); ++l) {
        const Units* refused = &at(refused_, l - 1);
        std::vector<Units>& spare = l == 1 ? spare_ : spare_spike_;
        std::vector<Word>& givers = l == 1 ? givers_ : spike_givers_;
        for (std::size_t k = 0; k < n_; ++k) {
            spare[k] = saturating_sum(spare[k], refused[k]);
            givers[k / word_bits] |= Word{spare[k] > 0} << (k % word_bits);
        }
        const Word* reached = reached_nodes.data() + net.first_word(net.links()[layers_[l]].receiver);
        for (std::size_t w = 0; w < givers_.size(); ++w)
            for_each_bit(reached[w], w * word_bits, [&](std::size_t k) {
                const Units room = l + 2 <= last_ ? std::max(room_[l + 2] - room_used, Units{0}) : Units{0};
                const Units gather = std::min(gatherable[k], room);
                const Units space = narrowest_[(l + 1) * n_ + k] - entered_[k];
                const Units want = std::min({saturating_sum(gather, wanted_last_[k]), space, left_});
                if (want <= 0 || k == s_ || k == t_) return;
                const Units got = serve(l, k, want);
                const Units gathered = std::min(got, gather);
                depart_later(l, k, gathered);
                gatherable[k] -= gathered;
                room_used += gathered;
                wanted_last_[k] -= got - gathered;
                entered_[k] += got;
                left_ -= got;
            });
        if (l + 1 < last_)
            for (std::size_t k = 0; k < n_; ++k)
                gatherable[k] =
                    std::max(gatherable[k] - into_sink_[(l + 1) * n_ + k] + departure_[(l + 1) * n_ + k], Units{0});
    }
    std::fill(to_gather_.begin(), to_gather_.end(), 0);
}

void ColumnFlow::depart_later(std::size_t layer, std::size_t k, Units amount) {
    for (std::size_t l = layer + 1; amount > 0; ++l) {
        const Units out = std::min(amount, into_sink_[l * n_ + k] - departure_[l * n_ + k]);
        departure_[l * n_ + k] += out;
        collected_[l] += out;
        amount -= out;
    }
}

void ColumnFlow::transfer(std::size_t layer, std::size_t taker, std::size_t giver, Units amount, Origin origin) {
    if (amount > 0)
        transfers_.push_back({static_cast<std::uint32_t>(layer) & 0xFFFFFFU, origin, static_cast<std::uint32_t>(taker),
                              static_cast<std::uint32_t>(giver), amount});
}

// Brings up to `want` from other columns to `taker` through a layer. Every edge is used at most once: a row is walked from
// behind the last edge used.
Units ColumnFlow::serve(std::size_t layer, std::size_t taker, Units want) {
    const Word* row = capacities_.bits(CapacityIndex::n_scales - 1, layers_[layer], taker);
    std::uint32_t& next = next_[layer * n_ + taker];
    Units got = 0;
    for (std::size_t w = next / word_bits; w < givers_.size(); ++w) {
        const std::size_t before = next > w * word_bits ? next - w * word_bits : 0;
        Word candidates = row[w] & (givers_[w] | (spike_ > 0 ? spike_givers_[w] : Word{0})) & ~Word{0} << before;
        for (; candidates != 0 && got < want && !many_transfers(); candidates &= candidates - 1) {
            const std::size_t k = w * word_bits + static_cast<std::size_t>(std::countr_zero(candidates));
            if (k == taker) continue;
            const Units space = std::max(narrowest_[n_ + k] - entered_[k], Units{0});
            const Units most = std::min({capacities_.at(layers_[layer], taker, k), space, want - got});
            const Units amount = std::min(most, saturating_sum(spare_[k], std::min(spare_spike_[k], spike_)));
            if (amount == 0) continue;
            const Units direct = std::min(amount, spare_[k]), spike = amount - direct;
            spare_[k] -= direct;
            spare_spike_[k] -= spike;
            if (spare_[k] == 0) clear_bit(givers_.data(), k);
            if (spare_spike_[k] == 0) clear_bit(spike_givers_.data(), k);
            spike_ -= spike;
            entered_[k] += amount;
            got += amount;
            transfer(layer, taker, k, direct, Origin::source);
            transfer(layer, taker, k, spike, Origin::spike);
            next = static_cast<std::uint32_t>(k) + 1;
        }
        if (got == want || many_transfers()) break;
    }
    return got;
}

// The third pass: a column whose givers are exhausted is served through a column in between, in two steps. Only columns
// that lack a good part of what is missing (class tokens, separators): there are few of them. The spike is left alone:
// what of it came through which layer is no longer known.
void ColumnFlow::by_relay(const std::vector<Word>& reached_nodes) {
    const Network& net = capacities_.network();
    const Word* reached = reached_nodes.data() + net.first_word(net.links()[layers_[last_]].giver);
    spike_ = 0;
    std::vector<Units>& used = column_;  // [giver] of the row at hand
    for (std::size_t taker = 0; taker < n_; ++taker) {
        if (wanted_last_[taker] <= left_ / 16 || !test_bit(reached, taker) || taker == s_ || taker == t_) continue;
        for (std::size_t l = 2; l < last_ && left_ > 0; ++l) {
            std::fill(used.begin(), used.end(), 0);
            for (const Transfer& each : transfers_)
                if (each.layer == l && each.taker == taker) used[each.giver] += each.amount;
            const Word* row = capacities_.bits(CapacityIndex::n_scales - 1, layers_[l], taker);
            for (std::size_t w = 0; w < givers_.size(); ++w)
                for_each_bit(row[w], w * word_bits, [&](std::size_t relay) {
                    const Units space = narrowest_[(l + 1) * n_ + taker] - entered_[taker];
                    const Units most = std::min({wanted_last_[taker], space, left_});
                    const Units want = std::min(most, capacities_.at(layers_[l], taker, relay) - used[relay]);
                    if (want <= 0 || relay == taker || relay == s_ || relay == t_ || many_transfers()) return;
                    const Units got = serve(l - 1, relay, want);
                    transfer(l, taker, relay, got, Origin::transfer);
                    entered_[taker] += got;
                    wanted_last_[taker] -= got;
                    left_ -= got;
                });
            // The row has been used behind serve()'s back: it shall not walk there again.
            next_[l * n_ + taker] = static_cast<std::uint32_t>(givers_.size() * word_bits);
        }
    }
}

Units ColumnFlow::fill(Node source, Node sink, const std::vector<Word>& reached, Units bound) {
    const Network& net = capacities_.network();
    if (sink != sink_ || net.block_of(source) != source_block_) enter(net.block_of(source), sink);
    ++n_filled_;
    if (layers_.empty()) return 0;
    s_ = net.position_of(source);
    left_ = bound;
    spike_ = 0;
    if (s_ == t_) {  // one column cannot be both: it carries what goes straight, and the others gather nothing
        direct_ = std::min(left_, std::min(sink_limit_[1], straight(0)[s_]));
        gathered_ = unbounded;
    } else {
        direct_ = std::min({left_, capacities_.at(layers_[0], t_, s_), sink_limit_[1]});
        gathered_ = direct_;
        spike_ = straight(0)[s_];
    }
    left_ -= direct_;
    transfers_.clear();
    std::fill(to_gather_.begin(), to_gather_.end(), 0);
    std::fill(spent_.begin(), spent_.end(), 0);
    std::fill(collected_.begin(), collected_.end(), 0);
    std::copy_n(&at(into_sink_, last_), n_, wanted_last_.begin());
    wanted_last_[s_] = 0;
    std::fill(entered_.begin(), entered_.end(), 0);
    for (filled_ = 0; filled_ < last_ && left_ > 0; ++filled_) through_columns(filled_);
    if (left_ > 0) {
        // What is left of the spike goes from the source's column to the sink.
        spent_[last_] = std::min({spike_, into_sink_[last_ * n_ + s_], left_});
        left_ -= spent_[last_];
        between_columns(reached);
        if (left_ > 0) by_relay(reached);
    }
    n_reached_ += left_ == 0;
    return bound - left_;
}

void ColumnFlow::load(Residual& residual) {
    if (layers_.empty()) return;
    const auto send = [&](std::size_t layer, std::size_t receiver, std::size_t giver, Units amount) {
        if (amount > 0) residual.preload(layers_[layer], receiver, giver, amount);
    };
    complete();
    Units through_source = 0, through_sink = direct_;
    for (std::size_t l = 1; l <= last_; ++l) through_source += spent_[l];
    std::vector<Units>&stock = to_gather_, &coming = column_;  // [k] at (l, k); what will be more of it at (l + 1, k)
    std::fill(stock.begin(), stock.end(), 0);
    auto transfer = transfers_.begin();
    for (std::size_t l = 0; l <= last_; ++l) {
        std::copy_n(&at(arrival_, l), n_, coming.begin());
        while (transfer != transfers_.end() && transfer->layer == l) {
            const std::uint32_t taker = transfer->taker, giver = transfer->giver;
            Units amount = 0;
            for (; transfer != transfers_.end() && transfer->layer == l && transfer->taker == taker &&
                   transfer->giver == giver;
                 ++transfer)
                amount += transfer->amount;
            send(l, taker, giver, amount);
            coming[taker] += amount;
            stock[giver] -= amount;
        }
        const Units* arrival = &at(arrival_, l);
        const Units* departure = &at(departure_, l);
        for (std::size_t k = 0; k < n_; ++k) {
            send(l, k, s_, arrival[k]);
            send(l, t_, k, departure[k]);
            if (k == s_ || k == t_) continue;
            stock[k] -= departure[k];
            send(l, k, k, stock[k]);
            stock[k] += coming[k];
        }
        if (s_ == t_) {
            send(l, s_, s_, direct_);
            continue;
        }
        if (l > 0) {
            send(l, t_, t_, through_sink);
            through_sink += collected_[l];
            through_source -= spent_[l];
        } else {
            send(0, t_, s_, direct_);
        }
        if (l < last_) send(l, s_, s_, through_source);
    }
}

// Fills in what fill() left open: the layers after the bound was reached, and through which layer the givers of the second
// pass took in what they gave (the latest that is left).
void ColumnFlow::complete() {
    for (std::size_t l = filled_; l <= last_; ++l) {
        const Units* into = &at(into_sink_, l);
        Units* departure = &at(departure_, l);
        std::fill_n(&at(arrival_, l), n_, 0);
        if (l == last_) break;
        for (std::size_t k = 0; k < n_; ++k) {
            departure[k] = std::min(to_gather_[k], into[k]);
            to_gather_[k] -= departure[k];
            collected_[l] += departure[k];
        }
    }
    for (std::size_t k = 0; k < n_; ++k) departure_[last_ * n_ + k] = into_sink_[last_ * n_ + k] - wanted_last_[k];
    departure_[last_ * n_ + s_] = spent_[last_];
    if (transfers_.empty()) return;
    std::sort(transfers_.begin(), transfers_.end(), [](const Transfer& a, const Transfer& b) {
        return std::tie(a.layer, a.taker, a.giver) < std::tie(b.layer, b.taker, b.giver);
    });
    std::vector<Units>&direct = spare_, &spike = spare_spike_;  // [k] to be taken in at layer 0, later
    std::fill(direct.begin(), direct.end(), 0);
    std::fill(spike.begin(), spike.end(), 0);
    auto transfer = transfers_.end();
    for (std::size_t l = last_ - 1; l-- > 0;) {
        for (; transfer != transfers_.begin() && (transfer - 1)->layer == l + 1; --transfer) {
            const Transfer& latest = *(transfer - 1);
            if (latest.origin != Origin::transfer)
                (latest.origin == Origin::spike ? spike : direct)[latest.giver] += latest.amount;
        }
        Units* arrival = &at(arrival_, l);
        const Units* refused = &at(refused_, l);
        for (std::size_t k = 0; k < n_; ++k) {
            const Units more = l == 0 ? direct[k] : std::min(spike[k], refused[k]);
            arrival[k] += more;
            if (l == 0) continue;
            spike[k] -= more;
            spent_[l] += more;
        }
    }
}

std::size_t ColumnFlow::bytes() const {
    std::size_t total = transfers_.capacity() * sizeof(Transfer) + next_.capacity() * sizeof(std::uint32_t) +
                        (givers_.capacity() + spike_givers_.capacity()) * sizeof(Word);
    for (const std::vector<Units>* array :
         {&into_sink_, &gatherable_, &sink_limit_, &narrowest_, &spent_, &collected_, &room_, &arrival_, &departure_,
          &refused_, &to_gather_, &wanted_last_, &entered_, &column_, &spare_, &spare_spike_})
        total += array->capacity() * sizeof(Units);
    return total;
}

}  // namespace attnflow
