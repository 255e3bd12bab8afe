// What capacities become: the survey, the quantum, and the index of bits.
#include "attnflow/capacity.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "attnflow/errors.hpp"
#include "edmonds_karp.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

constexpr std::size_t finest = CapacityIndex::n_scales - 1;

auto constant(double c) {
    return [c](std::uint32_t, std::uint32_t) { return c; };
}

Quantum quantum_with_exponent(int exponent) {
    return Quantum(std::ldexp(0.75, 61 - exponent), 1, false);  // the largest sum lies in (2^60, 2^61) quanta
}

// ---- survey

TEST(capacity, survey_sums_rows_of_every_layout) {
    for (const Scalar scalar : scalars)
        for (const Layout layout : layouts)
            with_type(scalar, [&](auto zero) {
                using T = decltype(zero);
                Store store({3, 2});
                store.dense<T>(0, 1, [](std::uint32_t j, std::uint32_t k) { return 10 * j + k + 1; }, layout);
                const CapacitySurvey survey(store.network());
                CHECK_EQUAL(survey.row_sum, (std::vector<double>{1 + 2 + 3, 11 + 12 + 13}));
                CHECK_EQUAL(survey.largest, 13.0);
                CHECK_EQUAL(survey.total, 42.0);
                CHECK_EQUAL(survey.integers, !std::is_floating_point_v<T>);
            });
}

TEST(capacity, survey_keeps_the_unbounded_apart) {
    Store store({3, 2});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == 1 && k == 1 ? infinity : 2.0; });
    store.diagonal<double>(0, 1, -1, [](std::uint32_t k) { return k == 1 ? infinity : 5.0; });
    const CapacitySurvey survey(store.network());
    CHECK_EQUAL(survey.row_sum, (std::vector<double>{6, infinity, infinity, 5}));  // giver 0 points outside
    CHECK_EQUAL(survey.largest, 5.0);
    CHECK_EQUAL(survey.total, 6 + 4 + 5.0);
    CHECK(!survey.integers);
}

TEST(capacity, survey_takes_large_int64_for_unbounded) {
    Store store({3, 3});
    store.diagonal<std::int64_t>(0, 1, 0, [](std::uint32_t k) { return k == 1 ? unbounded : Units{k} + 1; });
    const CapacitySurvey survey(store.network());
    CHECK_EQUAL(survey.row_sum, (std::vector<double>{1, infinity, 3}));
    CHECK_EQUAL(survey.largest, 3.0);
}

TEST(capacity, survey_names_the_first_offender) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const Scalar scalar : {Scalar::float32, Scalar::float64})
        for (const Layout layout : layouts)
            for (const double bad : {nan, -1.0, -infinity, -1e-30})
                with_type(scalar, [&](auto zero) {
                    using T = decltype(zero);
                    Store store({70, 3, 2});
                    store.dense<T>(0, 1, constant(1), layout);
                    store.dense<T>(
                        1, 2, [&](std::uint32_t j, std::uint32_t k) { return j == 1 && k >= 1 ? bad : 1.0; }, layout);
                    store.dense<T>(0, 2, constant(bad), layout);
                    try {
                        const CapacitySurvey survey(store.network());
                        CHECK(!"a NaN or negative capacity is accepted");
                    } catch (const InvalidCapacity& error) {
                        CHECK_EQUAL(error.link, std::size_t{1});
                        CHECK_EQUAL(error.receiver, std::size_t{1});
                        CHECK_EQUAL(error.giver, std::size_t{1});
                        const std::string message = error.what();
                        CHECK(message.find(std::isnan(bad) ? "NaN" : "negative") != std::string::npos);
                        CHECK(message.find("link 1, receiver 1, giver 1") != std::string::npos);
                    }
                });
}

TEST(capacity, survey_refuses_negative_integers) {
    for (const Scalar scalar : {Scalar::int32, Scalar::int64})
        with_type(scalar, [&](auto zero) {
            using T = decltype(zero);
            Store store({100, 2});
            store.dense<T>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == 1 && k == 99 ? -3 : 0; });
            try {
                const CapacitySurvey survey(store.network());
                CHECK(!"a negative capacity is accepted");
            } catch (const InvalidCapacity& error) {
                CHECK_EQUAL(error.receiver, std::size_t{1});
                CHECK_EQUAL(error.giver, std::size_t{99});
                CHECK(std::string(error.what()).find("(-3)") != std::string::npos);
            }
        });
}

TEST(capacity, survey_names_offenders_of_diagonals) {
    Store store({4, 6});
    store.diagonal<float>(0, 1, 2, [](std::uint32_t k) { return k == 3 ? -2.0 : 1.0; });
    try {
        const CapacitySurvey survey(store.network());
        CHECK(!"a negative capacity is accepted");
    } catch (const InvalidCapacity& error) {
        CHECK_EQUAL(error.receiver, std::size_t{5});
        CHECK_EQUAL(error.giver, std::size_t{3});
    }
}

TEST(capacity, negative_zero_and_denormals_are_capacities) {
    Store store({2, 1});
    store.dense<float>(0, 1, [](std::uint32_t, std::uint32_t k) { return k == 0 ? -0.0 : 1e-45; });
    const Network network = store.network();
    const CapacitySurvey survey(network);
    const CapacityIndex index(network, survey, Quantum(survey.total, 1, false));
    CHECK_EQUAL(*index.bits(finest, 0, 0), Word{2});
    CHECK(index.all_exact());
}

// ---- quantum

TEST(capacity, quantum_keeps_flows_below_the_limit) {
    for (int magnitude = -900; magnitude <= 1020; magnitude += 13)
        for (const double mantissa : {0.5, 0.75, 0.999999, 0.9999999999})
            for (const double parallel : {1.0, 3.0, 1000.0}) {
                const Scope scope(shown(mantissa) + " * 2^" + std::to_string(magnitude));
                const double bound = std::ldexp(mantissa, magnitude);
                if (!std::isfinite(bound * parallel * 2)) continue;
                const Quantum quantum(bound, parallel, false);
                const double quanta = std::ldexp(bound, quantum.exponent());
                CHECK(quanta * parallel <= 0x1p61);
                CHECK(quanta * parallel > 0x1p59);  // and no coarser than need be
                CHECK(static_cast<double>(quantum.flow_limit()) >= quanta);
                CHECK(quantum.flow_limit() <= Units{1} << 61);
            }
}

TEST(capacity, quantum_of_the_smallest_and_largest) {
    CHECK(Quantum(5e-324, 1, false).exponent() >= 1000);
    const Quantum none(0, 1, false);
    CHECK(none.flow_limit() >= 0);
    CHECK_EQUAL(none.floor(0.0), Units{0});
    const double nearly_all = std::numeric_limits<double>::max() / 2;
    const Quantum most(nearly_all, 1, false);
    const double quanta = std::ldexp(nearly_all, most.exponent());
    CHECK(quanta <= 0x1p61);
    CHECK(quanta > 0x1p59);
    CHECK(static_cast<double>(most.flow_limit()) >= quanta);
}

TEST(capacity, quantum_of_integers_is_one_or_refused) {
    CHECK_EQUAL(Quantum(0, 1, true).exponent(), 0);
    CHECK_EQUAL(Quantum(5, 1, true).exponent(), 0);
    CHECK_EQUAL(Quantum(0x1p60, 1, true).exponent(), 0);
    CHECK_EQUAL(Quantum(0x1.8p60, 1, true).exponent(), 0);
    CHECK(Quantum(0x1.8p60, 1, true).flow_limit() >= Units{3} << 59);
    CHECK_THROWS(CapacityOverflow, Quantum(0x1.8p61, 1, true));
    CHECK_THROWS(CapacityOverflow, Quantum(0x1.8p60, 2, true));
    CHECK_THROWS(CapacityOverflow, Quantum(1e300, 1, true));
}

TEST(capacity, quantum_refuses_what_a_double_does_not_hold) {
    CHECK_THROWS(CapacityOverflow, Quantum(infinity, 1, false));
    CHECK_THROWS(CapacityOverflow, Quantum(1e308, 1000, false));
}

TEST(capacity, quantum_floors_and_knows_when_that_was_exact) {
    Random random(3);
    for (int exponent = -300; exponent <= 900; exponent += 60) {
        const Quantum quantum = quantum_with_exponent(exponent);
        CHECK_EQUAL(quantum.exponent(), exponent);
        for (int round = 0; round < 100; ++round) {
            const double c = std::ldexp(random.uniform(), static_cast<int>(random.between(0, 70)) - exponent);
            Store store({1, 1});
            store.dense<double>(0, 1, constant(c));
            CHECK_EQUAL(quantum.floor(c), reference::quanta(store.links()[0], 0, 0, exponent));
            CHECK_EQUAL(quantum.exact(c), reference::is_exact(store.links()[0], 0, 0, exponent));
        }
        CHECK_EQUAL(quantum.floor(infinity), unbounded);
        CHECK(quantum.exact(infinity));
        CHECK_EQUAL(quantum.floor(0.0), Units{0});
        CHECK(quantum.exact(0.0));
    }
}

TEST(capacity, quantum_does_not_take_an_underflow_for_exact) {
    const Quantum quantum(1e300, 1, false);  // quanta of about 1e282: 1e-300 of them is not even a denormal number
    CHECK_EQUAL(quantum.floor(1e-300), Units{0});
    CHECK(!quantum.exact(1e-300));
}

TEST(capacity, quantum_rounds_towards_the_right_side) {
    for (const int exponent : {-40, 0, 8, 300}) {
        const Quantum quantum = quantum_with_exponent(exponent);
        const double one = std::ldexp(1.0, -exponent);
        for (const Units units : {Units{0}, Units{1}, (Units{1} << 53) - 1, Units{1} << 53, Units{1} << 60}) {
            const double c = static_cast<double>(units) * one;
            CHECK_EQUAL(quantum.lower(units), c);
            CHECK_EQUAL(quantum.nearest(units), c);
            CHECK_EQUAL(quantum.upper(units), c);
        }
        const Units odd = (Units{1} << 53) + 1;
        CHECK_EQUAL(quantum.lower(odd), 0x1p53 * one);
        CHECK_EQUAL(quantum.upper(odd), 0x1.0000000000001p53 * one);
        const Units nearly = (Units{1} << 61) - 1;
        CHECK_EQUAL(quantum.lower(nearly), 0x1.fffffffffffffp60 * one);
        CHECK_EQUAL(quantum.upper(nearly), 0x1p61 * one);
        Random random(5);
        for (int round = 0; round < 1000; ++round) {
            const auto units = static_cast<Units>(random.next() >> random.between(3, 60));
            const double low = quantum.lower(units), high = quantum.upper(units), near = quantum.nearest(units);
            CHECK(low <= near && near <= high);
            CHECK(static_cast<Units>(std::ldexp(low, exponent)) <= units);
            CHECK(static_cast<Units>(std::ldexp(high, exponent)) >= units);
            CHECK(high <= std::nextafter(low, infinity));
        }
    }
}

TEST(capacity, quantum_rounds_subnormals_towards_the_right_side) {
    Random random(6);
    for (const int exponent : {990, 1000, 1001, 1023, 1030, 1060, 1100, 1120}) {
        const Quantum quantum = quantum_with_exponent(exponent);
        const Scope scope("exponent " + std::to_string(quantum.exponent()));
        for (int round = 0; round < 200; ++round) {
            const auto units = static_cast<Units>(random.next() >> random.between(3, 60));
            const double low = quantum.lower(units), high = quantum.upper(units);
            // Back in quanta, ldexp is exact.
            CHECK(static_cast<Units>(std::ldexp(low, quantum.exponent())) <= units);
            CHECK(static_cast<Units>(std::ceil(std::ldexp(high, quantum.exponent()))) >= units);
            CHECK(0 <= low && low <= high && high <= std::nextafter(low, infinity));
        }
    }
}

TEST(capacity, long_passes_can_be_stopped) {
    Store store({1, 200});
    store.dense<float>(0, 1, constant(1));
    const Network network = store.network();
    int left = 5;
    const Pause stop = [&] {
        if (--left == 0) throw Cancelled();
    };
    CHECK_THROWS(Cancelled, CapacitySurvey(network, stop));
    const CapacitySurvey survey(network);
    left = 5;
    CHECK_THROWS(Cancelled, CapacityIndex(network, survey, Quantum(survey.total, 1, false), stop));
}

// ---- index

// Every bit and every entry of the index, against the twin's reading of the same memory.
void check_index(const Network& network, const CapacityIndex& index) {
    const int exponent = index.quantum().exponent();
    std::uint64_t vanished = 0;
    bool all_exact = true;
    for (std::size_t e = 0; e < network.links().size(); ++e) {
        const Link& link = network.links()[e];
        const std::size_t givers = network.size(link.giver);
        for (std::size_t j = 0; j < network.size(link.receiver); ++j) {
            for (std::size_t k = 0; k < givers; ++k) {
                const auto step = static_cast<std::int64_t>(j) - static_cast<std::int64_t>(k);
                if (link.diagonal() && step != link.offset) continue;
                const Units q = reference::quanta(link, j, k, exponent);
                const bool exact = reference::is_exact(link, j, k, exponent);
                CHECK_EQUAL(index.at(e, j, k), q);
                CHECK_EQUAL(index.exact(e, j, k), exact);
                all_exact = all_exact && exact;
                vanished += q == 0 && !exact;
                if (link.diagonal()) continue;
                for (std::size_t s = 0; s <= finest; ++s)
                    CHECK_EQUAL(test_bit(index.bits(s, e, j), k), q >= index.threshold(s));
            }
            if (link.diagonal()) continue;
            std::vector<Units> row(givers);
            index.row(e, j, row.data());
            for (std::size_t k = 0; k < givers; ++k) CHECK_EQUAL(row[k], index.at(e, j, k));
            if (j < givers && givers == network.size(link.receiver))
                CHECK_EQUAL(test_bit(index.straight_bits(e), j), index.at(e, j, j) > 0);
            for (std::size_t s = 0; s <= finest; ++s)
                for (std::size_t k = givers; k < network.words(link.giver) * word_bits; ++k)
                    CHECK(!test_bit(index.bits(s, e, j), k));
        }
        if (link.diagonal()) continue;
        std::vector<Units> column(network.size(link.receiver));
        for (std::size_t k = 0; k < givers; ++k) {
            index.column(e, k, column.data());
            for (std::size_t j = 0; j < column.size(); ++j) CHECK_EQUAL(column[j], index.at(e, j, k));
        }
    }
    CHECK_EQUAL(index.all_exact(), all_exact);
    CHECK_EQUAL(index.n_vanished(), vanished);
}

TEST(capacity, index_of_every_scalar_layout_and_profile) {
    Random random(23);
    for (const Scalar scalar : scalars)
        for (const Layout layout : layouts)
            for (const Profile profile : profiles)
                for (const std::uint32_t width : {1U, 5U, 63U, 64U, 65U, 130U})
                    with_type(scalar, [&](auto zero) {
                        using T = decltype(zero);
                        const Scope scope(std::string(name(scalar)) + ", layout " + shown(layout) + ", " +
                                          name(profile) + ", width " + std::to_string(width));
                        Store store({width, 3, width});
                        const auto value = [&](std::uint32_t, std::uint32_t) { return draw<T>(profile, random); };
                        store.dense<T>(0, 1, value, layout);
                        store.dense<T>(1, 2, value, layout);
                        const Network network = store.network();
                        const CapacitySurvey survey(network);
                        const CapacityIndex index(network, survey, Quantum(survey.total, 1, survey.integers));
                        check_index(network, index);
                    });
}

TEST(capacity, index_of_squares_and_diagonals) {
    Random random(29);
    for (const Scalar scalar : scalars)
        for (const Layout layout : layouts)
            for (const std::int64_t offset : {-5, -1, 0, 1, 64})
                with_type(scalar, [&](auto zero) {
                    using T = decltype(zero);
                    const Scope scope(std::string(name(scalar)) + ", layout " + shown(layout) + ", offset " +
                                      std::to_string(offset));
                    Store store({66, 66, 70});
                    const auto value = [&](std::uint32_t, std::uint32_t) { return draw<T>(Profile::peaked, random); };
                    const auto along = [&](std::uint32_t) { return draw<T>(Profile::fractions, random); };
                    store.dense<T>(0, 1, value, layout);
                    store.diagonal<T>(0, 1, offset, along, layout);
                    store.diagonal<T>(1, 2, offset, along, layout);
                    store.diagonal<T>(2, 2, 1, along, layout);
                    const Network network = store.network();
                    const CapacitySurvey survey(network);
                    const CapacityIndex index(network, survey, Quantum(survey.total, 1, survey.integers));
                    check_index(network, index);
                });
}

TEST(capacity, index_of_broadcast_rows) {
    Store store({100, 4});
    store.dense<float>(
        0, 1, [](std::uint32_t j, std::uint32_t) { return 0.25F * static_cast<float>(j); }, Layout::broadcast);
    const Network network = store.network();
    const CapacitySurvey survey(network);
    check_index(network, CapacityIndex(network, survey, Quantum(survey.total, 1, false)));
}

// A quantum too coarse for most of the capacities: rounding and vanishing are counted.
TEST(capacity, index_counts_what_coarse_quanta_lose) {
    Random random(31);
    for (int exponent = -20; exponent <= 60; exponent += 8) {
        const Scope scope("exponent " + std::to_string(exponent));
        Store store({20, 20, 20});
        const auto value = [&](std::uint32_t, std::uint32_t) { return draw<double>(Profile::peaked, random); };
        store.dense<double>(0, 1, value).dense<float>(1, 2, value, Layout::gapped);
        const Network network = store.network();
        const CapacityIndex index(network, CapacitySurvey(network), quantum_with_exponent(exponent));
        CHECK(!index.all_exact());
        check_index(network, index);
    }
}

TEST(capacity, unbounded_entries_are_unbounded_quanta) {
    Store store({3, 3});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == k ? infinity : 1.0; });
    store.diagonal<double>(0, 1, 1, [](std::uint32_t) { return infinity; });
    const Network network = store.network();
    const CapacitySurvey survey(network);
    const CapacityIndex index(network, survey, Quantum(survey.total, 1, false));
    CHECK_EQUAL(index.at(0, 1, 1), unbounded);
    CHECK_EQUAL(index.at(1, 1, 0), unbounded);
    check_index(network, index);
}

TEST(capacity, thresholds_fall_to_one_quantum) {
    Random random(37);
    for (const Profile profile : profiles) {
        Store store({40, 40});
        store.dense<float>(0, 1, [&](std::uint32_t, std::uint32_t) { return draw<float>(profile, random); });
        const Network network = store.network();
        const CapacitySurvey survey(network);
        const CapacityIndex index(network, survey, Quantum(survey.total, 1, false));
        for (std::size_t s = 0; s < finest; ++s) {
            CHECK(index.threshold(s) >= index.threshold(s + 1));
            CHECK(std::has_single_bit(static_cast<std::uint64_t>(index.threshold(s))));
            for (std::size_t j = 0; j < 40; ++j) CHECK_EQUAL(*index.bits(s, 0, j) & ~*index.bits(s + 1, 0, j), Word{0});
        }
        CHECK_EQUAL(index.threshold(finest), Units{1});
    }
}

// float32 rows have a loop of their own, over the bits of the numbers.
TEST(capacity, survey_of_floats_equals_that_of_doubles) {
    for (std::uint32_t round = 0; round < 200; ++round) {
        Random random(round);
        const std::uint32_t n = random.between(1, 40);
        std::vector<float> values(std::size_t{n} * n);
        for (float& each : values)
            each = random.chance(0.2)   ? 0.0F
                   : random.chance(0.1) ? -0.0F
                   : random.chance(0.1) ? std::numeric_limits<float>::denorm_min()
                                        : static_cast<float>(random.uniform());
        const auto entry = [&](std::uint32_t j, std::uint32_t k) { return values[j * n + k]; };
        Store floats({n, n}), doubles({n, n});
        floats.dense<float>(0, 1, entry);
        doubles.dense<double>(0, 1, entry);
        const CapacitySurvey narrow(floats.network()), wide(doubles.network());
        CHECK(narrow.row_sum == wide.row_sum);
        CHECK_EQUAL(narrow.largest, wide.largest);
        CHECK_EQUAL(narrow.total, wide.total);
        const bool any = std::any_of(values.begin(), values.end(), [](float each) { return each > 0; });
        if (any) CHECK_EQUAL(narrow.smallest, wide.smallest);
    }
}

TEST(capacity, extents_name_the_words_in_use) {
    constexpr std::uint32_t n = 200;
    Store store({n, n});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return k <= j && k >= j / 2 ? 1.0F : 0.0F; });
    const Network network = store.network();
    const CapacitySurvey survey(network);
    const CapacityIndex capacities(network, survey, Quantum(survey.total, 1, false));
    for (std::size_t group = 0; group < 4; ++group) {
        const auto [low, high] = capacities.extent(0, group);
        CHECK_EQUAL(low, static_cast<std::uint32_t>(group * 64 / 2 / 64));
        CHECK_EQUAL(high, static_cast<std::uint32_t>(group + 1));
    }
}

}  // namespace
}  // namespace attnflow::testing
