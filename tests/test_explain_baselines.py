"""What flows are compared with, in their shape: against the same numbers computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import LONG, TEXT, VOCABULARY, N, bart, bert_like, build, ids, llama, plain, state, two_sided, vit, whisper

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import baselines  # noqa: E402
from attnflow.attribution import NONE  # noqa: E402
from attnflow.capture import attentions  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

READ = ids(["<s>", *TEXT.split()])
SAID = ids(["over", "the", "hill"])
HILL = {"continuation": " over the hill"}


def said(model: Any, read: list[int], position: int, token: int, **more: Any) -> float:
    """The log-probability of a token at a position."""
    with torch.no_grad():
        return float(model(torch.tensor([read]), **more).logits[0, position].double().log_softmax(-1)[token])


# --- what a network has ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["alti", "attention"])
@pytest.mark.parametrize("calibration", [None, "excess"])
def test_rollout_and_the_widest_path_are_of_the_same_capacities(measure: str, calibration: Any) -> None:
    model, how = llama(), {"measure": measure, "calibration": calibration}
    flow = attnflow.explain(model, plain(), TEXT, **how)
    capacities = [link.capacities for link in flow.evidence.solved[0].network.links]  # type: ignore[union-attr]
    players = flow.players.tolist()
    dense = [c.to_dense() if hasattr(c, "to_dense") else c for c in capacities]
    rollout = attnflow.explain(model, plain(), TEXT, attribution="rollout", **how)
    np.testing.assert_allclose(rollout.values, baselines.rollout(dense, sources=players), rtol=1e-12)
    widest = attnflow.explain(model, plain(), TEXT, attribution="widest_path", **how)
    assert np.array_equal(widest.values, baselines.widest_path(dense, sources=players))
    assert (widest.values <= flow.values + 1e-15).all()
    for result in (rollout, widest):
        assert result.options["calibration"] == calibration
        assert not result.is_flow
        assert not result.verified
        assert result.flows is None
        assert (result.bottlenecks == NONE).all()
        assert result.trivial_fraction != result.trivial_fraction  # NaN
        assert result.n_edges == flow.n_edges
        assert result.definition.startswith(
            ("no flow, but the sum over all paths", "no maximum flow, but the bottleneck")
        )
        result.check()


def test_rollout_through_both_stacks() -> None:
    model = bart()
    result = attnflow.explain(
        model, two_sided(), TEXT, target="over", attribution="rollout", measure="attention", calibration=None
    )
    seen = attentions(model, input_ids=[[*READ[1:], 3]], decoder_input_ids=[[3, SAID[0]]])
    mixed = [
        [0.5 * layer[0].double().numpy() + 0.5 * np.eye(len(layer[0])) for layer in stack]
        for stack in (seen.encoder, seen.decoder)
    ]
    encoded = np.eye(N + 1)
    for layer in mixed[0]:
        encoded = layer @ encoded
    source, own = np.zeros((2, N + 1)), np.eye(2)
    for self_, cross in zip(mixed[1], seen.cross, strict=True):
        source, own = self_ @ source, self_ @ own
        source, own = 0.5 * source + 0.5 * cross[0].double().numpy() @ encoded, 0.5 * own
    expected = np.hstack([source, own])[:, result.players]
    np.testing.assert_allclose(result.values, expected, rtol=1e-5)


def test_the_widest_path_goes_on_through_an_answer() -> None:
    apart = attnflow.explain(llama(), plain(), TEXT, attribution="widest_path", **HILL)
    chained = attnflow.explain(llama(), plain(), TEXT, attribution="widest_path", chain=True, **HILL)
    expected = np.array(apart.values[:, :N])
    for step in range(3):
        for before in range(step):  # through the token that was said then, and read again
            onwards = np.minimum(expected[before], apart.values[step, N + before])
            expected[step] = np.maximum(expected[step], onwards)
    assert np.array_equal(chained.values, expected)
    chained.check()


# --- attention as it is ---------------------------------------------------------------------------------------------


def test_raw_attention() -> None:
    model = llama()
    seen = attentions(model, input_ids=[READ]).of_text(0).decoder
    last = attnflow.explain(model, plain(), TEXT, attribution="raw_attention")
    assert np.array_equal(last.values[0], seen[-1][N, 1:].double().numpy())
    mean = attnflow.explain(model, plain(), TEXT, attribution="mean_attention", target=[3, 5])
    expected = sum(layer[[3, 5]].double().sum(0) for layer in seen) / len(seen)
    np.testing.assert_allclose(mean.values[0], expected[1:6].numpy(), rtol=1e-14)
    assert last.options["measure"] == "attention"
    assert "calibration" not in last.options
    assert last.n_edges == 0


def test_raw_attention_of_every_kind() -> None:
    model = build("BertModel", LONG)
    seen = attentions(model, input_ids=[[4, *READ[1:], 5]]).of_text(0).encoder
    mean = attnflow.explain(model, bert_like(), TEXT, target="mean", attribution="raw_attention")
    np.testing.assert_allclose(mean.values[0], seen[-1][1:-1, 1:-1].double().mean(0).numpy(), rtol=1e-12)
    model = bart()
    both = attnflow.explain(model, two_sided(), TEXT, target="over the", attribution="mean_attention")
    found = attentions(model, input_ids=[[*READ[1:], 3]], decoder_input_ids=[[3, *SAID[:2]]]).of_text(0)
    cross, own = (sum(layers) / len(layers) for layers in (found.cross, found.decoder))
    expected = torch.cat([cross, own], dim=1).double().numpy()[:, both.players]
    np.testing.assert_allclose(both.values, expected, rtol=1e-6)


# --- gradients ------------------------------------------------------------------------------------------------------


def by_hand(model: Any, read: list[int], number: Any) -> Any:
    """Embedding times gradient, summed."""
    words = model.get_input_embeddings()(torch.tensor([read])).detach().requires_grad_()
    (slope,) = torch.autograd.grad(number(model(inputs_embeds=words)), words)
    return (slope.double() * words.detach().double()).sum(-1)[0].numpy()


def test_gradient_x_input() -> None:
    model = llama().train()
    before = state(model)
    result = attnflow.explain(model, plain(), TEXT, attribution="gradient_x_input")
    assert state(model) == before
    model.eval()
    expected = by_hand(model, READ, lambda o: o.logits[0, N].max())
    np.testing.assert_allclose(result.values[0], expected[1:], rtol=1e-5, atol=1e-7)
    assert (result.values < 0).any()
    pair = attnflow.explain(model, plain(), TEXT, attribution="gradient_x_input", objective=("cat", "dog"))
    cat, dog = VOCABULARY["cat"], VOCABULARY["dog"]
    expected = by_hand(model, READ, lambda o: o.logits[0, N, cat] - o.logits[0, N, dog])
    np.testing.assert_allclose(pair.values[0], expected[1:], rtol=1e-5, atol=1e-7)
    assert pair.options["objective"] == ("cat", "dog")


def test_gradients_of_answers_and_of_both_sides() -> None:
    model = llama()
    result = attnflow.explain(model, plain(), TEXT, attribution="gradient_x_input", **HILL)
    for step, token in enumerate(SAID):
        read = [*READ[1:], *SAID[:-1]]  # what is to be answered has no start token before it
        expected = by_hand(model, read, lambda o, step=step, token=token: o.logits[0, N - 1 + step, token])
        np.testing.assert_allclose(result.values[step], expected[result.players], rtol=1e-5, atol=1e-7)
    model = bart()
    result = attnflow.explain(model, two_sided(), TEXT, target="over the", attribution="gradient_x_input")
    assert result.source is not None
    assert np.abs(result.source.values).min() > 0
    read, answer = torch.tensor([[*READ[1:], 3]]), torch.tensor([[3, *SAID[:2]]])
    embed = model.get_input_embeddings()
    source, own = (embed(one).detach().requires_grad_() for one in (read, answer))
    logits = model(inputs_embeds=source, decoder_inputs_embeds=own).logits[0]
    slopes = torch.autograd.grad(logits[1, SAID[1]], [source, own])
    expected = torch.cat([(g * x).sum(-1)[0] for g, x in zip(slopes, (source, own), strict=True)]).detach()
    np.testing.assert_allclose(result.values[1], expected.numpy()[result.players], rtol=1e-4, atol=1e-6)


def test_gradients_by_pixels() -> None:
    model = vit("ViTForImageClassification", num_labels=3)
    pixels = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    result = attnflow.explain(model, None, {"pixel_values": pixels}, attribution="gradient_x_input", objective=2)
    leaf = pixels.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).logits[0, 2], leaf)
    expected = (slope * pixels)[0].sum(0).reshape(3, 4, 3, 4).sum((1, 3)).reshape(-1)
    np.testing.assert_allclose(result.values[0], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert result.on_grid().shape == (3, 3)
    with pytest.raises(InvalidArgumentError, match=r"position 0 \(.*\) is no token, and no known part of what ViTFor"):
        attnflow.explain(
            model, None, {"pixel_values": pixels}, attribution="gradient_x_input", sources="all", objective=2
        )


def test_a_model_that_does_not_embed_its_tokens_has_no_gradients() -> None:
    model = llama()
    inner = model.model.embed_tokens

    class Elsewhere(torch.nn.Module):
        def forward(self, ids: Any) -> Any:
            return inner(ids)

    model.model.embed_tokens = Elsewhere()
    model.get_input_embeddings = model.model.get_input_embeddings = lambda: None
    with pytest.raises(CaptureError, match="does not read input_ids through its input embeddings"):
        attnflow.explain(model, plain(), TEXT, attribution="gradient_x_input")


# --- leaving out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_leaving_out_of_an_encoder(batch_size: int) -> None:
    model = build("BertForMaskedLM", LONG).train()
    before = state(model)
    text = TEXT.replace("mat", "[MASK]")
    read = [4, *ids(text.split()), 5]
    target = read.index(VOCABULARY["[MASK]"])
    how = {"attribution": "leave_one_out", "target": target, "batch_size": batch_size, "objective": "mat"}
    result = attnflow.explain(model, bert_like(), text, **how)
    assert state(model) == before
    model.eval()
    whole = said(model, read, target, VOCABULARY["mat"])
    for position, value in zip(result.players.tolist(), result.values[0], strict=True):
        changed = [VOCABULARY["[MASK]"] if p == position else token for p, token in enumerate(read)]
        assert value == pytest.approx(whole - said(model, changed, target, VOCABULARY["mat"]), abs=1e-5)
    assert result.values[0, target - 1] == 0  # it is masked
    assert "replaced by '[MASK]'" in result.definition
    with pytest.raises(InvalidArgumentError, match="would take out position 6, whose output is explained: use 'mask'"):
        attnflow.explain(model, bert_like(), text, leave_out="delete", **how)


def test_leaving_out_of_a_decoder() -> None:
    model = llama()
    best = int(model(torch.tensor([READ])).logits[0, N].argmax())
    whole = said(model, READ, N, best)
    masked = attnflow.explain(model, plain(), TEXT, attribution="leave_one_out")
    assert "hidden from all attention" in masked.definition
    for position, value in zip(masked.players.tolist(), masked.values[0], strict=True):
        mask = torch.ones(1, N + 1, dtype=torch.long)
        mask[0, position] = 0
        assert value == pytest.approx(whole - said(model, READ, N, best, attention_mask=mask), abs=1e-5)
    deleted = attnflow.explain(model, plain(), TEXT, attribution="leave_one_out", leave_out="delete")
    assert deleted.options["leave_out"] == "delete"
    for position, value in zip(deleted.players.tolist(), deleted.values[0], strict=True):
        rest = READ[:position] + READ[position + 1 :]
        assert value == pytest.approx(whole - said(model, rest, N - 1, best), abs=1e-5)
    words = attnflow.explain(
        model, plain(), TEXT, attribution="leave_one_out", leave_out="delete", units=[(0, 7), (8, 22)]
    )
    assert words.values[0, 0] == pytest.approx(whole - said(model, READ[:1] + READ[3:], N - 2, best), abs=1e-5)
    assert words.values[0, 1] == pytest.approx(whole - said(model, READ[:3] + READ[7:], N - 4, best), abs=1e-5)


def test_hidden_tokens_keep_their_positions() -> None:
    """OPT counts positions by the mask: what stands behind a hidden token would move up."""
    model = build("OPTForCausalLM", {**LONG, "ffn_dim": 24, "word_embed_proj_dim": 16})
    result = attnflow.explain(model, plain(), TEXT, attribution="leave_one_out")
    read = [READ[0], *READ[1:]]
    best = int(model(torch.tensor([read])).logits[0, N].argmax())
    whole = said(model, read, N, best)
    for position, value in zip(result.players.tolist(), result.values[0], strict=True):
        mask = torch.ones(1, N + 1, dtype=torch.long)
        mask[0, position] = 0
        at = torch.arange(N + 1)[None]
        without = said(model, read, N, best, attention_mask=mask, position_ids=at)
        assert value == pytest.approx(whole - without, abs=1e-5)
    shifted = whole - said(model, read, N, best, attention_mask=torch.tensor([[1, 0] + [1] * (N - 1)]))
    assert abs(shifted - result.values[0, 0]) > 0.01


def test_what_cannot_be_hidden_or_asked() -> None:
    model = llama()
    with pytest.raises(InvalidArgumentError, match="would hide all of input_ids from attention"):
        attnflow.explain(model, plain(), "cat", attribution="leave_one_out", start_token=False)
    bert = build("BertForMaskedLM", LONG)
    for attribution in ("leave_one_out", "gradient_x_input"):
        with pytest.raises(InvalidArgumentError, match="BertForMaskedLM says something at each of them"):
            attnflow.explain(bert, bert_like(), TEXT, attribution=attribution, target="mean")  # type: ignore[arg-type]
        for wrong in (lambda o: o.logits, lambda _: 3.0):
            with pytest.raises(InvalidArgumentError, match="objective must be one number"):
                attnflow.explain(model, plain(), TEXT, attribution=attribution, objective=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="permutations=2: one order and its reverse have no standard error"):
        attnflow.explain(model, plain(), TEXT, attribution="shapley", sampling={"permutations": 2})


@pytest.mark.parametrize("leave_out", ["mask", "delete"])
def test_leaving_out_of_answers(leave_out: Any) -> None:
    model = llama()
    result = attnflow.explain(model, plain(), TEXT, attribution="leave_one_out", leave_out=leave_out, **HILL)
    read = [*READ[1:], *SAID[:-1]]
    for step, token in enumerate(SAID):
        assert not result.values[step, ~result.visible(step)].any()
        whole = said(model, read, N - 1 + step, token)
        for position in (1, 4, N - 1 + step):
            if leave_out == "delete":
                without = said(model, read[:position] + read[position + 1 :], N + step - 2, token)
            else:
                mask = torch.ones(1, len(read), dtype=torch.long)
                mask[0, position] = 0
                without = said(model, read, N - 1 + step, token, attention_mask=mask)
            column = result.players.tolist().index(position)
            assert result.values[step, column] == pytest.approx(whole - without, abs=1e-5)


@pytest.mark.parametrize("leave_out", ["mask", "delete"])
def test_leaving_out_of_both_sides(leave_out: Any) -> None:
    model = bart()
    result = attnflow.explain(
        model, two_sided(), TEXT, target="over the", attribution="leave_one_out", leave_out=leave_out
    )
    read, answer = [*READ[1:], 3], [3, *SAID[:2]]

    def of(source: list[int], own: list[int], step: int, hidden: tuple[int, int] | None = None) -> float:
        masks = [torch.ones(1, len(source), dtype=torch.long), torch.ones(1, len(own), dtype=torch.long)]
        if hidden is not None:
            masks[hidden[0]][0, hidden[1]] = 0
        with torch.no_grad():
            logits = model(
                torch.tensor([source]), masks[0], decoder_input_ids=torch.tensor([own]), decoder_attention_mask=masks[1]
            ).logits
        return float(logits[0, step].double().log_softmax(-1)[SAID[step]])

    whole = of(read, answer, 1)
    players = result.players.tolist()
    if leave_out == "mask":
        expected = {2: of(read, answer, 1, (0, 2)), N + 2: of(read, answer, 1, (1, 1))}
        for position, without in expected.items():
            assert result.values[1, players.index(position)] == pytest.approx(whole - without, abs=1e-5)
    else:
        assert result.values[1, players.index(2)] == pytest.approx(whole - of(read[:2] + read[3:], answer, 1), abs=1e-5)
        with torch.no_grad():
            logits = model(torch.tensor([read]), decoder_input_ids=torch.tensor([[3, SAID[1]]])).logits[0, 0]
        without = float(logits.double().log_softmax(-1)[SAID[1]])
        assert result.values[1, players.index(N + 2)] == pytest.approx(whole - without, abs=1e-5)
    assert result.values[0, players.index(N + 2)] == 0


def test_leaving_out_of_images_and_recordings() -> None:
    model = vit("ViTForImageClassification", num_labels=3)
    pixels = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    given = {"pixel_values": pixels}
    result = attnflow.explain(model, None, given, attribution="leave_one_out", objective=1)
    with torch.no_grad():
        whole = float(model(pixels).logits[0].double().log_softmax(-1)[1])
        changed = pixels.clone()
        changed[:, :, 4:8, 8:12] = pixels.mean((2, 3), keepdim=True)
        without = float(model(changed).logits[0].double().log_softmax(-1)[1])
    assert result.on_grid()[1, 2] == pytest.approx(whole - without, abs=1e-5)
    with pytest.raises(InvalidArgumentError, match="takes tokens out of a text, and position 1 is none: use 'mask'"):
        attnflow.explain(model, None, given, attribution="leave_one_out", leave_out="delete", objective=1)
    sound = {"input_features": torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(2))}
    heard = attnflow.explain(whisper(), plain(pad_token="[PAD]"), sound, target="the cat", attribution="leave_one_out")
    assert heard.source is not None
    assert np.abs(heard.source.values).max() > 0
    grads = attnflow.explain(
        whisper(), plain(pad_token="[PAD]"), sound, target="the cat", attribution="gradient_x_input"
    )
    assert np.abs(grads.source.values).max() > 0  # type: ignore[union-attr]
    assert np.abs(grads.decoder.values).max() > 0  # type: ignore[union-attr]


def test_objectives_of_leaving_out() -> None:
    model = llama()
    with torch.no_grad():
        logits = model(torch.tensor([READ])).logits[0, N].double()
        mask = torch.ones(1, N + 1, dtype=torch.long)
        mask[0, 3] = 0
        less = model(torch.tensor([READ]), attention_mask=mask).logits[0, N].double()

    def first(output: Any) -> Any:
        return output.logits[0, N, 0]

    by_pair = attnflow.explain(model, plain(), TEXT, attribution="leave_one_out", objective=(9, 11))
    by_function = attnflow.explain(model, plain(), TEXT, attribution="leave_one_out", objective=first)
    assert by_pair.values[0, 2] == pytest.approx(float(logits[9] - logits[11] - less[9] + less[11]), abs=1e-5)
    assert by_function.values[0, 2] == pytest.approx(float(logits[0] - less[0]), abs=1e-5)
    assert "difference of two logits" in by_pair.definition
    assert "first of the model's output" in by_function.definition
    with pytest.raises(InvalidArgumentError, match="has no logits that could be derived"):
        attnflow.explain(build("BertModel", LONG), bert_like(), TEXT, attribution="leave_one_out")
    with pytest.raises(InvalidArgumentError, match="objective names 99"):
        attnflow.explain(model, plain(), TEXT, attribution="leave_one_out", objective=99)


def test_nothing_left() -> None:
    how = {"attribution": "leave_one_out", "leave_out": "delete", "start_token": False, "target": 0}
    with pytest.raises(InvalidArgumentError, match="nothing before the output at position 0: use 'mask'"):
        attnflow.explain(llama(), plain(), "cat sat", **how)
    with pytest.raises(InvalidArgumentError, match="would leave nothing of the text: use 'mask'"):
        attnflow.explain(llama(), plain(), "cat", **how)


# --- chance, and all of them ----------------------------------------------------------------------------------------


def test_random_scores() -> None:
    model = llama()
    first = attnflow.explain(model, plain(), TEXT, attribution="random")
    assert np.array_equal(first.values, attnflow.explain(model, plain(), TEXT, attribution="random").values)
    other = attnflow.explain(model, plain(), TEXT, attribution="random", sampling={"seed": 1})
    assert not np.array_equal(first.values, other.values)
    assert 0 <= first.values.min() < first.values.max() < 1
    assert other.options["seed"] == 1


@pytest.mark.parametrize("attribution", attnflow.attribution.ATTRIBUTIONS)
def test_all_have_one_shape(attribution: Any) -> None:
    texts = [TEXT, "the dog sat"]
    flows = attnflow.explain(llama(), plain(), texts)
    for flow, result in zip(flows, attnflow.explain(llama(), plain(), texts, attribution=attribution), strict=True):
        assert result.attribution == attribution
        assert result.values.shape == flow.values.shape
        assert result.tokens == flow.tokens
        assert result.players.tolist() == flow.players.tolist()
        assert result.target_label == flow.target_label
        assert result.prediction == pytest.approx(flow.prediction)
        assert (flow - result).values.shape == flow.values.shape
        assert len(result.top(3)) == 3
        assert result.is_signed or result.values.min() >= 0
