"""Measures beside attention and ALTI, against what autograd and loops say."""

from __future__ import annotations

from typing import Any

import pytest
from families import DECODERS, ENCODERS, HOOKED, build, build_encoder_decoder, eager_attentions, matrices

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import attnflow  # noqa: E402
from attnflow.capture import _hooks, _interface, contributions  # noqa: E402
from attnflow.capture.measures import ALTI, MEASURES, AttentionGradient, Given, Measure, ValueNorm  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

WITH_A_HEAD = [family for family in DECODERS if family != "gpt_oss"]
GRADIENTS = ("attention_gradient", "attention_x_gradient")


def objective(outputs: Any) -> Any:
    """A difference of two logits at one position, of a model with a head; else a sum of states there."""
    if "logits" in outputs:
        return outputs.logits[:, 9, 7].sum() - outputs.logits[:, 9, 8].sum()
    return outputs[0][:, 9, :5].sum()


def by_autograd(model: Any, inputs: dict[str, Any], fields: list[str]) -> list[tuple[Any, Any]]:
    """Eager weights and the derivatives of the objective by them, as autograd keeps them: (batch, H, n, n)."""
    outputs = model(**inputs, output_attentions=True, use_cache=False)
    weights = [layer for field in fields for layer in getattr(outputs, field)]
    slopes = torch.autograd.grad(objective(outputs), weights, allow_unused=True)
    return [
        (w.detach(), torch.zeros_like(w) if slope is None else slope) for w, slope in zip(weights, slopes, strict=True)
    ]


def reduced(weights: Any, slope: Any, measure: str) -> Any:
    product = weights * slope if measure == "attention_x_gradient" else slope * (weights > 0)
    return product.clamp(min=0).mean(dim=1)


@pytest.mark.parametrize("measure", GRADIENTS)
@pytest.mark.parametrize("family", [*WITH_A_HEAD, *ENCODERS, *sorted(set(HOOKED) - {"falcon_alibi"})])
def test_gradients_are_autograds(family: str, measure: str, ids: Any) -> None:
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected = by_autograd(build(family, "eager"), inputs, ["attentions"])
    kind = MEASURES[measure]
    result = contributions(build(family), inputs, measure=kind("mean", normalize=False), objective=objective)
    assert not result.holds_residual
    for got, (weights, slope) in zip(matrices(result), expected, strict=True):
        wanted = reduced(weights, slope, measure)[0]
        scale = slope.abs().max() if measure == "attention_gradient" else wanted.max()
        assert (got - wanted).abs().max() <= 2e-5 * scale + 1e-12
    if family != "t5":  # the last layer's values do reach the objective
        assert matrices(result)[-1].max() > 0


@pytest.mark.parametrize("family", ["bart", "t5", "m2m_100"])
def test_gradients_of_every_stack(family: str) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = {
        "input_ids": torch.randint(5, 60, (2, 8), generator=generator),
        "decoder_input_ids": torch.randint(5, 60, (2, 11), generator=generator),
    }
    fields = ["encoder_attentions", "decoder_attentions", "cross_attentions"]
    expected = by_autograd(build_encoder_decoder(family, "eager"), inputs, fields)
    measure = AttentionGradient("mean", normalize=False)
    for implementation in ("sdpa", "eager"):
        model = build_encoder_decoder(family, implementation)
        result = contributions(model, inputs, measure=measure, objective=objective, block_bytes=512)
        got = [*result.encoder, *result.decoder, *result.cross]
        for one, (weights, slope) in zip(got, expected, strict=True):
            assert (one - reduced(weights, slope, "attention_gradient")).abs().max() <= 2e-5 * slope.abs().max() + 1e-12


@pytest.mark.parametrize("measure", GRADIENTS)
def test_rows_of_gradients_sum_to_one_or_nothing(measure: str, ids: Any) -> None:
    result = contributions(build("llama"), ids, measure=measure)
    for matrix in matrices(result):
        sums = matrix.sum(dim=-1)
        assert (((sums - 1).abs() <= 1e-5) | (sums == 0)).all()
        assert torch.count_nonzero(torch.triu(matrix, diagonal=1)) == 0
        assert matrix.min() >= 0


def test_the_default_objective_is_the_highest_logit(ids: Any) -> None:
    model = build("gpt2")
    batch = torch.cat([ids, ids.flip(1)])
    short = torch.nn.functional.pad(batch[1:, :15], (0, ids.shape[1] - 15))
    inputs = {"input_ids": torch.cat([ids, short]), "attention_mask": torch.ones(2, ids.shape[1]).long()}
    inputs["attention_mask"][1, 15:] = 0
    both = contributions(model, inputs, measure="attention_x_gradient")
    for text, alone in enumerate((ids, batch[1:, :15])):
        with torch.no_grad():
            token = int(model(alone).logits[0, -1].argmax())
        single = contributions(
            model, alone, measure="attention_x_gradient", objective=lambda o, token=token: o.logits[0, -1, token]
        )
        for got, expected in zip(both.of_text(text).decoder, matrices(single), strict=True):
            assert (got - expected).abs().max() <= 1e-5


def test_gradients_leave_the_model_as_it_was(ids: Any) -> None:
    model = build("llama").train()
    frozen = next(model.parameters()).requires_grad_(False)
    before = [(p.requires_grad, p.grad, p._version) for p in model.parameters()]
    contributions(model, ids, measure="attention_gradient")
    with pytest.raises(ZeroDivisionError):
        contributions(model, ids, measure="attention_gradient", objective=lambda _: 1 / 0)
    assert [(p.requires_grad, p.grad, p._version) for p in model.parameters()] == before
    assert not frozen.requires_grad
    assert model.training
    with torch.no_grad():
        contributions(model, ids, measure="attention_gradient")
        assert not torch.is_grad_enabled()


def test_weights_that_know_no_gradients(ids: Any) -> None:
    with torch.inference_mode():
        model = build("llama").train()
    before = [module.training for module in model.modules()]
    with pytest.raises(CaptureError, match=r"LlamaForCausalLM was made under torch\.inference_mode"):
        contributions(model, ids, measure="attention_gradient")
    assert [module.training for module in model.modules()] == before
    assert len(contributions(model, ids).layers) == 3


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("bert", {}, "no logits"),
        ("llama", {"objective": "loss"}, "objective.*function.*'loss'"),
        ("llama", {"objective": lambda o: o.logits}, "one number"),
        ("llama", {"objective": lambda o: 3.0}, "one number"),
        ("llama", {"objective": lambda o: torch.zeros(())}, "depends on the model's output"),
    ],
)
def test_bad_objectives(family: str, options: dict[str, Any], message: str, ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        contributions(build(family), ids, measure="attention_gradient", **options)


# --- caught by hooks -------------------------------------------------------------------------------------------------

FURTHER = [name for name in MEASURES if name != "attention"]


@pytest.mark.parametrize("measure", FURTHER)
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "opt_post_norm", "bert", "modernbert"])
def test_either_way_to_capture_finds_the_same(
    family: str, measure: str, ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(family, "eager")
    expected = contributions(model, ids, measure=measure, objective=objective)
    monkeypatch.setattr(_interface, "available", lambda: False)
    got = contributions(model, ids, measure=measure, objective=objective)
    assert (expected.path, got.path, got.kind) == ("interface", "hooks", expected.kind)
    for one, other in zip(got.layers, expected.layers, strict=True):
        assert one.name == other.name
        assert (one.matrix - other.matrix).abs().max() <= 1e-6


@pytest.mark.parametrize("measure", FURTHER)
@pytest.mark.parametrize("family", ["bloom", "falcon", "gptj", "mpnet"])
def test_a_padded_batch_caught_by_hooks(family: str, measure: str, ids: Any) -> None:
    model, length = build(family), ids.shape[1]
    mask = torch.ones(2, length).long()
    mask[1, : length - 15] = 0
    inputs = {"input_ids": torch.cat([ids, ids.flip(1)]), "attention_mask": mask}

    def of_both(outputs: Any) -> Any:
        return (outputs.logits if "logits" in outputs else outputs[0])[:, -1, 7].sum()

    batch = contributions(model, inputs, measure=measure, objective=of_both)
    for text in (0, 1):
        alone = inputs["input_ids"][text : text + 1, mask[text].bool()]
        if family == "mpnet" and text == 1:
            continue  # its positions count padding on the left
        expected = contributions(model, alone, measure=measure, objective=of_both)
        for one, other in zip(batch.of_text(text).layers, expected.layers, strict=True):
            assert (one.matrix - other.matrix[0]).abs().max() <= 5e-6


@pytest.mark.parametrize("measure", FURTHER)
def test_a_product_that_was_not_seen_is_named(measure: str, ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hooks.Products, "_multiply", frozenset())
    with pytest.raises(CaptureError, match=r"^layer 'transformer.h.0.self_attention': .*could not be seen.*attention'"):
        contributions(build("bloom"), ids, measure=measure)


def test_lengths_across_need_the_interface() -> None:
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "decoder_input_ids": torch.tensor([[1, 8]])}
    with pytest.raises(CaptureError, match=r"to another sequence needs a layer that asks .* use measure='attention'"):
        contributions(build_encoder_decoder("fsmt"), inputs, measure="value_norm")


# --- lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_lengths_equal_loops(family: str, ids: Any) -> None:
    model = build(family, dtype=torch.float64)
    weights = [layer.double() for layer in eager_attentions(family, ids)[0]]
    n = ids.shape[1]
    seen: list[Any] = []
    layers = {"llama": "model.layers", "gpt2": "transformer.h", "bert": "encoder.layer"}[family]
    norm = {"llama": "input_layernorm", "gpt2": "ln_1", "bert": ""}[family]
    handles = []
    for layer in model.get_submodule(layers):
        handles.append(
            layer.register_forward_hook(
                lambda m, a, k, o: seen.append((a or [k["hidden_states"]])[0][0]), with_kwargs=True
            )
        )
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    plain = matrices(contributions(model, ids, measure=ValueNorm("mean", normalize=False)))
    full = matrices(contributions(model, ids, measure="value_norm_residual"))
    for index, layer in enumerate(model.get_submodule(layers)):
        x = seen[index]
        with torch.no_grad():
            entering = layer.get_submodule(norm)(x) if norm else x
            if family == "llama":
                values = layer.self_attn.v_proj(entering).view(n, 2, 8).repeat_interleave(2, dim=1)
                output, bias = layer.self_attn.o_proj.weight.T, 0
            elif family == "gpt2":
                values = layer.attn.c_attn(entering)[:, 64:].view(n, 4, 8)
                output, bias = layer.attn.c_proj.weight, 0
            else:
                values = layer.attention.self.value(entering).view(n, 4, 8)
                output, bias = layer.attention.output.dense.weight.T, layer.attention.output.dense.bias
            written = torch.einsum("khe,hed->khd", values, output.reshape(4, 8, 32))
            sent = torch.einsum("hik,khd->ikd", weights[index], written)
            assert (plain[index] - sent.norm(dim=-1)).abs().max() <= 1e-5 * sent.norm(dim=-1).max()
            sent[torch.arange(n), torch.arange(n)] += x
            if family == "bert":
                post = layer.attention.output.LayerNorm
                whole = sent.sum(dim=1) + bias
                deviation = torch.sqrt(whole.var(dim=-1, unbiased=False, keepdim=True) + post.eps)[:, None]
                sent = (sent - sent.mean(dim=-1, keepdim=True)) / deviation * post.weight
            shares = sent.norm(dim=-1)
            shares = shares / shares.sum(dim=-1, keepdim=True)
        assert (full[index] - shares).abs().max() <= 1e-5


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_lengths_across(family: str) -> None:
    inputs = {"input_ids": [[5, 6, 7, 8]], "decoder_input_ids": [[1, 9, 10]]}
    for layer in contributions(build_encoder_decoder(family), inputs, measure="value_norm_residual").layers:
        total = layer.matrix.sum(dim=-1) + (0 if layer.kept is None else layer.kept)
        assert (total - 1).abs().max() <= 1e-5
        assert (layer.kept is None) == (layer.stack != "cross")
    for layer in contributions(build_encoder_decoder(family), inputs, measure="value_norm").layers:
        assert layer.kept is None
        assert (layer.matrix.sum(dim=-1) - 1).abs().max() <= 1e-5


# --- one's own -------------------------------------------------------------------------------------------------------


def test_the_list_of_measures() -> None:
    assert list(attnflow.measures) == list(MEASURES)
    assert {"attention", "alti", *GRADIENTS, "value_norm", "value_norm_residual"} == set(attnflow.measures)
    for name, kind in attnflow.measures.items():
        assert kind("mean").name == name
    with pytest.raises(TypeError):
        attnflow.measures["mine"] = ALTI  # type: ignore[index]


def strongest_head(attention: Any) -> Any:
    rows = torch.zeros(attention.n_queries, attention.n_keys)
    for start, stop, probabilities in attention.blocks():
        rows[start:stop, : probabilities.shape[-1]] = probabilities.amax(dim=0)
    return rows


def test_a_function_is_a_measure(ids: Any) -> None:
    result = contributions(build("llama"), ids, measure=strongest_head)
    assert result.measure == "strongest_head"
    for got, expected in zip(matrices(result), matrices(contributions(build("llama"), ids, heads="max")), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("family", ["llama", "bert", "gpt_oss"])
def test_blocks_that_a_function_keeps_stay_as_they_are(family: str, ids: Any) -> None:
    """Only who asks for it has one block written over another; either way the numbers are the same."""

    def compared(attention: Any) -> Any:
        kept = [probabilities for _, _, probabilities in attention.blocks()]
        again = [probabilities.clone() for _, _, probabilities in attention.blocks(reuse=True)]
        assert len(kept) > 1
        assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
        compared.places = {block.data_ptr() for _, _, block in attention.blocks(reuse=True)}
        return strongest_head(attention)

    contributions(build(family), ids, measure=compared, block_bytes=2048)
    assert len(compared.places) == 1


def test_an_object_is_a_measure(ids: Any) -> None:
    class Halved(Measure):
        name = "halved"

        def matrix(self, attention: Any, subblock: Any) -> Any:
            return strongest_head(attention) / 2

    result = contributions(build("llama"), ids, measure=Halved())
    assert result.measure == "halved"
    assert not result.holds_residual
    assert matrices(result)[0].max() <= 0.5


def test_matrices_are_a_measure(ids: Any) -> None:
    n = ids.shape[1]
    layers = torch.rand(3, n, n).tril()
    for form in (layers, layers.numpy(), list(layers), [layer.numpy() for layer in layers]):
        result = contributions(build("llama"), ids, measure=form)
        for got, expected in zip(matrices(result), layers, strict=True):
            assert torch.equal(got, expected)
    assert contributions(build("llama"), ids, measure=Given(layers, holds_residual=True)).holds_residual


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda attention: torch.zeros(2, 2), r"<lambda>.*\(23, 23\).*got \(2, 2\)"),
        (lambda attention: None, "got NoneType"),
        (lambda attention: -torch.ones(23, 23), "not negative"),
        (lambda attention: torch.full((23, 23), torch.nan), "finite"),
        ([], "no matrix"),
        (torch.zeros(2, 23, 23), r"2 matrices, and none for layer 'model\.layers\.2"),
        (torch.zeros(4, 23, 23), "4 matrices, and the model has 3 layers"),
        (torch.zeros(3, 4, 4), r"layer 'model\.layers\.0.*\(23, 23\).*got \(4, 4\)"),
        (ALTI, "must be one of"),
        (7, "must be one of"),
    ],
)
def test_bad_measures(measure: Any, message: str, ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        contributions(build("llama"), ids, measure=measure)


def test_matrices_are_of_one_text(ids: Any) -> None:
    given = {"input_ids": ids.expand(2, -1)}
    with pytest.raises(InvalidArgumentError, match="of one text, and there are 2"):
        contributions(build("llama"), given, measure=torch.zeros(3, 23, 23))


def test_the_kind_of_model_is_what_could_be_seen(ids: Any) -> None:
    """A measure may be zero above the diagonal, or may not look at the attention at all."""
    layers = torch.rand(3, 23, 23).tril()
    for family, kind, seen in (("bert", "encoder", [23] * 23), ("llama", "decoder", list(range(1, 24)))):
        result = contributions(build(family), ids, measure=layers)
        assert result.kind == kind
        assert [layer.visible[0].tolist() for layer in result.layers] == [seen] * 3


def test_what_a_function_reads_in_part_is_proved_in_full(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_block(attention: Any) -> Any:
        next(iter(attention.blocks()))
        return torch.ones(attention.n_queries, attention.n_keys).tril()

    def sharper(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        key, value = (part.repeat_interleave(2, dim=1) for part in (key, value))
        hidden = torch.ones(23, 23).triu(1).bool()
        scores = (1.1 * options["scaling"] * query @ key.transpose(2, 3)).masked_fill(hidden, -torch.inf)
        return (scores.softmax(dim=-1) @ value).transpose(1, 2).contiguous(), None

    model = build("llama")
    result = contributions(model, ids, measure=first_block, block_bytes=1)
    assert result.layers[0].visible[0].tolist() == list(range(1, 24))
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, "sharper", sharper)
    model.config._attn_implementation = "sharper"  # the first query sees one key, however sharply
    with pytest.raises(CaptureError, match=r"model\.layers\.0\.self_attn"):
        contributions(model, ids, measure=first_block, block_bytes=1)
