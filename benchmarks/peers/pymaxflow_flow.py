"""PyMaxflow: Boykov and Kolmogorov's augmenting trees."""

from __future__ import annotations

from typing import NamedTuple

import maxflow
import numpy as np
from numpy.typing import NDArray

from peers import edge_list, node_count

NAME = "PyMaxflow (Boykov-Kolmogorov)"
DISTRIBUTION = "PyMaxflow"
MAX_EDGES = 5_000_000

# Above every flow, and within the 32-bit integers of GraphInt.
UNBOUNDED = 2**31 - 1


class Prepared(NamedTuple):
    """The graph without terminals, and where the last block begins."""

    graph: maxflow.GraphInt
    last_block: int


def prepare(capacities: NDArray[np.int64]) -> Prepared:
    """32-bit integers only: GraphInt takes 0.9 as 0."""
    tails, heads, values = edge_list(capacities)
    assert values.max(initial=0) <= np.iinfo(np.int32).max
    nodes = node_count(capacities)
    graph = maxflow.GraphInt(nodes, values.size)
    graph.add_nodes(nodes)
    graph.add_edges(tails, heads, values.astype(np.int32), np.zeros(values.size, dtype=np.int32))
    # A copy of a graph with a node that has no edge crashes when it is solved: such nodes get one that carries nothing.
    lone = np.setdiff1d(np.arange(nodes), np.concatenate([tails, heads]))
    graph.add_edges(lone, (lone + 1) % nodes, np.zeros(lone.size, np.int32), np.zeros(lone.size, np.int32))
    return Prepared(graph, nodes - capacities.shape[1])


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """A solve uses its graph up, so each one works on a copy."""
    graph = prepared.graph.copy()
    graph.add_tedge(source, UNBOUNDED, 0)
    graph.add_tedge(prepared.last_block + sink, 0, UNBOUNDED)
    return int(graph.maxflow())
