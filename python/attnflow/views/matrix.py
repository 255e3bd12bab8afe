"""The picture of several sinks: a matrix of steps by input tokens, as dark as the score.

A row is a step, a generated token as a rule, and a column a token it drew on. What a step cannot see, because it
comes later, has no cell; what sends nothing has a faint one. All cells are on one scale, so that steps can be compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import colour, layout, wording
from .elements import BASELINE, WIDTH, Element, breadth, cell, cells, line, text, within

if TYPE_CHECKING:
    from ..attribution import Attribution

__all__ = ["MOST_ROWS", "draw"]

MOST_ROWS = 100
_MOST_COLUMNS = 56  # narrower columns could not carry their names
_ANGLE = 58.0
_ROW = 23.0
_GAP = 18.0  # between what an encoder read and what a decoder said, say
_LETTER = 6.6
_LONGEST_NAME, _LONGEST_LABEL = 106.0, 119.0


def draw(result: Attribution) -> tuple[Element, float, float]:
    """The matrix of a result, its height and its width."""
    group = Element("g")
    steps = layout.steps(result)
    shown = layout.columns(result, _MOST_COLUMNS)
    rows = steps[:MOST_ROWS]
    names = {i: within(wording.label(result, int(result.players[i])), _LONGEST_NAME) for i in shown.players}
    labels = [within(step.label, _LONGEST_LABEL, strong=True) for step in rows]
    longest = max(map(breadth, names.values()), default=_LETTER)
    slant = math.radians(_ANGLE)
    top = 16 + longest * math.sin(slant)
    overhang = longest * math.cos(slant)
    shares = 52.0 if any(step.share for step in rows) else 0.0
    left = 16 + 8.0 * layout.digits(rows) + max(breadth(label, strong=True) for label in labels) + 22 + shares
    gaps = _GAP * (len(shown.groups) - 1)
    room = WIDTH - 32 - left - overhang - gaps
    step_width = max(11.0, min(26.0, room / max(1, len(shown.players))))
    x_of: dict[int, float] = {}
    x = left
    bottom = top + _ROW * len(rows)
    for name, players in shown.groups:
        for player in players:
            x_of[player] = x
            slanted = text(group, 0, 0, names[player])
            slanted.set("transform", f"translate({x + step_width / 2 + 3:.1f} {top - 6:.1f}) rotate(-{_ANGLE:.0f})")
            x += step_width
        if len(shown.groups) > 1 or name:
            start = x_of[players[0]]
            line(group, start, bottom + 5, x - 1, bottom + 5, "axis")
            text(group, start, bottom + 19, name, "faint")
            x = max(x, start + _LETTER * cells(name) - _GAP / 2) + _GAP
    right = x - _GAP + overhang if x_of else left
    for row, step in enumerate(rows):
        _row(group, result, step, labels[row], (left - 12, shares, top + _ROW * row), step_width, x_of)
    y = bottom + (26 if shown.groups and (len(shown.groups) > 1 or shown.groups[0][0]) else 8)
    for said in _notes(result, shown, len(steps)):
        text(group, 16, y + 10, said, "faint")
        right = max(right, 16 + 6.1 * cells(said))
        y += 17
    return group, y + 8, right + 16


def _notes(result: Attribution, shown: layout.Columns, n_steps: int) -> list[str]:
    """What the picture does not show."""
    said = []
    if shown.left_out:
        said.append(wording.left_out(result, shown.left_out, shown.highest_left_out))
    if n_steps > MOST_ROWS:
        said.append(f"{n_steps - MOST_ROWS} more {wording.steps_word(result)} are in the result and not drawn")
    return said


def _row(
    group: Element,
    result: Attribution,
    step: layout.Step,
    label: str,
    place: tuple[float, float, float],
    width: float,
    x_of: dict[int, float],
) -> None:
    end, shares, y = place
    middle = y + _ROW / 2 - 0.5 + BASELINE
    text(group, 16, middle, str(step.number), "faint")
    text(group, end - shares, middle, label, "strong", "end")
    if step.share:
        text(group, end, middle, step.share, "faint", "end")
    highest = layout.largest(result)
    seen = result.visible(step.sink)
    scores = result.values[step.sink]
    for player, x in x_of.items():
        if not seen[player]:
            continue
        value = float(scores[player])
        position = int(result.players[player])
        said = (
            f"{step.number} {step.label} ← {position} {wording.label(result, position)}: {wording.figure(value)}"
            f"{wording.limit_line(result, player, step.sink)}"
        )
        cell(group, x, y, width, _ROW, colour.level(value, highest), said)
