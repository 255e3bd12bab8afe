"""Token ids given as they are, alone or beside an image: positions have their tokens, and an image's tokens play."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import ENDS, LONG, TEXT, VOCABULARY, bart, bert_like, build, ids, llama, plain, sharpened, two_sided

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

import attnflow  # noqa: E402
from attnflow import Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402

IMAGE = VOCABULARY["[MASK]"]


def llava() -> Any:
    """Nine patches stand in a text of five words."""
    torch.manual_seed(0)
    sees = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**sees, image_size=12, patch_size=4),
        text_config=transformers.LlamaConfig(vocab_size=len(VOCABULARY), **LONG, num_key_value_heads=2, **ENDS),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    return sharpened(transformers.LlavaForConditionalGeneration(config))


def test_a_text_with_an_image_in_it() -> None:
    row = [*ids(["<s>", "the", "cat"]), *[IMAGE] * 9, *ids(["sat", "on"])]
    pixels = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    given = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, 14).long(), "pixel_values": pixels}
    result = attnflow.explain(llava(), plain(mask_token="[MASK]"), given, measure="attention")
    assert result.tokens == ("<s>", "the", "cat", *["[MASK]"] * 9, "sat", "on")
    assert result.players.tolist() == list(range(1, 14))  # a special token in the tokenizer's eyes, a patch in ours
    assert (result.kind, result.target_label) == ("decoder", "next token after 'on'")
    assert result.prediction is not None
    captured = contributions(llava(), given)
    assert len(captured.encoder) == 2
    layers = [layer[0] for layer in captured.decoder]
    expected = Network.decoder(layers, residual=0.5, calibration="excess").source_flows(-1, sources=range(1, 14))
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_ids_are_as_their_text(kind: str) -> None:
    model, tokenizer = (llama(), plain()) if kind == "decoder" else (build("BertModel", LONG), bert_like())
    expected = attnflow.explain(model, tokenizer, TEXT)
    row = ids(expected.tokens)
    for padding in (0, 3):
        mask = [[1] * len(row) + [0] * padding]
        given = {"input_ids": torch.tensor([row + [0] * padding]), "attention_mask": torch.tensor(mask)}
        result = attnflow.explain(model, tokenizer, given)
        assert (result.tokens, result.targets, result.kind) == (expected.tokens, expected.targets, kind)
        assert np.array_equal(result.players, expected.players)
        np.testing.assert_allclose(result.values, expected.values, rtol=5e-6, atol=1e-6)


def test_a_word_that_is_to_be_found_plays_like_others() -> None:
    row = ids(["[CLS]", "the", "[MASK]", "sat", "[SEP]"])
    result = attnflow.explain(build("BertModel", LONG), bert_like(), {"input_ids": torch.tensor([row])})
    assert (result.players.tolist(), result.target_label) == ([1, 2, 3], "class token '[CLS]'")


def test_ids_of_a_source() -> None:
    model, tokenizer = bart(), two_sided()
    expected = attnflow.explain(model, tokenizer, "the cat sat", target="a dog")
    given = tokenizer("the cat sat", return_tensors="pt")
    result = attnflow.explain(model, tokenizer, dict(given), target="a dog")
    assert (result.tokens, result.n_source, result.sink_labels) == (expected.tokens, 4, expected.sink_labels)
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-6)


def test_without_a_tokenizer_positions_have_numbers() -> None:
    result = attnflow.explain(llama(), None, {"input_ids": torch.tensor([ids(["the", "cat", "sat"])])})
    assert result.tokens == ("position 0", "position 1", "position 2")
