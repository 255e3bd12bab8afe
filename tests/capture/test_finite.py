"""A damaged weight, or an overflow, is called by its name, whichever proof it would have failed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from families import build

torch = pytest.importorskip("torch")

from attnflow.capture import contributions  # noqa: E402
from attnflow.capture._finite import finite  # noqa: E402
from attnflow.errors import CaptureError  # noqa: E402

MODULES = (
    "model.embed_tokens",
    "model.layers.1.input_layernorm",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.o_proj",
    "model.layers.2.mlp.down_proj",
    "lm_head",
)


def spoil(model: Any, name: str, value: float = math.nan) -> Any:
    """The model with one number of a module's weight replaced: the first, of an embedding in the row of token 5."""
    weight = model.get_submodule(name).weight
    with torch.no_grad():
        weight.view(-1)[5 * weight.shape[-1] if "embed" in name else 0] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("measure", ["attention", "alti"])
@pytest.mark.parametrize("name", MODULES)
def test_the_module_of_a_broken_weight_is_named(name: str, measure: str, value: float) -> None:
    with pytest.raises(CaptureError, match=rf"^layer '{name}': .*not finite.*weights are damaged"):
        contributions(spoil(build("llama"), name, value), [5, 6, 7], measure=measure)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "encoder.layer.2.output.dense"),  # no head behind it
        ("bloom", "transformer.h.1.self_attention.dense"),  # caught by hooks
        ("gpt2", "transformer.h.0.attn.c_proj"),
    ],
)
def test_other_kinds_of_model(family: str, name: str) -> None:
    with pytest.raises(CaptureError, match=rf"^layer '{name}': .*not finite"):
        contributions(spoil(build(family), name), [5, 6, 7])


def test_an_overflow_in_half_precision_advises_float32() -> None:
    model = spoil(build("llama", dtype=torch.float16), "model.layers.1.mlp.down_proj", 6e4)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0] = 6e4
    with pytest.raises(CaptureError, match=r"model\.layers\.1\.mlp.*torch\.float16.*in float32"):
        contributions(model, [5, 6, 7], measure="alti")


def test_a_token_that_the_head_rules_out_is_no_broken_number() -> None:
    model = build("llama")
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([3]), -math.inf))
    logits = contributions(model, [5, 6, 7]).logits
    assert logits is not None
    assert bool(logits[0, :, 3].isneginf().all())


def test_nothing_stays_on_the_model() -> None:
    model = spoil(build("llama"), "lm_head").train()
    with pytest.raises(CaptureError):
        contributions(model, [5, 6, 7])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_sum_that_overflows_is_no_damage() -> None:
    large = torch.full((4, 4), 3e38)
    assert finite(large)
    assert finite(torch.empty(0))
    large[1, 2] = torch.inf
    assert not finite(large)
    assert not finite(torch.tensor([1.0, torch.nan]))
    assert not finite(torch.tensor([torch.inf, -torch.inf]))
    assert finite(torch.ones(3).to(torch.float8_e4m3fn))
    assert not finite(torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn))
