"""Beginnings of sentences whose next word is a verb, " is" or " are", as the number of the subject decides.

``Everyone knows that the keys near the cabinet`` goes on with " are". Between the subject and the verb there may be
another noun, of the same number or, as an attractor, of the other. Openings of different lengths put the subject in
different places.
"""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["VERBS", "Sentence", "draw"]

VERBS = (" is", " are")

OPENINGS = ("", "Everyone knows that ", "In this room ", "She told me yesterday that ", "As you can see, ")
NEAR = (
    "the {subject} near the {other}",
    "the old {subject} behind the {other}",
    "the {subject} in the story about the {other}",
    "the {subject} next to the very small {other}",
)
LIKED = ("the {subject} that the {other} admired", "the famous {subject} that the {other} remembered so well")
THINGS = (
    ("key", "keys"),
    ("cabinet", "cabinets"),
    ("picture", "pictures"),
    ("book", "books"),
    ("house", "houses"),
    ("car", "cars"),
    ("table", "tables"),
    ("bridge", "bridges"),
    ("tree", "trees"),
    ("box", "boxes"),
)
PEOPLE = (
    ("author", "authors"),
    ("doctor", "doctors"),
    ("teacher", "teachers"),
    ("farmer", "farmers"),
    ("guard", "guards"),
    ("pilot", "pilots"),
    ("student", "students"),
    ("lawyer", "lawyers"),
    ("woman", "women"),
    ("man", "men"),
)


class Sentence(NamedTuple):
    """Its beginning, the noun that decides, whether it is plural, and whether the other noun has the other number."""

    text: str
    subject: str
    plural: bool
    attracted: bool


def draw(count: int, seed: int) -> list[Sentence]:
    """Different sentences: singular or plural, with another noun of the same or the other number, as coins fall."""
    rng = random.Random(f"sentences {seed}")
    found: dict[str, Sentence] = {}
    while len(found) < count:
        template = rng.choice(NEAR + LIKED)
        subject = rng.choice(THINGS + PEOPLE)
        other = rng.choice([noun for noun in (PEOPLE if template in LIKED else THINGS + PEOPLE) if noun != subject])
        plural, attracted = rng.random() < 0.5, rng.random() < 0.5
        text = rng.choice(OPENINGS) + template.format(subject=subject[plural], other=other[plural != attracted])
        text = text[0].upper() + text[1:]
        found[text] = Sentence(text, subject[plural], plural, attracted)
    return list(found.values())
