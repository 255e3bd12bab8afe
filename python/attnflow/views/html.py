"""A result as one self-contained HTML page: no network, no script, light and dark, readable on a telephone.

The page is a template with everything escaped by default; the only text that goes in as markup is this package's own
style sheet and the pictures of :mod:`.svg`, which an XML library escaped.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..attribution import require_alike
from ..errors import MissingDependencyError
from . import colour, elements, grid, layout, svg, wording

try:
    import jinja2
    from markupsafe import Markup
except ImportError as error:
    raise MissingDependencyError("the HTML view needs jinja2: pip install 'attnflow[views]'") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..attribution import Attribution

__all__ = ["fragment", "page"]

_MOST_STEPS = 100  # that have details of their own
_MOST_TOKENS = 30_000  # in all these details together: beyond, a page opens slowly
_MOST_ROWS = 60  # beyond these the highest come first, and the whole table is folded away
_TOP_ROWS = 24
_TOP_OF_STEP = 10


def page(*results: Attribution) -> str:
    """A whole page about one result, or about several of the same tokens side by side."""
    first = results[0]
    generated = wording.visible(layout.said(first))
    alone = wording.each_sink(first)[0] if len(first.targets) == 1 else first
    predicted = wording.shown_token(alone.prediction[0]) if alone.prediction else ""
    said = generated or predicted or wording.visible(first.target_label)
    title = f"{elements.shorten(said, 80)} · {'attention flow' if any(r.is_flow for r in results) else 'attribution'}"
    return _templates().get_template("page.html.j2").render(title=title, fragment=Markup(fragment(*results)))


def fragment(*results: Attribution) -> str:
    """The same without the page around it, for a notebook: every rule of its style is confined to its own element."""
    require_alike(results)
    several = len(results[0].targets) > 1
    first = results[0] if several else wording.each_sink(results[0])[0]
    context = {
        "style": Markup(_style(any(result.is_signed for result in results))),
        "model": wording.visible(str(first.options.get("model", ""))),
        "said_word": wording.said_word(first),
        "said": elements.shorten(wording.visible(layout.said(first)), 160),
        "prediction": None
        if several
        else first.prediction
        and {"token": wording.shown_token(first.prediction[0]), "share": f"{first.prediction[1]:.1%}"},
        "target": wording.visible(first.target_label),
        "subject": wording.subject_word(first),
        "verified": {"all": wording.verified(*results), "line": wording.verified_line(*results)},
        "scale": range(0, colour.LEVELS + 1, 2),
        "names": _names(results),
        "methods": _columns(results),
        "unit": wording.unit_word(first),
        "highest_word": wording.highest_word(first),
        "no_flows": [wording.method_name(result) for result in results if not result.is_flow],
        "any_flow": any(result.is_flow for result in results),
        "signed": any(result.is_signed for result in results),
        "sink": None if several else _sink([wording.each_sink(result)[0] for result in results]),
        "overview": [_overview(result) for result in results] if several else [],
        "steps": _steps(results) if several else [],
        "word": wording.steps_word(first).removesuffix("s"),
        "n_steps": len(first.targets),
        "definitions": _definitions(results),
        "options": _options(results),
    }
    return _templates().get_template("result.html.j2").render(context)


@cache
def _templates() -> jinja2.Environment:
    folder = files(__package__).joinpath("templates")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html.j2", "result.html.j2")}
    return jinja2.Environment(loader=jinja2.DictLoader(sources), autoescape=True, undefined=jinja2.StrictUndefined)


@cache
def _style(signed: bool) -> str:
    """The style sheet with the scale of colours, twice: for light pages and for dark ones; below zero if `signed`."""
    css = [files(__package__).joinpath("templates", "style.css").read_text(encoding="utf-8")]

    def scale(above: tuple[str, ...], below: tuple[str, ...]) -> str:
        steps = list(enumerate(colour.shades(above)))
        if signed:
            steps += [(-i, shade) for i, shade in enumerate(colour.shades(below)) if i > 0]
        # A cell of an SVG picture is filled; everything else has a background.
        return "\n".join(
            f".attnflow .{colour.kind(i)} {{ background: {s.background}; color: {s.ink}; fill: {s.background} }}"
            for i, s in steps
        )

    css.append(scale(colour.LIGHT, colour.BELOW_LIGHT))
    css.append("@media (prefers-color-scheme: dark) {\n" + scale(colour.DARK, colour.BELOW_DARK) + "\n}")
    drawing = elements.STYLE
    for name in ("INK", "DIM", "LINE", "FLOW", "BELOW", "ACCENT"):
        drawing = drawing.replace(name, f"var(--{name.lower()})")
    css.append(drawing.replace(".af ", ".attnflow .af "))
    return "\n".join(css)


def _names(results: Sequence[Attribution]) -> list[str]:
    return [wording.method_name(result) for result in results]


def _columns(results: Sequence[Attribution]) -> list[dict[str, Any]]:
    """What the table has of each method: scores, their bounds where any flow's are apart, bottlenecks of flows."""
    apart = [bool((result.lower < result.upper).any()) for result in results]
    of_flows = any(wide for result, wide in zip(results, apart, strict=True) if result.is_flow)
    return [
        {
            "name": wording.method_name(result),
            "flow": result.is_flow,
            "bounds": (bounds := of_flows if result.is_flow else wide),
            "width": 1 + result.is_flow + bounds,
        }
        for result, wide in zip(results, apart, strict=True)
    ]


def _sink(results: Sequence[Attribution]) -> dict[str, Any]:
    """All about one sink: heatmaps, chart, flows and the table of every score."""
    rows = _rows(results)
    top = None
    if len(rows) > _MOST_ROWS or results[0].grid is not None:
        top = _highest(results[0], rows, _TOP_ROWS)
    return {
        "label": wording.visible(results[0].target_label),
        "methods": [_method(result) for result in results],
        "chart": Markup(svg.chart(*results)) if svg.has_chart(results[0]) else "",
        # Of the first alone: what the others are compared by is their scores.
        "flows": [Markup(svg.flow(results[0], pair)) for pair in layout.drawn_flows(results[0])],
        "rows": rows,
        "top": top,
    }


def _overview(result: Attribution) -> dict[str, Any]:
    """Several sinks at once: the matrix, the cells of a grid, and what the rankings are worth."""
    has_cells = any(part.cells for part in layout.parts(result))
    return {
        "name": wording.method_name(result),
        "note": wording.method_note(result),
        "highest": f"{layout.largest(result):.4g}",
        "signed": result.is_signed,
        "tiles": [Markup(tile) for tile in svg.cells_of_grid(result)] if has_cells else [],
        "more_tiles": grid.left_out(result) if has_cells and layout.is_image(result) else "",
        "matrix": Markup(svg.steps(result)),
        **_worth(result),
    }


def _steps(results: Sequence[Attribution]) -> list[dict[str, Any]]:
    """The sinks one by one, as many as a page can bear: the text as each sees it, and its highest scores."""
    room = _MOST_TOKENS // (len(results[0].tokens) * len(results))
    most = max(8, min(_MOST_STEPS, room))
    shown = []
    by_sink = zip(*(wording.each_sink(result) for result in results), strict=True)
    for step, (first, *others) in zip(layout.steps(results[0])[:most], by_sink, strict=False):
        rows = _rows([first, *others])
        best = [row for row in first.top(3) if row.score != 0]
        shown.append(
            {
                "step": step,
                "best": [_token(first, row.position, 40) + " (−)" * (row.score < 0) for row in best],
                "methods": [_method(result, seen=True) for result in (first, *others)],
                "flows": [Markup(svg.flow(first, pair)) for pair in layout.drawn_flows(first)],
                "rows": _highest(first, rows, _TOP_OF_STEP),
                "all": len(rows),
            }
        )
    return shown


def _token(result: Attribution, position: int, most: int) -> str:
    """A name in a table; of a sentence its beginning."""
    name = wording.label(result, position)
    return name if result.members is None else elements.shorten(name, most)


def _rows(results: Sequence[Attribution]) -> list[dict[str, Any]]:
    """One row a player, in the order of the text."""
    tables = [result.rows() for result in results]
    part_of = layout.part_of(results[0])
    rows = []
    before = ""
    for i, row in enumerate(tables[0]):
        cells = []
        for result, table in zip(results, tables, strict=True):
            highest = layout.largest(result)
            mine = table[i]
            cells.append(
                {
                    "percent": _percent(abs(mine.score) / highest / (1 + result.is_signed) if highest > 0 else 0.0),
                    "side": "" if not result.is_signed else "below" if mine.score < 0 else "above",
                    "score": wording.score(mine.score, wording.decimals(highest)),
                    "interval": wording.uncertainty(mine.score, mine.lower, mine.upper).removeprefix("±"),
                    "bottleneck": wording.visible(mine.bottleneck),
                    "inner": mine.bottleneck not in ("source", "sink", "none"),
                }
            )
        name, heading = part_of.get(row.position, ("", ""))
        rows.append(
            {
                "position": row.position,
                "token": _token(results[0], row.position, 100),
                "blank": row.token.startswith(" ") and bool(row.token.strip(" ")),
                "cells": cells,
                "heading": heading if heading != before else "",
                "part": name,
            }
        )
        before = heading
    return rows


def _highest(result: Attribution, rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The rows of the highest scores, or strongest, in this order; each says itself what part it is of."""
    scores = [row.score for row in result.rows()]
    return [rows[i] | {"heading": ""} for i in sorted(range(len(rows)), key=lambda i: -abs(scores[i]))[:most]]


def _method(result: Attribution, *, seen: bool = False) -> dict[str, Any]:
    """One way of computing: its heatmap, part by part, and what its ranking is worth; `seen`: up to the sink only."""
    return {
        "name": wording.method_name(result),
        "note": wording.method_note(result),
        "highest": f"{layout.largest(result):.4g}",
        "signed": result.is_signed,
        "parts": [
            {
                "heading": part.heading,
                "grid": Markup("".join(svg.cells_of_grid(result))) if part.cells else "",
                "pieces": [] if part.cells else _pieces(result, layout.until(result, part) if seen else part.positions),
            }
            for part in layout.parts(result)
        ],
        **_worth(result),
    }


def _pieces(result: Attribution, positions: range) -> list[dict[str, Any]]:
    highest = layout.largest(result)
    scores = {row.position: (player, row) for player, row in enumerate(result.rows())}
    pieces = []
    for piece in wording.pieces(result, positions):
        shown: dict[str, Any] = {
            "text": piece.text,
            "step": None,
            "kind": "gap",
            "title": "",
            "ends_line": piece.ends_line,
        }
        if piece.position is not None:
            found = scores.get(piece.position)
            about = f"position {piece.position}: {wording.label(result, piece.position)}\n"
            if found is None:
                shown |= {"kind": "out", "title": about + "not a player"}
            else:
                player, row = found
                about += f"score {wording.figure(row.score)}{wording.limit_line(result, player)}"
                shown |= {"step": colour.kind(colour.level(row.score, highest)), "title": about}
        pieces.append(shown)
    return pieces


def _worth(result: Attribution) -> dict[str, Any]:
    """What a ranking is worth, and what it cost."""
    rho, trivial = result.position_correlation, result.trivial_fraction
    return {
        "position": {"percent": _percent(rho * rho), "words": wording.position_share(result)},
        "trivial": {
            "percent": _percent(trivial),
            "words": "none" if math.isnan(trivial) else f"{trivial:.0%} of the {wording.limited_word(result)}",
        },
        "flow": result.is_flow,
        "interval": wording.widest(result),
        "network": wording.network_size(result),
        "stages": ", ".join(f"{wording.visible(s)} {wording.seconds(t)}" for s, t in result.timings.items()),
        "time": wording.seconds(wording.total_time(result)) if result.timings else "",
        "caveats": wording.caveats(result),
        "severe": abs(rho) >= 0.9,
    }


def _percent(share: float) -> str:
    """A share as a CSS percentage; what is more than nothing stays visible."""
    return "0" if math.isnan(share) or share <= 0 else f"{max(0.5, 100 * share):.1f}"


def _definitions(results: Sequence[Attribution]) -> list[dict[str, str]]:
    by_text: dict[str, list[str]] = {}
    for result in results:
        by_text.setdefault(result.definition, []).append(wording.method_name(result))
    return [
        {"names": ", ".join(dict.fromkeys(names)) + ":", "text": wording.visible(text)}
        for text, names in by_text.items()
    ]


def _options(results: Sequence[Attribution]) -> list[dict[str, Any]]:
    """One row an option, and one a stage of the computation; what differs between the methods is marked."""
    names = dict.fromkeys(name for result in results for name in result.options)
    rows = [(name, [_value(result.options.get(name, "–")) for result in results]) for name in names]
    stages = dict.fromkeys(stage for result in results for stage in result.timings)
    for stage in stages:
        times = [wording.seconds(result.timings[stage]) if stage in result.timings else "–" for result in results]
        rows.append((f"time: {stage}", times))
    return [
        {
            "name": wording.visible(name),
            "cells": values,
            "differs": len(set(values)) > 1 and not name.startswith("time: "),
        }
        for name, values in rows
    ]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return wording.visible(value if isinstance(value, str) else json.dumps(value))
