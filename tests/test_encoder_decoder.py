"""Networks of two stacks against graphs written edge by edge from docs/definitions.md."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import PARTS, M, N, attention, close, every_flow, wanted

from attnflow import Network, SparseMatrix, TriangularMatrix, instances, maxflow
from attnflow.errors import InvalidArgumentError, InvalidCapacityError

torch = pytest.importorskip("torch")


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", ["sublayers", "single"])
@pytest.mark.parametrize("calibration", [None, "excess"])
@pytest.mark.parametrize("residual", [0, 0.3, 0.5, 1.0])
def test_flows_follow_the_definitions(merge, calibration, residual):
    parts = attention(seed=1)
    before = [part.copy() for part in parts]
    options = {"residual": residual, "calibration": calibration, "merge": merge}
    network = Network.encoder_decoder(*parts, **options)
    close(every_flow(network, check=True), wanted(*parts, **options))
    for part, copy in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("calibration", [None, "excess"])
def test_kept_is_what_cross_attention_leaves(calibration):
    parts = attention(seed=2)
    kept = np.random.default_rng(3).random((2, M))
    expected = wanted(*parts, residual=0, kept=kept.tolist(), calibration=calibration)
    for given_as in (kept, list(kept), torch.from_numpy(kept), kept.tolist(), tuple(map(torch.from_numpy, kept))):
        network = Network.encoder_decoder(*parts, residual=0, kept=given_as, calibration=calibration)
        close(every_flow(network), expected)


def test_kept_that_is_the_residual_is_the_residual():
    """C = (1 - r) A + r I written by hand, which is what measures that hold the residual look like."""
    encoder, decoder, cross = attention(seed=4)
    held = [0.75 * encoder + 0.25 * np.eye(N), 0.75 * decoder + 0.25 * np.eye(M), 0.75 * cross]
    for calibration in (None, "excess"):
        by_hand = Network.encoder_decoder(*held, residual=0, kept=np.full((2, M), 0.25), calibration=calibration)
        made = Network.encoder_decoder(encoder, decoder, cross, residual=0.25, calibration=calibration)
        for link, other in zip(by_hand.links, made.links, strict=True):
            close(link.capacities, other.capacities, 1e-15)


@pytest.mark.parametrize("merge", ["sublayers", "single"])
@pytest.mark.parametrize("form", [dict, lambda visible: tuple(visible.values())], ids=["mapping", "triple"])
def test_visible_positions(merge, form):
    parts = attention(seed=5)
    counts = {"encoder": [np.array([4, 3, 2, 1])] * 2, "decoder": [np.array([1, 1, 2])] * 2, "cross": [[1, 2, 3]] * 2}
    counts["cross"] = [np.array(entry, dtype=np.uint8) for entry in counts["cross"]]
    network = Network.encoder_decoder(*parts, calibration="excess", visible=form(counts), merge=merge)
    if merge == "sublayers":
        close(every_flow(network), wanted(*parts, calibration="excess", visible=counts))
    else:
        both = [own + across for own, across in zip(counts["decoder"], counts["cross"], strict=True)]
        seen = {"encoder": counts["encoder"], "": both}
        close(every_flow(network), wanted(*parts, calibration="excess", visible=seen, merge=merge))


def test_visible_of_one_part():
    parts = attention(seed=5)
    counts = {"cross": [np.array([1, 2, 3])] * 2}
    expected = wanted(*parts, calibration="excess", visible=counts)
    for visible in (counts, counts | {"encoder": None, "decoder": [None, None]}, (None, None, counts["cross"])):
        close(every_flow(Network.encoder_decoder(*parts, calibration="excess", visible=visible)), expected)


def test_narrow_counts_do_not_wrap_around():
    parts = attention(1, n=255, m=2)
    made = [
        Network.encoder_decoder(*parts, calibration="excess", visible={"cross": visible}, merge=merge)
        for merge in ("sublayers", "single")
        for visible in (None, [np.full(2, 255, dtype=np.uint8)])
    ]
    for plain, narrow in (made[:2], made[2:]):
        for link, other in zip(plain.links, narrow.links, strict=True):
            np.testing.assert_array_equal(link.capacities, other.capacities)


def test_what_is_even_has_no_excess():
    """Each row even over all it can draw from, the position itself among them."""
    for n, m in ((1, 1), (3, 5), (30, 7)):
        encoder = np.full((1, n, n), 1 / n, dtype=np.float32)
        decoder = (np.tri(m) / np.arange(1, m + 1)[:, None]).astype(np.float32)[None]
        cross = np.full((1, m, n), 1 / (n + 1), dtype=np.float32)
        kept = cross[:, :, 0]
        two = Network.encoder_decoder(encoder, decoder, cross, residual=0, calibration="excess", kept=kept)
        assert two.n_edges == 0
        cross_alone = np.full((1, m, n), 1 / n, dtype=np.float32)
        raw = Network.encoder_decoder(encoder, decoder, cross_alone, residual=0, calibration="excess")
        assert raw.n_edges == 0
        lower = np.tri(m, dtype=np.float32)[None]
        one = Network.encoder_decoder(
            encoder, lower, np.ones((1, m, n)), residual=0, calibration="excess", merge="single"
        )
        assert one.n_edges == 0


@pytest.mark.parametrize("heads", ["mean", "max", "min", 1, -1, (0.5, 0.0, 2.0)])
@pytest.mark.parametrize("merge", ["sublayers", "single"])
def test_heads_are_reduced_in_every_part(heads, merge):
    parts = attention(2, 3, seed=6)
    if isinstance(heads, str):
        flat = [getattr(part, heads)(axis=1) for part in parts]
    elif isinstance(heads, int):
        flat = [part[:, heads] for part in parts]
    else:
        flat = [np.einsum("h,lhjk->ljk", heads, part) for part in parts]
    close(every_flow(Network.encoder_decoder(*parts, heads=heads, merge=merge)), wanted(*flat, merge=merge))


def test_blocks_and_links_are_in_the_order_of_the_definitions():
    parts = attention(2)
    ends = [(0, 1), (1, 2), (3, 4), (2, 5), (4, 5), (5, 6), (2, 7), (6, 7)]
    network = Network.encoder_decoder(*parts)
    assert network.sizes == (N,) * 3 + (M,) * 5
    assert [(link.giver, link.receiver) for link in network.links] == ends
    raw = Network.encoder_decoder(*parts, residual=0)
    assert [(link.giver, link.receiver) for link in raw.links] == [end for end in ends if end not in ((4, 5), (6, 7))]
    single = Network.encoder_decoder(*parts, merge="single")
    assert single.sizes == (N,) * 3 + (M,) * 3
    assert [(link.giver, link.receiver) for link in single.links] == [(0, 1), (1, 2), (3, 4), (2, 4), (4, 5), (2, 5)]
    for made, n_layers in ((network, 6), (raw, 6), (single, 4)):
        assert (made.inputs, made.n_positions, made.n_layers) == ((0, 3), N + M, n_layers)
    assert repr(single) == "Network(sizes=(4, 4, 4, 3, 3, 3), n_layers=4, n_edges=68, inputs=(0, 3))"


def test_stacks_may_differ_in_layers_and_the_generator_agrees():
    made = instances.encoder_decoder(3, 5, 2, 4, seed=7)
    encoder = instances.softmax(3, 5, seed=7, residual=0)
    decoder = instances.peaked(2, 4, seed=7, residual=0)
    cross = [link[2] * 2 for link in made.links if link[2].shape == (4, 5)]
    network = Network.encoder_decoder(encoder, decoder, cross)
    assert network.sizes == made.sizes
    by_hand = Network.from_blocks(made.sizes, made.links, inputs=(0, 4))
    close(every_flow(network), every_flow(by_hand), 1e-6)
    close(every_flow(network), wanted(encoder, decoder, cross), 1e-6)


# ---- forms of input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", ["sublayers", "single"])
@pytest.mark.parametrize("calibration", [None, "excess"])
def test_forms_of_input_agree(merge, calibration):
    parts = attention(2, 3, seed=8, dtype=np.float32)
    options = {"merge": merge, "calibration": calibration}
    expected = every_flow(Network.encoder_decoder(*parts, **options))
    forms = {
        "torch": map(torch.from_numpy, parts),
        "generators": ((layer for layer in part) for part in parts),
        "lists with a batch axis": ([layer[None] for layer in part] for part in parts),
        "array with a batch axis": (part[:, None] for part in parts),
        "torch for the decoder alone": (parts[0], torch.from_numpy(parts[1]), parts[2]),
    }
    for name, form in forms.items():
        found = every_flow(Network.encoder_decoder(*form, **options))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_stored_matrices_are_made_whole():
    encoder, decoder, cross = (part[0] for part in attention(1, seed=9))
    stored = [scipy.sparse.csr_array(encoder)], [TriangularMatrix.from_dense(decoder)], [SparseMatrix.from_dense(cross)]
    close(every_flow(Network.encoder_decoder(*stored)), wanted([encoder], [decoder], [cross]))


@pytest.mark.parametrize(
    ("dtype", "made"),
    [
        (torch.float16, np.float32),
        (torch.bfloat16, np.float32),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
        (torch.int64, np.float64),
    ],
)
@pytest.mark.parametrize("options", [{}, {"merge": "single"}, {"calibration": "excess"}])
def test_dtypes(dtype, made, options):
    tensors = [(torch.from_numpy(part) * 100).to(dtype) for part in attention(seed=10)]
    arrays = [tensor.to(torch.float64).numpy() for tensor in tensors]
    expected = Network.encoder_decoder(*arrays, **options).links
    forms = [tensors] if dtype == torch.bfloat16 else [tensors, [tensor.numpy() for tensor in tensors]]
    for form in forms:
        for link, other in zip(Network.encoder_decoder(*form, **options).links, expected, strict=True):
            assert link.capacities.dtype == made
            assert not link.capacities.flags.writeable
            np.testing.assert_allclose(link.capacities, other.capacities, rtol=1e-5, atol=1e-4)


def test_nothing_is_copied_where_nothing_is_computed():
    parts = attention(1, dtype=np.float32)
    network = Network.encoder_decoder(*parts, residual=0)
    for link, part in zip(network.links, parts, strict=True):
        assert np.shares_memory(link.capacities, part)


@pytest.mark.parametrize("merge", ["sublayers", "single"])
@pytest.mark.parametrize("options", [{}, {"calibration": "excess"}, {"residual": 0}])
def test_layers_of_generators_live_one_at_a_time(merge, options):
    class Layer(np.ndarray):
        pass

    drawn, alive = [], []

    def layers(part):
        for matrix in part:
            alive.append(sum(layer() is not None for layer in drawn))
            layer = matrix.view(Layer).copy()
            drawn.append(weakref.ref(layer))
            yield layer
            del layer

    encoder, decoder, cross = attention(4, 2)
    network = Network.encoder_decoder(layers(encoder), layers(decoder), layers(cross), merge=merge, keep=1, **options)
    assert alive[:5] == [0] * 5
    assert max(alive) <= 1  # of self-attention and cross-attention, either waits for the other
    whole = Network.encoder_decoder(encoder, decoder, cross, merge=merge, keep=1, **options)
    np.testing.assert_array_equal(every_flow(network), every_flow(whole))


@pytest.mark.parametrize("options", [{}, {"calibration": "excess"}, {"merge": "single", "calibration": "excess"}])
def test_one_transfer_a_matrix(monkeypatch, options):
    transfers = []
    original = torch.Tensor.numpy
    monkeypatch.setattr(
        torch.Tensor, "numpy", lambda self, **how: transfers.append(tuple(self.shape)) or original(self, **how)
    )
    Network.encoder_decoder(*map(torch.from_numpy, attention(2, 2)), **options)
    column = [] if "merge" in options else [(M, 1)]
    assert transfers == [(N, N)] * 2 + [(M, M), (M, N), *column] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"calibration": "excess"}, {"merge": "single", "calibration": "excess"}])
def test_on_the_gpu(options):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        here = [torch.from_numpy(part).to(dtype) for part in attention(2, 3)]
        there = [part.to("cuda") for part in here]
        mixed = [here[0], there[1], here[2]]
        expected = every_flow(Network.encoder_decoder(*here, **options))
        for parts in (there, mixed):
            np.testing.assert_allclose(
                every_flow(Network.encoder_decoder(*parts, **options)), expected, rtol=1e-4, atol=1e-6
            )


# ---- sources, pooling, sparse layers ---------------------------------------------------------------------------------


def test_sources_count_through_the_inputs():
    network = Network.encoder_decoder(*attention(seed=11))
    full = every_flow(network)
    np.testing.assert_array_equal(network.source_flows(sources=[N, -1, 0]).values, full[[-1]][:, [N, N + M - 1, 0]])
    across = network.source_flows(0, sources=[{0, N}, {-1, -2}]).values
    nodes = [[(0, 0), (3, 0)], [(3, 1), (3, 2)]]
    sinks = [(len(network.sizes) - 1, 0)]
    np.testing.assert_array_equal(
        across, maxflow.blocks(network.sizes, network.links, sources=nodes, sinks=sinks).values
    )
    again = Network.from_blocks(network.sizes, network.links, inputs=[3, 0])
    assert again.inputs == (3, 0)
    np.testing.assert_array_equal(every_flow(again), full[:, [*range(N, N + M), *range(N)]])


@pytest.mark.parametrize("source", [N + M, -N - M - 1])
def test_sources_out_of_range_name_the_blocks(source):
    network = Network.encoder_decoder(*attention())
    rule = rf"sources\[0\] is {source}, but the row of blocks 0, 3 has 7 nodes: 0 ... 6"
    with pytest.raises(InvalidArgumentError, match=rule):
        network.source_flows(sources=[source])


def test_pooled_and_sparsified_keep_the_inputs():
    network = Network.encoder_decoder(*attention(seed=12))
    full = every_flow(network)
    for thin in (network.sparsified(keep=2), Network.encoder_decoder(*attention(seed=12), keep=2)):
        assert thin.inputs == (0, 3)
        bounds = thin.source_flows(range(M))
        assert (bounds.lower <= full + 1e-12).all()
        assert (full <= bounds.upper + 1e-12).all()
        assert thin.n_edges < network.n_edges
        assert all(link.capacities.ndim == 1 for link in thin.links[4::3])
    pooled = network.pooled([1, 2])
    assert pooled.inputs == (0, 3)
    assert pooled.source_flows().values.shape == (1, N + M)
    assert (pooled.source_flows().values <= full[1:].sum(axis=0) + 1e-12).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "inputs is empty"),
        (3, "inputs is 3; it must be a sequence of blocks"),
        (None, "inputs is None"),
        ("0", "inputs is '0'"),
        ((0, 0), r"inputs\[1\]=0 names block 0 again"),
        ((0, 2), r"inputs\[1\]=2 is the last block, which holds the outputs"),
        ((3,), r"inputs\[0\]=3 names no block; there are 3"),
        ((-1,), r"inputs\[0\]=-1 names no block"),
        ((0.5,), r"inputs\[0\] is 0.5; it must be an integer"),
        ((True,), r"inputs\[0\] is True; it must be an integer"),
    ],
)
def test_inputs_that_cannot_be(inputs, message):
    links = [(0, 1, np.eye(2)), (1, 2, np.eye(2))]
    with pytest.raises(InvalidArgumentError, match=message):
        Network.from_blocks([2, 2, 2], links, inputs=inputs)


# ---- bad input -------------------------------------------------------------------------------------------------------


def spoiled(part, place, value):
    parts = attention()
    parts[PARTS.index(part)][place] = value
    return dict(zip(PARTS, parts, strict=True))


BAD_CONTRIBUTIONS = {
    "NaN in the encoder": (spoiled("encoder", (1, 2, 0), np.nan), "encoder layer 1 holds nan at receiver 2, giver 0"),
    "negative in the decoder": (spoiled("decoder", (0, 2, 1), -1), "decoder layer 0 holds -1.0 at receiver 2, giver 1"),
    "infinite cross": (spoiled("cross", (1, 0, 3), np.inf), "cross layer 1 holds inf at receiver 0, giver 3"),
    "a later position": (spoiled("decoder", (1, 0, 2), 1), "decoder layer 1 holds 1.0 at receiver 0, giver 2"),
    "no cross": ({"cross": None}, r"cross must be \(L, m, n\).*not NoneType"),
    "no encoder": ({"encoder": 3}, r"encoder must be \(L, n, n\).*not int"),
    "cross of one layer": ({"cross": np.ones((M, N))}, r"cross of shape \(3, 4\).*one layer has L = 1"),
    "an empty decoder": ({"decoder": []}, "decoder hold no layer"),
    "an empty cross": ({"cross": iter(())}, "cross hold no layer"),
    "complex": ({"cross": np.ones((2, M, N), dtype=complex)}, "cross has dtype complex128"),
    "a batch": ({"cross": [np.ones((2, 2, M, N))]}, r"cross layer 0 has shape \(2, 2, 3, 4\), a batch of 2"),
    "a vector": ({"cross": [np.ones(N)]}, r"cross layer 0 has shape \(4,\): \(m, n\), \(H, m, n\)"),
    "turned cross": ({"cross": np.ones((2, N, M))}, r"cross layer 0 has shape \(4, 3\): a row for each of 3 receivers"),
    "another size": (
        {"cross": [np.ones((M, N)), np.ones((1, M, 5))]},
        r"cross layer 1.*\(1, 3, 5\).* each of 4 givers",
    ),
    "no columns": ({"cross": np.ones((2, M, 0))}, r"cross layer 0 has shape \(3, 0\): it is empty"),
    "an oblong encoder": ({"encoder": np.ones((2, M, N))}, r"encoder layer 0 has shape \(3, 4\): receivers and givers"),
    "decoder layers apart": ({"decoder": [np.eye(3), np.eye(4)]}, r"decoder layer 1.*\(4, 4\), but layer 0 has 3"),
    "more of the decoder": ({"decoder": np.eye(M)[None].repeat(3, axis=0)}, "cross holds 2 layers, decoder more"),
    "more cross": ({"cross": np.ones((3, M, N))}, "decoder holds 2 layers, cross more"),
}


@pytest.mark.parametrize("merge", ["sublayers", "single"])
@pytest.mark.parametrize(("changed", "message"), BAD_CONTRIBUTIONS.values(), ids=BAD_CONTRIBUTIONS)
def test_contributions_that_cannot_be(merge, changed, message):
    if isinstance(changed.get("cross"), type(iter(()))):
        changed = {"cross": iter(())}
    with pytest.raises(InvalidCapacityError, match=message):
        Network.encoder_decoder(**dict(zip(PARTS, attention(), strict=True)) | changed, merge=merge)


def test_heads_and_weights_are_those_of_each_part():
    encoder, decoder, cross = attention(1, 2)
    with pytest.raises(InvalidArgumentError, match=r"heads=2 is out of range: encoder layer 0 of shape \(2, 4, 4\)"):
        Network.encoder_decoder(encoder, decoder, cross, heads=2)
    with pytest.raises(InvalidArgumentError, match=r"heads holds 2 weights, but cross layer 0 of shape \(1, 3, 4\)"):
        Network.encoder_decoder(encoder, decoder, cross[:, :1], heads=(1, 1))


KEPT = np.full((2, M), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": 1.5}, "residual=1.5 is outside 0..1"),
        ({"residual": "half"}, "residual='half': a number from 0 to 1"),
        ({"residual": True}, "residual=True"),
        ({"heads": "sum"}, "heads='sum' is unknown"),
        ({"calibration": "even"}, "calibration='even' is unknown"),
        ({"merge": "double"}, 'merge=\'double\' is unknown: choose "sublayers" or "single"'),
        ({"merge": None}, "merge=None is unknown"),
        ({"keep": -1}, "keep is -1"),
        ({"below": -0.5}, "below=-0.5|below is -0.5"),
        ({"visible": 5}, "visible is 5; it must be a mapping of 'encoder', 'decoder', 'cross', or three"),
        ({"visible": [None]}, "visible has 1 entries; it must be a mapping"),
        ({"visible": {"top": None}}, "visible names 'top'; it must be a mapping"),
        ({"visible": {"cross": [None]}}, r"visible\['cross'\] has 1 entries; one a layer is needed: 2"),
        ({"visible": {"decoder": [None] * 3}}, r"visible\['decoder'\] has 3 entries; one a layer is needed: 2"),
        (
            {"visible": {"cross": [None, [1, 5, 1]]}},
            r"visible\['cross'\]\[1\] says.*1 sees 5 positions: it sees 1 to 4",
        ),
        ({"visible": {"decoder": [[1, 0, 1], None]}}, r"visible\['decoder'\]\[0\] says that position 1 sees 0"),
        ({"visible": {"encoder": [[1, 2], None]}}, r"visible\['encoder'\]\[0\] has shape \(2,\).*4 integers"),
        ({"kept": KEPT}, "residual=0.5 beside kept.*residual=0 is needed"),
        ({"kept": KEPT, "residual": 0, "merge": "single"}, 'kept is given beside merge="single".*block between'),
        ({"kept": KEPT[:1], "residual": 0}, "kept has 1 entries; one a layer is needed: 2"),
        ({"kept": KEPT[[0, 0, 0]], "residual": 0}, "kept has 3 entries; one a layer is needed: 2"),
        ({"kept": 0.5, "residual": 0}, r"kept is 0.5; it must be a sequence of one entry a layer, \(m,\)"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Network.encoder_decoder(*attention(), **options)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (np.ones(2), r"kept\[1\] has shape \(2,\): \(3,\) is needed"),
        (np.ones((3, 1)), r"kept\[1\] has shape \(3, 1\)"),
        ([0.5, -1, 0], r"kept\[1\] holds -1.0 at position 1"),
        ([0.5, 0, np.inf], r"kept\[1\] holds inf at position 2"),
        ("abc", r"kept\[1\] is 'abc'"),
        (None, r"kept\[1\] is None"),
    ],
)
def test_kept_that_cannot_be(entry, message):
    with pytest.raises(InvalidCapacityError, match=message):
        Network.encoder_decoder(*attention(), residual=0, kept=[KEPT[0], entry])


def test_options_are_keywords():
    with pytest.raises(TypeError):
        Network.encoder_decoder(*attention(), 0.5)
    with pytest.raises(TypeError):
        Network.from_blocks([2, 2], [(0, 1, np.eye(2))], (0,))


# ---- what must hold for every network --------------------------------------------------------------------------------

seeds = st.integers(0, 10_000)
some = settings(max_examples=25)


@some
@given(seeds, st.sampled_from(["sublayers", "single"]), st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from([0.25, 8.0]))
def test_scaling_contributions_scales_the_flows(seed, merge, residual, factor):
    parts = attention(seed=seed)
    network = Network.encoder_decoder(*parts, residual=residual, merge=merge)
    scaled = [(link.giver, link.receiver, link.capacities * factor) for link in network.links]
    larger = Network.from_blocks(network.sizes, scaled, inputs=network.inputs)
    np.testing.assert_array_equal(every_flow(larger), factor * every_flow(network))


@some
@given(seeds)
def test_without_cross_attention_the_decoder_is_alone(seed):
    """Rows sum to 1, so that a diagonal of 1 behind them limits nothing."""
    encoder, decoder, cross = attention(seed=seed)
    network = Network.encoder_decoder(encoder, decoder, 0 * cross, residual=0, kept=np.ones((2, M)))
    flows = every_flow(network)
    assert not flows[:, :N].any()
    close(flows[:, N:], every_flow(Network.decoder(decoder, residual=0)))


@some
@given(seeds, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_without_cross_attention_one_block_a_layer_is_a_decoder(seed, r):
    """r I + (1 - r)/2 A is (1 + r)/2 times the layer of a decoder with the residual 2 r/(1 + r)."""
    encoder, decoder, cross = attention(seed=seed)
    flows = every_flow(Network.encoder_decoder(encoder, decoder, 0 * cross, residual=r, merge="single"))
    assert not flows[:, :N].any()
    close(flows[:, N:], (1 + r) / 2 * every_flow(Network.decoder(decoder, residual=2 * r / (1 + r))))
