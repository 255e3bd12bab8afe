"""Pictures as SVG, laid out in plain Python: the text as a heatmap, scores along the text, and the way of a flow; for
several sinks the matrix of :mod:`.matrix`, for an image or a recording the cells of :mod:`.grid`.

The same elements go into a page, which colours them by its own style sheet, and into a file of their own, which
carries a style of literal colours that every renderer understands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..attribution import require_alike
from . import colour, grid, layout, matrix, ribbons, wording
from .elements import BASELINE, STYLE, WIDTH, Element, cells, line, rect, scale, shorten, text, tooltip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..attribution import Attribution, PairFlow

__all__ = ["cells_of_grid", "chart", "flow", "has_chart", "picture", "steps"]

_MOST_LABELS = 48  # tokens that still fit beneath a chart
_THINNEST = 0.6
_INKS = {
    "INK": "#1a2230",
    "DIM": "#5d6877",
    "LINE": "#e4e9ef",
    "FLOW": "#2370b4",
    "BELOW": colour.BELOW_LIGHT[4],
    "ACCENT": colour.ACCENT["light"],
}
_MONOSPACE = 'font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono", monospace'


def flow(result: Attribution, pair: PairFlow) -> str:
    """The way one player's flow takes, for a page: x = layer, y = token, thickness = flow."""
    return _inline(*ribbons.draw(result, pair))


def chart(*results: Attribution) -> str:
    """Scores along the text, for a page: one row of bars a result, so that a ranking by position shows at a glance."""
    return _inline(*_chart(results))


def steps(result: Attribution) -> str:
    """Several sinks by the tokens they drew on, for a page; empty where no player has a column."""
    if not layout.columns(result).players:
        return ""
    group, height, width = matrix.draw(result)
    return _inline(group, height, width)


def cells_of_grid(result: Attribution) -> list[str]:
    """Scores where they lie in an image or a recording, for a page: one picture, or one a sink."""
    drawn = grid.tiles(result) if layout.is_image(result) and len(result.targets) > 1 else [grid.draw(result)]
    return [_inline(*picture) for picture in drawn]


def has_chart(result: Attribution) -> bool:
    """Whether a row of bars along the positions says anything: not where they lie in rows and columns."""
    return not layout.is_image(result)


def picture(*results: Attribution) -> str:
    """Everything about results as one stand-alone SVG document.

    Of one sink the heatmaps, the chart and, where the first result has them, its flows; of several the matrix.
    """
    require_alike(results)
    parts = [_headline(results)]
    if len(results[0].targets) > 1:
        parts.extend(_overview(result) for result in results)
    else:
        shown = [wording.each_sink(result)[0] for result in results]
        parts.extend(_heatmap(result) for result in shown)
        parts.extend([_chart(shown)] if has_chart(shown[0]) else [])
        parts.extend(ribbons.draw(shown[0], pair) for pair in layout.drawn_flows(shown[0]))
    total = sum(height for _, height in parts) + 8
    root = _root(total, {"xmlns": "http://www.w3.org/2000/svg", "width": str(WIDTH), "height": f"{total:.0f}"})
    style = STYLE + f".af .mono text {{ {_MONOSPACE}; font-size: 14px }}\n"
    for name, value in _INKS.items():
        style = style.replace(name, value)
    style += "\n".join(
        f".af .h{i} {{ fill: {shade.background} }}" for i, shade in enumerate(colour.shades(colour.LIGHT))
    )
    if any(result.is_signed for result in results):
        below = list(enumerate(colour.shades(colour.BELOW_LIGHT)))[1:]
        style += "\n" + "\n".join(f".af .n{i} {{ fill: {shade.background} }}" for i, shade in below)
    ElementTree.SubElement(root, "style").text = style
    ElementTree.SubElement(root, "rect", {"width": str(WIDTH), "height": f"{total:.0f}", "fill": "#ffffff", "rx": "8"})
    y = 0.0
    for group, height in parts:
        group.set("transform", f"translate(0 {y:.0f})")
        root.append(group)
        y += height
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _inline(group: Element, height: float, width: float | None = None) -> str:
    # Without the margins: the page around it has its own. A picture with a width keeps it, on a telephone too.
    box = {"viewBox": f"16 0 {(width or WIDTH) - 32:.0f} {height:.0f}", "preserveAspectRatio": "xMinYMin meet"}
    if width is not None:
        box |= {"class": "af natural", "width": f"{width - 32:.0f}", "height": f"{height:.0f}"}
    root = _root(height, box)
    root.append(group)
    return ElementTree.tostring(root, encoding="unicode")


def _root(height: float, attributes: dict[str, str]) -> Element:
    return Element("svg", {"class": "af", "viewBox": f"0 0 {WIDTH} {height:.0f}", "role": "img", **attributes})


def _headline(results: Sequence[Attribution]) -> tuple[Element, float]:
    group = Element("g")
    first = results[0] if len(results[0].targets) > 1 else wording.each_sink(results[0])[0]
    said, word = wording.visible(first.target_label), wording.said_word(first)
    if generated := layout.said(first):
        said = f"{word} “{shorten(wording.visible(generated), 60)}” · {said}"
    elif first.prediction is not None and len(first.targets) == 1:
        said = f"{word} “{wording.shown_token(first.prediction[0])}” {first.prediction[1]:.1%} · {said}"
    text(group, 16, 28, shorten(said, 118), "title")
    text(group, 16, 46, wording.verified_line(*results), "faint")
    return group, 60


def _name(group: Element, y: float, result: Attribution, *worth: str) -> None:
    """The name of a method, and what to know of it, as far as there is room: of its notes the last stay."""
    name, notes = wording.method_name(result), [*wording.method_note(result).split("; "), *worth]
    text(group, 16, y, name, "title")
    left = 24 + (7.4 if result.is_flow else 8.2) * cells(name)  # of flows the names are known
    while len(notes) > 1 and left + 6.1 * cells(" · ".join(notes)) > WIDTH - 16:
        del notes[0]
    text(group, left, y, " · ".join(notes), "faint")


def _overview(result: Attribution) -> tuple[Element, float]:
    """Several sinks: where they lie in an image or a recording, and the matrix of the tokens."""
    group = Element("g")
    _name(group, 14, result, wording.position_share(result))
    scale(group, 16, 24, layout.largest(result), signed=result.is_signed)
    y = 44.0
    pictures = [grid.draw] if result.grid is not None and any(part.cells for part in layout.parts(result)) else []
    pictures += [matrix.draw] if layout.columns(result).players else []
    for draw in pictures:
        drawn, height, _ = draw(result)
        drawn.set("transform", f"translate(0 {y:.0f})")
        group.append(drawn)
        y += height
    return group, y + 14


# -- one sink -------------------------------------------------------------------------------------------------------


def _heatmap(result: Attribution) -> tuple[Element, float]:
    """A result's parts one under the other: running text, or the cells of an image or a recording."""
    both = Element("g")
    _name(both, 14, result)
    y = 24.0
    if result.is_signed:
        scale(both, 16, y, layout.largest(result), signed=True)
        y += 20
    for part in layout.parts(result):
        if part.heading:
            text(both, 16, y + 14, part.heading, "faint")
            y += 20
        if part.cells:
            drawn, height, _ = grid.draw(result)
            if not result.is_signed:
                scale(both, 16, y + 4, layout.largest(result))
            y += 20 * (not result.is_signed)
        else:
            drawn, height = _text(result, part.positions)
        drawn.set("transform", f"translate(0 {y:.0f})")
        both.append(drawn)
        y += height + 2
    return both, y + 12


def _text(result: Attribution, positions: range) -> tuple[Element, float]:
    """Tokens as boxes, the darker the higher their score. Widths are set, so no font can make them overlap."""
    group = Element("g", {"class": "mono"})
    largest = layout.largest(result)
    steps = {row.position: colour.level(row.score, largest) for row in result.rows()}
    above, below = colour.shades(colour.LIGHT), colour.shades(colour.BELOW_LIGHT)
    letter, height = 8.4, 27.0
    x, y = 20.0, 0.0
    for piece in _wrapped(result, positions):
        said = piece.text.strip(" ") if piece.position is None else shorten(piece.text, 80)
        width = letter * cells(said)
        if piece.position is None and not said:
            x += letter * 0.6
            continue
        if x + width > WIDTH - 20:
            x, y = 20.0, y + height
        if piece.position in steps:
            step = steps[piece.position]
            shade = above[step] if step >= 0 else below[-step]
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
    return group, y + height


def _wrapped(result: Attribution, positions: range) -> Iterator[wording.Piece]:
    """The pieces of the running text; what is longer than a word in its words, so that it finds room in lines."""
    for piece in wording.pieces(result, positions):
        words = piece.text.split(" ") if result.members is not None and piece.position is not None else [piece.text]
        for i, word in enumerate(words, 1):
            yield wording.Piece(word, piece.position, piece.ends_line and i == len(words))


# -- scores along the text ------------------------------------------------------------------------------------------


def _end(value: float) -> str:
    """A number at an axis, with as many digits as there is room for beside it."""
    said = [wording.figure(value, digits) for digits in (3, 2, 1)]
    return next((one for one in said if len(one) <= 6), said[-1])


def _chart(results: Sequence[Attribution]) -> tuple[Element, float]:
    group = Element("g")
    left, right, band = 64.0, 16.0, 92.0
    rows = results[0].rows()
    step = (WIDTH - left - right) / len(rows)
    width = min(max(0.8, step - (6 if step > 16 else 2 if step > 6 else 0.4)), 40.0)
    y = 8.0
    for result in results:
        scores = result.values[0]
        low, high = min(0.0, float(scores.min())), max(0.0, float(scores.max()))
        _name(group, y + 12, result, wording.position_share(result))
        base = y + 24 + band
        unit = band / ((high - low) or 1.0)
        zero = base + low * unit
        ends = [(zero, 0.0, "axis"), (base - band, high, "guide"), *([(base, low, "guide")] if low < 0 else [])]
        for at, value, kind in ends:
            line(group, left, at, WIDTH - right, at, kind)
            if kind == "axis" or not low or abs(at - zero) > 11:  # else the numbers would overlap
                text(group, left - 8, at + BASELINE, _end(value), "faint", "end")
        for i, row in enumerate(result.rows()):
            if row.score == 0:
                continue
            tall = max(_THINNEST, unit * abs(row.score))
            kind = "trivial" if row.bottleneck in ("source", "sink") else "bar" if row.score > 0 else "bar below"
            top = zero - tall if row.score > 0 else zero
            bar = rect(group, left + step * (i + 0.5) - width / 2, top, width, tall, kind)
            name = wording.label(result, row.position)
            limit = f", bottleneck {wording.visible(row.bottleneck)}" if result.is_flow else ""
            tooltip(bar, f"{row.position} {name}: {wording.figure(row.score)}{limit}")
        n_source = sum(row.position < result.n_source for row in rows)
        if 0 < n_source < len(rows):
            border = left + step * n_source
            line(group, border, base - band - 4, border, base + 4, "border")
            text(group, border - 6, base - band + 8, "source", "faint", "end")
            text(group, border + 6, base - band + 8, "decoder", "faint")
        y = base + 24
    y -= 14
    if len(rows) <= _MOST_LABELS:
        labels = [shorten(wording.label(results[0], row.position), 16) for row in rows]
        for i, label in enumerate(labels):
            slanted = text(group, 0, 0, label, "", "end")
            slanted.set("transform", f"translate({left + step * (i + 0.5) + 4:.1f} {y + 8:.1f}) rotate(-50)")
        y += 16 + 5.6 * max(cells(label) for label in labels)
    else:
        for i in range(0, len(rows), -(-len(rows) // 12)):
            text(group, left + step * (i + 0.5), y + 12, str(rows[i].position), "faint", "middle")
        y += 24
    if not any(result.is_flow for result in results):
        return group, y
    unit_word = wording.unit_word(results[0])
    rect(group, left, y, 10, 10, "bar")
    text(group, left + 16, y + 9, "limited between the layers", "faint")
    rect(group, left + 186, y, 10, 10, "trivial")
    text(group, left + 202, y + 9, f"limited by the {unit_word}'s own or the target's own edges", "faint")
    return group, y + 24
