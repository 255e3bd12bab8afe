"""igraph: push-relabel (Goldberg-Tarjan) in C, on doubles."""

from __future__ import annotations

from typing import NamedTuple

import igraph
import numpy as np
from numpy.typing import NDArray

from peers import edge_list, node_count

NAME = "igraph maxflow_value"
DISTRIBUTION = "igraph"
MAX_EDGES = 5_000_000


class Prepared(NamedTuple):
    """The graph, its capacities, and where the last block begins."""

    graph: igraph.Graph
    capacities: list[float]
    last_block: int


def prepare(capacities: NDArray[np.int64]) -> Prepared:
    """Integers below 2**53 stay exact in doubles."""
    tails, heads, values = edge_list(capacities)
    nodes = node_count(capacities)
    graph = igraph.Graph(n=nodes, edges=np.stack([tails, heads], axis=1), directed=True)
    return Prepared(graph, values.astype(np.float64).tolist(), nodes - capacities.shape[1])


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """The value alone: cheaper than the flow."""
    return int(prepared.graph.maxflow_value(source, prepared.last_block + sink, prepared.capacities))
