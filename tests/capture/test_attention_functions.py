"""Attention functions that are not transformers' own, and batches whose attention is more than a softmax."""

from __future__ import annotations

from typing import Any

import pytest
from families import LENGTH, VOCABULARY, build, build_encoder_decoder, implemented, registered
from test_loading import capture, furthest, loaded
from test_state import state

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from transformers.masking_utils import flash_attention_mask  # noqa: E402

from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402


def two_texts(ids: Any, left: bool) -> dict[str, Any]:
    """The text, and another that is five tokens shorter, with padding on one side."""
    batch, mask = torch.cat([ids, ids.flip(1)]), torch.ones(2, LENGTH).long()
    padding = slice(0, 5) if left else slice(LENGTH - 5, LENGTH)
    batch[1, padding], mask[1, padding] = 0, 0
    return {"input_ids": batch, "attention_mask": mask}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "bart", "t5"])
def test_what_a_configuration_asks_for_by_default(family: str, ids: Any) -> None:
    model = loaded(family, "eager")
    expected = capture(model, family, ids)
    model.config.output_attentions = model.config.output_hidden_states = model.config.use_cache = True
    capture(model, family, ids)  # the first run with hidden states leaves hooks of the model's own
    before = state(model)
    assert furthest(capture(model, family, ids), expected) == 0
    assert state(model) == before


def test_a_cache_is_refused(ids: Any) -> None:
    for given in ({"past_key_values": transformers.DynamicCache()}, {"use_cache": False}):
        with pytest.raises(InvalidArgumentError, match=f"{next(iter(given))}=.*leave it out"):
            contributions(build("llama"), {"input_ids": ids, **given})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "mistral", "bert", "bart"])
def test_flex_attention_is_refused_by_name(family: str, ids: Any) -> None:
    with pytest.raises(CaptureError, match=r"'flex_attention' masks with a BlockMask.*attn_implementation='sdpa'"):
        capture(implemented(loaded(family), "flex_attention"), family, ids)


def flash(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    """What flash attention computes of its arguments: padding as (batch, n), windows by their length."""
    n, m, heads = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, dim=1), value.repeat_interleave(heads, dim=1)
    scores = query @ key.transpose(2, 3) * options["scaling"]
    ahead = torch.arange(m) - torch.arange(n)[:, None]
    causal = options.get("is_causal")
    hidden = ahead > 0 if (module.is_causal if causal is None else causal) and n > 1 else ahead > m
    if options.get("sliding_window") is not None:
        hidden = hidden | (ahead.abs() >= options["sliding_window"])
    if mask is not None:
        assert mask.ndim == 2
        hidden = hidden | ~mask.bool()[:, None, None]
    output = torch.nan_to_num(scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)) @ value
    if mask is not None and n == m:
        output = output * mask[:, None, :, None]  # no padding enters, and none comes out
    module.flashed = True
    return output.transpose(1, 2).contiguous(), None


@pytest.mark.parametrize("measure", ["attention", "alti"])
@pytest.mark.parametrize("left", [None, True, False])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gpt2", "bert", "modernbert"])
def test_flash_attention(family: str, left: bool | None, measure: str, ids: Any) -> None:
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} if left is None else two_texts(ids, left)
    expected = contributions(build(family, "eager"), inputs, measure=measure)
    with registered(flash, flash_attention_mask, "attnflow_flash") as name:
        model = implemented(build(family), name)
        got = contributions(model, inputs, measure=measure)
    assert sum(hasattr(module, "flashed") for module in model.modules()) == 3
    real = inputs["attention_mask"].bool()
    for one, other in zip(got.layers, expected.layers, strict=True):
        assert (one.matrix - other.matrix)[real].abs().max() <= 2e-6
        assert torch.equal(one.visible[real], other.visible[real])
        if measure == "attention":
            assert torch.count_nonzero(one.matrix[~real]) == 0


def test_flash_attention_across(ids: Any) -> None:
    inputs = two_texts(ids, left=False) | {"decoder_input_ids": ids[:, :9].repeat(2, 1)}
    expected = contributions(build_encoder_decoder("bart", "eager"), inputs)
    with registered(flash, flash_attention_mask, "attnflow_flash") as name:
        got = contributions(implemented(build_encoder_decoder("bart"), name), inputs)
    for text in (0, 1):
        assert furthest(got.of_text(text), expected.of_text(text)) <= 1e-6
    assert got.of_text(1).cross[0].shape == (9, LENGTH - 5)


# --- batches of what is not a plain softmax --------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["attention", "alti", "value_norm"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("family", ["t5", "gpt_oss", "gemma2"])
def test_biases_sinks_and_caps_in_a_batch(family: str, left: bool, implementation: str, measure: str, ids: Any) -> None:
    if implementation == "sdpa" and family != "t5":
        pytest.skip("no sdpa for this family")
    model, inputs = build(family, implementation), two_texts(ids % VOCABULARY, left)
    batch = contributions(model, inputs, measure=measure, block_bytes=3000)
    for text in (0, 1):
        alone = inputs["input_ids"][text : text + 1][:, inputs["attention_mask"][text].bool()]
        expected = contributions(model, alone, measure=measure)
        for one, other in zip(batch.of_text(text).layers, expected.layers, strict=True):
            assert one.matrix.shape == other.matrix.shape[1:]
            assert (one.matrix - other.matrix[0]).abs().max() <= 2e-6
