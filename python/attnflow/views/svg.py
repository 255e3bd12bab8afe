"""Pictures as SVG, laid out in plain Python: the text as a heatmap, scores along the text, and the way of a flow.

The same elements go into a page, which colours them by its own style sheet, and into a file of their own, which
carries a style of literal colours that every renderer understands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from . import colour, ribbons, wording
from .elements import BASELINE, STYLE, WIDTH, Element, cells, line, rect, shorten, text, tooltip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..attribution import Attribution, PairFlow

__all__ = ["chart", "flow", "picture"]

_MOST_LABELS = 48  # tokens that still fit beneath a chart
_THINNEST = 0.6
_INKS = {"INK": "#1a2230", "DIM": "#5d6877", "LINE": "#e4e9ef", "FLOW": "#2370b4", "ACCENT": colour.ACCENT["light"]}
_MONOSPACE = 'font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono", monospace'


def flow(result: Attribution, pair: PairFlow) -> str:
    """The way one player's flow takes, for a page: x = layer, y = token, thickness = flow."""
    return _inline(*ribbons.draw(result, pair))


def chart(*results: Attribution) -> str:
    """Scores along the text, for a page: one row of bars a result, so that a ranking by position shows at a glance."""
    return _inline(*_chart(results))


def picture(*results: Attribution) -> str:
    """Heatmaps, the chart and, where the first result has them, its flows, as one stand-alone SVG document."""
    wording.require_same_tokens(results)
    parts = []
    for shown in zip(*(wording.each_sink(result) for result in results), strict=True):
        parts.append(_headline(shown))
        parts.extend(_heatmap(result) for result in shown)
        parts.append(_chart(shown))
        parts.extend(ribbons.draw(shown[0], pair) for pair in shown[0].flows or ())
    total = sum(height for _, height in parts) + 8
    root = _root(total, {"xmlns": "http://www.w3.org/2000/svg", "width": str(WIDTH), "height": f"{total:.0f}"})
    style = STYLE + f".af .mono text {{ {_MONOSPACE}; font-size: 14px }}\n"
    for name, value in _INKS.items():
        style = style.replace(name, value)
    ElementTree.SubElement(root, "style").text = style
    ElementTree.SubElement(root, "rect", {"width": str(WIDTH), "height": f"{total:.0f}", "fill": "#ffffff", "rx": "8"})
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


def _headline(results: Sequence[Attribution]) -> tuple[Element, float]:
    group = Element("g")
    first = results[0]
    said = wording.visible(first.target_label)
    if first.prediction is not None:
        said = f"predicted “{wording.visible(first.prediction[0]).strip()}” {first.prediction[1]:.1%} · {said}"
    text(group, 16, 28, said, "title")
    text(group, 16, 46, wording.verified_line(*results), "faint")
    return group, 60


def _name(group: Element, y: float, result: Attribution, note: str) -> None:
    name = wording.method_name(result)
    text(group, 16, y, name, "title")
    text(group, 24 + 7.4 * cells(name), y, note, "faint")


# -- the running text -----------------------------------------------------------------------------------------------


def _heatmap(result: Attribution) -> tuple[Element, float]:
    """Tokens as boxes, the darker the higher their score. Widths are set, so no font can make them overlap."""
    group = Element("g", {"class": "mono"})
    highest = float(result.values.max())
    steps = {row.position: colour.level(row.score, highest) for row in result.rows()}
    shades = colour.shades(colour.LIGHT)
    letter, height = 8.4, 27.0
    heading = Element("g")
    _name(heading, 14, result, wording.method_note(result))
    x, y = 20.0, 24.0
    for piece in wording.pieces(result):
        said = piece.text.strip(" ") if piece.position is None else shorten(piece.text, 80)
        width = letter * cells(said)
        if piece.position is None and not said:
            x += letter * 0.6
            continue
        if x + width > WIDTH - 20:
            x, y = 20.0, y + height
        if piece.position in steps:
            shade = shades[steps[piece.position]]
            box = rect(group, x - 2, y, width + 4, 22, "")
            box.set("style", f"fill: {shade.background}")
            box.set("rx", "4")
        label = text(group, x, y + 15.5, said, "" if piece.position in steps else "faint")
        if piece.position in steps:
            label.set("style", f"fill: {shade.ink}")
        label.set("textLength", f"{width:.1f}")
        label.set("lengthAdjust", "spacingAndGlyphs")
        x += width + (5 if piece.position in steps else letter)
        if piece.ends_line:
            x, y = 20.0, y + height
    both = Element("g")
    both.extend([heading, group])
    return both, y + height + 14


# -- scores along the text ------------------------------------------------------------------------------------------


def _chart(results: Sequence[Attribution]) -> tuple[Element, float]:
    group = Element("g")
    left, right, band = 56.0, 16.0, 92.0
    rows = results[0].rows()
    step = (WIDTH - left - right) / len(rows)
    width = min(max(0.8, step - (6 if step > 16 else 2 if step > 6 else 0.4)), 40.0)
    y = 8.0
    for result in results:
        highest = float(result.values.max())
        _name(group, y + 12, result, f"{wording.method_note(result)} · {wording.position_share(result)}")
        base = y + 24 + band
        for at, value, kind in ((base, 0.0, "axis"), (base - band, highest, "guide")):
            line(group, left, at, WIDTH - right, at, kind)
            text(group, left - 8, at + BASELINE, f"{value:.3g}", "faint", "end")
        for i, row in enumerate(result.rows()):
            if row.score <= 0:
                continue
            tall = max(_THINNEST, band * row.score / highest)
            kind = "trivial" if row.bottleneck in ("source", "sink") else "bar"
            bar = rect(group, left + step * (i + 0.5) - width / 2, base - tall, width, tall, kind)
            tooltip(bar, f"{row.position} {wording.visible(row.token)}: {row.score:.4g}, bottleneck {row.bottleneck}")
        y = base + 24
    y -= 14
    if len(rows) <= _MOST_LABELS:
        labels = [shorten(wording.visible(row.token).strip() or "␣", 16) for row in rows]
        for i, label in enumerate(labels):
            slanted = text(group, 0, 0, label, "", "end")
            slanted.set("transform", f"translate({left + step * (i + 0.5) + 4:.1f} {y + 8:.1f}) rotate(-50)")
        y += 16 + 5.6 * max(cells(label) for label in labels)
    else:
        for i in range(0, len(rows), -(-len(rows) // 12)):
            text(group, left + step * (i + 0.5), y + 12, str(rows[i].position), "faint", "middle")
        y += 24
    rect(group, left, y, 10, 10, "bar")
    text(group, left + 16, y + 9, "limited between the layers", "faint")
    rect(group, left + 186, y, 10, 10, "trivial")
    text(group, left + 202, y + 9, "limited by the token's own or the target's own edges", "faint")
    return group, y + 24
