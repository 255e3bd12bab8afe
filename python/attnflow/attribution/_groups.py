"""Words, sentences and other spans of a text, and the tokens that each is made of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .._positions import integer, items
from ..errors import InvalidArgumentError

__all__ = ["UNITS", "Grouping", "Span", "grouping", "options_word"]

Span = tuple[int, int]

UNITS = ("words", "sentences")

# A sentence ends behind these where a blank, a quotation mark or nothing follows; in scripts without blanks at once.
_SENTENCE = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？｡]+[」』”’）]*|\n)")


class Grouping(NamedTuple):
    """Units of a text in its order, each the positions that it is made of, ascending."""

    members: tuple[tuple[int, ...], ...]

    def units(self, positions: Sequence[int]) -> tuple[int, ...]:
        """The units that hold any of these positions, in the order of the positions, each once."""
        unit = {position: index for index, group in enumerate(self.members) for position in group}
        return tuple(dict.fromkeys(unit[position] for position in positions))


def grouping(text: str, offsets: Sequence[Span | None], units: Any) -> Grouping:
    """The tokens of each word, sentence or span. A token that lies in none, or in no text, is a unit of its own.

    A token that lies in two joins them: it cannot be told apart what of it belongs to which.

    Parameters
    ----------
    text, offsets
        As an :class:`Attribution` has them.
    units : "words", "sentences", or a sequence of (start, end)
        Spans are characters of the text, do not overlap, and hold a token each.
    """
    if not any(offsets):
        raise InvalidArgumentError(f"units={units!r} are of a text, and no token here has a place in one")
    given = not isinstance(units, str)
    if not given and units not in UNITS:
        raise InvalidArgumentError(
            f"units must be {', '.join(map(repr, UNITS))} or spans (start, end) of the text, got {units!r}"
        )
    spans = _checked(text, units) if given else (_words if units == "words" else _sentences)(text)
    held: list[list[int]] = [[] for _ in spans]
    joined = list(range(len(spans)))  # the first of the spans that a token makes one
    alone: list[int] = []
    at = 0
    for position, offset in sorted(enumerate(offsets), key=lambda one: (one[1] or (0, 0), one[0])):
        if offset is None or offset[0] == offset[1]:
            alone.append(position)
            continue
        inside = _stripped(text, offset)
        while at < len(spans) and spans[at][1] <= inside[0]:
            at += 1
        touched = []
        for index in range(at, len(spans)):
            if spans[index][0] >= inside[1]:
                break
            touched.append(index)
        if not touched:
            alone.append(position)
            continue
        for index in touched[1:]:
            joined[index] = joined[touched[0]]
        held[joined[touched[0]]].append(position)
    for index, (span, positions) in enumerate(zip(spans, held, strict=True)):
        if given and not positions and joined[index] == index:
            raise InvalidArgumentError(f"units[{index}] = {span} holds no token: {text[slice(*span)]!r}")
    groups = [sorted(positions) for positions in held if positions] + [[position] for position in alone]
    return Grouping(tuple(tuple(group) for group in sorted(groups)))


def options_word(units: Any) -> Any:
    """Units as an option of a result holds them."""
    return units if isinstance(units, str) else [list(span) for span in units]


def _stripped(text: str, span: Span) -> Span:
    """Without the blanks around it, which many tokenizers count to the word behind; with them if there is no more."""
    inner = text[slice(*span)]
    start = span[0] + len(inner) - len(inner.lstrip())
    return (start, start + len(inner.strip())) if inner.strip() else span


def _checked(text: str, units: Any) -> list[Span]:
    rule = "a sequence of spans (start, end) of the text"
    spans: list[Span] = []
    for index, given in enumerate(items(units, "units", f"{', '.join(map(repr, UNITS))} or {rule}")):
        ends = items(given, f"units[{index}]", "a span (start, end) of the text")
        if len(ends) != 2:
            raise InvalidArgumentError(f"units[{index}] is {given!r}; it must be a span (start, end) of the text")
        start, end = (integer(end, f"units[{index}]", low=0, high=len(text)) for end in ends)
        if start >= end:
            raise InvalidArgumentError(f"units[{index}] = ({start}, {end}) is empty: its end must be above its start")
        spans.append((start, end))
    if not spans:
        raise InvalidArgumentError("units is empty; at least one span is needed")
    spans.sort()
    for one, other in pairwise(spans):
        if other[0] < one[1]:
            raise InvalidArgumentError(f"units {one} and {other} overlap: a token can be in one only")
    return spans


def _words(text: str) -> list[Span]:
    """Runs of letters, marks and digits, with apostrophes, hyphens and decimal points inside; runs of other signs.

    What is written without blanks in Chinese or Japanese signs is one word a sign, as Unicode's default has it.
    """
    spans: list[Span] = []
    kinds = [_kind(character) for character in text]
    for at, kind in enumerate(kinds):
        if kind in ("joiner", "point"):
            inside = 0 < at < len(text) - 1 and kinds[at - 1] == kinds[at + 1] == "letter"
            inside = inside and (kind == "joiner" or (text[at - 1].isdigit() and text[at + 1].isdigit()))
            kinds[at] = "letter" if inside else "sign"
        if kinds[at] == "blank":
            continue
        goes_on = at > 0 and kinds[at] == kinds[at - 1] != "ideograph"
        if goes_on:
            spans[-1] = spans[-1][0], at + 1
        else:
            spans.append((at, at + 1))
    return spans


def _kind(character: str) -> str:
    if character.isspace():
        return "blank"
    if character in "'’-‐":
        return "joiner"
    if character in ".,":
        return "point"
    category = unicodedata.category(character)
    if category == "Lo" and unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA")):
        return "ideograph"
    return "letter" if category[0] in "LNM" or character == "_" else "sign"


def _sentences(text: str) -> list[Span]:
    """Up to a full stop, a question mark or an exclamation mark that a blank follows, or the end of a line.

    Blanks behind a sentence belong to it if a line ends there, else to the next.
    """
    ends = [found.end() for found in _SENTENCE.finditer(text)]
    begins = [0, *ends]
    spans = [(begin, end) for begin, end in zip(begins, [*ends, len(text)], strict=True) if begin < end]
    # A mark behind a mark is no sentence of its own, and no blank is.
    whole: list[Span] = []
    for begin, end in spans:
        if whole and not any(character.isalnum() for character in text[begin:end]):
            whole[-1] = whole[-1][0], end
        else:
            whole.append((begin, end))
    return whole
