// Both solvers against the twin, on every family of networks. Every solve here is certified, and compared in value, cut,
// bottleneck, bounds and edge flows: see agreement.hpp.
#include "agreement.hpp"
#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

// What is common to the tests below: a family, all profiles of the scalars that have them, a few seeds each.
void families_agree(Family family, std::uint32_t rounds) {
    const bool any_blocks = family == Family::block_dag || family == Family::cyclic || family == Family::diagonals ||
                            family == Family::one_block_wide;
    for (const Profile profile : profiles)
        for (const Scalar scalar : scalars)
            for (std::uint32_t round = 0; round < rounds; ++round) {
                Random random((std::uint64_t{round} << 32) + static_cast<std::uint64_t>(family) * 1000 +
                              static_cast<std::uint64_t>(profile) * 10 + static_cast<std::uint64_t>(scalar));
                const Scope scope(std::string(name(family)) + ", " + name(profile) + ", " + name(scalar) + ", round " +
                                  std::to_string(round));
                // Mostly small, so that cuts are varied; some beyond a word of 64, which the twin takes long for.
                const bool wide = round == 7 && ((profile == Profile::peaked && scalar == Scalar::float32) ||
                                                 (profile == Profile::wide && scalar == Scalar::int64));
                const std::uint32_t width = wide ? random.between(60, 70) : random.between(1, 12);
                const Store store = random_network(family, profile, scalar, width, random);
                const Network network = store.network();
                CHECK_NONE(disagreements(
                    network,
                    random_query(network, any_blocks || (family == Family::two_stacks && round % 2 == 1), random)));
            }
}

TEST(solvers, layered_dense) { families_agree(Family::layered_dense, 8); }
TEST(solvers, layered_causal) { families_agree(Family::layered_causal, 8); }
TEST(solvers, layered_sparse) { families_agree(Family::layered_sparse, 16); }
TEST(solvers, block_diagonal) { families_agree(Family::block_diagonal, 8); }
TEST(solvers, residual_stream) { families_agree(Family::residual_stream, 8); }
TEST(solvers, two_stacks) { families_agree(Family::two_stacks, 24); }
TEST(solvers, ragged_layers) { families_agree(Family::ragged_layers, 8); }
TEST(solvers, block_dag) { families_agree(Family::block_dag, 24); }
TEST(solvers, cyclic) { families_agree(Family::cyclic, 24); }
TEST(solvers, diagonals) { families_agree(Family::diagonals, 24); }
TEST(solvers, long_paths) { families_agree(Family::one_block_wide, 8); }

// Large enough for thousands of touched edges, several growths of their table, and rows of three words.
TEST(solvers, large_layers) {
    Random random(7);
    const auto value = [&](std::uint32_t j, std::uint32_t k) {
        return k <= j ? draw<float>(Profile::peaked, random) + (j == k ? 0.5F : 0.0F) : 0.0F;
    };
    Store store({130, 130, 130, 130});
    store.dense<float>(0, 1, value).dense<float>(1, 2, value).dense<float>(2, 3, value);
    const Network network = store.network();
    const Node last = network.first_node(3);
    CHECK_NONE(disagreements(network, {{{0}, {77}, {3, 5, 90, 128}}, {{last + 129}, {last + 100, last + 127}}}));
}

// The decoder that generates: the top block feeds the bottom one, one position on, without bound.
TEST(solvers, chained_generation) {
    Random random(11);
    const std::uint32_t n = 9;
    const auto causal = [&](std::uint32_t j, std::uint32_t k) { return k <= j ? random.uniform() : 0.0; };
    Store store({n, n, n});
    store.dense<double>(0, 1, causal).dense<double>(1, 2, causal);
    store.diagonal<double>(2, 0, 1, [&](std::uint32_t k) { return k >= 4 ? infinity : 0.0; });
    const Network network = store.network();
    const Node top = network.first_node(2);
    CHECK_NONE(disagreements(network, {{{0}, {1}, {2}, {3}, {0, 1, 2, 3}}, {{top + 8}, {top + 6, top + 8}}}));
}

// Single nodes joined by single edges, for networks that are drawn by hand.
struct Sketch {
    struct Line {
        Node from, to;
        std::int64_t capacity;
    };
    static Store store(std::uint32_t n_nodes, const std::vector<Line>& lines) {
        Store made(std::vector<std::uint32_t>(n_nodes, 1));
        for (const Line& line : lines)
            made.dense<std::int64_t>(line.from, line.to, [&](std::uint32_t, std::uint32_t) { return line.capacity; });
        return made;
    }
};

// Demand can go around a cycle many times before it finds its long way to the source. What is left of it then must not
// be taken back around that cycle unit by unit.
TEST(solvers, wide_cycles_and_a_remainder) {
    const std::int64_t wide = std::int64_t{1} << 40;
    const std::uint32_t length = 12;
    const Node source = 0, a = length, b = length + 1, sink = length + 2;
    std::vector<Sketch::Line> lines = {{source, a, 1}, {a, b, 3 * wide}, {b, a, 3 * wide}, {a, sink, wide}};
    for (Node node = 0; node + 1 < length; ++node) lines.push_back({node, node + 1, wide - 2});
    lines.push_back({length - 1, a, wide});
    const Store store = Sketch::store(length + 3, lines);
    const Network network = store.network();
    CHECK_NONE(disagreements(network, {{{source}}, {{sink}}}));
}

// Nodes whose only way to the source leads through the sink have none: no search may tell them that they do.
TEST(solvers, demand_behind_the_sink) {
    const Node source = 0, sink = 1, x = 2, y = 3, z = 4, p = 5, q = 6, chain = 7, n = 30;
    // q feeds the sink without bound, which keeps it in reach; p -> q keeps the value below what leaves the source.
    std::vector<Sketch::Line> lines = {{source, sink, 1}, {sink, x, 9}, {source, chain, 1},
                                       {source, p, 5},    {p, q, 2},    {q, sink, unbounded}};
    for (const Node from : {x, y, z}) {
        lines.push_back({from, sink, 5});
        for (const Node to : {x, y, z})
            if (from != to) lines.push_back({from, to, 7});
    }
    for (Node node = chain; node + 1 < n; ++node) lines.push_back({node, node + 1, 1});
    const Store store = Sketch::store(n, lines);
    const Network network = store.network();
    CHECK_NONE(disagreements(network, {{{source}}, {{sink}}}));
}

// A diagonal's zeros are no edges, wherever they stand among the links.
TEST(solvers, zeros_on_diagonals) {
    Random random(13);
    for (int round = 0; round < 200; ++round) {
        const Scope scope("round " + std::to_string(round));
        Store store({3, 4, 4, 3});
        const auto value = [&](std::uint32_t, std::uint32_t) { return static_cast<float>(random.below(4)); };
        const auto sparse = [&](std::uint32_t) { return static_cast<float>(random.chance(0.5) ? 0 : random.below(6)); };
        store.dense<float>(0, 1, value).diagonal<float>(1, 2, 0, sparse).dense<float>(1, 2, value);
        store.diagonal<float>(1, 2, 1, sparse).diagonal<float>(2, 3, 0, sparse).dense<float>(2, 3, value);
        store.diagonal<float>(2, 1, -1, sparse);
        const Network network = store.network();
        CHECK_NONE(disagreements(network, {{{0}, {1, 2}}, {{11}, {12, 13}}}));
    }
}

// int32 and int64, or float32 and float64, in one network.
TEST(solvers, mixed_widths) {
    Random random(17);
    for (int round = 0; round < 60; ++round) {
        const Scope scope("round " + std::to_string(round));
        const bool extreme = round % 2 == 0;
        Store store({5, 6, 6, 5});
        store.dense<std::int64_t>(0, 1, [&](std::uint32_t, std::uint32_t) { return random.next() >> 16; });
        store.dense<std::int32_t>(1, 2, [&](std::uint32_t, std::uint32_t) {
            return extreme && random.chance(0.5) ? std::numeric_limits<std::int32_t>::max()
                                                 : static_cast<std::int32_t>(random.below(1U << 30));
        });
        store.dense<std::int64_t>(2, 3, [&](std::uint32_t, std::uint32_t) { return random.next() >> 20; });
        const Network network = store.network();
        CHECK_NONE(disagreements(network, {{{0}, {1, 2}}, {{17}, {18, 19}}}));
    }
    for (int round = 0; round < 60; ++round) {
        const Scope scope("floating, round " + std::to_string(round));
        Store store({5, 6, 6, 5});
        const double scale = round % 3 == 0 ? 1e300 : round % 3 == 1 ? 1e-300 : 1.0;
        store.dense<double>(0, 1, [&](std::uint32_t, std::uint32_t) { return random.uniform() * scale; });
        store.dense<float>(1, 2, [&](std::uint32_t, std::uint32_t) { return draw<float>(Profile::peaked, random); });
        store.dense<double>(2, 3, [&](std::uint32_t, std::uint32_t) { return random.uniform() / scale; });
        const Network network = store.network();
        CHECK_NONE(disagreements(network, {{{0}, {1, 2}}, {{17}, {18, 19}}}));
    }
}

// An integer link beside a floating one is counted in the same quanta, or refused; never taken for quanta itself.
TEST(solvers, integers_beside_floats) {
    Store store({1, 1, 1});
    store.dense<std::int32_t>(0, 1, [](std::uint32_t, std::uint32_t) { return 3; });
    store.dense<float>(1, 2, [](std::uint32_t, std::uint32_t) { return 5.0F; });
    try {
        const Network network = store.network();
        solve(network, {{{0}}, {{2}}}, {});
        CHECK_NONE(disagreements(network, {{{0}}, {{2}}}));
    } catch (const InvalidArgument&) {
    }
}

}  // namespace
}  // namespace attnflow::testing
