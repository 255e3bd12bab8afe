#include "column_loops.hpp"

#include <algorithm>

namespace attnflow {

Rows::Rows(const CapacityIndex& capacities, std::size_t link)
    : capacities_(capacities), link_(link), n_(capacities.network().size(capacities.network().links()[link].giver)) {
    const Link& view = capacities.network().links()[link];
    if (view.storage == Storage::sparse) {
        bits_ = capacities.bits(CapacityIndex::n_scales - 1, link, 0);
        n_words_ = words_for(n_);
        return;
    }
    if (view.scalar != Scalar::float32 || reinterpret_cast<std::uintptr_t>(view.data) % alignof(float) != 0 ||
        !capacities.quantum().has_factor())
        return;
    scale_ = capacities.quantum().factor();
    const auto* const data = reinterpret_cast<const float*>(view.data);
    const auto width = static_cast<std::ptrdiff_t>(sizeof(float));
    if (view.storage == Storage::triangle) {
        packed_ = data;
    } else if (view.column_stride == width && view.row_stride % width == 0) {
        data_ = data;
        row_stride_ = view.row_stride / width;
    }
}

void Rows::load_any(std::size_t receiver, std::size_t first, Units* out) const {
    std::fill_n(out, n_lanes, 0);
    const std::size_t n = std::min(n_lanes, n_ - first);
    if (bits_ != nullptr) {  // eights start at multiples of eight
        const Word some = bits_[receiver * n_words_ + first / word_bits] >> (first % word_bits) & 0xFF;
        if (some == 0) return;
    }
    capacities_.stretch(link_, receiver, first, n, out);
    for (std::size_t i = 0; i < n; ++i) out[i] = std::min(out[i], most_of_an_edge);
}

namespace {

// std::min and std::max return references, which keep compilers from vectorising.
ATTNFLOW_INLINE Units lesser(Units a, Units b) { return b < a ? b : a; }
ATTNFLOW_INLINE Units greater(Units a, Units b) { return b > a ? b : a; }

template <class L>
ATTNFLOW_INLINE void copy_tiles(const Rows& rows, std::size_t n_rows, std::size_t first, std::size_t n_columns,
                                Units* out, std::size_t stride) {
    constexpr std::size_t ahead = 24;  // rows; each is a cache miss that no hardware foresees
    for (std::size_t j = 0; j < n_rows; j += n_lanes) {
        const std::size_t height = std::min(n_lanes, n_rows - j);
        for (std::size_t i = j + ahead; i < std::min(j + ahead + n_lanes, n_rows); ++i) {
            rows.prefetch(i, first);
            rows.prefetch(i, first + n_columns - 1);
        }
        for (std::size_t c = 0; c < n_columns; c += n_lanes) {
            L tile[n_lanes];
            for (std::size_t i = 0; i < n_lanes; ++i) tile[i] = i < height ? rows.load<L>(j + i, first + c) : L::all(0);
            L::transpose(tile);
            for (std::size_t k = 0; k < n_lanes && c + k < n_columns; ++k) tile[k].store(out + (c + k) * stride + j);
        }
    }
}

}  // namespace

ATTNFLOW_DISPATCH void copy_columns_of(const Rows& rows, std::size_t n_rows, std::size_t first, std::size_t n_columns,
                                       Units* out, std::size_t stride) {
    copy_tiles<Lanes>(rows, n_rows, first, n_columns, out, stride);
}

void copy_columns(const CapacityIndex& capacities, std::size_t link, std::size_t first, std::size_t n_columns,
                  Units* out, std::size_t stride) {
    const Network& net = capacities.network();
    copy_columns_of(Rows(capacities, link), net.size(net.links()[link].receiver), first, n_columns, out, stride);
}

namespace {

// As much of `offered` as `want` asks for, lane by lane.
template <class L>
ATTNFLOW_INLINE L in_turn(const L& offered, const L& running, Units want) {
    return L::min(offered, L::max(L::all(want) - (running - offered), L::all(0)));
}

template <class L>
ATTNFLOW_INLINE Units sum(const L& lanes) {
    return lanes.running_sum()[n_lanes - 1];
}

// Positions k ... k + 7. What they take in is limited by `room` and `left` together where `in_turn` asks for it, else each.
template <class L, bool wide, bool in_turns>
ATTNFLOW_INLINE void take_in(std::size_t k, const Intake& layer, Units room, Units left, L& gather, L& arrival,
                             L& departure) {
    const L none = L::all(0);
    const L to_gather = L::load(layer.to_gather + k), held = L::load(layer.held + k);
    const L wanted = L::load(layer.wanted + k);
    departure = L::min(to_gather, L::load(layer.into + k));
    const L stock = to_gather - departure;
    const L space = L::load(layer.narrowest + k) - held - (wide ? none : stock);
    const L most = L::min(L::min(L::load(layer.column + k), L::max(space, none)), L::all(left));
    gather = L::max(L::min(L::min(most, L::load(layer.gatherable + k) - stock), L::all(room)), none);
    if (in_turns) gather = in_turn(gather, gather.running_sum(), room);
    L keep = L::min(most - gather, L::max(wanted - L::load(layer.reserve + k), none));
    arrival = gather + keep;
    if (in_turns) {
        arrival = in_turn(arrival, arrival.running_sum(), left);
        gather = L::min(gather, arrival);
        keep = arrival - gather;
    }
    departure.store(layer.departure + k);
    arrival.store(layer.arrival + k);
    (stock + gather).store(layer.to_gather_after + k);
    (held + (wide ? arrival : keep)).store(layer.held_after + k);
    (wanted - keep).store(layer.wanted_after + k);
}

template <class L, bool wide>
ATTNFLOW_INLINE IntakeTotals intake_all(std::size_t n, const Intake& layer, Units room, Units left) {
    // Sums of what does not fit together may wrap around; those of the upper bits do not.
    constexpr int lower_bits = 16;
    L gather, arrival, departure;
    L gathered = L::all(0), arrived = gathered, departed = gathered, upper = gathered;
    for (std::size_t k = 0; k < n; k += n_lanes) {
        take_in<L, wide, false>(k, layer, room, left, gather, arrival, departure);
        gathered = gathered + gather;
        arrived = arrived + arrival;
        departed = departed + departure;
        upper = upper + arrival.halved(lower_bits);
    }
    IntakeTotals totals{sum(gathered), sum(arrived), sum(departed)};
    if (sum(upper) <= left >> lower_bits && totals.gathered <= room && totals.arrived <= left) return totals;
    totals = {};
    for (std::size_t k = 0; k < n; k += n_lanes) {
        take_in<L, wide, true>(k, layer, room - totals.gathered, left - totals.arrived, gather, arrival, departure);
        totals.gathered += sum(gather);
        totals.arrived += sum(arrival);
        totals.departed += sum(departure);
    }
    return totals;
}

}  // namespace

ATTNFLOW_DISPATCH IntakeTotals intake(std::size_t n, bool wide, const Intake& layer, Units room, Units left) {
    return wide ? intake_all<Lanes, true>(n, layer, room, left) : intake_all<Lanes, false>(n, layer, room, left);
}

IntakeTotals intake_plain(std::size_t n, bool wide, const Intake& layer, Units room, Units left) {
    IntakeTotals totals;
    for (std::size_t k = 0; k < n; ++k) {
        const Units out = std::min(layer.to_gather[k], layer.into[k]);
        const Units stock = layer.to_gather[k] - out;
        const Units space = std::max(layer.narrowest[k] - layer.held[k] - (wide ? 0 : stock), Units{0});
        const Units most = std::min({layer.column[k], space, left - totals.arrived});
        const Units gather = std::max(std::min({most, layer.gatherable[k] - stock, room - totals.gathered}), Units{0});
        const Units keep = std::min(most - gather, std::max(layer.wanted[k] - layer.reserve[k], Units{0}));
        layer.departure[k] = out;
        layer.arrival[k] = gather + keep;
        layer.to_gather_after[k] = stock + gather;
        layer.held_after[k] = layer.held[k] + keep + (wide ? gather : 0);
        layer.wanted_after[k] = layer.wanted[k] - keep;
        totals.gathered += gather;
        totals.arrived += gather + keep;
        totals.departed += out;
    }
    return totals;
}

ATTNFLOW_DISPATCH void carry(std::size_t n, const Units* arrival, const Units* departure, const Units* straight,
                             Units* stock, Units* slack) {
    for (std::size_t k = 0; k < n; ++k) {
        stock[k] += arrival[k] - departure[k];
        slack[k] = straight[k] - stock[k];
    }
}

ATTNFLOW_DISPATCH void lower(std::size_t n, Units* a, const Units* b) {
    for (std::size_t k = 0; k < n; ++k) a[k] = lesser(a[k], b[k]);
}

ATTNFLOW_DISPATCH void least(std::size_t n, const Units* a, const Units* b, Units* out) {
    for (std::size_t k = 0; k < n; ++k) out[k] = lesser(a[k], b[k]);
}

ATTNFLOW_DISPATCH void add_difference(std::size_t n, Units* a, const Units* b, const Units* c) {
    for (std::size_t k = 0; k < n; ++k) a[k] = greater(lesser(a[k] + (b[k] - c[k]), most_spare), 0);
}

ATTNFLOW_DISPATCH Units give(std::size_t n, Units* stock, const Units* into, Units* departure) {
    Units total = 0;
    for (std::size_t k = 0; k < n; ++k) {
        const Units out = lesser(stock[k], into[k] - departure[k]);
        stock[k] -= out;
        departure[k] += out;
        total += out;
    }
    return total;
}

namespace {

void log_transfer(std::vector<Transfer>& log, std::uint32_t layer, std::size_t taker, std::size_t giver, Units direct,
                  Units spike) {
    const auto note = [&](Units amount, Origin origin) {
        if (amount > 0)
            log.push_back({layer & 0xFFFFFFU, origin, static_cast<std::uint32_t>(taker),
                           static_cast<std::uint32_t>(giver), amount});
    };
    note(direct, Origin::source);
    note(spike, Origin::spike);
}

template <class L>
ATTNFLOW_INLINE Units sweep_all(Sweep& sweep) {
    std::uint32_t* const takers = sweep.takers.data();
    std::uint32_t* const next = sweep.next;
    Takers& to = sweep.to;
    Units *const gather_of = to.gather, *const keep_of = to.keep, *const added_ahead = to.added;
    const Units* const ahead = to.ahead;
    Units limit = to.limit, room = to.gather_room;
    std::size_t n_takers = sweep.takers.size();
    const L none = L::all(0);
    const auto n_tiles = static_cast<std::uint32_t>(sweep.order.size());
    for (std::uint32_t turn = 0; turn < n_tiles && n_takers > 0 && limit > 0; ++turn) {
        const std::uint32_t tile = sweep.order[turn];
        const std::size_t first = tile * n_lanes;
        const L direct_before = L::load(sweep.direct + first), spike_before = L::load(sweep.spike + first);
        L direct = direct_before, spike = sweep.spike_room > 0 ? spike_before : none;
        L space = L::max(L::load(sweep.behind + first) - L::load(sweep.added + first), none);
        if (!L::min(direct + spike, space).any()) continue;
        // At least so much: it is counted down as if all came from there.
        Units spike_left = spike.any() ? sweep.spike_room : unbounded;
        std::size_t n_left = 0, i = 0;
        while (i < n_takers) {
            const std::uint32_t k = takers[i++];
            takers[n_left] = k;
            if (next[k] > turn) {
                ++n_left;
                continue;
            }
            const Units gather = std::min(gather_of[k], room);
            const Units want = std::min(std::min(gather + keep_of[k], limit), ahead[k] - added_ahead[k]);
            if (want <= 0) continue;
            next[k] = turn + 1;
            if (want > spike_left) spike_left = sweep.spike_room - sum(spike_before - spike);
            L capacity = sweep.rows.load<L>(k, first);
            if (k / n_lanes == tile) {
                Units each[n_lanes];
                capacity.store(each);
                each[k % n_lanes] = 0;
                capacity = L::load(each);
            }
            Units got;
            L from_direct, from_spike;
            if (want <= spike_left) {
                const L offered = L::min(L::min(direct + spike, space), capacity);
                const L running = offered.running_sum();
                got = std::min(want, running[n_lanes - 1]);
                const L take = in_turn(offered, running, want);
                from_direct = L::min(take, direct);
                from_spike = take - from_direct;
            } else {  // the source's column may not have as much: it comes last
                const L offered = L::min(L::min(direct, space), capacity);
                const L running = offered.running_sum();
                got = std::min(want, running[n_lanes - 1]);
                from_direct = in_turn(offered, running, want);
                const L more = L::min(L::min(spike, space - from_direct), capacity - from_direct);
                const L running_more = more.running_sum();
                const Units rest = std::min(want - got, std::max(spike_left, Units{0}));
                got += std::min(rest, running_more[n_lanes - 1]);
                from_spike = in_turn(more, running_more, rest);
            }
            if (got > 0) {
                direct = direct - from_direct;
                spike = spike - from_spike;
                space = space - from_direct - from_spike;
                spike_left -= got;
                limit -= got;
                const Units gathered = std::min(got, gather);
                gather_of[k] -= gathered;
                to.gathered[k] += gathered;
                room -= gathered;
                keep_of[k] -= got - gathered;
                added_ahead[k] += got;
                if (sweep.taken != nullptr)
                    (L::load(sweep.taken + first) + from_direct + from_spike).store(sweep.taken + first);
                if (sweep.log != nullptr) {
                    Units amounts[2][n_lanes];
                    from_direct.store(amounts[0]);
                    from_spike.store(amounts[1]);
                    for (std::size_t lane = 0; lane < n_lanes; ++lane)
                        log_transfer(*sweep.log, sweep.layer, k, first + lane, amounts[0][lane], amounts[1][lane]);
                }
                if (limit == 0) break;
            }
            if (got == want) continue;
            ++n_left;  // it took all there was for it
            if (!(direct + spike).any()) break;
        }
        while (i < n_takers) takers[n_left++] = takers[i++];
        n_takers = n_left;
        direct.store(sweep.direct + first);
        L given = direct_before - direct;
        if (sweep.spike_room > 0) {
            const L used = spike_before - spike;
            sweep.spike_room -= sum(used);
            spike.store(sweep.spike + first);
            (L::load(sweep.spike_used + first) + used).store(sweep.spike_used + first);
            given = given + used;
        }
        (L::load(sweep.added + first) + given).store(sweep.added + first);
    }
    const Units passed = to.limit - limit;
    to.limit = limit;
    to.gather_room = room;
    return passed;
}

// What takers k ... k + 7 take, and how much of it is for the sink's column, without regard to the others.
template <class L>
struct Offer {
    L take, gathered;
};
template <class L>
ATTNFLOW_INLINE Offer<L> offer_to(std::size_t k, const Pour& pour) {
    const Takers& to = pour.to;
    const L space = L::load(to.ahead + k) - L::load(to.added + k);
    const L most = L::max(L::min(L::load(pour.column + k), space), L::all(0));
    const L gather = L::load(to.gather + k);
    return {L::min(gather + L::load(to.keep + k), most), L::min(gather, most)};
}

template <class L>
ATTNFLOW_INLINE void hand_over(std::size_t k, const Pour& pour, const Offer<L>& offer) {
    const Takers& to = pour.to;
    (L::load(to.gather + k) - offer.gathered).store(to.gather + k);
    (L::load(to.keep + k) - (offer.take - offer.gathered)).store(to.keep + k);
    (L::load(to.added + k) + offer.take).store(to.added + k);
    (L::load(to.gathered + k) + offer.gathered).store(to.gathered + k);
}

template <class L>
ATTNFLOW_INLINE Units pour_all(std::size_t n, const Pour& pour) {
    constexpr std::size_t stretch = 8 * n_lanes;  // of takers that are served without counting, if all of it is there
    constexpr int lower_bits = 8;
    Takers& to = pour.to;
    const Units supply = std::min(std::min(pour.direct + pour.spike, pour.most), to.limit);
    Units left = supply, direct = pour.direct, room = to.gather_room;
    for (std::size_t first = 0; first < n && left > 0; first += stretch) {
        const std::size_t end = std::min(first + stretch, round_to_lanes(n));
        L taken = L::all(0), gathered = L::all(0), upper = L::all(0);
        for (std::size_t k = first; k < end; k += n_lanes) {
            const Offer<L> offer = offer_to<L>(k, pour);
            taken = taken + offer.take;
            gathered = gathered + offer.gathered;
            upper = upper + offer.take.halved(lower_bits);
        }
        // Sums may wrap around; those of the upper bits do not.
        const bool all_fits = sum(upper) <= (left >> lower_bits) - static_cast<Units>(stretch) && sum(gathered) <= room;
        if (all_fits && pour.log == nullptr) {
            if (!taken.any()) continue;
            for (std::size_t k = first; k < end; k += n_lanes) hand_over(k, pour, offer_to<L>(k, pour));
            left -= sum(taken);
            room -= sum(gathered);
            continue;
        }
        for (std::size_t k = first; k < end && left > 0; k += n_lanes) {
            Offer<L> offer = offer_to<L>(k, pour);
            const L running_gathered = offer.gathered.running_sum();
            if (running_gathered[n_lanes - 1] > room) {
                const L granted = in_turn(offer.gathered, running_gathered, room);
                offer.take = L::min(offer.take, granted + L::load(to.keep + k));
                offer.gathered = granted;
            }
            const L running = offer.take.running_sum();
            const Units total = std::min(running[n_lanes - 1], left);
            if (total == 0) continue;
            if (total == left) {
                offer.take = in_turn(offer.take, running, left);
                offer.gathered = L::min(offer.gathered, offer.take);
            }
            hand_over(k, pour, offer);
            room -= sum(offer.gathered);
            left -= total;
            if (pour.log == nullptr) continue;
            Units amounts[n_lanes];
            offer.take.store(amounts);
            for (std::size_t lane = 0; lane < n_lanes; ++lane) {
                const Units from_direct = std::min(amounts[lane], direct);
                direct -= from_direct;
                log_transfer(*pour.log, pour.layer, k + lane, pour.giver, from_direct, amounts[lane] - from_direct);
            }
        }
    }
    to.limit -= supply - left;
    to.gather_room = room;
    return supply - left;
}

}  // namespace

ATTNFLOW_DISPATCH void find_takers(std::size_t n, const Takers& of, std::vector<std::uint32_t>& takers) {
    const Lanes none = Lanes::all(0);
    takers.clear();
    for (std::size_t k = 0; k < n; k += n_lanes) {
        const Lanes gather = of.gather_room > 0 ? Lanes::load(of.gather + k) : none;
        const Lanes space = Lanes::load(of.ahead + k) - Lanes::load(of.added + k);
        const Lanes want = Lanes::max(Lanes::min(gather + Lanes::load(of.keep + k), space), none);
        if (!want.any()) continue;
        Units each[n_lanes];
        want.store(each);
        for (std::size_t lane = 0; lane < n_lanes; ++lane)
            if (each[lane] > 0) takers.push_back(static_cast<std::uint32_t>(k + lane));
    }
}

ATTNFLOW_DISPATCH Units run(Sweep& sweep) { return sweep_all<Lanes>(sweep); }
Units run_plain(Sweep& sweep) { return sweep_all<PlainLanes>(sweep); }

ATTNFLOW_DISPATCH Units pour_out(std::size_t n, const Pour& pour) { return pour_all<Lanes>(n, pour); }
Units pour_out_plain(std::size_t n, const Pour& pour) { return pour_all<PlainLanes>(n, pour); }

}  // namespace attnflow
