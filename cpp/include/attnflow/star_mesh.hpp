// Star-mesh elimination: nodes of a network of conductors, taken away one by one without a subtraction
#pragma once

#include <cstddef>

namespace attnflow {

/// Takes away `n` nodes, the first one first: its weight to each later one is shared among those it leaves behind.
///
/// `within`: [n][n] weights >= 0 between the nodes, symmetric, of which the upper triangle is read; overwritten.
/// `outside`: [n] weights to everything else, > 0 in sum for each part that hangs together; overwritten.
/// `passed`: [n][n] written: what node k holds of one unit put into node i <= k, when its turn comes; 0 for i > k.
/// `pivots`: [n] written: the weight that each node had when it was taken away.
/// The inverse of the matrix that has these weights is passed' diag(1 / pivots) passed: sums of positive numbers alone, so that
/// weights that differ by dozens of orders of magnitude stay accurate. O(n^3).
void eliminate(std::size_t n, double* within, double* outside, double* passed, double* pivots);

}  // namespace attnflow
