// What players of a network send to a sink together: the values of a cooperative game.
//
// The game is v(S) = maximum flow from all nodes of all players in S, joined, to the sink. It is monotone and submodular.
// Everything that is made of it - Shapley values, exact or sampled, and vertices of its base polytope - needs v along
// orders of the players: of the first one, the first two, and so on.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "attnflow/capacity.hpp"
#include "attnflow/max_flow.hpp"
#include "attnflow/network.hpp"

namespace attnflow {

struct Game {
    std::vector<std::vector<Node>> players;  // disjoint sets of nodes that no link enters
    std::vector<Node> sink;                  // joined, too
};

/// Orders of players, each of `length` entries, one behind the other. No player comes twice in one; `nobody` ends one early.
struct Orders {
    static constexpr std::uint32_t nobody = std::numeric_limits<std::uint32_t>::max();
    const std::uint32_t* players = nullptr;
    std::size_t n_orders = 0, length = 0;
};

struct GameOptions {
    unsigned threads = 1;
    bool check = false;  // verify every value; throws CertificateFailure
    Monitor* monitor = nullptr;
};

struct PrefixValues {
    Quantum quantum;
    Units all = 0;             // v of all players
    std::vector<Units> value;  // [order][i] v of the first i + 1 players; after an early end, of those there were
    bool exact = true;  // whether every capacity is a whole number of quanta, so that v is that of the given ones
    Statistics statistics;
};

/// Throws InvalidArgument, InvalidCapacity, CapacityOverflow, UnboundedFlow, CertificateFailure, and whatever the monitor
/// throws. The answer does not depend on the number of threads. Sparse links that dropped edges are refused.
PrefixValues prefix_values(const Network& network, const Game& game, const Orders& orders, const GameOptions& options);

}  // namespace attnflow
