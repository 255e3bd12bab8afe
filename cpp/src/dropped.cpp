#include "dropped.hpp"

#include <algorithm>

namespace attnflow {

Dropped::Dropped(const CapacityIndex& capacities) : net_(capacities.network()) {
    for (const Link& link : net_.links()) {
        if (link.dropped_in == nullptr) continue;
        const auto in_quanta = [&](const double* sums, std::size_t n) {
            std::vector<Units> units(n);
            std::transform(sums, sums + n, units.begin(), [&](double sum) { return capacities.quantum().ceil(sum); });
            return units;
        };
        Sums sums{link.giver, link.receiver, link.dropped_causal, in_quanta(link.dropped_in, net_.size(link.receiver)),
                  in_quanta(link.dropped_out, net_.size(link.giver))};
        const auto nothing = [](Units each) { return each == 0; };
        if (std::all_of(sums.in.begin(), sums.in.end(), nothing)) continue;
        links_.push_back(std::move(sums));
    }
}

Units Dropped::across(const std::vector<Word>& source_side) const {
    Units total = 0;
    for (const Sums& link : links_)
        total = saturating_sum(total, across(link, source_side.data() + net_.first_word(link.giver),
                                             source_side.data() + net_.first_word(link.receiver)));
    return total;
}

Units Dropped::across(const Sums& link, const Word* givers, const Word* receivers) const {
    const std::size_t n_givers = net_.words(link.giver), n_receivers = net_.words(link.receiver);
    const auto outside = [&](std::size_t w) { return ~receivers[w] & word_of_all(w, link.in.size()); };
    Units supply = 0, demand = 0;
    if (!link.causal) {
        for (std::size_t w = 0; w < n_givers; ++w)
            for_each_bit(givers[w], w * word_bits,
                         [&](std::size_t k) { supply = saturating_sum(supply, link.out[k]); });
        if (supply == 0) return 0;
        for (std::size_t w = 0; w < n_receivers; ++w)
            for_each_bit(outside(w), w * word_bits,
                         [&](std::size_t j) { demand = saturating_sum(demand, link.in[j]); });
        return std::min(supply, demand);
    }
    Units taken = 0;
    std::size_t end = n_receivers;
    while (end > 0 && outside(end - 1) == 0) --end;
    for (std::size_t w = 0; w < end; ++w) {
        const Word give = w < n_givers ? givers[w] : 0, take = outside(w);
        if (give == 0 && supply == 0) continue;
        for_each_bit(give | take, w * word_bits, [&](std::size_t i) {
            if (test_bit(&give, i % word_bits)) supply = saturating_sum(supply, link.out[i]);
            if (!test_bit(&take, i % word_bits)) return;
            const Units more = std::min(supply, link.in[i]);
            taken = saturating_sum(taken, more);
            if (supply < unbounded) supply -= more;  // what saturated may be more than it says
        });
    }
    return taken;
}

std::size_t Dropped::bytes() const {
    std::size_t total = 0;
    for (const Sums& link : links_) total += (link.in.capacity() + link.out.capacity()) * sizeof(Units);
    return total;
}

}  // namespace attnflow
