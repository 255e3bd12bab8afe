"""Colours of the views: one hue from faint to strong, one for what is below zero, and one accent.

Strength is carried by lightness alone, so it survives every kind of colour blindness and a grey printer. The accent,
an orange, is kept for what limits a flow. Scores below zero are orange too: they are no flows, and nothing limits them.
Blue against orange is the pair that all common dichromats tell apart.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ACCENT",
    "BELOW_DARK",
    "BELOW_LIGHT",
    "BELOW_TERMINAL",
    "DARK",
    "LEVELS",
    "LIGHT",
    "TERMINAL",
    "Shade",
    "contrast",
    "kind",
    "level",
    "shades",
]

LEVELS = 24  # steps of a scale: finer than an eye tells apart on a token, coarse enough for one CSS class each

# Stops from "no flow" to "the highest score". On paper strength darkens, on a dark page it lightens. A terminal's
# background is unknown, so there every token gets a background of its own and the scale explains itself.
LIGHT = ("#f4f7fa", "#d8e7f5", "#a5cbe9", "#5ea3d4", "#2370b4", "#0b3d7c")
DARK = ("#1d2229", "#1b344f", "#1f5283", "#2f7cba", "#63afe8", "#b9defd")
TERMINAL = ("#1b2430", "#1d3f66", "#22639e", "#3f92d2", "#8cc8f5", "#e3f3ff")

# The same for what is below zero, from the same nothing.
BELOW_LIGHT = ("#f4f7fa", "#fae3cd", "#f3bf8d", "#df8b45", "#b4560d", "#6f3004")
BELOW_DARK = ("#1d2229", "#452a13", "#713e10", "#b0671f", "#f0a55a", "#fddcb9")
BELOW_TERMINAL = ("#1b2430", "#532f12", "#8a4c10", "#cb7d2a", "#f7bf85", "#fff0e0")

ACCENT = {"light": "#c2500a", "dark": "#ff9f52", "terminal": "#ff8c3a"}

_INKS = ("#ffffff", "#04060a")


class Shade(NamedTuple):
    """A background and the ink that reads best on it."""

    background: str
    ink: str


def level(score: float, largest: float) -> int:
    """Step of a score on a scale that ends at `largest`, below zero a negative one; only exact zero is step 0."""
    if score == 0 or largest <= 0:
        return 0
    step = max(1, min(LEVELS, round(LEVELS * abs(score) / largest)))
    return step if score > 0 else -step


def kind(step: int) -> str:
    """The name of a step in a style sheet: ``h7`` above zero, ``n7`` below."""
    return f"n{-step}" if step < 0 else f"h{step}"


def shades(stops: tuple[str, ...]) -> tuple[Shade, ...]:
    """The scale through `stops`, step 0 to step LEVELS."""
    result = []
    for step in range(LEVELS + 1):
        at = step / LEVELS * (len(stops) - 1)
        i = min(int(at), len(stops) - 2)
        low, high = _rgb(stops[i]), _rgb(stops[i + 1])
        mixed = [round(a + (b - a) * (at - i)) for a, b in zip(low, high, strict=True)]
        background = "#{:02x}{:02x}{:02x}".format(*mixed)
        result.append(Shade(background, max(_INKS, key=lambda ink: contrast(ink, background))))
    return tuple(result)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours by WCAG 2.1, 1 to 21; text wants 4.5.

    Examples
    --------
    >>> contrast("#000000", "#ffffff")
    21.0
    """
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return round((bright + 0.05) / (dim + 0.05), 2)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
