"""Answers of a decoder: a sink for each token it says, and each of them a token of what follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import LONG, TEXT, VOCABULARY, N, build, ids, llama, matrices, plain, state, tokenizer, visible

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

STEPS = 4
GREEDY = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None}


@pytest.fixture(name="plain")
def _plain() -> Any:
    return plain()


@pytest.fixture
def decoder() -> Any:
    return llama()


class Saying:
    """A logits processor that makes a model say certain words, one after another."""

    def __init__(self, *words: str) -> None:
        self.ids, self.calls = ids(words), 0

    def __call__(self, _: Any, scores: Any) -> Any:
        made = torch.full_like(scores, -torch.inf)
        made[:, self.ids[min(self.calls, len(self.ids) - 1)]] = 0
        self.calls += 1
        return made


def said_by(model: Any, prompt: list[int], **options: Any) -> list[int]:
    """What the model goes on with, asked directly."""
    given = torch.tensor([prompt])
    answer = model.generate(given, attention_mask=torch.ones_like(given), pad_token_id=0, **{**GREEDY, **options})
    return answer[0, len(prompt) :].tolist()


PROMPT = ids(["<s>", *TEXT.split()])
MODELS = {
    "llama": llama,
    "mistral": lambda: build("MistralForCausalLM", {**LONG, "num_key_value_heads": 2, "sliding_window": 4}),
    "gpt2": lambda: build("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32}),
}


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize(("measure", "calibration"), [("alti", "excess"), ("attention", "excess"), ("attention", None)])
@pytest.mark.parametrize("family", MODELS)
def test_scores_are_the_flows_to_each_position_that_said_something(
    family: str, measure: str, calibration: Any, chain: bool, plain: Any
) -> None:
    model = MODELS[family]()
    result = attnflow.explain(
        model, plain, TEXT, generate=GREEDY, measure=measure, calibration=calibration, chain=chain, start_token=True
    )
    said = said_by(model, PROMPT)
    read = [*PROMPT, *said[:-1]]
    assert ids(result.tokens) == read
    captured = contributions(model, read, measure=measure)
    network = Network.decoder(
        matrices(captured),
        residual=0.5 if measure == "attention" else 0.0,
        calibration=calibration,
        visible=visible(captured),
    )
    if chain:
        network = network.chained(range(N + 1, N + STEPS))
    expected = network.source_flows(range(N, N + STEPS)).values
    players = [p for p in range(1, N + 1 if chain else N + STEPS) if read[p] > 3]  # no special ones that it said
    assert result.players.tolist() == players
    assert result.values.shape == (STEPS, len(players))
    np.testing.assert_allclose(result.values, expected[:, players], rtol=1e-12, atol=1e-12)
    assert result.targets == tuple((N + step,) for step in range(STEPS))
    assert result.kind == "decoder"
    assert result.verified
    assert result.options["chain"] is chain
    assert result.options["generated"] is True
    assert ("going on from what was said" in result.definition) is chain


def test_what_was_said_and_how_likely_it_was(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    said = said_by(decoder, PROMPT)
    with torch.no_grad():
        probabilities = decoder(torch.tensor([[*PROMPT, *said]])).logits[0].softmax(dim=-1)
    assert result.prediction is None
    assert result.predictions is not None
    for step, (token, share) in enumerate(result.predictions):
        assert token == plain.decode([said[step]])
        assert share == pytest.approx(float(probabilities[N + step, said[step]]), abs=1e-6)
        assert share == pytest.approx(float(probabilities[N + step].max()), abs=1e-6)
    assert result.sink_labels == tuple(plain.decode([token]) for token in said)
    assert result.target_label == f"{STEPS} steps of the answer"
    words = [plain.decode([token]) for token in said[:-1]]
    assert result.text.startswith(TEXT)
    spans = result.offsets[N + 1 :]
    assert [result.text[slice(*span)].strip() for span in spans if span] == [w for w in words if w in result.text]
    assert result.flows is None  # of one sink alone a picture is made


def test_the_answer_stands_apart_from_the_text(decoder: Any, plain: Any) -> None:
    saying = {"logits_processor": [Saying("mat", "and", "run", "fast")], "max_new_tokens": 4}
    result = attnflow.explain(decoder, plain, "the dog", generate=saying, start_token=True)
    assert result.text == "the dog mat and run"
    assert result.tokens == ("<s>", "the", "dog", "mat", "and", "run")
    spans = [span for span in result.offsets if span]
    assert [result.text[slice(*span)].strip() for span in spans] == ["the", "dog", "mat", "and", "run"]


def test_nothing_later_is_seen(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    for step in range(STEPS):
        later = result.players > N + step
        assert (result.values[step, later] == 0).all()
        assert result.visible(step).tolist() == (~later).tolist()
        assert (result.values[step, ~later] > 0).any()


def test_every_step_is_what_the_text_up_to_there_would_have_given(decoder: Any, plain: Any) -> None:
    """An answer's step is the next token of a longer text."""
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    for step in range(STEPS):
        text = " ".join(result.tokens[1 : N + 1 + step])
        alone = attnflow.explain(decoder, plain, text, target=N + step, sources=range(1, N + 1 + step))
        np.testing.assert_allclose(result.values[step, : N + step], alone.values[0], atol=1e-6)


def test_a_chain_carries_on_what_was_said_before(decoder: Any, plain: Any) -> None:
    apart = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    chained = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, chain=True, start_token=True)
    before = apart.values[:, : chained.players.size]
    np.testing.assert_allclose(chained.values[0], before[0], atol=1e-12)  # nothing had been said yet
    assert (chained.values >= before - 1e-12).all()
    assert (chained.values[1:] > before[1:] + 1e-6).any()
    assert chained.link_names == ("layer 1", "layer 2", "layer 3", "reading what was said")
    assert chained.n_layers == apart.n_layers == 3
    assert apart.link_names is None


def test_one_step_has_a_picture_and_a_prediction(decoder: Any, plain: Any) -> None:
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, steps=1, start_token=True)
    whole = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    assert whole.predictions is not None
    assert result.prediction == whole.predictions[1]
    assert (result.predictions, result.sink_labels) == (whole.predictions[1:2], whole.sink_labels[1:2])
    assert result.target_label == f"step 2: {whole.sink_labels[1]!r}"
    assert result.players.tolist() == list(range(1, N + 2))
    assert np.array_equal(result.values[0], whole.values[1, : N + 1])
    assert result.flows is not None
    assert result.flows[0].source == result.top(1)[0].position


@pytest.mark.parametrize(
    ("steps", "chosen"),
    [
        ([0, 2], [0, 2]),
        (-1, [3]),
        (range(1, 3), [1, 2]),
        ([3, 0], [3, 0]),
        (np.array([1, -1]), [1, 3]),
        (iter([2]), [2]),
    ],
)
def test_steps(decoder: Any, plain: Any, steps: Any, chosen: list[int]) -> None:
    whole = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, steps=steps, start_token=True)
    assert result.targets == tuple((N + step,) for step in chosen)
    assert np.array_equal(result.values, whole.values[chosen][:, : result.players.size])
    assert result.players.tolist() == list(range(1, N + 1 + max(chosen)))
    assert result.options["steps"] == tuple(chosen)
    assert "steps" not in whole.options
    once = attnflow.explain(
        decoder, plain, TEXT, generate=GREEDY, steps=iter(chosen), sources=iter([1, 2]), start_token=True
    )
    assert np.array_equal(once.values, whole.values[chosen][:, :2])


@pytest.mark.parametrize("continuation", ["mat and run", " mat and run"])
@pytest.mark.parametrize("chain", [False, True])
def test_a_continuation_is_as_if_it_had_been_generated(
    decoder: Any, plain: Any, continuation: str, chain: bool
) -> None:
    saying = {"logits_processor": [Saying("mat", "and", "run")], "max_new_tokens": 3}
    generated = attnflow.explain(decoder, plain, TEXT, generate=saying, chain=chain, start_token=True)
    result = attnflow.explain(decoder, plain, TEXT, continuation=continuation, chain=chain, start_token=True)
    assert result.tokens == generated.tokens
    assert (result.text, result.offsets) == (generated.text, generated.offsets)
    assert np.array_equal(result.values, generated.values)
    assert result.predictions == generated.predictions
    assert result.options["generated"] is False


def test_a_continuation_repeats_nothing_of_the_text(decoder: Any, plain: Any) -> None:
    """The word before the border reads on in the one behind it, so that the whole would be cut in another way."""
    result = attnflow.explain(decoder, plain, "cat saw cat", continuation="sat on", start_token=True)
    assert result.tokens == ("<s>", "cat", "saw", "cat", "sat")
    assert result.sink_labels == ("sat", "on")


def test_a_continuation_is_cut_where_the_tokenizer_cuts_the_whole(decoder: Any) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    blank = {("Ġ" if index else "") + word: index for index, word in enumerate(["the", "cat", "sat", "<s>"])}
    blank = {"[UNK]": 0, "the": 1, "Ġcat": 2, "<s>": 3, "cat": 4, "Ġsat": 5}
    words = Tokenizer(models.WordLevel(blank, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    bytes_ = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="[UNK]")
    result = attnflow.explain(decoder, bytes_, "the", continuation=" cat sat", start_token=True)
    assert result.tokens == ("<s>", "the", " cat")
    assert result.text == "the cat"
    assert result.offsets == (None, (0, 3), (3, 7))


# --- How it is generated ---------------------------------------------------------------------------------------------


def test_options_are_the_models_own(decoder: Any, plain: Any) -> None:
    sampling = {"max_new_tokens": 5, "do_sample": True, "temperature": 2.0, "eos_token_id": None}
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = said_by(decoder, PROMPT, **sampling)
        torch.manual_seed(seed)
        result = attnflow.explain(decoder, plain, TEXT, generate=sampling, start_token=True)
        assert ids(result.tokens) == [*PROMPT, *expected[:-1]]
        assert len(result.predictions) == 5
    beams = {"num_beams": 2, "max_new_tokens": 3}
    result = attnflow.explain(decoder, plain, TEXT, generate=beams, start_token=True)
    expected = said_by(decoder, PROMPT, **beams, eos_token_id=3)
    assert [token for token, _ in result.predictions] == [plain.decode([token]) for token in expected]


def test_true_asks_for_no_options_and_false_for_no_answer(decoder: Any, plain: Any) -> None:
    decoder.generation_config.max_new_tokens = 2
    assert len(attnflow.explain(decoder, plain, TEXT, generate=True, start_token=True).targets) <= 2
    assert len(attnflow.explain(decoder, plain, TEXT, generate={}, start_token=True).targets) <= 2
    nothing = attnflow.explain(decoder, plain, TEXT, generate=False, start_token=True)
    assert nothing.targets == ((N,),)
    assert np.array_equal(nothing.values, attnflow.explain(decoder, plain, TEXT).values)
    assert "chain" not in nothing.options


def test_an_answer_that_ends(decoder: Any, plain: Any) -> None:
    saying = {"logits_processor": [Saying("mat", "</s>", "cat")], "max_new_tokens": 5}
    result = attnflow.explain(decoder, plain, TEXT, generate=saying, start_token=True)
    assert result.tokens[-1] == "mat"  # the end is said, and read by nobody
    assert result.sink_labels == ("mat", "</s>")
    assert result.predictions[1][0] == "</s>"


def test_an_end_inside_an_answer_is_no_player(decoder: Any, plain: Any) -> None:
    saying = {"logits_processor": [Saying("mat", "</s>", "cat", "sat")], "max_new_tokens": 4, "eos_token_id": None}
    result = attnflow.explain(decoder, plain, TEXT, generate=saying, start_token=True)
    assert result.tokens[N + 1 :] == ("mat", "</s>", "cat")
    assert result.players.tolist() == [*range(1, N + 2), N + 3]
    assert result.offsets[N + 2] is None
    assert result.text == f"{TEXT} mat cat"
    everything = attnflow.explain(
        decoder,
        plain,
        TEXT,
        generate={**saying, "logits_processor": [Saying("mat", "</s>", "cat", "sat")]},
        sources="all",
        start_token=True,
    )
    assert everything.players.tolist() == list(range(N + 4))
    assert np.array_equal(everything.values[:, result.players], result.values)


def test_an_answer_of_one_token(decoder: Any, plain: Any) -> None:
    one = attnflow.explain(decoder, plain, TEXT, generate={**GREEDY, "max_new_tokens": 1}, start_token=True)
    text = attnflow.explain(decoder, plain, TEXT)
    assert one.tokens == text.tokens
    assert np.array_equal(one.values, text.values)
    assert one.prediction == text.prediction
    chained = attnflow.explain(
        decoder, plain, TEXT, generate={**GREEDY, "max_new_tokens": 1}, chain=True, start_token=True
    )
    assert np.array_equal(chained.values, text.values)


@pytest.mark.parametrize("sources", [[1, 3], range(1, 12), [0], [-1, -2], "all"])
def test_sources_of_an_answer(decoder: Any, plain: Any, sources: Any) -> None:
    everything = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, sources=range(N + STEPS), start_token=True)
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, sources=sources, start_token=True)
    positions = range(N + STEPS) if sources == "all" else sorted(p % (N + STEPS) for p in sources)
    assert result.players.tolist() == list(positions)
    assert np.array_equal(result.values, everything.values[:, list(positions)])


def test_an_answer_survives_a_file(decoder: Any, plain: Any, tmp_path: Any) -> None:
    for chain in (False, True):
        result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY, chain=chain, start_token=True)
        for suffix in ("json", "npz"):
            assert attnflow.Attribution.load(result.save(tmp_path / f"x.{suffix}")) == result
        assert {result.bottleneck_label(p, s) for p in range(3) for s in range(STEPS)} <= {
            *("source", "sink", "none", "layer 1", "layer 2", "layer 3", "reading what was said")
        }


def test_the_model_is_left_as_it_was(decoder: Any, plain: Any) -> None:
    decoder.train()
    before = state(decoder)
    attnflow.explain(decoder, plain, TEXT, generate=GREEDY, start_token=True)
    with pytest.raises(InvalidArgumentError):
        attnflow.explain(decoder, plain, TEXT, generate=GREEDY, steps=9, start_token=True)

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attnflow.explain(decoder, plain, TEXT, generate={**GREEDY, "logits_processor": [stop]})
    assert state(decoder) == before


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 4}, r"steps is 4, but the answer has 4 steps: 0 \.\.\. 3, or -4 \.\.\. -1"),
        ({"steps": -5}, r"steps is -5, but the answer"),
        ({"steps": [0, 0]}, "steps names step 0 more than once"),
        ({"steps": [0, 4]}, r"steps\[1\] is 4"),
        ({"steps": []}, "steps is empty|empty"),
        ({"steps": "first"}, "steps is 'first'; it must be an integer"),
        ({"steps": 1.5}, r"steps is 1\.5"),
        ({"steps": True}, "steps is True"),
        ({"generate": None, "steps": 1}, r"steps=1 are of an answer: set generate"),
        ({"generate": None, "chain": True}, "chain=True follows an answer.*set generate"),
        ({"target": 3}, r"target=3 names a position of the text; of an answer give steps"),
        ({"continuation": "cat"}, "leave out generate"),
        ({"generate": "yes"}, "generate must be True, or a mapping.*'yes'"),
        ({"generate": 1}, "generate must be True.*1"),
        ({"generate": {"num_return_sequences": 3}}, "num_return_sequences=3"),
        ({"generate": None, "continuation": ""}, "empty"),
        ({"generate": None, "continuation": "  "}, "continuation='  ' holds no token"),
        ({"generate": None, "continuation": b"cat"}, "continuation must be a str, got bytes"),
        ({"generate": None, "continuation": "cat \ud800"}, "half of a character"),
        ({"chain": 1}, "chain must be True or False, got 1"),
        ({"chain": True, "sources": [1, N]}, r"sources name position 10, which was said.*0 \.\.\. 9"),
        ({"chain": True, "sources": "all"}, "sources.*said"),
        ({"sources": "source"}, "of an encoder-decoder.*'source'"),
        ({"sources": [40]}, r"sources\[0\] is 40"),
        ({"generate": {"max_new_tokens": 30, "eos_token_id": None}}, r"39 tokens.*32"),
    ],
)
def test_what_makes_no_sense_is_refused(decoder: Any, plain: Any, options: dict[str, Any], message: str) -> None:
    before = state(decoder)
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(decoder, plain, TEXT, **{"generate": GREEDY, **options})
    assert state(decoder) == before


def test_what_cannot_generate_says_so(plain: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="BertModel cannot generate"):
        attnflow.explain(build("BertModel", LONG), plain, TEXT, generate=True, start_token=True)


def test_an_encoder_has_no_next_token(plain: Any) -> None:
    """What it says of its last position is about that one, and what would follow has been read already."""
    model = build("BertForMaskedLM", LONG)
    before = state(model)
    with pytest.raises(InvalidArgumentError, match=r"BertForMaskedLM reads in both directions.*continuation"):
        attnflow.explain(model, plain, TEXT, continuation=" the cat")
    assert state(model) == before


def test_a_vocabulary_that_is_not_the_models(decoder: Any) -> None:
    assert len(VOCABULARY) == 22
    with pytest.raises(InvalidArgumentError, match="tokenizer"):
        attnflow.explain(
            decoder, tokenizer(bos_token="<s>", eos_token="<new>"), "cat <new>", generate=GREEDY, start_token=True
        )


def test_a_model_that_is_to_answer_reads_what_it_would_without_us(decoder: Any, plain: Any) -> None:
    """A start token that nobody asked for might make it say something else."""
    ids = torch.tensor([plain(TEXT)["input_ids"]])
    with torch.no_grad():
        own = decoder.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **GREEDY)
    result = attnflow.explain(decoder, plain, TEXT, generate=GREEDY)
    assert result.tokens == tuple(plain.decode([token]) for token in own[0, :-1].tolist())
    assert result.sink_labels == tuple(plain.decode([token]) for token in own[0, N:].tolist())
    assert result.options["start_token"] is None


@pytest.mark.parametrize(
    "measure", ["alti", lambda attention: torch.ones(attention.n_queries, attention.n_keys).tril()]
)
def test_what_is_said_later_must_not_be_seen(plain: Any, measure: Any) -> None:
    """A model that reads its text both ways reads an answer both ways, too, when it is there already."""
    model = build("BertLMHeadModel", LONG, "BertConfig", is_decoder=False)
    with pytest.raises(CaptureError, match=r"layer\.0\.attention\.self.*position 0 sees what was said after it"):
        attnflow.explain(model, plain, "the cat", continuation=" sat on", measure=measure)
    one = attnflow.explain(model, plain, "the cat", continuation=" sat", measure=measure)  # and nothing was read
    assert (one.kind, one.values.shape) == ("encoder", (1, 2))
