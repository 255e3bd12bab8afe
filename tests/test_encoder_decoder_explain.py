"""Encoder-decoders explained: what is said, forced or generated, and what each of its tokens drew on."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from tiny import TEXT, TWO_SIDED, N, bart, build, ids, matrices, state, t5, tokenizer, two_sided, visible

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Attribution, Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import FileFormatError, InvalidArgumentError  # noqa: E402

SOURCE = [*TEXT.split(), "</s>"]  # N + 1 positions
SAID = ["a", "dog", "sat"]
TARGET = " ".join(SAID)
FIRST = N + 1  # the decoder's first position
STACKS = ("encoder", "decoder", "cross")
MODELS = {
    "bart": (bart, 3),
    "marian": (lambda: build("MarianMTModel", TWO_SIDED, "MarianConfig"), 3),
    "t5": (t5, 0),
}


@pytest.fixture
def model() -> Any:
    return bart()


@pytest.fixture(name="tokens")
def _tokens() -> Any:
    return two_sided()


def wanted(model: Any, read: list[int], measure: str, calibration: Any, merge: str) -> Any:
    """The network of the captured layers."""
    captured = contributions(model, {"input_ids": [ids(SOURCE)], "decoder_input_ids": [read]}, measure=measure)
    holds = captured.holds_residual
    return Network.encoder_decoder(
        *(matrices(captured, stack) for stack in STACKS),
        residual=0.0 if holds else 0.5,
        calibration=calibration,
        visible=[visible(captured, stack) for stack in STACKS],
        kept=[layer.kept[0] for layer in captured.stack("cross")] if holds else None,
        merge=merge,
    )


METHODS = [
    ("alti", "excess", "sublayers"),
    ("alti", None, "sublayers"),
    ("attention", "excess", "sublayers"),
    ("attention", None, "sublayers"),
    ("attention", "excess", "single"),
    ("attention", None, "single"),
]


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize(("measure", "calibration", "merge"), METHODS)
@pytest.mark.parametrize("family", MODELS)
def test_scores_are_the_flows_of_the_captured_network(
    family: str, measure: str, calibration: Any, merge: str, chain: bool, tokens: Any
) -> None:
    make, start = MODELS[family]
    model, read = make(), [start, *ids(SAID)]
    result = attnflow.explain(
        model, tokens, TEXT, target=TARGET, measure=measure, calibration=calibration, merge=merge, chain=chain
    )
    network = wanted(model, read, measure, calibration, merge)
    if chain:
        network = network.chained([1, 2, 3])
    expected = network.source_flows(range(4)).values
    players = [*range(N), *([] if chain else range(FIRST + 1, FIRST + 4))]
    assert result.players.tolist() == players  # neither the source's end nor the decoder's start
    np.testing.assert_allclose(result.values, expected[:, players], rtol=1e-12, atol=1e-12)
    assert ids(result.tokens) == [*ids(SOURCE), *read]
    assert result.kind == "encoder-decoder"
    assert result.n_source == FIRST
    assert result.targets == tuple((FIRST + step,) for step in range(4))
    assert result.n_layers == 4
    assert (result.n_nodes, result.n_edges) == (network.n_nodes, network.n_edges)
    assert result.verified
    assert result.options["merge"] == merge
    assert result.options["generated"] is False
    assert ("both attentions of a decoder layer in one" in result.definition) is (merge == "single")


def test_what_was_said_and_how_likely_it_was(model: Any, tokens: Any) -> None:
    result = attnflow.explain(model, tokens, TEXT, target=TARGET)
    assert result.text == f"{TEXT}\n{TARGET}"
    for token, span in zip(result.tokens, result.offsets, strict=True):
        assert (span is None) == (token == "</s>")
        assert span is None or result.text[slice(*span)].strip() == token
    assert result.sink_labels == ("a", "dog", "sat", "</s>")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids(SOURCE)]), decoder_input_ids=torch.tensor([[3, *ids(SAID)]])).logits[
            0
        ]
    assert result.predictions is not None
    for step, (token, share) in enumerate(result.predictions):
        said = ids([*SAID, "</s>"])[step]
        assert token == tokens.decode([said])
        assert share == pytest.approx(float(logits[step].softmax(dim=-1)[said]), abs=1e-6)
    assert result.prediction is None


@pytest.mark.parametrize("family", MODELS)
def test_a_generated_answer_is_as_if_it_had_been_forced(family: str, tokens: Any) -> None:
    make, start = MODELS[family]
    model = make()
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    result = attnflow.explain(model, tokens, TEXT, generate=options)
    answer = model.generate(torch.tensor([ids(SOURCE)]), attention_mask=torch.ones(1, FIRST).long(), **options)[
        0
    ].tolist()
    assert answer[0] == start
    assert ids(result.tokens[FIRST:]) == answer[:-1]
    assert [token for token, _ in result.predictions] == [tokens.decode([token]) for token in answer[1:]]
    expected = wanted(model, answer[:-1], "alti", "excess", "sublayers").source_flows(range(len(answer) - 1)).values
    np.testing.assert_allclose(result.values, expected[:, result.players], rtol=1e-12, atol=1e-12)
    assert result.options["generated"] is True


def test_an_encoder_decoder_generates_when_nothing_is_asked(model: Any, tokens: Any) -> None:
    model.generation_config.max_length = 4
    results = [attnflow.explain(model, tokens, TEXT, generate=g) for g in (None, False, True, {})]
    for result in results:
        assert result.tokens == results[0].tokens
        assert np.array_equal(result.values, results[0].values)
    beams = attnflow.explain(model, tokens, TEXT, generate={"num_beams": 2, "max_new_tokens": 3})
    assert len(beams.targets) <= 3


def test_a_start_that_the_tokenizer_writes_is_not_said_twice() -> None:
    model = bart(decoder_start_token_id=2)
    written = tokenizer("<s> $A </s>", bos_token="<s>", eos_token="</s>")
    result = attnflow.explain(model, written, "the cat", target="a dog")
    assert result.tokens == ("<s>", "the", "cat", "</s>", "<s>", "a", "dog")
    assert result.sink_labels == ("a", "dog", "</s>")


# --- Either side -----------------------------------------------------------------------------------------------------


def test_the_two_sides_of_a_result(model: Any, tokens: Any) -> None:
    result = attnflow.explain(model, tokens, TEXT, target=TARGET)
    source, decoder = result.source, result.decoder
    assert source is not None
    assert decoder is not None
    assert source.players.tolist() == list(range(N))
    assert decoder.players.tolist() == [FIRST + 1, FIRST + 2, FIRST + 3]
    assert np.array_equal(np.hstack([source.values, decoder.values]), result.values)
    assert source.text == decoder.text == result.text
    assert result.visible(0).tolist() == [True] * N + [False] * 3
    for step in range(4):
        assert (decoder.values[step, step:] == 0).all()  # nothing later
    assert (decoder.values > 0).any()


@pytest.mark.parametrize(
    ("sources", "players"),
    [
        ("source", range(N)),
        ("decoder", range(FIRST + 1, FIRST + 4)),
        ("all", range(FIRST + 4)),
        ([N, FIRST], [N, FIRST]),
        ([-1, 0], [0, FIRST + 3]),
    ],
)
def test_sources(model: Any, tokens: Any, sources: Any, players: Any) -> None:
    everything = attnflow.explain(model, tokens, TEXT, target=TARGET, sources="all")
    result = attnflow.explain(model, tokens, TEXT, target=TARGET, sources=sources)
    assert result.players.tolist() == list(players)
    assert np.array_equal(result.values, everything.values[:, result.players])


def test_a_side_without_players_is_none(model: Any, tokens: Any) -> None:
    alone = attnflow.explain(model, tokens, TEXT, target=TARGET, sources="source")
    assert alone.source == alone
    assert alone.decoder is None
    alone = attnflow.explain(model, tokens, TEXT, target=TARGET, sources="decoder")
    assert alone.decoder == alone
    assert alone.source is None
    chained = attnflow.explain(model, tokens, TEXT, target=TARGET, chain=True)
    assert chained.decoder is None
    asked = attnflow.explain(model, tokens, TEXT, target=TARGET, chain=True, sources=range(FIRST + 1))
    assert asked.decoder.players.tolist() == [FIRST]  # the start, which was given


def test_a_chain_carries_on_what_was_said_before(model: Any, tokens: Any) -> None:
    apart = attnflow.explain(model, tokens, TEXT, target=TARGET, sources="source")
    chained = attnflow.explain(model, tokens, TEXT, target=TARGET, chain=True)
    np.testing.assert_allclose(chained.values[0], apart.values[0], atol=1e-12)
    assert (chained.values >= apart.values - 1e-12).all()
    assert (chained.values[1:] > apart.values[1:] + 1e-6).any()


@pytest.mark.parametrize(("steps", "chosen"), [(0, [0]), ([1, -1], [1, 3]), (range(2), [0, 1])])
def test_steps(model: Any, tokens: Any, steps: Any, chosen: list[int]) -> None:
    whole = attnflow.explain(model, tokens, TEXT, target=TARGET, sources="all")
    result = attnflow.explain(model, tokens, TEXT, target=TARGET, sources="all", steps=steps)
    assert np.array_equal(result.values, whole.values[chosen])
    assert result.targets == tuple((FIRST + step,) for step in chosen)
    if len(chosen) == 1:
        assert result.prediction == whole.predictions[0]
        assert result.target_label == "step 1: 'a'"


# --- Names of the links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({"measure": "alti"}, ["decoder layer {}", "cross-attention {}", "residual of cross-attention {}"]),
        (
            {"measure": "attention", "residual": 0.3},
            ["decoder layer {}", "cross-attention {}", "residual of cross-attention {}"],
        ),
        ({"measure": "attention", "residual": 0.0}, ["decoder layer {}", "cross-attention {}"]),
        ({"measure": "attention", "merge": "single"}, ["decoder layer {}", "cross-attention {}"]),
    ],
)
def test_links_have_names(model: Any, tokens: Any, options: dict[str, Any], layer: list[str]) -> None:
    names = ["encoder layer 1", "encoder layer 2", *(name.format(i) for i in (1, 2) for name in layer)]
    result = attnflow.explain(model, tokens, TEXT, target=TARGET, **options)
    assert result.link_names == tuple(names)
    chained = attnflow.explain(model, tokens, TEXT, target=TARGET, chain=True, **options)
    assert chained.link_names == (*names, "reading what was said")
    for one in (result, chained):
        for sink in range(4):
            for player, code in enumerate(one.bottlenecks[sink].tolist()):
                label = one.bottleneck_label(player, sink)
                assert label == (one.link_names[code] if code >= 0 else label)
                assert label in (*one.link_names, "source", "sink", "none")


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "npz"])
@pytest.mark.parametrize("options", [{}, {"chain": True}, {"steps": 2}])
def test_a_result_survives_a_file(model: Any, tokens: Any, options: dict[str, Any], suffix: str, tmp_path: Any) -> None:
    result = attnflow.explain(model, tokens, TEXT, target=TARGET, **options)
    back = Attribution.load(result.save(tmp_path / f"x.{suffix}"))
    assert back == result
    for name in ("n_source", "sink_labels", "predictions", "link_names", "targets", "options", "grid"):
        assert getattr(back, name) == getattr(result, name)
    for side in ("source", "decoder"):
        assert getattr(back, side) == getattr(result, side)


ADDED = ("n_source", "sink_labels", "predictions", "link_names", "grid")


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_file_of_the_first_version_is_read(suffix: str, tmp_path: Any) -> None:
    from tiny import llama, plain

    result = attnflow.explain(llama(), plain(), TEXT)
    file = result.save(tmp_path / f"x.{suffix}")
    if suffix == "json":
        record = json.loads(file.read_text())
        file.write_text(json.dumps(first_version(record)))
    else:
        with np.load(file) as archive:
            held = dict(archive)
        record = first_version(json.loads(held["meta"].tobytes()))
        held["meta"] = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **held)
        file.write_bytes(buffer.getvalue())
    assert Attribution.load(file) == result


def first_version(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it was before there were encoder-decoders."""
    assert record["version"] == 4
    later = {*ADDED, "attribution", "standard_errors", "members", "checksum"}
    return {name: value for name, value in record.items() if name not in later} | {"version": 1}


def test_a_file_of_this_version_has_to_be_complete(model: Any, tokens: Any, tmp_path: Any) -> None:
    file = attnflow.explain(model, tokens, TEXT, target=TARGET).save(tmp_path / "x.json")
    record = json.loads(file.read_text())
    for name in (*ADDED, "attribution", "standard_errors", "members"):
        file.write_text(json.dumps({key: value for key, value in record.items() if key != name}))
        with pytest.raises(FileFormatError, match=f"lacks {name}"):
            Attribution.load(file)
    for name, value in (("n_source", 0), ("sink_labels", ["a"]), ("predictions", [["a", 0.1]]), ("grid", [0, [99]])):
        file.write_text(json.dumps(record | {name: value}))
        with pytest.raises(FileFormatError, match="damaged"):
            Attribution.load(file)
    # A record of two stacks that says it is of the first version holds none.
    file.write_text(json.dumps(first_version(record)))
    with pytest.raises(FileFormatError, match="n_source is 0"):
        Attribution.load(file)


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 3}, r"target must be the text that BartForConditionalGeneration is to say.*got 3.*steps"),
        ({"target": ["a", "dog"]}, r"target must be the text.*\['a', 'dog'\]"),
        ({"target": ""}, "target is empty"),
        ({"target": "  "}, "target='  ' holds no token"),
        ({"target": "a \ud800"}, "the target holds .*half of a character"),
        ({"target": "a " * 40}, r"decoder has 41 tokens.*32"),
        ({"text": "a " * 40}, r"the text has 41 tokens.*32"),
        ({"generate": True}, "target='a dog sat' says what is said: leave out generate"),
        ({"continuation": "cat"}, "continuation='cat' goes on with the text of a decoder.*target"),
        ({"steps": 4}, r"steps is 4, but the answer has 4 steps"),
        ({"merge": "both"}, "merge must be 'sublayers' or 'single', got 'both'"),
        ({"merge": "single"}, "measure 'alti' holds a residual.*merge='sublayers'"),
        ({"merge": None}, "merge must be.*None"),
        ({"residual": 0.5}, r"residual=0\.5 would count the residual twice"),
        ({"sources": "decoder", "steps": 0, "chain": True}, "sources name position 12, which was said"),
        ({"sources": "target"}, "'source' or 'decoder', got 'target'"),
        ({"sources": [15]}, r"sources\[0\] is 15, but the input has 15 tokens"),
        ({"tokenizer": None}, "tokenizer must be a tokenizer.*None"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Any, tokens: Any, options: dict[str, Any], message: str) -> None:
    before = state(model)
    arguments = {"tokenizer": tokens, "text": TEXT, "target": TARGET, **options}
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(model, **arguments)
    assert state(model) == before


def test_no_token_of_the_decoder_plays_where_it_said_none(model: Any, tokens: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="sources='decoder': there is no token on that side"):
        attnflow.explain(model, tokens, TEXT, generate={"max_new_tokens": 1, "eos_token_id": None}, sources="decoder")


def test_the_model_is_left_as_it_was(model: Any, tokens: Any) -> None:
    model.train()
    before = state(model)
    attnflow.explain(model, tokens, TEXT, target=TARGET)
    attnflow.explain(model, tokens, TEXT, generate={"max_new_tokens": 3})
    assert state(model) == before


def test_an_encoder_of_its_own_is_an_encoder(model: Any, tokens: Any) -> None:
    result = attnflow.explain(model.get_encoder(), tokens, TEXT)
    assert result.kind == "encoder"
    assert result.n_source == 0
    assert result.source == result
    assert result.decoder is None
