"""One file a competitor, all with the same two functions.

``prepare(graph)`` turns a :class:`Graph` - integer capacities along a list of edges - into whatever the library wants;
its time is reported apart, and not counted against the peer. ``solve(prepared, source, sink)`` is one maximum flow
between two nodes, the library's own call and nothing else, and returns its value as an ``int``. ``NAME`` is
the library and what of it runs, ``DISTRIBUTION`` the package it comes from; ``MAX_EDGES`` is how large a network is
worth waiting for.

Each peer runs the algorithm that serves attention best (networkx: its default, which its other solvers beat by a factor
of 1.7 at most), on integers that it is exact on: see ``quantised`` in ``cases.py``. Every one of them answers wrongly,
without a word, when it is handed something else: SciPy casts 64-bit capacities to 32 bits, OR-Tools' bulk call takes
0.5 as 0, PyMaxflow's integer graph takes 0.9 as 0, igraph computes in doubles, and networkx may stop early on floats.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIBRARIES", "Graph", "Peer", "find"]

LIBRARIES = ("ortools", "scipy", "igraph", "pymaxflow", "networkx")
"""What pip calls each library, and the module here that drives it: the fastest first."""


class Graph(NamedTuple):
    """Edges that carry something, no two of them between the same two nodes."""

    n_nodes: int
    """Nodes are numbered from 0."""
    tails: NDArray[np.int32]
    """Where each edge begins."""
    heads: NDArray[np.int32]
    """Where it ends."""
    capacities: NDArray[np.int64]
    """What it carries; neither a capacity nor the sum that can arrive at a node reaches 2**31."""


class Peer(Protocol):
    """What every module of this package offers."""

    NAME: str
    DISTRIBUTION: str
    MAX_EDGES: int

    def prepare(self, graph: Graph) -> Any:
        """Build the library's own graph."""

    def solve(self, prepared: Any, source: int, sink: int) -> int:
        """Value of one maximum flow."""


def find() -> tuple[list[Peer], dict[str, str]]:
    """The peers that are installed, and why each of the others cannot be had, by what pip calls it.

    Examples
    --------
    >>> from attnflow.bench import peers
    >>> installed, missing = peers.find()
    >>> len(installed) + len(missing)
    5
    """
    installed, missing = [], {}
    for library in LIBRARIES:
        try:
            installed.append(cast("Peer", import_module(f".{library}", __name__)))
        except ImportError as error:
            missing[library] = str(error)
    return installed, missing
