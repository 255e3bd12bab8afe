// Takes flow back from where it starts, edge by edge, to where it ends.
//
// Problem. Some nodes are to send less than they do, and so are those they send to. Going along the edges that carry flow,
// node by node, that is easily done, unless flow runs in a circle: a sum of simple paths may, in a graph with cycles, and
// what is to be taken back could go round for as long as the circle carries more than that. So circles on the way are cancelled
// first, which nobody misses: each leaves an edge empty. What is left has an order, and in that order every node is visited
// once.
//
// O(touched) where there are no circles, as in every layered network; else that for each of them at most.
#pragma once

#include <vector>

#include "pulse.hpp"
#include "residual.hpp"

namespace attnflow {

/// Takes excess[node] units off what each node sends, as far as it sends so much, and off what the receivers send on, up to
/// the nodes of `ends` [node]. Only `roots`, and what they send flow to, may have excess; of others nothing is looked at.
void take_back(Residual& residual, const std::vector<Node>& roots, std::vector<Units>& excess,
               const std::vector<bool>& ends, Pulse& pulse);

}  // namespace attnflow
