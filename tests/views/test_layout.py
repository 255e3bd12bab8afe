"""What all views share about several sinks, two stacks, and grids: parts, steps, columns, and names of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from samples import ANSWER, HOSTILE, caption, generation, image, recording, sample, translation

from attnflow.attribution import Grid, PairFlow, require_alike
from attnflow.errors import InvalidArgumentError
from attnflow.views import layout, svg, wording


def stretches(result: Any) -> list[tuple[str, int, int, bool]]:
    return [(p.name, p.positions.start, p.positions.stop, p.cells) for p in layout.parts(result)]


def test_parts_of_each_kind_of_result() -> None:
    assert stretches(sample()) == [("", 0, 15, False)]
    assert stretches(generation()) == [("prompt", 0, 15, False), ("generated", 15, 20, False)]
    assert stretches(translation()) == [("source", 0, 11, False), ("decoder", 11, 18, False)]
    assert stretches(image()) == [("image", 1, 197, True)]  # the class token is no player
    assert stretches(caption()) == [("source", 1, 50, True), ("decoder", 50, 56, False)]
    assert stretches(recording(40)) == [("source", 0, 40, True), ("decoder", 40, 46, False)]


def test_a_part_of_a_result_is_one_part() -> None:
    source, decoder = translation().source, translation().decoder
    assert source is not None
    assert decoder is not None
    assert [part.name for part in layout.parts(source)] == ["source"]
    assert [part.name for part in layout.parts(decoder)] == ["decoder"]


def test_an_image_within_a_text() -> None:
    words = ["Look", " at", *["<image>"] * 6, " and", " tell"]
    assert stretches(sample(words, grid=Grid(3, (2, 3)), flows=0)) == [
        ("before the image", 0, 3, False),
        ("image", 3, 9, True),
        ("behind the image", 9, 11, False),
    ]


def test_steps_have_labels_and_shares() -> None:
    steps = layout.steps(generation())
    assert [step.label for step in steps] == [token.strip() for token in ANSWER]
    assert all(step.share.endswith("%") for step in steps)
    assert [step.label for step in layout.steps(generation(sink_labels=None, predictions=None))][:2] == ["to", "He"]
    assert layout.said(generation()) == "He gave it to Mary."
    assert layout.said(sample()) == ""
    some = generation()
    kept = {name: getattr(some, name)[::2] for name in ("values", "lower", "upper", "bottlenecks", "targets")}
    kept |= {"sink_labels": ANSWER[::2], "predictions": some.predictions[::2]}
    assert layout.said(replace(some, **kept)) == "He … it … Mary"
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    chosen = layout.steps(replace(some, **kept, options={"steps": [0, 2, 4]}))
    assert [step.number for step in chosen] == [1, 3, 5]


def test_columns_keep_the_highest_scores_and_the_order_of_the_text() -> None:
    result = generation()
    shown = layout.columns(result, 5)
    best = result.values.max(axis=0)
    assert set(shown.players) == set(np.argsort(-best, kind="stable")[:5].tolist())
    assert list(shown.players) == sorted(shown.players)
    assert shown.left_out == 14
    assert shown.highest_left_out == np.sort(best)[-6]
    assert layout.columns(result).left_out == 0
    assert layout.columns(image()).players == ()
    assert [name for name, _ in layout.columns(caption()).groups] == ["decoder"]


def test_bins_show_their_highest_and_no_player_is_none() -> None:
    cells, per = layout.binned(np.array([1.0, 3.0, np.nan, np.nan, 0.0, 2.0, 5.0]), 4)
    assert per == 2
    np.testing.assert_array_equal(cells, [3.0, np.nan, 2.0, 5.0])
    assert layout.binned(np.array([1.0, 2.0]), 80)[1] == 1


def test_a_step_has_only_what_it_sees() -> None:
    steps = wording.each_sink(generation())
    assert [len(step.players) for step in steps] == [14, 15, 16, 17, 18, 19]
    assert [step.prediction[0] for step in steps if step.prediction] == ANSWER
    last = layout.until(steps[0], layout.parts(steps[0])[0])
    assert last == range(15)
    assert "He" not in "".join(piece.text for piece in wording.pieces(steps[0], last))


def test_the_pieces_of_two_parts_are_the_two_texts() -> None:
    result = translation()
    source, decoder = layout.parts(result)
    assert (
        "".join(p.text for p in wording.pieces(result, source.positions))
        == "The keys to the cabinet are on the table.</s>"
    )
    assert (
        "".join(p.text for p in wording.pieces(result, decoder.positions)) == "<pad>Die Schlüssel liegen auf dem Tisch"
    )


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" cat", "cat"), (" ", "␣"), ("", "∅"), ("\ufffd", "⋯"), (" \ufffd\ufffd", "⋯"), ("a\ufffd", "a⋯"), ("\n", "⏎")],
)
def test_a_token_by_itself(token: str, shown: str) -> None:
    assert wording.shown_token(token) == shown


@pytest.mark.parametrize("token", HOSTILE)
def test_every_hostile_token_has_a_name(token: str) -> None:
    assert wording.shown_token(token).strip()


def test_pieces_of_a_character_say_which() -> None:
    def names(tokens: list[str], text: str, offsets: list[Any]) -> list[str]:
        result = sample(tokens, start_token=False, flows=0, text=text, offsets=offsets)
        return [wording.label(result, position) for position in range(len(tokens))]

    broken = "\ufffd"
    assert names(["a", *[broken] * 4, " b"], "a😀 b", [(0, 1), *[(1, 2)] * 4, (2, 4)]) == [
        "a", "⋯F0", "⋯9F", "⋯98", "⋯80", "b",
    ]  # fmt: skip
    assert names([" " + broken, broken, "b"], " 😀b", [(0, 2), (1, 2), (2, 3)]) == ["⋯😀", "⋯😀", "b"]
    assert names(["", "x"], " x", [(0, 1), (1, 2)]) == ["␣", "x"]  # a blank that decodes to nothing
    assert names([broken], broken, [(0, 1)]) == ["⋯"]  # the text itself holds the mark
    assert names([broken, "x"], "x", [None, (0, 1)]) == ["⋯", "x"]


@pytest.mark.parametrize(
    ("measure", "name"),
    [
        ("attention_gradient", "Plain attention gradient flow"),
        ("attention_x_gradient", "Plain attention × gradient flow"),
        ("value_norm", "Plain value norm flow"),
        ("value_norm_residual", "Plain value norm with residual flow"),
        ("My own-measure", "Plain My own-measure flow"),
        ("bad\x1b\u202e", "Plain bad␛‹U+202E› flow"),
    ],
)
def test_measures_have_names(measure: str, name: str) -> None:
    result = sample(options={"measure": measure, "calibration": None})
    assert wording.method_name(result) == name
    assert wording.method_note(result).endswith("no calibration")
    assert "published" not in wording.method_note(result)


def test_what_was_asked_is_not_called_the_prediction() -> None:
    options = {"measure": "attention_x_gradient", "calibration": None}
    assert "moves the prediction;" in wording.method_note(sample(options=options))
    assert "moves the objective;" in wording.method_note(sample(options={**options, "objective": [" dog", " cat"]}))


def test_divided_scores_are_said_to_be() -> None:
    divided = sample(seed=3, options={"measure": "attention", "receptive_field": True})
    assert "Scores are divided by receptive fields" in [caveat.title for caveat in wording.caveats(divided)]
    assert wording.method_note(divided) == "no calibration; divided by receptive fields"
    kept = sample(seed=3, options={"measure": "attention", "receptive_field": False})
    assert wording.caveats(kept) == []


def test_only_ways_through_layers_in_a_row_are_drawn() -> None:
    pair = PairFlow(0, [0, 13], [0, 0], [0, 0], [0.1, 0.1])
    spoken = replace(translation(steps=1), flows=(pair,))
    assert layout.drawn_flows(spoken) == ()
    assert "How “" not in svg.picture(spoken)
    one = sample()
    assert layout.drawn_flows(one) == one.flows


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (generation(), generation(targets=[14, 15, 16, 17, 18, 18]), r"several sinks.*\[14, 15, 16, 17, 18, 18\]"),
        (generation(), generation(sink_labels=list("abcdef")), "same steps only"),
        (image(4, 6), image(4, 6, grid=Grid(1, (6, 4))), "same grid only"),
        (generation(), sample([*generation().tokens[1:]], flows=0), "same sinks only: got 6 and 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(one: Any, other: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        require_alike([one, other])
