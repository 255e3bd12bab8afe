"""Measures by gradients: what is derived, of a text, of each step of an answer, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import (
    LONG,
    TEXT,
    VOCABULARY,
    N,
    bart,
    bert_like,
    build,
    ids,
    llama,
    matrices,
    plain,
    state,
    two_sided,
    visible,
)

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402
from attnflow.capture.measures import AttentionGradient  # noqa: E402
from attnflow.errors import InvalidArgumentError  # noqa: E402

GRADIENTS = ("attention_gradient", "attention_x_gradient")
PROMPT = ids(["<s>", *TEXT.split()])
CAT, DOG = VOCABULARY["cat"], VOCABULARY["dog"]


def decoders_flows(model: Any, read: list[int], sink: int, objective: Any, measure: str) -> Any:
    captured = contributions(model, read, measure=measure, objective=objective)
    network = Network.decoder(matrices(captured), residual=0.5, calibration="excess", visible=visible(captured))
    return network.source_flows(sink).values[0]


OBJECTIVES: list[tuple[Any, Any]] = [
    (None, lambda row: row.max()),
    ("cat", lambda row: row[CAT]),
    (CAT, lambda row: row[CAT]),
    (-1, lambda row: row[-1]),
    (np.int64(CAT), lambda row: row[CAT]),
    (("cat", "dog"), lambda row: row[CAT] - row[DOG]),
    (["cat", DOG], lambda row: row[CAT] - row[DOG]),
    ((None, "dog"), lambda row: row.max() - row[DOG]),
    (["cat"], lambda row: row[CAT]),
]


@pytest.mark.parametrize("measure", GRADIENTS)
@pytest.mark.parametrize(("asked", "wanted"), OBJECTIVES, ids=lambda value: None if callable(value) else repr(value))
def test_what_is_derived_of_a_next_token(asked: Any, wanted: Any, measure: str) -> None:
    model = llama()
    for target in (-1, 4):
        result = attnflow.explain(model, plain(), TEXT, target=target, measure=measure, objective=asked)
        sink = target % (N + 1)
        expected = decoders_flows(model, PROMPT, sink, lambda o, sink=sink: wanted(o.logits[0, sink]), measure)
        np.testing.assert_allclose(result.values[0], expected[1 : sink + 1], rtol=1e-12, atol=1e-12)
        assert result.options["residual"] == 0.5
        assert result.options["measure"] == measure
    assert result.values.max() > 0


def test_a_function_is_given_the_models_output() -> None:
    def contrast(outputs: Any) -> Any:
        return outputs.logits[0, 3, 5] - outputs.logits[0, 2].mean()

    model = llama()
    result = attnflow.explain(model, plain(), TEXT, target=3, measure=GRADIENTS[0], objective=contrast)
    expected = decoders_flows(model, PROMPT, 3, contrast, GRADIENTS[0])
    np.testing.assert_allclose(result.values[0], expected[1:4], rtol=1e-12)
    assert result.options["objective"] == "contrast"
    assert attnflow.explain(model, plain(), TEXT, measure=GRADIENTS[0], objective=("cat", 3)).options["objective"] == (
        "cat",
        3,
    )


def test_a_joined_target_derives_at_its_last_position() -> None:
    model = llama()
    result = attnflow.explain(model, plain(), TEXT, target=[5, 3], measure=GRADIENTS[0], objective="cat")
    captured = contributions(model, PROMPT, measure=GRADIENTS[0], objective=lambda o: o.logits[0, 5, CAT])
    network = Network.decoder(matrices(captured), residual=0.5, calibration="excess")
    np.testing.assert_allclose(result.values, network.source_flows([[3, 5]]).values[:, 1:6], rtol=1e-12)


def test_a_masked_word_and_a_class() -> None:
    model = build("BertForMaskedLM", LONG)
    text = "the [MASK] sat on the mat"
    read = ids(["[CLS]", *text.split(), "[SEP]"])
    result = attnflow.explain(model, bert_like(), text, target=2, measure=GRADIENTS[1], objective="cat")
    captured = contributions(model, read, measure=GRADIENTS[1], objective=lambda o: o.logits[0, 2, CAT])
    network = Network.encoder(matrices(captured), residual=0.5, calibration="excess")
    np.testing.assert_allclose(result.values[0], network.source_flows(2).values[0, result.players], rtol=1e-12)
    torch.manual_seed(0)
    classes = build("BertForSequenceClassification", {**LONG, "num_labels": 3}, "BertConfig")
    result = attnflow.explain(classes, bert_like(), text, measure=GRADIENTS[1], objective=[2, 0])
    captured = contributions(classes, read, measure=GRADIENTS[1], objective=lambda o: o.logits[0, 2] - o.logits[0, 0])
    network = Network.encoder(matrices(captured), residual=0.5, calibration="excess")
    np.testing.assert_allclose(result.values[0], network.source_flows(0).values[0, result.players], rtol=1e-12)


# --- Answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize(("asked", "wanted"), [(None, None), ("cat", CAT), ((None, "cat"), (None, CAT))])
def test_every_step_of_an_answer_is_a_run_of_its_own(asked: Any, wanted: Any, chain: bool) -> None:
    model, said = llama(), ids(["mat", "and", "run"])
    runs: list[Any] = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    result = attnflow.explain(
        model,
        plain(),
        TEXT,
        continuation=" mat and run",
        measure=GRADIENTS[0],
        objective=asked,
        chain=chain,
        start_token=True,
    )
    assert len(runs) == 3
    read = [*PROMPT, *said[:-1]]
    assert result.values.shape == (3, N if chain else N + 2)
    for step in range(3):

        def objective(outputs: Any, step: int = step) -> Any:
            row = outputs.logits[0, N + step]
            if wanted is None:
                return row[said[step]]
            return row[wanted] if isinstance(wanted, int) else row[said[step]] - row[wanted[1]]

        captured = contributions(model, read, measure=GRADIENTS[0], objective=objective)
        network = Network.decoder(matrices(captured), residual=0.5, calibration="excess")
        network = network.chained([N + 1, N + 2]) if chain else network
        expected = network.source_flows(N + step).values[0, result.players]
        np.testing.assert_allclose(result.values[step], expected, rtol=1e-12, atol=1e-12)
    assert result.verified
    assert result.predictions is not None


def test_chosen_steps_run_alone() -> None:
    model, runs = llama(), []
    whole = attnflow.explain(model, plain(), TEXT, continuation=" mat and run", measure=GRADIENTS[0], start_token=True)
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    one = attnflow.explain(
        model, plain(), TEXT, continuation=" mat and run", measure=GRADIENTS[0], steps=1, start_token=True
    )
    assert len(runs) == 1
    assert np.array_equal(one.values[0], whole.values[1, : one.players.size])


@pytest.mark.parametrize("merge", ["sublayers", "single"])
def test_steps_of_an_encoder_decoder(merge: str) -> None:
    model, tokens = bart(), two_sided()
    result = attnflow.explain(model, tokens, TEXT, target="a dog", measure=GRADIENTS[1], merge=merge, sources="all")
    said = ids(["a", "dog", "</s>"])
    given = {"input_ids": [ids([*TEXT.split(), "</s>"])], "decoder_input_ids": [[3, *said[:-1]]]}
    stacks = ("encoder", "decoder", "cross")
    for step in range(3):
        captured = contributions(
            model, given, measure=GRADIENTS[1], objective=lambda o, step=step: o.logits[0, step, said[step]]
        )
        network = Network.encoder_decoder(
            *(matrices(captured, stack) for stack in stacks),
            residual=0.5,
            calibration="excess",
            visible=[visible(captured, stack) for stack in stacks],
            merge=merge,
        )
        np.testing.assert_allclose(result.values[step], network.source_flows(step).values[0], rtol=1e-12, atol=1e-12)


def test_a_measure_of_ones_own_may_need_gradients() -> None:
    class Plain(AttentionGradient):
        """Without the division of rows by their sums."""

        name = "plain gradient"

        def __init__(self) -> None:
            super().__init__("max", normalize=False)

    model = llama()
    result = attnflow.explain(model, plain(), TEXT, measure=Plain(), objective="cat")
    expected = decoders_flows(model, PROMPT, N, lambda o: o.logits[0, N, CAT], Plain())
    np.testing.assert_allclose(result.values[0], expected[1:], rtol=1e-12)
    assert result.options["measure"] == "plain gradient"


def test_the_model_is_left_as_it_was() -> None:
    model = llama().train()
    next(model.parameters()).requires_grad_(False)
    before = state(model)
    with torch.no_grad():
        attnflow.explain(model, plain(), TEXT, continuation=" mat and", measure=GRADIENTS[0], start_token=True)
        with pytest.raises(ZeroDivisionError):
            attnflow.explain(model, plain(), TEXT, measure=GRADIENTS[0], objective=lambda _: 1 / 0)
    assert state(model) == before


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "alti", "objective": "cat"}, "objective has no meaning for measure 'alti': leave it out"),
        ({"measure": "attention", "objective": 0}, "objective has no meaning for measure 'attention'"),
        ({"objective": "the cat"}, r"objective 'the cat' is 2 tokens, \[7, 8\]: one is needed"),
        ({"objective": ""}, r"objective '' is 0 tokens"),
        ({"objective": 22}, "objective names 22, and the model's output has 22 logits"),
        ({"objective": -23}, "objective names -23"),
        ({"objective": ["cat", 99]}, "objective names 99"),
        ({"objective": ["cat", 8]}, r"difference of two tokens, got \['cat', 8\]: they are the same"),
        ({"objective": []}, "objective must be a token, or two.*got 0"),
        ({"objective": [1, 2, 3]}, "objective must be a token, or two.*got 3"),
        ({"objective": 1.5}, r"objective is 1\.5; it must be an integer"),
        ({"objective": True}, "objective is True"),
        ({"objective": [1, [2]]}, "objective"),
        ({"objective": lambda outputs: outputs.logits}, "one number"),
        ({"objective": lambda outputs: 3.0}, r"one number.*3\.0"),
        ({"residual": 2}, "2"),
        ({"heads": "median"}, "median"),
    ],
)
def test_bad_objectives(options: dict[str, Any], message: str) -> None:
    model = llama()
    before = state(model)
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(model, plain(), TEXT, **{"measure": GRADIENTS[0], **options})
    assert state(model) == before


def test_models_that_cannot_be_derived() -> None:
    with pytest.raises(InvalidArgumentError, match="no logits that could be derived"):
        attnflow.explain(build("LlamaModel", LONG), plain(), TEXT, measure=GRADIENTS[0])


def test_models_caught_by_hooks_are_derived_too() -> None:
    bloom = build("BloomForCausalLM", {"hidden_size": 16, "n_layer": 3, "n_head": 4}, "BloomConfig")
    before = state(bloom)
    for measure in (*GRADIENTS, "alti"):
        result = attnflow.explain(bloom, plain(), TEXT, measure=measure)
        assert (result.options["capture"], result.options["measure"]) == ("hooks", measure)
        assert result.values.any()
    assert state(bloom) == before
