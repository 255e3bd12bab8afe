"""Laplacian systems whose weights differ by dozens of orders of magnitude, solved without a subtraction.

Newton's method for a barrier asks for potentials u with sum_j w_ij (u_i - u_j) = b_i, where w is the square of a flow's
distance from its bounds: 1e-24 beside 1. Elimination as textbooks have it subtracts what it is about to need. Kept as
weights between nodes, and from each node to the ground, the matrix is eliminated by additions, products and quotients
of positive numbers alone (the star-mesh transformation of circuits; for Markov chains the algorithm of [1]_), so that
every weight stays accurate to a few units in its last place.

Nodes come in blocks, and a block is eliminated at once: the inverse of its own matrix, which is small and not negative,
and products of matrices that are not negative either.

References
----------
.. [1] Grassmann, Taksar and Heyman, "Regenerative Analysis and Steady State Distributions for Markov Chains",
   Operations Research 33 (1985).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _kernel

__all__ = ["Laplacian"]

Array = NDArray[np.float64]


class Laplacian:
    """Weights between nodes in blocks, and the order in which blocks are eliminated.

    Parameters
    ----------
    block, place
        (n_nodes,) int: the block of each node, and its place in the block.
    tail, head
        (n_edges,) int: nodes that each edge joins.
    ground
        Nodes of known potential 0, one in each part that hangs together.
    """

    def __init__(
        self,
        block: NDArray[np.int64],
        place: NDArray[np.int64],
        tail: NDArray[np.int64],
        head: NDArray[np.int64],
        ground: NDArray[np.int64],
    ) -> None:
        self.block, self.place, self.ground = block, place, ground
        self.sizes = np.bincount(block).tolist()
        low = np.where(block[tail] <= block[head], tail, head)
        high = np.where(block[tail] <= block[head], head, tail)
        pair = block[low] * len(self.sizes) + block[high]
        self.order = np.argsort(pair, kind="stable")
        self.pairs: list[tuple[int, int, slice]] = []
        first = 0
        for value, count in zip(*(part.tolist() for part in np.unique(pair, return_counts=True)), strict=True):
            self.pairs.append((*divmod(value, len(self.sizes)), slice(first, first + count)))
            first += count
        self.low, self.high = place[low[self.order]], place[high[self.order]]
        self.nodes = [np.flatnonzero(block == b) for b in range(len(self.sizes))]

    def solve(self, weights: Array, right: Array) -> Array:
        """Potentials (n_nodes,) for weights (n_edges,) > 0 and what flows into each node, 0 together in each part."""
        sorted_weights = weights[self.order]
        between: dict[int, dict[int, Array]] = {b: {} for b in range(len(self.sizes))}
        to_ground = [np.zeros(size) for size in self.sizes]
        degree = np.zeros(self.block.size)
        for a, b, mine in self.pairs:
            matrix = np.zeros((self.sizes[a], self.sizes[b]))
            np.add.at(matrix, (self.low[mine], self.high[mine]), sorted_weights[mine])
            if a == b:
                matrix += matrix.T
            between[a][b] = matrix
            between[b][a] = matrix.T
            degree[self.nodes[a]] += matrix.sum(axis=1)
            if a != b:
                degree[self.nodes[b]] += matrix.sum(axis=0)
        # Any weight will do, since nothing flows there.
        for node in self.ground.tolist():
            to_ground[self.block[node]][self.place[node]] = degree[node]
        flowing = [right[nodes].copy() for nodes in self.nodes]

        done: list[tuple[int, Array, dict[int, Array]]] = []
        waiting = set(between)
        while waiting:
            # The one whose neighbours are fewest: what it leaves behind joins them all.
            a = min(waiting, key=lambda b: (sum(self.sizes[c] for c in between[b] if c != b), b))
            waiting.remove(a)
            others = {b: matrix for b, matrix in between[a].items() if b != a}
            outside = to_ground[a] + sum(matrix.sum(axis=1) for matrix in others.values())
            inverse = _inverse(between[a].get(a, np.zeros((self.sizes[a],) * 2)), outside)
            for b, matrix in others.items():
                passed = matrix.T @ inverse
                flowing[b] += passed @ flowing[a]
                to_ground[b] += passed @ to_ground[a]
                for c, other in others.items():
                    if c < b:
                        continue
                    more = passed @ other
                    if c == b:
                        np.fill_diagonal(more, 0)
                    between[b][c] = between[b][c] + more if c in between[b] else more
                    between[c][b] = between[b][c].T
                del between[b][a]
            done.append((a, inverse, others))
        potential = np.zeros(self.block.size)
        for a, inverse, others in reversed(done):
            known = flowing[a] + sum(matrix @ potential[self.nodes[b]] for b, matrix in others.items())
            potential[self.nodes[a]] = inverse @ known
        return potential


def _inverse(within: Array, outside: Array) -> Array:
    """The inverse of the matrix of some nodes, given weights between them and what leads elsewhere: all >= 0."""
    passed, pivots = _kernel.eliminate(within, outside)
    return (passed / pivots[:, None]).T @ passed
