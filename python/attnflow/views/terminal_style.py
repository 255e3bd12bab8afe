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
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Palette(NamedTuple):
    """Styles in what the terminal has. Each colour system has its own names, because rich caches what a style means."""

    shades: tuple[str, ...] | None  # ink and background of every step of the scale; None: the scale is drawn as bars
    fills: tuple[str, ...]  # the backgrounds alone
    bar: str
    accent: str


def palette(colours: ColourSystem | None) -> Palette:
    """The styles for a terminal of these colours."""
    if colours is None or colours == "standard":  # sixteen colours make no scale
        return Palette(None, (), "blue", "yellow")

    shades = colour.shades(colour.TERMINAL)
    if colours == "truecolor":
        styles = tuple(f"{shade.ink} on {shade.background}" for shade in shades)
        # The bar's colour is of a lightness that stands out on black and on white.
        return Palette(
            styles, tuple(shade.background for shade in shades), shades[15].background, colour.ACCENT["terminal"]
        )
    styles = tuple(_indexed(step / colour.LEVELS) for step in range(colour.LEVELS + 1))
    return Palette(styles, tuple(style.partition(" on ")[2] for style in styles), "color(32)", "color(208)")


# The blues among the 256 colours, by lightness. The nearest ones to the true scale would wander through other hues.
_BLUES = (233, 17, 18, 24, 25, 31, 32, 74, 75, 117, 153, 195)


def _indexed(share: float) -> str:
    number = _BLUES[round(share * (len(_BLUES) - 1))]
    red, green, blue = Color.from_ansi(number).get_truecolor()
    white = colour.contrast("#ffffff", f"#{red:02x}{green:02x}{blue:02x}") >= 4.5
    return f"color({231 if white else 16}) on color({number})"


def scale(styles: Palette, highest: float) -> Text:
    """The scale of colours or of bars, from nothing to the highest score."""
    text = Text.assemble(("scale 0 ", "dim"))
    if styles.shades is None:
        text.append(BLOCKS[1:])
    else:
        for style in styles.shades[::2]:
            text.append(" ", style)
    return text.append(f" {highest:.4g}", "dim")


def block(step: int) -> str:
    """A bar as high as a step of the scale; a blank only for nothing at all."""
    return BLOCKS[-(-step * (len(BLOCKS) - 1) // colour.LEVELS)]


def fit(text: Text, width: int, step: int, styles: Palette) -> None:
    """Add a cell `width` wide: shaded, or drawn as a bar over a dot where nothing arrives."""
    if styles.shades is not None:
        text.append(" " * width, styles.shades[step])
    elif step == 0:
        text.append(set_cell_size("·", width), "dim")
    else:
        text.append(block(step) * width)


def bar(share: float, width: int) -> str:
    """A bar from the left, in eighths of a cell."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def short(text: str, width: int) -> str:
    """The text in at most `width` cells, an ellipsis for what is left out."""
    if cell_len(text) <= width:
        return text
    kept = next((text[:i] for i in range(min(len(text), width), 0, -1) if cell_len(text[:i]) < width), "")
    return kept + "…"
