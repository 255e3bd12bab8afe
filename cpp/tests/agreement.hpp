// Kernel against twin: everything an Answer says, held against the slow reference and the definitions.
#pragma once

#include <string>
#include <vector>

#include "attnflow/max_flow.hpp"
#include "edmonds_karp.hpp"

namespace attnflow::testing {

/// Solves the query with both algorithms, always with options.check, cuts and bottlenecks, and compares with the twin
///
///   - the values, and the minimum cuts nearest the sources, which are unique;
///   - the bottleneck codes, with their definition;
///   - lower and upper bound, with the maximum flow at the finest quantum that fits;
///   - the same once more without cuts and checks, which lets the solver leave flows unbuilt;
///   - edge flows of the first pair: within capacity, conserved, of the right value;
///   - refusals: unbounded if and only if a path is, overflow only where sums are that large.
///
/// Returns what differs, one sentence each; empty is agreement.
std::vector<std::string> disagreements(const Network& network, const Query& query, unsigned threads = 1);

/// The code that max_flow.hpp defines for one pair.
std::int32_t bottleneck_by_definition(const Network& network, const std::vector<reference::Edge>& edges,
                                      const std::vector<Node>& sources, const std::vector<Node>& sinks,
                                      const reference::MaximumFlow& flow);

/// The nodes of a cut in Answer::source_side, by number.
std::vector<bool> nodes_of(const Network& network, const Word* set);

}  // namespace attnflow::testing
