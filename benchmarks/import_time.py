"""How long `import attnflow` takes in a fresh interpreter, beside numpy alone: to be under 0.2 s."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence

from arguments import at_least_one

LIMIT = 0.2
MEASURE = "from time import perf_counter as t; s = t(); import {module}; print(t() - s)"
MEASURE_ALL = (
    "from time import perf_counter as t; s = t(); import attnflow; attnflow.maxflow, attnflow.Network; print(t() - s)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; fail if the best run breaks the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=15, help="default 15")
    runs = parser.parse_args(arguments).runs
    best = {}
    for label, code in {
        "numpy": MEASURE.format(module="numpy"),
        "attnflow": MEASURE.format(module="attnflow"),
        "attnflow with the kernel": MEASURE_ALL,
    }.items():
        times = sorted(import_seconds(code) for _ in range(runs))
        best[label] = times[0]
        print(f"{label:26} best {times[0]:.3f} s, median {statistics.median(times):.3f} s of {runs} runs")
    return int(best["attnflow with the kernel"] > LIMIT)


def import_seconds(code: str) -> float:
    """Run `code`, which prints seconds, in a new interpreter."""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
