"""Bad input to every function that takes arrays: an error of the right class that names the value and the rule."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

import attnflow
from attnflow import Network, baselines, errors, maxflow
from attnflow.errors import AttnflowError, InvalidArgumentError, InvalidCapacityError
from attnflow.maxflow import Link

torch = pytest.importorskip("torch")

nan, inf = float("nan"), float("inf")


def stack(n_layers=2, n=3, dtype=float):
    return np.tile(np.eye(n, dtype=dtype), (n_layers, 1, 1))


def spoiled(value, place=(1, 2, 0), dtype=float):
    made = stack(dtype=dtype)
    made[place] = value
    return made


def blocks(link=None, sizes=(2, 3), sources=((0, 0),), sinks=((1, 0),), **options):
    link = Link(0, 1, np.ones((3, 2))) if link is None else link
    return maxflow.blocks(sizes, [link], sources=sources, sinks=sinks, **options)


FUNCTIONS = {
    "layered": maxflow.layered,
    "encoder": Network.encoder,
    "encoder, torch": lambda stack: Network.encoder(torch.as_tensor(stack)),
    "encoder, list": lambda stack: Network.encoder(list(stack)),
    "decoder": Network.decoder,
    "rollout": baselines.rollout,
    "raw_attention": baselines.raw_attention,
    "widest_path": baselines.widest_path,
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def refused(error, *patterns):
    """The context in which an `error` must be raised, whose message holds all of `patterns`."""
    return pytest.raises(error, match="(?is)" + "".join(f"(?=.*(?:{pattern}))" for pattern in patterns))


def test_every_error_is_the_librarys_and_a_builtins():
    for name in errors.__all__:
        cls = getattr(errors, name)
        assert issubclass(cls, AttnflowError)
        assert name == "AttnflowError" or any(issubclass(cls, kind) for kind in (ValueError, RuntimeError, ImportError))


# ---- entries ---------------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize(("value", "shown"), [(nan, "nan"), (-0.5, r"-0\.5"), (-inf, "-inf")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_negative_entries(function, value, shown, dtype):
    with refused(InvalidCapacityError, shown, "negative|>= 0", r"\b1\b", r"\b2\b", r"\b0\b"):
        function(spoiled(value, dtype=dtype))


@every_function
def test_the_first_offender_is_named(function):
    made = stack(3, 12)
    made[1, 7, 5] = -7.25
    made[1, 9, 2] = made[2, 4, 3] = nan
    with refused(InvalidCapacityError, r"-7\.25", r"\b1\b", r"\b7\b", r"\b5\b"):
        function(made)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("layered", "widest_path")])
def test_infinite_contributions(name):
    """Where a model overflowed; only the bare kernel and from_blocks know unbounded edges."""
    with refused(InvalidCapacityError, "inf", "finite", r"\b1\b", r"\b2\b", r"\b0\b"):
        FUNCTIONS[name](spoiled(inf))


@every_function
def test_negative_integers(function):
    with refused(InvalidCapacityError, "-3", r"\b1\b", r"\b2\b"):
        function(spoiled(-3, dtype=np.int64))


def test_the_head_of_an_offender_is_named():
    heads = np.ones((2, 4, 3, 3), dtype=np.float32)
    heads[1, 3, 0, 2] = nan
    for given in (heads, torch.from_numpy(heads), list(heads), heads[:, None]):
        for reduction in ("mean", "max", "min", 0, (0.0, 1.0, 1.0, 0.0)):
            with refused(InvalidCapacityError, "layer 1", "head 3", "receiver 0", "giver 2", "nan", r"\(4, 3, 3\)"):
                Network.encoder(given, heads=reduction)


@pytest.mark.parametrize("value", [nan, -1.0, -inf])
@pytest.mark.parametrize("diagonal", [False, True])
def test_entries_of_links(value, diagonal):
    good = np.array([1.0, 2.0]) if diagonal else np.ones((3, 2))
    bad = good.copy()
    bad[-1] = value
    place = ["1"] if diagonal else ["2", "0"]
    for call in (
        lambda: Network.from_blocks((2, 3), [(0, 1, good), (0, 1, bad)]),
        lambda: Network.from_blocks((2, 3), [(0, 1, good), (0, 1, torch.from_numpy(bad))]),
        lambda: maxflow.blocks(
            (2, 3), [Link(0, 1, good), Link(0, 1, bad)], sources=[(0, 0)], sinks=[(1, 0)], check=True
        ),
    ):
        with refused(InvalidCapacityError, r"links?\W*1", f"{value:g}", *(rf"\b{index}\b" for index in place)):
            call()


@pytest.mark.parametrize("value", [nan, -0.5, -inf])
@pytest.mark.parametrize("dtypes", ["ff", "dd", "fd", "ed", "id"])
def test_layered_speaks_of_capacities(value, dtypes):
    """Its caller passed no links. Layers may be of several dtypes; the entry shown is the one given."""
    layers = [np.eye(3, dtype=dtype) for dtype in dtypes]
    layers[1][2, 0] = value
    forms = [layers, tuple(layers), [layer.tolist() for layer in layers], [torch.from_numpy(layer) for layer in layers]]
    if len(set(dtypes)) == 1:
        forms += [np.stack(layers), torch.from_numpy(np.stack(layers))]
    for form in forms:
        with refused(
            InvalidCapacityError,
            rf"^capacities\[1\]\[2, 0\] is {value}; .*capacities\[1\], of shape \(3, 3\), .* >= 0$",
        ):
            maxflow.layered(form)
    with refused(InvalidCapacityError, rf"^links\[0\]\.capacities\[2, 0\] is {value}; "):
        blocks(Link(0, 1, layers[1]), sizes=(3, 3))


@pytest.mark.parametrize(
    ("capacities", "said"),
    [
        ([np.eye(2), np.eye(2) * 1j], r"capacities\[1\] has dtype complex128 and shape \(2, 2\)"),
        (np.zeros((2, 3, 3), dtype=complex), r"capacities has dtype complex128 and shape \(2, 3, 3\)"),
        (np.zeros((2, 3, 4)), r"capacities has shape \(2, 3, 4\); it must be \(layers, n, n\)"),
        ([np.ones((2, 3, 3))], r"capacities\[0\] has shape \(2, 3, 3\)"),
        ([np.ones((3, 2)), np.ones((2, 4))], r"capacities\[1\] has shape \(2, 4\), but layer 0 ends in 3 nodes"),
        (np.zeros((0, 3, 3)), "capacities has 0 layers; at least one"),
        ([], "capacities has 0 layers; at least one"),
        (np.ma.masked_array(stack(), mask=True), "capacities is a masked array"),
        (spoiled(2**62, dtype=np.int64), rf"capacities\[1\]\[2, 0\] is {2**62}; integers must be below 2\^62"),
        (list(spoiled(2**63, dtype=np.uint64)), rf"capacities\[1\]\[2, 0\] is {2**63}; integers must be below 2\^62"),
        ([np.eye(3), spoiled(2**53 + 1, dtype=int)[1]], rf"capacities\[1\]\[2, 0\] is {2**53 + 1}; beside floating"),
    ],
)
def test_layered_names_the_layer_and_the_rule(capacities, said):
    with refused(InvalidCapacityError, f"^{said}"):
        maxflow.layered(capacities)


def test_a_diagonal_of_whole_numbers_beside_integers():
    for value, rule in ((-3.0, ">= 0"), (-1e30, ">= 0"), (2.0**62, r"2\^62"), (1e30, r"2\^62")):
        links = [Link(0, 1, np.ones((3, 2), dtype=int)), Link(0, 1, np.array([inf, value]))]
        with refused(InvalidCapacityError, rf"^links\[1\]\.capacities\[1\] is {re.escape(str(value))}; .*{rule}"):
            maxflow.blocks((2, 3), links, sources=[(0, 0)], sinks=[(1, 0)])


# ---- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "encoder, torch"])
@pytest.mark.parametrize("dtype", [bool, object, complex, np.complex64, np.longdouble, "U3", "S3", "M8[s]", "V4"])
def test_dtypes_that_are_not_real(name, dtype):
    if np.dtype(dtype) == np.dtype(float):
        pytest.skip("long double is double here")
    if dtype == np.longdouble and name in ("rollout", "raw_attention", "widest_path"):
        return  # these compute in float64 anyway
    with refused(InvalidCapacityError, "dtype", "float|real|integer"):
        FUNCTIONS[name](np.zeros((2, 3, 3), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_dtypes_of_tensors_that_are_not_real(dtype):
    for call in (
        lambda: Network.encoder(torch.zeros((2, 3, 3), dtype=dtype)),
        lambda: Network.decoder([torch.zeros((3, 3), dtype=dtype)]),
        lambda: Network.from_blocks((3, 3), [(0, 1, torch.zeros((3, 3), dtype=dtype))]),
    ):
        with refused(InvalidCapacityError, "dtype", str(dtype)):
            call()


def test_integers_that_cannot_be_computed_with():
    for given in (spoiled(2**53 + 1, dtype=np.int64), torch.from_numpy(spoiled(2**53 + 1, dtype=np.int64))):
        with refused(InvalidCapacityError, str(2**53 + 1), r"2\^53", "layer 1"):
            Network.encoder(given, residual=0.5)
        assert Network.encoder(given, residual=0).source_flows(2).lower[0, 0] >= 0


def test_integers_too_large():
    for call in (
        lambda: maxflow.layered(spoiled(2**63, dtype=np.uint64)),
        lambda: maxflow.layered(spoiled(2**62, dtype=np.int64)),
        lambda: blocks(Link(0, 1, np.full((3, 2), 2**64 - 1, dtype=np.uint64))),
        lambda: maxflow.layered(np.full((2, 64, 64), 2**61)),
    ):
        with refused(InvalidCapacityError, r"2\^6\d"):
            call()


# ---- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "encoder, torch", "decoder"])
@pytest.mark.parametrize("shape", [(), (3,), (3, 3), (2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 3, 3), (1, 2, 1, 2, 3, 3)])
def test_shapes_of_contributions(name, shape):
    """The shape at fault is the whole array's, or a layer's."""
    with refused(InvalidCapacityError, "shape", f"{re.escape(str(shape))}|{re.escape(str(shape[1:]))}"):
        FUNCTIONS[name](np.zeros(shape))


@pytest.mark.parametrize("shape", [(), (3,), (3, 3), (2, 3, 4), (2, 2, 3, 3)])
def test_shapes_of_layered(shape):
    with refused(InvalidCapacityError, "shape", f"{re.escape(str(shape))}|{re.escape(str(shape[1:]))}"):
        maxflow.layered(np.zeros(shape))


@every_function
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (0, 0, 0)])
def test_nothing_in_it(function, shape):
    with refused(InvalidCapacityError, "empty|layer|at least one"):
        function(np.zeros(shape))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "encoder, torch"])
def test_no_layers(name):
    for nothing in ([], ()):
        with refused(InvalidCapacityError, "layer", "at least one"):
            FUNCTIONS[name](nothing)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "encoder, torch"])
@pytest.mark.parametrize("given", [None, 3, "attention", b"ab", {"layer": 1}, object()], ids=repr)
def test_no_arrays_at_all(name, given):
    if name == "encoder, list" and not isinstance(given, (str, bytes, dict)):
        return  # list() itself refuses
    with refused(InvalidCapacityError):
        FUNCTIONS[name](given)


@pytest.mark.parametrize("function", [Network.encoder, Network.decoder, maxflow.layered, baselines.rollout])
@pytest.mark.parametrize("layer", [None, "ab", [[1, 2], [3]], [[1, None], [2, 3]], [], 7], ids=repr)
def test_a_layer_that_is_no_matrix(function, layer):
    with refused(InvalidCapacityError, r"\b1\b"):
        function([np.eye(2), layer])


@pytest.mark.parametrize("function", [Network.encoder, Network.decoder])
def test_layers_of_different_sizes(function):
    with refused(InvalidCapacityError, "layer 1", r"\(4, 4\)", "3"):
        function([np.eye(3), np.eye(4)])
    with refused(InvalidCapacityError, "layer 1", r"\(2, 4, 4\)", "3"):
        function([np.tril(np.ones((2, n, n))) for n in (3, 4)])


@pytest.mark.parametrize("function", [maxflow.layered, baselines.rollout, baselines.widest_path])
def test_layers_that_do_not_chain(function):
    with refused(InvalidCapacityError, r"\b1\b", r"\(2, 4\)", "3"):
        function([np.ones((3, 2)), np.ones((2, 4))])


def test_a_batch_is_one_text():
    with refused(InvalidCapacityError, "layer 0", r"\(2, 4, 3, 3\)", "one text"):
        Network.encoder([np.ones((2, 4, 3, 3))])


def test_raw_attention_needs_layers_of_one_shape():
    with refused(InvalidCapacityError, "one shape", r"\(3, 2\)"):
        baselines.raw_attention([np.ones((3, 2)), np.ones((1, 3))])


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (3,), (3, 2, 1), (0, 2), ()])
def test_shapes_of_links(shape):
    for call in (
        lambda: Network.from_blocks((2, 3), [(0, 1, np.ones(shape))]),
        lambda: blocks(Link(0, 1, np.ones(shape))),
    ):
        with refused(InvalidCapacityError, "links?.*0", re.escape(str(shape))):
            call()


def test_offsets():
    for call in (
        lambda: Network.from_blocks((2, 3), [(0, 1, np.ones((3, 2)), 1)]),
        lambda: blocks(Link(0, 1, np.ones((3, 2)), 1)),
    ):
        with refused(InvalidArgumentError, "offset", "1", "diagonal"):
            call()
    for offset in (0.5, "1", None, True):
        for call in (
            lambda offset=offset: Network.from_blocks((2, 3), [(0, 1, np.ones(2), offset)]),
            lambda offset=offset: blocks(Link(0, 1, np.ones(2), offset)),
        ):
            with refused(InvalidArgumentError, "offset", re.escape(repr(offset))):
                call()


# ---- decoders --------------------------------------------------------------------------------------------------------


def test_mass_above_the_diagonal():
    causal = np.tri(4, dtype=np.float32)[None].repeat(3, axis=0)
    causal[1, 1, 3] = 0.125
    causal[2, 0, 2] = 0.5
    for given in (causal, torch.from_numpy(causal), causal.astype(np.int64) + (causal == 0.125), causal[:, None]):
        for options in ({}, {"residual": 0}, {"calibration": "excess"}):
            with refused(InvalidCapacityError, "layer 1", "receiver 1", "giver 3", r"\(4, 4\)", "later|encoder"):
                Network.decoder(given, **options)
    Network.decoder(np.tril(causal))
    Network.encoder(causal)


# ---- options of the networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [-0.1, 1.1, nan, inf, "0.5", None, True, 1j, [0.5]], ids=repr)
def test_residual(residual):
    for function in (Network.encoder, Network.decoder):
        with refused(InvalidArgumentError, "residual", re.escape(repr(residual)), "0"):
            function(stack(), residual=residual)


@pytest.mark.parametrize("calibration", ["Excess", "", True, 0, "none"], ids=repr)
def test_calibration(calibration):
    with refused(InvalidArgumentError, "calibration", re.escape(repr(calibration)), "excess"):
        Network.encoder(stack(), calibration=calibration)


@pytest.mark.parametrize("heads", ["median", "", None, 1.5, True, [0.5, "a"], [[1, 2], [3, 4]], {}], ids=repr)
def test_heads(heads):
    with refused(InvalidArgumentError, "heads"):
        Network.encoder(np.ones((2, 2, 3, 3)), heads=heads)


@pytest.mark.parametrize("head", [4, -5, 10**20])
def test_a_head_out_of_range(head):
    with refused(InvalidArgumentError, "heads", str(head), "4 heads", r"\(4, 3, 3\)"):
        Network.encoder(np.ones((2, 4, 3, 3)), heads=head)


@pytest.mark.parametrize("weights", [(1.0,), (1.0,) * 5, ()])
def test_the_number_of_weights(weights):
    with refused(InvalidArgumentError, "heads", f"{len(weights)} weights", "4 heads"):
        Network.encoder(np.ones((2, 4, 3, 3)), heads=weights)


@pytest.mark.parametrize("weight", [-0.5, nan, inf])
def test_weights(weight):
    for weights in ((1.0, weight), np.array([1.0, weight]), torch.tensor([1.0, weight])):
        with refused(InvalidArgumentError, "head 1", str(weight)):
            Network.encoder(np.ones((2, 2, 3, 3)), heads=weights)


def test_heads_without_heads():
    for heads in (0, (1.0,)):
        with refused(InvalidArgumentError, "heads", r"\(3, 3\)", "no heads"):
            Network.encoder(stack(), heads=heads)


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (2,), (2, 0), (2, -3), (2, 1.5), (2, "3"), (2, True), 5, None], ids=repr)
def test_sizes(sizes):
    with refused((InvalidArgumentError, InvalidCapacityError), "size|block"):
        Network.from_blocks(sizes, [(0, 1, np.ones((3, 2)))])
    with refused((InvalidArgumentError, InvalidCapacityError), "size|block"):
        blocks(sizes=sizes)


@pytest.mark.parametrize(("giver", "receiver"), [(0, 2), (-1, 1), (5, 1), (0.0, 1), ("0", 1), (None, 1), (True, 0)])
def test_links_to_no_block(giver, receiver):
    for call in (
        lambda: Network.from_blocks((2, 3), [(giver, receiver, np.ones((3, 2)))]),
        lambda: blocks(Link(giver, receiver, np.ones((3, 2)))),
    ):
        with refused(InvalidArgumentError, "links?.*0", "giver|receiver"):
            call()


def test_links_within_a_block():
    for call in (
        lambda: Network.from_blocks((2, 2), [(0, 1, np.ones((2, 2))), (1, 1, np.ones((2, 2)))]),
        lambda: maxflow.blocks((2, 2), [Link(1, 1, np.ones((2, 2)))], sources=[(0, 0)], sinks=[(1, 0)]),
    ):
        with refused(InvalidArgumentError, "link", "block 1", "itself"):
            call()


def test_no_link():
    with refused(InvalidCapacityError, "link", "at least one"):
        Network.from_blocks((2, 3), [])


@pytest.mark.parametrize("links", [None, 3, [3], [(0, 1)], [None], ["link"]], ids=repr)
def test_links_that_are_none(links):
    with refused(InvalidArgumentError, "link"):
        Network.from_blocks((2, 3), links)
    with refused(InvalidArgumentError, "link"):
        maxflow.blocks((2, 3), links, sources=[(0, 0)], sinks=[(1, 0)])


# ---- options of the kernel -------------------------------------------------------------------------------------------

KERNEL = {
    "layered": lambda **options: maxflow.layered(stack(), **options),
    "blocks": blocks,
    "source_flows": lambda **options: Network.encoder(stack()).source_flows(**options),
}
every_entry = pytest.mark.parametrize("function", KERNEL.values(), ids=KERNEL)


@every_entry
def test_threads(function):
    for threads in (0, -1, 1.5, "2", True):
        with refused(InvalidArgumentError, "threads", re.escape(repr(threads))):
            function(threads=threads)


@every_entry
def test_algorithm(function):
    for algorithm in ("Dinic", "", None, 3, "edmonds_karp"):
        with refused(InvalidArgumentError, "algorithm", re.escape(repr(algorithm)), "push_relabel"):
            function(algorithm=algorithm)


@every_entry
def test_edge_flows_are_for_one_pair(function):
    many = [(0, 0), (0, 1)] if function is blocks else [0, 1]
    with refused(InvalidArgumentError, "flows", "one"):
        function(sources=many, flows=True)


@every_entry
def test_progress(function):
    with refused(InvalidArgumentError, "progress", "3"):
        function(progress=3)


def test_options_are_keywords():
    for call in (
        lambda: maxflow.layered(stack(), [0]),
        lambda: Network.encoder(stack(), 0.5),
        lambda: Network.encoder(stack()).source_flows(0, [0]),
        lambda: baselines.rollout(stack(), 0),
    ):
        with pytest.raises(TypeError):
            call()


# ---- the package -----------------------------------------------------------------------------------------------------


def test_unknown_names():
    with pytest.raises(AttributeError, match="'attnflow' has no attribute 'flow'"):
        _ = attnflow.flow
    assert set(attnflow.__all__) <= set(dir(attnflow))


def test_the_function_explain_is_not_hidden_by_its_module():
    code = (
        "import importlib, attnflow\n"
        "module = importlib.import_module('attnflow.explain')\n"
        "assert attnflow.explain is module.explain\n"
        "from attnflow import explain\n"
        "assert explain is module.explain"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- foreign objects -------------------------------------------------------------------------------------------------


def test_heads_that_overflow_together():
    heads = np.full((4, 1, 1), 3e38, dtype=np.float32)
    for reduction in ("mean", (1.0, 1.0, 1.0, 1.0)):
        for given in ([heads], [torch.from_numpy(heads)]):
            with refused(InvalidCapacityError, "layer 0", "heads reduced", "inf"):
                Network.encoder(given, residual=0, heads=reduction)


def test_flags_threads_and_offsets():
    layer = np.eye(2)
    for flag in ("check", "cuts", "flows", "bottlenecks"):
        with refused(InvalidArgumentError, flag, "'x'", "True or False"):
            maxflow.layered([layer], **{flag: "x"})
    with refused(InvalidArgumentError, f"threads is {10**30}", "an integer from 1 to 1024"):
        maxflow.layered([layer], threads=10**30)
    with refused(InvalidArgumentError, "offset"):
        maxflow.blocks((2, 2), [Link(0, 1, np.ones(2), 10**30)], sources=[(0, 0)], sinks=[(1, 0)])


def test_masked_arrays_and_tensors_with_gradients():
    with refused(InvalidCapacityError, "masked"):
        maxflow.layered([np.ma.masked_array(np.eye(2), mask=True)])
    given = torch.eye(2).repeat(1, 1, 1).requires_grad_()
    np.testing.assert_array_equal(maxflow.layered(given).values, [[0, 1]])
