"""What the terminal's pictures are put together from: colours in what the terminal has, bars, and text cut to fit."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.text import Text

from . import colour

__all__ = ["BLOCKS", "ColourSystem", "Palette", "bar", "block", "fit", "palette", "scale", "short"]

ColourSystem = Literal["standard", "256", "truecolor"]

BLOCKS = " ▁▂▃▄▅▆▇█"
_BELOW = "-=≡"  # for what is below zero: no bar hangs from its line in steps as fine
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Palette(NamedTuple):
    """Styles in what the terminal has. Each colour system has its own names, because rich caches what a style means."""

    shades: tuple[str, ...] | None  # ink and background of every step of the scale; None: the scale is drawn as bars
    below: tuple[str, ...]  # the same for what is below zero
    bar: str
    bar_below: str
    accent: str

    def shade(self, step: int) -> str:
        """Ink and background of a step, where there are colours."""
        assert self.shades is not None
        return self.shades[step] if step >= 0 else self.below[-step]

    def fill(self, step: int) -> str:
        """The background alone."""
        return self.shade(step).partition(" on ")[2]


def palette(colours: ColourSystem | None) -> Palette:
    """The styles for a terminal of these colours."""
    if colours is None or colours == "standard":  # sixteen colours make no scale
        return Palette(None, (), "blue", "yellow", "yellow")

    if colours == "truecolor":
        above, below = colour.shades(colour.TERMINAL), colour.shades(colour.BELOW_TERMINAL)
        # The bars' colours are of a lightness that stands out on black and on white.
        bars = above[15].background, below[15].background
        return Palette(_styles(above), _styles(below), *bars, colour.ACCENT["terminal"])
    return Palette(_indexed(_BLUES), _indexed(_ORANGES), "color(32)", "color(172)", "color(208)")


def _styles(shades: tuple[colour.Shade, ...]) -> tuple[str, ...]:
    return tuple(f"{shade.ink} on {shade.background}" for shade in shades)


# The blues and oranges among the 256 colours, by lightness. The nearest ones to the true scales would wander through
# other hues.
_BLUES = (233, 17, 18, 24, 25, 31, 32, 74, 75, 117, 153, 195)
_ORANGES = (233, 52, 94, 130, 172, 208, 215, 222, 230)


def _indexed(hues: tuple[int, ...]) -> tuple[str, ...]:
    """The steps of a scale through some of the 256 colours."""
    styles = []
    for step in range(colour.LEVELS + 1):
        number = hues[round(step / colour.LEVELS * (len(hues) - 1))]
        red, green, blue = Color.from_ansi(number).get_truecolor()
        white = colour.contrast("#ffffff", f"#{red:02x}{green:02x}{blue:02x}") >= 4.5
        styles.append(f"color({231 if white else 16}) on color({number})")
    return tuple(styles)


def scale(styles: Palette, highest: float, *, signed: bool = False) -> Text:
    """The scale of colours or of bars, from nothing to the highest score; `signed`: from as much below zero."""
    text = Text()
    if not signed:
        text.append("scale 0 ", "dim")
    else:
        text.append(f"scale {'−' if highest else ''}{highest:.4g} ", "dim")
        if styles.shades is None:
            text.append(_BELOW[::-1])
        else:
            for style in styles.below[:0:-2]:
                text.append(" ", style)
        text.append(" 0 ", "dim")
    if styles.shades is None:
        text.append(BLOCKS[1:])
    else:
        for style in styles.shades[::2]:
            text.append(" ", style)
    return text.append(f" {highest:.4g}", "dim")


def block(step: int) -> str:
    """A bar as high as a step of the scale, or a stronger minus for one below zero; a blank only for nothing at all."""
    if step < 0:
        return _BELOW[-(step * len(_BELOW) // colour.LEVELS) - 1]
    return BLOCKS[-(-step * (len(BLOCKS) - 1) // colour.LEVELS)]


def fit(text: Text, width: int, step: int, styles: Palette) -> None:
    """Add a cell `width` wide: shaded, or drawn as a bar over a dot where nothing arrives."""
    if styles.shades is not None:
        text.append(" " * width, styles.shade(step))
    elif step == 0:
        text.append(set_cell_size("·", width), "dim")
    else:
        text.append(block(step) * width)


def bar(share: float, width: int) -> str:
    """A bar from the left, in eighths of a cell; of a share below zero a row of minus signs."""
    if share < 0:
        return ("-" * max(1, round(-share * width))).ljust(width)
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def short(text: str, width: int) -> str:
    """The text in at most `width` cells, an ellipsis for what is left out."""
    if cell_len(text) <= width:
        return text
    kept = next((text[:i] for i in range(min(len(text), width), 0, -1) if cell_len(text[:i]) < width), "")
    return kept + "…"
