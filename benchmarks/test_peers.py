"""The peers as pytest-benchmark groups: `pytest benchmarks --benchmark-sort=mean`.

One group a network; in it everybody solves the same eight sources to the same sink, attnflow from the float array on,
the peers on a graph built beforehand, and the answers are compared. The figures of README come from compare_peers.py,
which solves all sources and larger networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import attnflow
from instances import ALL, Case, Instance, load
from peers import Peer, peers

SOURCES = 8
CASES = [case for case in ALL if case.n == 128 or (case.n == 512 and case.calibration == "excess")]
REFERENCE = peers()[0]

_answers: dict[str, list[int]] = {}


@pytest.fixture(params=CASES, ids=lambda case: case.name, scope="module")
def instance(request: pytest.FixtureRequest) -> Instance:
    case: Case = request.param
    return load(case)


def sources(instance: Instance) -> list[int]:
    drawn: list[int] = np.random.default_rng(1).permutation(instance.case.n)[:SOURCES].tolist()
    return drawn


def reference(instance: Instance) -> list[int]:
    name = instance.case.name
    if name not in _answers:
        graph = REFERENCE.prepare(instance.integers)
        _answers[name] = [REFERENCE.solve(graph, source, instance.case.sink) for source in sources(instance)]
    return _answers[name]


def test_attnflow(benchmark: Any, instance: Instance) -> None:
    benchmark.group = instance.case.name
    flows = benchmark(
        attnflow.maxflow.layered,
        instance.floats,
        sources=sources(instance),
        sinks=[instance.case.sink],
        threads=1,
    )
    expected = np.ldexp(np.array(reference(instance), dtype=np.float64), -instance.exponent)
    assert np.all((flows.lower[0] <= expected) & (expected <= flows.upper[0]))
    np.testing.assert_allclose(flows.values[0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.DISTRIBUTION)
def test_peer(benchmark: Any, instance: Instance, peer: Peer) -> None:
    if instance.edges > peer.MAX_EDGES // 10:  # here a peer has seconds, in compare_peers.py minutes
        pytest.skip(f"{instance.edges} edges are too many for {peer.NAME}")
    benchmark.group = instance.case.name
    graph = peer.prepare(instance.integers)
    answers = benchmark.pedantic(
        lambda: [peer.solve(graph, source, instance.case.sink) for source in sources(instance)],
        rounds=3,
        warmup_rounds=1,
    )
    assert answers == reference(instance)
