"""How much memory a solve takes beside the caller's array: 30% of it at most, for each thread.

Each case runs in a process of its own. There the high-water mark of resident memory is set back when the float32 array
of capacities stands complete, all sources are solved, and the mark is read: the difference is everything the solve
took, copies of capacities, the state of the source at hand and the results. (Linux only: the mark is ``VmHWM``, set
back by writing 5 to ``/proc/self/clear_refs``.)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from environment import ROOT, record
from instances import CACHE, Case, Model, load

LIMIT_PER_THREAD = 0.3
CASES: tuple[tuple[Model, int, int], ...] = (("SmolLM2", 512, 511), ("MiniLM", 512, 0))
THREADS = (1, 2)

MEASURE = r"""
import sys
from pathlib import Path
import numpy as np
import attnflow

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

tiny = np.full((2, 2, 2), 0.5, dtype=np.float32)
attnflow.maxflow.layered(tiny)  # loads what a first call loads
capacities = np.load(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
attnflow.maxflow.layered(capacities, sinks=[int(sys.argv[2])], threads=int(sys.argv[3]))
print(status("VmHWM") - before)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write benchmarks/results/memory.json; fail if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "memory.json")
    options = parser.parse_args(arguments)
    rows = [measure(model, n, sink, threads) for model, n, sink in CASES for threads in THREADS]
    print("| case | threads | array, MB | solve, MB | solve / array |\n|---|---:|---:|---:|---:|")
    for row in rows:
        array, solve = (1e-6 * row[f"{what}_bytes"] for what in ("array", "solve"))
        print(f"| {row['case']} | {row['threads']} | {array:.1f} | {solve:.1f} | {row['ratio']:.2f} |")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({**record(), "limit_per_thread": LIMIT_PER_THREAD, "cases": rows}, indent=1) + "\n"
    )
    return int(any(row["ratio"] > LIMIT_PER_THREAD * row["threads"] for row in rows))


def measure(model: Model, n: int, sink: int, threads: int) -> dict[str, Any]:
    """Bytes the solve took at its highest, and their ratio to the array's."""
    instance = load(Case(model, n, "none", sink))
    file = CACHE / f"memory-{model}-{n}.npy"
    np.save(file, instance.floats)
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), str(sink), str(threads)], check=True, capture_output=True, text=True
    ).stdout
    file.unlink()
    taken = int(output)
    return {
        "case": instance.case.name,
        "threads": threads,
        "edges": instance.edges,
        "array_bytes": instance.floats.nbytes,
        "solve_bytes": taken,
        "ratio": taken / instance.floats.nbytes,
    }


if __name__ == "__main__":
    sys.exit(main())
