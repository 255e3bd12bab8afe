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

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AttnflowError, MissingDependencyError, UnboundedFlowError
from ..maxflow import EdgeFlows
from ._game import Game
from ._laplacian import Laplacian

__all__ = ["Centre", "centre"]

_Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

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
        # Squares of flows are computed with, which 1e-200 and 1e200 do not have: the largest flow becomes about 1.
        bounds = edges.capacity[free & np.isfinite(edges.capacity)]
        unit = np.frexp(flow.max() or bounds.max(initial=0) or 1.0)[1]
        near_one = replace(edges, capacity=_ldexp(edges.capacity, -unit), flow=_ldexp(flow, -unit))
        with np.errstate(all="ignore"):  # what leads to no number is refused
            found_flow, error = _newton(near_one, free, blocks, tolerance)
        flow[free] = _ldexp(found_flow, unit)
    shares = np.zeros(game.n_players)
    owned = edges.player >= 0
    np.add.at(shares, edges.player[owned], flow[owned])
    carried = flow > 0
    return Centre(
        shares,
        EdgeFlows(edges.link[carried], edges.receiver[carried], edges.giver[carried], flow[carried]),
        error,
    )


def _ldexp(values: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    """Times 2^exponent; what is out of reach is unbounded."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.ldexp(values, exponent))


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
        column = (numbers, receiver, giver, capacity, joined[tails], joined[heads], flow, owner[tails])
        inner = joined[tails] != first[-1] + 1  # what leaves the sink, to be read again, is no part of a flow to it
        parts.append(tuple(part[inner] for part in column))
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
    # An edge of neither direction holds less than a quantum: it is none to the kernel, wherever its ends lie.
    return np.asarray((component[edges.tail] == component[edges.head]) & (forward | backward))


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
    given = edges.flow[free]
    graph = sparse.csr_matrix((np.ones(m, dtype=np.int8), (tail, head)), shape=(n, n))
    _, component = csgraph.connected_components(graph, directed=False)
    _, ground = np.unique(component, return_index=True)
    block, counts = np.unique(blocks[nodes], return_inverse=True, return_counts=True)[1:]
    place = np.arange(n) - np.concatenate([[0], np.cumsum(counts)[:-1]])[block]  # nodes are sorted by block
    laplacian = Laplacian(block, place, tail, head, ground)

    capacity = edges.capacity[free]
    bounded = np.isfinite(capacity)
    finite = np.where(bounded, capacity, 1.0)

    def drops(at: _Pair) -> NDArray[np.float64]:
        return np.asarray((at[0][head] - at[0][tail]) + (at[1][head] - at[1][tail]))

    def flows(drop: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of these drops: the flow, and what it leaves of the capacity, both without cancellation."""
        scaled = np.abs(drop) * finite
        root = np.sqrt(scaled * scaled + 4)
        small, large = finite * (2 / (scaled + 2 + root)), finite * ((scaled + root) / (scaled + 2 + root))
        flow = np.where(drop >= 0, small, large)
        left = np.where(drop >= 0, large, small)
        with np.errstate(divide="ignore"):
            return np.where(bounded, flow, 1 / drop), np.where(bounded, left, np.inf)

    def dual(drop: NDArray[np.float64], flow: NDArray[np.float64], left: NDArray[np.float64]) -> float:
        if not (flow > 0).all():  # of an unbounded edge: no such flow
            return -np.inf
        logs = np.log(flow) + np.log(np.where(bounded, left, 1.0))
        return float(-logs.sum() + drop @ (flow - given))

    def surpluses(flow: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray[np.float64]:
        """What enters each node beyond the given flow's, to the digits of the least of its edges, not of the largest.

        An edge that is nearly full is its capacity, less what is left. Digits before and behind 2^-40 are added on
        their own: sums of the first do not round, flows being about 1 at most.
        """
        full = bounded & (left < flow)
        terms = [np.where(full, finite, 0), np.where(full, -left, flow), -given]
        coarse = [np.ldexp(np.rint(np.ldexp(term, 40)), -40) for term in terms]
        fine = [term - part for term, part in zip(terms, coarse, strict=True)]
        return np.asarray(incidence @ sum(coarse) + incidence @ sum(fine))

    # With 106 bits: where an edge of 1e-12 holds two large ones apart from the rest, potentials of 1e12 differ by 1.
    potential = _levels(tail[~bounded], head[~bounded], n), np.zeros(n)
    drop = drops(potential)
    flow, left = flows(drop)
    length = 1.0
    for _ in range(_MOST_STEPS):
        surplus = surpluses(flow, left)
        weight = 1 / (flow**-2 + left**-2)
        step = laplacian.solve(weight, surplus)
        # Not surplus @ step: potentials are large, and a part of one would be left over where surpluses round.
        decrement = float(np.sqrt(weight @ (step[head] - step[tail]) ** 2))
        if decrement <= tolerance:
            return flow, decrement
        if not np.isfinite(decrement):
            raise AttnflowError(
                "rule='barrier': capacities of the free edges are too far apart for float64, from "
                f"{capacity.min():.2g} to {finite.max():.2g} times the largest flow: take another rule"
            )
        before, safe = dual(drop, flow, left), 1 / (1 + decrement)  # a step so long is always good enough
        # Closer by, the full step is the best; else twice what did last time, or less.
        length = 1.0 if decrement <= 0.25 else max(safe, min(1.0, 2 * length))
        while True:
            ahead = _plus(potential, length * step)
            drop = drops(ahead)
            flow, left = flows(drop)
            near = decrement <= 0.25 or length <= safe
            if near or dual(drop, flow, left) >= before + 0.1 * length * decrement**2:
                break
            length = max(length / 2, safe)
        potential = ahead
    raise AttnflowError(
        f"the barrier's centre was not found in {_MOST_STEPS} steps: the decrement is {decrement:.2g}, and "
        f"{tolerance:g} was asked for. Ask for no less than that, or report the network if it is large"
    )


def _plus(pair: _Pair, more: NDArray[np.float64]) -> _Pair:
    """A sum of a float64 and what it rounded off, and more."""
    total = pair[0] + more
    other = total - pair[0]
    lost = (pair[0] - (total - other)) + (more - other) + pair[1]
    whole = total + lost
    return whole, lost - (whole - total)


def _levels(tail: NDArray[np.int64], head: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """A number for each of n nodes, larger at the head of an edge than at its tail."""
    level = np.zeros(n)
    for _ in range(n + 1):
        ahead = level.copy()
        np.maximum.at(ahead, head, level[tail] + 1)
        if (ahead == level).all():
            return level
        level = ahead
    raise UnboundedFlowError("rule='barrier': unbounded edges lead round in a circle, where no flow is the centre")


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import sparse
        from scipy.sparse import csgraph
    except ImportError as error:
        raise MissingDependencyError("rule='barrier' needs scipy: pip install 'attnflow[barrier]'") from error
    return csgraph, sparse
