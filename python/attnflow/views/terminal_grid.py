"""Scores where they lie, in a terminal: an image as a table of cells, a recording as a strip of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.cells import set_cell_size
from rich.text import Text

from . import colour, layout, wording
from .terminal_style import Palette, block, fit, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..attribution import Attribution

__all__ = ["draw"]

_MOST_TILES = 12


def draw(result: Attribution, styles: Palette, width: int, limit: int | None) -> list[Text]:
    """The cells of a result with one sink or with several, in lines no wider than the terminal."""
    if not layout.is_image(result):
        return _strips(result, styles, width, limit)
    return _image(result, styles, width) if len(result.targets) == 1 else _tiles(result, styles, width)


def _image(result: Attribution, styles: Palette, width: int) -> list[Text]:
    """Two characters a patch, which is about a square; fewer where the image is wide."""
    scores = result.on_grid()
    highest = layout.largest(result)
    margin = len(str(scores.shape[0] - 1)) + 1
    scores, per = _shrunk(scores, width - margin)
    wide = 2 if scores.shape[1] * 2 <= width - margin else 1
    every = 5 if wide == 2 else 10
    lines = [_axis(margin, [column * per for column in range(0, scores.shape[1], every)], every * wide, width)]
    for row, cells in enumerate(scores):
        line = Text.assemble((f"{row * per:>{margin - 1}} ", "dim"))
        for value in cells.tolist():
            _cell(line, value, highest, wide, styles)
        lines.append(line)
    return lines + _shrunk_note(result, per)


def _axis(margin: int, numbers: list[int], apart: int, width: int) -> Text:
    """Numbers under or over cells, those for which there is room."""
    line = " " * margin
    for i, number in enumerate(numbers):
        if margin + i * apart + len(str(number)) <= width:
            line = line.ljust(margin + i * apart) + str(number)
    return Text(line, "dim")


def _cell(line: Text, value: float, highest: float, width: int, styles: Palette) -> None:
    if value != value:  # NaN: no player
        line.append(" " * width)
    else:
        fit(line, width, colour.level(value, highest), styles)


def _shrunk(scores: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], int]:
    """An image in at most so many columns: each cell the strongest of a square of patches; patches a side."""
    per = max(1, -(-scores.shape[1] // max(1, most)))
    rows, columns = (-(-side // per) for side in scores.shape)
    padded = np.full((rows * per, columns * per), np.nan)
    padded[: scores.shape[0], : scores.shape[1]] = scores
    squares = padded.reshape(rows, per, columns, per).swapaxes(1, 2).reshape(rows, columns, per * per)
    return layout.furthest(squares), per


def _shrunk_note(result: Attribution, per: int) -> list[Text]:
    said = f"a cell is the {wording.highest_word(result)} of {per} × {per} patches"
    return [Text(said, "dim italic")] if per > 1 else []


# -- one small image a sink -----------------------------------------------------------------------------------------


def _tiles(result: Attribution, styles: Palette, width: int) -> list[Text]:
    steps = layout.steps(result)
    highest = layout.largest(result)
    shrunk = [_shrunk(result.on_grid(step.sink), min(width, 38)) for step in steps[:_MOST_TILES]]
    tiles = [_tile(scores, highest, styles) for scores, _ in shrunk]
    wide = max(10, shrunk[0][0].shape[1])
    a_line = max(1, (width + 2) // (wide + 2))
    lines: list[Text] = []
    for at in range(0, len(tiles), a_line):
        row = list(zip(steps[at : at + a_line], tiles[at : at + a_line], strict=False))
        title = Text()
        for step, _ in row:
            name = short(step.label, wide - len(str(step.number)) - 1)
            title.append(f"{step.number} ", "dim").append(
                set_cell_size(name, wide - len(str(step.number)) - 1 + 2), "bold"
            )
        lines.append(title)
        for i in range(len(row[0][1])):
            line = Text()
            for _, tile in row:
                line.append_text(tile[i]).append(" " * (wide + 2 - tile[i].cell_len))
            lines.append(line)
        lines.append(Text())
    if len(steps) > len(tiles):
        more = f"… {len(steps) - len(tiles)} more {wording.steps_word(result)} have no image here: save the result"
        lines.append(Text(more, "dim italic"))
    return lines + _shrunk_note(result, shrunk[0][1])


def _tile(scores: NDArray[np.float64], highest: float, styles: Palette) -> list[Text]:
    """A character a patch: two rows in a line where there are colours, the upper one as the ink of half a block."""
    rows, columns = scores.shape
    steps = [[None if v != v else colour.level(v, highest) for v in row] for row in scores.tolist()]
    if styles.shades is None:
        return [Text("".join(" " if s is None else "·" if s == 0 else block(s) for s in row)) for row in steps]
    lines = []
    for row in range(0, rows, 2):
        line = Text()
        below = steps[row + 1] if row + 1 < rows else [None] * columns
        for upper, lower in zip(steps[row], below, strict=True):
            _halves(line, upper, lower, styles)
        lines.append(line)
    return lines


def _halves(line: Text, upper: int | None, lower: int | None, styles: Palette) -> None:
    if upper is not None and lower is not None:
        line.append("▀", f"{styles.fill(upper)} on {styles.fill(lower)}")
    elif upper is not None:
        line.append("▀", styles.fill(upper))
    elif lower is not None:
        line.append("▄", styles.fill(lower))
    else:
        line.append(" ")


# -- frames ---------------------------------------------------------------------------------------------------------


def _strips(result: Attribution, styles: Palette, width: int, limit: int | None) -> list[Text]:
    """One line a sink, frames from left to right; a cell is the strongest of as many frames as must share it."""
    several = len(result.targets) > 1
    steps = layout.steps(result)[:limit]
    digits = layout.digits(steps)
    names = [set_cell_size(short(step.label, 12), 12) if several else "" for step in steps]
    margin = digits + 14 if several else 0
    if several and width - margin < 16:
        margin, names = digits + 1, [""] * len(steps)
    highest = layout.largest(result)
    lines = []
    per = wide = 1
    frames = result.on_grid().size
    for step, name in zip(steps, names, strict=True):
        scores, per = layout.binned(result.on_grid(step.sink), width - margin)
        wide = max(1, min(4, (width - margin) // scores.size))
        line = Text()
        if several:
            line.append(f"{step.number:>{digits}} ", "dim").append(name + (" " if name else ""), "bold")
        for value in scores.tolist():
            _cell(line, value, highest, wide, styles)
        lines.append(line)
    every = 10 * per
    lines.append(_axis(margin, list(range(0, frames, every)), 10 * wide, width))
    if per > 1:
        lines.append(Text(f"a cell is the {wording.highest_word(result)} of {per} frames", "dim italic"))
    if len(steps) < len(result.targets):
        more = f"… {len(result.targets) - len(steps)} more {wording.steps_word(result)} are not shown"
        lines.append(Text(more, "dim italic"))
    return lines
