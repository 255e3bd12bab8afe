"""Instructions the kernel executes for a fixed network, counted by valgrind: a figure that a busy machine cannot move.

    python benchmarks/instructions.py                    # one count for each network
    python benchmarks/instructions.py --profile          # keeps callgrind.out.* for callgrind_annotate

A process that solves twice is compared with one that solves once, so what starting Python costs cancels out. Counts are
comparable between two builds by the same compiler; valgrind runs the AVX2 code path, whatever the machine has.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from environment import ROOT

# Expressions: made-up networks, and trained models' attention as the comparison with the peers has it.
NETWORKS = {
    "peaked 30 x 64": ("instances.peaked(30, 64, seed=1)", -1),
    "peaked 12 x 128": ("instances.peaked(12, 128, seed=1)", -1),
    "softmax 6 x 128": ("instances.softmax(6, 128, seed=1)", -1),
    "MiniLM 6 x 512, class token": ("load(Case('MiniLM', 512, 'none', 0)).floats", 0),
    "MiniLM 6 x 512, mid-sequence": ("load(Case('MiniLM', 512, 'none', 256)).floats", 256),
    "MiniLM 6 x 512, excess": ("load(Case('MiniLM', 512, 'excess', 256)).floats", 256),
    "SmolLM2 30 x 512": ("load(Case('SmolLM2', 512, 'none', 511)).floats", 511),
    "SmolLM2 30 x 512, residual 0": ("load(Case('SmolLM2', 512, 'none', 511, residual=0.0)).floats", 511),
    "MiniLM 6 x 128, class token": ("load(Case('MiniLM', 128, 'none', 0)).floats", 0),
    "SmolLM2 30 x 128, excess": ("load(Case('SmolLM2', 128, 'excess', 127)).floats", 127),
}
MEASURE = """
from instances import Case, load
from attnflow import instances, maxflow
capacities = {network}
for _ in range({times}):
    maxflow.layered(capacities, sinks={sink}, threads=1, algorithm={algorithm!r})
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", default="auto")
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks with TEXT in their name")
    parser.add_argument("--profile", action="store_true", help="keep callgrind's output in the repository's root")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    for name, (network, sink) in NETWORKS.items():
        if options.only not in name:
            continue
        once, twice = (
            count(MEASURE.format(network=network, sink=sink, times=times, algorithm=options.algorithm), options.profile)
            for times in (1, 2)
        )
        print(f"{name:30} {twice - once:>15,} instructions", flush=True)
    return 0


def count(code: str, profile: bool = False) -> int:
    """Instructions of an interpreter that runs `code`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = ROOT if profile else Path(scratch)
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.out.%p"]
        # Valgrind knows no AVX-512; a fixed hash seed and no address randomisation make the count repeatable.
        run = subprocess.run(
            [*command, sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(__file__).parent),
            },
            capture_output=True,
            text=True,
        )
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not found:
        raise SystemExit(f"valgrind failed:\n{run.stderr[-2000:]}")
    return int(found.group(1))


if __name__ == "__main__":
    sys.exit(main())
