// Values along orders of players: against the twin, whatever the order, the threads and what came before.
#include <algorithm>
#include <numeric>

#include "attnflow/coalitions.hpp"
#include "attnflow/errors.hpp"
#include "edmonds_karp.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

constexpr std::uint32_t nobody = Orders::nobody;

// A random game: players of one to three nodes of the first block, not always all of it, and a sink of the last.
Game random_game(const Network& net, Random& random) {
    std::vector<Node> nodes(net.size(0));
    std::iota(nodes.begin(), nodes.end(), Node{0});
    for (std::size_t i = nodes.size(); i > 1; --i)
        std::swap(nodes[i - 1], nodes[random.below(static_cast<std::uint32_t>(i))]);
    Game game;
    for (std::size_t first = 0; first < nodes.size() && game.players.size() < 6;) {
        const std::size_t end = std::min<std::size_t>(nodes.size(), first + random.between(1, 3));
        game.players.emplace_back(nodes.begin() + static_cast<std::ptrdiff_t>(first),
                                  nodes.begin() + static_cast<std::ptrdiff_t>(end));
        first = end;
    }
    const Node top = net.first_node(net.n_blocks() - 1);
    const std::uint32_t size = net.size(net.n_blocks() - 1);
    game.sink.push_back(top + random.below(size));
    if (random.chance(0.3)) game.sink.push_back(top + random.below(size));
    return game;
}

std::vector<std::uint32_t> random_orders(std::size_t n_players, std::size_t n_orders, Random& random) {
    std::vector<std::uint32_t> orders;
    for (std::size_t o = 0; o < n_orders; ++o) {
        std::vector<std::uint32_t> order(n_players);
        std::iota(order.begin(), order.end(), 0U);
        for (std::size_t i = n_players; i > 1; --i)
            std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
        if (random.chance(0.2))
            std::fill(order.begin() + random.below(static_cast<std::uint32_t>(n_players)), order.end(), nobody);
        orders.insert(orders.end(), order.begin(), order.end());
    }
    return orders;
}

PrefixValues values_of(const Network& net, const Game& game, const std::vector<std::uint32_t>& orders,
                       std::size_t length, unsigned threads = 1, bool check = true) {
    return prefix_values(net, game, {orders.data(), orders.size() / length, length}, {threads, check, nullptr});
}

Units twin(const Network& net, const Game& game, const std::vector<std::uint32_t>& members, int exponent) {
    std::vector<Node> sources;
    for (const std::uint32_t player : members)
        sources.insert(sources.end(), game.players[player].begin(), game.players[player].end());
    if (sources.empty()) return 0;
    return reference::edmonds_karp(reference::edges(net, exponent), net.n_nodes(), sources, game.sink).value;
}

TEST(coalitions, equal_the_twin) {
    Random random(1);
    std::size_t compared = 0, positive = 0;
    for (int round = 0; round < 400; ++round) {
        const Family family = families[random.below(std::size(families))];
        const Profile profile = profiles[random.below(std::size(profiles))];
        const Scalar scalar = scalars[random.below(std::size(scalars))];
        const Scope scope(std::string(name(family)) + ", " + name(profile) + ", " + name(scalar) + ", round " +
                          std::to_string(round));
        Store store = random_network(family, profile, scalar, random.between(2, 8), random);
        const Network net = store.network();
        if (net.n_blocks() < 2 || !net.links_into(0).empty()) continue;
        const Game game = random_game(net, random);
        const std::size_t n = game.players.size();
        const std::vector<std::uint32_t> orders = random_orders(n, 5, random);
        PrefixValues got;
        try {
            got = values_of(net, game, orders, n, 1 + random.below(3));
        } catch (const UnboundedFlow&) {
            std::vector<Node> nodes;
            for (const std::vector<Node>& player : game.players)
                nodes.insert(nodes.end(), player.begin(), player.end());
            CHECK_THROWS(UnboundedFlow, reference::edmonds_karp(reference::edges(net, reference::only_unbounded),
                                                                net.n_nodes(), nodes, game.sink));
            continue;
        } catch (const CapacityOverflow&) {
            continue;  // solve() has the same quantum, and tests of when it overflows
        }
        CHECK_EQUAL(values_of(net, game, orders, n, 1, false).value, got.value);
        for (std::size_t o = 0; o < orders.size() / n; ++o) {
            std::vector<std::uint32_t> members;
            for (std::size_t i = 0; i < n; ++i) {
                if (orders[o * n + i] != nobody) members.push_back(orders[o * n + i]);
                const Units expected = twin(net, game, members, got.quantum.exponent());
                CHECK_EQUAL(got.value[o * n + i], expected);
                ++compared;
                positive += expected > 0;
            }
        }
        std::vector<std::uint32_t> everyone(n);
        std::iota(everyone.begin(), everyone.end(), 0U);
        CHECK_EQUAL(got.all, twin(net, game, everyone, got.quantum.exponent()));
    }
    CHECK(compared > 2000);
    CHECK(positive > 1000);
}

// One flow serves all orders of a call, and they are taken in another order than they are given in.
TEST(coalitions, do_not_depend_on_other_orders) {
    Random random(2);
    std::size_t compared = 0;
    for (int round = 0; round < 60; ++round) {
        const Scope scope("round " + std::to_string(round));
        Store store =
            random_network(families[random.below(std::size(families))], profiles[random.below(std::size(profiles))],
                           Scalar::int32, random.between(4, 12), random);
        const Network net = store.network();
        if (net.n_blocks() < 2 || !net.links_into(0).empty()) continue;
        const Game game = random_game(net, random);
        const std::size_t n = game.players.size();
        const std::vector<std::uint32_t> orders = random_orders(n, 40, random);
        const std::vector<Units> together = values_of(net, game, orders, n, 2, false).value;
        for (std::size_t o = 0; o < orders.size(); o += n) {
            const auto first = static_cast<std::ptrdiff_t>(o), end = static_cast<std::ptrdiff_t>(o + n);
            CHECK_EQUAL(values_of(net, game, {orders.begin() + first, orders.begin() + end}, n).value,
                        (std::vector<Units>{together.begin() + first, together.begin() + end}));
            ++compared;
        }
    }
    CHECK(compared > 500);
}

// Two players of 10 and 6 and a bottleneck of 10: whoever comes first sends all he has.
TEST(coalitions, share_a_bottleneck) {
    Store store({2, 1, 1});
    store.dense<std::int32_t>(0, 1, [](std::uint32_t, std::uint32_t k) { return k == 0 ? 10 : 6; });
    store.dense<std::int32_t>(1, 2, [](std::uint32_t, std::uint32_t) { return 10; });
    const Network net = store.network();
    const Game game{{{0}, {1}}, {3}};
    const PrefixValues got = values_of(net, game, {0, 1, 1, 0, 1, nobody}, 2);
    CHECK_EQUAL(got.value, (std::vector<Units>{10, 10, 6, 10, 6, 6}));
    CHECK_EQUAL(got.all, Units{10});
    CHECK(got.exact);
}

TEST(coalitions, refuse_what_is_no_game) {
    Store store({2, 2, 2});
    const auto one = [](std::uint32_t, std::uint32_t) { return 1; };
    store.dense<std::int32_t>(0, 1, one);
    store.dense<std::int32_t>(1, 2, one);
    const Network net = store.network();
    const std::vector<std::uint32_t> orders = {0, 1};
    const auto message = [&](const Game& game, const std::vector<std::uint32_t>& given) {
        return CHECK_THROWS(InvalidArgument, values_of(net, game, given, 2));
    };
    CHECK_EQUAL(message({{}, {4}}, orders), "there are no players; at least one is needed");
    CHECK_EQUAL(message({{{0}, {}}, {4}}, orders), "player 1 is an empty set of nodes");
    CHECK_EQUAL(message({{{0}, {9}}, {4}}, orders), "player 1 names node 9, but there are 6");
    CHECK_EQUAL(message({{{0, 1}, {1}}, {4}}, orders), "node 1 of block 0 is part of player 0 and of player 1");
    CHECK_EQUAL(message({{{0}, {2}}, {4}}, orders), "player 1 has node 0 of block 1, which links enter");
    CHECK_EQUAL(message({{{0}, {1}}, {1}}, orders), "node 1 of block 0 is both in player 1 and in the sink");
    CHECK_EQUAL(message({{{0}, {1}}, {4}}, {0, 0}), "player 0 comes twice in order 0");
    CHECK_EQUAL(message({{{0}, {1}}, {4}}, {0, 2}), "order 0 names player 2, but there are 2");
}

TEST(coalitions, refuse_unbounded_flows) {
    Store store({2, 1});
    store.dense<double>(0, 1, [](std::uint32_t, std::uint32_t k) { return k == 0 ? 1.0 : infinity; });
    const Network net = store.network();
    const Game game{{{0}, {1}}, {2}};
    CHECK_EQUAL(CHECK_THROWS(UnboundedFlow, values_of(net, game, {0, 1}, 2)),
                "player 1 (node 1 of block 0) reaches the sink through unbounded edges alone");
}

}  // namespace
}  // namespace attnflow::testing
