"""How much memory a solve takes beside the caller's array: 30% of it at most, for each thread."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fresh
from attnflow import bench
from environment import RESULTS

LIMIT_PER_THREAD = 0.3
CASES = ("SmolLM2 n=512 plain sink=511", "MiniLM n=512 plain sink=0")
THREADS = (1, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write benchmarks/results/memory.json; fail if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json")
    options = parser.parse_args(arguments)
    rows = [measure(case, threads) for case in CASES for threads in THREADS]
    print("| case | threads | array, MB | solve, MB | solve / array |\n|---|---:|---:|---:|---:|")
    for row in rows:
        array, solve = (1e-6 * row[f"{what}_bytes"] for what in ("array", "solve"))
        print(f"| {row['case']} | {row['threads']} | {array:.1f} | {solve:.1f} | {row['ratio']:.2f} |")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({**bench.record(), "limit_per_thread": LIMIT_PER_THREAD, "cases": rows}, indent=1) + "\n"
    )
    return int(any(row["ratio"] > LIMIT_PER_THREAD * row["threads"] for row in rows))


def measure(name: str, threads: int) -> dict[str, Any]:
    """Bytes the solve took at its highest, and their ratio to the array's."""
    (case,) = bench.select(name)
    instance = bench.load(case)
    taken = fresh.call(np.stack([link.capacities for link in instance.links]), case.sink, threads=threads).n_bytes
    return {
        "case": case.name,
        "threads": threads,
        "edges": instance.n_edges,
        "array_bytes": instance.n_bytes,
        "solve_bytes": taken,
        "ratio": taken / instance.n_bytes,
    }


if __name__ == "__main__":
    sys.exit(main())
