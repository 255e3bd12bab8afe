"""One file a competitor, all with the same two functions.

``prepare(capacities)`` turns integer capacities ``(layers, n, n)`` - ``capacities[l, j, k]`` leads from node ``k``
before layer ``l`` to node ``j`` after it - into whatever the library wants; its time is reported apart, and not
counted against the peer. ``solve(prepared, source, sink)`` is one maximum flow from node ``source`` of the first block
to node ``sink`` of the last, and returns its value as an ``int``. ``NAME`` and ``DISTRIBUTION`` name the library and
the package it comes from; ``MAX_EDGES`` is how large a network is worth waiting for.

Each peer runs the algorithm that serves attention best (networkx: its default, which its other solvers beat by a factor
of 1.7 at most), on integers that it is exact on: see ``quantised`` in ``instances.py``. Every one of them answers
wrongly, without a word, when it is handed something else: SciPy casts 64-bit capacities to 32 bits, OR-Tools' bulk call
takes 0.5 as 0, PyMaxflow's integer graph takes 0.9 as 0, igraph computes in doubles, and networkx may stop early on
floats.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Peer", "edge_list", "node_count", "peers"]


class Peer(Protocol):
    """What every module of this package offers."""

    NAME: str
    DISTRIBUTION: str
    MAX_EDGES: int

    def prepare(self, capacities: NDArray[np.int64]) -> Any:
        """Build the library's own graph."""

    def solve(self, prepared: Any, source: int, sink: int) -> int:
        """Value of one maximum flow."""


def peers() -> list[Peer]:
    """Every peer, the fastest first."""
    return [
        cast("Peer", import_module(f"peers.{name}"))
        for name in ("ortools_flow", "scipy_flow", "igraph_flow", "pymaxflow_flow", "networkx_flow")
    ]


def node_count(capacities: NDArray[np.int64]) -> int:
    """Nodes of the layered network: one block more than there are layers."""
    layers, n, _ = capacities.shape
    return int((layers + 1) * n)


def edge_list(capacities: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Tails, heads and capacities of the edges that carry anything; node ``k`` of block ``l`` is ``l * n + k``."""
    _, n, _ = capacities.shape
    layer, receiver, giver = np.nonzero(capacities)
    tails = (layer * n + giver).astype(np.int32)
    heads = ((layer + 1) * n + receiver).astype(np.int32)
    return tails, heads, capacities[layer, receiver, giver]
