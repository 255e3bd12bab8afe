"""Words, colours and text made visible: what all views share."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import HOSTILE, caption, generation, image, recording, sample

from attnflow.attribution import require_alike
from attnflow.errors import InvalidArgumentError
from attnflow.views import colour, wording

anything = st.text(st.characters(codec=None), max_size=40)


@given(anything)
def test_visible_text_holds_nothing_that_can_act(text: str) -> None:
    for character in wording.visible(text):
        category = unicodedata.category(character)
        assert category not in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp"), repr(character)
        assert category != "Cf" or character in "\u200c\u200d"


@given(anything)
def test_visible_is_visible(text: str) -> None:
    assert bool(wording.visible(text).strip()) == bool(text.strip(" ") or text) or text.isspace()
    assert bool(text) == bool(wording.visible(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\r\n", "␍⏎"),
        ("\u200d", "‹U+200D›"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("\u0301e", "◌\u0301e"),
        ("e\u0301", "e\u0301"),
        ("\u2066x", "‹U+2066›x"),
        ("\ud83d", "‹U+D83D›"),
        (" a", " a"),
        ("", ""),
        ("\u00a0", "⍽"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert wording.visible(text) == shown


def test_pieces_spell_the_text_and_name_every_token() -> None:
    result = sample()
    shown = wording.pieces(result)
    assert "".join(piece.text for piece in shown if piece.position != 0) == result.text
    assert [piece.position for piece in shown if piece.position is not None] == list(range(len(result.tokens)))


def test_pieces_of_tokens_that_share_a_character() -> None:
    tokens = ["a", "\ufffd", "\ufffd", " b"]
    result = sample(tokens, start_token=False, flows=0, text="a😀 b", offsets=[(0, 1), (1, 2), (1, 2), (2, 4)])
    assert [tuple(piece)[:2] for piece in wording.pieces(result)] == [
        ("a", 0),
        ("😀", 1),
        ("⋯", 2),
        (" ", None),
        ("b", 3),
    ]


def test_pieces_keep_what_lies_between_and_after_tokens() -> None:
    result = sample(["to", "be"], start_token=False, flows=0, text="to\n~be!", offsets=[(0, 2), (4, 6)])
    assert [tuple(piece) for piece in wording.pieces(result)] == [
        ("to", 0, False),
        ("⏎~", None, True),
        ("be", 1, False),
        ("!", None, False),
    ]


def test_every_hostile_token_has_its_piece() -> None:
    shown = wording.pieces(sample(HOSTILE))
    assert [piece.position for piece in shown if piece.position is not None] == list(range(len(HOSTILE) + 1))
    assert all(piece.text for piece in shown)


def test_a_ranking_by_position_is_called_one() -> None:
    (worst, *_) = wording.caveats(sample(plain=True))
    assert worst.severe
    assert "order of the tokens" in worst.title
    assert "−1.00" in worst.text
    assert "earlier" in worst.text
    backwards = sample(plain=True)
    late = np.ascontiguousarray(backwards.values[:, ::-1])
    (worst, *_) = wording.caveats(sample(plain=True, values=late, lower=late, upper=late))
    assert "later" in worst.text


def test_patches_and_frames_are_no_tokens() -> None:
    rising = np.arange(1.0, 17.0)[None]
    scores = {"values": rising, "lower": rising, "upper": rising}
    (worst, *_) = wording.caveats(image(4, 4, **scores))
    assert worst.title == "This ranking is the order of the patches"
    assert "patches further down score higher" in worst.text
    (worst, *_) = wording.caveats(image(4, 4, **{name: rising[:, ::-1].copy() for name in scores}))
    assert "patches further up score higher" in worst.text
    assert wording.players_word(recording(9).source or caption()) == "frames"
    assert wording.players_word(caption()) == "players"  # patches, and words about them


def test_no_caveat_where_none_is_due() -> None:
    assert wording.caveats(sample(seed=3)) == []


def test_what_was_not_verified_is_never_called_verified() -> None:
    good, bad = sample(), sample(verified=False)
    assert wording.verified_line(good, good) == "verified: flow = cut for all 28 solves"
    assert wording.verified_line(good, bad).startswith("NOT verified")
    one = sample([" be"], values=[[0.2]], lower=[[0.2]], upper=[[0.2]], bottlenecks=[[0]], flows=0)
    assert wording.verified_line(one) == "verified: flow = cut for the one solve"
    assert any(caveat.severe and caveat.title == "Not verified" for caveat in wording.caveats(bad))


def test_no_flow_and_no_ranking_are_said() -> None:
    nothing = np.zeros((1, 14))
    none = sample(values=nothing, lower=nothing, upper=nothing, bottlenecks=np.full((1, 14), -3), flows=0)
    assert wording.caveats(none)[0].title == "No flow at all"
    same = np.ones((1, 14))
    assert wording.caveats(sample(values=same, lower=same, upper=same))[0].title == "No ranking"


@pytest.mark.parametrize("scores", [[[0.2, 0.4]], [[0.4, 0.2]]])
def test_two_players_have_no_ranking_to_speak_of(scores: list[list[float]]) -> None:
    """Of two any order is that of the tokens or its reverse: a correlation of 1 is no finding, and not called one."""
    two = sample(["to", " be"], values=scores, lower=scores, upper=scores, bottlenecks=[[0, 1]], flows=0)
    assert abs(two.position_correlation) == 1
    assert [(caveat.severe, caveat.title) for caveat in wording.caveats(two)] == [
        (False, "Too few players for a ranking")
    ]
    four = np.array([[0.1, 0.2, 0.3, 0.4]])
    enough = sample(["a", "b", "c", "d"], values=four, lower=four, upper=four, bottlenecks=[[0, 1, 2, 3]], flows=0)
    assert wording.caveats(enough)[0].title == "This ranking is the order of the tokens"


def test_results_of_other_tokens_are_not_compared() -> None:
    with pytest.raises(InvalidArgumentError, match="same tokens"):
        require_alike([sample(), sample(["other"])])
    with pytest.raises(InvalidArgumentError, match="same tokens and players"):
        require_alike([sample(), sample(start_token=False)])


def test_what_a_model_was_made_to_say_it_did_not_predict() -> None:
    assert wording.said_word(sample()) == "predicted"
    assert wording.said_word(sample(options={"generated": True})) == "said"
    assert wording.said_word(sample(options={"generated": False})) == "made to say"
    assert wording.said_word(generation()) == "said"
    assert wording.said_word(generation(options={"generated": False})) == "made to say"


def test_only_the_published_method_is_called_so() -> None:
    usual = sample(plain=True)
    assert wording.method_note(usual) == "the published method"
    for other in ({"residual": 0.0}, {"heads": "max"}, {"calibration": "excess"}):
        changed = sample(plain=True, options={**usual.options, **other})
        assert wording.method_note(changed) in ("no calibration", "only what exceeds evenly spread attention")


def test_method_names() -> None:
    assert wording.method_name(sample()) == "Excess ALTI flow"
    assert wording.method_name(sample(plain=True)) == "Plain attention flow"
    assert wording.method_name(sample(options={"measure": "alti", "calibration": None})) == "Plain ALTI flow"
    assert wording.method_name(sample(options={})) == "Plain attention flow"


def test_each_sink_has_its_own_scores_and_flows() -> None:
    one = sample()
    twice = {name: np.repeat(getattr(one, name), 2, axis=0) for name in ("values", "lower", "upper", "bottlenecks")}
    twice["values"] = twice["values"] * [[1], [0.5]]
    twice["lower"] = twice["values"]
    two = sample(targets=[14, (13, 14)], **twice)
    first, second = wording.each_sink(two)
    assert first.flows is not None
    assert second.flows is None
    assert second.values[0].tolist() == two.values[1].tolist()
    assert second.targets == ((13, 14),)
    assert "2 positions 13..14" in second.target_label


@pytest.mark.parametrize(
    ("number", "places", "shown"), [(0.0, 3, "0"), (1e-9, 3, "1e-09"), (0.12345, 4, "0.1235"), (0.0005, 3, "0.001")]
)
def test_score(number: float, places: int, shown: str) -> None:
    assert wording.score(number, places) == shown


@given(st.floats(0, 1e6), st.floats(0, 1e-3), st.floats(0, 1e-3))
def test_the_uncertainty_covers_the_interval(value: float, below: float, above: float) -> None:
    shown = wording.uncertainty(value, value - below, value + above)
    half = max(value - (value - below), (value + above) - value)
    assert (0.0 if shown == "exact" else float(shown.removeprefix("±"))) >= half


def test_times() -> None:
    assert [wording.seconds(t) for t in (0.0000034, 0.0123, 1.26, 200)] == ["3 µs", "12 ms", "1.3 s", "3 min 20 s"]
    assert wording.total_time(sample(timings={"capture": 1.0, "kernel": 0.5, "total": 9.0})) == 1.5


def test_correlations_have_a_sign_and_no_negative_zero() -> None:
    assert [wording.signed(x) for x in (-1.0, -0.001, 0.0, 0.256)] == ["−1.00", "+0.00", "+0.00", "+0.26"]
    assert wording.position_share(sample(plain=True)) == "Spearman −1.00, 100% of the rank variance"


# --- Colours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [colour.LIGHT, colour.DARK, colour.TERMINAL])
def test_every_shade_can_be_read(stops: tuple[str, ...]) -> None:
    assert min(colour.contrast(shade.ink, shade.background) for shade in colour.shades(stops)) >= 4.5


@pytest.mark.parametrize(("stops", "rises"), [(colour.LIGHT, False), (colour.DARK, True), (colour.TERMINAL, True)])
def test_strength_is_lightness_so_it_survives_colour_blindness(stops: tuple[str, ...], rises: bool) -> None:
    against_black = [colour.contrast(shade.background, "#000000") for shade in colour.shades(stops)]
    assert against_black == sorted(against_black, reverse=not rises)
    assert len(set(against_black)) == len(against_black)


@given(st.floats(0, 1), st.floats(0, 1))
def test_levels_keep_the_order_and_only_zero_is_none(a: float, b: float) -> None:
    assert 0 <= colour.level(a, 1.0) <= colour.LEVELS
    assert (colour.level(a, 1.0) == 0) == (a == 0)
    if a < b:
        assert colour.level(a, 1.0) <= colour.level(b, 1.0)
    assert colour.level(1.0, 1.0) == colour.LEVELS
    assert colour.level(0.0, 0.0) == 0


def test_a_nan_is_no_correlation() -> None:
    assert wording.position_share(sample(["one"])) == "not defined"
    assert math.isnan(sample(["one"]).position_correlation)
