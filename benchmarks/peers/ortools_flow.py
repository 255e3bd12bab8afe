"""OR-Tools: highest-label push-relabel on static arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import max_flow

from peers import edge_list, node_count

NAME = "OR-Tools SimpleMaxFlow"
DISTRIBUTION = "ortools"
MAX_EDGES = 20_000_000


class Prepared(NamedTuple):
    """The solver, and where the last block begins."""

    solver: max_flow.SimpleMaxFlow
    last_block: int


def prepare(capacities: NDArray[np.int64]) -> Prepared:
    """Integers only: the bulk call takes 0.5 as 0."""
    solver = max_flow.SimpleMaxFlow()
    solver.add_arcs_with_capacity(*edge_list(capacities))
    return Prepared(solver, node_count(capacities) - capacities.shape[1])


def solve(prepared: Prepared, source: int, sink: int) -> int:
    """One graph serves every source."""
    status = prepared.solver.solve(source, prepared.last_block + sink)
    assert status == prepared.solver.OPTIMAL, status
    return int(prepared.solver.optimal_flow())
