"""SciPy: Dinic on a CSR matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.csgraph import maximum_flow

from peers import edge_list, node_count

NAME = "SciPy maximum_flow (dinic)"
DISTRIBUTION = "scipy"
MAX_EDGES = 20_000_000


class Prepared(NamedTuple):
    """The matrix, and where the last block begins."""

    graph: csr_array
    last_block: int


def prepare(capacities: NDArray[np.int64]) -> Prepared:
    """Capacities and flows must fit 32 bits: wider ones are cast without a word."""
    tails, heads, values = edge_list(capacities)
    assert values.max(initial=0) <= np.iinfo(np.int32).max
    nodes = node_count(capacities)
    graph = csr_matrix((values.astype(np.int32), (tails, heads)), shape=(nodes, nodes))
    graph.sort_indices()
    return Prepared(graph, nodes - capacities.shape[1])


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """The reverse edges are added anew in every call; SciPy offers no way to keep them."""
    return int(maximum_flow(prepared.graph, source, prepared.last_block + sink, method="dinic").flow_value)
