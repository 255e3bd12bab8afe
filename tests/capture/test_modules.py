"""Any torch module: PyTorch's own layers, whose fast path computes no weights, and modules written by hand."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from attnflow import Network  # noqa: E402
from attnflow.capture import attentions, from_modules  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

WIDTH, HEADS = 8, 2


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def plain_encoder(n_layers: int = 3, **options: Any) -> Any:
    options = {"batch_first": True, "dropout": 0.3, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on nested tensors, which some options rule out
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 16, **options), n_layers).eval()


def both_stacks() -> Any:
    model = nn.Transformer(WIDTH, HEADS, 3, 2, 16, dropout=0.3, batch_first=True)
    return model.eval()


def probabilities(module: Any, x: Any, y: Any = None, mask: Any = None) -> Any:
    """What torch.nn.MultiheadAttention does, by its definition."""
    q, k, _ = module.in_proj_weight.chunk(3)
    bq, bk, _ = module.in_proj_bias.chunk(3)
    y = x if y is None else y
    query = (x @ q.T + bq).unflatten(-1, (HEADS, -1)).transpose(-2, -3)
    key = (y @ k.T + bk).unflatten(-1, (HEADS, -1)).transpose(-2, -3)
    scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
    return (scores if mask is None else scores + mask).softmax(dim=-1)


def causal_mask(n: int) -> Any:
    return nn.Transformer.generate_square_subsequent_mask(n)


def state(model: Any) -> Any:
    """Everything a capture might disturb."""
    return (
        [module.training for module in model.modules()],
        [
            (list(m._forward_hooks), list(m._forward_pre_hooks), len(m._forward_hooks_with_kwargs))
            for m in model.modules()
        ],
        [sorted(vars(module)) for module in model.modules()],
        [(p.requires_grad, p.grad, p.data_ptr(), p._version) for p in model.parameters()],
        torch.backends.mha.get_fastpath_enabled(),
        torch.is_grad_enabled(),
    )


# ---- PyTorch's own ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu", "batch_first": False}])
@pytest.mark.parametrize("training", [False, True])
def test_encoder_whose_fast_path_has_no_weights(options: dict[str, Any], training: bool) -> None:
    model = plain_encoder(**options)
    x = torch.randn(2, 5, WIDTH)
    wanted, inside = [], x
    for layer in model.layers:
        wanted.append(probabilities(layer.self_attn, layer.norm1(inside) if layer.norm_first else inside))
        with torch.no_grad():
            given = inside if options.get("batch_first", True) else inside.transpose(0, 1)
            inside = layer(given) if options.get("batch_first", True) else layer(given).transpose(0, 1)
    given = x if options.get("batch_first", True) else x.transpose(0, 1)
    model.train(training)
    before = state(model)
    result = from_modules(model, r"layers\.\d+\.self_attn", given)
    assert state(model) == before
    assert (result.path, result.kind, result.measure, result.logits) == ("modules", "encoder", "attention", None)
    assert not result.holds_residual
    assert result.layer_names == tuple(f"layers.{index}.self_attn" for index in range(3))
    for layer, matrix in zip(result.layers, wanted, strict=True):
        assert (layer.matrix.dtype, layer.visible, layer.kept) == (torch.float32, None, None)
        torch.testing.assert_close(layer.matrix, matrix.mean(dim=1), atol=1e-5, rtol=1e-4)
    one = from_modules(model, r"layers\.\d+\.self_attn", given, heads=1)
    torch.testing.assert_close(one.encoder[0], wanted[0][:, 1], atol=1e-5, rtol=1e-4)
    assert Network.encoder(result.of_text(1).encoder).n_layers == 3


def test_a_causal_encoder_is_a_decoder() -> None:
    result = from_modules(
        plain_encoder(), r".*self_attn", {"src": torch.randn(1, 5, WIDTH), "mask": causal_mask(5), "is_causal": True}
    )
    assert result.kind == "decoder"
    assert len(Network.decoder(result.decoder).links) == 3


def test_padded_keys_get_nothing() -> None:
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    call = {"src": torch.randn(2, 5, WIDTH), "src_key_padding_mask": padding}
    result = from_modules(plain_encoder(), ".*self_attn", call)
    for matrix in result.encoder:
        assert not matrix[1, :, 3:].any()
        assert bool((matrix[0] > 0).all())


STACKS = {r"encoder\..*": "encoder", r"decoder\..*\.self_attn": "decoder", r".*\.multihead_attn": "cross"}
BOTH = r".*\.(self_attn|multihead_attn)"


@pytest.mark.parametrize(("n", "m"), [(5, 3), (4, 4)])
def test_encoder_and_decoder(n: int, m: int) -> None:
    model = both_stacks()
    source, target = torch.randn(2, n, WIDTH), torch.randn(2, m, WIDTH)
    call = {"src": source, "tgt": target, "tgt_mask": causal_mask(m), "tgt_is_causal": True}
    before = state(model)
    result = from_modules(model, BOTH, call, stack=STACKS)
    assert state(model) == before
    assert result.kind == "encoder-decoder"
    assert [layer.stack for layer in result.layers] == ["encoder"] * 3 + ["decoder", "cross"] * 2
    memory = model.encoder(source)
    first = model.decoder.layers[0]
    own = probabilities(first.self_attn, target, mask=causal_mask(m))
    inside = first.norm1(target + first.self_attn(target, target, target, attn_mask=causal_mask(m))[0])
    torch.testing.assert_close(result.decoder[0], own.mean(dim=1), atol=1e-5, rtol=1e-4)
    across = probabilities(first.multihead_attn, inside, memory)
    torch.testing.assert_close(result.cross[0], across.mean(dim=1), atol=1e-5, rtol=1e-4)
    text = result.of_text(1)
    network = Network.encoder_decoder(text.encoder, text.decoder, text.cross)
    assert network.sizes == (n,) * 4 + (m,) * 5
    by_name = {name: layer.stack for name, layer in zip((x.name for x in result.layers), result.layers, strict=True)}
    again = from_modules(model, list(by_name), call, stack=by_name)
    assert again.layer_names == result.layer_names
    alone = from_modules(model, r"encoder\..*self_attn", call, stack="encoder")
    assert len(alone.encoder) == 3
    with pytest.raises(CaptureError, match=rf"multihead_attn': {m} positions attend to {n} of another sequence"):
        from_modules(model, BOTH, call)


@pytest.mark.parametrize("need", [None, True, False])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("positional", [True, False])
def test_callers_and_hooks_get_what_they_asked_for(need: bool | None, average: bool, positional: bool) -> None:
    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Any) -> Any:
            if need is None:
                return self.attention(x, x, x)
            if positional:
                return self.attention(x, x, x, None, need, None, average)
            return self.attention(query=x, key=x, value=x, need_weights=need, average_attn_weights=average)

    model, x = Caller().eval(), torch.randn(1, 4, WIDTH)
    seen: list[Any] = []
    model.attention.register_forward_hook(lambda module, args, output: seen.append(output))
    kept: list[Any] = []
    with torch.no_grad():
        expected = model(x)
    from_modules(model, ["attention"], lambda model: kept.append(model(x)))
    for found in (kept[0], seen[1]):
        torch.testing.assert_close(found[0], expected[0])
        assert (found[1] is None) == (expected[1] is None)
        if expected[1] is not None:
            torch.testing.assert_close(found[1], expected[1])


def test_one_text_without_a_batch() -> None:
    model = nn.MultiheadAttention(WIDTH, HEADS).eval()
    x = torch.randn(4, WIDTH)
    result = from_modules(model, [""], (x, x, x))
    torch.testing.assert_close(result.encoder[0][0], probabilities(model, x).mean(dim=0))


# ---- written by hand -------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Its softmax is its own; what it returns, `form` says."""

    def __init__(self, form: str = "tuple", causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.drop, self.form, self.causal = nn.Dropout(0.5), form, causal

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2).chunk(3, dim=1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        weights = self.drop((scores + causal_mask(x.shape[1]) if self.causal else scores).softmax(dim=-1))
        made = self.out((weights @ v).transpose(1, 2).flatten(-2))
        Output = namedtuple("Output", ["weights", "hidden"])  # noqa: PYI024
        return {
            "tuple": (made, weights),
            "averaged": (made, None, weights.mean(dim=1)),
            "named": Output(weights, made),
            "mapping": {"hidden": made, "attention": weights},
            "tensor": made,
            "two": (made, weights, weights),
            "none": (made, None),
        }[self.form]


class Model(nn.Module):
    def __init__(self, form: str = "tuple", n_layers: int = 2, causal: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(form, causal) for _ in range(n_layers))
        self.unused = nn.Linear(1, 1)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            made = block(x)
            if isinstance(made, dict):
                made = made["hidden"]
            elif hasattr(made, "hidden"):
                made = made.hidden
            x = x + (made[0] if isinstance(made, tuple) else made)
        return self.head(x)


def from_input(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
    """The weights of a module that returns none, as for a block of timm: out of its qkv projection."""
    q, k, _ = module.qkv(args[0]).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2).chunk(3, dim=1)
    return (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).softmax(dim=-1)


@pytest.mark.parametrize("form", ["tuple", "averaged", "named", "mapping", "tensor", "two", "none"])
def test_modules_written_by_hand(form: str) -> None:
    model = Model(form).train()
    wanted = Model("tuple").eval()
    wanted.load_state_dict(model.state_dict())
    expected, x = [], torch.randn(2, 5, WIDTH)
    inside = x
    for block in wanted.blocks:
        made, weights = block(inside)
        inside = inside + made
        expected.append(weights.mean(dim=1))
    before = state(model)
    by_weights = from_modules(model, r"blocks\.\d+", x, weights=from_input)
    by_dropout = from_modules(model, r"blocks\.\d+\.drop", x)
    results = [by_weights, by_dropout]
    if form in ("tensor", "two", "none"):
        count = 2 if form == "two" else 0
        with pytest.raises(CaptureError, match=rf"layer 'blocks.0': Attention returned .* {count} are .* give weights"):
            from_modules(model, r"blocks\.\d+", x)
    else:
        results.append(from_modules(model, r"blocks\.\d+", x))
    assert state(model) == before
    for result in results:
        for found, matrix in zip(result.encoder, expected, strict=True):
            torch.testing.assert_close(found, matrix)


def test_every_way_to_name() -> None:
    model, x = Model(causal=True), torch.randn(1, 4, WIDTH)
    for names in (
        ["blocks.0", "blocks.1"],
        ("blocks.1", "blocks.0"),
        r"blocks\.[01]",
        re.compile("BLOCKS.\\d", re.IGNORECASE),
        lambda name, module: isinstance(module, Attention),
        iter(["blocks.0", "blocks.1"]),
    ):
        result = from_modules(model, names, (x,))
        assert result.layer_names == ("blocks.0", "blocks.1")
        assert result.kind == "decoder"
    assert from_modules(model, ["blocks.1"], x).layer_names == ("blocks.1",)


def test_a_module_that_runs_several_times() -> None:
    model = Model(n_layers=1)
    model.blocks = nn.ModuleList([model.blocks[0]] * 3)
    x = torch.randn(1, 4, WIDTH)
    result = from_modules(model, ["blocks.0"] * 3, x)
    assert result.layer_names == ("blocks.0#0", "blocks.0#1", "blocks.0#2")
    same = from_modules(model, ["blocks.0", "blocks.1", "blocks.2"], x, stack={"blocks.*": "encoder"})
    assert same.layer_names == ("blocks.0#0", "blocks.1#1", "blocks.2#2")
    for names in (["blocks.0"], "blocks.0", ["blocks.0"] * 2, ["blocks.0"] * 4):
        with pytest.raises(CaptureError, match=r"module 'blocks.0' ran 3 times, and \d were expected: .* list it"):
            from_modules(model, names, x)


def test_what_else_comes_along() -> None:
    """Logits, half precision, an intervention by the caller's own hook, progress."""

    class WithLogits(Model):
        def forward(self, x: Any) -> Any:
            return namedtuple("Output", ["logits"])(super().forward(x))  # noqa: PYI024

    model, x, told = WithLogits().bfloat16(), torch.randn(1, 4, WIDTH).bfloat16(), []
    result = from_modules(model, r"blocks\.\d", x, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert result.logits is not None
    assert result.logits.dtype == result.encoder[0].dtype == torch.float32
    with torch.no_grad():
        np.testing.assert_array_equal(result.logits, model.eval()(x).logits.float())
    model.blocks[0].drop.register_forward_hook(lambda module, args, output: torch.eye(4).expand_as(output).bfloat16())
    changed = from_modules(model, r"blocks\.\d\.drop", x)
    np.testing.assert_array_equal(changed.layers[0].matrix[0], np.eye(4))


def test_a_transformers_model_may_be_captured_so_too() -> None:
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 20, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "bos_token_id": 1, "eos_token_id": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, attn_implementation="eager"))
    ids = torch.tensor([[3, 4, 5, 6]])
    mine = from_modules(model, r".*\.attn", {"input_ids": ids})
    for found, wanted in zip(mine.decoder, attentions(model, input_ids=ids).decoder, strict=True):
        torch.testing.assert_close(found, wanted)
    with pytest.raises(InvalidArgumentError, match="from_modules captures any torch module"):
        attentions(Model(), input_ids=ids)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["blocks.0", "block.1"], r"names\[1\] is 'block.1', no module of Model: did you mean 'blocks.1'"),
        (["zzz"], r"names\[0\] is 'zzz', no module of Model$"),
        ([3], r"names\[0\] is 3, no module of Model"),
        ([], "names, a sequence, holds no module of Model, which has blocks, blocks.0"),
        ("attention.*", "names='attention.*' matches no module of Model, which has blocks, .*, ..."),
        (re.compile("x"), "names='x' matches no module"),
        ("(", r"names is '\(', no regular expression: "),
        (lambda name, module: False, "names, a function, is true of no module"),
        (None, "names must be a sequence of modules' names, a regular expression or a function, got None"),
        (5, "names must be a sequence"),
    ],
)
def test_names_that_are_refused(names: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        from_modules(Model(), names, torch.randn(1, 4, WIDTH))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stack": "both"}, 'stack must be "encoder", "decoder" or "cross", or a mapping .* got \'both\''),
        ({"stack": ["encoder"]}, "stack must be"),
        ({"stack": {"blocks.*": "self"}}, "it holds 'blocks.*': 'self'"),
        ({"stack": {3: "encoder"}}, "it holds 3: 'encoder'"),
        ({"stack": {"(": "encoder"}}, r"a key of stack is '\(', no regular expression"),
        (
            {"stack": {"blocks.0": "encoder"}},
            "stack does not say what 'blocks.1' belongs to: it is in none of its keys",
        ),
        (
            {"stack": {"blocks.*": "encoder", ".*1": "decoder"}},
            "'blocks.1' .* matches 'blocks.*' and '.*1', which differ",
        ),
        ({"weights": 3}, r"weights must be a function of \(module, args, kwargs, output\), got 3"),
        ({"heads": "median"}, "heads must be"),
        ({"heads": 2}, "heads=2 is out of range for a layer of 2 heads"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    model = Model()
    before = state(model)
    with pytest.raises(InvalidArgumentError, match=message):
        from_modules(model, r"blocks\.\d", torch.randn(1, 4, WIDTH), **options)
    assert state(model) == before
    with pytest.raises(InvalidArgumentError, match="model must be a torch module, got str"):
        from_modules("model", "x", None)  # type: ignore[arg-type]


EYE = torch.eye(4)[None, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "layer 'blocks.0': its weights are NoneType, and must be a tensor"),
        (EYE.numpy(), "its weights are ndarray"),
        (EYE[0, 0], r"have shape \(4, 4\), and must be \(batch, heads, queries, keys\)"),
        (EYE[None], r"have shape \(1, 1, 1, 4, 4\)"),
        (EYE * -1, r"layer 'blocks.0': its weights, of shape \(1, 1, 4, 4\), hold -1: every row must hold probab"),
        (EYE * 1.1, "have a row that sums to 1.1"),
        (EYE * math.nan, "hold NaN"),
        (EYE * math.inf, "hold NaN"),
        (EYE.masked_fill(EYE > 0, math.inf), "have a row that sums to inf"),
        (EYE.long(), "are torch.int64"),
        (EYE[:0], "are empty"),
    ],
)
def test_weights_that_are_refused(given: Any, message: str) -> None:
    model = Model().train()
    before = state(model)
    with pytest.raises(CaptureError, match=message):
        from_modules(model, r"blocks\.\d", torch.randn(1, 4, WIDTH), weights=lambda *_: given)
    assert state(model) == before


def test_rows_may_sum_to_less_than_one() -> None:
    """Where a sink takes the rest."""
    result = from_modules(Model(), r"blocks\.\d", torch.randn(1, 4, WIDTH), weights=lambda *_: EYE * 0.25)
    assert [float(matrix.sum()) for matrix in result.decoder] == [1.0, 1.0]


def test_modules_that_do_not_fit_together() -> None:
    model, x = Model(), torch.randn(1, 4, WIDTH)
    with pytest.raises(CaptureError, match="module 'unused' was named, but did not run"):
        from_modules(model, ["blocks.0", "unused"], x)
    shapes = iter([(2, 4, 4), (1, 4, 4)])
    with pytest.raises(
        CaptureError, match=r"layer 'blocks.1' has attention of 1 texts, 'blocks.0' of 2: the first axis"
    ):
        from_modules(model, r"blocks\.\d", x, weights=lambda *_: torch.full(next(shapes), 0.1))
    shapes = iter([(1, 4, 4), (1, 3, 3)])
    with pytest.raises(
        CaptureError, match=r"'blocks.1': 3 positions attend to 3.*positions change from layer to layer"
    ):
        from_modules(model, r"blocks\.\d", x, weights=lambda *_: torch.full(next(shapes), 0.1))
    with pytest.raises(CaptureError, match=r"'blocks.0': 2 positions attend to 4 of another sequence: say which"):
        from_modules(model, r"blocks\.\d", x, weights=lambda *_: torch.full((1, 2, 4), 0.1))


def test_a_row_that_sees_nothing() -> None:
    call = {"src": torch.randn(1, 3, WIDTH), "src_key_padding_mask": torch.tensor([[True] * 3])}
    with pytest.raises(CaptureError, match=r"layers.0.self_attn': its weights, .*, hold NaN \(a position whose keys"):
        from_modules(plain_encoder(1), ".*self_attn", call)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("where", ["model", "weights", "progress", "interrupt"])
def test_the_model_is_restored_after_an_error(enabled: bool, where: str) -> None:
    model = both_stacks().train()
    model.encoder.layers[1].eval()
    model.register_forward_hook(lambda *_: None)
    failure: type[BaseException] = KeyboardInterrupt if where == "interrupt" else ZeroDivisionError

    def fail(*_: Any) -> Any:
        raise failure

    options = {"weights": fail} if where == "weights" else {"progress": fail} if where != "model" else {}
    if where == "model":
        model.decoder.norm.register_forward_hook(fail)
    call = {"src": torch.randn(1, 4, WIDTH), "tgt": torch.randn(1, 3, WIDTH)}
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        before = state(model)
        with pytest.raises(failure):
            from_modules(model, BOTH, call, stack=STACKS, **options)
        assert state(model) == before
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_weights_of_multihead_attention_may_be_the_callers_own() -> None:
    model, x = plain_encoder(1), torch.randn(1, 4, WIDTH)

    def weights(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        assert args == ()
        assert kwargs["query"] is kwargs["key"]
        return output[1].amax(dim=1) / 2

    made = from_modules(copy.deepcopy(model), ".*self_attn", x, weights=weights).encoder[0]
    torch.testing.assert_close(made, probabilities(model.layers[0].self_attn, x).amax(dim=1) / 2)
