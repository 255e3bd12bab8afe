"""Products and bottlenecks along paths, swept from the sinks' side through the links of a network of any shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ._positions import Node
from .errors import InvalidArgumentError, InvalidCapacityError
from .storage import entries

if TYPE_CHECKING:
    from .maxflow import Link

__all__ = ["product", "through_blocks", "widest"]

Matrix = NDArray[np.float64]


def through_blocks(
    rule: Literal["rollout", "widest path"],
    sizes: Sequence[int],
    links: Sequence[Link],
    sources: Sequence[Sequence[Node]],
    sinks: Sequence[Sequence[Node]],
) -> Matrix:
    """Rollout or the widest path through a network of any shape; see :meth:`attnflow.Network.rollout`."""
    edges = []
    for number, link in enumerate(links):
        if getattr(link.capacities, "dropped_in", None) is not None:
            raise InvalidArgumentError(f"link {number} dropped edges, which the {rule} would need: keep all of them")
        if rule == "rollout" and np.isinf(entries(link.capacities)).any():
            raise InvalidCapacityError(
                f"link {number} has unbounded edges: rollout is a product of capacities, which must be finite"
            )
        edges.append((link.giver, link.receiver, partial(_matrix_of, link, sizes)))
    return (product if rule == "rollout" else widest)(tuple(sizes), edges, sources, sinks)


# Giver, receiver, and what makes the matrix between them, so that one at a time is held whole.
Edges = Sequence[tuple[int, int, Callable[[], Matrix]]]


def _matrix_of(link: Link, sizes: Sequence[int]) -> Matrix:
    matrix = np.zeros((sizes[link.receiver], sizes[link.giver]))
    receiver, giver, capacity = link.edges(sizes[link.receiver])
    matrix[receiver, giver] = capacity
    return matrix


def product(
    sizes: tuple[int, ...], edges: Edges, sources: Sequence[Sequence[Node]], sinks: Sequence[Sequence[Node]]
) -> Matrix:
    """From the sinks' side, block by block: the sum over all paths of the products of their capacities."""
    reach = [np.zeros((len(sinks), size)) for size in sizes]
    for row, group in enumerate(sinks):
        for block, position in group:
            reach[block][row, position] = 1.0
    for block in _backwards(len(sizes), edges):
        for giver, receiver, matrix in edges:
            if receiver == block:
                reach[giver] += reach[block] @ matrix()
    return np.stack([sum((reach[b][:, k] for b, k in group), np.zeros(len(sinks))) for group in sources], axis=1)


def _backwards(n_blocks: int, edges: Edges) -> list[int]:
    """The blocks in an order in which each comes after all that it leads to."""
    order: list[int] = []
    while len(order) < n_blocks:
        ready = [
            block
            for block in range(n_blocks)
            if block not in order and all(receiver in order for giver, receiver, _ in edges if giver == block)
        ]
        if not ready:
            raise InvalidArgumentError("rollout is a product over layers, and the blocks of this network form a circle")
        order += ready
    return order


def widest(
    sizes: tuple[int, ...], edges: Edges, sources: Sequence[Sequence[Node]], sinks: Sequence[Sequence[Node]]
) -> Matrix:
    """From the sinks' side, until nothing grows: once through all links, unless blocks form a circle."""
    values = np.empty((len(sinks), len(sources)))
    for row, group in enumerate(sinks):
        width = [np.zeros(size) for size in sizes]
        for block, position in group:
            width[block][position] = np.inf
        grown = True
        while grown:
            grown = False
            for giver, receiver, matrix in sorted(edges, key=lambda edge: -edge[1]):
                wider = np.maximum(np.minimum(matrix(), width[receiver][:, None]).max(axis=0), width[giver])
                grown = grown or bool((wider > width[giver]).any())
                width[giver] = wider
        values[row] = [max(width[block][position] for block, position in source) for source in sources]
    return values
