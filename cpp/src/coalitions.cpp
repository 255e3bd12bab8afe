// Values of coalitions along orders of the players
//
// Problem. v(S) for the prefixes of thousands of orders: a maximum flow each, from scratch, would be the number of players
// times the price of an order.
//
// One order. Players come one after the other and stay. A newcomer augments the flow of those before him, on one residual
// network; theirs needs no change. For what S reaches in the residual network after a maximum flow is a set that no
// residual arc leaves and that holds no sink. A path of the newcomer that entered it could not come out, so none does, no
// arc out of it ever opens, and S sends as much as before. Therefore the newcomer's marginal value v(S + i) - v(S) is what he
// adds; and what his last search visited leads nowhere for all who come later, and is left out of their searches.
//
// Bounds. A marginal value is at most what leaves the newcomer's nodes, and at most v(all) - v(S). A search that gets there
// ends without looking further; once v(S) = v(all), all others add nothing. On real attention that is most of them.
//
// All orders. They have their way through the deep layers in common. So one flow inside serves all of them: newcomers take
// their share of it over from whoever it was found for (coalition_flow.hpp). Orders are taken sorted, so that neighbours begin
// alike: what their first players send is there already, and is taken over without a search.
//
// Complexity. An order costs about one maximum flow at most; measured in docs/design/games.md.

#include "attnflow/coalitions.hpp"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>

#include "attnflow/certificate.hpp"
#include "attnflow/errors.hpp"
#include "coalition_flow.hpp"
#include "crew.hpp"
#include "stretches.hpp"
#include "terminals.hpp"

namespace attnflow {
namespace {

void validate(const Network& net, const Game& game, const Orders& orders) {
    check_sets(net, game.players, "player");
    check_sets(net, {game.sink}, "sink");
    for (const Link& link : net.links())
        if (link.dropped_in != nullptr || link.dropped_out != nullptr)
            throw InvalidArgument("the game of a network that dropped edges has no bounds: keep all edges");
    std::vector<std::size_t> owner(net.n_nodes(), game.players.size());
    for (std::size_t i = 0; i < game.players.size(); ++i)
        for (const Node node : game.players[i]) {
            if (owner[node] != game.players.size())
                throw InvalidArgument(describe(net, {node}) + " is part of player " + std::to_string(owner[node]) +
                                      " and of player " + std::to_string(i));
            owner[node] = i;
            if (!net.links_into(net.block_of(node)).empty())
                throw InvalidArgument("player " + std::to_string(i) + " has " + describe(net, {node}) +
                                      ", which links enter");
        }
    for (const Node node : game.sink)
        if (owner[node] != game.players.size())
            throw InvalidArgument(describe(net, {node}) + " is both in player " + std::to_string(owner[node]) +
                                  " and in the sink");
    std::vector<std::size_t> came(game.players.size(), orders.n_orders);
    for (std::size_t order = 0; order < orders.n_orders; ++order)
        for (std::size_t i = 0; i < orders.length; ++i) {
            const std::uint32_t player = orders.players[order * orders.length + i];
            if (player == Orders::nobody) break;
            if (player >= game.players.size())
                throw InvalidArgument("order " + std::to_string(order) + " names player " + std::to_string(player) +
                                      ", but there are " + std::to_string(game.players.size()));
            if (came[player] == order)
                throw InvalidArgument("player " + std::to_string(player) + " comes twice in order " +
                                      std::to_string(order));
            came[player] = order;
        }
}

// What all threads know of the game.
struct Table {
    const CapacityIndex& capacities;
    const Game& game;
    Terminals everyone;          // all players as sources
    std::vector<Units> leaving;  // [player] what leaves his nodes towards the sink
    Units into_sink = 0;         // from nodes that players reach

    Table(const CapacityIndex& index, const Game& players, Pulse& pulse) : capacities(index), game(players) {
        const Network& net = capacities.network();
        for (const std::vector<Node>& nodes : game.players)
            everyone.source_nodes.insert(everyone.source_nodes.end(), nodes.begin(), nodes.end());
        make_set(everyone.source_nodes);
        everyone.sources = node_set(net, everyone.source_nodes);
        everyone.sink_nodes = game.sink;
        everyone.sinks = node_set(net, game.sink);
        const std::vector<Word> reaching = nodes_reaching(capacities, everyone.sinks, pulse);
        std::vector<Word> reached;
        nodes_reached(capacities, everyone.sources, reached, pulse);
        everyone.useless.resize(net.n_words());
        for (std::size_t w = 0; w < net.n_words(); ++w) everyone.useless[w] = ~(reached[w] & reaching[w]);
        for (const std::vector<Node>& nodes : game.players)
            leaving.push_back(out_of(capacities, nodes, everyone.sources, reaching).units);
        into_sink = into(capacities, everyone.sink_nodes, everyone.sinks, reached).units;
    }
};

// The players who have come, and what they are worth.
class Coalition {
   public:
    Coalition(const Table& table, Pulse& pulse)
        : table_(table),
          net_(table.capacities.network()),
          flow_(table.capacities, table.everyone, table.into_sink, pulse) {
        if (flow_.of_everyone() > table.capacities.quantum().flow_limit()) blame(pulse);
    }

    void begin() {
        flow_.begin();
        members_.clear();
        value_ = 0;
    }

    bool any() const { return !members_.empty(); }
    /// The value of all players.
    Units of_everyone() const { return flow_.of_everyone(); }

    /// One more comes. Returns the value of all who have come.
    Units join(std::uint32_t player) {
        const std::vector<Node>& nodes = table_.game.players[player];
        members_.insert(members_.end(), nodes.begin(), nodes.end());
        value_ += flow_.come(nodes, std::min(table_.leaving[player], of_everyone() - value_));
        return value_;
    }

    /// Throws CertificateFailure unless a cut has the value.
    void check_cut() {
        source_side_ = flow_.source_side(members_);
        const Units cut = cut_capacity(table_.capacities, source_side_).units;
        if (cut != value_)
            throw CertificateFailure("a coalition has a flow of " + std::to_string(value_) +
                                     ", but the cut has capacity " + std::to_string(cut));
    }

    /// Throws CertificateFailure unless the flow is one, after check_cut(). After it nobody may come before begin().
    void check_flow() {
        check_certificate(table_.capacities, flow_.own(members_), members_, table_.game.sink, value_, source_side_);
    }

    const Counters& counters() const { return flow_.counters(); }
    std::size_t bytes() const { return flow_.bytes(); }

   private:
    // Says whose flow has no bound.
    [[noreturn]] void blame(Pulse& pulse) {
        for (std::size_t player = 0; player < table_.game.players.size(); ++player) {
            Terminals alone = table_.everyone;
            alone.source_nodes = table_.game.players[player];
            alone.sources = node_set(net_, alone.source_nodes);
            if (CoalitionFlow(table_.capacities, alone, table_.into_sink, pulse).of_everyone() >
                table_.capacities.quantum().flow_limit())
                throw UnboundedFlow("player " + std::to_string(player) + " (" + describe(net_, alone.source_nodes) +
                                    ") reaches the sink through unbounded edges alone");
        }
        throw std::logic_error("all players together have an unbounded flow, and none of them has");
    }

    const Table& table_;
    const Network& net_;
    CoalitionFlow flow_;
    std::vector<Node> members_;
    Units value_ = 0;
    std::vector<Word> source_side_;  // of a minimum cut, see check_cut()
};

// The orders in an order in which neighbours begin alike.
std::vector<std::size_t> sorted(const Orders& orders) {
    const auto row = [&](std::size_t order) { return orders.players + order * orders.length; };
    std::vector<std::size_t> out(orders.n_orders);
    std::iota(out.begin(), out.end(), std::size_t{0});
    std::sort(out.begin(), out.end(), [&](std::size_t a, std::size_t b) {
        return std::lexicographical_compare(row(a), row(a) + orders.length, row(b), row(b) + orders.length);
    });
    return out;
}

}  // namespace

PrefixValues prefix_values(const Network& network, const Game& given, const Orders& orders,
                           const GameOptions& options) {
    validate(network, given, orders);
    Game game = given;
    for (std::vector<Node>& nodes : game.players) make_set(nodes);
    make_set(game.sink);
    Reporter reporter(options.monitor, orders.n_orders);
    const Pause pause = [&] { reporter.report(0); };
    const CapacitySurvey survey(network, pause);
    PrefixValues out;
    out.quantum = quantum_for(network, survey, {game.sink});
    const CapacityIndex capacities(network, survey, out.quantum, pause);
    out.exact = capacities.all_exact();
    out.value.assign(orders.n_orders * orders.length, 0);

    Crew crew(reporter);
    const Table table(capacities, game, crew.pulse());
    const auto n_players = static_cast<std::uint32_t>(game.players.size());
    std::mutex mutex;
    const auto count = [&](const Coalition& coalition) {
        const std::scoped_lock lock(mutex);
        out.statistics.searches += coalition.counters().searches;
        out.statistics.augmentations += coalition.counters().augmentations;
        out.statistics.touched += coalition.counters().touched;
        out.statistics.workspace_bytes += coalition.bytes();
    };
    {
        Coalition everyone(table, crew.pulse());
        out.all = everyone.of_everyone();
        if (options.check) {
            everyone.begin();
            for (std::uint32_t player = 0; player < n_players; ++player) everyone.join(player);
            everyone.check_cut();
            everyone.check_flow();
        }
        count(everyone);
    }
    const std::vector<std::size_t> order_of = sorted(orders);
    const auto threads = static_cast<unsigned>(std::min<std::size_t>(options.threads, orders.n_orders));
    Stretches stretches(orders.n_orders, std::max(1U, threads));
    out.statistics.threads = crew.work(std::max(1U, threads), [&](unsigned thread, Pulse& pulse) {
        std::optional<Coalition> coalition;
        while (const std::optional<std::uint64_t> next = stretches.next(thread)) {
            const std::size_t order = order_of[*next];
            if (!coalition) coalition.emplace(table, pulse);
            coalition->begin();
            const std::uint32_t* const players = orders.players + order * orders.length;
            Units* const values = out.value.data() + order * orders.length;
            Units value = 0;
            for (std::size_t i = 0; i < orders.length; ++i) {
                const bool over = players[i] == Orders::nobody || value == out.all;
                if (over) {
                    std::fill(values + i, values + orders.length, value);
                    break;
                }
                value = values[i] = coalition->join(players[i]);
                if (options.check) coalition->check_cut();
            }
            if (options.check && coalition->any()) coalition->check_flow();
            crew.one_more_done();
            pulse.check();
        }
        if (coalition) count(*coalition);
    });
    reporter.finish();
    out.statistics.algorithm = Algorithm::dinic;
    out.statistics.edges = network.n_edges();
    out.statistics.index_bytes = capacities.bytes();
    return out;
}

}  // namespace attnflow
