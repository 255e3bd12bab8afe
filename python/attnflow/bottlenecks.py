"""What limits one flow - minimum cuts at both ends, full edges, edges that would let more through - and its ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import maxflow
from ._frozen import Frozen
from ._positions import Node, as_position
from .errors import CertificateError
from .maxflow import EdgeFlows, Link
from .storage import Stored

__all__ = ["Bottleneck", "Edges", "Path", "Paths", "bottleneck", "paths"]


@dataclass(frozen=True, eq=False)
class Edges(Frozen):
    """Some edges of a network, as parallel arrays of one entry an edge.

    Attributes
    ----------
    link, receiver, giver : int32 arrays
        Which link, and positions in its blocks.
    capacity : float64 array
        As given; infinity where unbounded.
    flow : float64 array
        What the maximum flow at hand sends along them.
    """

    link: NDArray[np.int32]
    receiver: NDArray[np.int32]
    giver: NDArray[np.int32]
    capacity: NDArray[np.float64]
    flow: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.link)

    def __repr__(self) -> str:
        return f"Edges({len(self)} edges)"


@dataclass(frozen=True, eq=False, repr=False)
class Bottleneck(Frozen):
    """What limits the maximum flow from a source to a sink.

    Attributes
    ----------
    value, lower, upper : float
        The maximum flow, and its certified bounds.
    limit : int
        ``SOURCE`` (-1), ``SINK`` (-2), ``NONE`` (-3), or the link with the largest share of the cut nearest the source.
    near_source, near_sink : tuples of bool arrays
        The source's side of the minimum cuts nearest the source and nearest the sink, one array a block. Every other
        minimum cut lies between them; where they are equal, there is no other.
    cut, cut_near_sink : Edges
        The edges that leave these sides. All of them are full, and their capacities add up to the value.
    full : Edges
        All edges that carry as much as they can, as far as float64 tells. Which ones, beside those of the cuts, depends
        on the flow at hand.
    widening : Edges
        The edges where more capacity would let more through, by as much as is added at first: those that are in every
        minimum cut, and edges without capacity aside. Empty where two cuts have no edge in common.
    """

    value: float
    lower: float
    upper: float
    limit: int
    near_source: tuple[NDArray[np.bool_], ...]
    near_sink: tuple[NDArray[np.bool_], ...]
    cut: Edges
    cut_near_sink: Edges
    full: Edges
    widening: Edges
    _problem: Any = field(repr=False)

    def gain(self, index: int) -> float:
        """How much more would flow if one edge of `widening` had no limit: what its slack is worth.

        Parameters
        ----------
        index : int
            Counts in `widening`, negative ones from the end.

        Raises
        ------
        InvalidArgumentError
            There is no such edge.
        UnboundedFlowError
            Nothing else would limit the flow.
        """
        chosen = as_position(index, "index", len(self.widening), "widening", "edge")
        problem: _Problem = self._problem
        wider = problem.widened(
            *(int(part[chosen]) for part in (self.widening.link, self.widening.receiver, self.widening.giver))
        )
        return float(wider.values[0, 0]) - self.value

    def check(self) -> None:
        """Assert that both cuts have the value of the flow, to what float64 rounds.

        Raises
        ------
        CertificateError
            They do not.
        """
        for name, edges in (("source", self.cut), ("sink", self.cut_near_sink)):
            capacity = float(edges.capacity.sum())
            if not abs(capacity - self.value) <= 1e-12 * max(capacity, self.value) + (self.upper - self.lower):
                raise CertificateError(f"the cut nearest the {name} has capacity {capacity!r}, the flow {self.value!r}")

    def __repr__(self) -> str:
        return f"Bottleneck(value={self.value:.6g}, limit={self.limit}, cut={len(self.cut)} edges)"


@dataclass(frozen=True)
class Path:
    """One way of a flow: nodes (block, position) from the source to the sink, and how much goes along it."""

    nodes: tuple[Node, ...]
    flow: float


@dataclass(frozen=True)
class Paths(Sequence[Path]):
    """A maximum flow as paths, the largest first.

    Attributes
    ----------
    paths : tuple of Path
        A flow can be taken apart in many ways: this is one of them.
    left : float
        What of the flow goes along no path that is listed: 0 but for rounding unless `most` cut the list off.
    """

    paths: tuple[Path, ...]
    left: float

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return self.paths[index]


class _Problem:
    """One source, one sink, and the network between them."""

    def __init__(
        self,
        sizes: Sequence[int],
        links: Sequence[Link],
        source: Sequence[Node],
        sink: Sequence[Node],
        options: dict[str, Any],
    ) -> None:
        self.sizes, self.links, self.source, self.sink, self.options = sizes, links, source, sink, options

    def solve(self, links: Sequence[Link], *, everything: bool = False, flows: bool = False) -> maxflow.Flows:
        return maxflow.blocks(
            self.sizes,
            links,
            sources=[list(self.source)],
            sinks=[list(self.sink)],
            bottlenecks=everything,
            cuts=everything,
            flows=everything or flows,
            **self.options,
        )

    def widened(self, link: int, receiver: int, giver: int) -> maxflow.Flows:
        old = self.links[link]
        door = np.zeros(self.sizes[old.giver], dtype=np.float32)
        door[giver] = np.inf
        return self.solve([*self.links, Link(old.giver, old.receiver, door, receiver - giver)])


def bottleneck(
    sizes: Sequence[int], links: Sequence[Link], source: Sequence[Node], sink: Sequence[Node], options: dict[str, Any]
) -> Bottleneck:
    """What limits one flow; see :meth:`attnflow.Network.bottleneck`."""
    problem = _Problem(sizes, links, source, sink, options)
    flows = problem.solve(links, everything=True)
    assert flows.cuts is not None
    assert flows.flows is not None
    assert flows.bottlenecks is not None
    edges = _all_edges(sizes, links, flows.flows)
    # Less than a quantum left is nothing left: capacities are solved in whole quanta.
    open_ = edges.capacity - edges.flow >= (flows.stats["quantum"] if edges.capacity.size else 0)
    near_source = flows.cuts[0][0].source_side
    # The other way round: the cut nearest the source of the reversed network, by the kernel, whose flows and capacities
    # have more digits than float64.
    back = _Problem(sizes, [_reversed(link, sizes) for link in links], sink, source, options)
    reaching = back.solve(back.links, everything=True).cuts
    assert reaching is not None
    near_sink = tuple(~side for side in reaching[0][0].source_side)
    here, there = _ends(links, edges, near_source)
    first, last = here & ~there, _crossing(links, edges, near_sink)
    return Bottleneck(
        value=float(flows.values[0, 0]),
        lower=float(flows.lower[0, 0]),
        upper=float(flows.upper[0, 0]),
        limit=int(flows.bottlenecks[0, 0]),
        near_source=near_source,
        near_sink=near_sink,
        cut=_some(edges, first),
        cut_near_sink=_some(edges, last),
        full=_some(edges, ~open_),
        widening=_some(edges, first & last),
        _problem=problem,
    )


def paths(
    sizes: Sequence[int],
    links: Sequence[Link],
    source: Sequence[Node],
    sink: Sequence[Node],
    most: int | None,
    options: dict[str, Any],
) -> Paths:
    """One flow as paths; see :meth:`attnflow.Network.paths`."""
    flows = _Problem(sizes, links, source, sink, options).solve(links, flows=True)
    assert flows.flows is not None
    ways: dict[Node, dict[Node, float]] = {}
    columns = (flows.flows.link, flows.flows.receiver, flows.flows.giver, flows.flows.flow)
    for link, receiver, giver, flow in zip(*(column.tolist() for column in columns), strict=True):
        onwards = ways.setdefault((links[link].giver, giver), {})
        to = links[link].receiver, receiver
        onwards[to] = onwards.get(to, 0.0) + flow
    ends = set(sink)
    found: dict[tuple[Node, ...], float] = {}
    value = float(flows.values[0, 0])
    for start in source:
        while (way := _widest(ways, start, ends)) is not None:
            amount = min(ways[a][b] for a, b in pairwise(way))
            for a, b in pairwise(way):
                ways[a][b] -= amount
                if ways[a][b] <= 1e-14 * value:  # what float64 could not hold of the kernel's whole quanta
                    del ways[a][b]
            if way[-1] in ends:  # else a circle, which is taken away
                found[way] = found.get(way, 0.0) + amount
    every = (Path(nodes, amount) for nodes, amount in found.items())
    chosen = tuple(sorted(every, key=lambda path: (-path.flow, path.nodes))[:most])
    return Paths(chosen, max(0.0, value - sum(path.flow for path in chosen)))


def _widest(ways: dict[Node, dict[Node, float]], start: Node, ends: set[Node]) -> tuple[Node, ...] | None:
    """Always the largest flow onwards, to an end or round in a circle; None when nothing is left."""
    way, seen = [start], {start: 0}
    while way[-1] not in ends:
        onwards = ways.get(way[-1])
        if not onwards:  # at the start, or where rounding took the rest away
            if len(way) == 1:
                return None
            last = way.pop()
            del seen[last], ways[way[-1]][last]
            continue
        node = max(onwards, key=lambda to: (onwards[to], to))
        if node in seen:
            return (*way[seen[node] :], node)
        seen[node] = len(way)
        way.append(node)
    return tuple(way)


def _all_edges(sizes: Sequence[int], links: Sequence[Link], flows: EdgeFlows) -> Edges:
    parts = []
    for number, link in enumerate(links):
        receiver, giver, capacity = link.edges(sizes[link.receiver])
        numbers = np.full(capacity.size, number, dtype=np.int32)
        parts.append((numbers, receiver, giver, capacity, flows.along(number, receiver, giver)))
    return Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _some(edges: Edges, chosen: NDArray[np.bool_]) -> Edges:
    return Edges(
        edges.link[chosen], edges.receiver[chosen], edges.giver[chosen], edges.capacity[chosen], edges.flow[chosen]
    )


def _ends(
    links: Sequence[Link], edges: Edges, side: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the giver, and the receiver, of each edge lie on a side."""
    here, there = np.zeros(len(edges), dtype=bool), np.zeros(len(edges), dtype=bool)
    for number, link in enumerate(links):
        mine = edges.link == number
        here[mine] = side[link.giver][edges.giver[mine]]
        there[mine] = side[link.receiver][edges.receiver[mine]]
    return here, there


def _crossing(links: Sequence[Link], edges: Edges, side: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    here, there = _ends(links, edges, side)
    return here & ~there


def _reversed(link: Link, sizes: Sequence[int]) -> Link:
    """The same edges the other way; their matrix is looked at from the side, not copied, unless it is packed."""
    given: Any = link.capacities
    if given.ndim == 2:
        dense = given.to_dense() if isinstance(given, Stored) else given
        return Link(link.receiver, link.giver, dense.T)
    # The edge from k to k + offset is now one from k + offset to k.
    turned = np.zeros(sizes[link.receiver], dtype=given.dtype)
    receiver, giver, _ = link.edges(sizes[link.receiver])
    turned[receiver] = given[giver]
    return Link(link.receiver, link.giver, turned, -link.offset)
