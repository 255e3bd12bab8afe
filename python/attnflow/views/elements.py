"""What the SVG pictures are put together from: a style, a few shapes, and text whose width can be estimated.

Text is escaped by the XML library, not by hand.
"""

from __future__ import annotations

import unicodedata
from xml.etree import ElementTree

from . import colour

__all__ = [
    "BASELINE",
    "STYLE",
    "WIDTH",
    "Element",
    "breadth",
    "cell",
    "cells",
    "line",
    "number",
    "rect",
    "scale",
    "shorten",
    "text",
    "tooltip",
    "within",
]

Element = ElementTree.Element

WIDTH = 960
BASELINE = 4.2  # from a line's middle down to the baseline of 12 px text

# INK, DIM, LINE, FLOW and ACCENT are filled in: with variables for a page, with literal colours for a file of its own,
# because not every program that draws SVG knows variables.
STYLE = """
.af text { font: 12px ui-sans-serif, system-ui, "Segoe UI", "Noto Sans", Arial, sans-serif; fill: INK }
.af .strong { font-weight: 650 }
.af .faint { fill: DIM; font-size: 11px }
.af .title { font-size: 13px; font-weight: 650 }
.af .guide { stroke: LINE; stroke-width: 1 }
.af .axis { stroke: DIM; stroke-width: 1 }
.af .ribbon { fill: FLOW; fill-opacity: .5 }
.af .node, .af .bar { fill: FLOW }
.af .bar.below { fill: BELOW }
.af .trivial { fill: FLOW; fill-opacity: .22; stroke: FLOW; stroke-width: 1 }
.af .cut { fill: ACCENT; fill-opacity: .85 }
.af .band { fill: ACCENT; fill-opacity: .1 }
.af .accent { fill: ACCENT }
.af .ring { fill: none; stroke: ACCENT; stroke-width: 2 }
.af .border { stroke: DIM; stroke-width: 1; stroke-dasharray: 3 3 }
.af .hole { fill: none; stroke: LINE; stroke-width: 1 }
.af .cell.h0 { stroke: LINE; stroke-width: 1 }
.af .cell:hover { stroke: ACCENT; stroke-width: 2 }
"""
# The cells of a matrix or a grid have the class of their step on the scale of colours, `h0` to `h24`, `n1` to `n24`.


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def line(group: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    """Add a straight line."""
    ends = {"x1": number(x1), "y1": number(y1), "x2": number(x2), "y2": number(y2)}
    ElementTree.SubElement(group, "line", {"class": kind, **ends})


def rect(group: Element, x: float, y: float, width: float, height: float, kind: str) -> Element:
    """Add a rectangle; returns it."""
    box = {"x": number(x), "y": number(y), "width": f"{width:.2f}", "height": f"{height:.2f}"}
    return ElementTree.SubElement(group, "rect", {"class": kind, **box})


def text(group: Element, x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> Element:
    """Add a line of text; returns it."""
    element = ElementTree.SubElement(
        group, "text", {"x": number(x), "y": number(y), "class": kind, "text-anchor": anchor}
    )
    element.text = said
    return element


def tooltip(element: Element, said: str) -> None:
    """What a pointer that rests on the element brings up."""
    ElementTree.SubElement(element, "title").text = said


def cell(group: Element, x: float, y: float, width: float, height: float, step: int, said: str) -> None:
    """Add a cell of a matrix or a grid: its colour is a step of the scale, what it stands for comes up under a pointer.

    A hair smaller than its place, so that neighbours of one colour stay two.
    """
    gap = 1.0 if min(width, height) >= 6 else 0.0
    tooltip(rect(group, x, y, width - gap, height - gap, f"cell {colour.kind(step)}"), said)


def scale(group: Element, x: float, y: float, highest: float, *, signed: bool = False) -> None:
    """Add the scale of colours, from nothing to the highest score; `signed`: from as much below zero."""
    if signed:
        end = f"−{highest:.4g}" if highest else "0"
        text(group, x, y + 9, end, "faint")
        x += 6.1 * cells(end) + 10
        for i, step in enumerate(range(colour.LEVELS, 0, -2)):
            rect(group, x + 8 * i, y, 8, 10, colour.kind(-step))
        x += 8 * (colour.LEVELS // 2) + 6
    text(group, x, y + 9, "0", "faint")
    for i, step in enumerate(range(0, colour.LEVELS + 1, 2)):
        rect(group, x + 12 + 8 * i, y, 8, 10, f"h{step}")
    text(group, x + 18 + 8 * (colour.LEVELS // 2 + 1), y + 9, f"{highest:.4g}", "faint")


def cells(said: str) -> int:
    """Width of a text in narrow letters: wide East Asian characters and emoji count two, marks none."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in said
    )


def shorten(said: str, most: int) -> str:
    """The text in at most `most` cells, an ellipsis for what is left out."""
    if cells(said) <= most:
        return said
    while said and cells(said) >= most:
        said = said[:-1]
    return said.rstrip() + "…"


def breadth(said: str, *, strong: bool = False) -> float:
    """Pixels that a text of 12 px takes: an estimate, a little too high rather than too low."""
    wide = sum(letter in "mwMWQ@%…" for letter in said)
    return (7.4 if strong else 6.6) * cells(said) + 4.0 * wide + sum(map(str.isupper, said))


def within(said: str, pixels: float, *, strong: bool = False) -> str:
    """The text, shortened until it takes no more than so many pixels."""
    while breadth(said, strong=strong) > pixels and cells(said) > 1:
        said = shorten(said, cells(said) - 1)
    return said
