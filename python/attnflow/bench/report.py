"""Results as a table for people, and as a report for files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .environment import describe, record

__all__ = ["make", "table"]


def make(results: Sequence[dict[str, Any]], settings: dict[str, Any], *, complete: bool = True) -> dict[str, Any]:
    """What a JSON file of results holds: the settings, what it was measured on and with, and every case.

    Parameters
    ----------
    results : sequence of dict
        As :func:`attnflow.bench.compare` returns them.
    settings : dict
        Whatever the measurement was asked for.
    complete : bool
        False where it was interrupted.

    Examples
    --------
    >>> from attnflow import bench
    >>> bench.make_report([], {"repeats": 3})["settings"]
    {'repeats': 3}
    """
    distributions = dict.fromkeys(row["distribution"] for case in results for row in case["results"])
    distributions.pop("attnflow", None)
    return {**record(distributions), "settings": settings, "complete": complete, "cases": list(results)}


def table(report: dict[str, Any]) -> str:
    """Milliseconds a source by case and library, in Markdown that lines up in a terminal too.

    Examples
    --------
    >>> from attnflow import bench
    >>> report = bench.make_report([], {})
    >>> print(bench.table(report).splitlines()[0])
    | case | edges | passes | ratio |
    """
    cases = report["cases"]
    names = {row["name"]: _short(row) for case in cases for row in case["results"]}
    cells = [["case", "edges", *names.values(), "passes", "ratio"]]
    for case in cases:
        rows = {row["name"]: row for row in case["results"]}
        ratio = case["times_faster_than_fastest_peer"]
        cells.append(
            [
                case["case"],
                f"{case['edges']:,}",
                *(
                    f"{_figure(rows[name]['milliseconds_per_source'])} ({rows[name]['sources']})"
                    if name in rows
                    else "-"
                    for name in names
                ),
                f"{case['passes_per_source']:.2g}",
                "-" if ratio is None else f"{_figure(ratio)} x",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    rules = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines.insert(1, "|" + "|".join(rules) + "|")
    return "\n".join(
        [
            *lines,
            "",
            "Milliseconds a source, one thread; in brackets how many sources were solved; a dash: too large a network.",
            "passes: attnflow's time for a source, in readings of all capacities. ratio: the best peer's time over it.",
            describe(report),
        ]
    )


def _figure(number: float) -> str:
    """Three digits that count, and no powers of ten."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:.3g}"


def _short(row: dict[str, Any]) -> str:
    """The library of a peer, without what of it runs; attnflow with its algorithm."""
    name = str(row["name"])
    return name if row["distribution"] == "attnflow" else name.split()[0]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"
