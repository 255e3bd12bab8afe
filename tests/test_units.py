"""Words, sentences and spans as players: which tokens belong to them, and flows that are computed anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import LONG, TEXT, bart, bert_like, build, llama, plain, two_sided, vit

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Attribution, Network  # noqa: E402
from attnflow.attribution import ATTRIBUTIONS, grouping  # noqa: E402
from attnflow.errors import InvalidArgumentError  # noqa: E402


def cut(text: str, *, every: int) -> list[tuple[int, int] | None]:
    """Tokens of so many characters."""
    return [(start, min(start + every, len(text))) for start in range(0, len(text), every)]


def pieces(text: str, units: Any, *, every: int = 1) -> list[str]:
    """What the tokens of each unit spell, blanks aside."""
    offsets = cut(text, every=every)
    groups = grouping(text, offsets, units).members
    assert sorted(position for group in groups for position in group) == list(range(len(offsets)))
    spelt = (text[offsets[group[0]][0] : offsets[group[-1]][1]].strip() for group in groups)  # type: ignore[index]
    return [unit for unit in spelt if unit]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat sat.", ["The", "cat", "sat", "."]),
        ("don't 'quote' well-known", ["don't", "'", "quote", "'", "well-known"]),
        ("a_b 3.14 x2", ["a_b", "3.14", "x2"]),
        ("wait... what?!", ["wait", "...", "what", "?!"]),
        ("1,000.5, a.b 7.", ["1,000.5", ",", "a", ".", "b", "7", "."]),
        ("naïve cafe\u0301 हिन्दी", ["naïve", "cafe\u0301", "हिन्दी"]),
        ("猫が好き", ["猫", "が", "好", "き"]),
        ("  spaced\n\tout ", ["spaced", "out"]),
        ("’tis", ["’", "tis"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert pieces(text, "words") == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three?", "four"]),
        ('She said "Go." Then left.', ['She said "Go."', "Then left."]),
        ("Line one\nline two", ["Line one", "line two"]),
        ("It costs 3.14 now.", ["It costs 3.14 now."]),
        ("Really?! ... Yes.", ["Really?! ...", "Yes."]),
        ("猫。犬！", ["猫。", "犬！"]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert pieces(text, "sentences") == sentences


def test_a_token_across_a_border_joins_both_sides() -> None:
    assert pieces("ab cd ef", "words", every=4) == ["ab cd ef"]  # "ab c", "d ef"
    assert grouping("ab cd ef", [(0, 2), (2, 5), (5, 8)], "words").members == ((0,), (1,), (2,))
    assert grouping("ab cd ef", [(0, 4), (4, 5), (5, 8)], "words").members == ((0, 1), (2,))


def test_blanks_between_sentences_belong_to_one() -> None:
    text = "One.\n\n Two. "
    assert grouping(text, cut(text, every=1), "sentences").members == ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11))
    assert grouping(text, cut(text, every=1), "words").members[:3] == ((0, 1, 2), (3,), (4,))


def test_tokens_outside_of_the_text_stay_alone() -> None:
    offsets = [None, (0, 2), (2, 3), (3, 5), None]
    assert grouping("ab cd", offsets, [(0, 5)]).members == ((0,), (1, 2, 3), (4,))
    assert grouping("ab cd", offsets, "words").members == ((0,), (1,), (2,), (3,), (4,))
    with pytest.raises(InvalidArgumentError, match="no token here has a place in one"):
        grouping("ab", [None, None], "words")


SPANS = [(0, 7), (8, 14), (15, 22)]  # "the cat", "sat on", "the mat"


@pytest.mark.parametrize("attribution", [one for one in ATTRIBUTIONS if one != "random"])
def test_merging_is_explaining_in_units(attribution: Any) -> None:
    model = llama()
    tokens = attnflow.explain(model, plain(), TEXT, attribution=attribution)
    units = attnflow.explain(model, plain(), TEXT, attribution=attribution, units=SPANS)
    assert units.tokens == ("<s>", "the cat", "sat on", "the mat", "and", "saw", "a", "dog")
    assert units.members == ((0,), (1, 2), (3, 4), (5, 6), (7,), (8,), (9,), (10,))
    assert units.players.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert units.targets == ((7,),)
    assert [TEXT[slice(*span)] for span in units.offsets if span] == list(units.tokens[1:])
    assert units.options["units"] == tuple(SPANS)
    assert units.definition.endswith("the tokens of a span are one player")
    if attribution == "leave_one_out":
        with pytest.raises(InvalidArgumentError, match=r"asks the model again: explain\(\.\.\., units="):
            tokens.merge(SPANS)
        return
    merged = tokens.merge(SPANS)
    np.testing.assert_allclose(merged.values, units.values, rtol=1e-13, atol=0)
    assert {**merged.to_dict(), "timings": {}, "values": 0, "lower": 0, "upper": 0} == {
        **units.to_dict(),
        "timings": {},
        "values": 0,
        "lower": 0,
        "upper": 0,
        "summary": merged.to_dict()["summary"],
    }


def test_words_share_capacity() -> None:
    model = llama()
    tokens = attnflow.explain(model, plain(), TEXT)
    words = tokens.merge(SPANS)
    network = tokens.evidence.solved[0].network  # type: ignore[union-attr]
    groups = [[1, 2], [3, 4], [5, 6], 7, 8, 9, 10]
    assert np.array_equal(words.values, network.source_flows(sources=groups).values)
    best = [max(tokens.values[0, np.isin(tokens.players, group)]) for group in groups]
    total = [tokens.values[0, np.isin(tokens.players, group)].sum() for group in groups]
    assert (words.values[0] >= best).all()
    assert (words.values[0] <= np.array(total) + 1e-12).all()
    shares = attnflow.explain(model, plain(), TEXT, attribution="shapley").merge(SPANS)
    assert np.array_equal(shares.values, network.shapley_values(players=groups).values)
    words.check()
    shares.check()


def test_words_of_words() -> None:
    tokens = attnflow.explain(llama(), plain(), TEXT)
    twice = tokens.merge(SPANS).merge([(0, 14)])
    once = tokens.merge([(0, 14), (15, 22)])
    assert twice.members == once.members
    assert np.array_equal(twice.values, once.values)
    twice.check()


def test_parts_and_words_in_either_order() -> None:
    tokens = attnflow.explain(llama(), plain(), TEXT, attribution="shapley")
    part = tokens[:, [0, 5, 6]].merge(SPANS)
    assert part.tokens == tokens.merge(SPANS).tokens
    assert np.array_equal(part.values, tokens.merge(SPANS)[:, [0, 3, 4]].values)
    part.check()


def test_answers_in_words() -> None:
    result = attnflow.explain(llama(), plain(), TEXT, continuation=" over the hill")
    words = result.merge([(0, 7), (37, 45)])
    assert words.tokens[-1] == " over the"
    assert words.values.shape == (3, result.players.size - 2)
    assert words.sink_labels == result.sink_labels
    words.check()
    for step in range(3):
        assert not words.values[step, ~words.visible(step)].any()


def test_both_sides_of_an_encoder_decoder() -> None:
    result = attnflow.explain(bart(), two_sided(), TEXT, target="over the hill")
    start = result.text.index("\n") + 1
    words = result.merge([(0, 7), (start, len(result.text))])
    assert words.n_source == result.n_source - 1
    assert words.source is not None
    assert words.source.tokens == words.tokens
    words.check()
    with pytest.raises(InvalidArgumentError, match="an encoder read some of them, a decoder others"):
        result.merge([(start - 4, len(result.text))])


def test_what_cannot_be_merged(tmp_path: Any) -> None:
    model = llama()
    tokens = attnflow.explain(model, plain(), TEXT)
    stored = Attribution.load(tokens.save(tmp_path / "x.json"))
    bare = attnflow.explain(model, plain(), TEXT, evidence=False)
    for result in (stored, bare):
        assert result.evidence is None
        with pytest.raises(InvalidArgumentError, match=r"no network to ask again.*explain\(\.\.\., units='words'\)"):
            result.merge("words")
    with pytest.raises(InvalidArgumentError, match="merged before"):
        (tokens - bare).merge("words")
    with pytest.raises(InvalidArgumentError, match="random score has no parts"):
        attnflow.explain(model, plain(), TEXT, attribution="random").merge("words")
    image = attnflow.explain(vit(), None, {"pixel_values": torch.zeros(1, 3, 12, 12)})
    with pytest.raises(InvalidArgumentError, match="are of a text"):
        image.merge("words")
    with pytest.raises(InvalidArgumentError, match="units must be 'words', 'sentences' or spans"):
        tokens.merge("tokens")  # type: ignore[arg-type]


def test_an_encoders_words_and_receptive_fields() -> None:
    model = build("BertModel", LONG)
    result = attnflow.explain(model, bert_like(), TEXT, target="mean", receptive_field=True)
    words = result.merge(SPANS)
    network: Network = result.evidence.solved[0].network  # type: ignore[union-attr]
    n = len(result.tokens)
    expected = network.source_flows(0, sources=[[1, 2], [3, 4], [5, 6], 7, 8, 9, 10]).values / n
    np.testing.assert_allclose(words.values, expected, rtol=1e-14)
    words.check()


def test_units_survive_files(tmp_path: Any) -> None:
    words = attnflow.explain(llama(), plain(), TEXT, units=SPANS)
    for name in ("x.json", "x.npz"):
        again = Attribution.load(words.save(tmp_path / name))
        assert again == words
        assert again.members == words.members
