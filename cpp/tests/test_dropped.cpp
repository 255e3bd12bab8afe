// Dropped edges: whatever they were, the answer's interval holds the maximum flow of the whole network.
#include "dropped.hpp"

#include <algorithm>
#include <cmath>

#include "attnflow/errors.hpp"
#include "edmonds_karp.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

// ---- one link

// Two blocks and nothing kept; what was dropped out of each giver and into each receiver.
struct TwoBlocks {
    std::vector<double> out, in;
    std::vector<std::int64_t> starts;
    std::uint32_t no_column = 0;
    std::byte no_entry{};

    TwoBlocks(std::vector<double> given_out, std::vector<double> given_in)
        : out(std::move(given_out)), in(std::move(given_in)), starts(in.size() + 1, 0) {}

    Network network(bool causal) const {
        Link link;
        link.giver = 0;
        link.receiver = 1;
        link.scalar = Scalar::int64;
        link.storage = Storage::sparse;
        link.starts = starts.data();
        link.columns = &no_column;
        link.data = &no_entry;
        link.dropped_in = in.data();
        link.dropped_out = out.data();
        link.dropped_causal = causal;
        return Network({static_cast<std::uint32_t>(out.size()), static_cast<std::uint32_t>(in.size())}, {link});
    }
};

// The largest transport from givers in S to receivers outside it, by the slow twin: a source that feeds each giver with
// what it has, a sink that takes from each receiver what it may.
Units largest_transport(const TwoBlocks& link, bool causal, const std::vector<bool>& in_s) {
    const auto n = static_cast<Node>(link.out.size()), m = static_cast<Node>(link.in.size());
    std::vector<reference::Edge> edges;
    for (Node k = 0; k < n; ++k)
        if (in_s[k]) edges.push_back({0, 0, 0, n + m, k, static_cast<Units>(link.out[k])});
    for (Node j = 0; j < m; ++j) {
        if (in_s[n + j]) continue;
        edges.push_back({0, 0, 0, n + j, n + m + 1, static_cast<Units>(link.in[j])});
        for (Node k = 0; k < n; ++k)
            if (!causal || k <= j) edges.push_back({0, 0, 0, k, n + j, unbounded});
    }
    return reference::edmonds_karp(edges, n + m + 2, {n + m}, {n + m + 1}).value;
}

TEST(dropped, across_a_cut_as_much_as_a_transport_can_carry) {
    Random random(5);
    for (int round = 0; round < 400; ++round) {
        const bool wide = round % 8 == 0;
        std::vector<double> out(random.between(1, wide ? 140 : 6)), in(random.between(1, wide ? 140 : 6));
        for (std::vector<double>* sums : {&out, &in})
            for (double& sum : *sums) sum = random.below(6);
        const TwoBlocks link(out, in);
        std::vector<bool> in_s;
        for (std::size_t i = 0; i < out.size() + in.size(); ++i) in_s.push_back(random.chance(0.5));
        for (const bool causal : {false, true}) {
            const Scope scope("round " + std::to_string(round) + (causal ? ", causal" : ""));
            const Network network = link.network(causal);
            const CapacitySurvey survey(network);
            const CapacityIndex index(network, survey, Quantum(survey.total, 1, true));
            std::vector<Word> source_side(network.n_words(), 0);
            for (Node node = 0; node < in_s.size(); ++node)
                if (in_s[node])
                    set_bit(&source_side[network.first_word(network.block_of(node))], network.position_of(node));
            CHECK_EQUAL(Dropped(index).across(source_side), largest_transport(link, causal, in_s));
        }
    }
}

TEST(dropped, sums_are_rounded_up_and_saturate) {
    const TwoBlocks link({0.3, 1e300}, {0.3, 1e300});
    const Network network = link.network(false);
    const CapacitySurvey survey(network);
    const CapacityIndex index(network, survey, Quantum(1, 1, false));
    const Dropped dropped(index);
    CHECK(dropped.any());
    CHECK_EQUAL(dropped.across({1, 0}), index.quantum().floor(0.3) + !index.quantum().exact(0.3));
    CHECK_EQUAL(dropped.across({3, 0}), unbounded);
    const Quantum coarse(0x1p61, 1, false);
    CHECK_EQUAL(coarse.exponent(), -1);
    CHECK_EQUAL(coarse.ceil(0.25), Units{1});
    CHECK_EQUAL(coarse.ceil(1e-320), Units{1});
    CHECK_EQUAL(coarse.ceil(0), Units{0});
    CHECK_EQUAL(coarse.ceil(4), Units{2});
    CHECK_EQUAL(coarse.ceil(4.5), Units{3});
    CHECK_EQUAL(coarse.ceil(1e30), unbounded);
}

TEST(dropped, nothing_is_nothing) {
    const TwoBlocks link({0, 0}, {0, 0, 0});
    const Network network = link.network(true);
    const CapacitySurvey survey(network);
    CHECK(!Dropped(CapacityIndex(network, survey, Quantum(1, 1, true))).any());
}

// ---- whole networks

// A network's answer against that of the network before edges were dropped.
void check_intervals(const Store& store, double p, Random& random, bool anywhere) {
    const Store thin_store = store.thinned(p, random);
    const Network network = store.network(), thin = thin_store.network();
    const Query query = random_query(network, anywhere, random);
    for (const Algorithm algorithm : {Algorithm::dinic, Algorithm::push_relabel}) {
        Options options;
        options.algorithm = algorithm;
        options.check = options.cuts = options.bottlenecks = true;
        Options plain;
        plain.algorithm = algorithm;
        try {
            const Answer answer = solve(thin, query, options), again = solve(thin, query, plain);
            Options sharing = plain;
            sharing.sharing = Sharing::always;
            const Answer shared = solve(thin, query, sharing);
            CHECK(again.value == answer.value && shared.value == answer.value);
            CHECK(again.upper == answer.upper && shared.upper == answer.upper);
            const Answer whole = solve(network, query, plain);
            for (std::size_t pair = 0; pair < answer.value.size(); ++pair) {
                const Scope scope("pair " + std::to_string(pair));
                const double lower = answer.quantum.lower(answer.value[pair]);
                const double upper =
                    answer.upper[pair] >= unbounded ? infinity : answer.quantum.upper(answer.upper[pair]);
                CHECK(lower <= whole.quantum.upper(whole.upper[pair]));
                CHECK(upper >= whole.quantum.lower(whole.value[pair]));
                CHECK(answer.upper[pair] >= answer.value[pair]);
            }
        } catch (const UnboundedFlow&) {
            CHECK_THROWS(UnboundedFlow, solve(network, query, plain));  // unbounded edges are never dropped
        } catch (const CapacityOverflow&) {
            // refused; agreement.cpp judges when that is right
        }
    }
}

TEST(dropped, the_interval_holds_the_flow_of_all_edges) {
    for (const Family family : families)
        for (const Profile profile : profiles)
            for (const Scalar scalar : scalars)
                for (std::uint32_t round = 0; round < 12; ++round) {
                    Random random(round * 1000 + static_cast<std::uint64_t>(family) * 100 +
                                  static_cast<std::uint64_t>(profile) * 10 + static_cast<std::uint64_t>(scalar));
                    const Scope scope(std::string(name(family)) + ", " + name(profile) + ", " + name(scalar) +
                                      ", round " + std::to_string(round));
                    const std::uint32_t width = random.between(1, round == 0 ? 70 : 7);
                    const Store store = random_network(family, profile, scalar, width, random);
                    check_intervals(store, random.chance(0.2) ? 1.0 : random.uniform(), random, round % 3 == 0);
                }
}

TEST(dropped, an_edge_that_joins_what_the_kept_ones_do_not) {
    // 0 -> 0 -> 0 is kept; 0 -> 1 and 1 -> 0 by 3 each was dropped: flow around, through a node that neither reaches nor is
    // reached by kept edges.
    Store store({1, 2, 1});
    store.dense<std::int32_t>(0, 1, [](std::uint32_t j, std::uint32_t) { return j == 0 ? 1 : 3; });
    store.dense<std::int32_t>(1, 2, [](std::uint32_t, std::uint32_t k) { return k == 0 ? 1 : 3; });
    Random random(1);
    const Store thin = store.thinned(1.0, random);
    for (const Algorithm algorithm : {Algorithm::dinic, Algorithm::push_relabel}) {
        const Answer answer = solve(thin.network(), {{{0}}, {{3}}}, {.algorithm = algorithm});
        CHECK_EQUAL(answer.value[0], Units{1});
        CHECK_EQUAL(answer.upper[0], Units{4 + 1});  // sums of doubles that are not whole: rounded up
    }
}

TEST(dropped, nothing_dropped_leaves_no_interval) {
    for (const Family family : families) {
        Random random(static_cast<std::uint64_t>(family));
        const Store store = random_network(family, Profile::ties, Scalar::int64, 6, random);
        const Store same = store.thinned(0.0, random);
        const Query query = random_query(store.network(), false, random);
        try {
            const Answer answer = solve(same.network(), query, {}), whole = solve(store.network(), query, {});
            CHECK_EQUAL(answer.value, whole.value);
            CHECK_EQUAL(answer.upper, answer.value);
        } catch (const UnboundedFlow&) {
        }
    }
}

// ---- refusals

TEST(dropped, refuses_sums_that_are_none) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const double bad : {-1.0, nan, infinity}) {
        const TwoBlocks in({1, 2}, {1, bad}), out({bad, 2}, {1, 1});
        CHECK(CHECK_THROWS(InvalidArgument, in.network(false)).find("dropped_in[1]") != std::string::npos);
        CHECK(CHECK_THROWS(InvalidArgument, out.network(false)).find("dropped_out[0]") != std::string::npos);
    }
}

}  // namespace
}  // namespace attnflow::testing
