"""networkx: preflow-push in Python, on a residual network that is built once."""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx
from networkx.algorithms.flow import build_residual_network, preflow_push

from . import Graph

__all__ = ["DISTRIBUTION", "MAX_EDGES", "NAME", "Prepared", "prepare", "solve"]

NAME = "networkx preflow_push"
DISTRIBUTION = "networkx"
MAX_EDGES = 300_000  # about a kilobyte an edge, and a hundred times slower than the others


class Prepared(NamedTuple):
    """The graph, and its residual network."""

    graph: nx.DiGraph
    residual: nx.DiGraph


def prepare(graph: Graph) -> Prepared:
    """Python integers: exact at any size."""
    edges = zip(graph.tails.tolist(), graph.heads.tolist(), graph.capacities.tolist(), strict=True)
    directed = nx.DiGraph()
    directed.add_nodes_from(range(graph.n_nodes))
    directed.add_weighted_edges_from(edges, weight="capacity")
    return Prepared(directed, build_residual_network(directed, "capacity"))


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """Preflow-push without the second phase, which only the edge flows need."""
    residual = preflow_push(prepared.graph, source, sink, residual=prepared.residual, value_only=True)
    return int(residual.graph["flow_value"])
