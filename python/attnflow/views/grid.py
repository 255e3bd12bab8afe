"""The picture of scores where they lie: the patches of an image, the frames of a recording.

An image is a table of squares, one a patch; several sinks are several such tables. A recording is a strip, one row a
sink, its frames from left to right. Where there are more frames than a strip has room for, a cell stands for several
and shows the highest of them, or where scores may be below zero the strongest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import colour, layout, wording
from .elements import BASELINE, WIDTH, Element, breadth, cell, rect, shorten, text, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..attribution import Attribution

__all__ = ["MOST_TILES", "draw", "left_out", "tiles"]

MOST_TILES = 24  # images of several sinks
_MOST_STRIPS = 100
_SIDE = 380.0  # of an image that is alone
_TILE = 138.0
_STRIP = 22.0
_LETTER = 6.6


def draw(result: Attribution) -> tuple[Element, float, float]:
    """Where the scores of a result lie: the picture, its height and its width."""
    if not layout.is_image(result):
        return _strips(result)
    return _image(result) if len(result.targets) == 1 else _tiles(result)


def _image(result: Attribution) -> tuple[Element, float, float]:
    group = Element("g")
    scores = result.on_grid()
    rows, columns = scores.shape
    side = max(2.0, min(30.0, _SIDE / max(rows, columns)))
    left, top = 20 + _LETTER * len(str(rows - 1)), 22.0
    _squares(group, result, 0, scores, side, left, top)
    every = max(1, -(-22 // int(side)))  # so that numbers stay apart
    for row in range(0, rows, every if every < 3 else 5 * -(-every // 5)):
        text(group, left - 5, top + side * (row + 0.5) + BASELINE - 0.5, str(row), "faint", "end")
    for column in range(0, columns, every if every < 3 else 5 * -(-every // 5)):
        text(group, left + side * (column + 0.5), top - 6, str(column), "faint", "middle")
    return group, top + side * rows + 8, left + side * columns + 16


def tiles(result: Attribution) -> list[tuple[Element, float, float]]:
    """One small image a sink, so that a page can wrap them."""
    rows, columns = result.on_grid().shape
    side = max(2.0, min(20.0, _TILE / max(rows, columns)))
    width = max(side * columns, 110.0)
    drawn = []
    for step in layout.steps(result)[:MOST_TILES]:
        group = Element("g")
        text(group, 16, 14, str(step.number), "faint")
        start = 20 + 7.2 * len(str(step.number))
        room = int((width + 16 - start - 7.0 * len(step.share)) / 7.6)
        text(group, start, 14, shorten(step.label, max(3, room)), "strong")
        text(group, 16 + width, 14, step.share, "faint", "end")
        _squares(group, result, step.sink, result.on_grid(step.sink), side, 17, 22)
        drawn.append((group, side * rows + 30, width + 34))
    return drawn


def left_out(result: Attribution) -> str:
    """How many sinks have no image."""
    more = len(result.targets) - MOST_TILES
    return f"{more} more {wording.steps_word(result)} are in the result and not drawn" if more > 0 else ""


def _tiles(result: Attribution) -> tuple[Element, float, float]:
    """The small images in rows."""
    group = Element("g")
    drawn = tiles(result)
    _, height, width = drawn[0]
    width -= 14
    height += 6
    a_line = max(1, int((WIDTH - 32) // width))
    for at, (tile, _, _) in enumerate(drawn):
        tile.set("transform", f"translate({width * (at % a_line):.0f} {height * (at // a_line):.0f})")
        group.append(tile)
    y = height * -(-len(drawn) // a_line)
    if said := left_out(result):
        text(group, 16, y + 8, said, "faint")
        y += 20
    return group, y, 32 + width * min(a_line, len(drawn))


def _squares(
    group: Element, result: Attribution, sink: int, scores: NDArray[np.float64], side: float, left: float, top: float
) -> None:
    highest = layout.largest(result)
    start = result.grid.start if result.grid is not None else 0
    index = {position: i for i, position in enumerate(result.players.tolist())}
    rows, columns = scores.shape
    inside = Element("g")
    rect(inside, left - 1, top - 1, side * columns + 1, side * rows + 1, "hole")
    for (row, column), value in np.ndenumerate(scores):
        if np.isnan(value):
            continue
        player = index[start + row * columns + column]
        said = f"row {row}, column {column}: {wording.figure(value)}{wording.limit_line(result, player, sink)}"
        cell(inside, left + side * column, top + side * row, side, side, colour.level(float(value), highest), said)
    group.append(inside)


def _strips(result: Attribution) -> tuple[Element, float, float]:
    """Frames from left to right, one row a sink."""
    group = Element("g")
    several = len(result.targets) > 1
    steps = layout.steps(result)[:_MOST_STRIPS]
    labels = [within(step.label, 119.0, strong=True) if several else "" for step in steps]
    left = 16.0
    if several:
        left += 8.0 * layout.digits(steps) + max(breadth(label, strong=True) for label in labels) + 74
    height = _STRIP if several else 46.0
    highest = layout.largest(result)
    frames = result.on_grid().size
    most = int((WIDTH - 32 - left) / 4)
    y, per, width = 6.0, 1, 4.0
    for step, label in zip(steps, labels, strict=True):
        scores, per = layout.binned(result.on_grid(step.sink), most)
        width = min(26.0, (WIDTH - 32 - left) / scores.size)
        if several:
            middle = y + height / 2 - 0.5 + BASELINE
            text(group, 16, middle, str(step.number), "faint")
            text(group, left - 64, middle, label, "strong", "end")
            text(group, left - 12, middle, step.share, "faint", "end")
        strip = Element("g")
        rect(strip, left - 1, y - 1, width * scores.size + 1, height, "hole")
        for i, value in enumerate(scores.tolist()):
            if value == value:  # not NaN
                last = min(frames, (i + 1) * per) - 1
                place = f"frame {i}" if per == 1 else f"frames {i * per} to {last}, the {wording.highest_word(result)}"
                said = f"{place}: {wording.figure(value)}"
                cell(strip, left + width * i, y, width, height - 1, colour.level(value, highest), said)
        group.append(strip)
        y += height
    y += 16
    every = _round(max(1, int(60 / width)) * per)
    for frame in range(0, frames, every):
        text(group, left + width * frame / per, y, str(frame), "faint")
    said = "frame" if per == 1 else f"frame; a cell is the {wording.highest_word(result)} of {per} frames"
    text(group, left, y + 17, said, "faint")
    y += 17
    if several and len(result.targets) > len(steps):
        text(group, 16, y + 17, f"{len(result.targets) - len(steps)} more are in the result and not drawn", "faint")
        y += 17
    return group, y + 12, max(left + width * -(-frames // per) + 32, left + 300)


def _round(number: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= number:
                return digit * power
        power *= 10
