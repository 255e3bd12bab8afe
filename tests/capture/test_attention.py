"""Captured attention is the model's attention, family by family, and the model's output is untouched."""

from __future__ import annotations

from typing import Any

import pytest
from families import DECODERS, ENCODERS, FAMILIES, HOOKED, LENGTH, build, eager_attentions, matrices

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import CaptureError  # noqa: E402


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_mean_of_the_eager_weights(family: str, ids: Any) -> None:
    weights, _ = eager_attentions(family, ids)
    result = contributions(build(family, "eager" if family == "falcon_alibi" else None), ids)
    assert len(matrices(result)) == len(weights) == 3
    for got, expected in zip(matrices(result), weights, strict=True):
        assert got.dtype == torch.float32
        assert got.shape == (LENGTH, LENGTH)
        # The instance must have something to get wrong: sharp rows, not the uniform ones of an untrained model.
        assert expected.amax(dim=-1).mean() > 2 / LENGTH
        assert (got - expected.mean(dim=0)).abs().max() <= 1e-6
    assert result.kind == ("decoder" if family in DECODERS or _is_decoder(family) else "encoder")
    assert result.path == ("hooks" if family in HOOKED else "interface")
    assert not result.holds_residual
    assert len(set(result.layer_names)) == 3


def _is_decoder(family: str) -> bool:
    return family in HOOKED and family not in {"deberta_v2", "mpnet"}


@pytest.mark.parametrize("family", sorted({**DECODERS, **ENCODERS}))
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_blocks_of_one_query_give_the_same(family: str, implementation: str, ids: Any) -> None:
    if implementation == "sdpa" and family in {"gemma2", "gpt_oss"}:
        pytest.skip("no sdpa for this family")
    model = build(family, implementation)
    whole = contributions(model, ids, block_bytes=1 << 30)
    for size in (1, 3000):
        for got, expected in zip(matrices(contributions(model, ids, block_bytes=size)), matrices(whole), strict=True):
            assert (got - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own(family: str, ids: Any) -> None:
    model = build(family, "eager" if family == "falcon_alibi" else None)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    got = contributions(model, ids).logits
    if "logits" not in expected:
        assert got is None
        return
    assert got is not None
    assert got.dtype == torch.float32
    assert torch.equal(got, expected.logits)


def test_eager_weights_that_the_model_does_not_use_are_refused(ids: Any) -> None:
    """Falcon with ALiBi adds its bias once under sdpa and twice when run eagerly."""
    with pytest.raises(CaptureError, match=r"FalconForCausalLM.*eager"):
        contributions(build("falcon_alibi", "sdpa"), ids)


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "mistral", "modernbert", "gpt2"])
def test_eager_in_blocks_computes_the_same_logits(family: str, ids: Any) -> None:
    model = build(family, "eager")
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    result = contributions(model, ids, block_bytes=1)
    if result.logits is not None:
        assert (result.logits - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("heads", ["max", "min", 2, -1, [0.5, 0.0, 0.25, 0.25]])
@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_head_reductions(family: str, heads: Any, ids: Any) -> None:
    weights, _ = eager_attentions(family, ids)
    for got, all_heads in zip(matrices(contributions(build(family), ids, heads=heads)), weights, strict=True):
        if heads == "max":
            expected = all_heads.amax(dim=0)
        elif heads == "min":
            expected = all_heads.amin(dim=0)
        elif isinstance(heads, int):
            expected = all_heads[heads]
        else:
            expected = sum(w * head for w, head in zip(heads, all_heads, strict=True))
        assert (got - expected).abs().max() <= 2e-6


def test_a_window_hides_what_is_further_back(ids: Any) -> None:
    for matrix in matrices(contributions(build("mistral"), ids)):
        assert torch.count_nonzero(torch.tril(matrix, diagonal=-7)) == 0
        assert torch.all(torch.diagonal(matrix, offset=-6) > 0)


@pytest.mark.parametrize("measure", ["attention", "alti"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_visible_positions_are_counted(measure: str, implementation: str, ids: Any) -> None:
    reach = torch.arange(1, LENGTH + 1)
    expected = {"llama": reach, "mistral": reach.clamp(max=7), "bert": torch.full((LENGTH,), LENGTH)}
    for family, counts in expected.items():
        captured = contributions(build(family, implementation), ids, measure=measure)
        for layer in captured.layers:
            assert layer.visible is not None
            assert torch.equal(layer.visible[0], counts), family
    if measure == "attention":
        assert [layer.visible for layer in contributions(build("bloom"), ids).layers] == [None, None, None]


def test_a_sink_takes_its_share(ids: Any) -> None:
    sums = torch.stack([matrix.sum(dim=-1) for matrix in matrices(contributions(build("gpt_oss"), ids))])
    assert sums.max() < 1
    assert sums.min() > 0


def padded(ids: Any, count: int, left: bool) -> dict[str, Any]:
    """A batch of the text in full and of the text without its last tokens, which `count` padding tokens replace."""
    n = ids.shape[1]
    short = torch.nn.functional.pad(ids[:, : n - count], (count, 0) if left else (0, count))
    kept = (torch.arange(n) >= count) if left else (torch.arange(n) < n - count)
    return {"input_ids": torch.cat([ids, short]), "attention_mask": torch.stack([torch.ones(n), kept]).long()}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "falcon_alibi"])
def test_a_padded_batch_equals_its_texts_one_at_a_time(family: str, ids: Any) -> None:
    model = build(family)
    batch = contributions(model, padded(ids, 5, left=False))
    for text, alone in enumerate((ids, ids[:, : LENGTH - 5])):
        expected = contributions(model, alone)
        got = batch.of_text(text)
        assert got.kind == expected.kind
        assert got.layer_names == expected.layer_names
        for one, other in zip(got.layers, expected.layers, strict=True):
            assert one.matrix.shape == other.matrix.shape[1:]
            assert (one.matrix - other.matrix[0]).abs().max() <= 1e-6
            if other.visible is not None:
                assert torch.equal(one.visible, other.visible[0])
        if expected.logits is not None:
            assert (got.logits - expected.logits[0]).abs().max() <= 2e-4


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "gemma2", "olmo2", "opt_post_norm"])
def test_a_padded_batch_of_another_measure_equals_its_texts_one_at_a_time(family: str, ids: Any) -> None:
    model = build(family)
    batch = contributions(model, padded(ids, 5, left=False), measure="alti")
    for text, alone in enumerate((ids, ids[:, : LENGTH - 5])):
        for one, other in zip(
            batch.of_text(text).layers, contributions(model, alone, measure="alti").layers, strict=True
        ):
            assert (one.matrix - other.matrix[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_rows_that_see_nothing_are_zero(family: str, ids: Any) -> None:
    """Padding on the left sees nothing in a causal model, and an even mean of everything if run eagerly."""
    for implementation in ("eager", "sdpa"):
        result = contributions(build(family, implementation), padded(ids, 5, left=True))
        assert result.kind == ("decoder" if family == "llama" else "encoder")
        for layer in result.layers:
            blind = layer.visible[1] == 0
            assert blind.tolist() == [family == "llama" and j < 5 for j in range(LENGTH)]
            assert torch.count_nonzero(layer.matrix[1][blind]) == 0
            assert torch.count_nonzero(layer.matrix[1, :, :5]) == 0


@pytest.mark.parametrize("family", ["gpt2", "opt", "bert", "roberta", "distilbert", "bloom"])
def test_right_padding_equals_the_padded_eager_pass(family: str, ids: Any) -> None:
    """Against the model's own treatment of its mask, not ours."""
    ids = torch.cat([ids, torch.zeros(1, 4, dtype=ids.dtype)], dim=1)
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(LENGTH + 4) < LENGTH).long()[None]}
    with torch.no_grad():
        weights = build(family, "eager")(**inputs, output_attentions=True).attentions
    for got, expected in zip(contributions(build(family), inputs).of_text(0).layers, weights, strict=True):
        assert (got.matrix - expected[0, :, :LENGTH, :LENGTH].mean(dim=0)).abs().max() <= 1e-6


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_left_padding_equals_the_padded_eager_pass(family: str, ids: Any) -> None:
    """Families whose positions are relative or counted from the mask."""
    ids = torch.cat([torch.zeros(1, 4, dtype=ids.dtype), ids], dim=1)
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(LENGTH + 4) >= 4).long()[None]}
    with torch.no_grad():
        weights = build(family, "eager")(**inputs, output_attentions=True).attentions
    for got, expected in zip(contributions(build(family), inputs).of_text(0).layers, weights, strict=True):
        assert (got.matrix - expected[0, :, 4:, 4:].mean(dim=0)).abs().max() <= 2e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_oss", "bert", "bloom"])
def test_other_precisions(family: str, dtype: str, ids: Any) -> None:
    if (family, dtype) == ("gpt_oss", "float64"):
        pytest.skip("torch has no grouped products of float64, which its experts need")
    weights, _ = eager_attentions(family, ids)
    result = contributions(build(family, dtype=getattr(torch, dtype)), ids)
    first = (matrices(result)[0] - weights[0].mean(dim=0)).abs().max()
    assert first <= {"bfloat16": 0.1, "float16": 0.02, "float64": 1e-6}[dtype]
    for matrix in matrices(result):
        assert matrix.dtype == torch.float32
        if family != "gpt_oss" and family != "bloom":
            assert (matrix.sum(dim=-1) - 1).abs().max() <= 1e-5  # float32 scores, so float32 rows
    if result.logits is not None:
        assert result.logits.dtype == torch.float32


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "mpnet", "gpt_oss"])
def test_a_text_of_one_token(family: str) -> None:
    result = contributions(build(family), [7])
    assert result.kind == ("encoder" if family in {"bert", "mpnet"} else "decoder")
    for matrix in matrices(result):
        assert matrix.shape == (1, 1)
        assert matrix.item() == 1 if family != "gpt_oss" else 0 < matrix.item() < 1


def test_ids_may_be_lists_arrays_or_tensors(ids: Any) -> None:
    model = build("gpt2")
    expected = matrices(contributions(model, ids))[-1]
    for form in (ids[0], ids.tolist(), ids[0].tolist(), ids.numpy(), ids.to(torch.int32)):
        assert torch.equal(matrices(contributions(model, form))[-1], expected)


def test_progress_is_told_of_every_layer(ids: Any) -> None:
    for family in ("llama", "albert", "bloom"):
        calls: list[tuple[int, int]] = []
        contributions(build(family), ids, progress=lambda done, total, calls=calls: calls.append((done, total)))
        assert calls == [(1, 3), (2, 3), (3, 3)]


def test_shared_layers_are_told_apart(ids: Any) -> None:
    names = contributions(build("albert"), ids).layer_names
    assert [name.rpartition("#")[2] for name in names] == ["0", "1", "2"]


def test_a_model_that_chose_its_attention_when_it_was_made() -> None:
    options = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Data2VecVisionConfig(**options, image_size=12, patch_size=4)
    image = {"pixel_values": torch.randn(1, 3, 12, 12)}
    with pytest.raises(CaptureError, match=r"Data2VecVisionModel returned none.*attn_implementation='eager'"):
        contributions(transformers.Data2VecVisionModel(config).eval(), image)
    config._attn_implementation = "eager"
    assert len(contributions(transformers.Data2VecVisionModel(config).eval(), image).encoder) == 2
