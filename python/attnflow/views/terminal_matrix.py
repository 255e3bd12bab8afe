"""Several sinks in a terminal: a matrix of steps by input tokens, and what each step drew on most.

A column is as wide as its token's name; what does not fit into one line of columns goes on below, under the steps'
names once more. The columns of the highest scores are kept, and what is left out is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from . import colour, layout, wording
from .terminal_style import Palette, fit, short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..attribution import Attribution

__all__ = ["best", "draw"]

_MOST_COLUMNS = 48
_MOST_LINES = 70  # of the whole matrix, if columns can be left out for that
_WIDEST = 9
_TOP = 3

# A column: the player, its name, and the heading of its group where a group begins.
_Column = tuple[int, str, str]


def draw(result: Attribution, styles: Palette, width: int, limit: int | None) -> list[Text]:
    """The matrix, in lines no wider than the terminal."""
    everything = layout.columns(result)
    if not everything.players:
        return []
    steps = layout.steps(result)[:limit]
    labels = _labels(steps, width)
    room = width - labels[0].cell_len
    shown, bands = everything, list(_bands(result, everything, room))
    if limit is not None:
        most = max(1, _MOST_LINES // (len(steps) + 3))
        # The first so many of the ranking that need no more than `most` bands.
        low, high = 1, min(_MOST_COLUMNS, len(everything.players))
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(list(_bands(result, layout.columns(result, middle), room))) <= most
            low, high = (middle, high) if fits else (low, middle - 1)
        shown = layout.columns(result, low)
        bands = list(_bands(result, shown, room))
    lines: list[Text] = []
    for band in bands:
        lines += _band(result, band, steps, labels, styles)
    notes = []  # a name may be cut, but nothing goes missing without a word
    if shown.left_out:
        notes.append("… " + wording.left_out(result, shown.left_out, shown.highest_left_out))
    if len(steps) < len(result.targets):
        notes.append(f"… {len(result.targets) - len(steps)} more {wording.steps_word(result)} are not shown")
    return lines[:-1] + [Text(note, "dim italic") for note in notes]


def _labels(steps: list[layout.Step], width: int) -> list[Text]:
    """Number, token and probability of each step, all as wide as the widest."""
    room = max(5, min(14, width // 5))
    names = [short(step.label, room) for step in steps]
    widest = max(cell_len(name) for name in names)
    digits = layout.digits(steps)
    share = max(len(step.share) for step in steps) if width >= 48 else 0
    labels = []
    for step, name in zip(steps, names, strict=True):
        label = Text.assemble((f"{step.number:>{digits}} ", "dim"), (set_cell_size(name, widest), "bold"))
        if share:
            label.append(f" {step.share:>{share}}", "dim")
        labels.append(label.append("  "))
    return labels


def _bands(result: Attribution, shown: layout.Columns, width: int) -> Iterable[list[_Column]]:
    """The columns, as many at a time as fit into a line."""
    band: list[_Column] = []
    used = 0
    for name, players in shown.groups:
        for i, player in enumerate(players):
            token = short(wording.label(result, int(result.players[player])), max(2, min(_WIDEST, width - 1)))
            token = set_cell_size(token, max(2, cell_len(token)))
            new_group = i == 0 and len(shown.groups) > 1
            between = 2 if new_group and band else 0
            needed = max(cell_len(token), len(name)) if new_group else cell_len(token)
            if band and used + between + needed > width:
                yield band
                band, used, between = [], 0, 0
            band.append((player, token, name if new_group or not band else ""))
            used += between + cell_len(token) + 1
    yield band


def _band(
    result: Attribution, band: list[_Column], steps: list[layout.Step], labels: list[Text], styles: Palette
) -> list[Text]:
    highest = layout.largest(result)
    margin = labels[0].cell_len
    headings, names = "", Text(" " * margin)
    at = 0
    places = []
    for player, token, heading in band:
        if heading and at:
            names.append("  ")
            at += 2
        if heading:
            headings = headings.ljust(at) if len(headings) <= at else headings + " "
            headings += heading
        places.append((player, cell_len(token), bool(heading) and at > 0))
        names.append(token + " ", "dim")
        at += cell_len(token) + 1
    lines = []
    if headings:
        lines.append(Text(" " * margin + headings, "italic"))
    lines.append(names)
    for step, label in zip(steps, labels, strict=True):
        line = label.copy()
        seen = result.visible(step.sink)
        for player, wide, gap in places:
            line.append("  " if gap else "")
            if seen[player]:
                fit(line, wide, colour.level(float(result.values[step.sink, player]), highest), styles)
                line.append(" ")
            else:
                line.append(" " * (wide + 1))
        lines.append(line)
    return [*lines, Text()]


def best(result: Attribution, width: int, limit: int | None) -> list[Text]:
    """A line a step: the tokens with its highest scores, and these."""
    steps = layout.steps(result)[:limit]
    labels = _labels(steps, width)
    places = wording.decimals(layout.largest(result))
    lines = []
    for step, label in zip(steps, labels, strict=True):
        line = label.copy()
        found = [row for row in result.top(_TOP, step.sink) if row.score != 0]
        for row in found:
            name = short(wording.label(result, row.position), 16)
            told = f"{name} {wording.score(row.score, places)}"
            if line.cell_len + cell_len(told) > width:
                break
            line.append(name).append(f" {wording.score(row.score, places)}   ", "dim")
        if not found:
            line.append("nothing", "dim")
        lines.append(line)
    return lines
