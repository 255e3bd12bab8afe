"""What is no flow, and scores below zero: the same pictures with two colours, and not a word about cuts."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from samples import caption, generation, image, no_flow, recording, sample, sentences, translation

pytest.importorskip("jinja2")
pytest.importorskip("rich")

from rich.cells import cell_len
from rich.color import Color

from attnflow.attribution import Attribution
from attnflow.views import colour, elements, grid, html, layout, matrix, svg, terminal, terminal_style, wording

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
ABOUT_CUTS = re.compile(r"bottleneck|trivial|minimum cut|limited (by|between|mainly)|(?i:not verified)|No flow at")
SIGNED: dict[str, Attribution] = {
    "one sink": no_flow(sample(flows=0)),
    "all below": replace(
        no_flow(sample(flows=0), "gradient_x_input"),
        values=-np.linspace(1, 2, 14)[None],
        lower=-np.linspace(1, 2, 14)[None],
        upper=-np.linspace(1, 2, 14)[None],
    ),
    "generation": no_flow(generation(), "gradient_x_input"),
    "translation": no_flow(translation()),
    "image": no_flow(image()),
    "wide image": no_flow(image(6, 90)),
    "caption": no_flow(caption()),
    "recording": no_flow(recording()),
    "sentences": no_flow(sentences(), units="sentences"),
    "nothing": no_flow(sample(flows=0, values=np.zeros((1, 14)), lower=np.zeros((1, 14)), upper=np.zeros((1, 14)))),
}


def four(*values: float, attribution: str = "leave_one_out") -> Attribution:
    """Four tokens with these scores."""
    tokens = ["one", " two", " three", " four"]
    scores = {name: np.array([values]) for name in ("values", "lower", "upper")}
    plain = sample(tokens, start_token=False, flows=0, bottlenecks=np.full((1, 4), -3))
    return replace(no_flow(plain, attribution), **scores)


# --- Colours --------------------------------------------------------------------------------------------------------


def test_levels_below_zero_mirror_those_above() -> None:
    for score in (1e-9, 0.2, 0.5, 1.0):
        assert colour.level(-score, 1.0) == -colour.level(score, 1.0) != 0
    assert [colour.kind(step) for step in (-24, -1, 0, 1, 24)] == ["n24", "n1", "h0", "h1", "h24"]
    assert colour.level(-0.0, 1.0) == 0


SCALES = [
    (colour.LIGHT, colour.BELOW_LIGHT, False),
    (colour.DARK, colour.BELOW_DARK, True),
    (colour.TERMINAL, colour.BELOW_TERMINAL, True),
]


@pytest.mark.parametrize(("above", "below", "rises"), SCALES)
def test_both_sides_can_be_read_and_are_as_strong(above: tuple[str, ...], below: tuple[str, ...], rises: bool) -> None:
    shades = colour.shades(below)
    assert shades[0] == colour.shades(above)[0]  # nothing is nothing
    assert min(colour.contrast(shade.ink, shade.background) for shade in shades) >= 4.5
    lightness = [colour.contrast(shade.background, "#000000") for shade in shades]
    assert lightness == sorted(lightness, reverse=not rises)
    assert len(set(lightness)) == len(lightness)
    for one, other in zip(shades, colour.shades(above), strict=True):
        assert 0.5 < colour.contrast(one.background, "#000000") / colour.contrast(other.background, "#000000") < 2


@pytest.mark.parametrize(("above", "below", "rises"), SCALES)
def test_the_sides_differ_for_the_colour_blind(above: tuple[str, ...], below: tuple[str, ...], rises: bool) -> None:
    """Blue against orange: red and green cones see them alike in lightness, the blue ones do not."""
    for one, other in list(zip(colour.shades(above), colour.shades(below), strict=True))[6:]:
        assert int(one.background[5:7], 16) - int(other.background[5:7], 16) > 20


def test_the_indexed_scale_below_zero_rises_and_can_be_read() -> None:
    palette = terminal_style.palette("256")
    lightness = []
    for style in palette.below:
        ink, background = (Color.from_ansi(int(n)).get_truecolor().hex for n in re.findall(r"color\((\d+)\)", style))
        assert colour.contrast(ink, background) >= 4.5
        lightness.append(colour.contrast(background, "#000000"))
    assert lightness == sorted(lightness)
    assert len(set(lightness)) == 9


# --- Numbers and words ----------------------------------------------------------------------------------------------


def test_numbers_below_zero_have_a_minus_sign() -> None:
    assert [wording.score(x, 4) for x in (-0.25, -0.00002, -0.0)] == ["−0.2500", "−2e-05", "0"]
    assert [wording.figure(x) for x in (-0.12345, 0.5, 0.0, -3e-7)] == ["−0.1235", "0.5", "0", "−3e-07"]
    assert wording.uncertainty(-0.5, -0.6, -0.45) == "±1e-1"


@pytest.mark.parametrize(
    ("attribution", "options", "name", "note"),
    [
        (
            "rollout",
            {"measure": "alti", "calibration": "excess"},
            "Rollout on excess ALTI",
            "the product of all layers",
        ),
        ("rollout", {"measure": "attention", "calibration": None}, "Rollout on attention", "no calibration"),
        ("widest_path", {"measure": "alti", "calibration": "excess"}, "Widest path through excess ALTI", "best single"),
        ("raw_attention", {"measure": "attention"}, "Raw attention, last layer", ""),
        ("mean_attention", {"measure": "alti"}, "Raw ALTI, mean over layers", ""),
        ("gradient_x_input", {}, "Gradient × input", "how far each token moves the prediction"),
        ("leave_one_out", {"leave_out": "mask"}, "Leave-one-out", "drops without each token, which is masked"),
        ("leave_one_out", {"leave_out": "delete", "objective": " x"}, "Leave-one-out", "the objective drops without"),
        ("leave_one_out", {"leave_out": "delete"}, "Leave-one-out", "taken out of the text"),
        ("random", {}, "Random", "to compare with"),
        ("combination", {"combination": "a − b\x1b"}, "a − b␛", "sums and differences"),
    ],
)
def test_what_is_no_flow_has_a_name_and_a_note(
    attribution: str, options: dict[str, object], name: str, note: str
) -> None:
    result = no_flow(sample(flows=0), attribution, **options)
    assert wording.method_name(result) == name
    assert note in wording.method_note(result)
    assert "published" not in wording.method_note(result)
    assert ("calibration" in wording.method_note(result)) == (note == "no calibration")


def test_players_have_their_word() -> None:
    assert "without each patch," in wording.method_note(no_flow(image()))
    assert "without each sentence," in wording.method_note(no_flow(sentences(), units="sentences"))
    spans = no_flow(sentences(), units=[[0, 3], [3, 9]])
    assert wording.players_word(spans) == "spans"
    (few,) = wording.caveats(replace(no_flow(sentences(), units="sentences")))
    assert few.text.endswith("looks much like the order of the sentences, or its reverse.")
    words = replace(four(-1, 0, 1, 2), members=[(0,), (1, 2), (3,), (4,)], options={"units": "words"})
    (order,) = wording.caveats(words)
    assert order.title == "This ranking is the order of the words"
    assert "later words score higher" in order.text


def test_nothing_is_certified_where_nothing_flows() -> None:
    flow, other = sample(), no_flow(sample(flows=0))
    assert wording.verified(other) is None
    assert wording.verified_line(other) == "no flow: nothing to certify"
    assert wording.verified(flow, other) is True
    assert wording.verified_line(flow, other).startswith("verified: flow = cut for all 14 solves; ")
    bad = sample(verified=False)
    assert wording.verified(bad, other) is False
    assert wording.verified_line(bad, other).startswith("NOT verified")


def test_equal_scores_are_no_ranking_and_no_missing_flow() -> None:
    assert [caveat.title for caveat in wording.caveats(SIGNED["nothing"])] == ["No ranking"]
    assert wording.widest(SIGNED["one sink"]) == ""
    assert wording.network_size(SIGNED["one sink"]) == ""
    assert "layers" in wording.network_size(no_flow(sample(flows=0), "rollout"))


def test_a_difference_keeps_its_interval() -> None:
    difference = sample(flows=0) - sample(flows=0, seed=1)
    assert wording.widest(difference) == "every score within ±7e-8"
    assert wording.network_size(difference) == ""
    text = html.page(difference)
    assert "<dt>interval</dt>" in text
    assert text.count('class="pm"') == 1 + 14
    assert "Excess ALTI flow − Excess ALTI flow" in text


# --- Pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIGNED)
def test_no_picture_speaks_of_cuts(name: str) -> None:
    result = SIGNED[name]
    page = re.sub(r"<style>.*?</style>", "", html.page(result), flags=re.DOTALL)
    picture = re.sub(r"<style>.*?</style>", "", svg.picture(result), flags=re.DOTALL)
    for text in (page, picture, terminal.render(result, width=100)):
        assert not ABOUT_CUTS.search(text), ABOUT_CUTS.search(text)
        assert "no flow: nothing to certify" in text
        assert "edges;" not in text


@pytest.mark.parametrize("width", [24, 31, 58, 80, 133])
@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("colours", [None, "standard", "256", "truecolor"])
def test_no_line_is_wider_than_the_terminal(name: str, width: int, colours: terminal.ColourSystem | None) -> None:
    text = terminal.render(SIGNED[name], width=width, colours=colours)
    for line in text.splitlines():
        assert cell_len(ESCAPE.sub("", line).rstrip()) <= width, line


@pytest.mark.parametrize("name", SIGNED)
def test_the_svg_stays_inside(name: str) -> None:
    root = ElementTree.fromstring(svg.picture(SIGNED[name]))
    height = float(root.attrib["height"])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, wide, tall = (float(box.attrib.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert -0.1 <= x <= x + wide <= elements.WIDTH + 0.1
        assert -0.1 <= y <= y + tall <= height + 0.1


def test_the_strongest_below_zero_has_the_strongest_orange() -> None:
    result = four(-1.0, 0.5, 0.0, 0.25)
    found = re.findall(r'<span class="t ([hn]\d+)" title="position (\d)', html.fragment(result))
    assert found == [("n24", "0"), ("h12", "1"), ("h0", "2"), ("h6", "3")]
    style = re.findall(r"\.attnflow \.n24 \{ background: (#\w+)", html.fragment(result))
    assert style == [colour.BELOW_LIGHT[-1], colour.BELOW_DARK[-1]]
    assert f".af .n24 {{ fill: {colour.BELOW_LIGHT[-1]} }}" in svg.picture(result)
    assert f"fill: {colour.BELOW_LIGHT[-1]}" in svg.picture(result).split("</style>")[1]
    assert ".n24" not in html.fragment(sample()) + svg.picture(sample())


def test_scales_show_both_ends() -> None:
    result = four(-1.0, 0.5, 0.0, 0.25)
    (scale,) = re.findall(r'<p class="scale"[^>]*>(.*?)</p>', html.fragment(result))
    assert re.sub(r"<[^>]*>", "|", scale).replace("|", "") == "−1  0  1"
    assert re.findall(r"[hn]\d+", scale) == [*(f"n{i}" for i in range(24, 0, -2)), *(f"h{i}" for i in range(0, 25, 2))]
    assert "scale −1 ≡=- 0 ▁▂▃▄▅▆▇█ 1" in terminal.render(result)
    group = ElementTree.Element("g")
    elements.scale(group, 0, 0, 1.0, signed=True)
    assert [text.text for text in group.iter("text")] == ["−1", "0", "1"]
    assert [box.attrib["class"] for box in group.iter("rect")] == re.findall(r"[hn]\d+", scale)
    # All zero: there is no minus nothing.
    assert "scale 0 ≡=- 0" in terminal.render(SIGNED["nothing"])
    assert "−0" not in html.page(SIGNED["nothing"]) + svg.picture(SIGNED["nothing"])


def bars(*results: Attribution) -> list[tuple[str, float, float]]:
    root = ElementTree.fromstring(svg.chart(*results))
    found = [box for box in root.iter("rect") if box.find("title") is not None]
    return [(box.attrib["class"], float(box.attrib["y"]), float(box.attrib["height"])) for box in found]


def test_bars_hang_below_the_axis() -> None:
    (one, top, tall), (two, axis, half), (three, small, quarter) = bars(four(1.0, -0.5, 0.0, 0.25))
    assert (one, two, three) == ("bar", "bar below", "bar")
    assert (half, quarter) == (pytest.approx(tall / 2, abs=0.02), pytest.approx(tall / 4, abs=0.02))
    assert axis == pytest.approx(top + tall, abs=0.1) == pytest.approx(small + quarter, abs=0.1)
    texts = [text.text for text in ElementTree.fromstring(svg.chart(four(1.0, -0.5, 0.0, 0.25))).iter("text")]
    assert {"1", "0", "−0.5"} <= set(texts)
    # Each method has a scale of its own, and flows beside it keep theirs.
    flow = sample(["one", " two", " three", " four"], start_token=False, flows=0)
    beside = bars(flow, four(1.0, -0.5, 0.0, 0.25))
    assert [bar[0] for bar in beside[-3:]] == ["bar", "bar below", "bar"]
    assert max(bar[2] for bar in beside[:-3]) == 92


def test_numbers_at_the_axis_do_not_overlap_and_are_not_cut_off() -> None:
    root = ElementTree.fromstring(svg.chart(four(1.0, -0.01, 0.0, 0.25)))
    assert "−0.01" not in [text.text for text in root.iter("text")]
    root = ElementTree.fromstring(svg.chart(four(0.0012345, -0.0023456, 0.0, 0.0)))
    assert {"0.0012", "−0.002"} <= {text.text for text in root.iter("text")}


def test_bars_of_the_table_point_both_ways() -> None:
    text = html.page(four(-1.0, 0.5, 0.0, 0.25), sample(["one", " two", " three", " four"], start_token=False, flows=0))
    rows = re.findall(r'<tr><td class="at">\d</td>(.*?)</tr>', text, re.DOTALL)
    strips = [re.findall(r'<span class="strip( both)?"><i(?: class="(\w+)")? style="width:([\d.]+)%"', r) for r in rows]
    assert [row[0] for row in strips] == [
        (" both", "below", "50.0"), (" both", "above", "25.0"), (" both", "above", "0"), (" both", "above", "12.5"),
    ]  # fmt: skip
    assert all(row[1][:2] == ("", "") for row in strips)
    assert "<b>−1.000</b>" in rows[0]
    assert text.count('<th scope="col">bottleneck</th>') == 1  # of the flow beside it alone


def test_a_matrix_has_cells_of_both_colours() -> None:
    result = SIGNED["generation"]
    group, _, _ = matrix.draw(result)
    seen = [result.visible(sink) for sink in range(len(result))]
    largest = float(np.abs(result.values).max())
    wanted = [colour.kind(colour.level(v, largest)) for s, m in enumerate(seen) for v in result.values[s][m].tolist()]
    assert [box.attrib["class"].removeprefix("cell ") for box in group.iter("rect")] == wanted
    assert any(step.startswith("n") for step in wanted)
    titles = [title.text or "" for title in group.iter("title")]
    assert any(": −0.0" in title for title in titles)
    assert not any("\n" in title for title in titles)


def test_columns_are_kept_by_strength() -> None:
    result = four(-1.0, 0.5, 0.0, 0.25)
    shown = layout.columns(result, 2)
    assert shown.players == (0, 1)
    assert shown.highest_left_out == 0.25
    said = wording.left_out(result, shown.left_out, shown.highest_left_out)
    assert said == "2 more input tokens have no column: no score of theirs is further from 0 than 0.25"


def test_a_cell_of_several_is_the_one_furthest_from_zero() -> None:
    cells, per = layout.binned(np.array([0.1, -0.5, np.nan, 0.3, np.nan, np.nan, 0.2]), 4)
    assert per == 2
    assert cells.tolist()[:2] == [-0.5, 0.3]
    assert np.isnan(cells[2])
    assert cells[3] == 0.2
    frames, _, _ = grid.draw(SIGNED["recording"])
    assert any(box.attrib["class"].startswith("cell n") for box in frames.iter("rect"))
    assert "a cell is the strongest of" in terminal.render(SIGNED["wide image"], width=40)
    assert "a cell is the strongest of" in terminal.render(SIGNED["recording"], width=40)


def test_without_colours_the_sign_is_seen() -> None:
    lines = terminal.render(four(-1.0, 0.5, -0.4, 0.0), width=80).splitlines()
    at = lines.index("one two three four")
    assert lines[at + 1] == "≡≡≡ ▄▄▄ ====="
    start = next(i for i, line in enumerate(lines) if line.startswith("  token"))
    assert lines[start].split() == ["token", "score"]
    rows = [line.split() for line in lines[start + 1 : start + 5]]
    assert [row[2] for row in rows] == ["−1.000", "0.500", "−0.400", "0"]
    assert rows[0][3] == "-" * 24
    assert rows[1][3] == "█" * 12
    text = terminal.render(SIGNED["generation"], width=200)
    assert re.search(r"^\d \S+ .*(--|==|≡≡)", text, re.MULTILINE)


def test_with_colours_the_strongest_below_zero_is_the_brightest_orange() -> None:
    text = terminal.render(four(-1.0, 0.5, 0.0, 0.25), width=80, colours="truecolor")
    red, green, blue = (int(colour.BELOW_TERMINAL[-1][i : i + 2], 16) for i in (1, 3, 5))
    assert f"48;2;{red};{green};{blue}mone\x1b" in text
    for colours in ("256", "truecolor"):
        tiles = terminal.render(SIGNED["caption"], width=80, colours=colours)  # type: ignore[arg-type]
        assert "▀" in tiles


def test_the_strongest_come_first_whatever_their_sign() -> None:
    result = SIGNED["image"]
    text = html.page(result)
    assert f"The 24 strongest scores of {wording.method_name(result)}." in text
    order = [int(p) for p in re.findall(r'<td class="at">(\d+)</td>', text.split("<details>")[0])]
    assert order == [row.position for row in result.top(24)]
    shown = terminal.render(result, width=80)
    assert "players with weaker scores are not shown" in shown
    steps = html.page(SIGNED["generation"])
    assert "(−)</bdi>" in steps


def test_several_kinds_are_shown_side_by_side() -> None:
    results = (sample(seed=3, flows=0), no_flow(sample(seed=3, flows=0)), no_flow(sample(seed=3, flows=0), "rollout"))
    text = html.page(*results)
    assert text.count('<p class="scale"') == 3
    assert text.count("−0.0") > 0
    assert text.count("<dt>trivial cuts</dt>") == 1
    assert "✓" in text
    assert "Beside it, what is no flow has neither a bottleneck nor a certificate" in text
    lines = terminal.render(*results, width=130).splitlines()
    head = next(line for line in lines if line.startswith("   token"))
    assert head.split() == ["token", "score", "±", "cut", "score", "score"]
    assert "no flow" not in html.page(results[0])


def test_sentences_are_wrapped_and_shortened() -> None:
    result = sentences()
    lines = terminal.render(result, width=60).splitlines()
    assert not any(re.search(r"\bwor?$", line) for line in lines)  # no word is cut in two
    assert "word29 2." in " ".join(lines)
    assert any(line.split()[:2] == ["sentence", "score"] for line in lines)
    text = html.page(result)
    assert '<th scope="col">sentence</th>' in text
    names = re.findall(r'<th scope="row"><bdi>(?:<i.*?</i>)?(.*?)</bdi>', text)
    assert all(elements.cells(name) <= 100 and name.endswith("…") for name in names)
    assert "that one sentence can send" in text
    picture = "".join(ElementTree.fromstring(svg.picture(result)).itertext())
    assert all(f"{n}." in picture for n in range(3))  # to its last word
    assert "limited by the sentence's own or the target's own edges" in picture


def test_an_answer_in_words_is_said_in_one_piece() -> None:
    """Several of its tokens stand in one word, and nothing is missing between them."""
    one = generation()
    merged = replace(one, targets=[14, 15, 15, 16, 17, 18], members=[(p,) for p in range(len(one.tokens))])
    assert layout.said(merged) == layout.said(one) == "He gave it to Mary."
    some = replace(merged, options={"steps": [0, 1, 2, 4, 5, 6]})
    assert layout.said(some) == "He gave it … to Mary."


def test_a_table_has_no_bottlenecks_where_nothing_flows() -> None:
    pytest.importorskip("pandas")
    assert "bottleneck" in sample().to_pandas()
    frame = no_flow(sample(flows=0)).to_pandas()
    assert "bottleneck" not in frame
    assert (frame["score"] < 0).any()
