"""Networks in which generated tokens are read again, against graphs written edge by edge from docs/definitions.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Case, check_bounds, check_certificate, exact, one_pair
from stacks import M, N, answers, attention, close, every_flow, wanted

from attnflow import Network, instances
from attnflow.errors import InvalidArgumentError, UnboundedFlowError


def case_of(network):
    """The plain form that the exact oracle takes: every input to every output."""
    links = [(link.giver, link.receiver, np.asarray(link.capacities), link.offset) for link in network.links]
    sources = [[(block, k)] for block in network.inputs for k in range(network.sizes[block])]
    top = len(network.sizes) - 1
    return Case(network.sizes, links, sources, [[(top, j)] for j in range(network.sizes[top])])


# ---- chaining --------------------------------------------------------------------------------------------------------


def chained_decoder(layers, generated):
    """Flows of a decoder in which generated tokens are read again, from its definition."""
    n, top = len(layers[0]), len(layers)
    edges = {
        ((layer, k), (layer + 1, j)): matrix[j, k]
        for layer, matrix in enumerate(layers)
        for j in range(n)
        for k in range(j + 1)
    }
    edges |= {((top, g - 1), (0, g)): math.inf for g in generated}
    return answers(edges, [(0, k) for k in range(n)], [(top, j) for j in range(n)])


@pytest.mark.parametrize("generated", [[1], [5], [3, 4, 5], [5, 2], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("options", [{}, {"storage": "triangle"}, {"calibration": "excess"}])
def test_a_chained_decoder(generated, options):
    network = Network.decoder(instances.peaked(3, 6, seed=13, residual=0).astype(np.float64), **options)
    chained = network.chained(generated)
    layers = [
        np.asarray(getattr(link.capacities, "to_dense", lambda link=link: link.capacities)()) for link in network.links
    ]
    expected = chained_decoder(layers, generated)
    for algorithm in ("dinic", "push_relabel"):
        close(every_flow(chained, algorithm=algorithm, check=True), expected)
    # What nothing was generated before is as it was.
    np.testing.assert_array_equal(every_flow(chained)[: min(generated)], every_flow(network)[: min(generated)])


@pytest.mark.parametrize("merge", ["sublayers", "single"])
@pytest.mark.parametrize("generated", [[1, 2], [-1]])
def test_a_chained_encoder_decoder(merge, generated):
    parts = attention(seed=14)
    chained = Network.encoder_decoder(*parts, merge=merge).chained(generated)
    close(every_flow(chained, check=True), wanted(*parts, merge=merge, generated=[g % M for g in generated]))
    assert chained.inputs == (0, 3)
    again = chained.links[-1]
    assert (again.giver, again.receiver, again.offset) == (len(chained.sizes) - 1, 3, 1)
    assert chained.n_edges == Network.encoder_decoder(*parts, merge=merge).n_edges + len(generated)


def test_chained_flows_are_certified_cut_and_named():
    plain = Network.encoder_decoder(*attention(seed=15, dtype=np.float32))
    chained = plain.chained([1, 2])
    case = case_of(chained)
    found = chained.source_flows(range(M), bottlenecks=True, check=True)
    exactly = [[exact(case, source, sink) for source in case.sources] for sink in case.sinks]
    check_bounds(found, case, exactly)
    assert not (found.bottlenecks == len(chained.links) - 1).any()  # what has no limit is none
    for t, s in ((2, 0), (2, N), (2, N + 2), (0, N + 1)):
        one = chained.source_flows(t, sources=[s], cuts=True, flows=True, check=True)
        check_certificate(one, one_pair(case, t, s))
    gain = every_flow(chained)[2] - every_flow(plain)[2]
    most = int(gain.argmax())
    assert gain[most] > 0.01
    assert (len(chained.links) - 1) in chained.source_flows(2, sources=[most], flows=True).flows.link


def test_chained_and_sparse_is_an_interval():
    parts = attention(3, n=8, m=6, seed=16)
    chained = Network.encoder_decoder(*parts).chained([3, 4, 5])
    full = every_flow(chained)
    for thin in (chained.sparsified(keep=2), Network.encoder_decoder(*parts, keep=2).chained([3, 4, 5])):
        bounds = thin.source_flows(range(6))
        assert (bounds.lower <= full + 1e-12).all()
        assert (full <= bounds.upper + 1e-12).all()
        assert np.isfinite(bounds.upper).all()


def test_a_generated_token_may_be_a_source():
    """Unbounded edges are entered through bounded ones only, so that its flow is finite, by itself and in a set."""
    network = Network.decoder(np.tri(4)[None] / 4)
    chained = network.chained([2, 3])
    assert np.isfinite(every_flow(chained)).all()
    np.testing.assert_array_equal(every_flow(chained)[:, 3], every_flow(network)[:, 3])  # nothing is read after it
    assert np.isfinite(chained.source_flows(sources=[{0, 1, 2, 3}]).values).all()
    unbounded = Network.from_blocks([2, 2], [(0, 1, np.array([[np.inf, 0], [0.5, np.inf]]))]).chained([1])
    with pytest.raises(UnboundedFlowError):
        unbounded.source_flows(1, sources=[0])


def test_pooling_comes_after_chaining():
    chained = Network.decoder(instances.peaked(2, 5, seed=17)).chained([3, 4])
    assert chained.pooled().source_flows(check=True).values.shape == (1, 5)
    with pytest.raises(InvalidArgumentError, match="block 3 has 1 nodes, the inputs of block 0 have 5"):
        Network.decoder(instances.peaked(2, 5, seed=17)).pooled().chained([3])


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        ([], "generated is empty"),
        (2, "generated is 2; it must be several positions"),
        ([0], r"generated\[0\] is position 0 of block 0: no position comes before"),
        ([2, -4], r"generated\[1\] is position 0"),
        ([4], r"generated\[0\] is 4, but block 0 has 4 nodes"),
        ([1, -3], "generated names node 1 more than once"),
        ([1.5], r"generated\[0\] is 1.5; it must be an integer"),
        ([True], r"generated\[0\] is True"),
        ("12", "generated is '12'"),
        (None, "generated is None"),
    ],
)
def test_generated_positions_that_cannot_be(generated, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Network.decoder(np.eye(4)[None]).chained(generated)


# ---- what must hold for every network --------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["sublayers", "single"]),
    st.sets(st.integers(1, M - 1), min_size=1),
    st.booleans(),
)
def test_chaining_never_lowers_a_flow(seed, merge, generated, calibrated):
    calibration = "excess" if calibrated else None
    network = Network.encoder_decoder(*attention(seed=seed), merge=merge, calibration=calibration)
    assert (every_flow(network.chained(generated)) >= every_flow(network) - 1e-12).all()
