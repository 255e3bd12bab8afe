"""How the time and the memory of one call grow with the text and with the layers.

    python benchmarks/growth.py               # results/growth.json and docs/images/growth.svg
    python benchmarks/growth.py --longest 512 --deepest 12 --budget 5     # a quick look

One call solves all sources to the last position, on one thread, in a process of its own (see fresh.py). Four series:
made-up causal attention of 12 layers, peaked as trained models' is and without structure, n = 64 ... 4096; SmolLM2's
own, 30 layers, as far as the text reaches; and 2 ... 80 layers of the kind without structure on 256 positions. A series
ends where a point takes longer than `--budget` seconds: it is given up, the larger ones are left out, and the result
says so. The exponent is the slope of the least-squares line through the points, both axes logarithmic.
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
from attnflow import bench, instances
from attnflow.bench.chart import INK, OURS, style
from environment import RESULTS, ROOT

LAYERS, POSITIONS = 12, 256
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTHS = (2, 5, 10, 20, 40, 80)
LONGEST_TEXT = 1024  # of SmolLM2's tokens in the benchmarks' text
SEED = 1

COLOURS = (OURS, "#4593d8", INK, "#3fa45b")  # 3 : 1 and more on white and on a dark page

Floats = NDArray[np.float32]


class Series(NamedTuple):
    """Networks that differ in one number only."""

    name: str
    variable: str
    """n, the positions, or L, the layers."""
    steps: Sequence[int]
    make: Callable[[int], Floats]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds after which a series ends (default 60)")
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="most positions (default 4096)")
    parser.add_argument("--deepest", type=int, default=DEPTHS[-1], help="most layers (default 80)")
    parser.add_argument("--output", type=Path, default=RESULTS / "growth.json")
    parser.add_argument("--chart", type=Path, default=ROOT / "docs" / "images" / "growth.svg")
    options = parser.parse_args(arguments)
    report = {**bench.record(), "budget_seconds": options.budget, "threads": 1, "series": []}
    for series in all_series(options.longest, options.deepest):
        print(f"{series.name}\n{series.variable:>8} {'seconds':>10} {'MB':>9}", flush=True)
        report["series"].append(follow(series, options.budget))
        print(report["series"][-1]["summary"], end="\n\n", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    draw(report, options.chart)
    print(f"{options.output} and {options.chart} written", file=sys.stderr)
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
    time, memory = exponents.values()
    summary = "too few points for an exponent"
    if time is not None:
        summary = f"time ~ {series.variable}^{time:.2f}, memory ~ {series.variable}^{memory:.2f}"
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
    """Slope of the least-squares line through the logarithms; None where there are not two points for one."""
    x, y = np.log(list(steps)), np.log(list(costs))
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else None


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
                slope = series["exponents"][what]
                growth = "" if slope is None else f": ~ {series['variable']}^{slope:.1f}"
                axes.plot(steps, costs, color=colour, marker=marker, markersize=4, label=f"{series['name']}{growth}")
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
        figure.supxlabel(f"{bench.describe(report)}; one thread, all sources, one sink", fontsize=8, color=INK)
        chart.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None, "Title": "time and memory of one call of attnflow"}
        figure.savefig(chart, format="svg", transparent=True, metadata=metadata)


if __name__ == "__main__":
    sys.exit(main())
