"""Instructions the kernel executes for a fixed network, counted by valgrind: a figure that a busy machine cannot move.

    python benchmarks/instructions.py                    # one count for each network
    python benchmarks/instructions.py --check            # beside baseline.json: fails if one grew by more than 3%
    python benchmarks/instructions.py --update           # writes baseline.json anew
    python benchmarks/instructions.py --profile          # keeps callgrind.out.* for callgrind_annotate

A process that solves twice is compared with one that solves once, so what starting Python costs cancels out. Counts are
comparable between two builds by the same compiler, which the baseline names; valgrind runs the AVX2 code path, whatever
the machine has. Networks of trained models are left out where these are not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnflow import bench
from environment import RESULTS, ROOT

BASELINE = Path(__file__).with_name("baseline.json")

# How much a count may grow. They repeat to a thousandth: it is the clock that tells the kernel when to look for Ctrl-C.
TOLERANCE = 0.03

# Cases of `attnflow bench`: made-up networks, and trained models' attention as the comparison with the peers has it.
NETWORKS = (
    "peaked n=8",
    "near-uniform n=64",
    "peaked n=64",
    "packed n=64",
    "disconnected n=64",
    "one layer n=64",
    "peaked n=256",
    "encoder-decoder 2+2 n=16 plain",
    "encoder-decoder 2+2 n=16 excess",
    "MiniLM n=128 plain sink=0",
    "MiniLM n=512 plain sink=0",
    "MiniLM n=512 plain sink=256",
    "MiniLM n=512 excess sink=256",
    "SmolLM2 n=128 excess sink=127",
    "SmolLM2 n=512 plain sink=511",
    "SmolLM2 n=512 raw sink=511",
)
# The network comes from a file: what makes it up costs more than solving it, and not always the same.
MEASURE = """
import pickle, sys
from pathlib import Path
from attnflow import maxflow
sizes, links, sink, is_layered = pickle.loads(Path("network.pickle").read_bytes())
for _ in range(int(sys.argv[1])):
    if is_layered:
        maxflow.layered([link.capacities for link in links], sinks=[sink], threads=1, algorithm=sys.argv[2])
    else:
        sources, sinks = [(0, position) for position in range(sizes[0])], [(len(sizes) - 1, sink)]
        maxflow.blocks(sizes, links, sources=sources, sinks=sinks, threads=1, algorithm=sys.argv[2])
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print, and compare with the baseline or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", default="auto")
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks with TEXT in their name")
    parser.add_argument("--profile", action="store_true", help="keep callgrind's output in the repository's root")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="default: benchmarks/baseline.json")
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument("--check", action="store_true", help=f"fail if a count grew by more than {TOLERANCE:.0%}%")
    purpose.add_argument("--update", action="store_true", help="write the counts to the baseline")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    names = [name for name in NETWORKS if options.only in name]
    if not names:
        parser.error(f"no network has {options.only!r} in its name")
    baseline = json.loads(options.baseline.read_text()) if options.baseline.exists() else {}
    if options.check and not baseline:
        parser.error(f"there is no {options.baseline}: run --update first")
    if options.check and baseline["counted_with"] != counted_with():
        print(f"the baseline was counted with {baseline['counted_with']}, this is {counted_with()}", file=sys.stderr)

    counts: dict[str, int] = {}
    grown = []
    for name in names:
        (case,) = (case for case in bench.CASES if case.name == name)
        if case.missing is not None:
            print(f"{name:32} left out; it needs: {case.missing}")
            continue
        counts[name] = count(bench.load(case), options.algorithm, options.profile)
        before = baseline.get("instructions", {}).get(name)
        verdict, failed = compare(counts[name], before)
        grown += [name] * (failed and options.check)
        print(f"{name:32} {counts[name]:>15,} instructions  {verdict}", flush=True)
    if options.update:
        write(options.baseline, {**baseline.get("instructions", {}), **counts})
    if options.check and not counts:
        parser.error("no network could be counted")
    if grown:
        print(
            f"slower than the baseline by more than {TOLERANCE:.0%}, or not in it: {', '.join(grown)}", file=sys.stderr
        )
    return int(bool(grown))


def compare(count: int, before: int | None) -> tuple[str, bool]:
    """The ratio to the baseline in words, and whether it is one to fail for."""
    if before is None:
        return "not in the baseline", True
    ratio = count / before
    return f"{ratio:7.4f} x the baseline's", ratio > 1 + TOLERANCE


def write(file: Path, instructions: dict[str, int]) -> None:
    """The baseline: counts, what they were counted with, and how far ahead of the peers the same networks were."""
    ordered = {name: instructions[name] for name in NETWORKS if name in instructions}
    newest = max(RESULTS.glob("peers-*.json"), default=None)
    ratios = {}
    if newest is not None:
        cases = {case["case"]: case for case in json.loads(newest.read_text())["cases"]}
        ratios = {name: cases[name]["times_faster_than_fastest_peer"] for name in ordered if name in cases}
    baseline = {
        "counted_with": counted_with(),
        "commit": bench.record()["commit"],
        "instructions": ordered,
        "times_faster_than_fastest_peer": {"from": newest and newest.name, **ratios},
    }
    file.write_text(json.dumps(baseline, indent=1) + "\n")
    print(f"written to {file}", file=sys.stderr)


def counted_with() -> dict[str, Any]:
    """What a count depends on: not the processor, but whatever compiled and ran the code."""
    import numpy as np

    valgrind = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    return {
        "compiler": bench.record()["machine"].get("compiler"),
        "valgrind": valgrind,
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def count(instance: bench.Instance, algorithm: str = "auto", profile: bool = False) -> int:
    """Instructions of one call that solves all sources of a network."""
    with tempfile.TemporaryDirectory() as scratch:
        network = (instance.sizes, instance.links, instance.sink, instance.is_layered)
        Path(scratch, "network.pickle").write_bytes(pickle.dumps(network))
        outputs = f"{ROOT if profile else scratch}/callgrind.out.%p"
        once, twice = (_collected(scratch, outputs, str(times), algorithm) for times in (1, 2))
    return twice - once


def _collected(folder: str, outputs: str, *arguments: str) -> int:
    """Instructions of an interpreter that runs MEASURE."""
    # A fixed hash seed and one thread make the count repeatable; valgrind itself loads everything to fixed addresses.
    settings = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={outputs}", sys.executable, "-c", MEASURE, *arguments],
        env={**os.environ, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not found:
        raise SystemExit(f"valgrind failed:\n{run.stderr[-2000:]}")
    return int(found.group(1))


if __name__ == "__main__":
    sys.exit(main())
