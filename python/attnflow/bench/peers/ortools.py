"""OR-Tools: highest-label push-relabel on static arrays."""

from __future__ import annotations

from ortools.graph.python import max_flow

from . import Graph

__all__ = ["DISTRIBUTION", "MAX_EDGES", "NAME", "prepare", "solve"]

NAME = "OR-Tools SimpleMaxFlow"
DISTRIBUTION = "ortools"
MAX_EDGES = 20_000_000


def prepare(graph: Graph) -> max_flow.SimpleMaxFlow:
    """Integers only: the bulk call takes 0.5 as 0."""
    solver = max_flow.SimpleMaxFlow()
    solver.add_arcs_with_capacity(graph.tails, graph.heads, graph.capacities)
    return solver


def solve(prepared: max_flow.SimpleMaxFlow, source: int, sink: int) -> int:
    """One graph serves every source."""
    status = prepared.solve(source, sink)
    if status != prepared.OPTIMAL:
        raise RuntimeError(f"OR-Tools answers with status {status} from node {source} to node {sink}")
    return int(prepared.optimal_flow())
