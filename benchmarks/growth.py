"""How the time and the memory of one call grow with the text and with the layers.

    python benchmarks/growth.py               # results/growth.json and docs/images/growth.svg
    python benchmarks/growth.py --longest 512 --deepest 12 --budget 5     # a quick look, which writes nothing

Other options than the defaults write only what --output and --chart name.

One call solves all sources to the last position, on one thread, in a process of its own (see fresh.py). Four series:
made-up causal attention of 12 layers, peaked as trained models' is and without structure, n = 64 ... 4096; SmolLM2's
own, 30 layers, as far as the text reaches; and 2 ... 80 layers of the kind without structure on 256 positions. A series
ends where a point takes longer than `--budget` seconds: it is given up, the larger ones are left out, and the result
says so.

The exponent is the slope of the least-squares line through the upper half of the points, three at least, both axes
logarithmic: what is asked is how it goes on, not how small networks begin. A series whose points there lie further than
a factor of 1.5 from that line has no exponent; it is called irregular.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fresh
from arguments import at_least_one, is_whole, seconds
from attnflow import bench, instances
from attnflow.bench.chart import INK, OURS, style
from environment import RESULTS, ROOT

LAYERS, POSITIONS = 12, 256
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTHS = (2, 5, 10, 20, 40, 80)
LONGEST_TEXT = 1024  # of SmolLM2's tokens in the benchmarks' text
SEED = 1

FEWEST_POINTS = 3  # for an exponent
FARTHEST = 1.5  # how many times as much as on the line, or as little, a point of a regular series costs

COLOURS = (OURS, "#4593d8", INK, "#3fa45b")  # 3 : 1 and more on white and on a dark page

CHART = ROOT / "docs" / "images" / "growth.svg"

Floats = NDArray[np.float32]


class Series(NamedTuple):
    """Networks that differ in one number only."""

    name: str
    variable: str
    """n, the positions, or L, the layers."""
    steps: Sequence[int]
    make: Callable[[int], Floats]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; write and draw if it is whole or asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=seconds, default=120.0, help="seconds after which a series ends (default 120)")
    parser.add_argument("--longest", type=at_least_one, default=LENGTHS[-1], help="most positions (default 4096)")
    parser.add_argument("--deepest", type=at_least_one, default=DEPTHS[-1], help="most layers (default 80)")
    parser.add_argument("--output", type=Path, help="default: results/growth.json, of a run without other options")
    parser.add_argument("--chart", type=Path, help="default: docs/images/growth.svg, of a run without other options")
    options = parser.parse_args(arguments)
    for name, largest, steps in (("longest", options.longest, LENGTHS), ("deepest", options.deepest, DEPTHS)):
        if largest < steps[0]:
            parser.error(f"--{name} is {largest}; the smallest network has {steps[0]}")
    report = {**bench.record(), "budget_seconds": options.budget, "threads": 1, "series": []}
    for series in all_series(options.longest, options.deepest):
        print(f"{series.name}\n{series.variable:>8} {'seconds':>10} {'MB':>9}", flush=True)
        report["series"].append(follow(series, options.budget))
        print(report["series"][-1]["summary"], end="\n\n", flush=True)
    if not any(series["points"] for series in report["series"]):
        parser.error(f"--budget is {options.budget:g}: not one network was solved in so many seconds")
    output, chart = (RESULTS / "growth.json", CHART) if is_whole(parser, options) else (options.output, options.chart)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{output} written", file=sys.stderr)
    if chart is not None:
        draw(report, chart)
        print(f"{chart} written", file=sys.stderr)
    return 0


def all_series(longest: int, deepest: int) -> Iterator[Series]:
    """All of them, as far as they are asked for; SmolLM2's only where its attention can be had."""
    lengths = [n for n in LENGTHS if n <= longest]
    yield Series(f"peaked, {LAYERS} layers", "n", lengths, lambda n: instances.peaked(LAYERS, n, seed=SEED))
    yield Series(f"softmax, {LAYERS} layers", "n", lengths, lambda n: softmax(LAYERS, n))
    missing = next(case.missing for case in bench.CASES if case.model == "SmolLM2" and case.n == LONGEST_TEXT)
    if missing is None:
        text = [n for n in lengths if n <= LONGEST_TEXT]
        yield Series("SmolLM2, 30 layers", "n", text, beginning_of_text)
    else:
        print(f"without SmolLM2: {missing}", file=sys.stderr)
    depths = [depth for depth in DEPTHS if depth <= deepest]
    yield Series(f"softmax, {POSITIONS} positions", "L", depths, lambda depth: softmax(depth, POSITIONS))


def softmax(n_layers: int, n: int) -> Floats:
    """Causal attention without structure."""
    return instances.softmax(n_layers, n, seed=SEED, causal=True)


def beginning_of_text(n: int) -> Floats:
    """Plain capacities of the first `n` tokens: causal attention on them is as if the text ended there."""
    attention = bench.attention("SmolLM2", LONGEST_TEXT)[:, :n, :n]
    mixed: Floats = np.float32(0.5) * attention + np.float32(0.5) * np.eye(n, dtype=np.float32)
    return mixed


def follow(series: Series, budget: float) -> dict[str, Any]:
    """Measure step after step until one takes too long; what is left out is said."""
    points: list[dict[str, Any]] = []
    for step in series.steps:
        capacities = series.make(step)
        try:
            cost = fresh.call(capacities, capacities.shape[1] - 1, limit=budget)
        except TimeoutError:
            break
        point = {"seconds": cost.seconds, "solve_bytes": cost.n_bytes, "array_bytes": capacities.nbytes}
        points.append({series.variable: step, **point})
        print(f"{step:8} {cost.seconds:10.4g} {1e-6 * cost.n_bytes:9.4g}", flush=True)
    skipped = list(series.steps[len(points) :])
    measured = [point[series.variable] for point in points]
    exponents = {what: exponent(measured, [point[what] for point in points]) for what in ("seconds", "solve_bytes")}
    time, memory = (in_words(series.variable, len(points), slope) for slope in exponents.values())
    summary = f"time {time}, memory {memory}"
    if skipped:
        others = f"; larger ones left out: {', '.join(map(str, skipped[1:]))}" if skipped[1:] else ""
        summary += f"; {series.variable} = {skipped[0]} took longer than {budget:g} s{others}"
    return {
        "name": series.name,
        "variable": series.variable,
        "points": points,
        "exponents": exponents,
        "skipped": skipped,
        "summary": summary,
    }


def exponent(steps: Iterable[float], costs: Iterable[float]) -> float | None:
    """Slope of the line through the upper half of the points, as the head of this file has it; None if irregular."""
    points = [(step, cost) for step, cost in zip(steps, costs, strict=True) if cost > 0]  # less memory than is noticed
    if len(points) < FEWEST_POINTS:
        return None
    x, y = np.log(np.array(points)).T
    upper = slice(-max(FEWEST_POINTS, (len(x) + 1) // 2), None)
    line = np.polyfit(x[upper], y[upper], 1)
    off = float(np.abs(y[upper] - np.polyval(line, x[upper])).max())
    return float(line[0]) if off <= np.log(FARTHEST) else None


def in_words(variable: str, n_points: int, slope: float | None) -> str:
    """What is said of a series."""
    if n_points < FEWEST_POINTS:
        return "of too few points"
    return "irregular" if slope is None else f"~ {variable}^{slope:z.1f}"


def draw(report: dict[str, Any], chart: Path) -> None:
    """Time and memory, a panel each, both axes logarithmic; the exponent stands beside its line."""
    with style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, NullLocator

        figure = Figure(figsize=(9, 4.2), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, what, unit, title in zip(
            panels, ("seconds", "solve_bytes"), (1, 1e-6), ("seconds", "megabytes beside the array"), strict=True
        ):
            for series, colour, marker in zip(report["series"], COLOURS, "os^D", strict=False):
                steps = [point[series["variable"]] for point in series["points"]]
                costs = [unit * point[what] for point in series["points"]]
                label = f"{series['name']}: {in_words(series['variable'], len(steps), series['exponents'][what])}"
                noticed = [cost if cost > 0 else None for cost in costs]  # a logarithm has no place for the others
                axes.plot(steps, noticed, color=colour, marker=marker, markersize=4, label=label)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(NullLocator())
            axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
            axes.set_xlabel("positions n, or layers L")
            axes.tick_params(length=0)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(INK)
            axes.legend(frameon=False, fontsize=9, loc="upper left")
            low, high = axes.get_ylim()
            axes.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
        figure.supxlabel(
            f"{bench.describe(report)}\none thread, all sources, one sink; exponents of the upper half of the points",
            fontsize=8,
            color=INK,
        )
        chart.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None, "Title": "time and memory of one call of attnflow"}
        figure.savefig(chart, format="svg", transparent=True, metadata=metadata)


if __name__ == "__main__":
    sys.exit(main())
