"""networkx: preflow-push in Python, on a residual network that is built once."""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx
import numpy as np
from networkx.algorithms.flow import build_residual_network, preflow_push
from numpy.typing import NDArray

from peers import edge_list, node_count

NAME = "networkx preflow_push"
DISTRIBUTION = "networkx"
MAX_EDGES = 300_000  # about a kilobyte an edge, and a hundred times slower than the others


class Prepared(NamedTuple):
    """The graph, its residual network, and where the last block begins."""

    graph: nx.DiGraph
    residual: nx.DiGraph
    last_block: int


def prepare(capacities: NDArray[np.int64]) -> Prepared:
    """Python integers: exact at any size."""
    tails, heads, values = edge_list(capacities)
    nodes = node_count(capacities)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    graph.add_weighted_edges_from(zip(tails.tolist(), heads.tolist(), values.tolist(), strict=True), weight="capacity")
    return Prepared(graph, build_residual_network(graph, "capacity"), nodes - capacities.shape[1])


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """Preflow-push without the second phase, which only the edge flows need."""
    residual = preflow_push(
        prepared.graph, source, prepared.last_block + sink, residual=prepared.residual, value_only=True
    )
    return int(residual.graph["flow_value"])
