"""The benchmarks' parts agree on small networks: a figure is worth nothing when somebody's answer is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import compare_peers
import plot_peers
from attnflow import instances, maxflow
from instances import Case, Instance, quantised
from peers import Peer, peers

NETWORKS = {
    "encoder": instances.softmax(3, 9, seed=1),
    "decoder": instances.peaked(4, 11, seed=2),
    "dead ends": instances.disconnected(3, 8, seed=3),
}


def instance(name: str) -> Instance:
    capacities = NETWORKS[name]
    integers, exponent = quantised(capacities)
    n = capacities.shape[1]
    return Instance(
        Case("MiniLM", n, "none", n - 1), np.ldexp(integers.astype(np.float32), -exponent), integers, exponent
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.DISTRIBUTION)
def test_a_peer_and_attnflow_agree(peer: Peer, name: str) -> None:
    network = instance(name)
    everyone = list(range(network.case.n))
    flows = maxflow.layered(network.floats, sinks=[network.case.sink], threads=1)
    prepared = peer.prepare(network.integers)
    answers = [peer.solve(prepared, source, network.case.sink) for source in everyone]
    compare_peers.assert_equal(flows, network, everyone, answers, peer.NAME)
    answers[0] += 1
    with pytest.raises(AssertionError):
        compare_peers.assert_equal(flows, network, everyone, answers, peer.NAME)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_quantised_capacities_fit_32_bits_and_survive_float32(scale: float) -> None:
    capacities = instances.softmax(2, 50, seed=0) * np.float32(scale)
    integers, exponent = quantised(capacities)
    assert 2**29 < integers.sum(axis=2).max() < 2**31
    np.testing.assert_array_equal(
        np.ldexp(integers.astype(np.float32), -exponent).astype(np.float64) * 2.0**exponent, integers
    )
    assert np.all(np.abs(np.ldexp(integers.astype(np.float64), -exponent) - capacities) <= 2.0**-exponent)


def test_the_chart_is_drawn_from_the_report(tmp_path: Path) -> None:
    case = compare_peers.compare(instance("encoder"), ["auto"], repeats=1, seconds=0.0)
    (title,) = list(plot_peers.PANELS)[:1]
    chart = tmp_path / "peers.svg"
    plot_peers.draw(json.loads(json.dumps({"cases": [{**case, "case": title}]})), chart)
    shown = " ".join(ElementTree.parse(chart).getroot().itertext())
    assert all(peer.NAME in shown for peer in peers())
    assert case["fastest_peer"] in compare_peers.table([case])
