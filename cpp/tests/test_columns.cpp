// Flow along columns: whatever it builds must be a flow of the value it says, and on residual networks a large one.
#include "columns.hpp"

#include <algorithm>
#include <map>
#include <optional>
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

// Everything that is wrong with `flows` as a flow that leaves so much at every node (negative: starts there).
std::vector<std::string> faults_of(const CapacityIndex& capacities, const std::vector<EdgeFlow>& flows,
                                   const std::vector<Units>& leaves) {
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
    for (Node node = 0; node < net.n_nodes(); ++node)
        if (balance[node] != leaves[node])
            faults.push_back("node " + std::to_string(node) + " keeps " + std::to_string(balance[node]) +
                             ", expected " + std::to_string(leaves[node]));
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
        columns_.enter(capacities_.network().block_of(source), {sink});
        std::vector<Units> leaves(capacities_.network().n_nodes(), 0);
        return fill(source, bound, leaves, [&](Units value) { leaves[sink] += value; });
    }

    // Up to the end of a chain that ends before the sink, where `demands` [position] may leave.
    Built build_early(Node source, Node sink, Units bound, const std::vector<Units>& demands) {
        const Network& net = capacities_.network();
        columns_.enter(net.block_of(source), {sink});
        const std::uint32_t end = columns_.early_end().value();
        columns_.demand(demands);
        std::vector<Units> leaves(net.n_nodes(), 0);
        bool within = true;
        Built built = fill(source, bound, leaves, [&](Units) {
            for (std::uint32_t k = 0; k < net.size(end); ++k) {
                leaves[net.first_node(end) + k] = columns_.delivered()[k];
                within = within && columns_.delivered()[k] >= 0 && columns_.delivered()[k] <= demands[k];
            }
        });
        if (!within) built.faults.push_back("more than is demanded is delivered");
        return built;
    }
    // The maximum flow, in the quanta used here, which hold a little more.
    Units most(Node source, Node sink) const {
        const Answer answer =
            solve(capacities_.network(), {{{source}}, {{sink}}}, {.algorithm = Algorithm::push_relabel});
        return capacities_.quantum().floor(answer.quantum.lower(answer.value[0]));
    }
    std::optional<std::uint32_t> early_end(Node source, Node sink) {
        columns_.enter(capacities_.network().block_of(source), {sink});
        return columns_.early_end();
    }

   private:
    template <class Leave>
    Built fill(Node source, Units bound, std::vector<Units>& leaves, const Leave& leave) {
        const Network& net = capacities_.network();
        std::vector<Word> sources(net.n_words(), 0), reached;
        set_bit(&sources[net.first_word(net.block_of(source))], net.position_of(source));
        const std::atomic<bool> stop{false};
        Pulse pulse(stop);
        nodes_reached(capacities_, sources, reached, pulse);
        Built built;
        built.value = columns_.fill(source, reached, bound, true);
        residual_.reset();
        columns_.load(residual_);
        built.flows = residual_.flows();
        leaves[source] = -built.value;
        if (columns_.can_load()) leave(built.value);
        built.faults = faults_of(capacities_, built.flows, leaves);
        if (built.value < 0 || built.value > bound) built.faults.push_back("value beyond the bound");
        return built;
    }

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
    std::size_t n_whole = 0;
    for (const Family family : {Family::layered_dense, Family::layered_causal, Family::layered_sparse,
                                Family::block_diagonal, Family::residual_stream, Family::one_block_wide})
        for (const Profile profile : {Profile::fractions, Profile::peaked, Profile::ties, Profile::wide, Profile::huge})
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
                            // Far beyond what it finds, it stops early.
                            const Units most = bench.most(s, sink);
                            n_whole += most > 0 && bench.build(s, sink, most).value == most;
                            for (const Units part : {unbounded, most, most / 2, most / 7}) {
                                const Built bounded = bench.build(s, sink, part);
                                CHECK_NONE(bounded.faults);
                                CHECK(bounded.value <= part);
                            }
                        }
                }
    CHECK(n_whole > 1000);
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
    const Built built = Bench(network).build(0, network.first_node(3) + 2, Units{6});
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
    const Built built = Bench(network).build(0, network.first_node(3) + 2, Units{5});
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, Units{4});
    CHECK_EQUAL(best(network, 0, network.first_node(3) + 2), Units{4});
}

TEST(columns, a_step_between_columns) {
    // Source 0, sink 3; column 1 can take in 5 and give 1, column 2 can take in nothing and give 4.
    Store store({4, 4, 4, 4});
    const auto entry = [](std::uint32_t layer) {
        return [=](std::uint32_t j, std::uint32_t k) -> std::int32_t {
            if (j == k) return 20;
            if (layer == 0 && j == 1 && k == 0) return 5;
            if (layer == 0 && j == 4 && k == 0) return 12;
            if (layer == 1 && j == 2 && k == 1) return 3;
            if (layer == 2 && j == 3 && k == 1) return 1;
            if (layer == 2 && j == 3 && k == 2) return 4;
            return 0;
        };
    };
    for (std::uint32_t l = 0; l < 3; ++l) store.dense<std::int32_t>(l, l + 1, entry(l));
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(3) + 3, Units{5});
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, Units{4});
}

TEST(columns, two_steps_between_columns) {
    // Source 0, sink 4: column 1 takes in 5 and gives nothing, 2 only passes on what it gets, 3 can give 4 at the end.
    // 12 go straight to the sink's column, else two steps are too little to bother.
    Store store({5, 5, 5, 5, 5});
    const auto entry = [](std::uint32_t layer) {
        return [=](std::uint32_t j, std::uint32_t k) -> std::int32_t {
            if (j == k) return 20;
            if (layer == 0 && j == 1 && k == 0) return 5;
            if (layer == 0 && j == 4 && k == 0) return 12;
            if (layer == 1 && j == 2 && k == 1) return 3;
            if (layer == 2 && j == 3 && k == 2) return 2;
            if (layer == 3 && j == 4 && k == 3) return 4;
            return 0;
        };
    };
    for (std::uint32_t l = 0; l < 4; ++l) store.dense<std::int32_t>(l, l + 1, entry(l));
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(4) + 4, Units{14});
    CHECK_NONE(built.faults);
    CHECK_EQUAL(built.value, best(network, 0, network.first_node(4) + 4));
    CHECK_EQUAL(built.value, Units{14});
}

TEST(columns, source_and_sink_of_one_position) {
    const Layer layer{{{4, 1, 1}, {2, 5, 0}, {3, 0, 5}}};
    const Store store = chain({layer, layer, layer});
    const Network network = store.network();
    const Built built = Bench(network).build(0, network.first_node(3), Units{8});
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
    const auto few = [&](std::uint32_t, std::uint32_t) { return random.uniform() / 16; };
    Store store({4, 4, 2, 4, 4});  // 0 -> 1 -> 3 -> 4 is a chain; block 2 hangs in between, 4 -> 0 goes back
    store.dense<double>(0, 1, any).dense<double>(0, 2, few).dense<double>(2, 3, any).dense<double>(1, 3, any);
    store.dense<double>(3, 4, any).dense<double>(4, 0, any);
    const Network network = store.network();
    Bench bench(network);
    for (Node s = 0; s < 4; ++s) {
        const Built built = bench.build(s, network.first_node(4) + 2, bench.most(s, network.first_node(4) + 2) / 2);
        CHECK_NONE(built.faults);
        CHECK(built.value > 0);
    }
}

TEST(columns, up_to_an_early_end) {
    std::size_t n_early = 0, n_positive = 0;
    for (const Profile profile : {Profile::fractions, Profile::peaked, Profile::ties, Profile::wide, Profile::huge})
        for (const Scalar scalar : {Scalar::float32, Scalar::float64, Scalar::int64})
            for (std::uint32_t round = 0; round < 12; ++round) {
                Random random(round * 1000 + static_cast<std::uint64_t>(profile) * 10 +
                              static_cast<std::uint64_t>(scalar));
                const Store store = random_network(Family::two_stacks, profile, scalar, random.between(1, 9), random);
                const Network network = store.network();
                const Node sink = network.first_node(network.n_blocks() - 1);
                Bench bench(network);
                const std::optional<std::uint32_t> end = bench.early_end(0, sink);
                if (!end) continue;
                ++n_early;
                const CapacitySurvey survey(network);
                const CapacityIndex capacities(network, survey,
                                               Quantum(std::min(survey.total, 0x1p60), 1, survey.integers));
                std::vector<Units> demands(network.size(*end));
                for (Node s = 0; s < network.size(0); ++s) {
                    const Scope scope(std::string(name(profile)) + ", " + name(scalar) + ", round " +
                                      std::to_string(round) + ", source " + std::to_string(s));
                    Units total = 0;
                    for (std::uint32_t k = 0; k < demands.size(); ++k) {
                        demands[k] = random.chance(0.2) ? 0 : capacities.straight(0)[k] / random.between(1, 4);
                        total = saturating_sum(total, demands[k]);
                    }
                    for (const Units part : {total, total / 2, total / 7, total / 20}) {
                        const Built bounded = bench.build_early(s, sink, part, demands);
                        CHECK_NONE(bounded.faults);
                        CHECK(bounded.value <= part);
                        n_positive += bounded.value > 0;
                    }
                }
            }
    CHECK(n_early > 50 && n_positive > 50);
}

// Two towers of different widths below one sink: nothing of one may be left beyond the last position of the other.
TEST(columns, chains_of_different_widths) {
    Random random(23);
    const auto any = [&](std::uint32_t j, std::uint32_t k) { return random.uniform() + (j == k ? 3.0 : 0.0); };
    Store store({15, 15, 15, 8, 8, 8, 1});
    store.dense<double>(0, 1, any).dense<double>(1, 2, any).dense<double>(2, 6, any);
    store.dense<double>(3, 4, any).dense<double>(4, 5, any).dense<double>(5, 6, any);
    const Network network = store.network();
    const Node sink = network.first_node(6);
    Bench bench(network);
    for (Node s = 0; s < 8; ++s)
        for (const std::uint32_t block : {0U, 3U}) {
            const Scope scope("block " + std::to_string(block) + ", position " + std::to_string(s));
            const Node source = network.first_node(block) + s;
            const Units most = bench.most(source, sink);
            const Built built =
                bench.build_early(source, sink, most, std::vector<Units>(network.size(block), most / 3));
            CHECK_NONE(built.faults);
            CHECK(built.value > 0);
        }
}

// A position everybody attends to, in many layers: what its column is refused sums to more than a word holds.
TEST(columns, popular_sources_do_not_overflow) {
    constexpr std::uint32_t n = 64, layers = 24;
    Random random(29);
    Store store(std::vector<std::uint32_t>(layers + 1, n));
    for (std::uint32_t l = 0; l < layers; ++l)
        store.dense<float>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) {
            return j == k ? 0.5 : k == 0 ? 0.45 : 0.1 * random.uniform() / n;
        });
    const Network network = store.network();
    Query query{{}, {{network.first_node(layers) + n - 1}, {network.first_node(layers)}}};
    for (Node s = 0; s < n; s += 3) query.sources.push_back({s});
    const Answer checked = solve(network, query, {.check = true});
    const Answer plain = solve(network, query, {});
    CHECK(checked.value == plain.value);
    CHECK(plain.value == solve(network, query, {.algorithm = Algorithm::push_relabel}).value);
}

// Heads that attend to the token before give neighbours of the source much to pour out: into hundreds of edges, through the
// same layers that sweeps use, in the first attempt and in the second.
TEST(columns, heavy_givers_pour) {
    constexpr std::uint32_t n = 150, layers = 5;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        Random random(seed);
        Store store(std::vector<std::uint32_t>(layers + 1, n));
        for (std::uint32_t l = 0; l < layers; ++l)
            store.dense<float>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) {
                const double before = j == k + 1 ? 0.25 : j == k + 20 ? 0.15 : 0.0;
                return (j == k ? 0.4 : before) + 0.25 * random.uniform() * random.uniform() / n;
            });
        const Network network = store.network();
        Query query{{}, {{network.first_node(layers) + n / 2}, {network.first_node(layers)}}};
        for (Node s = static_cast<Node>(seed); s < n; s += 9) query.sources.push_back({s});
        const Answer checked = solve(network, query, {.check = true});
        CHECK(checked.value == solve(network, query, {}).value);
        CHECK(checked.value == solve(network, query, {.algorithm = Algorithm::push_relabel}).value);
    }
}

// A chain of such layers, up to a block `top` of n nodes.
void add_residual_layers(Store& store, std::uint32_t top, std::uint32_t n, Random& random) {
    for (std::uint32_t l = 0; l < top; ++l)
        store.dense<double>(l, l + 1, [&](std::uint32_t j, std::uint32_t k) {
            return (0.5 + 0.5 * random.uniform()) / n * 0.5 + (j == k ? 0.5 : 0.0);
        });
}

// All sources of block 0, and no more searches than that.
void need_hardly_a_search(const Network& network, std::vector<std::vector<Node>> sinks, std::uint64_t most) {
    Query query{{}, std::move(sinks)};
    for (Node s = 0; s < network.size(0); ++s) query.sources.push_back({s});
    const Answer answer = solve(network, query, {.bottlenecks = true});
    CHECK(answer.statistics.searches <= most);
    const Answer searched = solve(network, query, {.algorithm = Algorithm::push_relabel, .bottlenecks = true});
    CHECK(answer.value == searched.value);
    CHECK(answer.upper == searched.upper);
    CHECK(answer.bottleneck == searched.bottleneck);
}

// What the whole thing is for: with a residual stream, the columns alone reach the bounds of nearly every pair.
TEST(columns, residual_networks_need_hardly_a_search) {
    constexpr std::uint32_t n = 70, top = 6;
    Random random(17);
    Store store(std::vector<std::uint32_t>(top + 1, n));
    add_residual_layers(store, top, n, random);
    const Network network = store.network();
    const Node first = network.first_node(top);
    need_hardly_a_search(network, {{first + 3}, {first + n / 2}}, 10);  // of 140 pairs
    need_hardly_a_search(network, {{first + 3, first + 50, first + 51}}, 10);
}

TEST(columns, chains_that_end_early_need_hardly_a_search) {
    constexpr std::uint32_t n = 70, top = 6;
    Random random(19);
    const auto any = [&](std::uint32_t, std::uint32_t) { return random.uniform() / n; };
    Store pool({n, n, n, n, n, n, n, 1});
    add_residual_layers(pool, top, n, random);
    pool.dense<double>(top, top + 1, [&](std::uint32_t, std::uint32_t) { return 1.0 / n; });
    const Network pooled = pool.network();
    need_hardly_a_search(pooled, {{pooled.first_node(top + 1)}}, 10);

    // Two layers on top that look at the chain's end, each with a residual of its own.
    Store stacks({n, n, n, n, n, n, n, 5, 5, 5});
    add_residual_layers(stacks, top, n, random);
    for (std::uint32_t b = top + 1; b < top + 3; ++b) {
        stacks.dense<double>(top, b + 1, any);
        stacks.diagonal<double>(b, b + 1, 0, [](std::uint32_t) { return 0.5; });
    }
    const Network two = stacks.network();
    need_hardly_a_search(two, {{two.first_node(top + 3) + 1}, {two.first_node(top + 3) + 4}}, 20);
}

}  // namespace
}  // namespace attnflow::testing
