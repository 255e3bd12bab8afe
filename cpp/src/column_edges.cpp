// A flow along columns (columns.hpp), edge by edge: for a search that goes on from it, and for those who ask.
#include <algorithm>
#include <tuple>

#include "columns.hpp"

namespace attnflow {

void ColumnFlow::load(Residual& residual) {
    if (!can_load()) return;
    const auto send_of = [&](Units capacity, std::size_t layer, std::size_t receiver, std::size_t giver, Units amount) {
        if (amount > 0) residual.preload(layers_[layer], receiver, giver, amount, capacity);
    };
    const auto send = [&](std::size_t layer, std::size_t receiver, std::size_t giver, Units amount) {
        if (amount > 0) send_of(capacities_.at(layers_[layer], receiver, giver), layer, receiver, giver, amount);
    };
    complete();
    Units through_source = 0, through_sink = direct_;
    for (std::size_t l = 1; l <= last_; ++l) through_source += spent_[l];
    Array &stock = to_gather_, &coming = scratch_;  // [k] at (l, k); what will be more of it at (l + 1, k)
    std::fill(stock.begin(), stock.end(), 0);
    auto transfer = transfers_.begin();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        std::copy_n(at(arrival_, l), n_, coming.begin());
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
        const Units* arrival = at(arrival_, l);
        const Units* departure = at(departure_, l);
        for (std::size_t k = 0; k < n_; ++k) {
            // Columns were copied with capacities cut at most_of_an_edge.
            if (l == last_ || column(l)[k] == most_of_an_edge)
                send(l, k, s_, arrival[k]);
            else
                send_of(column(l)[k], l, k, s_, arrival[k]);
            if (l == 0)
                send(l, t_, k, departure[k]);
            else
                send_of(at(into_sink_, l)[k], l, t_, k, departure[k]);
            if (k == s_ || k == t_) continue;
            stock[k] -= departure[k];
            send_of(straight(l)[k], l, k, k, stock[k]);
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

// Fills in what fill() left open: the layers after the bound was reached, and through which layer the givers of the later
// passes took in what they gave (the latest that is left).
void ColumnFlow::complete() {
    for (std::size_t l = filled_; l <= last_; ++l) {
        const Units* into = at(into_sink_, l);
        Units* departure = at(departure_, l);
        std::fill_n(at(arrival_, l), n_, 0);
        if (l == last_) break;
        for (std::size_t k = 0; k < n_; ++k) {
            departure[k] = std::min(to_gather_[k], into[k]);
            to_gather_[k] -= departure[k];
            collected_[l] += departure[k];
        }
    }
    for (std::size_t k = 0; k < n_; ++k) at(departure_, last_)[k] = wanted_first_[k] - wanted_[k];
    at(departure_, last_)[s_] = spent_[last_];
    if (transfers_.empty()) return;
    std::sort(transfers_.begin(), transfers_.end(), [](const Transfer& a, const Transfer& b) {
        return std::tie(a.layer, a.taker, a.giver) < std::tie(b.layer, b.taker, b.giver);
    });
    Array &direct = spare_direct_, &spike = spare_spike_;  // [k] to be taken in at layer 0, later
    std::fill(direct.begin(), direct.end(), 0);
    std::fill(spike.begin(), spike.end(), 0);
    auto transfer = transfers_.end();
    for (std::size_t l = last_ - 1; l-- > 0;) {
        for (; transfer != transfers_.begin() && (transfer - 1)->layer == l + 1; --transfer) {
            const Transfer& latest = *(transfer - 1);
            if (latest.origin != Origin::transfer)
                (latest.origin == Origin::spike ? spike : direct)[latest.giver] += latest.amount;
        }
        Units* arrival = at(arrival_, l);
        for (std::size_t k = 0; k < n_; ++k) {
            const Units more = l == 0 ? direct[k] : std::min(spike[k], column(l)[k] - arrival[k]);
            arrival[k] += more;
            if (l == 0) continue;
            spike[k] -= more;
            spent_[l] += more;
        }
    }
}

}  // namespace attnflow
