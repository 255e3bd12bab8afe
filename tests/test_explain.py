"""The main job on tiny random models: what is a player, what is a sink, what is told beside the scores."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from tiny import SIZE, TEXT, VOCABULARY, N, bert_like, build, matrices, plain, tokenizer

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import (  # noqa: E402
    AttnflowError,
    InvalidArgumentError,
)
from attnflow.explain._reading import Reading  # noqa: E402


@pytest.fixture(name="plain")
def _plain() -> Any:
    return plain()


@pytest.fixture(name="bert_like")
def _bert_like() -> Any:
    return bert_like()


@pytest.fixture
def decoder() -> Any:
    return build("LlamaForCausalLM", {**SIZE, "num_key_value_heads": 2, "max_position_embeddings": 32})


@pytest.fixture
def encoder() -> Any:
    return build("BertModel", {**SIZE, "max_position_embeddings": 32})


# --- decoder --------------------------------------------------------------------------------------------------------


def test_a_language_models_next_token(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT)
    assert result.kind == "decoder"
    assert result.tokens == ("<s>", *TEXT.split())
    assert result.offsets[0] is None
    assert [TEXT[slice(*span)] for span in result.offsets[1:] if span] == TEXT.split()
    assert result.players.tolist() == list(range(1, N + 1))  # the start token is no player
    assert result.targets == ((N,),)
    assert result.target_label == "next token after 'dog'"
    assert result.verified
    assert result.n_layers == 3
    assert result.n_nodes == 4 * (N + 1)
    assert set(result.timings) == {"capture", "network", "flow", "picture"}
    assert "independent maximum flows" in result.definition
    options = result.options
    assert (options["measure"], options["residual"], options["calibration"]) == ("alti", 0.0, "excess")
    assert options["start_token"] == "<s>"

    ids = [VOCABULARY[token] for token in result.tokens]
    with torch.no_grad():
        probabilities = decoder(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)
    assert result.prediction is not None
    assert result.prediction[0] == plain.decode([int(probabilities.argmax())])
    assert result.prediction[1] == pytest.approx(float(probabilities.max()), abs=1e-6)


def test_the_scores_are_the_flows_of_the_captured_network(decoder: Any, plain: Any) -> None:
    ids = [VOCABULARY[token] for token in ["<s>", *TEXT.split()]]
    for measure, calibration in (("alti", "excess"), ("attention", None), ("attention", "excess"), ("alti", None)):
        result = attnflow.explain(decoder, plain, TEXT, measure=measure, calibration=calibration)
        layers = matrices(contributions(decoder, ids, measure=measure))
        residual = 0.5 if measure == "attention" else 0.0
        assert result.options["residual"] == residual
        expected = Network.decoder(layers, residual=residual, calibration=calibration).source_flows(-1)
        assert np.array_equal(result.values, expected.values[:, 1:])
        assert result.n_edges == Network.decoder(layers, residual=residual, calibration=calibration).n_edges


def test_the_published_method_follows_the_order_of_the_tokens(decoder: Any, plain: Any) -> None:
    """What the documentation warns of, at the smallest scale: a small residual keeps every early token ahead."""
    result = attnflow.explain(decoder, plain, TEXT, measure="attention", calibration=None, residual=0.5)
    assert result.position_correlation < -0.5


@pytest.mark.parametrize(
    ("target", "positions"),
    [(3, (3,)), (-1, (N,)), (-3, (N - 2,)), (np.int64(4), (4,)), ([2, 5], (2, 5)), ((4,), (4,)), ("sat", (3,))],
)
def test_targets_of_a_decoder(decoder: Any, plain: Any, target: Any, positions: tuple[int, ...]) -> None:
    result = attnflow.explain(decoder, plain, TEXT, target=target)
    assert result.targets == (positions,)
    assert result.players.tolist() == list(range(1, max(positions) + 1))
    ids = torch.tensor([[VOCABULARY[token] for token in result.tokens]])
    with torch.no_grad():
        token = int(decoder(ids).logits[0, max(positions)].argmax())
    assert result.prediction is not None
    assert result.prediction[0] == plain.decode([token])
    if len(positions) == 1:
        assert result.target_label == f"next token after {result.tokens[positions[0]]!r}"


def test_a_blank_is_called_by_its_name() -> None:
    """A line end, say, which nothing would be left of without its blanks."""
    reading = Reading(text="a\n b", ids=(1, 2, 3), tokens=("a", "\n", " b"), offsets=(None,) * 3, special=(False,) * 3)
    assert reading.name([0, 1, 2]) == r"'a', '\n', 'b'"


def test_a_joined_sink_collects_at_least_as_much(decoder: Any, plain: Any) -> None:
    both = attnflow.explain(decoder, plain, TEXT, target=[4, 6], sources=range(1, 5))
    one, other = (attnflow.explain(decoder, plain, TEXT, target=p, sources=range(1, 5)) for p in (4, 6))
    assert (both.values >= np.maximum(one.values, other.values) - 1e-9).all()
    assert (both.values <= one.values + other.values + 1e-9).all()


def test_words_of_several_tokens_are_joined(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, target="mat and")
    assert result.targets == ((6, 7),)
    assert result.target_label == "output at 'mat and'"
    assert attnflow.explain(decoder, plain, TEXT, target="ma").targets == ((6,),)  # part of a token


@pytest.mark.parametrize(
    ("start_token", "special", "tokens", "players"),
    [
        ("auto", {"bos_token": "<s>", "eos_token": "</s>"}, ["<s>", "the", "cat"], [1, 2]),
        ("auto", {"eos_token": "</s>"}, ["</s>", "the", "cat"], [1, 2]),
        ("auto", {}, ["the", "cat"], [0, 1]),
        (True, {"eos_token": "</s>"}, ["</s>", "the", "cat"], [1, 2]),
        (False, {"bos_token": "<s>"}, ["the", "cat"], [0, 1]),
    ],
)
def test_start_tokens(decoder: Any, start_token: Any, special: Any, tokens: list[str], players: list[int]) -> None:
    result = attnflow.explain(decoder, tokenizer(**special), "the cat", start_token=start_token)
    assert list(result.tokens) == tokens
    assert result.players.tolist() == players
    assert result.options["start_token"] == (tokens[0] if len(tokens) == 3 else None)


def test_a_start_token_that_is_there_already_is_not_doubled(decoder: Any) -> None:
    added = attnflow.explain(decoder, tokenizer("<s> $A", bos_token="<s>"), "the cat")
    written = attnflow.explain(decoder, tokenizer(bos_token="<s>"), "<s> the cat")
    for result in (added, written):
        assert result.tokens == ("<s>", "the", "cat")
        assert result.players.tolist() == [1, 2]
    assert np.array_equal(added.values, written.values)
    kept = attnflow.explain(decoder, tokenizer(bos_token="<s>"), "<s> the cat", start_token=False)
    assert kept.players.tolist() == [0, 1, 2]


def test_a_special_token_at_the_end_is_not_what_predicts(decoder: Any) -> None:
    result = attnflow.explain(decoder, tokenizer("<s> $A </s>", bos_token="<s>", eos_token="</s>"), "the cat")
    assert result.tokens == ("<s>", "the", "cat", "</s>")
    assert result.targets == ((2,),)
    assert result.players.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("sources", "players"), [("all", list(range(N + 1))), ([5, 1], [1, 5]), ([-1], [N]), ([0], [0]), (range(2), [0, 1])]
)
def test_sources(decoder: Any, plain: Any, sources: Any, players: list[int]) -> None:
    result = attnflow.explain(decoder, plain, TEXT, sources=sources)
    assert result.players.tolist() == players
    everything = attnflow.explain(decoder, plain, TEXT, sources="all")
    assert np.array_equal(result.values, everything.values[:, players])


def test_edge_flows_of_the_highest_scores_make_the_picture(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, measure="attention", calibration=None)
    assert result.flows is not None
    assert len(result.flows) == 3
    for pair, row in zip(result.flows, result.top(3), strict=True):
        assert pair.source == row.position
        arriving = pair.flow[(pair.layer == 2) & (pair.receiver == N)].sum()
        leaving = pair.flow[(pair.layer == 0) & (pair.giver == pair.source)].sum()
        assert arriving == pytest.approx(row.score, abs=1e-9)
        assert leaving == pytest.approx(row.score, abs=1e-9)
        assert pair.cut is not None
        assert pair.flow[pair.cut].sum() == pytest.approx(row.score, abs=1e-9)  # every path crosses the cut once


# --- encoder --------------------------------------------------------------------------------------------------------


def test_an_encoders_class_token(encoder: Any, bert_like: Any) -> None:
    result = attnflow.explain(encoder, bert_like, TEXT)
    assert result.kind == "encoder"
    assert result.tokens == ("[CLS]", *TEXT.split(), "[SEP]")
    assert result.targets == ((0,),)
    assert result.target_label == "class token '[CLS]'"
    assert result.players.tolist() == list(range(1, N + 1))
    assert result.prediction is None
    assert np.array_equal(result.values, attnflow.explain(encoder, bert_like, TEXT, target="cls").values)
    ids = [VOCABULARY[token] for token in result.tokens]
    network = Network.encoder(matrices(contributions(encoder, ids, measure="alti")), residual=0, calibration="excess")
    assert np.array_equal(result.values, network.source_flows(0).values[:, 1:-1])


def test_an_encoder_without_a_class_token_is_averaged(encoder: Any) -> None:
    result = attnflow.explain(encoder, tokenizer(), TEXT)
    assert result.target_label == f"mean over {N} positions"
    assert result.targets == (tuple(range(N)),)


def test_the_mean_is_over_the_texts_own_positions(encoder: Any, bert_like: Any) -> None:
    result = attnflow.explain(encoder, bert_like, TEXT, target="mean", measure="attention", calibration=None)
    assert result.targets == (tuple(range(1, N + 1)),)
    ids = [VOCABULARY[token] for token in result.tokens]
    network = Network.encoder(matrices(contributions(encoder, ids)), residual=0.5).pooled(range(1, N + 1))
    assert np.array_equal(result.values, network.source_flows(0).values[:, 1:-1])
    assert result.n_layers == 3


def test_positions_and_words_of_an_encoder(encoder: Any, bert_like: Any) -> None:
    by_word = attnflow.explain(encoder, bert_like, TEXT, target="mat")
    by_position = attnflow.explain(encoder, bert_like, TEXT, target=6)
    assert by_word.targets == by_position.targets == ((6,),)
    assert by_word.target_label == "output at 'mat'"
    assert by_word.players.tolist() == list(range(1, N + 1))  # an encoder sees ahead
    assert np.array_equal(by_word.values, by_position.values)


def test_a_masked_language_model_predicts_in_place(bert_like: Any) -> None:
    model = build("BertForMaskedLM", {**SIZE, "max_position_embeddings": 32})
    result = attnflow.explain(model, bert_like, "the [MASK] sat on the mat", target=2)
    assert result.tokens[2] == "[MASK]"
    assert result.prediction is not None
    assert result.target_label == "output at '[MASK]'"
    assert attnflow.explain(model, bert_like, TEXT).prediction is None  # the class token predicts no word


def test_classes_of_tokens_are_not_taken_for_words(bert_like: Any) -> None:
    model = build("BertForTokenClassification", {**SIZE, "max_position_embeddings": 32, "num_labels": 3})
    assert attnflow.explain(model, bert_like, TEXT, target=2).prediction is None


# --- other kinds of model -------------------------------------------------------------------------------------------


def test_a_decoder_without_a_head_has_no_prediction(plain: Any) -> None:
    result = attnflow.explain(build("LlamaModel", {**SIZE, "max_position_embeddings": 32}), plain, TEXT)
    assert result.prediction is None
    assert result.kind == "decoder"
    assert result.target_label == "output at 'dog'"


def test_a_model_that_says_nothing_of_causality_is_found_out(plain: Any) -> None:
    """Bloom's modules do not say: without its head it is taken for an encoder until its attention is seen."""
    model = build("BloomModel", {"hidden_size": 16, "n_layer": 3, "n_head": 4}, "BloomConfig")
    result = attnflow.explain(model, plain, TEXT, measure="attention")
    assert result.kind == "decoder"
    assert result.tokens[0] == "<s>"
    assert result.targets == ((N,),)
    assert attnflow.explain(model, plain, TEXT).tokens == result.tokens


def test_the_model_is_left_as_it_was(decoder: Any, plain: Any) -> None:
    decoder.train()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    attnflow.explain(decoder, plain, TEXT)
    with pytest.raises(InvalidArgumentError):
        attnflow.explain(decoder, plain, TEXT, residual=0.5)
    assert decoder.training
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


def test_half_precision_and_one_token(decoder: Any, plain: Any) -> None:
    assert attnflow.explain(decoder.to(torch.bfloat16), plain, TEXT).verified
    one = attnflow.explain(decoder.float(), plain, "cat")
    assert one.players.tolist() == [1]
    alone = attnflow.explain(decoder, tokenizer(), "cat", measure="attention", calibration=None)
    assert alone.values.tolist() == [[1.0]]


def test_progress_names_the_stages(decoder: Any, plain: Any) -> None:
    calls: list[tuple[str, int, int]] = []
    attnflow.explain(decoder, plain, TEXT, progress=lambda *step: calls.append(step))
    assert [step for step in calls if step[0] == "capture"] == [("capture", layer, 3) for layer in (1, 2, 3)]
    assert {stage for stage, _, _ in calls} <= {"capture", "network", "flow"}

    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attnflow.explain(decoder, plain, TEXT, progress=stop)


def test_a_result_can_be_saved_and_compared(decoder: Any, plain: Any, tmp_path: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, heads="max", measure="attention", target=[3, 4])
    published = attnflow.explain(decoder, plain, TEXT, measure="attention", calibration=None, target=[3, 4])
    result.save(tmp_path / "x.html", compare=[published])
    for suffix in ("json", "npz"):
        assert attnflow.Attribution.load(result.save(tmp_path / f"x.{suffix}")) == result


def test_weights_of_heads_are_recorded(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, measure="attention", heads=np.array([1.0, 0, 0, 0]))
    assert list(result.options["heads"]) == [1.0, 0.0, 0.0, 0.0]
    same = attnflow.explain(decoder, plain, TEXT, measure="attention", heads=0)
    assert np.array_equal(result.values, same.values)


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ""}, "empty"),
        ({"text": "  "}, "no token"),
        ({"text": 3}, "int"),
        ({"text": "the " * 40}, r"41 tokens.*32"),
        ({"tokenizer": None}, "NoneType"),
        ({"target": "horse"}, r"'horse' is not in the text"),
        ({"target": ""}, r"target is ''.*no word"),
        ({"target": "word:"}, r"target is 'word:'.*no word"),
        ({"target": "the"}, r"2 times, at characters 0, 15"),
        ({"target": " "}, r"times"),
        ({"target": 11}, r"target is 11, but the input has 11 tokens: 0 \.\.\. 10, or -11 \.\.\. -1"),
        ({"target": -12}, "-12"),
        ({"target": []}, "empty"),
        ({"target": [2, 2]}, "target names token 2 more than once"),
        ({"target": 1.5}, "integer"),
        ({"target": True}, "integer"),
        ({"target": "cls"}, "no class token"),
        ({"target": 0}, "no token of the text comes before"),
        ({"sources": "some"}, "'some'"),
        ({"sources": []}, "empty"),
        ({"sources": 3}, "several"),
        ({"sources": [2, 40]}, r"sources\[1\] is 40, but the input has 11 tokens"),
        ({"sources": [1, np.array(1.5)]}, r"sources\[1\] is 1\.5; it must be an integer"),
        ({"measure": "norm"}, "'norm'"),
        ({"heads": "max"}, "alti"),
        ({"residual": 0.5}, "twice"),
        ({"residual": 1.5}, "1.5"),
        ({"residual": float("nan")}, "nan"),
        ({"calibration": "none"}, "'none'"),
        ({"threads": 0}, "threads"),
        ({"algorithm": "simplex"}, "simplex"),
        ({"start_token": "yes"}, "'yes'"),
    ],
)
def test_bad_arguments_name_the_value(decoder: Any, plain: Any, options: dict[str, Any], message: str) -> None:
    arguments = {"tokenizer": plain, "text": TEXT, **options}
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(decoder, arguments.pop("tokenizer"), arguments.pop("text"), **arguments)


def test_a_start_token_that_the_tokenizer_lacks(decoder: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="neither a bos nor an eos"):
        attnflow.explain(decoder, tokenizer(), TEXT, start_token=True)


def test_a_tokenizer_of_another_model(encoder: Any, bert_like: Any) -> None:
    encoder.set_input_embeddings(torch.nn.Embedding(4, 16))
    with pytest.raises(AttnflowError, match="tokenizer"):
        attnflow.explain(encoder, bert_like, TEXT)


@pytest.mark.real_model
def test_smollm2_draws_on_mary(smollm2: tuple[Any, Any]) -> None:
    result = attnflow.explain(*smollm2, "When Mary and John went to the store, John gave a drink to")
    assert result.prediction is not None
    assert result.prediction[0] == " Mary"
    assert result.prediction[1] > 0.8
    assert result.verified
    assert result.options["model"] == "SmolLM2-135M-Instruct"
    published = attnflow.explain(*smollm2, result.text, measure="attention", calibration=None)
    assert published.position_correlation == pytest.approx(-1.0)  # why it is not the default


@pytest.mark.real_model
def test_minilm(minilm: tuple[Any, Any]) -> None:
    result = attnflow.explain(*minilm, "A quite unbelievably bad film.", target="mean")
    assert result.kind == "encoder"
    assert result.n_layers == 6
    assert result.prediction is None
    assert result.verified


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "model .*NoneType None"),
        ({"model": "gpt2"}, "model .*str 'gpt2'"),
        ({"tokenizer": len}, "tokenizer .*builtin_function"),
        ({"text": "\ud800 x"}, "half of a character"),
        ({"start_token": 1}, "start_token .*1"),
        ({"progress": 3}, "progress .*3"),
        ({"target": b"x"}, "bytes"),
    ],
)
def test_swapped_or_foreign_arguments_are_refused(
    decoder: Any, plain: Any, options: dict[str, Any], message: str
) -> None:
    arguments = {"model": decoder, "tokenizer": plain, "text": TEXT, **options}
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(**arguments)


def test_targets_may_be_arrays(decoder: Any, plain: Any) -> None:
    several = attnflow.explain(decoder, plain, TEXT, target=np.array([1, 2]))
    assert several.targets == attnflow.explain(decoder, plain, TEXT, target=[1, 2]).targets
    assert (
        attnflow.explain(decoder, plain, TEXT, target=np.array(2)).targets
        == attnflow.explain(decoder, plain, TEXT, target=2).targets
    )


@pytest.mark.parametrize(("target", "positions"), [("word:mean", (2,)), ("word:cls", (4,)), ("word:2020", (6,))])
def test_words_that_look_like_names_or_positions(encoder: Any, target: str, positions: tuple[int, ...]) -> None:
    bert_like = tokenizer("[CLS] $A [SEP]", cls_token="[CLS]", sep_token="[SEP]")
    result = attnflow.explain(encoder, bert_like, "the mean and cls over 2020", target=target)
    assert result.targets == (positions,)
    assert result.target_label == f"output at {target.removeprefix('word:')!r}"
    assert result.options["target"] == target
    with pytest.raises(InvalidArgumentError, match="'horse' is not in the text"):
        attnflow.explain(encoder, bert_like, "the mean", target="word:horse")


def test_that_a_text_is_too_long_is_said_once(
    decoder: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief, text = tokenizer(bos_token="<s>", model_max_length=8), "the " * 40
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")
    before = (logger.level, list(logger.handlers), logger.propagate, logger.disabled)
    with pytest.raises(InvalidArgumentError, match=r"41 tokens.*32"):
        attnflow.explain(decoder, brief, text)
    assert caplog.messages == []
    assert (logger.level, list(logger.handlers), logger.propagate, logger.disabled) == before
    brief(text)  # whoever asks the tokenizer directly is still told
    assert "sequence length is longer" in caplog.text
