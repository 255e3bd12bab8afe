"""How large a model fits: 32 layers x 4096 positions stored as triangles, 80 x 8192 as the 64 largest of each row.

Each case runs in a process of its own, on made-up causal attention (below), with every source towards the last
position, or as many as fit in the time: evenly spread runs of 64 neighbouring sources. A run with other options than
the defaults prints only, unless --output names a file. Reported are the bytes of the capacities, the peak of resident
memory of the whole process, generation and numpy included, seconds, and how wide the certified intervals are.
Layers are made and stored one at a time, so that a dense stack never exists.

The attention has what that of trained causal models has: a share to the first position, weights that fall with distance
by a power law drawn for each layer, noise, and half of each row to the position itself (residual 0.5).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arguments import at_least_one, is_whole, seconds
from attnflow import bench
from environment import RESULTS


class Scale(NamedTuple):
    """One case, and the memory that it must stay below."""

    n_layers: int
    n: int
    keep: int | None  # of each row; None: all, in a triangle
    limit_gib: int

    @property
    def name(self) -> str:
        """For people."""
        stored = "triangle" if self.keep is None else f"{self.keep} largest of a row"
        return f"{self.n_layers} x {self.n}, {stored}"


CASES = (Scale(32, 4096, None, 2), Scale(80, 8192, 64, 8))
RUN = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write it if it is whole or asked for; fail if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="default: results/scale.json, of a run without other options")
    parser.add_argument("--threads", type=at_least_one, default=2, help="default 2")
    parser.add_argument("--seconds", type=seconds, default=600.0, help="for the sources of a case (default 600)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with TEXT in their name")
    # Of the process that measures one.
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case is not None:
        print(json.dumps(measure(CASES[options.case], options.threads, options.seconds)))
        return 0
    chosen = [index for index, case in enumerate(CASES) if options.only in case.name]
    if not chosen:
        names = "; ".join(case.name for case in CASES)
        parser.error(f"--only: no case has {options.only!r} in its name; there are: {names}")
    rows = []
    for index in chosen:
        command = [sys.executable, __file__, "--case", str(index)]
        command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    print("| case | capacities, GiB | peak, GiB | to build, s | sources | to solve, s | mean interval |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        sizes = f"{row['capacity_bytes'] / 2**30:.2f} | {row['peak_bytes'] / 2**30:.2f} | {row['build_seconds']:.0f}"
        print(
            f"| {row['case']} | {sizes} | {row['sources']} of {row['n']} | {row['solve_seconds']:.0f} |"
            f" {row['mean_interval']:.3g} |"
        )
    output = RESULTS / "scale.json" if is_whole(parser, options) else options.output
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        report = {**bench.record(), "threads": options.threads, "seconds": options.seconds, "cases": rows}
        output.write_text(json.dumps(report, indent=1) + "\n")
    return int(any(row["peak_bytes"] > row["limit_gib"] * 2**30 for row in rows))


def measure(case: Scale, threads: int, seconds: float) -> dict[str, Any]:
    """Build one network, solve as many sources as there is time for."""
    import resource
    import time

    import numpy as np

    from attnflow import Network

    started = time.perf_counter()
    links = ((layer, layer + 1, matrix) for layer, matrix in enumerate(layers(case)))
    network = Network.from_blocks((case.n,) * (case.n_layers + 1), links)
    built = time.perf_counter()
    done: list[int] = []
    widths, stats = [], {"searches": 0, "augmentations": 0}
    runs = spread(case.n // RUN)
    share = len(runs)
    while runs and (not done or time.perf_counter() - built < seconds):
        # The first call solves little and tells how long it takes; each call reads the capacities anew, so few follow.
        took = time.perf_counter() - built
        share = min(len(runs), max(1, int(len(done) // RUN * (seconds - took) / took)) if done else 2)
        chosen, runs = runs[:share], runs[share:]
        sources = sorted(run * RUN + i for run in chosen for i in range(RUN))
        flows = network.source_flows(sources=sources, threads=threads)
        print(f"{case.name}: {len(done) + len(sources)} sources", file=sys.stderr, flush=True)
        done += sources
        widths.append(flows.upper - flows.lower)
        stats = {name: stats[name] + flows.stats[name] for name in stats}
    interval = np.concatenate(widths, axis=1)
    return {
        "case": case.name,
        "layers": case.n_layers,
        "n": case.n,
        "limit_gib": case.limit_gib,
        "edges": network.n_edges,
        "capacity_bytes": network.nbytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux counts in KiB
        "build_seconds": built - started,
        "sources": len(done),
        "solve_seconds": time.perf_counter() - built,
        "mean_interval": float(interval.mean()),
        "largest_interval": float(interval.max()),
        **stats,
        **{name: flows.stats[name] for name in ("index_bytes", "workspace_bytes")},
    }


def spread(n: int) -> list[int]:
    """0 ... n - 1 in an order whose beginnings are spread evenly: bits reversed."""
    width = max(1, (n - 1).bit_length())
    return [index for i in range(1 << width) if (index := int(f"{i:0{width}b}"[::-1], 2)) < n]


def layers(case: Scale) -> Iterator[Any]:
    """The stored layers, one at a time."""
    import numpy as np

    from attnflow import SparseMatrix, TriangularMatrix

    random = np.random.default_rng(0)
    for _ in range(case.n_layers):
        fall = np.float32(random.uniform(0.5, 2.0)) * np.log1p(np.arange(case.n - 1, -1, -1, dtype=np.float32))
        share = np.clip(random.uniform(0.1, 0.9) + 0.1 * random.standard_normal(case.n), 0, 0.98).astype(np.float32)
        values = np.empty(case.n * (case.n + 1) // 2, dtype=np.float32)
        for j in range(case.n):
            row = values[j * (j + 1) // 2 :][: j + 1]
            random.standard_normal(out=row, dtype=np.float32)
            row *= np.float32(1.5)
            row -= fall[case.n - 1 - j :]
            np.exp(row, out=row)
            row *= (1 - share[j]) / 2 / row.sum()
            row[0] += share[j] / 2
            row[j] += np.float32(0.5)
        triangle = TriangularMatrix(case.n, values)
        yield triangle if case.keep is None else SparseMatrix.from_dense(triangle, keep=case.keep)


if __name__ == "__main__":
    sys.exit(main())
