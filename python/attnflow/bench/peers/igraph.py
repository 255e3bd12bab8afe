"""igraph: push-relabel (Goldberg-Tarjan) in C, on doubles."""

from __future__ import annotations

from typing import NamedTuple

import igraph
import numpy as np

from . import Graph

__all__ = ["DISTRIBUTION", "MAX_EDGES", "NAME", "Prepared", "prepare", "solve"]

NAME = "igraph maxflow_value"
DISTRIBUTION = "igraph"
MAX_EDGES = 5_000_000


class Prepared(NamedTuple):
    """The graph, and its capacities."""

    graph: igraph.Graph
    capacities: list[float]


def prepare(graph: Graph) -> Prepared:
    """Integers below 2**53 stay exact in doubles."""
    edges = np.stack([graph.tails, graph.heads], axis=1)
    return Prepared(
        igraph.Graph(n=graph.n_nodes, edges=edges, directed=True), graph.capacities.astype(np.float64).tolist()
    )


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """The value alone: cheaper than the flow."""
    return int(prepared.graph.maxflow_value(source, sink, prepared.capacities))
