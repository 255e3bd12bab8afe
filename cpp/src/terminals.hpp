// What a query names: sets of nodes, checked, as bits; and the quantum that fits its sinks.
#pragma once

#include <string>
#include <vector>

#include "attnflow/capacity.hpp"
#include "attnflow/network.hpp"

namespace attnflow {

/// As a set of Network::n_words() words.
std::vector<Word> node_set(const Network& net, const std::vector<Node>& nodes);

bool contains(const Network& net, const std::vector<Word>& set, Node node);

/// "node 3 of block 0", "a set of 2 nodes".
std::string describe(const Network& net, const std::vector<Node>& nodes);

/// Throws InvalidArgument where there is no set, an empty one, or one with a node that does not exist. `what`: "source".
void check_sets(const Network& net, const std::vector<std::vector<Node>>& sets, const std::string& what);

/// Ascending, each node once.
void make_set(std::vector<Node>& nodes);

/// The quantum for flows into each of the sinks: the largest sum of capacities into one of them bounds every flow; where that
/// is infinite, everything finite does, and each unbounded edge into the sink may be asked for all of it.
Quantum quantum_for(const Network& net, const CapacitySurvey& survey, const std::vector<std::vector<Node>>& sinks);

/// A sum of capacities that stops at `unbounded`, and how many of them were rounded down.
struct Bound {
    Units units = 0;
    std::uint64_t rounded = 0;
    void add(const CapacityIndex& capacities, std::size_t link, std::size_t receiver, std::size_t giver) {
        const Units capacity = capacities.at(link, receiver, giver);
        units = saturating_sum(units, capacity);
        // What vanished altogether is counted by CapacityIndex::n_vanished().
        if (capacity > 0 && !capacities.all_exact() && !capacities.exact(link, receiver, giver)) ++rounded;
    }
};

/// What leaves a set of nodes, given as a list and as bits, into nodes of `towards`.
Bound out_of(const CapacityIndex& capacities, const std::vector<Node>& nodes, const std::vector<Word>& set,
             const std::vector<Word>& towards);

/// What enters a set of nodes from nodes of `from`.
Bound into(const CapacityIndex& capacities, const std::vector<Node>& nodes, const std::vector<Word>& set,
           const std::vector<Word>& from);

}  // namespace attnflow
