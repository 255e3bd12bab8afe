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

from ..errors import MissingDependencyError
from . import colour, elements, svg, wording

try:
    import jinja2
    from markupsafe import Markup
except ImportError as error:
    raise MissingDependencyError("the HTML view needs jinja2: pip install 'attnflow[views]'") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..attribution import Attribution

__all__ = ["fragment", "page"]

_MOST_SINKS = 12
_MOST_ROWS = 60  # beyond these the highest come first, and the whole table is folded away
_TOP_ROWS = 24


def page(*results: Attribution) -> str:
    """A whole page about one result, or about several of the same tokens side by side."""
    first = results[0]
    said = wording.visible(first.prediction[0]).strip() if first.prediction else wording.visible(first.target_label)
    title = f"{said} · attention flow"
    return _templates().get_template("page.html.j2").render(title=title, fragment=Markup(fragment(*results)))


def fragment(*results: Attribution) -> str:
    """The same without the page around it, for a notebook: every rule of its style is confined to its own element."""
    wording.require_same_tokens(results)
    first = results[0]
    by_sink = list(zip(*(wording.each_sink(result) for result in results), strict=True))
    context = {
        "style": Markup(_style()),
        "model": wording.visible(str(first.options.get("model", ""))),
        "prediction": first.prediction
        and {"token": wording.visible(first.prediction[0]).strip() or "␣", "share": f"{first.prediction[1]:.1%}"},
        "target": wording.visible(first.target_label),
        "verified": {"all": all(result.verified for result in results), "line": wording.verified_line(*results)},
        "scale": range(0, colour.LEVELS + 1, 2),
        "names": _names(results),
        "sinks": [_sink(shown) for shown in by_sink[:_MOST_SINKS]],
        "more_sinks": max(0, len(by_sink) - _MOST_SINKS),
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
def _style() -> str:
    """The style sheet with the scale of colours, twice: for light pages and for dark ones."""
    css = [files(__package__).joinpath("templates", "style.css").read_text(encoding="utf-8")]

    def scale(stops: tuple[str, ...]) -> str:
        steps = enumerate(colour.shades(stops))
        return "\n".join(f".attnflow .h{i} {{ background: {s.background}; color: {s.ink} }}" for i, s in steps)

    css.append(scale(colour.LIGHT))
    css.append("@media (prefers-color-scheme: dark) {\n" + scale(colour.DARK) + "\n}")
    drawing = elements.STYLE
    for name in ("INK", "DIM", "LINE", "FLOW", "ACCENT"):
        drawing = drawing.replace(name, f"var(--{name.lower()})")
    css.append(drawing.replace(".af ", ".attnflow .af "))
    return "\n".join(css)


def _names(results: Sequence[Attribution]) -> list[str]:
    return [wording.method_name(result) for result in results]


def _sink(results: Sequence[Attribution]) -> dict[str, Any]:
    tables = [result.rows() for result in results]
    rows = []
    exact = True
    for i, row in enumerate(tables[0]):
        cells = []
        for result, table in zip(results, tables, strict=True):
            highest = float(result.values.max())
            mine = table[i]
            exact = exact and mine.lower == mine.score == mine.upper
            cells.append(
                {
                    "percent": _percent(mine.score / highest if highest > 0 else 0.0),
                    "score": wording.score(mine.score, wording.decimals(highest)),
                    "interval": wording.uncertainty(mine.score, mine.lower, mine.upper).removeprefix("±"),
                    "bottleneck": mine.bottleneck,
                    "inner": mine.bottleneck not in ("source", "sink", "none"),
                }
            )
        token = wording.visible(row.token)
        rows.append(
            {"position": row.position, "token": token.removeprefix(" "), "blank": token.startswith(" "), "cells": cells}
        )
    top = None
    if len(rows) > _MOST_ROWS:
        order = sorted(range(len(rows)), key=lambda i: -tables[0][i].score)
        top = [rows[i] for i in order[:_TOP_ROWS]]
    return {
        "label": wording.visible(results[0].target_label),
        "names": _names(results),
        "methods": [_method(result) for result in results],
        "chart": Markup(svg.chart(*results)),
        # Of the first alone: what the others are compared by is their scores.
        "flows": [Markup(svg.flow(results[0], pair)) for pair in results[0].flows or ()],
        "exact": exact,
        "rows": rows,
        "top": top,
    }


def _method(result: Attribution) -> dict[str, Any]:
    highest = float(result.values.max())
    scores = {row.position: row for row in result.rows()}
    pieces = []
    for piece in wording.pieces(result):
        shown: dict[str, Any] = {
            "text": piece.text,
            "step": None,
            "kind": "gap",
            "title": "",
            "ends_line": piece.ends_line,
        }
        if piece.position is not None:
            row = scores.get(piece.position)
            about = f"position {piece.position}: {wording.visible(result.tokens[piece.position])}\n"
            if row is None:
                shown |= {"kind": "out", "title": about + "not a player"}
            else:
                about += f"score {row.score:.4g}\n{wording.bottleneck_words(row.bottleneck)}"
                shown |= {"step": colour.level(row.score, highest), "title": about}
        pieces.append(shown)
    rho, trivial = result.position_correlation, result.trivial_fraction
    return {
        "name": wording.method_name(result),
        "note": wording.method_note(result),
        "highest": f"{highest:.4g}",
        "pieces": pieces,
        "position": {"percent": _percent(rho * rho), "words": wording.position_share(result)},
        "trivial": {
            "percent": _percent(trivial),
            "words": "none" if math.isnan(trivial) else f"{trivial:.0%} of the scores",
        },
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
