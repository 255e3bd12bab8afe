"""Networks from contribution matrices, numpy's and torch's, against a reference of plain loops."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

from attnflow import Network, SparseMatrix, instances, maxflow
from attnflow.errors import InvalidArgumentError
from attnflow.maxflow import Link

torch = pytest.importorskip("torch")


def reference(contributions, *, residual, heads, calibration, causal):
    """The definitions, entry by entry, in float64."""
    layers, n_heads, n, _ = contributions.shape
    result = np.zeros((layers, n, n))
    for layer in range(layers):
        for j in range(n):
            for k in range(n):
                column = [float(contributions[layer, h, j, k]) for h in range(n_heads)]
                if heads == "mean":
                    a = sum(column) / n_heads
                elif heads in ("max", "min"):
                    a = max(column) if heads == "max" else min(column)
                elif isinstance(heads, int):
                    a = column[heads]
                else:
                    a = sum(w * c for w, c in zip(heads, column, strict=True))
                result[layer, j, k] = (1 - residual) * a + residual * (j == k)
            if calibration == "excess":
                visible = j + 1 if causal else n
                even = result[layer, j].sum() / visible
                result[layer, j] = [max(c - even, 0.0) for c in result[layer, j]]
    return result


def stack(n_layers=2, n_heads=3, n=5, *, causal=False, dtype=np.float32):
    heads = instances.softmax(n_layers * n_heads, n, seed=n, residual=0.0, causal=causal)
    return heads.reshape(n_layers, n_heads, n, n).astype(dtype)


def capacities(network):
    return [link.capacities for link in network.links]


def make(contributions, causal, **options):
    return (Network.decoder if causal else Network.encoder)(contributions, **options)


# ---- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("calibration", [None, "excess"])
@pytest.mark.parametrize("residual", [0, 0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("heads", ["mean", "max", "min", 1, -1, (0.5, 0.0, 2.0)])
def test_capacities_follow_the_definitions(library, causal, calibration, residual, heads):
    given = stack(causal=causal)
    before = given.copy()
    options = {"residual": residual, "heads": heads, "calibration": calibration}
    network = make(torch.from_numpy(given) if library == "torch" else given, causal, **options)
    expected = reference(given, causal=causal, **options)
    assert network.sizes == (5, 5, 5)
    assert [(link.giver, link.receiver, link.offset) for link in network.links] == [(0, 1, 0), (1, 2, 0)]
    for made, wanted in zip(capacities(network), expected, strict=True):
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, wanted, rtol=1e-6, atol=1e-7)
        assert not causal or not np.triu(made, 1).any()
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    ("dtype", "made"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int8, np.float64),
        (np.uint16, np.float64),
        (np.int64, np.float64),
        (">f4", np.float32),
        (">f8", np.float64),
        (">i4", np.float64),
    ],
)
@pytest.mark.parametrize("heads", ["mean", "max", 0, (1.0, 0.25)])
def test_dtypes_of_numpy(dtype, made, heads):
    given = (stack(2, 2, 4) * 100).astype(dtype)
    network = Network.encoder(given, residual=0.5, heads=heads, calibration="excess")
    expected = reference(given.astype(np.float64), residual=0.5, heads=heads, calibration="excess", causal=False)
    for layer, wanted in zip(capacities(network), expected, strict=True):
        assert layer.dtype == made
        np.testing.assert_allclose(layer, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "made"),
    [
        (torch.float16, np.float32),
        (torch.bfloat16, np.float32),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
        (torch.uint8, np.float64),
        (torch.int64, np.float64),
    ],
)
@pytest.mark.parametrize("heads", ["mean", "max", 0, (1.0, 0.25)])
def test_dtypes_of_torch(dtype, made, heads):
    given = (torch.from_numpy(stack(2, 2, 4)) * 100).to(dtype)
    network = Network.encoder(given, residual=0.5, heads=heads, calibration="excess")
    wide = given.to(torch.float64).numpy()
    expected = reference(wide, residual=0.5, heads=heads, calibration="excess", causal=False)
    for layer, wanted in zip(capacities(network), expected, strict=True):
        assert layer.dtype == made
        np.testing.assert_allclose(layer, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_is_rounded(dtype):
    """The mean over heads of 1/3 in half precision, kept in half precision, would be off by 1e-3."""
    given = torch.full((1, 3, 2, 2), 1.0).to(dtype)
    given[0, 0] = 0.0
    (layer,) = capacities(Network.encoder(given, residual=0.0))
    np.testing.assert_allclose(layer, 2 / 3, rtol=1e-6)


def test_integers_stay_integers_where_nothing_is_computed():
    given = np.array([[[2**53 + 1, 0], [3, 4]]])
    for made in (given, given[:, None], torch.from_numpy(given)):
        (layer,) = capacities(Network.encoder(made, residual=0.0))
        assert layer.dtype == np.int64
        assert layer[0, 0] == 2**53 + 1


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("causal", [False, True])
def test_even_attention_has_no_excess_at_all(library, dtype, causal):
    for n in range(1, 70):
        weights = np.tri(n) if causal else np.ones((n, n))
        even = (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
        given = torch.from_numpy(even)[None] if library == "torch" else even[None]
        (excess,) = capacities(make(given, causal, residual=0.0, calibration="excess"))
        assert excess.max() <= (0 if dtype == np.float32 else 1e-16), n


def test_rows_of_any_scale_are_calibrated_by_their_own_sum():
    given = np.array([[[8.0, 2.0], [0.0, 0.0]]])
    (excess,) = capacities(Network.encoder(given, residual=0.0, calibration="excess"))
    np.testing.assert_array_equal(excess, [[3.0, 0.0], [0.0, 0.0]])


# ---- forms of input ------------------------------------------------------------------------------------------------


def forms(given, library):
    """The same (L, H, n, n) contributions in every form that is accepted."""
    convert = torch.from_numpy if library == "torch" else np.asarray
    yield "array", convert(given)
    yield "list", [convert(layer) for layer in given]
    yield "tuple with a batch axis", tuple(convert(layer[None]) for layer in given)
    yield "generator", (convert(layer) for layer in given)
    yield "array with a batch axis", convert(given[:, None])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_forms_agree(library):
    given = stack()
    expected = capacities(Network.encoder(given))
    for name, form in forms(given, library):
        for made, wanted in zip(capacities(Network.encoder(form)), expected, strict=True):
            np.testing.assert_allclose(made, wanted, rtol=1e-6, err_msg=name)


def test_layers_may_have_different_numbers_of_heads_and_libraries():
    a, b, c = stack(1, 3)[0], stack(1, 2)[0], stack(1, 1)[0, 0]
    made = capacities(Network.encoder([a, torch.from_numpy(b), c]))
    for layer, given in zip(made, (a, b, c[None]), strict=True):
        np.testing.assert_allclose(layer, 0.5 * given.mean(axis=0) + 0.5 * np.eye(5), rtol=1e-6)


def test_lists_of_numbers():
    (layer,) = capacities(Network.encoder([[[1, 3], [2, 0]]], residual=0.0))
    np.testing.assert_array_equal(layer, [[1, 3], [2, 0]])


def views(given):
    yield "Fortran", np.asfortranarray(given)
    yield "transposed twice", np.ascontiguousarray(given.swapaxes(-1, -2)).swapaxes(-1, -2)
    yield "reversed", np.ascontiguousarray(given[:, ::-1, ::-1])[:, ::-1, ::-1]
    padded = np.full((*given.shape[:-2], given.shape[-2] * 2, given.shape[-1] * 3), np.nan, dtype=given.dtype)
    padded[..., ::2, ::3] = given
    yield "slice of a larger array", padded[..., ::2, ::3]
    locked = given.copy()
    locked.flags.writeable = False
    yield "read-only", locked


@pytest.mark.parametrize("options", [{}, {"residual": 0.0}, {"residual": 0.0, "calibration": "excess"}])
def test_strides_do_not_matter(options):
    given = instances.softmax(2, 5, seed=0)
    expected = capacities(Network.encoder(given, **options))
    for name, view in views(given):
        made = capacities(Network.encoder(view, **options))
        np.testing.assert_array_equal(np.stack(made), np.stack(expected), err_msg=name)


def test_broadcast_input():
    layer = instances.softmax(1, 4, seed=0)[0]
    made = capacities(Network.encoder(np.broadcast_to(layer, (3, 2, 4, 4))))
    for matrix in made:
        np.testing.assert_allclose(matrix, 0.5 * layer + 0.5 * np.eye(4), rtol=1e-6)


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_nothing_is_copied_where_nothing_is_computed(dtype):
    given = (instances.softmax(3, 6, seed=0) * 100).astype(dtype)
    for form in (given, given[:, None], np.asfortranarray(given), torch.from_numpy(given)):
        network = Network.encoder(form, residual=0)
        base = form.numpy() if isinstance(form, torch.Tensor) else form
        assert all(np.shares_memory(layer, base) for layer in capacities(network))
        assert network.nbytes == given.nbytes


def test_capacities_cannot_be_written_through_the_network():
    given = instances.softmax(1, 3, seed=0)
    for residual in (0.0, 0.5):
        with pytest.raises(ValueError, match="read-only"):
            capacities(Network.encoder(given, residual=residual))[0][0, 0] = 1.0
    assert given.flags.writeable
    network = Network.encoder(given)
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.sizes = (1, 2)


def test_one_transfer_a_layer(monkeypatch):
    transfers = []
    original = torch.Tensor.numpy
    monkeypatch.setattr(
        torch.Tensor, "numpy", lambda self, **how: transfers.append(self.shape) or original(self, **how)
    )
    Network.decoder(torch.from_numpy(stack(4, 2, 3, causal=True)), calibration="excess")
    assert transfers == [(3, 3)] * 4


def test_tensors_with_a_gradient_stay_as_they_are():
    given = torch.from_numpy(stack()).requires_grad_()
    Network.encoder(given, residual=0.5, calibration="excess")
    assert given.requires_grad
    assert given.grad is None


def test_torch_is_not_imported():
    code = (
        "import sys, numpy as np, attnflow\n"
        "attnflow.Network.decoder(np.tri(3)[None]).source_flows()\n"
        "assert not {'torch', 'transformers', 'scipy', 'matplotlib', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.gpu
def test_on_the_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        given = torch.from_numpy(stack(causal=True)).to("cuda", dtype)
        options = {"residual": 0.25, "calibration": "excess"}
        for heads in ("mean", "max", 1, (0.2, 0.3, 0.5)):
            there = capacities(Network.decoder(given, heads=heads, **options))
            here = capacities(Network.decoder(given.cpu(), heads=heads, **options))
            np.testing.assert_allclose(np.stack(there), np.stack(here), rtol=1e-5, atol=1e-7)


# ---- blocks --------------------------------------------------------------------------------------------------------


def test_from_blocks_takes_links_tuples_and_tensors():
    matrix, diagonal = np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 1.0]]), np.array([4.0, np.inf])
    for convert in (np.asarray, torch.from_numpy, np.ndarray.tolist):
        parts = [(0, 1, convert(matrix)), (0, 1, convert(diagonal), 1)]
        for links in (parts, [list(link) for link in parts], iter(parts)):
            network = Network.from_blocks([2, 3], links)
            made = [(link.giver, link.receiver, link.capacities.tolist(), link.offset) for link in network.links]
            assert made == [(0, 1, matrix.tolist(), 0), (0, 1, diagonal.tolist(), 1)]
    again = Network.from_blocks(np.array([2, 3]), network.links)
    assert [link.offset for link in again.links] == [0, 1]
    assert again.sizes == (2, 3)
    assert again.n_edges == 7
    np.testing.assert_array_equal(again.source_flows([0, 1], sources=[0]).values, [[1.0], [4.0]])


@pytest.mark.parametrize(
    "form", [scipy.sparse.csr_array, SparseMatrix.from_dense, torch.from_numpy, np.ndarray.tolist], ids=str
)
def test_a_network_holds_what_it_can_read(form):
    matrix = np.array([[0.5, 0.0], [0.25, 0.75]])
    network = Network((2, 2), (Link(0, 1, form(matrix)),))
    assert repr(network) == "Network(sizes=(2, 2), n_layers=1, n_edges=3)"
    assert network.nbytes == network.links[0].capacities.nbytes
    assert network.pooled().source_flows().values.tolist() == [[0.75, 0.5]]
    assert network.sparsified(keep=1).n_edges == 2
    assert network.source_flows().values.tolist() == [[0.25, 0.75]]


def test_from_blocks_reads_half_precision():
    tensor = torch.tensor([[0.5]], dtype=torch.bfloat16)
    assert Network.from_blocks([1, 1], [(0, 1, tensor)]).source_flows().values == 0.5
    assert Network.from_blocks([1, 1], [(0, 1, np.float16([[0.5]]))]).source_flows().values == 0.5


def test_an_encoder_is_the_chain_of_its_matrices():
    given = instances.peaked(3, 5, seed=1)
    chain = Network.from_blocks([5] * 4, [(layer, layer + 1, matrix) for layer, matrix in enumerate(given)])
    encoder, decoder = Network.encoder(given, residual=0.0), Network.decoder(given, residual=0.0)
    for network in (chain, encoder, decoder):
        np.testing.assert_array_equal(
            network.source_flows(range(5)).values, maxflow.layered(given, sinks=range(5)).values
        )


def test_counts():
    given = instances.peaked(3, 5, seed=1)
    network = Network.decoder(given)
    assert (network.n_layers, network.n_positions, network.n_nodes, network.n_edges) == (3, 5, 20, 3 * 15)
    assert network.nbytes == 3 * 25 * 4
    assert repr(network) == "Network(sizes=(5, 5, 5, 5), n_layers=3, n_edges=45)"
    assert repr(Network.encoder(np.ones((9, 2, 2)))) == "Network(sizes=(2, ..., 2), n_layers=9, n_edges=36)"
    for offset, inside in ((-3, 0), (-1, 2), (0, 3), (1, 3), (2, 2), (4, 0)):
        edges = Network.from_blocks([3, 4], [(0, 1, np.ones(3), offset)]).n_edges
        assert edges == inside, offset


# ---- flows ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def network():
    return Network.decoder(instances.peaked(3, 6, seed=2), residual=0.0)


def test_sinks_and_sources(network):
    full = network.source_flows(range(6)).values
    assert full.shape == (6, 6)
    np.testing.assert_array_equal(network.source_flows().values, full[[5]])
    np.testing.assert_array_equal(network.source_flows(2).values, full[[2]])
    np.testing.assert_array_equal(network.source_flows(np.int64(2)).values, full[[2]])
    np.testing.assert_array_equal(network.source_flows(np.array([4, -4])).values, full[[4, 2]])
    np.testing.assert_array_equal(network.source_flows([5, 0], sources=[1, -6]).values, full[[5, 0]][:, [1, 0]])
    np.testing.assert_array_equal(network.source_flows(sources=3).values, full[5:, [3]])


def test_super_nodes(network):
    matrices = [link.capacities for link in network.links]
    joined = network.source_flows([{3, 5}, 4], sources=[[0, 1], 2]).values
    expected = maxflow.layered(matrices, sinks=[{3, 5}, 4], sources=[{0, 1}, 2]).values
    np.testing.assert_array_equal(joined, expected)
    for sinks in ({3, 5}, frozenset({3, 5}), [[3, 5]], [(5, 3)], [range(3, 6, 2)], np.array([[3, 5]]), [{-1, 3}]):
        np.testing.assert_array_equal(network.source_flows(sinks, sources=[{0, 1}, 2]).values, joined[:1])
    np.testing.assert_array_equal(network.source_flows([[3, 3, 5, -1]], sources=[[0, 1]]).values, joined[:1, :1])


def test_options_reach_the_kernel(network):
    calls = []
    flows = network.source_flows(
        sources=[2],
        threads=1,
        algorithm="push_relabel",
        bottlenecks=True,
        cuts=True,
        flows=True,
        check=True,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert flows.bottlenecks.shape == (1, 1)
    assert flows.cuts[0][0].capacity == pytest.approx(flows.values[0, 0])
    assert flows.flows.flow.sum() > 0
    assert flows.stats["algorithm"] == "push_relabel"
    assert flows.stats["threads"] == 1
    plain = network.source_flows(sources=[2])
    assert plain.bottlenecks is plain.cuts is plain.flows is None


def test_pooling_is_the_mean(network):
    pooled = network.pooled()
    assert pooled.sizes == (6, 6, 6, 6, 1)
    assert (pooled.n_layers, pooled.n_edges) == (4, network.n_edges + 6)
    np.testing.assert_allclose(pooled.links[-1].capacities, np.full((1, 6), 1 / 6), rtol=1e-7)
    some = network.pooled([1, -1])
    np.testing.assert_array_equal(some.links[-1].capacities, [[0, 0.5, 0, 0, 0, 0.5]])
    matrices = [link.capacities for link in some.links]
    np.testing.assert_array_equal(some.source_flows().values, maxflow.layered(matrices).values)
    assert network.sizes == (6, 6, 6, 6)


def test_pooling_one_position_is_that_position():
    """An edge of capacity 1 limits nothing where rows sum to 1."""
    network = Network.encoder(instances.softmax(2, 5, seed=0, residual=0.0))
    np.testing.assert_allclose(network.pooled([3]).source_flows().values, network.source_flows(3).values, rtol=1e-6)


@pytest.mark.parametrize("positions", [[], [6], [-7], [1, 1], [1, -5], [0.5], [True], 3, "01", [[1, 2]]])
def test_pooling_refuses(network, positions):
    with pytest.raises(InvalidArgumentError, match="positions"):
        network.pooled(positions)


# ---- visible positions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_excess_spreads_over_what_is_visible(convert):
    n, window = 9, 3
    counts = np.minimum(np.arange(1, n + 1), window)
    ahead = np.arange(n)[None, :] - np.arange(n)[:, None]
    even = np.where((ahead <= 0) & (ahead > -window), 1.0, 0.0) / counts[:, None]
    assert Network.decoder([convert(even)], residual=0, calibration="excess").n_edges > 0
    aware = Network.decoder([convert(even)], residual=0, calibration="excess", visible=[convert(counts)])
    assert aware.n_edges == 0
    unsaid = Network.decoder([convert(even)], residual=0, calibration="excess", visible=[None])
    said = Network.decoder([convert(even)], residual=0, calibration="excess", visible=[np.arange(1, n + 1)])
    assert np.array_equal(unsaid.links[0].capacities, said.links[0].capacities)


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ([], r"visible has 0 entries.*1"),
        (7, "visible is 7"),
        ([[1, 2]], r"shape \(2,\)"),
        ([[1.0, 2.0, 3.0]], "integers"),
        ([[1, 0, 3]], "position 1 sees 0 positions: it sees 1 to 2"),
        ([[1, 2, 4]], "position 2 sees 4 positions: it sees 1 to 3"),
    ],
)
def test_visible_counts_that_cannot_be(visible, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Network.decoder(np.eye(3)[None], calibration="excess", visible=visible)
