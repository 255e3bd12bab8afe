"""attnflow beside five maximum-flow libraries: the same capacities, one thread, one run, answers asserted equal.

    python benchmarks/compare_peers.py            # every case of instances.py: a table, and benchmarks/results/*.json
    python benchmarks/compare_peers.py --only "n=512 plain" --seconds 2

attnflow answers for ALL sources of a case in one call, from the float array to the values: reading, checking and
quantising the capacities is counted. A peer answers one pair a call, on a graph that was built beforehand and is not
counted. All sources would take some of them hours, so each solves a random sample, the same prefix of one seeded
permutation, as large as `--seconds` allows and never smaller than four sources; the table says how many. What is
compared is the median over `--repeats` rounds of the time a source takes; in each round everybody has a turn.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from environment import ROOT, one_thread, record

one_thread()

import numpy as np  # noqa: E402

import attnflow  # noqa: E402
from attnflow.maxflow import Algorithm  # noqa: E402
from instances import ALL, Instance, load  # noqa: E402
from peers import Peer, peers  # noqa: E402

SEED = 20220530
FEWEST_SOURCES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    options = _parse(arguments)
    cases = [case for case in ALL if options.only in case.name]
    report = {
        "command": shlex.join(
            ["python", "benchmarks/compare_peers.py", *(sys.argv[1:] if arguments is None else arguments)]
        ),
        **record(*dict.fromkeys(peer.DISTRIBUTION for peer in peers())),
        "settings": {"threads": 1, "repeats": options.repeats, "seconds": options.seconds, "seed": SEED},
        "cases": [],
    }
    for case in cases:
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        report["cases"].append(compare(load(case), options.algorithms, options.repeats, options.seconds))
    print(table(report["cases"]))
    if options.output != Path("-"):
        output = options.output or ROOT / "benchmarks" / "results" / f"peers-{report['date'][:10]}.json"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {output}", file=sys.stderr)
    return 0


def compare(instance: Instance, algorithms: Sequence[Algorithm], repeats: int, seconds: float) -> dict[str, Any]:
    """One case: everybody's answers checked against each other, then everybody's time."""
    case = instance.case
    everyone = np.random.default_rng(SEED).permutation(case.n).tolist()
    contenders: list[tuple[dict[str, Any], Callable[[], Any]]] = []

    flows = {}
    for algorithm in algorithms:

        def solve_all(algorithm: Algorithm = algorithm) -> attnflow.maxflow.Flows:
            return attnflow.maxflow.layered(instance.floats, sinks=[case.sink], threads=1, algorithm=algorithm)

        flows[algorithm] = solve_all()
        row: dict[str, Any] = {
            "name": "attnflow" if algorithm == "auto" else f"attnflow {algorithm}",
            "distribution": "attnflow",
            "sources": case.n,
            "stats": {name: value for name, value in flows[algorithm].stats.items() if np.isscalar(value)},
        }
        contenders.append((row, solve_all))

    skipped = []
    for peer in peers():
        if instance.edges > peer.MAX_EDGES:
            skipped.append(peer.NAME)
            continue
        started = perf_counter()
        prepared = peer.prepare(instance.integers)
        preparation = perf_counter() - started
        sample = _sample(peer, prepared, everyone, case.sink, seconds)

        def solve_sample(peer: Peer = peer, prepared: Any = prepared, sample: list[int] = sample) -> list[int]:
            return [peer.solve(prepared, source, case.sink) for source in sample]

        answers = solve_sample()
        for algorithm in algorithms:
            assert_equal(flows[algorithm], instance, sample, answers, peer.NAME)
        row = {
            "name": peer.NAME,
            "distribution": peer.DISTRIBUTION,
            "sources": len(sample),
            "preparation_seconds": preparation,
        }
        contenders.append((row, solve_sample))

    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(repeats):
        for (_, solve), series in zip(contenders, times, strict=True):
            started = perf_counter()
            solve()
            series.append(perf_counter() - started)
    rows = [row for row, _ in contenders]
    for row, series in zip(rows, times, strict=True):
        row["seconds"] = series
        row["milliseconds_per_source"] = 1e3 * statistics.median(series) / row["sources"]
    best = min((row for row in rows if row["distribution"] != "attnflow"), key=_pace)
    return {
        **case._asdict(),
        "case": case.name,
        "layers": len(instance.floats),
        "edges": instance.edges,
        "exponent": instance.exponent,
        "results": rows,
        "skipped": skipped,
        "fastest_peer": best["name"],
        "times_faster_than_fastest_peer": _pace(best) / _pace(rows[0]),
    }


def assert_equal(
    flows: attnflow.maxflow.Flows, instance: Instance, sources: list[int], answers: list[int], name: str
) -> None:
    """The peer's integer lies within attnflow's certified bounds, and is its value wherever the two bounds agree."""
    theirs = np.ldexp(np.array(answers, dtype=np.float64), -instance.exponent)
    value, lower, upper = (array[0, sources] for array in (flows.values, flows.lower, flows.upper))
    where = f"{name} on {instance.case.name}: {theirs} against {value}"
    assert np.all(upper - lower <= 1e-6), where
    assert np.all((lower <= theirs) & (theirs <= upper)), where
    assert np.array_equal(value[lower == upper], theirs[lower == upper]), where


def table(cases: Sequence[dict[str, Any]]) -> str:
    """Milliseconds a source, in Markdown."""
    names = list(dict.fromkeys(row["name"] for case in cases for row in case["results"]))
    header = ["case", "edges", *(f"{name}, ms a source" for name in names), "faster than the fastest peer"]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for case in cases:
        rows = {row["name"]: row for row in case["results"]}
        cells = [case["case"], f"{case['edges']:,}"]
        for name in names:
            row = rows.get(name)
            cells.append("-" if row is None else f"{_pace(row):.3g} ({row['sources']})")
        cells.append(f"{case['times_faster_than_fastest_peer']:.1f} x")
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("\nIn brackets: how many sources were solved. A dash: too large a network for that library.")
    return "\n".join(lines)


def _sample(peer: Peer, prepared: Any, everyone: list[int], sink: int, seconds: float) -> list[int]:
    """As many of `everyone`, from the front, as the peer solves in about `seconds`."""
    started = perf_counter()
    count = 0
    while count < len(everyone) and (count < FEWEST_SOURCES or perf_counter() - started < seconds):
        peer.solve(prepared, everyone[count], sink)
        count += 1
    return everyone[:count]


def _pace(row: dict[str, Any]) -> float:
    return float(row["milliseconds_per_source"])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median counts (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="what a peer may take for one round (default 2)")
    parser.add_argument(
        "--algorithms", nargs="+", default=["auto"], help="attnflow's algorithms; the first is compared (default auto)"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file, or - for none (default benchmarks/results/peers-DATE.json)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
