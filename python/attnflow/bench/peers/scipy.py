"""SciPy: Dinic on a CSR matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow

from . import Graph

__all__ = ["DISTRIBUTION", "MAX_EDGES", "NAME", "prepare", "solve"]

NAME = "SciPy maximum_flow (dinic)"
DISTRIBUTION = "scipy"
MAX_EDGES = 20_000_000


def prepare(graph: Graph) -> csr_matrix:
    """The matrix, in 32-bit integers: wider ones are cast without a word."""
    values = graph.capacities.astype(np.int32)
    matrix = csr_matrix((values, (graph.tails, graph.heads)), shape=(graph.n_nodes, graph.n_nodes))
    matrix.sort_indices()
    return matrix


def solve(prepared: csr_matrix, source: int, sink: int) -> int:
    """The reverse edges are added anew in every call; SciPy offers no way to keep them."""
    return int(maximum_flow(prepared, source, sink, method="dinic").flow_value)
