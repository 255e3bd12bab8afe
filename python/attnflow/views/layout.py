"""What a result is made of, for every view alike: its parts, its steps, and what of them there is room for.

A *part* is a stretch of positions that is drawn in one piece: what an encoder read, what a decoder said, the patches
of an image. A *step* is a sink among several: a generated token, as a rule.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ..attribution import Attribution, PairFlow

__all__ = [
    "Columns",
    "Part",
    "Step",
    "binned",
    "columns",
    "digits",
    "drawn_flows",
    "furthest",
    "is_image",
    "largest",
    "part_of",
    "parts",
    "said",
    "steps",
    "until",
]


class Part(NamedTuple):
    """Positions that are drawn in one piece."""

    name: str
    """A word: ``"source"``, ``"decoder"``, ``"prompt"`` ... Empty where the whole is one part."""
    heading: str
    positions: range
    cells: bool = False
    """Whether these are the cells of the result's grid rather than running text."""


class Step(NamedTuple):
    """One of several sinks, in words."""

    sink: int
    label: str
    share: str
    """The probability that the model gave it, or nothing."""
    number: int
    """Its number in the answer, as people count."""


class Columns(NamedTuple):
    """The columns of a matrix that are drawn: groups of players by their index, and what was left out."""

    groups: tuple[tuple[str, tuple[int, ...]], ...]
    left_out: int
    highest_left_out: float
    """How far from zero their scores are at most."""

    @property
    def players(self) -> tuple[int, ...]:
        """All of them, from left to right."""
        return tuple(player for _, group in self.groups for player in group)


def largest(result: Attribution) -> float:
    """How far from zero a score is at most: where the scale of a picture ends."""
    return float(np.abs(result.values).max())


def parts(result: Attribution) -> list[Part]:
    """The stretches of positions that hold a player; everything, if that is a single one."""
    n, first = len(result.tokens), result.n_source
    whole = [
        ("source", "source: what the encoder read", range(first)),
        ("decoder", "decoder: what it read and said", range(first, n)),
    ]
    found: list[Part] = []
    for name, heading, positions in whole if first else [("", "", range(n))]:
        cells = _cells(result)
        if not len(cells) or cells.start < positions.start or cells.stop > positions.stop:
            found.append(Part(name, heading, positions))
            continue
        kind = "image" if is_image(result) else "recording"
        before, after = range(positions.start, cells.start), range(cells.stop, positions.stop)
        found += [Part(name or f"before the {kind}", f"before the {kind}", before)] if before else []
        found.append(Part(name or kind, f"{name}: {_size(result)}" if name else _size(result), cells, cells=True))
        found += [Part(name or f"behind the {kind}", f"behind the {kind}", after)] if after else []
    split = [half for part in found for half in _at_generation(result, part)]
    players = set(result.players.tolist())
    alive = [part for part in split if not players.isdisjoint(part.positions)]
    return alive if len(split) > 1 else split


def part_of(result: Attribution) -> dict[int, tuple[str, str]]:
    """Position -> the name and the heading of its part, where there are several to tell apart."""
    found = parts(result)
    if len(found) == 1 and result.kind != "encoder-decoder":
        return {}
    return {position: (part.name, part.heading) for part in found for position in part.positions}


def _cells(result: Attribution) -> range:
    if result.grid is None:
        return range(0)
    return range(result.grid.start, result.grid.start + math.prod(result.grid.shape))


def is_image(result: Attribution) -> bool:
    """Whether positions lie in rows and columns."""
    return result.grid is not None and len(result.grid.shape) == 2


def _size(result: Attribution) -> str:
    shape = result.grid.shape if result.grid is not None else ()
    sides = " × ".join(wording.count(side) for side in shape)
    return f"image, {sides} patches" if len(shape) == 2 else f"recording, {sides} frames"


def _at_generation(result: Attribution, part: Part) -> Iterable[Part]:
    """A decoder's text in two where it begins to write: the step at a position writes the token behind it."""
    ends = [max(target) for target in result.targets]
    several = result.sink_labels is not None and len(ends) > 1
    first = ends[0] + 1
    consecutive = several and ends == list(range(first - 1, first - 1 + len(ends)))
    if result.kind != "decoder" or not consecutive or part.cells or first not in part.positions[1:]:
        return [part]
    before, after = range(part.positions.start, first), range(first, part.positions.stop)
    return [
        Part(part.name or "prompt", part.heading or "prompt", before),
        Part("generated", "generated before", after),
    ]


def steps(result: Attribution) -> list[Step]:
    """A label a sink: what was said there, and with what probability."""
    numbers: Sequence[int] = range(len(result.targets))
    chosen = result.options.get("steps")
    if isinstance(chosen, tuple) and len(chosen) == len(numbers) and all(isinstance(n, int) for n in chosen):
        numbers = chosen
    found = []
    for sink, target in enumerate(result.targets):
        said, share = "", ""
        if result.predictions is not None:
            token, probability = result.predictions[sink]
            said, share = token, f"{probability:.1%}"
        if result.sink_labels is not None:
            said = result.sink_labels[sink]
        if result.predictions is None and result.sink_labels is None:
            label = wording.label(result, target[0]) if len(target) == 1 else f"{len(target)} positions"
        else:
            label = wording.shown_token(said)
        found.append(Step(sink, label, share, numbers[sink] + 1))
    return found


def digits(steps: Iterable[Step]) -> int:
    """How many the numbers of steps have at most."""
    return len(str(max(step.number for step in steps)))


def said(result: Attribution) -> str:
    """What a generation said, in one piece; empty where the sinks are no generated tokens.

    Where steps are missing between those that are explained, an ellipsis stands for them.
    """
    if len(result.targets) < 2 or result.sink_labels is None:
        return ""
    tokens = result.sink_labels if result.predictions is None else [token for token, _ in result.predictions]
    ends = [max(target) for target in result.targets]
    if result.members is not None:  # several tokens of an answer are in one word, and steps are still one by one
        ends = [step.number for step in steps(result)]
    text = tokens[0]
    for token, (before, end) in zip(tokens[1:], pairwise(ends), strict=True):
        text += token if end == before + 1 else " … " + token.lstrip(" ")
    return text.strip(" ")


def columns(result: Attribution, most: int | None = None) -> Columns:
    """The players that a matrix has columns for: at most `most`, those with the strongest score in any step.

    Cells of a grid have a picture of their own and no column.
    """
    index = {position: i for i, position in enumerate(result.players.tolist())}
    groups = [(part.name, [index[p] for p in part.positions if p in index]) for part in parts(result) if not part.cells]
    best = np.abs(result.values).max(axis=0)
    everyone = [player for _, group in groups for player in group]
    ranked = sorted(everyone, key=lambda player: (-best[player], player))
    kept = set(ranked if most is None else ranked[:most])
    dropped = [player for player in everyone if player not in kept]
    left = tuple((name, tuple(p for p in group if p in kept)) for name, group in groups)
    return Columns(
        tuple((name, group) for name, group in left if group),
        len(dropped),
        float(best[dropped].max()) if dropped else 0.0,
    )


def binned(cells: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], int]:
    """Frames in at most `most` bins, each with the strongest score in it (NaN without a player); frames a bin."""
    per = max(1, -(-cells.size // most))
    padded = np.full(-(-cells.size // per) * per, np.nan)
    padded[: cells.size] = cells
    return furthest(padded.reshape(-1, per)), per


def furthest(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row the score furthest from zero; NaN where it holds no player."""
    at = np.where(np.isnan(table), -1.0, np.abs(table)).argmax(axis=-1)
    return np.take_along_axis(table, at[..., None], axis=-1)[..., 0]


def until(result: Attribution, part: Part) -> range:
    """A part's positions up to the sink's own in a decoder, for a step that sees nothing behind it."""
    end = len(result.tokens) if result.kind == "encoder" else max(result.targets[0]) + 1
    return range(part.positions.start, min(part.positions.stop, max(end, part.positions.start)))


def drawn_flows(result: Attribution) -> Sequence[PairFlow]:
    """The flows whose way can be drawn: through layers that follow one another, from the input up."""
    names = result.link_names
    if result.kind == "encoder-decoder" or (names is not None and len(names) > result.n_layers + 1):
        return ()
    return result.flows or ()
