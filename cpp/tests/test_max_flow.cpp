// solve(): the answers on networks small enough to check by hand, and every refusal.
#include "attnflow/max_flow.hpp"

#include <algorithm>
#include <cmath>

#include "agreement.hpp"
#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

constexpr Algorithm algorithms[] = {Algorithm::dinic, Algorithm::push_relabel, Algorithm::automatic};

auto constant(double c) {
    return [c](std::uint32_t, std::uint32_t) { return c; };
}

Options everything(Algorithm algorithm) {
    Options options;
    options.algorithm = algorithm;
    options.bottlenecks = options.cuts = options.check = true;
    return options;
}

double value_of(const Answer& answer, std::size_t pair) { return answer.quantum.nearest(answer.value[pair]); }

// ---- values, bottlenecks, cuts

TEST(max_flow, by_hand) {
    // 0 -> {1, 2} -> 3 with a bottleneck that is neither at the source nor at the sink.
    Store store({1, 2, 2, 1});
    store.dense<float>(0, 1, constant(4)).dense<float>(1, 2, [](std::uint32_t j, std::uint32_t k) {
        return j == k ? 1.0 : j < k ? 0.5 : 0.0;
    });
    store.dense<float>(2, 3, constant(3));
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        Options options = everything(algorithm);
        options.flows = true;
        const Answer answer = solve(network, {{{0}}, {{5}}}, options);
        CHECK_EQUAL(value_of(answer, 0), 2.5);
        CHECK_EQUAL(answer.upper[0], answer.value[0]);
        CHECK_EQUAL(answer.bottleneck[0], 1);
        CHECK_EQUAL(nodes_of(network, answer.source_side.data()),
                    (std::vector<bool>{true, true, true, false, false, false}));
        double middle = 0;
        for (const EdgeFlow& edge : answer.flows)
            if (edge.link == 1) middle += answer.quantum.nearest(edge.flow);
        CHECK_EQUAL(middle, 2.5);
    }
}

TEST(max_flow, bottleneck_codes) {
    Store store({3, 3, 2});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == k ? (k == 0 ? 1.0 : 8.0) : 0.0; });
    store.dense<float>(1, 2, [](std::uint32_t j, std::uint32_t k) { return j == 1 ? 0.0 : k == 2 ? 0.0 : 4.0; });
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0}, {1}, {2}, {0, 1}}, {{6}, {7}}}, everything(algorithm));
        CHECK_EQUAL(answer.bottleneck,
                    (std::vector<std::int32_t>{at_source, at_sink, nowhere, 1, nowhere, nowhere, nowhere, nowhere}));
        CHECK_EQUAL(value_of(answer, 0), 1.0);
        CHECK_EQUAL(value_of(answer, 1), 4.0);
        CHECK_EQUAL(value_of(answer, 2), 0.0);
        CHECK_EQUAL(value_of(answer, 3), 5.0);
    }
    CHECK_NONE(disagreements(network, {{{0}, {1}, {2}, {0, 1}, {0, 1, 2}}, {{6}, {7}, {6, 7}}}));
}

TEST(max_flow, what_leaves_the_source_for_nowhere_is_not_its_bottleneck) {
    Store store({1, 2, 1});
    store.dense<float>(0, 1, constant(1));
    store.dense<float>(1, 2, [](std::uint32_t, std::uint32_t k) { return k == 0 ? 9.0 : 0.0; });
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0}}, {{3}}}, everything(algorithm));
        CHECK_EQUAL(answer.bottleneck[0], at_source);
        CHECK_EQUAL(value_of(answer, 0), 1.0);
    }
}

TEST(max_flow, sets_act_as_one_node) {
    Store store({3, 3});
    store.dense<std::int32_t>(0, 1,
                              [](std::uint32_t j, std::uint32_t k) { return static_cast<std::int32_t>(j + 3 * k); });
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0, 2}, {0, 1, 2}}, {{3, 5}, {4}}}, everything(algorithm));
        CHECK_EQUAL(answer.value, (std::vector<Units>{0 + 2 + 6 + 8, 0 + 2 + 3 + 5 + 6 + 8, 1 + 7, 1 + 4 + 7}));
    }
}

TEST(max_flow, a_node_named_twice_in_a_set_counts_once) {
    Store store({2, 2});
    store.dense<std::int32_t>(
        0, 1, [](std::uint32_t j, std::uint32_t k) { return static_cast<std::int32_t>(1 + j + 3 * k); });
    const Network network = store.network();
    CHECK_NONE(disagreements(network, {{{0, 0}, {1, 0, 1}}, {{2, 2}, {3, 2, 3}}}));
}

TEST(max_flow, sources_may_feed_sources_and_sinks_sinks) {
    Store store({1, 1, 1, 1});
    store.dense<float>(0, 1, constant(2)).dense<float>(1, 2, constant(3)).dense<float>(2, 3, constant(1));
    const Network network = store.network();
    CHECK_NONE(disagreements(network, {{{0, 1}, {0}, {1}}, {{2, 3}, {2}, {3}}}));
}

TEST(max_flow, edges_into_sources_and_out_of_sinks_carry_nothing_of_use) {
    Random random(41);
    for (int round = 0; round < 50; ++round) {
        const Scope scope("round " + std::to_string(round));
        Store store({4, 4});
        const auto value = [&](std::uint32_t, std::uint32_t) { return random.below(4); };
        store.dense<std::int32_t>(0, 1, value).dense<std::int32_t>(1, 0, value);
        const Network network = store.network();
        CHECK_NONE(disagreements(network, {{{0}, {1, 6}}, {{5}, {3, 7}}}));
    }
}

// Flow that runs in circles beside what is taken over from other sources: taking it back must not go round, which here
// would take years. Capacities 2^(k + 10) + 1, 1 for k = 0, none for k = -1.
TEST(max_flow, taking_over_a_flow_with_circles) {
    constexpr int up[4][8] = {{10, 41, 33, 43, 35, 37, 25, -1},
                              {38, -1, -1, 16, 0, -1, -1, 11},
                              {-1, 34, 0, 15, 41, 0, 11, 9},
                              {-1, 0, 1, 31, 9, 34, 32, 36}},
                  over[4][4] = {{0, -1, 38, -1}, {11, 32, 37, 39}, {38, -1, 3, -1}, {-1, 34, 0, 44}},
                  out[1][4] = {{36, 0, -1, 27}},
                  back[4][4] = {{38, -1, -1, 1}, {10, 4, 20, 24}, {15, 41, 10, -1}, {3, 25, 6, -1}};
    const auto of = [](const auto& exponents) {
        return [&exponents](std::uint32_t j, std::uint32_t k) -> std::int64_t {
            const int exponent = exponents[j][k];
            return exponent < 0 ? 0 : exponent == 0 ? 1 : (std::int64_t{1} << (exponent + 10)) + 1;
        };
    };
    Store store({8, 4, 4, 1});
    store.dense<std::int64_t>(0, 1, of(up)).dense<std::int64_t>(1, 2, of(over));
    store.dense<std::int64_t>(2, 3, of(out)).dense<std::int64_t>(2, 1, of(back));
    const Network network = store.network();
    Query query{{}, {{network.first_node(3)}}};
    for (Node source = 0; source < 8; ++source) query.sources.push_back({source});
    CHECK_NONE(disagreements(network, query));
}

TEST(max_flow, no_links_no_flow) {
    const Network network({2, 2}, {});
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0}}, {{3}}}, everything(algorithm));
        CHECK_EQUAL(answer.value[0], Units{0});
        CHECK_EQUAL(answer.upper[0], Units{0});
        CHECK_EQUAL(answer.bottleneck[0], nowhere);
    }
}

TEST(max_flow, only_what_was_asked_for) {
    Store store({2, 2});
    store.dense<float>(0, 1, constant(1));
    const Answer answer = solve(store.network(), {{{0}, {1}}, {{2}, {3}}}, Options{});
    CHECK_EQUAL(answer.value.size(), std::size_t{4});
    CHECK_EQUAL(answer.upper.size(), std::size_t{4});
    CHECK(answer.bottleneck.empty() && answer.source_side.empty() && answer.flows.empty());
    CHECK(answer.statistics.algorithm != Algorithm::automatic);
    CHECK_EQUAL(answer.statistics.edges, std::uint64_t{4});
    CHECK(answer.statistics.index_bytes > 0);
}

// ---- one solve leaves no trace in the next

TEST(max_flow, pairs_solved_together_equal_pairs_solved_alone) {
    Random random(43);
    for (const Family family : {Family::layered_dense, Family::cyclic, Family::diagonals, Family::residual_stream}) {
        const Scope scope(name(family));
        const Store store = random_network(family, Profile::ties, Scalar::int32, 12, random);
        const Network network = store.network();
        const Node last = network.first_node(network.n_blocks() - 1);
        Query query;
        for (Node node = 0; node < network.size(0); ++node) query.sources.push_back({node});
        for (Node node = last; node < network.n_nodes(); ++node) query.sinks.push_back({node});
        for (const Algorithm algorithm : algorithms) {
            Options options = everything(algorithm);
            const Answer together = solve(network, query, options);
            options.flows = true;
            for (std::size_t pair = 0; pair < together.value.size(); ++pair) {
                const std::size_t s = pair % query.sources.size(), t = pair / query.sources.size();
                const Answer alone = solve(network, {{query.sources[s]}, {query.sinks[t]}}, options);
                CHECK_EQUAL(together.value[pair], alone.value[0]);
                CHECK_EQUAL(together.bottleneck[pair], alone.bottleneck[0]);
                CHECK(std::equal(alone.source_side.begin(), alone.source_side.end(),
                                 together.source_side.begin() + static_cast<std::ptrdiff_t>(pair * network.n_words())));
            }
        }
    }
}

TEST(max_flow, the_same_question_twice_in_one_query) {
    Random random(47);
    const Store store = random_network(Family::layered_causal, Profile::peaked, Scalar::float32, 70, random);
    const Network network = store.network();
    const Node last = network.first_node(network.n_blocks() - 1) + 60;
    for (const Algorithm algorithm : algorithms) {
        const Answer answer =
            solve(network, {{{0}, {5}, {0}, {5}, {0}}, {{last}, {last + 1}, {last}}}, everything(algorithm));
        for (std::size_t pair = 0; pair < 15; ++pair) {
            const std::size_t twin = pair % 5 % 2 + (pair / 5 % 2) * 5;
            CHECK_EQUAL(answer.value[pair], answer.value[twin]);
            CHECK_EQUAL(answer.upper[pair], answer.upper[twin]);
            CHECK_EQUAL(answer.bottleneck[pair], answer.bottleneck[twin]);
        }
    }
}

TEST(max_flow, flows_do_not_depend_on_the_layout) {
    for (const Algorithm algorithm : algorithms) {
        Answer first;
        for (const Layout layout : layouts) {
            Random random(53);
            Store store({7, 9, 7});
            const auto value = [&](std::uint32_t, std::uint32_t) { return draw<float>(Profile::fractions, random); };
            store.dense<float>(0, 1, value, layout).dense<float>(1, 2, value, layout);
            Options options = everything(algorithm);
            options.flows = true;
            const Network network = store.network();
            Answer answer = solve(network, {{{2}}, {{20}}}, options);
            if (layout == layouts[0]) first = answer;
            CHECK_EQUAL(answer.value, first.value);
            CHECK_EQUAL(answer.flows.size(), first.flows.size());
            for (std::size_t i = 0; i < std::min(answer.flows.size(), first.flows.size()); ++i)
                CHECK_EQUAL(answer.flows[i].flow, first.flows[i].flow);
        }
    }
}

TEST(max_flow, memory_is_only_read) {
    Random random(59);
    const Store store = random_network(Family::diagonals, Profile::fractions, Scalar::float32, 8, random);
    const Network network = store.network();
    const auto read = [&] {
        std::vector<Units> all;
        for (const reference::Edge& edge : reference::edges(network, 40)) all.push_back(edge.capacity);
        return all;
    };
    const std::vector<Units> before = read();
    CHECK_NONE(disagreements(network, random_query(network, true, random)));
    CHECK(read() == before);
}

// ---- bounds

// Two sinks: the second receives 2^20, so quanta are 2^-40 and more; the first receives crumbs of 2^-50.
TEST(max_flow, the_interval_holds_the_maximum_flow_of_the_given_capacities) {
    Random random(61);
    for (int round = 0; round < 40; ++round) {
        const Scope scope("round " + std::to_string(round));
        const auto crumb = [&](std::uint32_t, std::uint32_t) {
            return std::ldexp(1 + random.below(round % 2 == 0 ? 4000 : 400000), -50);
        };
        Store store({3, 4, 4, 2, 1});
        store.dense<double>(0, 1, crumb).dense<double>(1, 2, crumb).dense<double>(2, 3, crumb);
        store.dense<double>(4, 3, [](std::uint32_t j, std::uint32_t) { return j == 1 ? 0x1p20 : 0.0; });
        const Network network = store.network();
        const Query query{{{0}, {1, 2}}, {{11}, {12}}};
        CHECK_NONE(disagreements(network, query));

        for (const Algorithm algorithm : algorithms) {
            const Answer answer = solve(network, query, everything(algorithm));
            CHECK(answer.quantum.exponent() < 50);
            const int finer = 50 - answer.quantum.exponent();
            const std::vector<reference::Edge> exact = reference::edges(network, 50);
            bool rounded = false;
            for (std::size_t pair = 0; pair < 4; ++pair) {
                const Units truth =
                    reference::edmonds_karp(exact, network.n_nodes(), query.sources[pair % 2], query.sinks[pair / 2])
                        .value;
                CHECK(answer.value[pair] << finer <= truth);
                CHECK(truth <= answer.upper[pair] << finer);
                rounded = rounded || answer.value[pair] << finer < truth;
            }
            CHECK(rounded);  // else the case proves nothing
        }
    }
}

// One path whose only narrow edge is far below one quantum.
TEST(max_flow, vanished_capacities_count_in_the_upper_bound) {
    for (const double vanished : {0x1p-70, 1e-300}) {
        Store store({1, 1, 1, 1});
        store.dense<double>(0, 1, constant(1)).dense<double>(1, 2, constant(vanished)).dense<double>(2, 3, constant(1));
        const Network network = store.network();
        for (const Algorithm algorithm : algorithms) {
            const Answer answer = solve(network, {{{0}}, {{3}}}, everything(algorithm));
            CHECK_EQUAL(answer.value[0], Units{0});
            CHECK_EQUAL(answer.upper[0], Units{1});
            CHECK_EQUAL(answer.bottleneck[0], nowhere);
        }
    }
}

// Capacities so far apart that the small one, in quanta, is below the smallest double.
TEST(max_flow, underflow_counts_in_the_upper_bound) {
    Store store({1, 1, 1});
    store.dense<double>(0, 1, constant(1e-300)).dense<double>(1, 2, constant(1e300));
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0}}, {{2}}}, everything(algorithm));
        CHECK(answer.upper[0] >= 1);
    }
}

// Rounding elsewhere must not widen the interval of a sink that nothing enters.
TEST(max_flow, nothing_into_the_sink_is_exactly_nothing) {
    Store store({2, 3, 1});
    store.dense<float>(0, 1, constant(0.3)).dense<float>(1, 2, constant(0));
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0}}, {{5}}}, everything(algorithm));
        CHECK_EQUAL(answer.value[0], Units{0});
        CHECK_EQUAL(answer.upper[0], Units{0});
    }
}

// Nor may large capacities elsewhere have such a sink refused: no sum of theirs is asked for.
TEST(max_flow, nothing_into_the_sink_is_nothing_however_large_the_rest) {
    Store integers({1, 3, 1});
    integers.dense<std::int64_t>(0, 1, [](std::uint32_t, std::uint32_t) { return std::int64_t{1} << 61; });
    integers.dense<std::int64_t>(1, 2, [](std::uint32_t, std::uint32_t) { return 0; });
    Store floats({1, 3, 1});
    floats.dense<double>(0, 1, constant(1e308)).dense<double>(1, 2, constant(0));
    for (const Network& network : {integers.network(), floats.network()})
        for (const Algorithm algorithm : algorithms) {
            const Answer answer = solve(network, {{{0}}, {{4}}}, everything(algorithm));
            CHECK_EQUAL(answer.value[0], Units{0});
            CHECK_EQUAL(answer.upper[0], Units{0});
        }
}

TEST(max_flow, attention_in_float32_is_exact) {
    Random random(67);
    const std::uint32_t n = 40;
    const auto attention = [&](std::uint32_t j, std::uint32_t k) {
        return k <= j ? static_cast<float>(0.5 * random.uniform() / (j + 1) + (j == k ? 0.5 : 0)) : 0.0F;
    };
    Store store({n, n, n, n});
    store.dense<float>(0, 1, attention).dense<float>(1, 2, attention).dense<float>(2, 3, attention);
    const Network network = store.network();
    Query query;
    for (Node node = 0; node < n; ++node) query.sources.push_back({node});
    query.sinks = {{4 * n - 1}, {4 * n - 5, 4 * n - 3}};
    const Answer answer = solve(network, query, everything(Algorithm::automatic));
    CHECK_EQUAL(answer.value, answer.upper);
    CHECK_NONE(disagreements(network, query));
}

// ---- unbounded

TEST(max_flow, an_unbounded_path_is_refused) {
    for (const Algorithm algorithm : algorithms) {
        Store dense({1, 2, 1});
        dense.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t) { return j == 1 ? infinity : 1.0; });
        dense.dense<float>(1, 2, [](std::uint32_t, std::uint32_t k) { return k == 1 ? infinity : 1.0; });
        CHECK_THROWS(UnboundedFlow, solve(dense.network(), {{{0}}, {{3}}}, everything(algorithm)));

        Store diagonal({2, 2, 2});
        const auto endless = [](std::uint32_t) { return unbounded; };
        diagonal.diagonal<std::int64_t>(0, 1, 0, endless).diagonal<std::int64_t>(1, 2, 1, endless);
        CHECK_THROWS(UnboundedFlow, solve(diagonal.network(), {{{0}}, {{5}}}, everything(algorithm)));
        // From node 1 the last diagonal points outside.
        CHECK_EQUAL(solve(diagonal.network(), {{{1}}, {{5}}}, everything(algorithm)).value[0], Units{0});

        Store single({1, 1});
        single.diagonal<double>(0, 1, 0, [](std::uint32_t) { return infinity; });
        CHECK_THROWS(UnboundedFlow, solve(single.network(), {{{0}}, {{1}}}, everything(algorithm)));
    }
}

TEST(max_flow, one_unbounded_pair_among_many_is_refused) {
    Store store({3, 3});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == 2 && k == 2 ? infinity : 1.0; });
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms)
        for (const unsigned threads : {1U, 3U}) {
            Options options = everything(algorithm);
            options.threads = threads;
            const std::string message =
                CHECK_THROWS(UnboundedFlow, solve(network, {{{0}, {1}, {2}}, {{3}, {4}, {5}}}, options));
            CHECK_EQUAL(message,
                        std::string("source 2 (node 2 of block 0) reaches sink 2 (node 2 of block 1) through unbounded "
                                    "edges alone"));
            CHECK_EQUAL(solve(network, {{{0}, {1}}, {{3}, {4}, {5}}}, options).value.size(), std::size_t{6});
        }
}

TEST(max_flow, unbounded_edges_of_a_bounded_flow) {
    // Two unbounded edges out of the source, two into the sink, and all that is narrow between them.
    Store store({1, 2, 2, 1});
    store.dense<float>(0, 1, constant(infinity));
    store.dense<float>(1, 2, [](std::uint32_t j, std::uint32_t k) { return 1.0 + j + 2 * k; });
    store.dense<float>(2, 3, constant(infinity));
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(network, {{{0}}, {{5}}}, everything(algorithm));
        CHECK_EQUAL(value_of(answer, 0), 1.0 + 2 + 3 + 4);
        CHECK_EQUAL(answer.bottleneck[0], 1);
    }
    CHECK_NONE(disagreements(network, {{{0}, {1}, {1, 2}, {0, 3}}, {{5}, {4}}}));
}

TEST(max_flow, many_unbounded_edges_at_one_node) {
    for (const std::uint32_t width : {2U, 3U, 4U, 8U, 65U}) {
        const Scope scope("width " + std::to_string(width));
        Store store({1, width, 1, width, 1});
        store.dense<double>(0, 1, constant(infinity)).dense<double>(1, 2, constant(infinity));
        store.dense<double>(2, 3, constant(0.7)).dense<double>(3, 4, constant(infinity));
        const Network network = store.network();
        CHECK_NONE(disagreements(network, {{{0}, {1, 2}}, {{2 * width + 2}}}));
    }
}

// ---- refusals

TEST(max_flow, refuses_a_query_that_breaks_a_rule) {
    Store store({2, 2});
    store.dense<float>(0, 1, constant(1));
    const Network network = store.network();
    const auto message = [&](const Query& query) { return CHECK_THROWS(InvalidArgument, solve(network, query, {})); };
    CHECK(message({{}, {{2}}}).find("source") != std::string::npos);
    CHECK(message({{{0}}, {}}).find("sink") != std::string::npos);
    CHECK(message({{{0}, {}}, {{2}}}).find("source 1") != std::string::npos);
    CHECK(message({{{0}}, {{2}, {}}}).find("sink 1") != std::string::npos);
    CHECK(message({{{4}}, {{2}}}).find("node 4") != std::string::npos);
    CHECK(message({{{0}}, {{2}, {3, 1000}}}).find("node 1000") != std::string::npos);
    CHECK(message({{{0}, {1, 2}}, {{3}, {2}}}).find("both in source 1 and in sink 1") != std::string::npos);
    Options options;
    options.flows = true;
    CHECK_THROWS(InvalidArgument, solve(network, {{{0}, {1}}, {{2}}}, options));
}

TEST(max_flow, refuses_bad_capacities_before_it_solves) {
    Store store({2, 2});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == 1 && k == 0 ? -0.5 : 1.0; });
    CHECK_THROWS(InvalidCapacity, solve(store.network(), {{{0}}, {{2}}}, {}));
}

TEST(max_flow, refuses_integers_that_do_not_fit) {
    const auto large = [](std::uint32_t, std::uint32_t) { return (std::int64_t{1} << 61) - 1; };
    Store store({2, 1});
    store.dense<std::int64_t>(0, 1, large);
    CHECK_THROWS(CapacityOverflow, solve(store.network(), {{{0}}, {{2}}}, {}));
    Store fits({2, 1});
    fits.dense<std::int64_t>(0, 1, [](std::uint32_t, std::uint32_t k) { return (std::int64_t{1} << 59) + k; });
    for (const Algorithm algorithm : algorithms) {
        const Answer answer = solve(fits.network(), {{{0}, {1}, {0, 1}}, {{2}}}, everything(algorithm));
        const Units half = Units{1} << 59;
        CHECK_EQUAL(answer.value, (std::vector<Units>{half, half + 1, 2 * half + 1}));
        CHECK_EQUAL(answer.upper, answer.value);
    }
}

TEST(max_flow, large_integers_far_from_the_sink_are_exact) {
    Store store({1, 3, 1});
    store.dense<std::int64_t>(0, 1, [](std::uint32_t j, std::uint32_t) { return (std::int64_t{1} << 61) + j; });
    store.dense<std::int64_t>(1, 2, [](std::uint32_t, std::uint32_t k) { return (std::int64_t{1} << 53) + 1 + k; });
    const Network network = store.network();
    CHECK_NONE(disagreements(network, {{{0}}, {{4}}}));
    CHECK_EQUAL(solve(network, {{{0}}, {{4}}}, {}).value[0], 3 * (Units{1} << 53) + 6);
}

TEST(max_flow, refuses_floats_whose_sums_overflow) {
    const double largest = std::numeric_limits<double>::max();
    Store store({2, 1});
    store.dense<double>(0, 1, constant(largest));
    CHECK_THROWS(CapacityOverflow, solve(store.network(), {{{0}}, {{2}}}, {}));
}

TEST(max_flow, the_largest_double_is_solved_or_refused_but_not_unbounded) {
    const double largest = std::numeric_limits<double>::max();
    Store store({1, 1});
    store.dense<double>(0, 1, constant(largest));
    const Network network = store.network();
    for (const Algorithm algorithm : algorithms) {
        try {
            const Answer answer = solve(network, {{{0}}, {{1}}}, everything(algorithm));
            CHECK_EQUAL(answer.quantum.lower(answer.value[0]), largest);
            CHECK_EQUAL(answer.bottleneck[0], at_source);
        } catch (const CapacityOverflow&) {
        } catch (const UnboundedFlow&) {
            CHECK(!"a finite capacity is called unbounded");
        }
    }
}

// A flow into the sink that sources take over from each other: with sources in any order, of one sink after the other, where
// each reaches more than the last (causal) or all the same, and with and without what columns and shared cuts do meanwhile.
TEST(max_flow, sources_take_over_a_shared_flow) {
    constexpr std::uint32_t n = 70, layers = 7;
    for (const bool causal : {true, false})
        for (const double straight : {0.0, 0.02}) {
            Random random(static_cast<std::uint64_t>(causal) + (straight > 0 ? 2 : 0));
            Store store(std::vector<std::uint32_t>(layers + 1, n));
            for (std::uint32_t l = 0; l < layers; ++l)
                store.dense<float>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) {
                    if (causal && k > j) return 0.0;
                    const double weight = std::pow(random.uniform(), 6) / (1 + (k == 0 ? 0 : 10 * random.uniform()));
                    return weight + (j == k ? straight : 0.0);
                });
            const Network network = store.network();
            Query query{{}, {{network.first_node(layers) + n - 1}, {network.first_node(layers) + n / 2}}};
            for (Node s = 0; s < n; ++s) query.sources.push_back({s * 29 % n});  // 29 and 70 have no common factor
            const Answer expected = solve(network, query, {.algorithm = Algorithm::push_relabel, .cuts = true});
            for (const Sharing sharing : {Sharing::always, Sharing::automatic})
                for (const bool check : {true, false}) {
                    const Answer answer =
                        solve(network, query, {.bottlenecks = true, .cuts = check, .check = check, .sharing = sharing});
                    CHECK(answer.value == expected.value);
                    CHECK(answer.upper == expected.upper);
                    if (check) CHECK(answer.source_side == expected.source_side);
                }
        }
}

// The sink's column is narrow for every source, so one source's minimum cut bounds the others: same answers, same
// bottlenecks, hardly a search. The edges of the first layer differ, so every source has a cut of its own.
TEST(max_flow, sources_share_cuts_near_the_sink) {
    constexpr std::uint32_t n = 48, layers = 5;
    for (std::uint32_t seed = 0; seed < 6; ++seed) {
        Random random(seed);
        Store store(std::vector<std::uint32_t>(layers + 1, n));
        for (std::uint32_t l = 0; l < layers; ++l)
            store.dense<float>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) {
                const double scarce = j == 0 ? 0.2 : 1.0;
                return scarce * (0.5 * (0.5 + random.uniform()) / n + (j == k && j != 0 ? 0.5 : 0.0)) +
                       (j == 0 && k == 0 ? 0.5 : 0.0);
            });
        const Network network = store.network();
        Query query{{}, {{network.first_node(layers)}, {network.first_node(layers) + 7}, {network.first_node(1) + 3}}};
        for (Node s = 0; s < n; ++s) query.sources.push_back({s});
        query.sources.push_back({3, 4});
        for (const bool bottlenecks : {false, true}) {
            const Answer shared = solve(network, query, {.bottlenecks = bottlenecks});
            const Answer alone = solve(network, query, {.bottlenecks = bottlenecks, .check = true});
            const Answer other =
                solve(network, query, {.algorithm = Algorithm::push_relabel, .bottlenecks = bottlenecks});
            CHECK(shared.value == other.value);
            CHECK(shared.upper == other.upper);
            CHECK(shared.bottleneck == other.bottleneck);
            CHECK(alone.value == other.value);
        }
    }
}

}  // namespace
}  // namespace attnflow::testing
