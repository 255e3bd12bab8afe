// The slow twin of the kernel's solvers: maximum flow as the textbook has it. See edmonds_karp.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "attnflow/network.hpp"

namespace attnflow::reference {

/// An edge of positive capacity, taken out of its matrix.
struct Edge {
    std::uint32_t link, receiver, giver;  // positions, as in EdgeFlow
    Node from, to;
    Units capacity;  // quanta of 2^-exponent; `unbounded` from 2^62 on
};

/// The capacity of giver -> receiver in quanta of 2^-exponent, rounded down; `unbounded` from 2^62 quanta on, for every
/// infinity, and for every int64 of 2^62 or more. Any exponent.
Units quanta(const Link& link, std::size_t receiver, std::size_t giver, int exponent);

/// Whether that lost nothing.
bool is_exact(const Link& link, std::size_t receiver, std::size_t giver, int exponent);

/// Every edge of at least one quantum.
std::vector<Edge> edges(const Network& network, int exponent);

/// An exponent at which every finite capacity vanishes: edges(network, only_unbounded) are the unbounded ones.
inline constexpr int only_unbounded = -2000;

/// Nodes that `from` reaches along the edges, or (against) that reach it; `from` included. [node]
std::vector<bool> reachable(const std::vector<Edge>& edges, std::size_t n_nodes, const std::vector<Node>& from,
                            bool against = false);

struct MaximumFlow {
    Units value = 0;
    std::vector<Units> flow;        // [edge]
    std::vector<bool> source_side;  // [node] of the minimum cut nearest the sources
};

/// From all of `sources` together to all of `sinks` together. Some path must not be unbounded throughout: then this
/// throws UnboundedFlow.
MaximumFlow edmonds_karp(const std::vector<Edge>& edges, std::size_t n_nodes, const std::vector<Node>& sources,
                         const std::vector<Node>& sinks);

}  // namespace attnflow::reference
