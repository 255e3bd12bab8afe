"""The chart of README's first screen, drawn from a file that compare_peers.py wrote.

python benchmarks/plot_peers.py                       # the newest result -> docs/images/peers.svg
python benchmarks/plot_peers.py RESULT.json OUT.svg
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from environment import ROOT

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

RESULTS = ROOT / "benchmarks" / "results"
CHART = ROOT / "docs" / "images" / "peers.svg"

# The longest text: the published method's networks, and a calibrated one, as `attnflow.explain` makes by default.
PANELS = {
    "SmolLM2 n=512 plain sink=511": "SmolLM2-135M, 512 tokens, last position",
    "MiniLM n=512 plain sink=0": "MiniLM, 512 tokens, class token",
    "SmolLM2 n=512 excess sink=511": "SmolLM2-135M, 512 tokens, last position, calibrated",
}
# Both greys keep a contrast of 4 : 1 or more on white and on a dark page; the ground is transparent.
INK = "#768390"
PEER = "#8c959f"
OURS = "#d9730d"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, nargs="?", help="default: the newest in benchmarks/results")
    parser.add_argument("chart", type=Path, nargs="?", default=CHART)
    options = parser.parse_args(arguments)
    result = options.result or max(RESULTS.glob("peers-*.json"), default=None)
    if result is None:
        parser.error(f"no peers-*.json in {RESULTS}: run benchmarks/compare_peers.py first")
    draw(json.loads(result.read_text()), options.chart)
    print(f"{options.chart} drawn from {result}")
    return 0


def draw(report: dict[str, Any], chart: Path) -> None:
    """One panel a case; the bars are milliseconds a source on one common logarithmic axis."""
    cases = {case["case"]: case for case in report["cases"]}
    panels = [(cases[name], title) for name, title in PANELS.items() if name in cases]
    if not panels:
        raise SystemExit(f"the result holds none of {', '.join(PANELS)}")
    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "attnflow",
            "font.size": 11,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    counts = [len(case["results"]) for case, _ in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, 0.27 * sum(counts) + 0.5 * len(panels) + 0.6),
        sharex=True,
        squeeze=False,
        height_ratios=counts,
        layout="constrained",
    )
    for (case, title), panel in zip(panels, axes[:, 0], strict=True):
        _draw_panel(panel, case, title)
    paces = [row["milliseconds_per_source"] for case, _ in panels for row in case["results"]]
    axes[-1, 0].set_xlim(min(paces) / 2, max(paces) * 12)
    axes[-1, 0].set_xlabel("milliseconds for one source, one thread (logarithmic; shorter is better)")
    chart.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(chart, transparent=True, metadata={"Date": None, "Title": "attnflow beside other libraries"})
    plt.close(figure)


def _draw_panel(axes: Axes, case: dict[str, Any], title: str) -> None:
    rows = sorted(case["results"], key=lambda row: float(row["milliseconds_per_source"]), reverse=True)
    ours = min(row["milliseconds_per_source"] for row in rows if row["distribution"] == "attnflow")
    for height, row in enumerate(rows):
        pace = row["milliseconds_per_source"]
        mine = row["distribution"] == "attnflow"
        axes.barh(height, pace, height=0.74, color=OURS if mine else PEER)
        label = f"{pace:.3g} ms" if mine else f"{pace:.3g} ms, {pace / ours:.0f} times as long"
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
    axes.set_title(f"{title}: {case['edges'] / 1e6:.2g} million edges", loc="left", fontsize=11, fontweight="bold")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)


if __name__ == "__main__":
    sys.exit(main())
