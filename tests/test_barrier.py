"""The barrier's centre where float64 ends: tiny and huge capacities, unbounded edges, sinks that are read again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnflow import Network
from attnflow.errors import AttnflowError, UnboundedFlowError


def centre(network: Network, sink: Any = -1) -> np.ndarray:
    split = network.joint_flow(sink, rule="barrier")
    split.check()
    assert split.errors.max() <= 1e-9
    return split.values[0]


@pytest.mark.parametrize("exponent", [-1020, -600, 600, 1015])
def test_the_centre_scales_with_the_capacities(exponent: int) -> None:
    layers = np.random.default_rng(0).random((3, 4, 4))
    scaled = centre(Network.encoder(np.ldexp(layers, exponent), residual=0.0))
    usual = centre(Network.encoder(layers, residual=0.0))
    np.testing.assert_allclose(np.ldexp(scaled, -exponent), usual, rtol=1e-8, atol=1e-12)


def test_an_edge_of_less_than_a_quantum_is_none() -> None:
    layers = np.random.default_rng(1).random((3, 4, 4))
    layers[:, 1, 2] = 0
    without = centre(Network.encoder(layers, residual=0.0))
    layers[:, 1, 2] = 1e-200
    np.testing.assert_array_equal(centre(Network.encoder(layers, residual=0.0)), without)


def test_the_centre_of_a_network_whose_tokens_are_read_again() -> None:
    # Tokens 2 and 3 were generated: unbounded edges lead back from the last block to the first.
    rows = np.random.default_rng(0).random((1, 4, 4)) ** 6
    layer = np.tril(rows) + np.eye(4) * 1e-3
    layer /= layer.sum(axis=2, keepdims=True)
    network = Network.decoder(layer).chained([2, 3])
    split = network.joint_flow(rule="barrier")
    edges = split.flows[0]
    assert np.isfinite(edges.flow).all()
    # Nobody sends more than he could by himself, and the sink receives what all send.
    assert (split.values <= network.source_flows().values * (1 + 1e-9)).all()
    into_sink = edges.flow[(edges.link == 0) & (edges.receiver == 3)].sum()
    assert into_sink == pytest.approx(split.total[0], rel=1e-9)


def test_what_leaves_the_sink_is_no_part_of_the_flow() -> None:
    # Sink 0 feeds position 1 again, which feeds sink 1: no flow to the two of them has use for that.
    network = Network.from_blocks([2, 2], [(0, 1, [[1.0, 1.0], [0.0, 2.0]]), (0, 1, [[0.0, 0.0], [1.0, 0.0]])])
    again = Network.from_blocks(
        [2, 2],
        [(0, 1, [[1.0, 1.0], [0.0, 2.0]]), (0, 1, [[0.0, 0.0], [1.0, 0.0]]), (1, 0, [[0.0, 0.0], [np.inf, 0.0]])],
    )
    np.testing.assert_allclose(centre(again, {0, 1}), centre(network, {0, 1}), rtol=1e-8)
    assert set(again.joint_flow({0, 1}, rule="barrier").flows[0].link.tolist()) == {0, 1}


def test_unbounded_edges_in_a_circle_have_no_centre() -> None:
    one = np.ones((1, 1))
    links = [(0, 1, one), (1, 2, one * np.inf), (2, 1, one * np.inf), (2, 3, one)]
    with pytest.raises(UnboundedFlowError, match="round in a circle"):
        Network.from_blocks([1, 1, 1, 1], links).joint_flow(rule="barrier")


@pytest.mark.parametrize("seed", range(40))
def test_the_centre_is_found_where_capacities_differ_by_many_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = rng.random((2 + seed % 3, 6, 6)) ** 40
    network = Network.encoder(layers, residual=0.0)
    for sink in range(3):
        split = network.joint_flow(sink, rule="barrier")
        edges, total = split.flows[0], split.total[0]
        balance = np.zeros((len(layers) + 1, 6))
        np.add.at(balance, (edges.link, edges.giver), -edges.flow)
        np.add.at(balance, (edges.link + 1, edges.receiver), edges.flow)
        assert abs(balance[1:-1]).max() <= 1e-9 * total
        assert balance[-1, sink] == pytest.approx(total, rel=1e-9)
        assert (split.values[0] <= network.source_flows(sink).values[0] * (1 + 1e-9) + 1e-9 * total).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e200])
def test_a_circle_of_any_scale_beside_no_flow(scale: float) -> None:
    links = [(0, 1, [[0.0]]), (1, 2, [[scale]]), (2, 1, [[scale]]), (1, 3, [[scale]])]
    assert Network.from_blocks([1, 1, 1, 1], links).joint_flow(rule="barrier").values.tolist() == [[0.0]]


@pytest.mark.parametrize("large", [1e200, 1e300])
def test_capacities_too_far_apart_are_refused_in_finite_time(large: float) -> None:
    network = Network.from_blocks([2, 2, 1], [(0, 1, np.array([[1, 0.5], [0.5, 1]]) * large), (1, 2, [[1, 1]])])
    with pytest.raises(AttnflowError, match="too far apart for float64"):
        network.joint_flow(rule="barrier")
