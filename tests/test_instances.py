"""The generators are seeded, and make what they say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from attnflow import Network, instances
from attnflow.errors import InvalidArgumentError

LAYERED = {
    "softmax": lambda seed: instances.softmax(3, 9, seed=seed),
    "softmax causal": lambda seed: instances.softmax(3, 9, seed=seed, causal=True),
    "peaked": lambda seed: instances.peaked(3, 9, seed=seed),
    "near_uniform": lambda seed: instances.near_uniform(3, 9, seed=seed),
    "packed": lambda seed: instances.packed(3, [4, 1, 4], seed=seed),
    "disconnected": lambda seed: instances.disconnected(3, 9, seed=seed),
    "integers": lambda seed: instances.integers([4, 9, 2], seed=seed),
    "washington": lambda seed: instances.washington(4, 6, seed=seed),
    "washington mesh": lambda seed: instances.washington(4, 6, seed=seed, mesh=True),
}
BLOCKS = {
    "random_blocks": lambda seed: instances.random_blocks(seed=seed),
    "encoder_decoder": lambda seed: instances.encoder_decoder(2, 4, 2, 3, seed=seed),
    "encoder_decoder chained": lambda seed: instances.encoder_decoder(2, 4, 2, 3, seed=seed, chain=True),
    "genrmf": lambda seed: instances.genrmf(3, 3, seed=seed),
    "acyclic_dense": lambda seed: instances.acyclic_dense(6, seed=seed),
}


def matrices(made):
    return [np.asarray(link[2]) for link in made.links] if isinstance(made, instances.Blocks) else list(made)


@pytest.mark.parametrize("name", [*LAYERED, *BLOCKS])
def test_the_seed_decides_everything(name):
    make = {**LAYERED, **BLOCKS}[name]
    first, again, other = matrices(make(1)), matrices(make(1)), matrices(make(2))
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) != len(other) or any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", LAYERED)
def test_layers_chain(name):
    made = LAYERED[name](0)
    for below, above in pairwise(made):
        assert above.shape[1] == below.shape[0]
    assert all(np.all(layer >= 0) and np.all(np.isfinite(layer)) for layer in made)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_make_networks(name):
    made = BLOCKS[name](0)
    network = Network.from_blocks(made.sizes, made.links)
    for block, position in (made.source, made.sink):
        assert 0 <= position < network.sizes[block]


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_rows_sum_to_one(residual):
    for made in (
        instances.softmax(2, 30, seed=0, residual=residual),
        instances.softmax(2, 30, seed=0, residual=residual, causal=True),
        instances.peaked(2, 30, seed=0, residual=residual),
        instances.near_uniform(2, 30, seed=0, residual=residual),
        instances.packed(2, [10, 20], seed=0, residual=residual),
    ):
        assert made.dtype == np.float32
        np.testing.assert_allclose(made.sum(axis=2), 1.0, rtol=1e-5)
        assert np.diagonal(made, axis1=1, axis2=2).min() >= residual


def test_causal_instances_look_back_only():
    for made in (instances.peaked(3, 20, seed=0), instances.softmax(3, 20, seed=0, causal=True)):
        assert not np.triu(made, 1).any()
        assert np.count_nonzero(made) >= 0.9 * 3 * 20 * 21 / 2


def test_peaked_has_sinks_and_locality():
    attention = instances.peaked(8, 200, seed=0, residual=0.0)[:, 100:]
    to_first = attention[:, :, 0].mean()
    rows = np.arange(100, 200)
    near = sum(attention[:, rows - 100, rows - back].mean() for back in range(5))
    far = attention[:, :, 20:60].mean()
    assert to_first > 0.2
    assert near / 5 > 5 * far


def test_near_uniform_is():
    made = instances.near_uniform(2, 10, seed=0, residual=0.0)
    assert 0 < np.ptp(made) < 0.001
    np.testing.assert_allclose(made, 0.1, rtol=0.01)


def test_packed_texts_do_not_see_each_other():
    made = instances.packed(2, [3, 4], seed=0)
    assert not made[:, :3, 3:].any()
    assert not made[:, 3:, :3].any()
    assert made[:, 3:, 3:].all()


def test_disconnected_has_pairs_with_and_without_flow():
    values = Network.encoder(instances.disconnected(4, 8, seed=0), residual=0).source_flows(range(8)).values
    assert 0.3 < np.mean(values == 0) < 0.9
    assert not values[:, 0].any()
    assert not values[0].any()


def test_integers():
    made = instances.integers([5, 40, 30], seed=0, high=4, density=0.5)
    assert [layer.shape for layer in made] == [(40, 5), (30, 40)]
    assert set(np.unique(made[1])) == {0, 1, 2, 3, 4}
    assert 0.3 < np.mean(made[1] > 0) < 0.5


def test_random_blocks_are_varied_and_acyclic():
    made = [instances.random_blocks(seed=seed) for seed in range(40)]
    links = [link for network in made for link in network.links]
    assert all(giver < receiver for giver, receiver, *_ in links)
    assert any(len(link) == 4 for link in links)
    assert any(len(link) == 3 for link in links)
    assert any(np.isinf(link[2]).any() for link in links)
    assert any(link[1] - link[0] > 1 for link in links)
    for network in made:
        assert set(range(1, len(network.sizes))) == {link[1] for link in network.links}
        last = len(network.sizes) - 1
        assert not any(np.isinf(link[2]).any() for link in network.links if link[1] == last)


def test_encoder_decoder_chain_returns_to_the_next_input():
    made = instances.encoder_decoder(1, 3, 2, 4, seed=0, chain=True)
    giver, receiver, again, offset = made.links[-1]
    assert (giver, receiver, offset) == (6, 2, 1)
    assert again.tolist() == [np.inf, np.inf, np.inf, 0.0]
    assert len(made.sizes) == 7


def test_encoder_decoder_rows_sum_to_one_over_both_givers():
    made = instances.encoder_decoder(1, 3, 1, 4, seed=0, residual=0.25)
    straight, cross = made.links[2][2], made.links[3][2]
    np.testing.assert_allclose(straight + cross.sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("mesh", [False, True])
def test_washington(mesh):
    layers = instances.washington(5, 7, seed=0, high=50, mesh=mesh)
    assert [layer.shape for layer in layers] == [(7, 1), *[(7, 7)] * 4, (1, 7)]
    for layer in layers[1:-1]:
        assert np.all(np.count_nonzero(layer, axis=0) == 3)
        assert layer[layer > 0].min() >= 1
        assert layer.max() <= 50
    if mesh:
        assert layers[1][3, 3] > 0 < layers[1][6, 0]
        assert layers[1][5, 0] == 0
    assert np.all(layers[0] == 150)


def test_genrmf():
    side, depth, high = 4, 3, 20
    made = instances.genrmf(side, depth, seed=0, low=5, high=high)
    assert sum(made.sizes) == side * side * depth
    within = [link for link in made.links if link[0] // 2 == link[1] // 2]
    between = [link for link in made.links if link[0] // 2 != link[1] // 2]
    assert sum(np.count_nonzero(link[2]) for link in within) == depth * 4 * side * (side - 1)
    assert all(set(np.unique(link[2])) == {0, high * side * side} for link in within)
    assert sum(np.count_nonzero(link[2]) for link in between) == (depth - 1) * side * side
    assert all(link[2][link[2] > 0].min() >= 5 and link[2].max() <= high for link in between)
    for frame in range(1, depth):  # a permutation: every node of a later frame receives from one below
        for block in (2 * frame, 2 * frame + 1):
            received = sum(np.count_nonzero(link[2], axis=1) for link in between if link[1] == block)
            assert np.all(received == 1)


def test_acyclic_dense():
    made = instances.acyclic_dense(6, seed=0, high=9)
    assert {link[:2] for link in made.links} == {(i, j) for i in range(6) for j in range(i + 1, 6)}
    assert all(1 <= link[2].item() <= 9 for link in made.links)


@pytest.mark.parametrize(
    "call",
    [
        lambda: instances.softmax(0, 3, seed=0),
        lambda: instances.softmax(1, 0, seed=0),
        lambda: instances.peaked(1, 0, seed=0),
        lambda: instances.packed(1, [], seed=0),
        lambda: instances.packed(1, [2, 0], seed=0),
        lambda: instances.integers([3], seed=0),
        lambda: instances.integers([3, 0], seed=0),
        lambda: instances.random_blocks(seed=0, n_blocks=1),
        lambda: instances.encoder_decoder(1, 3, 0, 3, seed=0),
        lambda: instances.washington(3, 2, seed=0),
        lambda: instances.genrmf(1, 3, seed=0),
        lambda: instances.acyclic_dense(1, seed=0),
    ],
)
def test_sizes_too_small(call):
    with pytest.raises(InvalidArgumentError, match="is too small: at least"):
        call()
