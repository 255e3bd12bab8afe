// Flow along columns: whatever it builds must be a flow of the value it says, and on residual networks a large one.
#include "columns.hpp"

#include <map>
#include <tuple>

#include "agreement.hpp"
#include "harness.hpp"
#include "instances.hpp"
#include "levels.hpp"

namespace attnflow::testing {
namespace {

struct Built {
    Units value = 0;
    std::vector<EdgeFlow> flows;
    std::vector<std::string> faults;
};

// Everything that is wrong with `flows` as a flow of `value` from source to sink.
std::vector<std::string> faults_of(const CapacityIndex& capacities, const std::vector<EdgeFlow>& flows, Node source,
                                   Node sink, Units value) {
    const Network& net = capacities.network();
    std::vector<std::string> faults;
    std::vector<Units> balance(net.n_nodes(), 0);
    std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, int> seen;
    for (const EdgeFlow& edge : flows) {
        const std::string where =
            std::to_string(edge.link) + "[" + std::to_string(edge.receiver) + ", " + std::to_string(edge.giver) + "]";
        if (++seen[{edge.link, edge.receiver, edge.giver}] > 1) faults.push_back(where + " is named twice");
        const Units capacity = capacities.at(edge.link, edge.receiver, edge.giver);
        if (edge.flow < 0 || edge.flow > capacity)
            faults.push_back(where + " carries " + std::to_string(edge.flow) + " of " + std::to_string(capacity));
        const Link& link = net.links()[edge.link];
        balance[net.first_node(link.giver) + edge.giver] -= edge.flow;
        balance[net.first_node(link.receiver) + edge.receiver] += edge.flow;
    }
    for (Node node = 0; node < net.n_nodes(); ++node) {
        const Units expected = node == source ? -value : node == sink ? value : 0;
        if (balance[node] != expected)
            faults.push_back("node " + std::to_string(node) + " keeps " + std::to_string(balance[node]) +
                             ", expected " + std::to_string(expected));
    }
    return faults;
}

// The inside of solve(), up to the columns.
class Bench {
   public:
    explicit Bench(const Network& network)
        : survey_(network),
          capacities_(network, survey_, Quantum(std::min(survey_.total, 0x1p60), 1, survey_.integers)),
          columns_(capacities_),
          residual_(capacities_) {}

    Built build(Node source, Node sink, Units bound) {
        const Network& net = capacities_.network();
        std::vector<Word> sources(net.n_words(), 0), reached;
        set_bit(&sources[net.first_word(net.block_of(source))], net.position_of(source));
        nodes_reached(capacities_, sources, reached);
        Built built;
        built.value = columns_.fill(source, sink, reached, bound);
        residual_.reset();
        columns_.load(residual_);
        built.flows = residual_.flows();
        built.faults = faults_of(capacities_, built.flows, source, sink, built.value);
        if (built.value < 0 || built.value > bound) built.faults.push_back("value beyond the bound");
        return built;
    }

   private:
    CapacitySurvey survey_;
    CapacityIndex capacities_;
    ColumnFlow columns_;
    Residual residual_;
};

Units best(const Network& network, Node source, Node sink) {
    return solve(network, {{{source}}, {{sink}}}, {.algorithm = Algorithm::push_relabel}).value[0];
}

// All pairs of a first and a last node, at bounds that bite early, late and not at all; the same objects throughout, so
// that nothing of one pair may stay behind for the next.
TEST(columns, whatever_is_built_is_a_flow) {
    for (const Family family : {Family::layered_dense, Family::layered_causal, Family::layered_sparse,
                                Family::block_diagonal, Family::residual_stream, Family::one_block_wide})
        for (const Profile profile : {Profile::fractions, Profile::peaked, Profile::ties, Profile::wide})
            for (const Scalar scalar : {Scalar::float32, Scalar::float64, Scalar::int64})
                for (std::uint32_t round = 0; round < 6; ++round) {
                    Random random(round * 1000 + static_cast<std::uint64_t>(family) * 100 +
                                  static_cast<std::uint64_t>(profile) * 10 + static_cast<std::uint64_t>(scalar));
                    const Store store = random_network(family, profile, scalar, random.between(1, 9), random);
                    const Network network = store.network();
                    Bench bench(network);
                    const std::size_t last = network.n_blocks() - 1;
                    for (std::uint32_t s = 0; s < network.size(0); ++s)
                        for (std::uint32_t t = 0; t < network.size(last); ++t) {
                            const Scope scope(std::string(name(family)) + ", " + name(profile) + ", " + name(scalar) +
                                              ", round " + std::to_string(round) + ", " + std::to_string(s) + " to " +
                                              std::to_string(t));
                            const Node sink = network.first_node(last) + t;
                            const Built whole = bench.build(s, sink, unbounded);
                            CHECK_NONE(whole.faults);
                            for (const Units part : {whole.value / 2, whole.value / 7, whole.value}) {
                                const Built bounded = bench.build(s, sink, part);
                                CHECK_NONE(bounded.faults);
                                CHECK(bounded.value <= part);
                            }
                        }
                }
}

// Integers, by hand. Columns 0 (source), 1, 2 (sink); capacities [receiver][giver].
struct Layer {
    std::int32_t c[3][3];
};
Store chain(const std::vector<Layer>& layers) {
    Store store(std::vector<std::uint32_t>(layers.size() + 1, 3));
    for (std::uint32_t l = 0; l < layers.size(); ++l)
        store.dense<std::int32_t>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) { return layers[l].c[j][k]; });
    return store;
}

TEST(columns, one_step_out_and_one_step_in) {
    // 0 -> 1 by either of the first two layers (2 + 3), along column 1 (10), 1 -> 2 by either of the last two (1 + 4).
    const Layer first{{{9, 0, 0}, {2, 10, 0}, {0, 0, 9}}}, second{{{9, 0, 0}, {3, 10, 0}, {0, 1, 9}}},
        third{{{9, 0, 0}, {0, 10, 0}, {0, 4, 9}}};
    const Store store = chain({first, second, third});
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(3) + 2, unbounded);
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, Units{5});
    CHECK_EQUAL(best(network, 0, network.first_node(3) + 2), Units{5});
}

TEST(columns, narrow_straight_edges_hold_back) {
    // The same, but column 1 passes 1 and the sink's column takes nothing early: 1 of the first 2, all 3 of the second.
    const Layer first{{{9, 0, 0}, {2, 10, 0}, {0, 0, 9}}}, second{{{9, 0, 0}, {3, 1, 0}, {0, 1, 9}}},
        third{{{9, 0, 0}, {0, 1, 0}, {0, 4, 0}}};
    const Store store = chain({first, second, third});
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(3) + 2, unbounded);
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, Units{4});
    CHECK_EQUAL(best(network, 0, network.first_node(3) + 2), Units{4});
}

TEST(columns, a_step_between_columns) {
    // Source 0, sink 3; column 1 can take in 5 and give 1, column 2 can take in nothing and give 4.
    Store store({4, 4, 4, 4});
    const auto entry = [](std::uint32_t layer) {
        return [=](std::uint32_t j, std::uint32_t k) -> std::int32_t {
            if (j == k) return 9;
            if (layer == 0 && j == 1 && k == 0) return 5;
            if (layer == 1 && j == 2 && k == 1) return 3;
            if (layer == 2 && j == 3 && k == 1) return 1;
            if (layer == 2 && j == 3 && k == 2) return 4;
            return 0;
        };
    };
    for (std::uint32_t l = 0; l < 3; ++l) store.dense<std::int32_t>(l, l + 1, entry(l));
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(3) + 3, unbounded);
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, Units{4});
}

TEST(columns, two_steps_between_columns) {
    // Source 0, sink 4: column 1 takes in 5 and gives nothing, 2 only passes on what it gets, 3 can give 4 at the end.
    Store store({5, 5, 5, 5, 5});
    const auto entry = [](std::uint32_t layer) {
        return [=](std::uint32_t j, std::uint32_t k) -> std::int32_t {
            if (j == k) return 9;
            if (layer == 0 && j == 1 && k == 0) return 5;
            if (layer == 1 && j == 2 && k == 1) return 3;
            if (layer == 2 && j == 3 && k == 2) return 2;
            if (layer == 3 && j == 4 && k == 3) return 4;
            return 0;
        };
    };
    for (std::uint32_t l = 0; l < 4; ++l) store.dense<std::int32_t>(l, l + 1, entry(l));
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(4) + 4, Units{4});
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, best(network, 0, network.first_node(4) + 4));
    CHECK_EQUAL(built.value, Units{2});
}

TEST(columns, source_and_sink_of_one_position) {
    const Layer layer{{{4, 1, 1}, {2, 5, 0}, {3, 0, 5}}};
    const Store store = chain({layer, layer, layer});
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(3), unbounded);
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, Units{6});  // 4 straight, 1 by each of the others
    CHECK_EQUAL(best(network, 0, network.first_node(3)), Units{6});
}

TEST(columns, no_chain_no_flow) {
    Random random(3);
    const auto any = [&](std::uint32_t, std::uint32_t) { return random.uniform(); };
    Store ragged({3, 4, 3});
    ragged.dense<double>(0, 1, any).dense<double>(1, 2, any);
    const Network network = ragged.network();
    Bench bench(network);
    CHECK_EQUAL(bench.build(0, network.first_node(2), unbounded).value, Units{0});
    CHECK(bench.build(0, network.first_node(2), unbounded).flows.empty());

    Store single({3, 3});  // a single layer has no columns to speak of
    single.dense<double>(0, 1, any);
    const Network one = single.network();
    CHECK_EQUAL(Bench(one).build(0, one.first_node(1), unbounded).value, Units{0});
}

TEST(columns, a_chain_within_a_larger_network) {
    Random random(5);
    const auto any = [&](std::uint32_t j, std::uint32_t k) { return random.uniform() + (j == k ? 3.0 : 0.0); };
    Store store({4, 4, 2, 4, 4});  // 0 -> 1 -> 3 -> 4 is a chain; block 2 hangs in between, 4 -> 0 goes back
    store.dense<double>(0, 1, any).dense<double>(1, 2, any).dense<double>(2, 3, any).dense<double>(1, 3, any);
    store.dense<double>(3, 4, any).dense<double>(4, 0, any);
    const Network network = store.network();
    Bench bench(network);
    for (Node s = 0; s < 4; ++s) {
        const Built built = bench.build(s, network.first_node(4) + 2, unbounded);
        CHECK_NONE(built.faults);
        CHECK(built.value > 0);
    }
}

// What the whole thing is for: with a residual stream, the columns alone reach the bounds of nearly every pair.
TEST(columns, residual_networks_need_hardly_a_search) {
    constexpr std::uint32_t n = 70, layers = 6;
    Random random(17);
    Store store(std::vector<std::uint32_t>(layers + 1, n));
    for (std::uint32_t l = 0; l < layers; ++l)
        store.dense<double>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) {
            return (0.5 + 0.5 * random.uniform()) / n * 0.5 + (j == k ? 0.5 : 0.0);
        });
    const Network network = store.network();
    Query query{{}, {{network.first_node(layers) + 3}, {network.first_node(layers) + n / 2}}};
    for (Node s = 0; s < n; ++s) query.sources.push_back({s});
    const Answer answer = solve(network, query, {.bottlenecks = true});
    CHECK(answer.statistics.searches <= 10);  // of 140 pairs
    const Answer searched = solve(network, query, {.algorithm = Algorithm::push_relabel, .bottlenecks = true});
    CHECK(answer.value == searched.value);
    CHECK(answer.upper == searched.upper);
    CHECK(answer.bottleneck == searched.bottleneck);
}

}  // namespace
}  // namespace attnflow::testing
