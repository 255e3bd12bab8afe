"""attnflow beside the peers: the same capacities, one thread, one run, answers compared.

attnflow answers for ALL sources of a case in one call, from the float array to the values: reading, checking and
quantising the capacities is counted. A peer answers one pair a call, on a graph that was built beforehand and is not
counted. All sources would take some of them hours, so each solves a random sample, the same prefix of one seeded
permutation, as large as `seconds` allows and never smaller than four sources. What is compared is the median over
`repeats` rounds of the time a source takes; in each round everybody has a turn, and whoever is done within
milliseconds goes on until they have passed.

Beside them runs the yardstick of what is possible at all, a streaming pass: reading every capacity once, from one
array, with ``max`` of numpy. It is the fastest read of a whole array found in numpy, at two to three times the pace of
``sum``: one vectorised comparison a number, and one thread whatever the settings (a dot product is as fast, but its
threads are the BLAS library's business). It is the fastest of many passes, not their median: what is possible does not
depend on who else uses the memory. Where all capacities fit into a cache, so does the yardstick: it is a hard one
there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from .._positions import integer
from ..errors import CertificateError, InvalidArgumentError
from ..maxflow import Algorithm, Flows
from .cases import Instance
from .peers import Graph, Peer

__all__ = ["SEED", "compare"]

SEED = 20220530
"""Of the permutation of the sources whose prefixes the peers solve."""

_FEWEST_SOURCES = 4

# A round lasts at least this long, and this share of the time there is for a peer's sources: a machine that others use
# is slow for tens of milliseconds at a time, which a call of that length would show and one of a second would not.
_ROUND_SECONDS, _ROUND_SHARE = 0.01, 0.25

# The yardstick: copies of the capacities one after the other, and how often and for how long each is read at least.
_COPIES, _PASSES, _PASS_SECONDS = 5, 5, 0.05


class _Contender(NamedTuple):
    row: dict[str, Any]
    solve: Callable[[], Any]


def compare(
    instance: Instance,
    peers: Sequence[Peer],
    *,
    algorithms: Sequence[Algorithm] = ("auto",),
    repeats: int = 5,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Check everybody's answers against each other, then take everybody's time.

    Parameters
    ----------
    instance : Instance
    peers : sequence of Peer
        Those that the network is too large for are left out.
    algorithms : sequence of "auto", "dinic" or "push_relabel"
        attnflow's, at least one; the first is the one that is compared.
    repeats : int
        Rounds, at least 1.
    seconds : float
        What a peer's sample of sources may take in one round; four sources are solved in any case. Who takes less
        than a quarter of that is called again and again for so long in each round.

    Returns
    -------
    dict
        What a row of the table and a case of the JSON file hold: ``case``, ``edges``, ``results`` (one entry a
        contender, with ``milliseconds_per_source`` and the ``seconds`` of each round), ``fastest_peer``,
        ``times_faster_than_fastest_peer``, ``passes_per_source`` (attnflow's time for a source in streaming passes) ...

    Raises
    ------
    CertificateError
        An answer of attnflow and a peer's differ.
    InvalidArgumentError
        No algorithm, less than one round, or `seconds` that are no number or negative.

    Examples
    --------
    >>> from attnflow import bench
    >>> (case,) = bench.select("peaked n=8")
    >>> result = bench.compare(bench.load(case), bench.peers.find()[0], repeats=1, seconds=0.0)
    >>> result["results"][0]["name"], result["results"][0]["sources"]
    ('attnflow', 8)
    """
    if not algorithms:
        raise InvalidArgumentError("algorithms is empty; at least one is needed")
    repeats = integer(repeats, "repeats", low=1)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise InvalidArgumentError(f"seconds is {seconds!r}; it must be a number >= 0")
    flows = {algorithm: instance.solve(algorithm=algorithm) for algorithm in algorithms}
    contenders = [_ours(instance, algorithm, flows[algorithm]) for algorithm in algorithms]
    able = [peer for peer in peers if instance.n_edges <= peer.MAX_EDGES]
    everyone = np.random.default_rng(SEED).permutation(instance.sizes[0]).tolist()
    graph = instance.graph()
    for peer in able:
        contender, sample, answers = _theirs(peer, graph, everyone, instance.sink_node, seconds)
        for found in flows.values():
            _check(instance, found, sample, answers, peer.NAME)
        contenders.append(contender)

    streaming = _streaming_pass(instance)
    paces = _medians([solve for _, solve in contenders], repeats, max(_ROUND_SECONDS, _ROUND_SHARE * seconds))
    for (row, _), (median, rounds) in zip(contenders, paces, strict=True):
        row["seconds"] = rounds
        row["milliseconds_per_source"] = 1e3 * median / row["sources"]
    rows = [row for row, _ in contenders]
    ours = rows[0]["milliseconds_per_source"]
    best = min(rows[len(algorithms) :], key=lambda row: float(row["milliseconds_per_source"]), default=None)
    return {
        "case": instance.name,
        "sizes": list(instance.sizes),
        "sink": instance.sink,
        "links": len(instance.links),
        "edges": instance.n_edges,
        "bytes": instance.n_bytes,
        "exponent": instance.exponent,
        "results": rows,
        "skipped": [peer.NAME for peer in peers if peer not in able],
        "fastest_peer": best and best["name"],
        "times_faster_than_fastest_peer": best and best["milliseconds_per_source"] / ours,
        "milliseconds_per_pass": 1e3 * streaming,
        "passes_per_source": ours / (1e3 * streaming),
    }


def _ours(instance: Instance, algorithm: Algorithm, flows: Flows) -> _Contender:
    row = {
        "name": "attnflow" if algorithm == "auto" else f"attnflow {algorithm}",
        "distribution": "attnflow",
        "sources": instance.sizes[0],
        "stats": {name: value for name, value in flows.stats.items() if np.isscalar(value)},
    }
    return _Contender(row, lambda: instance.solve(algorithm=algorithm))


def _theirs(
    peer: Peer, graph: Graph, everyone: Sequence[int], sink: int, seconds: float
) -> tuple[_Contender, Sequence[int], list[int]]:
    """As many of `everyone`, from the front, as the peer solves in about `seconds`, and its answers for these."""
    started = perf_counter()
    prepared = peer.prepare(graph)
    preparation = perf_counter() - started
    answers: list[int] = []
    started = perf_counter()
    for source in everyone:
        if len(answers) >= _FEWEST_SOURCES and perf_counter() - started >= seconds:
            break
        answers.append(peer.solve(prepared, source, sink))
    sample = everyone[: len(answers)]
    row = {
        "name": peer.NAME,
        "distribution": peer.DISTRIBUTION,
        "sources": len(sample),
        "preparation_seconds": preparation,
    }
    return _Contender(row, lambda: [peer.solve(prepared, source, sink) for source in sample]), sample, answers


def _check(instance: Instance, flows: Flows, sources: Sequence[int], answers: Sequence[int], name: str) -> None:
    """The peer's integers are attnflow's values, and lie within its certified bounds."""
    theirs = np.ldexp(np.array(answers, dtype=np.float64), -instance.exponent)
    value, lower, upper = (array[0, sources] for array in (flows.values, flows.lower, flows.upper))
    wrong = np.flatnonzero((value != theirs) | (theirs < lower) | (theirs > upper))
    if wrong.size:
        i = int(wrong[0])
        raise CertificateError(
            f"{instance.name}: from source {sources[i]} {name} finds a flow of {theirs[i]!r}, attnflow {value[i]!r}, "
            f"certified to lie in {lower[i]!r} ... {upper[i]!r}; both must be the same"
        )


def _streaming_pass(instance: Instance) -> float:
    """Seconds of reading every capacity once: the fastest of 25 passes or more, which take a quarter of a second.

    Five copies, since the pace of one array depends on the pages that it got: on networks of one size (31 MB) the
    fastest pass over a single array took 0.9 to 1.7 ms, the fastest over five copies 0.70 to 0.79 on a quiet machine.
    """
    fastest = math.inf
    for _ in range(_COPIES):
        everything = np.concatenate([link.capacities.ravel() for link in instance.links])
        passes, end = 0, perf_counter() + _PASS_SECONDS
        while passes < _PASSES or perf_counter() < end:
            fastest = min(fastest, _seconds(everything.max, 1))
            passes += 1
    return fastest


def _medians(
    solves: Sequence[Callable[[], Any]], repeats: int, round_seconds: float
) -> list[tuple[float, list[float]]]:
    """Seconds of one call of each: the median, and each round's."""
    loops = [max(1, math.ceil(round_seconds / _seconds(solve, 1))) for solve in solves]
    rounds = [[_seconds(solve, times) for solve, times in zip(solves, loops, strict=True)] for _ in range(repeats)]
    return [(statistics.median(series), list(series)) for series in zip(*rounds, strict=True)]


def _seconds(solve: Callable[[], Any], times: int) -> float:
    started = perf_counter()
    for _ in range(times):
        solve()
    return (perf_counter() - started) / times
