"""The way one flow takes through the layers: x = layer, y = token, thickness = flow.

Ribbons are stacked at each node. Since flow is conserved, what enters a node is as thick as what leaves it, and the
thickness at the source and at the target is the score itself. What limits it is drawn in the accent colour: the band
is the layer that holds most of the minimum cut, and edges known to cross the cut are filled.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..attribution import SINK, SOURCE
from . import wording
from .elements import BASELINE, WIDTH, Element, breadth, line, number, rect, shorten, text, tooltip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..attribution import Attribution, PairFlow

__all__ = ["draw"]

_MOST_ROWS = 44  # positions in a picture; the ones that carry most
_THINNEST = 0.6
_TOP, _RIGHT = 58.0, 92.0

# (layer, giver, receiver) -> (flow, whether the edge crosses the minimum cut)
_Edges = dict[tuple[int, int, int], tuple[float, bool]]


def draw(result: Attribution, pair: PairFlow) -> tuple[Element, float]:
    """The picture of one flow of a result with one sink, and its height."""
    group = Element("g")
    player = result.players.tolist().index(pair.source)
    code = int(result.bottlenecks[0, player])
    edges = _edges(result, pair)
    through = _throughput(edges)
    grid = _grid(result, pair, through)

    text(group, 16, 18, f"How “{wording.label(result, pair.source)}” reaches the target", "title")
    limit = wording.bottleneck_words(result.bottleneck_label(player))
    flow = "flow" if result.attribution == "independent" else "its own flow"
    text(group, 16, 35, f"position {pair.source} · {flow} {pair.value:.4g} · {limit}", "faint")
    if code >= 0:
        inset = min(2.0, grid.step / 4)
        rect(group, grid.x(code) + inset, _TOP - 6, grid.step - 2 * inset, grid.bottom - _TOP + 12, "band")
    _rows(group, result, pair, grid)
    thick = grid.row_height * 0.86 / max(through.values(), default=1.0)
    hidden = _ribbons(group, grid, edges, thick)
    for (block, position), amount in through.items():
        if position in grid.y:
            height = max(1.2, amount * thick)
            rect(group, grid.x(block) - 1.5, grid.y[position] - height / 2, 3, height, "node")
    limiting = {SOURCE: [(0, pair.source)], SINK: [(grid.layers, p) for p in sorted(grid.targets)]}
    for block, position in limiting.get(code, []):
        ring = {"cx": number(grid.x(block)), "cy": number(grid.y[position]), "r": number(grid.row_height * 0.6)}
        ElementTree.SubElement(group, "circle", {"class": "ring", **ring})
    y = grid.bottom + 18
    for block in grid.ticks():
        name = "input" if block == 0 else "mean" if block > result.n_layers else str(block)
        if block == min(grid.layers, result.n_layers):
            name = f"layer {block}"
        limits = code >= 0 and block == code + 1
        text(group, grid.x(block), y, name, "accent strong" if limits else "faint", "middle")
    y += 16
    if missing := len({position for _, position in through} - set(grid.y)):
        said = f"{missing} more positions, and with them {hidden:.1%} of what the edges carry, are not drawn"
        text(group, grid.left, y, said, "faint")
        y += 16
    return group, y + 8


@dataclass(frozen=True)
class _Grid:
    """Where things go: blocks of the network from left to right, positions from top to bottom."""

    names: Mapping[int, str]
    targets: frozenset[int]
    y: Mapping[int, float]  # position -> middle of its row; positions without a row are not drawn
    layers: int
    left: float
    step: float
    row_height: float

    @property
    def bottom(self) -> float:
        return _TOP + self.row_height * len(self.y)

    def x(self, block: int) -> float:
        return self.left + self.step * block

    def ticks(self) -> list[int]:
        """Blocks that get a number: the first, the last, and as many between as there is room for."""
        every = max(1, -(-self.layers // 16))
        return [0, *(b for b in range(every, self.layers, every) if self.layers - b >= every), self.layers]


def _grid(result: Attribution, pair: PairFlow, through: Mapping[tuple[int, int], float]) -> _Grid:
    carried: dict[int, float] = defaultdict(float)
    for (_, position), amount in through.items():
        carried[position] += amount
    mean = len(result.tokens)  # the row of the mean over positions, if there is one
    targets = frozenset({mean} if mean in carried else result.targets[0]) & carried.keys()
    ends = targets | {pair.source}
    kept = sorted(carried, key=lambda p: (p not in ends, -carried[p]))[: max(_MOST_ROWS, len(ends))]
    order = sorted({*kept, pair.source})
    names = {p: wording.label(result, p) for p in range(len(result.tokens))} | {mean: "mean"}
    row_height = 24.0 if len(order) <= 24 else 17.0
    # A name, its distance to the nodes, and the number of its position at the margin.
    widest = max(breadth(shorten(names[p], 18), strong=True) for p in order)
    left = max(48 + widest + 7.4 * len(str(mean)), 96.0)
    layers = max(result.n_layers, int(pair.layer.max(initial=0)) + 1)
    return _Grid(
        names=names,
        targets=targets,
        y={p: _TOP + row_height * (i + 0.5) for i, p in enumerate(order)},
        layers=layers,
        left=left,
        step=(WIDTH - left - _RIGHT) / layers,
        row_height=row_height,
    )


def _rows(group: Element, result: Attribution, pair: PairFlow, grid: _Grid) -> None:
    for position, y in grid.y.items():
        line(group, grid.left, y, WIDTH - _RIGHT, y, "guide")
        kind = "strong" if position == pair.source or position in grid.targets else ""
        text(group, grid.left - 22, y + BASELINE, shorten(grid.names[position], 18), kind, "end")
        if position < len(result.tokens):
            text(group, 16, y + BASELINE, str(position), "faint")
    if result.prediction is not None and len(grid.targets) == 1:
        said = shorten(wording.shown_token(result.prediction[0]), 9)
        text(group, WIDTH - _RIGHT + 18, grid.y[min(grid.targets)] + BASELINE, said, "strong")


def _edges(result: Attribution, pair: PairFlow) -> _Edges:
    """The edges that carry anything; a mean over positions receives in a row of its own, below the tokens."""
    cut = [False] * pair.flow.size if pair.cut is None else pair.cut.tolist()
    ends = zip(pair.layer.tolist(), pair.giver.tolist(), pair.receiver.tolist(), strict=True)
    mean = len(result.tokens)
    return {
        (layer, giver, receiver if layer < result.n_layers else mean): (amount, full)
        for (layer, giver, receiver), amount, full in zip(ends, pair.flow.tolist(), cut, strict=True)
        if amount > 0
    }


def _throughput(edges: _Edges) -> dict[tuple[int, int], float]:
    """(block, position) -> flow through that node: what leaves it, or enters it in the last block."""
    leaves: dict[tuple[int, int], float] = defaultdict(float)
    enters: dict[tuple[int, int], float] = defaultdict(float)
    for (layer, giver, receiver), (amount, _) in edges.items():
        leaves[layer, giver] += amount
        enters[layer + 1, receiver] += amount
    return {node: max(leaves.get(node, 0.0), enters.get(node, 0.0)) for node in sorted({*leaves, *enters})}


def _ribbons(group: Element, grid: _Grid, edges: _Edges, thick: float) -> float:
    """Draw the edges between the rows there are; returns the share of what the edges carry that found no row."""
    # Stacked in the order of the rows at their other ends, ribbons do not cross each other at a node.
    starts = _stack(edges, sorted(edges), 0, 1, thick)
    ends = _stack(edges, sorted(edges, key=lambda e: (e[0], e[2], e[1])), 0, 2, thick)
    hidden = 0.0
    for edge, (amount, full) in sorted(edges.items(), key=lambda item: item[1][1]):  # the cut on top
        layer, giver, receiver = edge
        if giver not in grid.y or receiver not in grid.y:
            hidden += amount
            continue
        tall = max(_THINNEST, amount * thick)
        y0, y1 = grid.y[giver] + starts[edge], grid.y[receiver] + ends[edge]
        xs = (grid.x(layer), (grid.x(layer) + grid.x(layer + 1)) / 2, grid.x(layer + 1))
        x0, middle, x1 = (number(x) for x in xs)
        top, end, under, back = (number(y) for y in (y0, y1, y1 + tall, y0 + tall))
        there = f"M{x0} {top}C{middle} {top} {middle} {end} {x1} {end}"
        path = f"{there}V{under}C{middle} {under} {middle} {back} {x0} {back}Z"
        ribbon = ElementTree.SubElement(group, "path", {"class": "cut" if full else "ribbon", "d": path})
        to_mean = receiver == max(grid.names)
        where = "mean over positions" if to_mean else f"layer {layer + 1}"
        to = grid.names[receiver] if to_mean else f"{receiver} {grid.names[receiver]}"
        said = f"{where}: {giver} {grid.names[giver]} → {to}: {amount:.3g}"
        tooltip(ribbon, said + (", full: in the minimum cut" if full else ""))
    return hidden / (sum(amount for amount, _ in edges.values()) or 1.0)


def _stack(
    edges: _Edges, order: list[tuple[int, int, int]], layer: int, end: int, thick: float
) -> dict[tuple[int, int, int], float]:
    """Upper side of each ribbon at one of its ends, from the middle of the row; the pile at a node is centred."""
    pile: dict[tuple[int, int], float] = defaultdict(float)
    for edge, (amount, _) in edges.items():
        pile[edge[layer], edge[end]] -= amount * thick / 2
    upper = {}
    for edge in order:
        upper[edge] = pile[edge[layer], edge[end]]
        pile[edge[layer], edge[end]] += edges[edge][0] * thick
    return upper
