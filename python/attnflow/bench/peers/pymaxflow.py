"""PyMaxflow: Boykov and Kolmogorov's augmenting trees."""

from __future__ import annotations

import maxflow
import numpy as np

from . import Graph

__all__ = ["DISTRIBUTION", "MAX_EDGES", "NAME", "UNBOUNDED", "prepare", "solve"]

NAME = "PyMaxflow (Boykov-Kolmogorov)"
DISTRIBUTION = "PyMaxflow"
MAX_EDGES = 5_000_000

UNBOUNDED = 2**31 - 1
"""Above every flow, and within the 32-bit integers of GraphInt."""


def prepare(graph: Graph) -> maxflow.GraphInt:
    """The graph without terminals, in 32-bit integers: GraphInt takes 0.9 as 0."""
    prepared = maxflow.GraphInt(graph.n_nodes, graph.tails.size)
    prepared.add_nodes(graph.n_nodes)
    back = np.zeros(graph.tails.size, dtype=np.int32)
    prepared.add_edges(graph.tails, graph.heads, graph.capacities.astype(np.int32), back)
    # A copy of a graph with a node that has no edge crashes when it is solved: such nodes get one that carries nothing.
    lone = np.setdiff1d(np.arange(graph.n_nodes), np.concatenate([graph.tails, graph.heads]))
    nothing = np.zeros(lone.size, dtype=np.int32)
    prepared.add_edges(lone, (lone + 1) % graph.n_nodes, nothing, nothing)
    return prepared


def solve(prepared: maxflow.GraphInt, source: int, sink: int) -> int:
    """A solve uses its graph up, so each one works on a copy."""
    graph = prepared.copy()
    graph.add_tedge(source, UNBOUNDED, 0)
    graph.add_tedge(sink, 0, UNBOUNDED)
    return int(graph.maxflow())
