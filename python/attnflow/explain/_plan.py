"""Who plays and what is explained: positions of players and sinks, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .._positions import as_position, distinct, is_many
from ..errors import InvalidArgumentError
from ._reading import Reading, short

__all__ = ["Plan", "Sources", "Target", "of_answer", "of_text", "steps_of"]

Target = int | str | Sequence[int] | None
Sources = Literal["all", "source", "decoder"] | Iterable[int] | None


@dataclass(frozen=True)
class Plan:
    """Players and targets, as positions."""

    players: tuple[int, ...]
    sinks: tuple[tuple[int, ...], ...]
    """One entry a sink, the positions joined in it (or averaged, if `pooled`)."""
    label: str
    pooled: bool = False
    predicts: int | None = None
    """The position whose prediction this explains, where nothing was said yet."""
    labels: tuple[str, ...] | None = None
    """One a sink."""


def of_text(reading: Reading, target: Target, sources: Sources, causal: bool) -> Plan:
    """What is explained of a text that a model reads: one position, several joined, or their mean."""
    positions, pooled, label = _sink(reading, target, causal)
    if sources is None:
        last = max(positions)
        players = [position for position in reading.inner if position <= last or not causal]
        if not players:
            raise InvalidArgumentError(f"target={target!r}: no token of the text comes before it")
    else:
        players = _players(reading, sources)
    # An encoder predicts in place, where it predicts at all: the word behind a mask, say.
    whole = target is None or (isinstance(target, str) and target in ("cls", "mean"))
    predicts = max(positions) if causal or (len(positions) == 1 and not whole) else None
    return Plan(tuple(players), (positions,), label, pooled, None if pooled else predicts)


def of_answer(reading: Reading, steps: Any, sources: Sources, chain: bool, said: Sequence[str]) -> Plan:
    """What is explained of an answer: its steps, each at the position that said it."""
    sinks = steps_of(reading, steps)
    chosen = [position - reading.first for (position,) in sinks]
    given = reading.first + 1  # an encoder's tokens and what an answer starts from, or a prompt
    if sources is None:
        last = max(max(sink) for sink in sinks)
        players = [p for p in reading.inner if p <= last and (p < given or not chain)]
    else:
        players = _players(reading, sources)
    if chain:
        later = [p for p in players if p >= given]
        if later:
            raise InvalidArgumentError(
                f"sources name position {later[0]}, which was said: with chain=True only what was given is a player, "
                f"positions 0 ... {given - 1}"
            )
    if not players:
        raise InvalidArgumentError(f"sources={sources!r}: there is no token to play")
    labels = tuple(said[step] for step in chosen)
    label = f"step {chosen[0] + 1}: {labels[0]!r}" if len(labels) == 1 else f"{len(labels)} steps of the answer"
    return Plan(tuple(players), sinks, label, labels=labels)


def steps_of(reading: Reading, steps: Any) -> tuple[tuple[int], ...]:
    """The positions that said the chosen steps of an answer, a sink each."""
    count = len(reading.said)
    if steps is None:
        chosen = list(range(count))
    elif is_many(steps):
        chosen = distinct(steps, "steps", count, "the answer", "step")
    else:
        chosen = [as_position(steps, "steps", count, "the answer", "step")]
    return tuple((reading.first + step,) for step in chosen)


def _players(reading: Reading, sources: Sources) -> list[int]:
    if not isinstance(sources, str):
        return sorted(distinct(sources, "sources", *reading.extent))
    if sources == "all":
        return list(range(len(reading.tokens)))
    if sources in ("source", "decoder") and reading.n_source:
        mine = [p for p in reading.inner if (p < reading.n_source) == (sources == "source")]
        if mine:
            return mine
        raise InvalidArgumentError(f"sources={sources!r}: there is no token on that side")
    raise InvalidArgumentError(
        f"sources must be None, 'all' or positions, and of an encoder-decoder 'source' or 'decoder', got {sources!r}"
    )


def _sink(reading: Reading, target: Target, causal: bool) -> tuple[tuple[int, ...], bool, str]:
    """The positions of the target, whether they are averaged rather than joined, and their name."""
    inner = tuple(reading.inner)
    if target is None and causal:
        return (inner[-1],), False, f"output at {reading.name(inner[-1:])}"
    if target == "cls" or (target is None and reading.cls is not None):
        if reading.cls is None:
            raise InvalidArgumentError("target='cls', but the tokenizer puts no class token before this text")
        return (reading.cls,), False, f"class token {reading.tokens[reading.cls]!r}"
    if target is None or target == "mean":
        return inner, True, f"mean over {len(inner)} positions"
    if isinstance(target, str):
        words = target.removeprefix("word:")
        if not words:
            raise InvalidArgumentError(f"target is {target!r}: no word to look up in the text")
        return _look_up(reading, words), False, f"output at {words!r}"
    extent = reading.extent
    found = tuple(distinct(target, "target", *extent)) if is_many(target) else (as_position(target, "target", *extent),)
    return found, False, f"output at {reading.name(found)}"


def _look_up(reading: Reading, words: str) -> tuple[int, ...]:
    """The tokens that a piece of the text covers."""
    begins = [at for at in range(len(reading.text)) if reading.text.startswith(words, at)] if words else []
    if not begins:
        raise InvalidArgumentError(f"target {words!r} is not in the text {short(reading.text)!r}")
    if len(begins) > 1:
        raise InvalidArgumentError(
            f"target {words!r} is in the text {len(begins)} times, at characters {', '.join(map(str, begins))}: give "
            "more of the words around it, or a position"
        )
    start, stop = begins[0], begins[0] + len(words)
    found = [p for p, span in enumerate(reading.offsets) if span is not None and span[0] < stop and span[1] > start]
    if not found:
        raise InvalidArgumentError(
            f"target {words!r} cannot be matched to tokens: "
            + ("no token covers it" if any(reading.offsets) else "the tokenizer gives no offsets; use a position")
        )
    return tuple(found)
