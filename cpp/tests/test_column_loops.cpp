// The loops over eight positions at once against their plain twins, on random arrays.
#include "column_loops.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

struct SweepState {
    explicit SweepState(std::size_t n) : stride(round_to_lanes(n)) {
        for (std::vector<Units>* array :
             {&direct, &spike, &spike_used, &behind, &added, &gather, &keep, &ahead, &taken, &gathered})
            array->assign(stride, 0);
        next.assign(n, 0);
        for (std::uint32_t tile = 0; tile < stride / n_lanes; ++tile) order.push_back(tile);
    }
    auto all() const {
        return std::tuple(direct, spike, spike_used, added, gather, keep, taken, next, gathered, log.size());
    }
    Takers takers_with(Units room, Units limit) {
        return {gather.data(), keep.data(), room, ahead.data(), added.data(), limit, gathered.data()};
    }
    std::size_t stride;
    std::vector<Units> direct, spike, spike_used, behind, added, gather, keep, ahead, taken, gathered;
    std::vector<std::uint32_t> next, order, takers;
    std::vector<Transfer> log;
};

TEST(column_loops, sweeps_equal_their_plain_twin_and_waste_nothing) {
    for (const Scalar scalar : {Scalar::float32, Scalar::float64})
        for (std::uint32_t round = 0; round < 300; ++round) {
            Random random(round * 7 + static_cast<std::uint64_t>(scalar));
            const std::uint32_t n = random.between(1, 45);
            Store store({n, n});
            const auto entry = [&](std::uint32_t, std::uint32_t) {
                return random.chance(0.3) ? 0.0 : random.uniform();
            };
            scalar == Scalar::float32 ? store.dense<float>(0, 1, entry) : store.dense<double>(0, 1, entry);
            const Network network = store.network();
            const CapacitySurvey survey(network);
            const CapacityIndex capacities(network, survey, Quantum(64, 1, false));
            const Rows rows(capacities, 0);
            const auto one = static_cast<double>(Units{1} << 50);
            const auto amount = [&](double chance) {
                return random.chance(chance) ? static_cast<Units>(random.uniform() * one) : Units{0};
            };
            SweepState a(n);
            for (std::uint32_t k = 0; k < n; ++k) {
                a.direct[k] = amount(0.5);
                a.spike[k] = amount(0.5);
                a.behind[k] = amount(0.9) * 4;
                a.gather[k] = amount(0.3);
                a.keep[k] = amount(0.4);
                a.ahead[k] = amount(0.9) * 4;
                if (a.gather[k] + a.keep[k] > 0) a.takers.push_back(k);
            }
            if (random.chance(0.5)) std::reverse(a.order.begin(), a.order.end());
            SweepState b = a;
            const Units room = amount(0.7) * 3, spike_room = amount(0.8) * 5, limit = amount(0.9) * 8;
            const bool single = a.takers.size() == 1;
            Takers to_a = a.takers_with(room, limit), to_b = b.takers_with(room, limit);
            const auto sweep_of = [&](SweepState& state, Takers& to) {
                return Sweep{rows,
                             3,
                             state.direct.data(),
                             state.spike.data(),
                             state.spike_used.data(),
                             state.behind.data(),
                             state.added.data(),
                             spike_room,
                             state.order,
                             state.takers,
                             to,
                             state.next.data(),
                             single ? state.taken.data() : nullptr,
                             &state.log};
            };
            const SweepState before = a;
            Sweep fast = sweep_of(a, to_a), plain = sweep_of(b, to_b);
            const Units passed = run(fast);
            CHECK_EQUAL(passed, run_plain(plain));
            CHECK(a.all() == b.all());
            CHECK_EQUAL(fast.spike_room, plain.spike_room);
            CHECK_EQUAL(to_a.gather_room, to_b.gather_room);
            CHECK_EQUAL(to_a.limit, limit - passed);
            // What was passed left the givers, is on edges once each, and reached the takers.
            Units given = 0, logged = 0, wanted = 0;
            for (std::uint32_t k = 0; k < n; ++k) {
                given += before.direct[k] - a.direct[k] + before.spike[k] - a.spike[k];
                wanted += before.gather[k] - a.gather[k] + before.keep[k] - a.keep[k];
                CHECK(a.direct[k] >= 0 && a.spike[k] >= 0 && a.gather[k] >= 0 && a.keep[k] >= 0);
            }
            std::map<std::pair<std::uint32_t, std::uint32_t>, Units> edges;
            for (const Transfer& each : a.log) {
                logged += each.amount;
                edges[{each.taker, each.giver}] += each.amount;
            }
            for (const auto& [edge, flow] : edges) CHECK(flow <= capacities.at(0, edge.first, edge.second));
            CHECK_EQUAL(given, passed);
            CHECK_EQUAL(logged, passed);
            CHECK_EQUAL(wanted, passed);
            CHECK(passed <= limit && fast.spike_room >= 0 && to_a.gather_room >= 0);
        }
}

TEST(column_loops, pours_equal_their_plain_twin_and_waste_nothing) {
    for (std::uint32_t round = 0; round < 600; ++round) {
        Random random(round);
        const std::uint32_t n = random.between(1, 200);
        const auto one = static_cast<double>(Units{1} << (round % 5 == 0 ? 59 : 40));  // sums that wrap around, and not
        const auto amount = [&](double chance) {
            return random.chance(chance) ? static_cast<Units>(random.uniform() * one) : Units{0};
        };
        SweepState a(n);
        std::vector<Units> column(a.stride, 0);
        for (std::uint32_t k = 0; k < n; ++k) {
            column[k] = amount(0.7);
            a.gather[k] = amount(0.4);
            a.keep[k] = amount(0.5);
            a.ahead[k] = amount(0.9) * 2;
            a.added[k] = amount(0.2);
        }
        SweepState b = a;
        const SweepState before = a;
        const auto times = [&](double most) {
            return static_cast<Units>(std::min(one * most * random.uniform(), 0x1p60));
        };
        const Units room = times(100), limit = times(200), direct = times(60), spike = times(60);
        const bool logged = round % 2 == 0;
        Takers to_a = a.takers_with(room, limit), to_b = b.takers_with(room, limit);
        const auto pour_to = [&](SweepState& state, Takers& to) {
            return Pour{column.data(), 2, 7, direct, spike, direct + spike, to, logged ? &state.log : nullptr};
        };
        const Units passed = pour_out(n, pour_to(a, to_a));
        CHECK_EQUAL(passed, pour_out_plain(n, pour_to(b, to_b)));
        CHECK(a.all() == b.all());
        CHECK_EQUAL(to_a.gather_room, to_b.gather_room);
        // First come first served, for the sink's column first.
        Units left = std::min(limit, direct + spike), room_left = room, from_direct = 0;
        for (std::uint32_t k = 0; k < n; ++k) {
            const Units most = std::max(std::min(column[k], before.ahead[k] - before.added[k]), Units{0});
            const Units gathered = std::min({before.gather[k], most, room_left});
            const Units take = std::min(std::min(gathered + before.keep[k], most), left);
            left -= take;
            room_left -= std::min(gathered, take);
            CHECK_EQUAL(a.added[k] - before.added[k], take);
            CHECK_EQUAL(a.gathered[k], std::min(gathered, take));
            CHECK_EQUAL(before.keep[k] - a.keep[k] + before.gather[k] - a.gather[k], take);
        }
        CHECK_EQUAL(to_a.gather_room, room_left);
        CHECK_EQUAL(passed, std::min(limit, direct + spike) - left);
        for (const Transfer& each : a.log) from_direct += each.origin == Origin::source ? each.amount : 0;
        CHECK(!logged || from_direct == std::min(direct, passed));
    }
}

TEST(column_loops, intake_is_its_plain_twin) {
    for (std::uint32_t round = 0; round < 400; ++round) {
        Random random(round);
        const std::uint32_t n = random.between(1, 40);
        const std::size_t stride = round_to_lanes(n);
        const double scale = round % 4 == 0 ? 0x1p59 : 0x1p40;  // sums that wrap around, and such that do not
        const auto array = [&](double chance) {
            std::vector<Units> out(stride, 0);
            for (std::uint32_t k = 0; k < n; ++k)
                if (random.chance(chance)) out[k] = static_cast<Units>(random.uniform() * scale);
            return out;
        };
        const std::vector<Units> column = array(0.8), into = array(0.8), narrowest = array(0.9), reserve = array(0.3),
                                 to_gather = array(0.3), held = array(0.3), wanted = array(0.7);
        std::vector<Units> gatherable = array(0.8);
        for (std::size_t k = 0; k < stride; ++k) gatherable[k] += to_gather[k];
        for (const bool wide : {false, true})
            for (const double limits : {0.5, 3.0, 1000.0}) {
                const auto limit = static_cast<Units>(std::min(limits * scale, 0x1p61));
                const auto perform = [&](bool plain) {
                    std::vector<std::vector<Units>> out(5, std::vector<Units>(stride, 0));
                    const Intake layer{column.data(),  into.data(),      narrowest.data(), gatherable.data(),
                                       reserve.data(), to_gather.data(), held.data(),      wanted.data(),
                                       out[0].data(),  out[1].data(),    out[2].data(),    out[3].data(),
                                       out[4].data()};
                    const IntakeTotals totals =
                        plain ? intake_plain(n, wide, layer, limit, limit) : intake(n, wide, layer, limit, limit);
                    return std::tuple(totals.gathered, totals.arrived, totals.departed, out);
                };
                CHECK(perform(true) == perform(false));
                CHECK(std::get<0>(perform(true)) <= limit && std::get<1>(perform(true)) <= limit);
            }
    }
}

}  // namespace
}  // namespace attnflow::testing
