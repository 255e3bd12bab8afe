"""Trained models of every kind, explained: what they say is right, and the scores are of where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import attnflow  # noqa: E402
from attnflow import packaged_models  # noqa: E402
from attnflow.attribution import Grid  # noqa: E402
from attnflow.packaged_models import Model  # noqa: E402

pytestmark = pytest.mark.real_model
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
GREEDY = {"max_new_tokens": 6, "do_sample": False}


def load(model: Model, loader: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """The model, or a skipped test where it is not installed."""
    commands = packaged_models.missing(model)
    if commands is not None:
        pytest.skip(commands)
    return loader()


def said(result: Any) -> str:
    return "".join(token for token, _ in result.predictions)


# --- SmolLM2 ---------------------------------------------------------------------------------------------------------


def test_smollm2_answers_a_question(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    result = attnflow.explain(model, tokenizer, QUESTION, generate=GREEDY)
    assert said(result) == "The capital of France is Paris"
    assert result.sink_labels[-1] == " Paris"
    assert result.predictions[-1][1] > 0.8
    rendered = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert result.text == f"{rendered}The capital of France is"
    for token, span in zip(result.tokens, result.offsets, strict=True):
        assert (span is None) == token.startswith("<|im_")
        assert span is None or result.text[slice(*span)] == token
    n = len(result.tokens) - 5
    encoded = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=True)
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(rendered)) == encoded["input_ids"]
    assert n == len(encoded["input_ids"])
    assert result.verified
    assert result.options["start_token"] == "<|im_start|>"


def test_smollm2_in_a_chain(smollm2: tuple[Any, Any]) -> None:
    """What it said before stands for what that came from: the question's own words."""
    apart = attnflow.explain(*smollm2, QUESTION, generate=GREEDY)
    chained = attnflow.explain(*smollm2, QUESTION, generate=GREEDY, chain=True)
    assert said(chained) == said(apart)
    assert chained.verified
    assert set(chained.players.tolist()) < set(apart.players.tolist())
    before = apart.values[:, : chained.players.size]
    np.testing.assert_allclose(chained.values[0], before[0], atol=1e-9)
    assert (chained.values >= before - 1e-9).all()
    assert {" capital", " France"} <= {row.token for row in chained.top(3, -1)}
    assert apart.top(1, -1)[0].token == " is"


def test_smollm2_is_made_to_say_something_else(smollm2: tuple[Any, Any]) -> None:
    texts = ["The capital of France is", "The capital of Italy is", "Two and two make"]
    results = attnflow.explain(*smollm2, texts, continuation=" Paris", measure="attention")
    shares = [result.prediction[1] for result in results]
    assert shares[0] > 0.2 > shares[1] > shares[2]
    for result, text in zip(results, texts, strict=True):
        alone = attnflow.explain(*smollm2, text, continuation=" Paris", measure="attention")
        assert result.tokens == alone.tokens
        np.testing.assert_allclose(result.values, alone.values, atol=1e-5)


def test_smollm2_by_what_speaks_for_one_word_against_another(smollm2: tuple[Any, Any]) -> None:
    text = "When Mary and John went to the store, John gave a drink to"
    result = attnflow.explain(*smollm2, text, measure="attention_gradient", objective=(" Mary", " John"))
    assert result.verified
    assert result.prediction[0] == " Mary"
    scores: dict[str, float] = {}
    for row in result.rows():
        scores[row.token] = max(row.score, scores.get(row.token, 0.0))
    assert scores[" Mary"] > 2 * scores[" John"] > 0


# --- The small ones --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "question", "answer"), [("add", "6+9=", "15"), ("sub", "15-7=", "8"), ("div", "17/5=", "Q3R2")]
)
def test_mathformer_calculates(operation: Any, question: str, answer: str) -> None:
    model, tokenizer = load("MathFormer", lambda: packaged_models.load_mathformer(operation))
    # It was trained on texts without a start.
    result = attnflow.explain(model, tokenizer, question, generate={"max_new_tokens": 6}, start_token=False)
    assert said(result) == f"{answer}</s>"
    assert result.text == question + answer
    assert result.tokens == tuple(question + answer)
    assert result.values.shape == (len(answer) + 1, len(question) + len(answer))
    assert result.verified


def test_annalog_makes_the_methyl_ether_of_paracetamol() -> None:
    model, tokenizer = load("ANNalog", packaged_models.load_annalog)
    source, made = "CC(=O)Nc1ccc(O)cc1", "CC(=O)Nc1ccc(OC)cc1"
    result = attnflow.explain(model, tokenizer, source)
    assert said(result) == f"{made}<eos>"
    assert result.text == f"{source}\n{made}"
    assert result.n_source == len(source) + 2
    assert result.values.shape == (len(made) + 1, len(source) + len(made))
    forced = attnflow.explain(model, tokenizer, source, target=made)
    assert np.array_equal(forced.values, result.values)
    assert forced.predictions == result.predictions
    assert result.source.players.tolist() == list(range(1, len(source) + 1))
    for options in ({"measure": "attention", "merge": "single"}, {"chain": True}):
        assert attnflow.explain(model, tokenizer, source, target=made, **options).verified


def test_rxnmapper_fills_in_an_atom() -> None:
    model, tokenizer = load("RXNMapper", packaged_models.load_rxnmapper)
    result = attnflow.explain(model, tokenizer, "CCO.BrCC>>CC[MASK]CC", target=11)
    assert result.tokens[11] == "[MASK]"
    assert result.prediction[0] == "O"
    assert result.kind == "encoder"
    reaction = "CCO.BrCC>>CCOCC"
    several = attnflow.explain(model, tokenizer, [reaction, "CO>>CO"], target="mean", measure="attention")
    assert ["".join(one.tokens[1:-1]) for one in several] == [reaction, "CO>>CO"]
    gradient = attnflow.explain(
        model, tokenizer, "CCO.BrCC>>CC[MASK]CC", target=11, measure="attention_x_gradient", objective="O"
    )
    assert gradient.verified


# --- Images and sound ------------------------------------------------------------------------------------------------


def test_dinov2_tells_the_parts_of_an_image() -> None:
    """Noise on the left and stripes on the right: a patch of stripes draws on stripes."""
    image = pytest.importorskip("PIL.Image")
    model, processor = load("DINOv2", packaged_models.load_dinov2)
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    pixels[:, 112:] = np.where(np.arange(224) % 8 < 4, 220, 30)[:, None, None]
    result = attnflow.explain(model, processor, image.fromarray(pixels), measure="attention", target=1 + 16 * 8 + 12)
    assert result.grid == Grid(1, (16, 16))
    assert result.target_label == "output at 'patch 8,12'"
    scores = result.on_grid()
    assert scores[:, 8:].mean() > 1.5 * scores[:, :8].mean()
    whole = attnflow.explain(model, processor, image.fromarray(pixels))
    assert whole.target_label == "class token '[CLS]'"
    assert whole.verified


def test_whisper_writes_down_what_it_hears() -> None:
    model, processor = load("Whisper", packaged_models.load_whisper)
    t = np.arange(80000) / 16000
    tone = (0.5 * np.sin(2 * np.pi * (200 * t + 150 * t * t))).astype(np.float32)
    result = attnflow.explain(model, processor, tone, measure="attention", sources=range(0, 1500, 25), steps=[0, -1])
    assert result.kind == "encoder-decoder"
    assert result.grid == Grid(0, (1500,))
    assert result.tokens[1500:] == ("<|startoftranscript|>", "<|notimestamps|>", " M", "mm")
    assert result.sink_labels == (" M", "...")
    assert result.text == " Mmm"
    forced = attnflow.explain(
        model, processor, tone, target=" Mmm...", measure="attention", sources=range(0, 1500, 25), steps=-2
    )
    assert forced.tokens == (*result.tokens, "...")
    assert forced.prediction == result.predictions[1]
    np.testing.assert_allclose(forced.values[0], result.values[1], atol=1e-6)
    assert result.values.max() > 0
    assert result.verified
