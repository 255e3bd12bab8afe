"""What shares of joint flows cost: orders of Shapley values, exact values, the fair flow, the barrier's centre.

    python benchmarks/games.py                # results/games.json (two minutes)
    python benchmarks/games.py --permutations 100      # a quick look, which writes nothing

SmolLM2's attention to the benchmarks' text, raw and calibrated, with and without the residual, to the last position;
one thread. An order is the difference between a call of many and a call of two, so that reading the network does not
count; an independent flow is a 128th of a call for all sources, which share what they have in common. Each best of
three. Every result's own check is run: shares add up to the total, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from arguments import at_least_one, is_whole
from attnflow import Network, bench
from attnflow.bench import trained
from environment import RESULTS

N_TOKENS, FEW = 128, 14
ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write it where nothing was changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--permutations", type=at_least_one, default=1000)
    options = parser.parse_args(arguments)
    layers = trained.attention("SmolLM2", N_TOKENS)
    cases = []
    print("| network | source, us | order, us | order / source | 1,000 orders, s | 14 exact, s | fair, s | centre, s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for calibration in (None, "excess"):
        for residual in (0.5, 0.0):
            cases.append(measured(layers, calibration, residual, 2 * max(2, options.permutations // 2)))
            print(line(cases[-1]), flush=True)
    if is_whole(parser, options):
        (RESULTS / "games.json").write_text(json.dumps({**bench.record(["scipy"]), "cases": cases}, indent=1) + "\n")
    return 0


def measured(layers: Any, calibration: Any, residual: float, permutations: int) -> dict[str, Any]:
    """One network: seconds of each question."""
    network = Network.decoder(np.asarray(layers), residual=residual, calibration=calibration)
    few = Network.decoder(np.asarray(layers)[:, :FEW, :FEW], residual=residual, calibration=calibration)
    two, _ = best(lambda: network.shapley_values(permutations=2, threads=1))
    many, sampled = best(lambda: network.shapley_values(permutations=permutations, threads=1))
    sources, _ = best(lambda: network.source_flows(threads=1))
    exact, shares = best(lambda: few.shapley_values(threads=1))
    fair, split = best(lambda: network.joint_flow(threads=1))
    centre, middle = best(lambda: network.joint_flow(rule="barrier", threads=1), rounds=1)
    for result in (sampled, shares, split, middle):
        result.check()
    assert sampled.total[0] == split.total[0] == middle.total[0]
    return {
        "calibration": calibration,
        "residual": residual,
        "source": sources / N_TOKENS,
        "order": (many - two) / (permutations - 2),
        "permutations": permutations,
        "sampled": many,
        "largest_standard_error": float(sampled.standard_errors.max()),
        "total": float(sampled.total[0]),
        "exact_of_14": exact,
        "fair": fair,
        "levels": len(split.levels[0]),
        "barrier": centre,
        "decrement": float(middle.errors[0]),
    }


def best(question: Callable[[], Any], rounds: int = ROUNDS) -> tuple[float, Any]:
    """The fewest seconds of some rounds, and the last answer."""
    least = float("inf")
    for _ in range(rounds):
        started = perf_counter()
        answer = question()
        least = min(least, perf_counter() - started)
    return least, answer


def line(case: dict[str, Any]) -> str:
    """A row of the table."""
    return (
        f"| {case['calibration'] or 'raw'}, residual {case['residual']:g} | {case['source'] * 1e6:.0f} "
        f"| {case['order'] * 1e6:.0f} | {case['order'] / case['source']:.1f} | {case['sampled']:.2f} "
        f"| {case['exact_of_14']:.3f} | {case['fair']:.3f} | {case['barrier']:.1f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
