// Progress and cancellation.
#include <chrono>
#include <stdexcept>
#include <thread>

#include "agreement.hpp"
#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

using Clock = std::chrono::steady_clock;

// A million pairs: minutes of work, unless somebody stops it.
struct Work {
    static constexpr std::uint32_t n = 80;
    Store store;
    Network network;
    Query query;

    static Store make() {
        Random random(89);
        Store made({n, n, n, n});
        const auto value = [&](std::uint32_t, std::uint32_t) { return draw<float>(Profile::peaked, random); };
        for (std::uint32_t l = 0; l < 3; ++l) made.dense<float>(l, l + 1, value);
        return made;
    }
    Work() : store(make()), network(store.network()) {
        for (int again = 0; again < 128; ++again)
            for (Node node = 0; node < n; ++node) query.sources.push_back({node});
        for (Node node = 0; node < n; ++node) query.sinks.push_back({3 * n + node});
    }
};

struct Stopped : std::runtime_error {
    Stopped() : std::runtime_error("stopped by the test") {}
};

struct StopAt final : Monitor {
    explicit StopAt(int tick) : last(tick) {}
    void tick(std::uint64_t, std::uint64_t) override {
        stopped = Clock::now();
        if (++ticks >= last) throw Stopped();
    }
    int last, ticks = 0;
    Clock::time_point stopped{};
};

void cancels(Algorithm algorithm, unsigned threads) {
    const Scope scope("threads " + std::to_string(threads));
    const Work work;
    Options options;
    options.algorithm = algorithm;
    options.threads = threads;
    for (const int ticks : {1, 3}) {
        StopAt monitor(ticks);
        options.monitor = &monitor;
        CHECK_THROWS(Stopped, solve(work.network, work.query, options));
        const std::chrono::duration<double> since = Clock::now() - monitor.stopped;
        CHECK(since.count() < 1.0);
        CHECK(monitor.ticks >= ticks);
    }
    // The same network still answers, and rightly.
    Options afterwards;
    afterwards.algorithm = algorithm;
    afterwards.threads = threads;
    afterwards.check = true;
    const Answer answer = solve(work.network, {{{0}, {70}}, {{3 * Work::n}}}, afterwards);
    const auto edges = reference::edges(work.network, answer.quantum.exponent());
    CHECK_EQUAL(answer.value[0], reference::edmonds_karp(edges, work.network.n_nodes(), {0}, {3 * Work::n}).value);
}

TEST(monitor, cancels_dinic_on_one_thread) { cancels(Algorithm::dinic, 1); }
TEST(monitor, cancels_dinic_on_several_threads) { cancels(Algorithm::dinic, 4); }
TEST(monitor, cancels_push_relabel_on_one_thread) { cancels(Algorithm::push_relabel, 1); }
TEST(monitor, cancels_push_relabel_on_several_threads) { cancels(Algorithm::push_relabel, 3); }

TEST(monitor, any_exception_passes_through) {
    struct Throws final : Monitor {
        void tick(std::uint64_t, std::uint64_t) override { throw 42; }
    } monitor;
    const Work work;
    for (const unsigned threads : {1U, 2U}) {
        Options options;
        options.threads = threads;
        options.monitor = &monitor;
        int caught = 0;
        try {
            solve(work.network, work.query, options);
        } catch (const int number) {
            caught = number;
        }
        CHECK_EQUAL(caught, 42);
    }
}

TEST(monitor, is_told_of_progress_by_the_calling_thread) {
    struct Listens final : Monitor {
        std::thread::id caller = std::this_thread::get_id();
        std::uint64_t ticks = 0, last_done = 0, last_total = 0;
        bool monotone = true, same_thread = true, within = true;
        void tick(std::uint64_t done, std::uint64_t total) override {
            ++ticks;
            monotone = monotone && done >= last_done && (last_total == 0 || total == last_total);
            same_thread = same_thread && std::this_thread::get_id() == caller;
            within = within && done <= total;
            last_done = done;
            last_total = total;
        }
    };
    Work work;
    work.query.sources.resize(Work::n);
    work.query.sinks.resize(8);
    for (const unsigned threads : {1U, 3U}) {
        Listens monitor;
        Options options;
        options.threads = threads;
        options.monitor = &monitor;
        const auto start = Clock::now();
        solve(work.network, work.query, options);
        const std::chrono::duration<double> seconds = Clock::now() - start;
        CHECK(monitor.monotone && monitor.same_thread && monitor.within);
        CHECK_EQUAL(monitor.last_done, std::uint64_t{Work::n} * 8);
        CHECK_EQUAL(monitor.last_total, monitor.last_done);
        CHECK(static_cast<double>(monitor.ticks) <= seconds.count() * 11 + 2);  // some ten a second
    }
}

TEST(monitor, short_solves_end_with_one_tick) {
    struct Counts final : Monitor {
        int ticks = 0;
        std::uint64_t done = 0;
        void tick(std::uint64_t now, std::uint64_t) override { ++ticks, done = now; }
    } monitor;
    Store store({2, 2});
    store.dense<float>(0, 1, [](std::uint32_t, std::uint32_t) { return 1.0; });
    Options options;
    options.monitor = &monitor;
    solve(store.network(), {{{0}, {1}}, {{2}, {3}}}, options);
    CHECK_EQUAL(monitor.ticks, 1);
    CHECK_EQUAL(monitor.done, std::uint64_t{4});
}

TEST(monitor, a_throw_at_the_last_tick_leaves_no_answer) {
    StopAt monitor(1);
    Store store({2, 2});
    store.dense<float>(0, 1, [](std::uint32_t, std::uint32_t) { return 1.0; });
    Options options;
    options.monitor = &monitor;
    CHECK_THROWS(Stopped, solve(store.network(), {{{0}}, {{2}}}, options));
}

}  // namespace
}  // namespace attnflow::testing
