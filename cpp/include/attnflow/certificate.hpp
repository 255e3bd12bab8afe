// Proof that a flow is maximum, independent of how it was found: it is feasible, and a cut has its value.
#pragma once

#include <cstdint>
#include <vector>

#include "attnflow/capacity.hpp"
#include "attnflow/max_flow.hpp"

namespace attnflow {

/// The edges that leave a set of nodes (Network::n_words() words).
struct CutCapacity {
    Units units = 0;             // sum of their quantised capacities; `unbounded` or more where one is unbounded
    std::uint64_t rounded = 0;   // how many of them quantisation rounded down
    std::vector<Units> by_link;  // [link] share of units
};

/// Reads the original capacities of the cut's edges. O(rows * words) where both sides hold many nodes, plus the cut.
CutCapacity cut_capacity(const CapacityIndex& capacities, const std::vector<Word>& source_side);

/// Throws CertificateFailure unless: 0 <= flow <= capacity on every edge; what enters every node but the terminals
/// leaves it; `value` leaves the sources and enters the sinks; the cut separates them and has capacity `value`.
void check_certificate(const CapacityIndex& capacities, const std::vector<EdgeFlow>& flows,
                       const std::vector<Node>& sources, const std::vector<Node>& sinks, Units value,
                       const std::vector<Word>& source_side);

}  // namespace attnflow
