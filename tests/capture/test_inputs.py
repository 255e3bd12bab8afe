"""Bad input is refused with the value and the rule, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from families import VOCABULARY, build

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from attnflow.capture import (  # noqa: E402
    attentions,
    contributions,
    decoder_inputs,
    estimate,
    generate,
    is_causal,
)
from attnflow.capture._inputs import context_length  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "empty"),
        ([[]], "empty"),
        ([[[[1, 2], [3, 4]]]], r"\(batch, n\).*\(1, 1, 2, 2\)"),
        ([[1, 2], [3]], "all of one length"),
        ([1.5, 2.0], "integers"),
        ([True, False], "integers"),
        ("text", "str 'text'"),
        (None, "NoneType"),
        ({}, "no tensor"),
        ({"input_ids": None}, "no tensor"),
        ({"input_ids": [1], "use_cache": True}, "use_cache=True.*leave it out"),
        ([1, VOCABULARY], f"0..{VOCABULARY - 1}, got {VOCABULARY}"),
        ([1, -1], "got -1"),
        ([5] * 65, "65 tokens.*64"),
    ],
)
def test_ids(ids: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        contributions(build("llama"), ids)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1, 1], r"\(1, 2\) for input_ids of shape \(1, 4\)"),
        ([0, 0, 0, 0], r"attention_mask\[0\].*all 4 tokens are padding"),
        ([[1, 1, 1, 1], [1, 1, 1, 1]], r"\(2, 4\)"),
        ("1111", "attention_mask.*'1111'"),
    ],
)
def test_masks(mask: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        contributions(build("llama"), {"input_ids": [1, 2, 3, 4], "attention_mask": mask})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "rollout"}, "alti.*attention.*rollout"),
        ({"measure": 3}, "measure"),
        ({"heads": "median"}, "median"),
        ({"heads": 4}, "heads=4.*4 heads"),
        ({"heads": True}, "heads"),
        ({"heads": 1.5}, "heads"),
        ({"heads": None}, "heads"),
        ({"heads": [1.0, 2.0]}, "2 weights.*4 heads"),
        ({"heads": [1.0, -1.0, 0.0, 0.0]}, "not negative"),
        ({"heads": [1.0, float("nan"), 0.0, 0.0]}, "finite"),
        ({"heads": float("nan")}, "heads must be.*got nan"),
        ({"heads": float("inf")}, "heads must be.*got inf"),
        ({"block_bytes": 0}, "block_bytes.*0"),
        ({"block_bytes": True}, "block_bytes.*True"),
        ({"progress": 3}, "progress must be a function.*3"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        contributions(build("llama"), [1, 2, 3], **options)


def test_models_that_are_none() -> None:
    for function in (estimate, generate, decoder_inputs):
        with pytest.raises(InvalidArgumentError, match=r"torch module.*str"):
            function("gpt2", [1])  # type: ignore[operator]
    with pytest.raises(InvalidArgumentError, match=r"torch module.*str"):
        is_causal("gpt2")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"torch module.*str"):
        contributions("gpt2", [1])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"\.config.*Linear"):
        contributions(torch.nn.Linear(2, 2), [1])


def test_inputs_that_the_model_does_not_read(ids: Any) -> None:
    class Narrow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build("llama")
            self.config = self.model.config

        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids)

    with pytest.raises(InvalidArgumentError, match=r"Narrow does not read 'pixels': its inputs are input_ids"):
        attentions(Narrow(), input_ids=ids, pixels=ids)
    assert len(attentions(Narrow(), input_ids=ids).decoder) == 3


def test_texts_of_a_batch(ids: Any) -> None:
    batch = attentions(build("llama"), input_ids=ids)
    for text in (1, -1, "0"):
        with pytest.raises(InvalidArgumentError, match=rf"text is {text!r}.*0 \.\.\. 0"):
            batch.of_text(text)


@pytest.mark.parametrize("measure", ["attention", "alti"])
def test_a_model_without_any_attention_is_told_so(measure: str) -> None:
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(CaptureError, match=r"^MambaForCausalLM has no attention to capture") as refusal:
        contributions(transformers.MambaForCausalLM(config), [5, 6, 7], measure=measure)
    assert "measure=" not in str(refusal.value)  # no measure would help


@pytest.mark.parametrize("measure", ["attention", "alti"])
@pytest.mark.parametrize("without", [0, 1])
def test_a_hybrid_model_names_the_layer_without_attention(without: int, measure: str) -> None:
    config = transformers.Qwen3NextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=["linear_attention" if layer == without else "full_attention" for layer in range(4)],
    )
    with pytest.raises(CaptureError, match=rf"^layer 'model\.layers\.{without}' .*Hybrid models") as refusal:
        contributions(transformers.Qwen3NextForCausalLM(config).eval(), [5, 6, 7], measure=measure)
    assert "measure=" not in str(refusal.value)


def test_context_lengths() -> None:
    assert context_length(build("llama")) == 64
    assert context_length(build("gpt2")) == 64
    assert context_length(build("roberta")) == 63  # positions start after the padding index, which is 0 here
    assert context_length(build("bloom")) is None
    with pytest.raises(InvalidArgumentError, match=r"64 tokens.*63"):
        contributions(build("roberta"), [5] * 64)
    assert attentions(build("roberta"), input_ids=[5] * 63).encoder[0].shape == (1, 63, 63)
    assert attentions(build("opt"), input_ids=[5] * 64).decoder[0].shape == (1, 64, 64)


def test_a_model_that_takes_no_options_is_told_so_too() -> None:
    config = transformers.EncodecConfig(
        num_filters=4, hidden_size=8, codebook_size=16, codebook_dim=8, target_bandwidths=[1.5]
    )
    with pytest.raises(CaptureError, match=r"^EncodecModel has no attention to capture"):
        attentions(transformers.EncodecModel(config).eval(), input_values=torch.zeros(1, 1, 2000))


def test_a_slip_in_a_name_is_not_passed_over() -> None:
    ids, mask = torch.tensor([[5, 6, 7]]), torch.tensor([[0, 1, 1]])
    with pytest.raises(InvalidArgumentError, match=r"does not read 'atention_mask': is 'attention_mask' meant\?"):
        attentions(build("llama"), input_ids=ids, atention_mask=mask)
    assert attentions(build("llama"), input_ids=ids, num_items_in_batch=1).kind == "decoder"  # of its parts' concern


@pytest.mark.parametrize("name", ["inputs_embeds", "pixel_values"])
def test_what_is_not_finite_is_named(name: str) -> None:
    given = torch.zeros(1, 3, 32)
    given[0, 1, 2] = torch.nan
    with pytest.raises(InvalidArgumentError, match=rf"{name} of shape \(1, 3, 32\) must be finite"):
        attentions(build("llama"), **{name: given})


def test_padding_of_what_was_embedded() -> None:
    model, ids = build("llama"), torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    expected = attentions(model, input_ids=ids, attention_mask=mask).of_text(1)
    with torch.no_grad():
        embedded = model.get_input_embeddings()(ids)
    got = attentions(model, inputs_embeds=embedded, attention_mask=mask).of_text(1)
    assert all(map(torch.equal, got.decoder, expected.decoder))
    assert got.decoder[0].shape == (3, 3)


def test_what_a_model_fails_on_is_said_in_a_line() -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.ViTModel(transformers.ViTConfig(**small, image_size=12, patch_size=4)).eval()
    with pytest.raises(InvalidArgumentError, match=r"^ViTModel does not run on what it was given: ValueError: .*16"):
        attentions(model, pixel_values=torch.zeros(1, 3, 16, 16))
    ears = {"conv_dim": (8,), "conv_stride": (5,), "conv_kernel": (10,), "num_feat_extract_layers": 1}
    ears |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    heard = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**small, **ears)).eval()
    with pytest.raises(CaptureError, match=r"^Wav2Vec2Model does not run on what it was given: RuntimeError: .*size"):
        attentions(heard, input_values=torch.zeros(1, 3))


@pytest.mark.parametrize("raised", [RuntimeError, ValueError, KeyError])
def test_errors_of_the_callers_own_stay_theirs(raised: type[Exception]) -> None:
    def stop(*_: object) -> None:
        raise raised("mine")

    for family in ("llama", "bloom"):
        for options in ({"progress": stop}, {"measure": stop}, {"measure": "attention_gradient", "objective": stop}):
            with pytest.raises(raised, match=r"^'?mine'?$"):
                contributions(build(family), [5, 6, 7], **options)
