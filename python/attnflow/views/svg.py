"""Pictures as SVG, laid out in plain Python: the way a flow takes through the layers, and scores along the text.

The same elements go into a page, which colours them by its own style sheet, and into a file of their own, which
carries a style of literal colours that every renderer understands. Text is escaped by the XML library, not by hand.

The flow is drawn as ribbons stacked at each node: since flow is conserved, what enters a node is as thick as what
leaves it, and the thickness at the source and at the sink is the score itself.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..attribution import SINK, SOURCE
from . import colour, wording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..attribution import Attribution, PairFlow

__all__ = ["chart", "flow", "picture"]

WIDTH = 960
_MOST_ROWS = 44  # positions in a picture of a flow; the ones that carry most
_MOST_LABELS = 48  # tokens that still fit beneath a chart
_THINNEST = 0.6
_BASELINE = 4.2  # from a line's middle down to the baseline of 12 px text

STYLE = """
.af text { font: 12px ui-sans-serif, system-ui, "Segoe UI", "Noto Sans", Arial, sans-serif; fill: INK }
.af .strong { font-weight: 650 }
.af .faint { fill: DIM; font-size: 11px }
.af .title { font-size: 13px; font-weight: 650 }
.af .guide { stroke: LINE; stroke-width: 1 }
.af .axis { stroke: DIM; stroke-width: 1 }
.af .ribbon { fill: FLOW; fill-opacity: .5 }
.af .node, .af .bar { fill: FLOW }
.af .trivial { fill: FLOW; fill-opacity: .22; stroke: FLOW; stroke-width: 1 }
.af .cut { fill: ACCENT; fill-opacity: .85 }
.af .band { fill: ACCENT; fill-opacity: .1 }
.af .accent { fill: ACCENT }
.af .ring { fill: none; stroke: ACCENT; stroke-width: 2 }
"""

Element = ElementTree.Element


def flow(result: Attribution, pair: PairFlow) -> str:
    """The way one player's flow takes: x = layer, y = token, thickness = flow, what limits it in the accent colour."""
    return _inline(*_flow(result, pair))


def chart(*results: Attribution) -> str:
    """Scores along the text, one row of bars a result, so that a ranking by position shows at a glance."""
    return _inline(*_chart(results))


def picture(result: Attribution) -> str:
    """The chart and, where the result has them, its flows, as one stand-alone SVG document."""
    parts = []
    for one in wording.each_sink(result):
        parts.append(_headline(one))
        parts.append(_chart([one]))
        parts.extend(_flow(one, pair) for pair in one.flows or ())
    total = sum(height for _, height in parts)
    inks = {"INK": "#1a2230", "DIM": "#5d6877", "LINE": "#e4e9ef", "FLOW": "#2370b4", "ACCENT": colour.ACCENT["light"]}
    style = STYLE
    for name, value in inks.items():
        style = style.replace(name, value)
    root = _root(total, {"xmlns": "http://www.w3.org/2000/svg", "width": str(WIDTH), "height": f"{total:.0f}"})
    ElementTree.SubElement(root, "style").text = style
    ElementTree.SubElement(root, "rect", {"width": str(WIDTH), "height": f"{total:.0f}", "fill": "#ffffff"})
    y = 0.0
    for group, height in parts:
        group.set("transform", f"translate(0 {y:.0f})")
        root.append(group)
        y += height
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _inline(group: Element, height: float) -> str:
    # Without the margins: the page around it has its own.
    root = _root(height, {"viewBox": f"16 0 {WIDTH - 32} {height:.0f}", "preserveAspectRatio": "xMinYMin meet"})
    root.append(group)
    return ElementTree.tostring(root, encoding="unicode")


def _root(height: float, attributes: dict[str, str]) -> Element:
    return Element("svg", {"class": "af", "viewBox": f"0 0 {WIDTH} {height:.0f}", "role": "img", **attributes})


def _headline(result: Attribution) -> tuple[Element, float]:
    group = Element("g")
    said = wording.visible(result.target_label)
    if result.prediction is not None:
        said = f"“{wording.visible(result.prediction[0]).strip()}” {result.prediction[1]:.1%} — {said}"
    _text(group, 16, 26, said, "title")
    _text(group, 16, 44, wording.verified_line(result), "faint")
    return group, 56


# -- scores along the text ------------------------------------------------------------------------------------------


def _chart(results: Sequence[Attribution]) -> tuple[Element, float]:
    group = Element("g")
    left, right, band, gap = 56.0, 16.0, 92.0, 34.0
    rows = results[0].rows()
    labelled = len(rows) <= _MOST_LABELS
    step = (WIDTH - left - right) / len(rows)
    width = max(0.8, step - (6 if step > 16 else 2 if step > 6 else 0.4))
    width = min(width, 40.0)
    y = 8.0
    for result in results:
        highest = float(result.values.max())
        _text(group, 16, y + 12, wording.method_name(result), "title")
        note = f"{wording.method_note(result)} · {wording.position_share(result)}"
        _text(group, 16 + 8 + 7.4 * _cells(wording.method_name(result)), y + 12, note, "faint")
        base = y + 24 + band
        for at, share in ((base, 0.0), (base - band, 1.0)):
            _line(group, left, at, WIDTH - right, at, "axis" if share == 0 else "guide")
            _text(group, left - 8, at + _BASELINE, f"{share * highest:.3g}", "faint", "end")
        for i, row in enumerate(result.rows()):
            tall = band * row.score / highest if highest > 0 else 0.0
            if row.score <= 0:
                continue
            kind = "trivial" if row.bottleneck in ("source", "sink") else "bar"
            tall = max(tall, _THINNEST)
            bar = _rect(group, left + step * (i + 0.5) - width / 2, base - tall, width, tall, kind)
            _tooltip(bar, f"{row.position} {wording.visible(row.token)}: {row.score:.4g}, bottleneck {row.bottleneck}")
        y = base + gap - 10
    y -= 14
    tail = 14.0
    if labelled:
        labels = [_short(wording.visible(row.token).strip() or "␣", 16) for row in rows]
        for i, label in enumerate(labels):
            x = left + step * (i + 0.5)
            text = _text(group, 0, 0, label, "", "end")
            text.set("transform", f"translate({x + 4:.1f} {y + 8:.1f}) rotate(-50)")
        tail = 16 + 5.6 * max(_cells(label) for label in labels)
    else:
        every = max(1, -(-len(rows) // 12))
        for i in range(0, len(rows), every):
            _text(group, left + step * (i + 0.5), y + 12, str(rows[i].position), "faint", "middle")
        tail = 24
    y += tail
    _rect(group, left, y, 10, 10, "bar")
    _text(group, left + 16, y + 9, "limited between the layers", "faint")
    _rect(group, left + 186, y, 10, 10, "trivial")
    _text(group, left + 202, y + 9, "limited by the token's own or the target's own edges", "faint")
    return group, y + 24


# -- the way of a flow ----------------------------------------------------------------------------------------------


def _flow(result: Attribution, pair: PairFlow) -> tuple[Element, float]:
    group = Element("g")
    player = result.players.tolist().index(pair.source)
    code = int(result.bottlenecks[0, player])
    edges = _edges(pair, result)
    names = dict(enumerate(wording.visible(token) for token in result.tokens)) | {len(result.tokens): "mean"}
    through = _throughput(edges)
    by_position: dict[int, float] = defaultdict(float)
    for (_, position), amount in through.items():
        by_position[position] += amount
    targets = {len(result.tokens)} if len(result.tokens) in by_position else set(result.targets[0])
    ends = {pair.source, *(targets & set(by_position))}
    kept = set(sorted(by_position, key=lambda p: (p not in ends, -by_position[p]))[:_MOST_ROWS]) | ends
    order = sorted(kept)
    layers = max(result.n_layers, int(pair.layer.max()) + 1 if pair.layer.size else 1)

    row_height = 24.0 if len(order) <= 24 else 17.0
    labels = {p: _short(names[p], 18) for p in order}
    left = 62 + 6.9 * max(_cells(label) for label in labels.values())
    left, right, top = min(max(left, 96.0), 230.0), 92.0, 58.0
    dx = (WIDTH - left - right) / layers
    y_of = {p: top + row_height * (i + 0.5) for i, p in enumerate(order)}
    bottom = top + row_height * len(order)

    def x_of(block: int) -> float:
        return left + dx * block

    value = float(result.values[0, player])
    _text(group, 16, 18, f"How “{wording.visible(result.tokens[pair.source]).strip()}” reaches the target", "title")
    limit = wording.bottleneck_words(result.bottleneck_label(player))
    _text(group, 16, 35, f"position {pair.source} · flow {value:.4g} · {limit}", "faint")
    if code >= 0:
        _rect(group, x_of(code) + 2, top - 6, dx - 4, bottom - top + 12, "band")
    for position in order:
        _line(group, left, y_of[position], WIDTH - right, y_of[position], "guide")
        kind = "strong" if position in ends else ""
        _text(group, left - 22, y_of[position] + _BASELINE, labels[position], kind, "end")
        if position < len(result.tokens):
            _text(group, 16, y_of[position] + _BASELINE, str(position), "faint")
    thick = row_height * 0.86 / max(through.values(), default=1.0)
    if result.prediction is not None and len(result.targets[0]) == 1:
        said = _short(wording.visible(result.prediction[0]).strip() or "␣", 9)
        _text(group, WIDTH - right + 18, y_of[max(ends)] + _BASELINE, said, "strong")
    hidden = _ribbons(group, names, edges, y_of, x_of, thick)
    for (block, position), amount in through.items():
        if position in y_of:
            height = max(1.2, amount * thick)
            _rect(group, x_of(block) - 1.5, y_of[position] - height / 2, 3, height, "node")
    if code in (SOURCE, SINK):
        at = (x_of(0), y_of[pair.source]) if code == SOURCE else (x_of(layers), y_of[max(ends)])
        ElementTree.SubElement(
            group, "circle", {"class": "ring", "cx": _n(at[0]), "cy": _n(at[1]), "r": _n(row_height * 0.6)}
        )
    y = bottom + 18
    every = max(1, -(-layers // 16))
    for block in range(layers + 1):
        if block in (0, layers) or (block % every == 0 and layers - block >= every and block >= every):
            name = "input" if block == 0 else f"layer {layers}" if block == layers else str(block)
            _text(
                group, x_of(block), y, name, "accent strong" if block == code + 1 and code >= 0 else "faint", "middle"
            )
    y += 16
    if missing := len(by_position) - len(order):
        _text(
            group, left, y, f"{missing} more positions carry {hidden:.1%} of the edges' flow and are not drawn", "faint"
        )
        y += 16
    return group, y + 8


_Edges = dict[tuple[int, int, int], tuple[float, bool]]


def _edges(pair: PairFlow, result: Attribution) -> _Edges:
    """(layer, giver, receiver) -> (flow, whether it crosses the cut), for the edges that carry anything."""
    cut = pair.cut.tolist() if pair.cut is not None else [False] * pair.flow.size
    columns = zip(
        pair.layer.tolist(), pair.giver.tolist(), pair.receiver.tolist(), pair.flow.tolist(), cut, strict=True
    )
    # The mean over positions is one more node past the layers; it gets a row of its own below the tokens.
    mean = len(result.tokens)
    return {
        (layer, giver, receiver if layer < result.n_layers else mean): (amount, full)
        for layer, giver, receiver, amount, full in columns
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


def _ribbons(
    group: Element,
    names: Mapping[int, str],
    edges: _Edges,
    y_of: Mapping[int, float],
    x_of: Callable[[int], float],
    thick: float,
) -> float:
    """Draw the edges between the rows there are; returns the share of the edges' flow that found no row."""
    leaving: dict[tuple[int, int], float] = {}
    entering: dict[tuple[int, int], float] = {}
    for (layer, giver, receiver), (amount, _) in edges.items():
        leaving[layer, giver] = leaving.get((layer, giver), 0.0) - amount * thick / 2
        entering[layer, receiver] = entering.get((layer, receiver), 0.0) - amount * thick / 2
    # Stacked in the order of the rows they go to, ribbons of one node do not cross each other where they leave it.
    starts, ends = {}, {}
    for edge in sorted(edges):
        layer, giver, _ = edge
        starts[edge] = leaving[layer, giver]
        leaving[layer, giver] += edges[edge][0] * thick
    for edge in sorted(edges, key=lambda e: (e[0], e[2], e[1])):
        layer, _, receiver = edge
        ends[edge] = entering[layer, receiver]
        entering[layer, receiver] += edges[edge][0] * thick
    hidden = 0.0
    for edge, (amount, full) in sorted(edges.items(), key=lambda item: item[1][1]):  # the cut on top
        layer, giver, receiver = edge
        if giver not in y_of or receiver not in y_of:
            hidden += amount
            continue
        tall = max(_THINNEST, amount * thick)
        x0, x1 = x_of(layer), x_of(layer + 1)
        y0, y1 = y_of[giver] + starts[edge], y_of[receiver] + ends[edge]
        middle = (x0 + x1) / 2
        path = (
            f"M{_n(x0)} {_n(y0)}C{_n(middle)} {_n(y0)} {_n(middle)} {_n(y1)} {_n(x1)} {_n(y1)}"
            f"V{_n(y1 + tall)}C{_n(middle)} {_n(y1 + tall)} {_n(middle)} {_n(y0 + tall)} {_n(x0)} {_n(y0 + tall)}Z"
        )
        ribbon = ElementTree.SubElement(group, "path", {"class": "cut" if full else "ribbon", "d": path})
        said = f"layer {layer + 1}: {giver} {names[giver]} → {receiver} {names[receiver]}: {amount:.3g}"
        _tooltip(ribbon, said + (", full: in the minimum cut" if full else ""))
    return hidden / (sum(amount for amount, _ in edges.values()) or 1.0)


# -- elements -------------------------------------------------------------------------------------------------------


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _line(group: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    ElementTree.SubElement(group, "line", {"class": kind, **ends})


def _rect(group: Element, x: float, y: float, width: float, height: float, kind: str) -> Element:
    box = {"x": _n(x), "y": _n(y), "width": f"{width:.2f}", "height": f"{height:.2f}"}
    return ElementTree.SubElement(group, "rect", {"class": kind, **box})


def _text(group: Element, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> Element:
    element = ElementTree.SubElement(group, "text", {"x": _n(x), "y": _n(y), "class": kind, "text-anchor": anchor})
    element.text = text
    return element


def _tooltip(element: Element, text: str) -> None:
    ElementTree.SubElement(element, "title").text = text


def _cells(text: str) -> int:
    """Width of a text in narrow letters: wide East Asian characters and emoji count two, marks none."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _short(text: str, cells: int) -> str:
    if _cells(text) <= cells:
        return text
    while text and _cells(text) >= cells:
        text = text[:-1]
    return text.rstrip() + "…"
