"""Independent answers to the kernel's question, and the one certificate that every algorithm's result must pass.

Nothing here shares code with the kernel. A :class:`Case` is a network in the plainest form; the oracles take one of its
pairs and return the maximum flow:

- ``exact``: networkx on Python integers. Floating capacities are integers times a power of two, so that this is exact
  for them as well, whatever their scale.
- ``by_linear_program``: scipy's HiGHS, in floating point.
- ``by_enumeration``: the least of all cuts, one by one. Tiny networks only.
- ``by_scipy``: scipy's maximum_flow on 32-bit integers, for larger networks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np
import scipy.optimize
import scipy.sparse

from attnflow import instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from attnflow.maxflow import Flows

Node = tuple[int, int]
SOURCE, SINK = "source", "sink"


class Edge(NamedTuple):
    """One edge of positive capacity."""

    tail: Node
    head: Node
    capacity: int | float  # inf: unbounded
    link: int


class Case:
    """A network with the sources and the sinks to solve for; a source or a sink is a list of nodes, joined."""

    def __init__(
        self,
        sizes: Iterable[int],
        links: Sequence[tuple[Any, ...]],
        sources: list[list[Node]],
        sinks: list[list[Node]],
    ) -> None:
        self.sizes = tuple(int(size) for size in sizes)
        self.links = [(*link, 0)[:4] for link in links]
        self.sources, self.sinks = sources, sinks

    @classmethod
    def layered(cls, capacities: Any, sources: Any = None, sinks: Any = None) -> Case:
        """The network of matrices [receiver, giver], with lists of positions or of lists of positions (None: all)."""
        sizes = [np.shape(capacities[0])[1], *(np.shape(layer)[0] for layer in capacities)]
        links = [(index, index + 1, layer) for index, layer in enumerate(capacities)]
        return cls(sizes, links, _nodes(sources, 0, sizes[0]), _nodes(sinks, len(sizes) - 1, sizes[-1]))

    @classmethod
    def blocks(cls, network: instances.Blocks) -> Case:
        """From every node of the block its source is in, to every node of the block its sink is in."""
        sources = [[(network.source[0], k)] for k in range(network.sizes[network.source[0]])]
        sinks = [[(network.sink[0], j)] for j in range(network.sizes[network.sink[0]])]
        return cls(network.sizes, network.links, sources, sinks)

    @property
    def integral(self) -> bool:
        """Whether every bounded capacity is a whole number small enough for exact float64 sums."""
        bounded = [edge.capacity for edge in self.edges if edge.capacity != math.inf]
        return all(capacity == int(capacity) for capacity in bounded) and sum(bounded) < 2**53

    @property
    def edges(self) -> list[Edge]:
        """Every edge of positive capacity, as Python numbers."""
        found = []
        for index, (giver, receiver, capacities, offset) in enumerate(self.links):
            array = np.asarray(capacities)
            for place in np.argwhere(array):
                j, k = place if array.ndim == 2 else (place[0] + offset, place[0])
                if 0 <= j < self.sizes[receiver]:
                    value = array[tuple(place)].item()
                    found.append(Edge((giver, int(k)), (receiver, int(j)), value, index))
        return found

    @property
    def nodes(self) -> list[Node]:
        """All of them, block by block."""
        return [(block, position) for block, size in enumerate(self.sizes) for position in range(size)]

    def to_maxflow(self) -> tuple[tuple[int, ...], list[Any]]:
        """The arguments of maxflow.blocks."""
        from attnflow.maxflow import Link

        return self.sizes, [Link(*link) for link in self.links]

    @property
    def is_layered(self) -> bool:
        """Whether maxflow.layered takes it."""
        return [link[:2] for link in self.links] == [(b, b + 1) for b in range(len(self.sizes) - 1)] and all(
            np.ndim(link[2]) == 2 for link in self.links
        )


def _nodes(groups: Any, block: int, size: int) -> list[list[Node]]:
    if groups is None:
        groups = range(size)
    return [[(block, int(p) % size) for p in (group if hasattr(group, "__iter__") else [group])] for group in groups]


# ---- the instances every algorithm is run on


def _families() -> dict[str, Case]:
    layered = {
        "softmax": instances.softmax(3, 6, seed=1),
        "softmax raw": instances.softmax(3, 6, seed=2, residual=0.0, sharpness=3.0),
        "causal": instances.softmax(3, 6, seed=3, causal=True),
        "peaked": instances.peaked(4, 6, seed=4),
        "peaked raw": instances.peaked(4, 6, seed=5, residual=0.0),
        "near uniform": instances.near_uniform(3, 6, seed=6),
        "uniform": instances.near_uniform(2, 5, seed=7, jitter=0.0, residual=0.0),
        "packed": instances.packed(3, [2, 3, 1], seed=8),
        "disconnected": instances.disconnected(4, 6, seed=9),
        "one token": instances.softmax(3, 1, seed=10),
        "one layer": instances.softmax(1, 6, seed=11),
        "one edge": np.array([[[0.25]]]),
        "no edge": np.zeros((2, 3, 3), dtype=np.float32),
        "float64": np.random.default_rng(12).random((3, 5, 5)) ** 4,
        "integers": instances.integers([4, 6, 3, 5], seed=13),
        "integers, narrow": instances.integers([5, 1, 4], seed=14, density=1.0),
        "integers, sparse": instances.integers([6, 6, 6, 6], seed=15, density=0.35),
        "zero-one": instances.integers([5, 5, 5, 5], seed=16, high=1, density=1.0),
        "washington": instances.washington(4, 5, seed=17),
        "washington mesh": instances.washington(4, 5, seed=18, mesh=True),
    }
    found = {name: Case.layered(capacities) for name, capacities in layered.items()}
    found["super nodes"] = Case.layered(layered["integers"], sources=[[0, 2], [1], [0, 1, 2, 3]], sinks=[[0, 4], [3]])
    found["mixed types"] = Case(
        (3, 3, 3),
        [(0, 1, instances.softmax(1, 3, seed=19)[0]), (1, 2, np.array([[1, 0, 2], [3, 1, 0], [0, 0, 1]]))],
        _nodes(None, 0, 3),
        _nodes(None, 2, 3),
    )
    for seed in range(12):
        found[f"blocks {seed}"] = Case.blocks(instances.random_blocks(seed=seed, n_blocks=3 + seed % 4))
    found["encoder-decoder"] = Case.blocks(instances.encoder_decoder(2, 4, 2, 3, seed=20))
    found["encoder-decoder, chained"] = Case.blocks(instances.encoder_decoder(2, 4, 2, 3, seed=21, chain=True))
    found["genrmf"] = Case.blocks(instances.genrmf(3, 3, seed=22))
    found["acyclic dense"] = Case.blocks(instances.acyclic_dense(7, seed=23))
    found["parallel links"] = Case(
        (2, 2, 2),
        [(0, 1, np.array([[1, 2], [0, 3]])), (0, 1, np.array([2, 1])), (1, 2, np.eye(2) * 4), (0, 2, np.array([5, 1]))],
        _nodes(None, 0, 2),
        _nodes(None, 2, 2),
    )
    found["inner nodes"] = Case(  # sources and sinks need not lie at the ends
        found["genrmf"].sizes, found["genrmf"].links, [[(2, 0)], [(0, 1), (3, 2)]], [[(1, 3)], [(4, 0), (5, 1)]]
    )
    return found


FAMILIES = _families()
TINY = [
    name
    for name, case in FAMILIES.items()
    if len(case.nodes) <= 15 and all(len(group) == 1 for group in (*case.sources, *case.sinks))
]


# ---- oracles


class Answer(NamedTuple):
    """Of one pair."""

    value: Fraction
    source_side: frozenset[Node]  # of the minimum cut nearest the source


def exact(case: Case, source: Sequence[Node], sink: Sequence[Node]) -> Answer:
    """Maximum flow and the smallest source side of a minimum cut, exactly. Raises nx.NetworkXUnbounded."""
    scale = max((Fraction(edge.capacity).denominator for edge in _bounded(case)), default=1)
    graph = nx.DiGraph()
    graph.add_nodes_from(case.nodes)
    total: dict[tuple[Node, Node], Any] = defaultdict(int)
    for edge in case.edges:
        units = math.inf if edge.capacity == math.inf else int(Fraction(edge.capacity) * scale)
        total[edge.tail, edge.head] += units
    for (tail, head), units in total.items():
        graph.add_edge(tail, head, **({} if units == math.inf else {"capacity": units}))
    graph.add_edges_from((SOURCE, node) for node in source)
    graph.add_edges_from((node, SINK) for node in sink)
    residual = nx.algorithms.flow.shortest_augmenting_path(graph, SOURCE, SINK)
    open_edges = nx.DiGraph()
    open_edges.add_nodes_from(residual)
    open_edges.add_edges_from((u, v) for u, v, data in residual.edges(data=True) if data["flow"] < data["capacity"])
    side = {SOURCE, *nx.descendants(open_edges, SOURCE)} - {SOURCE}
    return Answer(Fraction(residual.graph["flow_value"], scale), frozenset(side))


@cache
def exact_family(name: str) -> tuple[tuple[Answer, ...], ...]:
    """``[sink][source]`` of a case of FAMILIES."""
    case = FAMILIES[name]
    return tuple(tuple(exact(case, source, sink) for source in case.sources) for sink in case.sinks)


def by_linear_program(case: Case, source: Sequence[Node], sink: Sequence[Node]) -> float:
    """Maximise the net flow out of the source, subject to capacities and conservation."""
    edges = case.edges
    if not edges:
        return 0.0
    row = {node: index for index, node in enumerate(case.nodes)}
    balance = np.zeros((len(row), len(edges)))
    for column, edge in enumerate(edges):
        balance[row[edge.tail], column] += 1
        balance[row[edge.head], column] -= 1
    outward = balance[[row[node] for node in source]].sum(axis=0)
    inner = [row[node] for node in case.nodes if node not in source and node not in sink]
    result = scipy.optimize.linprog(
        -outward,
        A_eq=balance[inner] if inner else None,
        b_eq=np.zeros(len(inner)) if inner else None,
        bounds=[(0, edge.capacity) for edge in edges],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert result.status == 0, result.message
    return float(-result.fun)


def by_enumeration(case: Case, source: Node, sink: Node) -> Answer:
    """The least of all 2^k cuts and the intersection of the source sides of those that reach it."""
    inner = [node for node in case.nodes if node not in (source, sink)]
    assert len(inner) <= 16
    subsets = np.arange(2 ** len(inner))
    within = {node: (subsets >> bit) & 1 == 1 for bit, node in enumerate(inner)}
    within[source] = np.ones(len(subsets), dtype=bool)
    within[sink] = np.zeros(len(subsets), dtype=bool)
    scale = max((Fraction(edge.capacity).denominator for edge in _bounded(case)), default=1)
    unlimited = 1 + sum(int(Fraction(edge.capacity) * scale) for edge in _bounded(case))
    capacity = np.zeros(len(subsets), dtype=object if unlimited * len(case.edges) >= 2**62 else np.int64)
    for edge in case.edges:
        units = unlimited if edge.capacity == math.inf else int(Fraction(edge.capacity) * scale)
        capacity[within[edge.tail] & ~within[edge.head]] += units
    least = capacity.min()
    sides = [
        frozenset(node for node in case.nodes if within[node][subset]) for subset in np.flatnonzero(capacity == least)
    ]
    return Answer(Fraction(int(least), scale), frozenset.intersection(*sides))


def by_scipy(case: Case) -> np.ndarray:
    """Values (n_sinks, n_sources) of a case of integers below 2^31 and single nodes."""
    from scipy.sparse.csgraph import maximum_flow

    number = {node: index for index, node in enumerate(case.nodes)}
    graph = np.zeros((len(number), len(number)), dtype=np.int64)
    for edge in case.edges:
        graph[number[edge.tail], number[edge.head]] += edge.capacity
    assert graph.max() < 2**31
    compressed = scipy.sparse.csr_array(graph.astype(np.int32))
    return np.array(
        [
            [maximum_flow(compressed, number[source], number[sink]).flow_value for (source,) in case.sources]
            for (sink,) in case.sinks
        ],
        dtype=np.float64,
    )


def _bounded(case: Case) -> list[Edge]:
    return [edge for edge in case.edges if edge.capacity != math.inf]


# ---- the certificate


def check_bounds(flows: Flows, case: Case, answers: Sequence[Sequence[Answer]]) -> None:
    """The certified interval holds the exact maximum flow, the value lies in it, and it is as narrow as promised."""
    assert flows.values.dtype == flows.lower.dtype == flows.upper.dtype == np.float64
    assert flows.values.shape == flows.lower.shape == flows.upper.shape == (len(case.sinks), len(case.sources))
    assert not flows.values.flags.writeable
    for t, row in enumerate(answers):
        for s, answer in enumerate(row):
            value, lower, upper = (Fraction(float(a[t, s])) for a in (flows.values, flows.lower, flows.upper))
            assert lower <= answer.value <= upper, (t, s, float(lower), float(answer.value), float(upper))
            assert lower <= value <= upper
            assert upper - lower <= 4 * Fraction(math.ulp(float(answer.value)))
            if case.integral:
                assert lower == value == upper == answer.value


def check_cut(flows: Flows, case: Case, t: int, s: int) -> Fraction:
    """One pair's cut separates it, and its capacity, summed from the original capacities, is what it says."""
    cut = flows.cuts[t][s]
    assert [side.shape for side in cut.source_side] == [(size,) for size in case.sizes]
    assert all(side.dtype == bool for side in cut.source_side)
    assert all(cut.source_side[block][position] for block, position in case.sources[s])
    assert not any(cut.source_side[block][position] for block, position in case.sinks[t])
    crossing = [
        edge.capacity
        for edge in case.edges
        if cut.source_side[edge.tail[0]][edge.tail[1]] and not cut.source_side[edge.head[0]][edge.head[1]]
    ]
    assert math.inf not in crossing
    capacity = sum((Fraction(c) for c in crossing), Fraction(0))
    assert math.isclose(cut.capacity, capacity, rel_tol=1e-15 * (1 + len(crossing)))
    return capacity


def check_certificate(flows: Flows, case: Case) -> None:
    """Capacity, conservation, and value == cut for a result of one pair with ``flows=True, cuts=True``.

    Written from the original capacities alone. The flow found must be feasible and reach the capacity of the cut, which
    proves both maximum; `lower`, `value` and `upper` must agree with them.
    """
    (source,), (sink,) = case.sources, case.sinks
    found = flows.flows
    assert len(found.link) == len(found.receiver) == len(found.giver) == len(found.flow)
    assert np.all(found.flow > 0)
    places = list(zip(found.link.tolist(), found.receiver.tolist(), found.giver.tolist(), strict=True))
    assert len(set(places)) == len(places), "an edge is listed twice"
    net: dict[Node, Fraction] = defaultdict(Fraction)
    largest = Fraction(0)
    for (link, j, k), units in zip(places, found.flow.tolist(), strict=True):
        giver, receiver, capacities, offset = case.links[link]
        assert 0 <= k < case.sizes[giver]
        assert 0 <= j < case.sizes[receiver]
        assert np.ndim(capacities) == 2 or j == k + offset
        held = capacities[j, k] if np.ndim(capacities) == 2 else capacities[k]
        assert units <= held.item(), (link, j, k, units, held)
        net[giver, k] += Fraction(units)
        net[receiver, j] -= Fraction(units)
        largest = max(largest, Fraction(units))
    # Each float is rounded once; whole numbers below 2^53 are exact.
    slack = 0 if case.integral else len(places) * largest * Fraction(2) ** -52
    for node, surplus in net.items():
        if node not in source and node not in sink:
            assert abs(surplus) <= slack, (node, float(surplus))
    sent = sum((net[node] for node in source), Fraction(0))
    received = -sum((net[node] for node in sink), Fraction(0))
    value, lower, upper = (Fraction(float(a[0, 0])) for a in (flows.values, flows.lower, flows.upper))
    assert abs(sent - received) <= slack
    assert abs(sent - value) <= slack
    capacity = check_cut(flows, case, 0, 0)
    assert sent <= capacity + slack
    assert lower <= capacity
    assert abs(capacity - value) <= slack + (upper - lower)
    if case.integral:
        assert sent == received == value == lower == upper == capacity


def one_pair(case: Case, t: int, s: int) -> Case:
    """The same network with one source and one sink."""
    return Case(case.sizes, case.links, [case.sources[s]], [case.sinks[t]])


# ---- bottlenecks -----------------------------------------------------------------------------------------------------


def bottleneck(case: Case, source: Sequence[Node], sink: Sequence[Node]) -> set[str | int]:
    """What may be named the bottleneck: "source", "sink", "none", or links with the largest share of the cut."""
    answer = exact(case, source, sink)
    if answer.value == 0:
        return {"none"}
    graph = nx.DiGraph((edge.tail, edge.head) for edge in case.edges)
    graph.add_nodes_from(case.nodes)
    reached = set(source).union(*(nx.descendants(graph, node) for node in source))
    reaching = set(sink).union(*(nx.ancestors(graph, node) for node in sink))
    leaving = [e.capacity for e in case.edges if e.tail in source and e.head not in source and e.head in reaching]
    arriving = [e.capacity for e in case.edges if e.head in sink and e.tail not in sink and e.tail in reached]
    if math.inf not in leaving and sum(map(Fraction, leaving)) == answer.value:
        return {"source"}
    if math.inf not in arriving and sum(map(Fraction, arriving)) == answer.value:
        return {"sink"}
    share: dict[int, Fraction] = defaultdict(Fraction)
    for edge in case.edges:
        if edge.tail in answer.source_side and edge.head not in answer.source_side:
            share[edge.link] += Fraction(edge.capacity)
    return {link for link, part in share.items() if part == max(share.values())}
