"""``attnflow bench``: attnflow beside the maximum-flow libraries that are installed here."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from typing import Any

import attnflow

from ._output import writable
from ._progress import Progress

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="compare speed with other libraries, on this machine",
        description="Solve the same networks with attnflow and with OR-Tools, SciPy, igraph, PyMaxflow and networkx, "
        "as far as they are installed, check that all answers are equal, and print milliseconds a source.",
    )
    parser.add_argument("--list", action="store_true", help="name the cases, and end")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with TEXT in their name")
    parser.add_argument("--quick", action="store_true", help="small networks and few rounds: about a minute in all")
    parser.add_argument("--repeats", type=_count, metavar="N", help="rounds; the median counts (5; 3 if quick)")
    parser.add_argument(
        "--seconds", type=_duration, metavar="S", help="what a library may take in one round (1; 0.05 if quick)"
    )
    parser.add_argument(
        "--algorithms",
        nargs="+",
        choices=["auto", "dinic", "push_relabel"],
        default=["auto"],
        help="attnflow's algorithms; the first is compared (auto)",
    )
    parser.add_argument("--output", type=writable(".json"), metavar="FILE.json", help="write all figures")
    parser.add_argument("--chart", type=writable(".svg"), metavar="FILE.svg", help="draw a chart")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure every case, print the table, and write what was asked for; what is finished counts after Ctrl-C too."""
    cases = attnflow.bench.select(arguments.only, quick=arguments.quick)
    if arguments.list:
        for case in cases:
            print(case.name if case.missing is None else f"{case.name} (needs: {case.missing})")
        return
    if arguments.chart is not None and find_spec("matplotlib") is None:
        raise attnflow.errors.MissingDependencyError(
            f"--chart {arguments.chart} needs matplotlib: pip install 'attnflow[bench]'"
        )
    peers = _peers()
    cases = _able(cases)
    settings = {
        "only": arguments.only,
        "quick": arguments.quick,
        "threads": 1,
        "algorithms": arguments.algorithms,
        "repeats": arguments.repeats or (3 if arguments.quick else 5),
        "seconds": arguments.seconds if arguments.seconds is not None else 0.05 if arguments.quick else 1.0,
    }
    options = {name: settings[name] for name in ("algorithms", "repeats", "seconds")}
    results: list[dict[str, Any]] = []
    try:
        with Progress() as progress:
            for number, case in enumerate(cases, 1):
                progress.say(f"{number}/{len(cases)} {case.name}")
                results.append(attnflow.bench.compare(attnflow.bench.load(case), peers, **options))
    finally:
        if results:
            _give(attnflow.bench.make_report(results, settings, complete=len(results) == len(cases)), arguments)


def _peers() -> list[Any]:
    """The libraries that are here, a line for each that is not."""
    peers, missing = attnflow.bench.peers.find()
    if not peers:
        raise attnflow.errors.MissingDependencyError(
            f"there is nothing to compare with: none of {', '.join(missing)} is installed; "
            "pip install 'attnflow[bench]' adds them all"
        )
    for library, reason in missing.items():
        _note(f"without {library}: pip install {library} adds it ({reason})")
    return peers


def _able(cases: list[Any]) -> list[Any]:
    """The cases whose network can be had here, a line for what the others need."""
    for commands in dict.fromkeys(case.missing for case in cases if case.missing is not None):
        lacking = [case for case in cases if case.missing == commands]
        models = " and ".join(dict.fromkeys(case.model for case in lacking))
        number = "1 case" if len(lacking) == 1 else f"{len(lacking)} cases"
        _note(f"without {number} on the attention of {models}: {commands}")
    able = [case for case in cases if case.missing is None]
    if not able:
        raise attnflow.errors.MissingDependencyError("no case can be run: all of them need what is not installed")
    return able


def _give(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    print(attnflow.bench.table(report))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {arguments.output}", file=sys.stderr)
    if arguments.chart is not None:
        attnflow.bench.draw(report, arguments.chart)
        print(f"wrote {arguments.chart}", file=sys.stderr)


def _note(line: str) -> None:
    print(f"attnflow: {line}", file=sys.stderr)


# -- what an argument may be: argparse turns the errors into wrong usage ----------------------------------------------


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of rounds: it must be 1 or more")
    return int(value)


def _duration(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r} is no number of seconds, 0 or more")
    return seconds
