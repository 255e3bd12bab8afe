"""The peers as pytest-benchmark groups: `pytest benchmarks --benchmark-sort=mean`.

One group a network; in it everybody solves the same eight sources to the same sink, attnflow from the float array on,
the peers on a graph built beforehand, and the answers are compared. The figures of README come from `attnflow bench`,
which solves all sources and larger networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import environment  # noqa: F401  (where the cache is)
from attnflow import bench, maxflow

SOURCES = 8
CASES = [case for case in bench.CASES if case.model and (case.n == 128 or (case.n == 512 and "excess" in case.name))]
PEERS, _ = bench.peers.find()

_answers: dict[str, list[int]] = {}


@pytest.fixture(params=CASES, ids=lambda case: case.name, scope="module")
def instance(request: pytest.FixtureRequest) -> bench.Instance:
    case: bench.Case = request.param
    if case.missing is not None:
        pytest.skip(f"the attention of {case.model} cannot be had here: {case.missing}")
    return bench.load(case)


def sources(instance: bench.Instance) -> list[int]:
    drawn: list[int] = np.random.default_rng(1).permutation(instance.sizes[0])[:SOURCES].tolist()
    return drawn


def solve(peer: bench.peers.Peer, graph: Any, instance: bench.Instance) -> list[int]:
    return [peer.solve(graph, source, instance.sink_node) for source in sources(instance)]


def reference(instance: bench.Instance) -> list[int]:
    if instance.name not in _answers:
        _answers[instance.name] = solve(PEERS[0], PEERS[0].prepare(instance.graph()), instance)
    return _answers[instance.name]


def test_attnflow(benchmark: Any, instance: bench.Instance) -> None:
    benchmark.group = instance.name
    flows = benchmark(
        maxflow.layered,
        [link.capacities for link in instance.links],
        sources=sources(instance),
        sinks=[instance.sink],
        threads=1,
    )
    expected = np.ldexp(np.array(reference(instance), dtype=np.float64), -instance.exponent)
    np.testing.assert_array_equal(flows.values[0], expected)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.DISTRIBUTION)
def test_peer(benchmark: Any, instance: bench.Instance, peer: bench.peers.Peer) -> None:
    if instance.n_edges > peer.MAX_EDGES // 10:  # here a peer has seconds, in `attnflow bench` minutes
        pytest.skip(f"{peer.NAME} would take minutes for {instance.n_edges} edges: attnflow bench has that case")
    benchmark.group = instance.name
    graph = peer.prepare(instance.graph())
    answers = benchmark.pedantic(lambda: solve(peer, graph, instance), rounds=3, warmup_rounds=1)
    assert answers == reference(instance)
