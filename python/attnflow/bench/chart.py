"""The chart of README's first screen, drawn from a report: milliseconds a source, a bar for each library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError, MissingDependencyError
from .environment import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "OURS", "PANELS", "PEER", "draw", "style"]

PANELS = {
    "SmolLM2 n=512 plain sink=511": "SmolLM2-135M, 512 tokens, last position",
    "MiniLM n=512 plain sink=0": "MiniLM, 512 tokens, class token",
    "SmolLM2 n=512 excess sink=511": "SmolLM2-135M, 512 tokens, last position, calibrated",
}
"""README's panels, by the name of their case, with their titles: the published method's networks on 512 tokens, and a
calibrated one. Of attention; ``attnflow.explain`` calibrates too, but reads ALTI contributions by default."""

# Both greys keep a contrast of 4 : 1 or more on white and on a dark page; the ground is transparent.
INK = "#768390"
"""Text and axes."""
PEER = "#8c959f"
"""What belongs to other libraries."""
OURS = "#d9730d"
"""What belongs to attnflow."""


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings of every chart here: text stays text, and the same figures give the same file.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependencyError(f"a chart needs matplotlib: pip install 'attnflow[bench]' ({error})") from error
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "attnflow", "font.size": 11}
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context(settings):
        yield


def draw(report: dict[str, Any], chart: Path) -> None:
    """One panel a case, on one common logarithmic axis; below them the machine and the commit.

    Parameters
    ----------
    report : dict
        As :func:`attnflow.bench.make_report` makes it. Of its cases those of README's chart are drawn, or where it has
        none of them the three with the most edges.
    chart : Path
        The SVG file.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    InvalidArgumentError
        The report holds no case.

    Examples
    --------
    >>> from pathlib import Path
    >>> from attnflow import bench
    >>> bench.draw(bench.make_report([], {}), Path("peers.svg"))
    Traceback (most recent call last):
    ...
    attnflow.errors.InvalidArgumentError: the report holds 0 cases; a chart needs one at least
    """
    if not report["cases"]:
        raise InvalidArgumentError("the report holds 0 cases; a chart needs one at least")
    cases = {case["case"]: case for case in report["cases"]}
    panels = [(cases[name], title) for name, title in PANELS.items() if name in cases]
    if not panels:
        largest = sorted(report["cases"], key=lambda case: -int(case["edges"]))[:3]
        panels = [(case, case["case"]) for case in largest]
    counts = [len(case["results"]) for case, _ in panels]
    paces = [row["milliseconds_per_source"] for case, _ in panels for row in case["results"]]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 0.27 * sum(counts) + 0.5 * len(panels) + 0.8), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=counts)
        for (case, title), panel in zip(panels, axes[:, 0], strict=True):
            _draw_panel(panel, case, title)
        axes[-1, 0].set_xlim(min(paces) / 2, max(paces) * 12)
        axes[-1, 0].set_xlabel("milliseconds for one source, one thread (logarithmic; shorter is better)")
        figure.supxlabel(describe(report), fontsize=8, color=INK)
        title = "attnflow beside other libraries"
        figure.savefig(chart, format="svg", transparent=True, metadata={"Date": None, "Title": title})


def _draw_panel(axes: Axes, case: dict[str, Any], title: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    # The one the table compares.
    ours = next(row["milliseconds_per_source"] for row in case["results"] if row["distribution"] == "attnflow")
    rows = sorted(case["results"], key=lambda row: float(row["milliseconds_per_source"]), reverse=True)
    for height, row in enumerate(rows):
        pace = row["milliseconds_per_source"]
        mine = row["distribution"] == "attnflow"
        axes.barh(height, pace, height=0.74, color=OURS if mine else PEER)
        time = f"{pace:,.0f} ms" if pace >= 100 else f"{pace:.3g} ms"
        label = time if mine else f"{time}, {_times(pace / ours)} times as long"
        axes.annotate(
            label,
            (pace, height),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=OURS if mine else INK,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_title(f"{title}: {_count(case['edges'])} edges", loc="left", fontsize=11, fontweight="bold")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)


def _times(ratio: float) -> str:
    """Two significant digits at least: a library may be the faster one."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2g}"


def _count(number: int) -> str:
    return f"{number / 1e6:.2g} million" if number >= 1_000_000 else f"{number:,}"
