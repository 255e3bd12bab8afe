"""Several texts at once: each gets what it would have got alone, and padding is nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import LONG, TEXT, bart, bert_like, build, llama, plain, state, t5, tokenizer, two_sided

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow.capture import _hooks  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

TEXTS = [TEXT, "the dog", "run", "a cat saw the dog on the hill , and the dog saw a cat .", "over the hill"]
GREEDY = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}


def bloom() -> Any:
    return build("BloomForCausalLM", {"hidden_size": 16, "n_layer": 3, "n_head": 4}, "BloomConfig")


def mistral() -> Any:
    return build("MistralForCausalLM", {**LONG, "num_key_value_heads": 2, "sliding_window": 4})


def gpt2() -> Any:
    return build("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32})


def deberta() -> Any:
    more = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
    return build("DebertaV2Model", {**LONG, **more})


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "decoder": (llama, plain, {}),
    "decoder's windows": (mistral, plain, {"measure": "attention"}),
    "absolute positions": (gpt2, plain, {}),
    "answers": (llama, plain, {"generate": GREEDY}),
    "chained answers": (gpt2, plain, {"generate": GREEDY, "chain": True}),
    "a continuation": (llama, plain, {"continuation": " saw a mat"}),
    "encoder": (lambda: build("BertModel", LONG), bert_like, {}),
    "encoder's mean": (lambda: build("BertModel", LONG), bert_like, {"target": "mean", "measure": "value_norm"}),
    "encoder-decoder": (bart, two_sided, {"target": "a dog sat"}),
    "relative positions": (t5, two_sided, {"target": "a dog sat", "measure": "attention", "merge": "single"}),
    "encoder-decoder's answers": (bart, two_sided, {"generate": {"max_new_tokens": 4}}),
    "hooks": (bloom, plain, {"measure": "attention"}),
    "an encoder's hooks": (deberta, bert_like, {"measure": "attention"}),
}


def same(one: Any, other: Any) -> None:
    for name in ("tokens", "offsets", "text", "targets", "target_label", "sink_labels", "kind", "n_source", "n_nodes"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.players.tolist() == other.players.tolist()
    assert one.values.shape == other.values.shape
    np.testing.assert_allclose(one.values, other.values, rtol=5e-6, atol=1e-6)
    for name in ("predictions", "prediction"):
        mine, wanted = (getattr(result, name) for result in (one, other))
        assert (mine is None) == (wanted is None)
        for (token, share), (expected, probability) in zip(
            [mine] if name == "prediction" and mine else mine or (),
            [wanted] if name == "prediction" and wanted else wanted or (),
            strict=True,
        ):
            assert token == expected
            assert share == pytest.approx(probability, rel=1e-5, abs=1e-6)
    assert one.verified


@pytest.mark.parametrize("case", CASES)
def test_each_text_gets_what_it_would_have_got_alone(case: str) -> None:
    make, read, options = CASES[case]
    model, tokens = make(), read()
    before = state(model)
    alone = [attnflow.explain(model, tokens, text, **options) for text in TEXTS]
    for batch_size in (1, 2, 8):
        together = attnflow.explain(model, tokens, TEXTS, batch_size=batch_size, **options)
        assert isinstance(together, list)
        assert len(together) == len(TEXTS)
        for one, other in zip(together, alone, strict=True):
            same(one, other)
            assert set(one.timings) >= {"capture", "network", "flow"}
    assert state(model) == before


@pytest.mark.parametrize("case", ["decoder", "encoder", "encoder-decoder", "hooks"])
def test_padding_is_nobody(case: str) -> None:
    make, read, options = CASES[case]
    for result, text in zip(attnflow.explain(make(), read(), TEXTS, sources="all", **options), TEXTS, strict=True):
        assert "[PAD]" not in result.tokens
        words = [token for token in result.tokens[: result.n_source or None] if not token.startswith(("<", "["))]
        assert words == text.split()
        assert result.players.size == len(result.tokens)
        assert result.n_nodes <= (result.n_layers + 3) * len(result.tokens)


def test_one_text_in_a_list_is_a_list_of_one() -> None:
    model, tokens = llama(), plain()
    (one,) = attnflow.explain(model, tokens, [TEXT])
    same(one, attnflow.explain(model, tokens, TEXT))
    (one,) = attnflow.explain(model, tokens, (TEXT,))
    assert one.text == TEXT


def test_texts_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, shapes = llama(), plain(), []
    model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    attnflow.explain(model, tokens, TEXTS, batch_size=3)
    longest = [max(len(text.split()) + 1 for text in part) for part in (TEXTS[:3], TEXTS[3:])]
    assert shapes == [(3, longest[0]), (2, longest[1])]
    shapes.clear()
    attnflow.explain(model, tokens, TEXTS[:2], measure="attention_gradient")
    assert shapes == [(1, 11), (1, 3)]  # gradients are taken of one text at a time


def test_a_model_that_says_nothing_of_causality_is_found_out() -> None:
    model = build("BloomModel", {"hidden_size": 16, "n_layer": 3, "n_head": 4}, "BloomConfig")
    for one, text in zip(attnflow.explain(model, plain(), TEXTS, measure="attention"), TEXTS, strict=True):
        assert one.kind == "decoder"
        assert one.tokens == ("<s>", *text.split())


def test_a_target_in_every_text() -> None:
    model, tokens = llama(), plain()
    texts = ["the dog run", "a mat and the dog"]
    for one, text in zip(attnflow.explain(model, tokens, texts, target="dog"), texts, strict=True):
        assert one.targets == ((text.split().index("dog") + 1,),)
    for one in attnflow.explain(model, tokens, texts, target=2, sources=iter([1, 2])):
        assert one.targets == ((2,),)
        assert one.players.tolist() == [1, 2]


def test_gradients_of_several_texts() -> None:
    model, tokens = llama(), plain()
    together = attnflow.explain(model, tokens, TEXTS[:3], measure="attention_x_gradient", objective="cat")
    for one, text in zip(together, TEXTS[:3], strict=True):
        same(one, attnflow.explain(model, tokens, text, measure="attention_x_gradient", objective="cat"))


# --- What is wrong with one of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize(
    ("wrong", "options", "message"),
    [
        ("", {}, "text is empty"),
        ("   ", {}, "holds no token"),
        ("cat \udc00", {}, "half of a character"),
        (None, {}, "text must be a str.*None"),
        (3, {}, "text must be a str.*3"),
        (b"cat", {}, "text must be a str.*bytes"),
        ("cat " * 40, {}, r"41 tokens.*32"),
        ("cat " * 40, {"generate": {"max_new_tokens": 2}}, r"40 tokens.*32"),
        ("the cat", {"target": "dog"}, "'dog' is not in the text 'the cat'"),
        ("the cat", {"target": 3}, r"target is 3, but the input has 3 tokens"),
        ([["cat"]], {}, "LlamaForCausalLM reads text"),
        ({}, {}, "empty mapping"),
    ],
)
def test_the_text_that_is_wrong_is_named(wrong: Any, options: dict[str, Any], message: str, batch_size: int) -> None:
    model = llama()
    before = state(model)
    with pytest.raises(InvalidArgumentError, match=rf"^text\[2\]: .*{message}"):
        attnflow.explain(
            model, plain(), ["the dog run", "saw a dog", wrong, "a dog run"], batch_size=batch_size, **options
        )
    assert state(model) == before


def test_a_token_that_the_model_lacks_is_named() -> None:
    more = tokenizer(bos_token="<s>", eos_token="<new>")
    with pytest.raises(InvalidArgumentError, match=r"^text\[1\]: .*does the tokenizer belong to this model"):
        attnflow.explain(llama(), more, ["the dog", "cat <new>"])


def test_a_layer_that_cannot_be_captured_is_no_texts_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hooks.Products, "_multiply", frozenset())
    with pytest.raises(CaptureError, match="measure='attention'"):
        attnflow.explain(bloom(), plain(), TEXTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": []}, "text is an empty list"),
        ({"text": ()}, "text is an empty list"),
        ({"batch_size": 0}, "batch_size is 0; it must be an integer >= 1"),
        ({"batch_size": 1.5}, r"batch_size is 1\.5"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": "8"}, "batch_size is '8'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(llama(), plain(), **{"text": TEXTS, **options})


def test_progress_of_several_texts() -> None:
    calls: list[tuple[str, int, int]] = []
    attnflow.explain(llama(), plain(), TEXTS[:3], batch_size=2, progress=lambda *step: calls.append(step))
    assert [call for call in calls if call[0] == "capture"] == [("capture", layer, 3) for layer in (1, 2, 3)] * 2
