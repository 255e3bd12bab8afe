"""The SVG pictures: well-formed, complete, in bounds, and true to the flow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from samples import HOSTILE, caption, generation, image, recording, sample, translation

from attnflow.attribution import Attribution, PairFlow
from attnflow.views import colour, grid, layout, matrix, ribbons, svg
from attnflow.views.elements import WIDTH, breadth, cells, shorten, within

NAMESPACE = "{http://www.w3.org/2000/svg}"
CASES: dict[str, Attribution] = {
    "usual": sample(seed=3, n_layers=30),
    "two flows": sample(seed=4, flows=2),
    "no flows": sample(flows=0),
    "published": sample(plain=True),
    "encoder": sample(kind="encoder", start_token=False, flows=1),
    "hostile": sample(HOSTILE, flows=3, n_layers=4),
    "long": sample([f" tok{i}" for i in range(300)], flows=1),
    "one token": sample(["one"], start_token=False, n_layers=1, flows=1),
    "wide": sample(["漢" * 200, " " + "x" * 500], flows=1),
    "many layers": sample(n_layers=200, flows=1),
    "generation": generation(),
    "hostile generation": generation(HOSTILE, HOSTILE[:9]),
    "long generation": generation([f" tok{i}" for i in range(150)], [f" word{i}" for i in range(120)]),
    "wide generation": generation(["漢" * 200, " x"], ["漢" * 90, "x" * 200, " y"]),
    "translation": translation(),
    "hostile translation": translation(HOSTILE, HOSTILE[::-1], link_names=HOSTILE),
    "one step of a translation": translation(steps=1),
    "image": image(),
    "strip of an image": image(3, 90),
    "large image": image(60, 40),
    "caption": caption(),
    "recording": recording(),
    "short recording": recording(9, ["a", " b"]),
    "nothing": sample(values=np.zeros((1, 14)), lower=np.zeros((1, 14)), upper=np.zeros((1, 14)), flows=0),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_well_formed_and_stays_inside(name: str) -> None:
    root = ElementTree.fromstring(svg.picture(CASES[name]))
    assert root.tag == f"{NAMESPACE}svg"
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert (width, height) == (WIDTH, float(root.attrib["height"]))
    for group in root.iter(f"{NAMESPACE}g"):
        for element in group:
            for edge, size, limit in (("x", "width", width), ("y", "height", height)):
                if element.tag == f"{NAMESPACE}rect":
                    at = float(element.attrib[edge])
                    assert -0.1 <= at <= at + float(element.attrib[size]) <= limit + 0.1
            if element.tag == f"{NAMESPACE}line":
                assert all(0 <= float(element.attrib[x]) <= width for x in ("x1", "x2"))


@pytest.mark.parametrize("name", CASES)
def test_it_loads_nothing_and_runs_nothing(name: str) -> None:
    text = svg.picture(CASES[name])
    addresses = re.findall(r"https?://[^\"'\s<]+", text)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}
    for element in ElementTree.fromstring(text).iter():
        tag = element.tag.removeprefix(NAMESPACE)
        assert tag in {"svg", "style", "g", "rect", "line", "text", "path", "circle", "title"}
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name]


def test_hostile_tokens_are_text() -> None:
    root = ElementTree.fromstring(svg.picture(CASES["hostile"]))
    texts = "".join(root.itertext())
    assert "<script>alert(1)</script>" in texts
    assert "</style>" in texts


def drawn(pair: PairFlow, result: Attribution) -> Any:
    return ribbons.draw(result, pair)[0]


def test_a_ribbon_is_as_thick_as_its_flow() -> None:
    flow = PairFlow(1, [0, 0, 1, 1], [1, 2, 2, 2], [1, 1, 1, 2], [3.0, 1.0, 3.0, 1.0], cut=[True, False, False, False])
    values = np.array([[0.0, 4.0, 0.0]])
    result = sample(
        ["a", " b", " c"], start_token=False, n_layers=2, values=values, lower=values, upper=values, flows=[flow],
        bottlenecks=[[-3, 0, -3]],
    )  # fmt: skip
    group = drawn(flow, result)
    thickness = {}
    for path in group.iter("path"):
        start, under = re.fullmatch(r"M[\d.]+ ([\d.]+)C.*?V.*C.* ([\d.]+)Z", path.attrib["d"]).groups()  # type: ignore[union-attr]
        thickness[path.find("title").text.split(",")[0]] = (float(under) - float(start), path.attrib["class"])
    full = 24 * 0.86
    assert thickness == {
        "layer 1: 1 b → 1 b: 3": (pytest.approx(full * 3 / 4, abs=0.11), "cut"),
        "layer 1: 1 b → 2 c: 1": (pytest.approx(full / 4, abs=0.11), "ribbon"),
        "layer 2: 1 b → 2 c: 3": (pytest.approx(full * 3 / 4, abs=0.11), "ribbon"),
        "layer 2: 2 c → 2 c: 1": (pytest.approx(full / 4, abs=0.11), "ribbon"),
    }
    bands = [rect for rect in group.iter("rect") if rect.attrib["class"] == "band"]
    assert len(bands) == 1
    nodes = [float(rect.attrib["height"]) for rect in group.iter("rect") if rect.attrib["class"] == "node"]
    assert sorted(nodes) == pytest.approx([full / 4, full * 3 / 4, full, full], abs=0.01)


@pytest.mark.parametrize(("code", "rings", "bands"), [(-1, 1, 0), (-2, 1, 0), (3, 0, 1)])
def test_what_limits_is_marked(code: int, rings: int, bands: int) -> None:
    result = sample(seed=3, bottlenecks=np.full((1, 14), code))
    assert result.flows is not None
    group = drawn(result.flows[0], result)
    assert len(list(group.iter("circle"))) == rings
    assert len([rect for rect in group.iter("rect") if rect.attrib["class"] == "band"]) == bands


def test_the_mean_over_positions_has_a_row_of_its_own() -> None:
    flow = PairFlow(0, [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5])
    values = np.array([[1.0, 0.0]])
    result = sample(
        ["a", " b"], start_token=False, kind="encoder", n_layers=1, targets=[(0, 1)], values=values, lower=values,
        upper=values, bottlenecks=[[1, -3]], flows=[flow], prediction=None,
    )  # fmt: skip
    texts = list(drawn(flow, result).itertext())
    assert texts.count("mean") == 2  # its row, and its place behind the last layer
    assert "layer 1" in texts
    assert not any("layer 2" in text for text in texts)
    assert any("mean over positions" in text for text in texts)


def test_notes_that_find_no_room_are_left_out_and_not_cut_off() -> None:
    options = {"measure": "attention_x_gradient", "calibration": "excess", "receptive_field": True}
    picture = ElementTree.fromstring(svg.chart(sample(options=options)))
    (said,) = [text.text or "" for text in picture.iter("text") if "rank variance" in (text.text or "")]
    assert said.startswith("divided by receptive fields · Spearman")
    assert len(said) < 100


def test_what_is_not_drawn_is_counted() -> None:
    n = 120
    flow = PairFlow(0, [0] * n + [1] * n, [*range(n), *[n - 1] * n], [*[0] * n, *range(n)], [1.0] * (2 * n))
    values = np.zeros((1, n))
    values[0, 0] = n
    tokens = [f" t{i}" for i in range(n)]
    result = sample(
        tokens, start_token=False, n_layers=2, values=values, lower=values, upper=values, flows=[flow],
        bottlenecks=np.zeros((1, n)).astype(int),
    )  # fmt: skip
    texts = list(drawn(flow, result).itertext())
    assert any(text.startswith(f"{n - 44} more positions") for text in texts)


def test_an_empty_flow_draws() -> None:
    flow = PairFlow(1, [], [], [], [])
    assert "none" not in svg.flow(sample(flows=[flow]), flow)


def test_the_chart_has_a_bar_for_every_score() -> None:
    result = sample(seed=3)
    root = ElementTree.fromstring(svg.chart(result, sample(plain=True)))
    bars = [rect for rect in root.iter("rect") if rect.find("title") is not None]
    assert len(bars) == int((result.values > 0).sum()) + 14
    assert sum(bar.attrib["class"] == "trivial" for bar in bars) == 14 + int((result.bottlenecks == -1).sum())


def levels(group: Any) -> list[int]:
    return [int(r.attrib["class"].removeprefix("cell h")) for r in group.iter("rect") if "cell" in r.attrib["class"]]


def test_the_matrix_has_a_cell_for_what_a_step_can_see() -> None:
    result = generation()
    group, height, width = matrix.draw(result)
    seen = [result.visible(sink) for sink in range(6)]
    highest = float(result.values.max())
    wanted = [colour.level(v, highest) for s, mask in enumerate(seen) for v in result.values[s][mask].tolist()]
    assert levels(group) == wanted
    assert width <= WIDTH
    names = [text.text for text in group.iter("text") if "rotate" in text.attrib.get("transform", "")]
    assert names == [result.tokens[p].strip() for p in result.players]
    assert [t.text for t in group.iter("text") if t.text in ("prompt", "generated")] == ["prompt", "generated"]
    assert float(height) > 6 * 20


def test_source_and_decoder_columns_have_a_gap_between_them() -> None:
    group, _, _ = matrix.draw(translation())
    at = sorted({float(r.attrib["x"]) for r in group.iter("rect")})
    steps = np.diff(at)
    assert steps.max() > 1.5 * steps.min()
    assert int((steps > 1.5 * steps.min()).sum()) == 1


def test_a_matrix_says_what_it_leaves_out() -> None:
    result = CASES["long generation"]
    group, _, width = matrix.draw(result)
    said = [text.text or "" for text in group.iter("text")]
    assert any(re.match(r"\d+ more input tokens have no column: no score of theirs is above", text) for text in said)
    assert "20 more steps are in the result and not drawn" in said
    assert width <= WIDTH


def test_an_image_has_a_cell_a_player_and_none_elsewhere() -> None:
    full = image(4, 5)
    part = image(4, 5, players=full.players[::2], **{
        name: getattr(full, name)[:, ::2] for name in ("values", "lower", "upper", "bottlenecks")
    })  # fmt: skip
    assert len(levels(grid.draw(full)[0])) == 20
    assert len(levels(grid.draw(part)[0])) == 10
    brightest = max(grid.draw(full)[0].iter("rect"), key=lambda r: r.attrib["class"] == "cell h24")
    row, column = np.unravel_index(int(np.argmax(full.values)), (4, 5))
    said = brightest.find("title")
    assert said is not None
    assert (said.text or "").startswith(f"row {row}, column {column}: ")


def test_several_images_are_one_a_step() -> None:
    assert len(grid.tiles(caption())) == 6
    assert len(levels(grid.draw(caption())[0])) == 6 * 49
    many = caption(3, 3, [f" w{i}" for i in range(30)])
    assert grid.left_out(many) == "6 more steps are in the result and not drawn"
    assert len(grid.tiles(many)) == grid.MOST_TILES


def test_a_recording_in_fewer_cells_than_frames_says_so() -> None:
    group, _, width = grid.draw(recording(1500))
    assert "frame; a cell is the highest of 8 frames" in [text.text for text in group.iter("text")]
    assert width <= WIDTH + 16
    assert max(levels(group)) == colour.LEVELS
    short = [text.text for text in grid.draw(recording(12))[0].iter("text")]
    assert "frame" in short


def test_an_image_has_no_chart() -> None:
    assert not svg.has_chart(image())
    assert svg.has_chart(recording(12))
    assert "limited between the layers" not in svg.picture(image())


def test_pictures_of_a_result_without_columns() -> None:
    only = caption().source
    assert only is not None
    assert layout.columns(only).players == ()
    assert svg.steps(only) == ""
    ElementTree.fromstring(svg.picture(only))


def test_text_is_measured_and_shortened() -> None:
    assert cells("漢a\u0301") == 3
    assert shorten("abcdef", 4) == "abc…"
    assert cells(shorten("漢字漢字", 4)) <= 4
    assert shorten("abcd", 4) == "abcd"
    assert breadth("mm") > breadth("ii")
    assert breadth("word", strong=True) > breadth("word")
    assert within("word", 100) == "word"
    assert within("W" * 20, 60) == "WWWW…"
    assert within("漢", 1) == "…"


def test_saving(tmp_path: Path) -> None:
    path = sample().save(tmp_path / "x.svg", compare=[sample(plain=True)])
    ElementTree.parse(path)
    assert "the published method" in path.read_text(encoding="utf-8")
