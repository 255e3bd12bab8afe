"""Instructions the kernel executes for a fixed network, counted by valgrind: a figure that a busy machine cannot move.

    python benchmarks/instructions.py                    # one count for each network
    python benchmarks/instructions.py --check            # beside baseline.json: fails if one grew by more than 3%
    python benchmarks/instructions.py --check --ratios   # and if the fastest peer has come closer
    python benchmarks/instructions.py --cache            # cache misses too
    python benchmarks/instructions.py --update           # writes baseline.json anew; with --cache, the misses too
    python benchmarks/instructions.py --profile          # keeps callgrind.out.* for callgrind_annotate

A process that solves once and then K times more is compared with one that solves once, so what starting Python and the
first call cost cancels out. The garbage collector is off, and K is 20 for the smallest networks, 1 from 20,000 edges
on. Interpreters that held 0, 350 and 500 lists more than they need counted 681, 680 and 678 thousand for "peaked n=8"
(K = 20), 1.137, 1.138 and 1.129 million for "one layer n=64" (K = 4), and 5.02, 5.01 and 4.99 million for "packed n=64"
(K = 1): 0.8% apart at most. With the collector on and K = 1 it was up to 28%.

Counts are comparable between two builds by the same compiler, which the baseline names; valgrind runs the AVX2 code
path, whatever the machine has. Cache misses are those of a machine that valgrind simulates, with the caches of
`CACHES`, after a first solve: what fits into a cache is in it. Networks of trained models are left out where these are
not installed; a baseline is only written whole.
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
from typing import Any, NamedTuple

from attnflow import bench
from environment import RESULTS, ROOT

BASELINE = Path(__file__).with_name("baseline.json")

# How much a count may grow. They repeat to a thousandth: it is the clock that tells the kernel when to look for Ctrl-C.
TOLERANCE = 0.03

# Ratios to the fastest peer are of wall time, which varies by a third on a machine that others use too: what is left of
# a ratio has to be less than this before it fails.
LEAST_OF_RATIO = 0.6
# A peer's sample, and how often everybody solves: a second a case, more only where four sources take a peer longer.
RATIO_SECONDS, RATIO_REPEATS = 0.2, 3
# A ratio that is too low is measured again: calls of microseconds lose a factor of three when somebody else takes over.
RATIO_TRIES = 3

# Of the simulated machine: bytes, ways, bytes of a line; first level for instructions and for data, and the last level.
CACHES = {"I1": "32768,8,64", "D1": "32768,8,64", "LL": "8388608,16,64"}

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
import gc, pickle, sys
from pathlib import Path
from attnflow import maxflow
gc.disable()
sizes, links, sink, is_layered = pickle.loads(Path("network.pickle").read_bytes())
for _ in range(int(sys.argv[1])):
    if is_layered:
        maxflow.layered([link.capacities for link in links], sinks=[sink], threads=1, algorithm=sys.argv[2])
    else:
        sources, sinks = [(0, position) for position in range(sizes[0])], [(len(sizes) - 1, sink)]
        maxflow.blocks(sizes, links, sources=sources, sinks=sinks, threads=1, algorithm=sys.argv[2])
"""


class Cost(NamedTuple):
    """Of one solve."""

    instructions: int
    d1_misses: int | None = None
    """Of the first data cache; None if only instructions were counted."""
    ll_misses: int | None = None
    """Of the last level, instructions and data."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print, and compare with the baseline or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=("auto", "dinic", "push_relabel"), default="auto")
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks with TEXT in their name")
    parser.add_argument("--cache", action="store_true", help="count cache misses too, with cachegrind")
    parser.add_argument("--profile", action="store_true", help="keep valgrind's output in the repository's root")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="default: benchmarks/baseline.json")
    parser.add_argument(
        "--ratios",
        action="store_true",
        help=f"with --check: fail too if a ratio to the fastest peer is below {LEAST_OF_RATIO} of the baseline's",
    )
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument("--check", action="store_true", help=f"fail if a count grew by more than {TOLERANCE:.0%}%")
    purpose.add_argument("--update", action="store_true", help="write the counts of all networks to the baseline")
    options = parser.parse_args(arguments)
    try:
        baseline = read(options.baseline)
        cases = choose(options)
        if options.check and baseline is None:
            raise ValueError(f"there is no {options.baseline}: run --update first")
        rivals = fastest_peers() if options.ratios else {}
    except ValueError as error:
        parser.error(str(error))
    before = baseline or {"instructions": {}, "times_faster_than_fastest_peer": {}}
    if options.check and before["counted_with"] != counted_with():
        print(f"the baseline was counted with {before['counted_with']}, this is {counted_with()}", file=sys.stderr)

    costs: dict[str, Cost] = {}
    grown, closer = [], []
    for case in cases:
        if case.missing is not None:
            print(f"{case.name:32} left out; it needs: {case.missing}")
            continue
        instance = bench.load(case)
        costs[case.name] = cost = count(instance, options.algorithm, cache=options.cache, profile=options.profile)
        verdict, failed = "", False
        if options.algorithm == "auto":  # the baseline's
            verdict, failed = compare(cost.instructions, before["instructions"].get(case.name))
        grown += [case.name] * (failed and options.check)
        misses = f"{cost.d1_misses:>12,} D1 misses {cost.ll_misses:>11,} LL misses  " if options.cache else ""
        print(f"{case.name:32} {cost.instructions:>15,} instructions  {misses}{verdict}".rstrip(), flush=True)
        ratio = before["times_faster_than_fastest_peer"].get(case.name)
        if ratio is not None and case.name in rivals:
            verdict, failed = compare_ratio(instance, rivals[case.name], ratio)
            closer += [case.name] * failed
            print(f"{'':32} {verdict}", flush=True)
    if options.check and not costs:
        parser.error("no network could be counted")
    if options.update:
        write(options.baseline, costs)
    if grown:
        print(
            f"slower than the baseline by more than {TOLERANCE:.0%}, or not in it: {', '.join(grown)}", file=sys.stderr
        )
    if closer:
        print(
            f"a ratio to the fastest peer fell below {LEAST_OF_RATIO} of what it was: {', '.join(closer)}",
            file=sys.stderr,
        )
    return int(bool(grown or closer))


def choose(options: argparse.Namespace) -> list[bench.Case]:
    """The networks asked for; a ValueError says which options do not go together."""
    if shutil.which("valgrind") is None:
        raise ValueError("valgrind is not installed")
    if (options.check or options.update) and options.algorithm != "auto":
        raise ValueError(
            f"the baseline is of --algorithm auto: neither --check nor --update goes with {options.algorithm}"
        )
    if options.update and options.only:
        raise ValueError(f"--update counts all networks, since one commit is noted for all; not only {options.only!r}")
    if options.ratios and not options.check:
        raise ValueError("--ratios goes with --check")
    cases = [case for name in NETWORKS if options.only in name for case in bench.CASES if case.name == name]
    if not cases:
        raise ValueError(f"no network has {options.only!r} in its name")
    lacking = next((case for case in cases if case.missing is not None), None)
    if options.update and lacking is not None:
        raise ValueError(f"--update counts all networks; {lacking.name} needs: {lacking.missing}")
    return cases


def read(file: Path) -> dict[str, Any] | None:
    """The baseline, None if there is none; a ValueError if the file is something else."""
    if not file.exists():
        return None
    try:
        stored = json.loads(file.read_text())
        counts, ratios = stored["instructions"].values(), stored["times_faster_than_fastest_peer"].items()
        sound = (
            isinstance(stored["counted_with"], dict)
            and all(isinstance(count, int) and count > 0 for count in counts)
            and all(ratio is None or isinstance(ratio, float) for name, ratio in ratios if name != "from")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no baseline that --update wrote ({type(error).__name__}: {error})") from None
    if not sound:
        raise ValueError(f"{file} is no baseline that --update wrote: counts must be whole numbers, 1 or more")
    return dict(stored)


def compare(count: int, before: int | None) -> tuple[str, bool]:
    """The ratio to the baseline in words, and whether it is one to fail for."""
    if before is None:
        return "not in the baseline", True
    ratio = count / before
    remark = "  faster: update the baseline" if ratio < 1 - TOLERANCE else ""
    return f"{ratio:7.4f} x the baseline's{remark}", ratio > 1 + TOLERANCE


def newest_peers() -> tuple[str | None, dict[str, Any]]:
    """The newest comparison with the peers: its file's name, and its cases by their names."""
    newest = max(RESULTS.glob("peers-*.json"), default=None)
    if newest is None:
        return None, {}
    return newest.name, {case["case"]: case for case in json.loads(newest.read_text())["cases"]}


def fastest_peers() -> dict[str, bench.peers.Peer]:
    """Who was the fastest peer on each network when they were last compared."""
    file, cases = newest_peers()
    if file is None:
        raise ValueError(f"--ratios needs to know who is fastest, and there is no peers-*.json in {RESULTS}")
    installed, _ = bench.peers.find()
    here = {peer.NAME: peer for peer in installed}
    fastest = {name: cases[name]["fastest_peer"] for name in NETWORKS if name in cases}
    missing = sorted({str(peer) for peer in fastest.values() if peer is not None} - here.keys())
    if missing:
        raise ValueError(f"--ratios needs what was fastest in {file} and is not installed: {', '.join(missing)}")
    return {name: here[peer] for name, peer in fastest.items() if peer is not None}


def compare_ratio(instance: bench.Instance, peer: bench.peers.Peer, before: float) -> tuple[str, bool]:
    """How many times as fast as the peer, beside the baseline's, and whether it is one to fail for."""
    best = 0.0
    for _ in range(RATIO_TRIES):
        measured = bench.compare(instance, [peer], repeats=RATIO_REPEATS, seconds=RATIO_SECONDS)
        best = max(best, measured["times_faster_than_fastest_peer"])
        if best >= LEAST_OF_RATIO * before:
            break
    words = f"{best:.3g} times as fast as {peer.NAME}; the baseline has {before:.3g}"
    return words, best < LEAST_OF_RATIO * before


def write(file: Path, costs: dict[str, Cost]) -> None:
    """The baseline: counts, what they were counted with, and how far ahead of the peers the same networks were."""
    newest, cases = newest_peers()
    ratios = {name: cases[name]["times_faster_than_fastest_peer"] for name in costs if name in cases}
    baseline = {
        "counted_with": counted_with(),
        "commit": bench.record()["commit"],
        "instructions": {name: cost.instructions for name, cost in costs.items()},
        "times_faster_than_fastest_peer": {"from": newest, **ratios},
    }
    misses = {
        name: {"D1": cost.d1_misses, "LL": cost.ll_misses} for name, cost in costs.items() if cost.d1_misses is not None
    }
    if misses:
        baseline["cache_misses"] = {"caches": CACHES, **misses}
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


def count(instance: bench.Instance, algorithm: str = "auto", *, cache: bool = False, profile: bool = False) -> Cost:
    """What one call costs that solves all sources of a network, after a first one."""
    more = min(20, max(1, 20_000 // max(1, instance.n_edges)))
    with tempfile.TemporaryDirectory() as scratch:
        network = (instance.sizes, instance.links, instance.sink, instance.is_layered)
        Path(scratch, "network.pickle").write_bytes(pickle.dumps(network))
        tool = "cachegrind" if cache else "callgrind"
        valgrind = ["valgrind", f"--tool={tool}", f"--{tool}-out-file={ROOT if profile else scratch}/{tool}.out.%p"]
        if cache:
            valgrind += ["--cache-sim=yes", *(f"--{name}={size}" for name, size in CACHES.items())]
        once, often = (_counted(valgrind, scratch, str(times), algorithm) for times in (1, 1 + more))
    return Cost(*(round((after - before) / more) for before, after in zip(once, often, strict=True)))


def _counted(valgrind: Sequence[str], folder: str, *arguments: str) -> list[int]:
    """Instructions of an interpreter that runs MEASURE; with cachegrind, misses of D1 and of the last level too."""
    # A fixed hash seed and one thread make the count repeatable; valgrind itself loads everything to fixed addresses.
    settings = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [*valgrind, sys.executable, "-c", MEASURE, *arguments],
        env={**os.environ, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"(?:I +refs|D1 +misses|LL +misses) *: +([\d,]+)", run.stderr)
    if run.returncode or not found:
        raise SystemExit(f"valgrind failed:\n{run.stderr[-2000:]}")
    return [int(number.replace(",", "")) for number in found]


if __name__ == "__main__":
    sys.exit(main())
