// Threads change nothing but the time. Also what the thread sanitizer watches.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "agreement.hpp"
#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"
#include "parallel.hpp"
#include "stretches.hpp"

namespace attnflow::testing {
namespace {

Query every_pair(const Network& network) {
    Query query;
    for (Node node = 0; node < network.size(0); ++node) query.sources.push_back({node});
    for (Node node = network.first_node(network.n_blocks() - 1); node < network.n_nodes(); ++node)
        query.sinks.push_back({node});
    return query;
}

TEST(threads, answers_are_bit_identical) {
    for (const Family family : {Family::layered_causal, Family::layered_dense, Family::diagonals, Family::cyclic})
        for (const Algorithm algorithm : {Algorithm::dinic, Algorithm::push_relabel}) {
            const Scope scope(name(family));
            Random random(73);
            const Store store = random_network(family, Profile::peaked, Scalar::float64, 16, random);
            const Network network = store.network();
            const Query query = every_pair(network);
            Options options;
            options.algorithm = algorithm;
            options.bottlenecks = options.cuts = options.check = true;
            Answer alone;
            try {
                alone = solve(network, query, options);
            } catch (const UnboundedFlow&) {  // a family with unbounded edges may be
                continue;
            }
            CHECK_EQUAL(alone.statistics.threads, 1U);
            for (unsigned threads = 2; threads <= 4; ++threads) {
                options.threads = threads;
                const Answer together = solve(network, query, options);
                CHECK(together.statistics.threads <= threads);
                CHECK(together.value == alone.value);
                CHECK(together.upper == alone.upper);
                CHECK(together.bottleneck == alone.bottleneck);
                CHECK(together.source_side == alone.source_side);
                CHECK_EQUAL(together.quantum.exponent(), alone.quantum.exponent());
            }
        }
}

TEST(threads, answers_agree_with_the_twin) {
    Random random(79);
    for (const Family family : families)
        for (unsigned threads = 1; threads <= 4; ++threads) {
            const Scope scope(std::string(name(family)) + ", threads " + std::to_string(threads));
            const Store store = random_network(family, Profile::fractions, Scalar::float32, 8, random);
            const Network network = store.network();
            CHECK_NONE(disagreements(network, random_query(network, true, random), threads));
        }
}

TEST(threads, more_threads_than_pairs_or_none) {
    Store store({2, 2});
    store.dense<float>(0, 1, [](std::uint32_t, std::uint32_t) { return 1.0; });
    const Network network = store.network();
    for (const unsigned threads : {0U, 1U, 64U, 100000U}) {
        Options options;
        options.threads = threads;
        options.check = true;
        const Answer answer = solve(network, {{{0}, {1}}, {{2}}}, options);
        CHECK(answer.statistics.threads >= 1 && answer.statistics.threads <= 2);
        CHECK_EQUAL(answer.value[0], answer.value[1]);
    }
}

TEST(threads, an_exception_in_any_thread_reaches_the_caller) {
    const std::uint32_t n = 40;
    Store store({n, n});
    store.dense<float>(0, 1, [](std::uint32_t j, std::uint32_t k) { return j == 30 && k == 30 ? infinity : 1.0; });
    const Network network = store.network();
    for (unsigned threads = 1; threads <= 4; ++threads)
        for (int round = 0; round < 5; ++round) {
            Options options;
            options.threads = threads;
            CHECK_THROWS(UnboundedFlow, solve(network, every_pair(network), options));
        }
}

TEST(threads, a_network_serves_several_solves_at_once) {
    Random random(83);
    const Store store = random_network(Family::layered_causal, Profile::fractions, Scalar::float32, 20, random);
    const Network network = store.network();
    const Query query = every_pair(network);
    const Answer alone = solve(network, query, {});
    // Two solves of two threads each, one started from the other's monitor, on the same network and memory.
    struct Nested final : Monitor {
        const Network& network;
        const Query& query;
        Answer inner;
        bool ran = false;
        Nested(const Network& network_, const Query& query_) : network(network_), query(query_) {}
        void tick(std::uint64_t, std::uint64_t) override {
            if (ran) return;
            ran = true;
            Options options;
            options.threads = 2;
            inner = solve(network, query, options);
        }
    } nested(network, query);
    Options options;
    options.threads = 2;
    options.monitor = &nested;
    const Answer outer = solve(network, query, options);
    CHECK(nested.ran);
    CHECK(outer.value == alone.value);
    CHECK(nested.inner.value == alone.value);
}

// Each part once; of several failures the first part's, whoever was first; the pause is the calling thread's alone.
TEST(threads, parts_run_once_and_the_first_failure_counts) {
    for (const unsigned threads : {1U, 2U, 5U}) {
        std::vector<std::atomic<int>> runs(100);
        for_each_part(runs.size(), threads, {}, [&](std::size_t i, const Pause&) { ++runs[i]; });
        CHECK(std::all_of(runs.begin(), runs.end(), [](const std::atomic<int>& n) { return n == 1; }));
        for (int round = 0; round < 50; ++round) {
            std::string caught;
            try {
                for_each_part(40, threads, {}, [&](std::size_t i, const Pause&) {
                    if (i >= 7) throw std::runtime_error(std::to_string(i));
                });
            } catch (const std::runtime_error& error) {
                caught = error.what();
            }
            CHECK(caught == "7");
        }
        const auto caller = std::this_thread::get_id();
        std::atomic<bool> paused{false};
        const Pause pause = [&] {
            if (std::this_thread::get_id() != caller) std::abort();
            paused = true;
            throw std::domain_error("enough");
        };
        CHECK_THROWS(std::domain_error, for_each_part(40, threads, pause, [&](std::size_t, const Pause& own) {
                         if (own) own();
                         while (!paused) std::this_thread::yield();  // the caller may be the last to come
                     }));
    }
}

TEST(threads, stretches_deal_every_item_once) {
    for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{5}, std::uint64_t{1000}})
        for (const unsigned threads : {1U, 2U, 7U})
            for (const unsigned that_come :
                 {1U, threads}) {  // a thread that does not come leaves its items to the others
                Stretches stretches(n, threads);
                std::vector<std::atomic<int>> dealt(n);
                std::vector<std::jthread> workers;
                for (unsigned thread = 0; thread < that_come; ++thread)
                    workers.emplace_back([&, thread] {
                        while (const auto item = stretches.next(thread)) ++dealt[*item];
                    });
                workers.clear();
                CHECK(
                    std::all_of(dealt.begin(), dealt.end(), [](const std::atomic<int>& times) { return times == 1; }));
            }
}

TEST(threads, a_stretch_is_of_neighbours_and_the_longest_is_halved) {
    Stretches stretches(10, 2);
    for (std::uint64_t item = 0; item < 5; ++item) CHECK_EQUAL(stretches.next(0).value(), item);
    CHECK_EQUAL(stretches.next(1).value(), std::uint64_t{5});
    CHECK_EQUAL(stretches.next(0).value(), std::uint64_t{8});  // of 6 7 8 9 the back half
    CHECK_EQUAL(stretches.next(1).value(), std::uint64_t{6});
    CHECK_EQUAL(stretches.next(1).value(), std::uint64_t{7});
    CHECK_EQUAL(stretches.next(1).value(), std::uint64_t{9});
    CHECK(!stretches.next(0).has_value());
    CHECK(!stretches.next(1).has_value());
}

}  // namespace
}  // namespace attnflow::testing
