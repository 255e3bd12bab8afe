"""The log-barrier centre of all maximum flows: the one that keeps furthest from empty and from full edges.

Of all maximum flows, the barrier method [1]_ ends at the one that maximises sum log(f) + log(c - f) over the edges
whose flow is not the same in all of them (of unbounded edges, log(f) alone): their analytic centre. It is unique,
because that sum is strictly concave. It is not about fairness: a player with many ways gets more.

Which edges are free. An edge of a maximum flow can change if and only if its ends lie in one strongly connected
component of the residual network, players being joined in one node and the sink's positions in another [2]_. The
others keep the flow that the kernel found, exactly.

The centre, by its dual. Potentials u of the nodes determine the flow of every edge: 1/f - 1/(c - f) = u(head) - u(tail)
which any difference fulfils with an f between 0 and c. What is wanted are the potentials whose flow is conserved, which
maximise a concave function without constraints. That function is self-concordant, so Newton's method finds them from
anywhere [3]_. A step solves a Laplacian system of the free edges (``_laplacian.py``).

References
----------
.. [1] Azarkhalili and Libbrecht, "Generalized Attention Flow", arXiv 2502.15765, 2025.
.. [2] Picard and Queyranne, "On the Structure of All Minimum Cuts in a Network and Applications", Mathematical
   Programming Study 13 (1980).
.. [3] Boyd and Vandenberghe, "Convex Optimization", 2004, section 9.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AttnflowError, MissingDependencyError
from ..maxflow import EdgeFlows
from ._game import Game
from ._laplacian import Laplacian

__all__ = ["Centre", "centre"]

# Steps of Newton's method. A few dozen are needed; the error is squared at each of the last.
_MOST_STEPS = 200


@dataclass(frozen=True)
class Centre:
    """The centre of the maximum flows of a game.

    Attributes
    ----------
    shares : numpy.ndarray
        (n_players,) float64.
    edges : maxflow.EdgeFlows
        Of the network's links.
    error : float
        Newton's decrement: the distance to the centre, relative to that to the nearest bound of an edge.
    """

    shares: NDArray[np.float64]
    edges: EdgeFlows
    error: float


@dataclass
class _Edges:
    """Edges of positive capacity, side by side."""

    link: NDArray[np.int32]
    receiver: NDArray[np.int32]
    giver: NDArray[np.int32]
    capacity: NDArray[np.float64]
    tail: NDArray[np.int64]
    head: NDArray[np.int64]
    flow: NDArray[np.float64]
    player: NDArray[np.int64]
    """Whose edge it is, -1 of nobody."""


def centre(game: Game, found: EdgeFlows, quantum: float, tolerance: float) -> Centre:
    """The centre of all maximum flows, given one of them.

    Parameters
    ----------
    game
        With doors: no edge enters a player.
    found
        A maximum flow of all players, in the links of the game.
    quantum
        Of that flow: an edge that has less than one left is full.
    tolerance
        Newton's decrement to stop at.
    """
    edges = _edges(game, found)
    free = _free(edges, quantum)
    flow = edges.flow.copy()
    error = 0.0
    if free.any():
        # The players, joined, and the sink's positions are blocks of their own.
        blocks = np.repeat(np.arange(len(game.sizes) + 2), [*game.sizes, 1, 1])
        flow[free], error = _newton(edges, free, blocks, tolerance)
    shares = np.zeros(game.n_players)
    owned = edges.player >= 0
    np.add.at(shares, edges.player[owned], flow[owned])
    carried = flow > 0
    return Centre(
        shares,
        EdgeFlows(edges.link[carried], edges.receiver[carried], edges.giver[carried], flow[carried]),
        error,
    )


def _edges(game: Game, found: EdgeFlows) -> _Edges:
    first = np.array([0, *accumulate(game.sizes)])
    owner = np.full(first[-1], -1)
    for player, nodes in enumerate(game.players):
        owner[[first[block] + position for block, position in nodes]] = player
    joined = np.arange(first[-1] + 2)
    joined[:-2][owner >= 0] = first[-1]
    joined[[first[block] + position for block, position in game.sink]] = first[-1] + 1
    parts = []
    for number, link in enumerate(game.links):
        receiver, giver, capacity = link.edges(game.sizes[link.receiver])
        flow = found.along(number, receiver, giver)
        tails = first[link.giver] + giver.astype(np.int64)
        heads = first[link.receiver] + receiver.astype(np.int64)
        numbers = np.full(capacity.size, number, dtype=np.int32)
        parts.append((numbers, receiver, giver, capacity, joined[tails], joined[heads], flow, owner[tails]))
    return _Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _free(edges: _Edges, quantum: float) -> NDArray[np.bool_]:
    """Which edges have another flow in some other maximum flow."""
    csgraph, sparse = _scipy()
    n = int(max(edges.tail.max(initial=0), edges.head.max(initial=0))) + 1
    forward, backward = edges.capacity - edges.flow >= quantum, edges.flow > 0
    rows = np.concatenate([edges.tail[forward], edges.head[backward]])
    columns = np.concatenate([edges.head[forward], edges.tail[backward]])
    residual = sparse.csr_matrix((np.ones(rows.size, dtype=np.int8), (rows, columns)), shape=(n, n))
    _, component = csgraph.connected_components(residual, connection="strong")
    return np.asarray(component[edges.tail] == component[edges.head])


def _newton(
    edges: _Edges, free: NDArray[np.bool_], blocks: NDArray[np.int64], tolerance: float
) -> tuple[NDArray[np.float64], float]:
    """The centre's flow on the free edges, and Newton's decrement there; `blocks`: of each node."""
    csgraph, sparse = _scipy()
    nodes, ends = np.unique(np.concatenate([edges.tail[free], edges.head[free]]), return_inverse=True)
    tail, head = np.split(ends, 2)
    n, m = nodes.size, tail.size
    incidence = sparse.csr_matrix(
        (np.concatenate([np.ones(m), -np.ones(m)]), (np.concatenate([head, tail]), np.tile(np.arange(m), 2))), (n, m)
    )
    balance = incidence @ edges.flow[free]
    graph = sparse.csr_matrix((np.ones(m, dtype=np.int8), (tail, head)), shape=(n, n))
    _, component = csgraph.connected_components(graph, directed=False)
    _, ground = np.unique(component, return_index=True)
    block, counts = np.unique(blocks[nodes], return_inverse=True, return_counts=True)[1:]
    place = np.arange(n) - np.concatenate([[0], np.cumsum(counts)[:-1]])[block]  # nodes are sorted by block
    laplacian = Laplacian(block, place, tail, head, ground)

    capacity = edges.capacity[free]
    bounded = np.isfinite(capacity)
    finite = np.where(bounded, capacity, 1.0)

    def flows(at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of these potentials: the flow, and what it leaves of the capacity, both without cancellation."""
        drop = at[head] - at[tail]
        scaled = np.abs(drop) * finite
        root = np.sqrt(scaled * scaled + 4)
        small, large = finite * (2 / (scaled + 2 + root)), finite * ((scaled + root) / (scaled + 2 + root))
        flow = np.where(drop >= 0, small, large)
        left = np.where(drop >= 0, large, small)
        with np.errstate(divide="ignore"):
            return np.where(bounded, flow, 1 / drop), np.where(bounded, left, np.inf)

    def dual(at: NDArray[np.float64], flow: NDArray[np.float64], left: NDArray[np.float64]) -> float:
        if not (flow > 0).all():  # of an unbounded edge: no such flow
            return -np.inf
        logs = np.log(flow) + np.log(np.where(bounded, left, 1.0))
        return float(-logs.sum() + (at[head] - at[tail]) @ flow - at @ balance)

    # Higher from block to block, as unbounded edges need it.
    potential = _levels(edges, free, blocks)[nodes] / (float(edges.flow.max()) or 1.0)
    flow, left = flows(potential)
    for _ in range(_MOST_STEPS):
        surplus = incidence @ flow - balance
        weight = 1 / (flow**-2 + left**-2)
        step = laplacian.solve(weight, surplus)
        decrement = float(np.sqrt(max(0.0, surplus @ step)))
        if decrement <= tolerance:
            return flow, decrement
        length, before = 1.0, dual(potential, flow, left)
        while decrement > 0.25:  # closer by, the full step is the best
            ahead = flows(potential + length * step)
            if dual(potential + length * step, *ahead) >= before + 0.1 * length * decrement**2:
                break
            length /= 2
            if length < 1 / (1 + decrement):  # what is always good enough
                length = 1 / (1 + decrement)
                break
        potential = potential + length * step
        flow, left = flows(potential)
    raise AttnflowError(
        f"the barrier's centre was not found in {_MOST_STEPS} steps: the decrement is {decrement:.2g}, and "
        f"{tolerance:g} was asked for. Please report the network"
    )


def _levels(edges: _Edges, free: NDArray[np.bool_], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number for each node, larger at the head of an edge than at its tail, as far as blocks have an order."""
    pairs = np.unique(blocks[np.stack([edges.tail[free], edges.head[free]])], axis=1)
    level = np.zeros(int(blocks.max()) + 1)
    for _ in range(level.size):
        ahead = level.copy()
        np.maximum.at(ahead, pairs[1], level[pairs[0]] + 1)
        if (ahead == level).all():
            break
        level = ahead
    return level[blocks]


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import sparse
        from scipy.sparse import csgraph
    except ImportError as error:
        raise MissingDependencyError("rule='barrier' needs scipy: pip install 'attnflow[barrier]'") from error
    return csgraph, sparse
