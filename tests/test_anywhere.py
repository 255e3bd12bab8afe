"""Networks from arrays of any library, in any shape, and from batches of texts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from stacks import attention, close, every_flow

from attnflow import Network
from attnflow.errors import InvalidArgumentError, InvalidCapacityError

torch = pytest.importorskip("torch")

CAUSAL = {Network.encoder: False, Network.decoder: True}


class WithArray:
    """Of a library that numpy can read, and that is no sequence."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values


class Sliced(WithArray):
    """The same, read a layer at a time, as JAX's and h5py's are."""

    read = 0

    @property
    def shape(self):
        return self.values.shape

    def __array__(self, dtype=None, copy=None):
        assert self.values.ndim < 5, "a layer at a time"
        type(self).read += 1
        return self.values

    def __iter__(self):
        return (type(self)(layer) for layer in self.values)


class WithCapsule:
    """Of a library that knows the array protocol of DLPack alone."""

    def __init__(self, values):
        self.values = values if isinstance(values, torch.Tensor) else torch.as_tensor(values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class OnDevice(WithCapsule):
    """And that refuses to be copied to the host without being asked, as CuPy's are."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion is not allowed")


def stack(causal=False, n_layers=2, n_heads=3, n=5, seed=0):
    drawn = np.random.default_rng(seed).random((n_layers, n_heads, n, n), dtype=np.float32)
    drawn = np.tril(drawn) if causal else drawn
    return drawn / drawn.sum(axis=-1, keepdims=True)


def forms(given):
    """The same (L, H, n, n) contributions as different libraries hand them over."""
    tensors = torch.from_numpy(given)
    yield "output_attentions of transformers", tuple(layer[None] for layer in tensors)
    yield "(L, B, H, n, n)", given[:, None]
    yield "(L, B, H, n, n), torch", tensors[:, None]
    yield "lists of numbers", given.tolist()
    yield "lists of layers of numbers, with a batch", [[layer] for layer in given.tolist()]
    yield "lists of heads", [list(layer) for layer in given]
    yield "lists of heads, torch", [list(layer) for layer in tensors]
    yield "lists of heads that learn", [tuple(head.clone().requires_grad_() for head in layer) for layer in tensors]
    for kind in (WithArray, Sliced, WithCapsule, OnDevice):
        yield f"{kind.__name__}, layer by layer", [kind(layer) for layer in given]
        yield f"{kind.__name__}, with a batch", tuple(kind(layer[None]) for layer in given)
        yield f"{kind.__name__}, at once", kind(given)
    yield "Sliced (L, B, H, n, n)", Sliced(given[:, None])
    yield "lists of heads, foreign", [[WithArray(head) for head in layer] for layer in given]


@pytest.mark.parametrize("make", CAUSAL)
def test_every_form_makes_the_same_network(make):
    given = stack(CAUSAL[make])
    wanted = make(given, calibration="excess").links
    for name, form in forms(given):
        for link, other in zip(make(form, calibration="excess").links, wanted, strict=True):
            assert link.capacities.dtype == (np.float64 if "numbers" in name else np.float32), name
            np.testing.assert_allclose(link.capacities, other.capacities, atol=1e-6, err_msg=name)


def test_every_form_makes_the_same_network_of_two_stacks():
    parts = [part.astype(np.float32) for part in attention(2, 3, seed=3)]
    wanted = every_flow(Network.encoder_decoder(*parts))
    for (name, encoder), (_, decoder), (_, cross) in zip(*map(forms, parts), strict=True):
        np.testing.assert_allclose(
            every_flow(Network.encoder_decoder(encoder, decoder, cross)), wanted, atol=1e-6, err_msg=name
        )


def test_nothing_foreign_is_copied_or_read_at_once():
    given = stack(n_heads=1)[:, 0]
    for kind in (WithArray, WithCapsule, OnDevice):
        (first, _) = Network.encoder([kind(layer) for layer in given], residual=0).links
        assert np.shares_memory(first.capacities, given)
    Sliced.read = 0
    Network.encoder(Sliced(given[:, None, None]))
    assert Sliced.read == len(given)


def test_bfloat16_that_numpy_cannot_hold():
    """torch takes it, where it is loaded; so does numpy as far as ml_dtypes tells it how."""
    given = torch.from_numpy(stack()).bfloat16()
    wanted = Network.encoder(given).links
    for form in (WithCapsule(given), [OnDevice(layer) for layer in given]):
        for link, other in zip(Network.encoder(form).links, wanted, strict=True):
            np.testing.assert_array_equal(link.capacities, other.capacities)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = given.float().numpy().astype(ml_dtypes.bfloat16)
    for form in (array, list(array), WithArray(array), [list(layer) for layer in array]):
        for link, other in zip(Network.encoder(form).links, wanted, strict=True):
            assert link.capacities.dtype == np.float32
            np.testing.assert_allclose(link.capacities, other.capacities, atol=1e-6)


def test_jax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax = pytest.importorskip("jax")
        made = jax.numpy.asarray(stack(causal=True))
        halved = made.astype(jax.numpy.bfloat16)
    wanted = Network.decoder(stack(causal=True)).links
    for given, tolerance in ((made, 1e-6), (halved, 1e-2)):
        for form in (given, given[:, None], tuple(given), [layer[None] for layer in given], [list(x) for x in given]):
            for link, other in zip(Network.decoder(form).links, wanted, strict=True):
                assert link.capacities.dtype == np.float32
                np.testing.assert_allclose(link.capacities, other.capacities, atol=tolerance)
    with pytest.raises(InvalidCapacityError, match=r"contributions of shape \(5, 5\)"):
        Network.encoder(made[0, 0])


# ---- a batch of texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [0, 1, 2, -1, np.int64(1)])
@pytest.mark.parametrize("make", CAUSAL)
def test_a_text_of_a_batch(make, text):
    texts = [stack(CAUSAL[make], seed=seed) for seed in range(3)]
    batch = np.stack(texts, axis=1)
    wanted = make(texts[text], heads="max").links
    for form in (batch, torch.from_numpy(batch), tuple(torch.from_numpy(batch)), Sliced(batch), list(batch)):
        for link, other in zip(make(form, heads="max", batch=text).links, wanted, strict=True):
            np.testing.assert_array_equal(link.capacities, other.capacities)


@pytest.mark.parametrize("merge", ["sublayers", "single"])
def test_a_text_of_a_batch_in_all_three_parts(merge):
    texts = [attention(2, 3, seed=seed) for seed in (4, 5)]
    batch = [np.stack(parts, axis=1) for parts in zip(*texts, strict=True)]
    for text in (0, 1):
        wanted = Network.encoder_decoder(*texts[text], merge=merge)
        close(every_flow(Network.encoder_decoder(*batch, merge=merge, batch=text)), every_flow(wanted))
    for index, part in enumerate(("encoder", "decoder", "cross")):
        parts = list(texts[0])
        parts[index] = batch[index]
        with pytest.raises(InvalidCapacityError, match=f"{part} layer 0 .* a batch of 2 texts.*batch=0 to batch=1"):
            Network.encoder_decoder(*parts, merge=merge)
        parts = list(batch)
        parts[index] = texts[0][index]
        with pytest.raises(InvalidArgumentError, match=rf"batch=1 names a text, but {part} layer 0 of shape \(3, "):
            Network.encoder_decoder(*parts, merge=merge, batch=1)


def test_a_batch_of_one_needs_no_choice():
    given = stack()[:, None]
    for batch in (None, 0, -1):
        np.testing.assert_array_equal(
            Network.encoder(given, batch=batch).links[0].capacities, Network.encoder(given[:, 0]).links[0].capacities
        )


def test_a_batch_without_a_choice():
    for given in (np.ones((2, 4, 3, 5, 5)), [torch.ones(4, 3, 5, 5)], Sliced(np.ones((2, 4, 3, 5, 5)))):
        with pytest.raises(
            InvalidCapacityError,
            match=r"layer 0 has shape \(4, 3, 5, 5\), a batch of 4 texts.* choose it: batch=0 to batch=3",
        ):
            Network.encoder(given)


@pytest.mark.parametrize("make", CAUSAL)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (2, r"batch is 2, but layer 0 of shape \(2, 1, 3, 3\) has 2 texts: 0 ... 1, or -2 ... -1"),
        (-3, "batch is -3"),
        (1.0, "batch is 1.0; it must be an integer"),
        ("first", "batch is 'first'"),
        (True, "batch is True"),
        ([0], r"batch is \[0\]"),
    ],
)
def test_batches_that_cannot_be(make, batch, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make(np.tile(np.eye(3), (2, 2, 1, 1, 1)), batch=batch)


@pytest.mark.parametrize("given", [np.ones((2, 3, 3)), np.ones((2, 4, 3, 3)), [torch.ones(4, 3, 3)]])
def test_a_choice_without_a_batch(given):
    """Not the head of that number."""
    with pytest.raises(
        InvalidArgumentError, match=r"batch=0 names a text, but layer 0 .* has no batch: \(B, H, n, n\)"
    ):
        Network.encoder(given, batch=0)


# ---- what is none ----------------------------------------------------------------------------------------------------


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it was deleted")

    def __dlpack__(self, **options):
        raise BufferError("it is gone")

    def __dlpack_device__(self):
        return (2, 0)


class Keyed:
    """A cache that is no mapping to Python, as TransformerLens' is."""

    def keys(self):
        return ["blocks.0.attn.hook_pattern"]

    def __iter__(self):
        return iter(self.keys())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            Unreadable(),
            r"contributions is .*Unreadable, which does not become an array of numpy or torch: it was deleted",
        ),
        ([Unreadable()], "layer 0 is .*Unreadable.*it was deleted; .* Convert it first"),
        (WithArray(np.ones((3, 3))), r"contributions of shape \(3, 3\): .* one layer has L = 1"),
        (Sliced(np.ones((3, 3))), r"contributions of shape \(3, 3\): .* one layer has L = 1"),
        (WithArray(np.array(None)), "contributions has dtype object"),
        (WithCapsule(torch.ones(2, 3, 3, dtype=torch.bool)), "contributions has dtype bool"),
        (Sliced(np.ones((2, 3, 3), dtype=complex)), "layer 0 has dtype complex128"),
        ([torch.eye(3).to_sparse()], "is of layout torch.sparse_coo: a dense tensor"),
        ([torch.eye(3, device="meta")], "is a meta tensor, without entries: a dense"),
        ([[torch.ones(3, 3), torch.ones(2, 2)]], "layer 0 is a list of tensors, not one array"),
        ([torch.ones(2, 1, 3, 4, 4)], r"layer 0 has shape \(2, 1, 3, 4, 4\)"),
        (((torch.ones(1, 2, 3, 3),) * 4,) * 2, r"layer 0 has shape \(4, 1, 2, 3, 3\)"),
        ({"attentions": ()}, "not dict; attnflow.adapters finds the layers"),
        (Keyed(), "not Keyed; attnflow.adapters finds the layers"),
        (np.ones((2, 0, 1, 3, 3)), r"layer 0 has shape \(0, 1, 3, 3\), a batch of 0 texts: .*there is none in it"),
        (np.ndarray, "not type"),
    ],
)
def test_what_is_no_contributions(given, message):
    with pytest.raises(InvalidCapacityError, match=message):
        Network.encoder(given)
