"""What a second thread brings, and how long everything against everything takes.

    python benchmarks/threads.py        # two tables, and benchmarks/results/threads.json

Two threads are to be 1.8 times as fast as one on 512 tokens, with results equal to the last bit. Then all sources x all
sinks of 256 tokens, on two threads, in one call. Other --repeats than the default print only, unless --output is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arguments import at_least_one, is_whole
from attnflow import bench, maxflow
from environment import RESULTS

GOAL = 1.8
SPEED_CASES = ("SmolLM2 n=512 plain sink=511", "SmolLM2 n=512 raw sink=511", "MiniLM n=512 plain sink=256")
PAIRS_CASES = ("SmolLM2 n=512 plain sink=511", "MiniLM n=256 plain sink=0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; fail if two threads bring too little."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=at_least_one, default=7, help="the best counts (default 7)")
    parser.add_argument("--output", type=Path, help="default: results/threads.json, of a run without other options")
    options = parser.parse_args(arguments)
    speeds = [speed_up(load(name), options.repeats) for name in SPEED_CASES]
    print("| all sources, one sink | 1 thread, ms | 2 threads, ms | times as fast |\n|---|---:|---:|---:|")
    for row in speeds:
        one, two = (1e3 * seconds for seconds in row["seconds"])
        print(f"| {row['case']} | {one:.3g} | {two:.3g} | {row['times_as_fast']:.2f} |")
    pairs = [all_pairs(*network) for network in map(text_of_256, PAIRS_CASES)]
    print("\n| all sources, all sinks, 2 threads | pairs | seconds |\n|---|---:|---:|")
    for row in pairs:
        print(f"| {row['case']} | {row['pairs']:,} | {row['seconds']:.3g} |")
    report = {**bench.record(), "goal": GOAL, "two_threads": speeds, "all_pairs": pairs}
    output = RESULTS / "threads.json" if is_whole(parser, options) else options.output
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n")
    return int(any(row["times_as_fast"] < GOAL for row in speeds))


def load(name: str) -> bench.Instance:
    """The network of a case of `attnflow bench`."""
    (case,) = bench.select(name)
    return bench.load(case)


def speed_up(instance: bench.Instance, repeats: int) -> dict[str, Any]:
    """One thread and two by turns, the best of each; the answers must not differ in a bit."""
    one, two = (instance.solve(threads=threads) for threads in (1, 2))
    for name in ("values", "lower", "upper"):
        if getattr(one, name).tobytes() != getattr(two, name).tobytes():
            raise SystemExit(f"{instance.name}: {name} differ between one thread and two")
    turns = [[seconds(partial(instance.solve, threads=threads)) for threads in (1, 2)] for _ in range(repeats)]
    best = [min(series) for series in zip(*turns, strict=True)]
    return {"case": instance.name, "seconds": best, "times_as_fast": best[0] / best[1]}


def text_of_256(case: str) -> tuple[str, NDArray[np.float32]]:
    """The capacities among the first 256 tokens; a causal model attends within them as if the text ended there."""
    layers = [link.capacities[:256, :256] for link in load(case).links]
    return f"{case.split()[0]} n=256 plain", np.ascontiguousarray(layers)


def all_pairs(name: str, capacities: NDArray[np.float32]) -> dict[str, Any]:
    """Every source to every sink in one call on two threads."""
    n = capacities.shape[1]
    taken = seconds(lambda: maxflow.layered(capacities, sinks=range(n), threads=2))
    return {"case": name, "pairs": n * n, "seconds": taken}


def seconds(call: Callable[[], Any]) -> float:
    """Wall clock of one call."""
    started = perf_counter()
    call()
    return perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
