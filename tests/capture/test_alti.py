"""ALTI against a slow oracle: loops over positions and heads, written from the definition, family by family.

The oracle shares nothing with the library: it reads eager attentions and hidden states in float64, takes values from
the layer's weights by the family's own layout, and applies the layer norm in full where the library cancels a factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from families import LENGTH, build, matrices

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402


@dataclass
class Parts:
    """One layer, taken apart by hand."""

    values: Any  # (H, n, e), heads repeated
    output: Any  # (H * e, d)
    output_bias: Any | None
    pre: Callable[[Any, Any], Any] | None  # norm of the attention part alone, (vector, position) -> vector
    post: Callable[[Any, Any], Any] | None  # norm of the sum


def _heads(flat: Any, count: int, repeat: int = 1) -> Any:
    return flat.view(LENGTH, count, -1).transpose(0, 1).repeat_interleave(repeat, dim=0)


def _llama(layer: Any, x: Any) -> Parts:
    attention = layer.self_attn
    flat = attention.v_proj(layer.input_layernorm(x))
    count = flat.shape[-1] // attention.head_dim
    return Parts(_heads(flat, count, 4 // count), attention.o_proj.weight.T, None, None, None)


def _gemma2(layer: Any, x: Any) -> Parts:
    parts = _llama(layer, x)
    norm = layer.post_attention_layernorm
    parts.pre = lambda v, whole: v / torch.sqrt(whole.square().mean() + norm.eps) * (1 + norm.weight)
    return parts


def _olmo2(layer: Any, x: Any) -> Parts:
    attention, norm = layer.self_attn, layer.post_attention_layernorm
    values = _heads(attention.v_proj(x), 2, 2)
    return Parts(
        values,
        attention.o_proj.weight.T,
        None,
        lambda v, whole: v / torch.sqrt(whole.square().mean() + norm.variance_epsilon) * norm.weight,
        None,
    )


def _gpt2(layer: Any, x: Any) -> Parts:
    flat = layer.attn.c_attn(layer.ln_1(x))[:, 64:]
    return Parts(_heads(flat, 4), layer.attn.c_proj.weight, layer.attn.c_proj.bias, None, None)


def _gpt_neox(layer: Any, x: Any) -> Parts:
    fused = layer.attention.query_key_value(layer.input_layernorm(x)).view(LENGTH, 4, 3, 8)
    dense = layer.attention.dense
    return Parts(fused[:, :, 2].transpose(0, 1), dense.weight.T, dense.bias, None, None)


def _phi3(layer: Any, x: Any) -> Parts:
    flat = layer.self_attn.qkv_proj(layer.input_layernorm(x))[:, 48:]
    return Parts(_heads(flat, 2, 2), layer.self_attn.o_proj.weight.T, None, None, None)


def _opt(layer: Any, x: Any) -> Parts:
    attention = layer.self_attn
    flat = attention.v_proj(layer.self_attn_layer_norm(x) if layer.do_layer_norm_before else x)
    post = None if layer.do_layer_norm_before else _layer_norm(layer.self_attn_layer_norm)
    return Parts(_heads(flat, 4), attention.out_proj.weight.T, attention.out_proj.bias, None, post)


def _modernbert(layer: Any, x: Any) -> Parts:
    fused = layer.attn.Wqkv(layer.attn_norm(x)).view(LENGTH, 3, 4, 8)
    return Parts(fused[:, 2].transpose(0, 1), layer.attn.Wo.weight.T, None, None, None)


def _t5(layer: Any, x: Any) -> Parts:
    attention = layer.layer[0].SelfAttention
    return Parts(_heads(attention.v(layer.layer[0].layer_norm(x)), 4), attention.o.weight.T, None, None, None)


def _layer_norm(norm: Any) -> Callable[[Any, Any], Any]:
    """The layer norm at ``whole``, as the linear map of a share of it (without its bias)."""

    def apply(v: Any, whole: Any) -> Any:
        deviation = torch.sqrt((whole - whole.mean()).square().mean() + norm.eps)
        return (v - v.mean()) / deviation * norm.weight

    return apply


def _bert(layer: Any, x: Any) -> Parts:
    dense, norm = layer.attention.output.dense, layer.attention.output.LayerNorm
    return Parts(_heads(layer.attention.self.value(x), 4), dense.weight.T, dense.bias, None, _layer_norm(norm))


def _albert(layer: Any, x: Any) -> Parts:
    attention = layer.attention
    return Parts(
        _heads(attention.value(x), 4),
        attention.dense.weight.T,
        attention.dense.bias,
        None,
        _layer_norm(attention.LayerNorm),
    )


def _distilbert(layer: Any, x: Any) -> Parts:
    attention = layer.attention
    return Parts(
        _heads(attention.v_lin(x), 4),
        attention.out_lin.weight.T,
        attention.out_lin.bias,
        None,
        _layer_norm(layer.sa_layer_norm),
    )


def _bloom(layer: Any, x: Any) -> Parts:
    attention = layer.self_attention
    fused = attention.query_key_value(layer.input_layernorm(x)).view(LENGTH, 4, 3, 8)
    return Parts(fused[:, :, 2].transpose(0, 1), attention.dense.weight.T, attention.dense.bias, None, None)


def _falcon(layer: Any, x: Any) -> Parts:
    attention = layer.self_attention
    shared = attention.query_key_value(layer.input_layernorm(x))[:, -8:]
    return Parts(_heads(shared, 1, 4), attention.dense.weight.T, None, None, None)


def _gptj(layer: Any, x: Any) -> Parts:
    return Parts(_heads(layer.attn.v_proj(layer.ln_1(x)), 4), layer.attn.out_proj.weight.T, None, None, None)


def _mpnet(layer: Any, x: Any) -> Parts:
    inner, post = layer.attention.attn, _layer_norm(layer.attention.LayerNorm)
    return Parts(_heads(inner.v(x), 4), inner.o.weight.T, inner.o.bias, None, post)


def _deberta(layer: Any, x: Any) -> Parts:
    dense, post = layer.attention.output.dense, _layer_norm(layer.attention.output.LayerNorm)
    return Parts(_heads(layer.attention.self.value_proj(x), 4), dense.weight.T, dense.bias, None, post)


def _openai_gpt(layer: Any, x: Any) -> Parts:
    attention = layer.attn
    return Parts(
        _heads(attention.c_attn(x)[:, 64:], 4),
        attention.c_proj.weight,
        attention.c_proj.bias,
        None,
        _layer_norm(layer.ln_1),
    )


def _model_layers(model: Any) -> Any:
    return model.model.layers


TAKEN_APART: dict[str, tuple[Callable[[Any, Any], Parts], Callable[[Any], Any]]] = {
    "albert": (_albert, lambda m: [m.encoder.albert_layer_groups[0].albert_layers[0]] * 3),
    "bert": (_bert, lambda m: m.encoder.layer),
    "bloom": (_bloom, lambda m: m.transformer.h),
    "deberta_v2": (_deberta, lambda m: m.encoder.layer),
    "distilbert": (_distilbert, lambda m: m.transformer.layer),
    "electra": (_bert, lambda m: m.encoder.layer),
    "falcon": (_falcon, lambda m: m.transformer.h),
    "gemma": (_llama, _model_layers),
    "gemma2": (_gemma2, _model_layers),
    "gemma3": (_gemma2, _model_layers),
    "gpt2": (_gpt2, lambda m: m.transformer.h),
    "gpt_neox": (_gpt_neox, lambda m: m.gpt_neox.layers),
    "gptj": (_gptj, lambda m: m.transformer.h),
    "llama": (_llama, _model_layers),
    "mistral": (_llama, _model_layers),
    "mixtral": (_llama, _model_layers),
    "modernbert": (_modernbert, lambda m: m.layers),
    "mpnet": (_mpnet, lambda m: m.encoder.layer),
    "olmo2": (_olmo2, _model_layers),
    "openai_gpt": (_openai_gpt, lambda m: m.transformer.h),
    "opt": (_opt, lambda m: m.model.decoder.layers),
    "opt_post_norm": (_opt, lambda m: m.model.decoder.layers),
    "phi3": (_phi3, _model_layers),
    "qwen2": (_llama, _model_layers),
    "qwen3": (_llama, _model_layers),
    "roberta": (_bert, lambda m: m.encoder.layer),
    "t5": (_t5, lambda m: m.encoder.block),
}


def oracle(family: str, ids: Any) -> list[Any]:
    """ALTI of every layer, (n, n) float64, by the definition."""
    take_apart, layers = TAKEN_APART[family]
    model = build(family, "eager", torch.float64)
    model.config._experts_implementation = "eager"  # torch has no grouped products of float64
    with torch.no_grad():
        output = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True, output_hidden_states=True
        )
        return [
            _one_layer(take_apart(layer, x[0]), weights[0].double(), x[0])
            for layer, weights, x in zip(layers(model), output.attentions, output.hidden_states, strict=False)
        ]


def _one_layer(parts: Parts, weights: Any, x: Any) -> Any:
    heads, n, e = parts.values.shape
    written = torch.stack([parts.values[h] @ parts.output[h * e : (h + 1) * e] for h in range(heads)])  # (H, n, d)
    contributions_ = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        shares = [sum(weights[h, i, j] * written[h, j] for h in range(heads)) for j in range(n)]
        attention = sum(shares)
        if parts.output_bias is not None:
            attention = attention + parts.output_bias
        if parts.pre is not None:
            shares = [parts.pre(share, attention) for share in shares]
        shares[i] = shares[i] + x[i]
        if parts.post is not None:
            shares = [parts.post(share, attention + x[i]) for share in shares]
        y = sum(shares)
        for j in range(n):
            contributions_[i, j] = max(0.0, (y.abs().sum() - (y - shares[j]).abs().sum()).item())
    return contributions_ / contributions_.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize("family", TAKEN_APART)
def test_equals_the_oracle(family: str, ids: Any) -> None:
    result = contributions(build(family), ids, measure="alti")
    assert result.holds_residual
    assert result.measure == "alti"
    expected = oracle(family, ids)
    assert len(matrices(result)) == len(expected) == 3
    for got, matrix in zip(matrices(result), expected, strict=True):
        assert got.dtype == torch.float32
        assert (got - matrix).abs().max() <= 1e-5
    if family == "mixtral":
        return  # no float64, as above
    exact = matrices(contributions(build(family, dtype=torch.float64), ids, measure="alti"))
    for got, matrix in zip(exact, expected, strict=True):
        assert (got - matrix).abs().max() <= 1e-6


@pytest.mark.parametrize("family", ["gpt_oss", "phi", "stablelm"])
def test_further_families_are_proved_by_their_own_numbers(family: str, ids: Any) -> None:
    for matrix in matrices(contributions(build(family), ids, measure="alti")):
        assert (matrix.sum(dim=-1) - 1).abs().max() <= 1e-5
        assert torch.count_nonzero(torch.triu(matrix, diagonal=1)) == 0


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert"])
def test_tiles_and_blocks_change_nothing(family: str, ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnflow.capture.measures import ALTI

    model = build(family)
    expected = matrices(contributions(model, ids, measure="alti"))
    for rows, tile, kept in ((1, 1, 0), (5, 5000, 0), (64, 1 << 24, 1 << 30)):
        monkeypatch.setattr(ALTI, "rows", rows)
        monkeypatch.setattr(ALTI, "tile_bytes", tile)
        monkeypatch.setattr(ALTI, "kept_bytes", kept)
        for got, matrix in zip(
            matrices(contributions(model, ids, measure="alti", block_bytes=1)), expected, strict=True
        ):
            assert (got - matrix).abs().max() <= 1e-5


def test_a_causal_model_stays_causal_to_the_bit(ids: Any) -> None:
    for family in ("llama", "mistral", "gpt2"):
        result = contributions(build(family), ids, measure="alti")
        assert result.kind == "decoder"
        for matrix in matrices(result):
            assert torch.count_nonzero(torch.triu(matrix, diagonal=1)) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "gemma2"])
def test_half_precision_is_recognised_too(family: str, dtype: str, ids: Any) -> None:
    expected = matrices(contributions(build(family), ids, measure="alti"))[0]
    got = matrices(contributions(build(family, dtype=getattr(torch, dtype)), ids, measure="alti"))[0]
    assert (got - expected).abs().max() <= (0.1 if dtype == "bfloat16" else 0.02)


def test_a_projection_that_is_adapted_is_asked_for_its_answers(ids: Any) -> None:
    """An adapter around the projection, as LoRA makes it: the inner module is not the whole truth."""

    class Adapted(torch.nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            self.down, self.up = torch.nn.Linear(32, 2, bias=False), torch.nn.Linear(2, 32, bias=False)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.up(self.down(x))

    model, merged = build("llama"), build("llama")
    with torch.no_grad():
        for layer, twin in zip(model.model.layers, merged.model.layers, strict=True):
            layer.self_attn.o_proj = Adapted(layer.self_attn.o_proj)
            adapter = layer.self_attn.o_proj
            twin.self_attn.o_proj.weight += adapter.up.weight @ adapter.down.weight
    got = matrices(contributions(model, ids, measure="alti"))
    for matrix, expected in zip(got, matrices(contributions(merged, ids, measure="alti")), strict=True):
        assert (matrix - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("change", ["gain", "gate", "norm"])
def test_an_unknown_arrangement_is_refused_with_the_layer_named(change: str, ids: Any) -> None:
    """Each of these would give a plausible and wrong matrix if the equations were not checked."""
    model = build("llama")
    layer = model.model.layers[1]

    class Changed(torch.nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base, self.config, self.layer_idx, self.is_causal = base, base.config, base.layer_idx, True

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out, weights = self.base(*args, **kwargs)
            if change == "gain":
                return 0.9 * out, weights
            if change == "gate":
                return out * torch.sigmoid(out), weights
            return torch.nn.functional.normalize(out, dim=-1), weights

    # Plain functions, not modules, change the output between the projection and the residual.
    inner = layer.self_attn
    changed = Changed(inner)
    layer.register_module("self_attn", _Opaque(changed))
    with pytest.raises(CaptureError, match=r"model\.layers\.1"):
        contributions(model, ids, measure="alti")
    assert len(contributions(model, ids).layers) == 3  # attention needs no residual


class _Opaque(torch.nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.layer_idx = inner.layer_idx

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def test_a_tiny_wrong_residual_is_noticed_beside_a_huge_channel(ids: Any) -> None:
    """Residual streams hold channels a thousand times larger than what a sub-block adds."""
    model = build("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 3] = 3000.0
    assert len(contributions(model, ids, measure="alti").layers) == 3
    inner = model.model.layers[2]
    original = inner.forward

    def shifted(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) * 1.0005

    inner.forward = shifted
    with pytest.raises(CaptureError, match=r"model\.layers\.2"):
        contributions(model, ids, measure="alti")


def test_heads_make_no_sense_for_alti(ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="heads='max'"):
        contributions(build("llama"), ids, measure="alti", heads="max")


@pytest.mark.parametrize("measure", ["alti", "value_norm_residual"])
def test_scales_that_are_the_layers_own(measure: str) -> None:
    """BEiT multiplies by a parameter what others multiply by a module: the same as if its projection did."""
    size = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = transformers.BeitModel(transformers.BeitConfig(**size, image_size=12, patch_size=4)).eval()
    image = {"pixel_values": torch.randn(2, 3, 12, 12)}
    scaled = {name: 0.5 + torch.rand(32) for name, _ in model.named_parameters() if name.endswith("lambda_1")}
    assert len(scaled) == 2
    with torch.no_grad():
        for name, scale in scaled.items():
            model.get_parameter(name).copy_(scale)
        got = contributions(model, image, measure=measure).encoder
        for name, scale in scaled.items():
            model.get_parameter(name).fill_(1)
            projection = model.get_submodule(name.removesuffix(".lambda_1")).attention.o_proj
            projection.weight.mul_(scale[:, None])
            projection.bias.mul_(scale)
    for one, expected in zip(got, contributions(model, image, measure=measure).encoder, strict=True):
        assert (one - expected).abs().max() <= 1e-6
