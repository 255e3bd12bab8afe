// The twin itself: against every cut of networks small enough to count them all, and by hand.
#include "edmonds_karp.hpp"

#include <algorithm>

#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

using reference::Edge;
using reference::MaximumFlow;

Edge edge(Node from, Node to, Units capacity) { return {0, 0, 0, from, to, capacity}; }

Units cut(const std::vector<Edge>& edges, std::uint64_t source_side) {
    Units sum = 0;
    for (const Edge& e : edges)
        if ((source_side >> e.from & 1U) && !(source_side >> e.to & 1U)) sum += e.capacity;
    return sum;
}

TEST(reference, equals_the_least_of_all_cuts) {
    Random random(1);
    for (int round = 0; round < 300; ++round) {
        const std::uint32_t n = random.between(2, 9);
        std::vector<Edge> edges;
        for (std::uint32_t i = random.below(4 * n); i > 0; --i)
            edges.push_back(edge(random.below(n), random.below(n), Units{random.between(1, 6)}));
        std::vector<Node> sources = {0}, sinks = {n - 1};
        if (n > 4 && random.chance(0.5)) sources.push_back(1), sinks.push_back(n - 2);
        std::uint64_t from = 0, to = 0;
        for (const Node node : sources) from |= std::uint64_t{1} << node;
        for (const Node node : sinks) to |= std::uint64_t{1} << node;
        Units least = unbounded;
        std::uint64_t nearest = ~std::uint64_t{0};  // minimum cuts form a lattice: the nearest is their intersection
        for (std::uint64_t side = 0; side < std::uint64_t{1} << n; ++side) {
            if ((side & from) != from || (side & to) != 0) continue;
            const Units capacity = cut(edges, side);
            if (capacity < least) nearest = ~std::uint64_t{0};
            if (capacity <= least) nearest &= side;
            least = std::min(least, capacity);
        }
        const MaximumFlow flow = reference::edmonds_karp(edges, n, sources, sinks);
        CHECK_EQUAL(flow.value, least);
        std::uint64_t side = 0;
        for (std::uint32_t node = 0; node < n; ++node)
            if (flow.source_side[node]) side |= std::uint64_t{1} << node;
        CHECK_EQUAL(side, nearest);
        std::vector<Units> balance(n, 0);
        for (std::size_t i = 0; i < edges.size(); ++i) {
            CHECK(flow.flow[i] >= 0 && flow.flow[i] <= edges[i].capacity);
            balance[edges[i].from] -= flow.flow[i];
            balance[edges[i].to] += flow.flow[i];
        }
        Units in = 0;
        for (std::uint32_t node = 0; node < n; ++node) {
            if (to >> node & 1U) in += balance[node];
            if (!((from | to) >> node & 1U)) CHECK_EQUAL(balance[node], Units{0});
        }
        CHECK_EQUAL(in, least);
    }
}

TEST(reference, needs_the_backward_arcs) {
    // The shortest path takes the crossing edge; the maximum takes it back.
    const std::vector<Edge> edges = {edge(0, 1, 1), edge(0, 2, 1), edge(1, 4, 1), edge(2, 3, 1),
                                     edge(4, 5, 1), edge(3, 5, 1), edge(1, 3, 1)};
    CHECK_EQUAL(reference::edmonds_karp(edges, 6, {0}, {5}).value, Units{2});
}

TEST(reference, refuses_unbounded_paths_only) {
    const std::vector<Edge> path = {edge(0, 1, unbounded), edge(1, 2, unbounded)};
    CHECK_THROWS(UnboundedFlow, reference::edmonds_karp(path, 3, {0}, {2}));
    const std::vector<Edge> narrow = {edge(0, 1, unbounded), edge(1, 2, 7), edge(0, 2, 3)};
    CHECK_EQUAL(reference::edmonds_karp(narrow, 3, {0}, {2}).value, Units{10});
}

TEST(reference, reads_quanta_of_every_scalar) {
    const auto read = [](auto value, int exponent) {
        using T = decltype(value);
        Store store({1, 1});
        store.dense<T>(0, 1, [&](std::uint32_t, std::uint32_t) { return value; });
        return reference::quanta(store.links()[0], 0, 0, exponent);
    };
    CHECK_EQUAL(read(0.75F, 2), Units{3});
    CHECK_EQUAL(read(0.75, 1), Units{1});
    CHECK_EQUAL(read(5e-324, 1000), Units{0});
    CHECK_EQUAL(read(5e-324, 1074), Units{1});
    CHECK_EQUAL(read(1e308, -1000), static_cast<Units>(1e308 / 0x1p1000));
    CHECK_EQUAL(read(std::int32_t{7}, 3), Units{56});
    CHECK_EQUAL(read(std::int64_t{7}, -1), Units{3});
    CHECK_EQUAL(read(std::int64_t{7}, -200), Units{0});
    CHECK_EQUAL(read(std::int64_t{1} << 40, 22), unbounded);
    CHECK_EQUAL(read((std::int64_t{1} << 40) - 1, 22), ((Units{1} << 40) - 1) << 22);
    CHECK_EQUAL(read(infinity, reference::only_unbounded), unbounded);
    CHECK_EQUAL(read(1e308, reference::only_unbounded), Units{0});
    CHECK_EQUAL(read(std::int64_t{1} << 62, reference::only_unbounded), unbounded);
    CHECK_EQUAL(read((std::int64_t{1} << 62) - 1, reference::only_unbounded), Units{0});
}

}  // namespace
}  // namespace attnflow::testing
