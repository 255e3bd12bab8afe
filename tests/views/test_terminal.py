"""The terminal view: everything it must say, in every width, with and without colours."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from samples import HOSTILE, caption, generation, image, recording, sample, translation

pytest.importorskip("rich")

from rich.cells import cell_len
from rich.color import Color

from attnflow import views
from attnflow.errors import InvalidArgumentError, MissingDependencyError
from attnflow.views import terminal, terminal_style
from attnflow.views.colour import contrast

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def test_it_says_all_that_a_reader_must_know() -> None:
    text = terminal.render(sample(seed=3), sample(plain=True), width=100)
    for said in (
        "SmolLM2-135M-Instruct",
        "predicted     Mary  92.0%",
        "next token after ' to' (position 14)",
        "network      12 layers, 195 nodes, 1\u202f440 edges; 14 players",
        "Excess ALTI flow",
        "Plain attention flow  the published method",
        "Spearman +0.22, 5% of the rank variance",
        "Spearman −1.00, 100% of the rank variance",
        "31% of the scores",
        "433 ms: capture 410 ms, network 20 ms, kernel 3 ms",
        "every score certified to ±4e-8",
        "independent maximum flows: from each player alone",
        "! This ranking is the order of the tokens.",
        "verified: flow = cut for all 28 solves",
    ):
        assert said in text, said


def test_the_table_has_a_line_for_every_player_with_both_methods() -> None:
    mine, published = sample(seed=3), sample(plain=True)
    lines = terminal.render(mine, published, width=100).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("   token"))
    for line, one, other in zip(lines[start + 1 :], mine.rows(), published.rows(), strict=False):
        position, token, *_ = line.split()
        assert (int(position), token) == (one.position, one.token.strip())
        assert f"{other.score:.4f}" in line
        assert line.rstrip().endswith(other.bottleneck)
        assert one.bottleneck in line


def test_a_column_of_intervals_only_where_there_is_something_to_say() -> None:
    exact = sample(seed=3)
    text = terminal.render(sample(seed=3, lower=exact.values, upper=exact.values), width=100)
    assert "±" not in text
    assert "every score exact" in text
    assert terminal.render(sample(seed=3), width=100).count("±") == 2 + 14


def test_bars_are_as_long_as_their_scores() -> None:
    values = np.array([[0.0, 0.25, 0.5, 1.0]])
    result = sample(
        ["a", " b", " c", " d"], values=values, lower=values, upper=values, bottlenecks=[[-3, 0, 0, 0]], flows=0
    )
    lines = terminal.render(result, width=80).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  token"))
    bars = [line.count("█") for line in lines[start + 1 : start + 5]]
    assert bars == [0, 6, 12, 24]


def test_the_plain_heatmap_puts_bars_beneath_words() -> None:
    values = np.array([[1.0, 0.0, 0.5]])
    result = sample(["ab", " cd", " efg"], start_token=False, values=values, lower=values, upper=values, flows=0)
    lines = terminal.render(result, width=80).splitlines()
    at = lines.index("ab cd efg")
    assert lines[at + 1] == "██    ▅▅▅".replace("▅", lines[at + 1][-1])
    assert lines[at + 1][-1] in "▃▄▅▆"


@pytest.mark.parametrize("width", [24, 30, 40, 57, 58, 59, 60, 72, 80, 81, 100, 133, 200])
@pytest.mark.parametrize("tokens", [None, HOSTILE, [f" tok{i}" for i in range(300)], ["漢" * 90, " x"], ["one"]])
@pytest.mark.parametrize("colours", [None, "standard", "256", "truecolor"])
def test_no_line_is_wider_than_the_terminal(width: int, tokens: list[str] | None, colours: Any) -> None:
    text = terminal.render(sample(tokens), sample(tokens, plain=True), width=width, colours=colours)
    for line in text.splitlines():
        plain = ESCAPE.sub("", line)
        # Tabs and joined emoji aside, a cell is a cell; rich itself may keep one blank at the end of a wrapped line.
        assert cell_len(plain.rstrip()) <= width, plain


def test_without_colours_there_is_no_escape_code() -> None:
    assert "\x1b" not in terminal.render(sample(HOSTILE), sample(HOSTILE, plain=True), width=80)


def test_colours_come_only_from_us() -> None:
    text = terminal.render(sample(HOSTILE), width=80, colours="truecolor")
    assert "\x1b" not in ESCAPE.sub("", text)
    assert "␛[31mred" in text
    assert "\u202e" not in text


def test_markup_and_emoji_names_in_tokens_stay_as_they_are() -> None:
    text = ESCAPE.sub("", terminal.render(sample(HOSTILE), width=120, colours="truecolor"))
    assert text.count("[bold]x[/bold]") == 2  # in the heatmap and in the table
    assert text.count(":smile:") == 2


def test_the_strongest_token_has_the_brightest_background() -> None:
    result = sample(seed=3)
    strongest = result.top(1)[0].token.strip()
    text = terminal.render(result, width=100, colours="truecolor")
    assert re.search(rf"48;2;227;243;255m{strongest}\x1b", text)


def test_the_indexed_scale_rises_and_can_be_read() -> None:
    palette = terminal_style.palette("256")
    assert palette.shades is not None
    lightness = []
    for style in palette.shades:
        ink, background = (Color.from_ansi(int(n)).get_truecolor().hex for n in re.findall(r"color\((\d+)\)", style))
        assert contrast(ink, background) >= 4.5
        lightness.append(contrast(background, "#000000"))
    assert lightness == sorted(lightness)
    assert len(set(lightness)) == 12


def test_long_tables_are_cut_to_the_highest_scores() -> None:
    result = sample([f" tok{i}" for i in range(300)])
    text = terminal.render(result, width=80, limit=20)
    assert "… 280 players with lower scores are not shown" in text
    table = text[text.index("   token") :]
    assert {row.token.strip() for row in result.top(20)} == set(re.findall(r"tok\d+", table))
    assert "not shown" not in terminal.render(result, width=80, limit=None)


MANY: dict[str, Any] = {
    "generation": generation(),
    "hostile generation": generation(HOSTILE, HOSTILE[:9]),
    "long generation": generation([f" tok{i}" for i in range(150)], [f" word{i}" for i in range(120)]),
    "wide generation": generation(["漢" * 200, " x"], ["漢" * 90, "x" * 200, " y"]),
    "translation": translation(),
    "hostile translation": translation(HOSTILE, HOSTILE[::-1], link_names=HOSTILE),
    "one step of a translation": translation(steps=1),
    "image": image(),
    "strip of an image": image(3, 90),
    "caption": caption(),
    "captions": caption(50, 50, ["x", " y"]),
    "recording": recording(),
    "short recording": recording(9, ["a", " b"]),
}


@pytest.mark.parametrize("width", [24, 31, 40, 58, 80, 133])
@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("colours", [None, "standard", "256", "truecolor"])
def test_no_line_of_any_result_is_wider_than_the_terminal(name: str, width: int, colours: Any) -> None:
    text = terminal.render(MANY[name], width=width, colours=colours)
    for line in text.splitlines():
        assert cell_len(ESCAPE.sub("", line).rstrip()) <= width, line
    assert "\x1b" not in ESCAPE.sub("", text)
    if colours is None:
        assert "\x1b" not in text


def test_several_targets_are_a_matrix_with_the_facts_once() -> None:
    one = sample()
    six = {name: np.repeat(getattr(one, name), 6, axis=0) for name in ("values", "lower", "upper", "bottlenecks")}
    text = terminal.render(sample(targets=list(range(9, 15)), flows=0, **six), width=80)
    for said in ("target  ", "by position", "interval  ", "network  ", "independent maximum flows"):
        assert text.count(said) == 1, said
    assert "what each target drew on most" in text
    assert "all 84 solves" in text


def test_a_generation_is_steps_by_tokens() -> None:
    result = generation()
    lines = terminal.render(result, width=200).splitlines()
    assert "said         He gave it to Mary." in lines
    head = next(i for i, line in enumerate(lines) if "prompt" in line and "generated" in line)
    names = lines[head + 1]
    highest = result.values.max()
    for sink, line in enumerate(lines[head + 2 : head + 8]):
        step, token, share, *_ = line.split()
        assert (int(step), token) == (sink + 1, result.sink_labels[sink].strip())  # type: ignore[index]
        assert share == f"{result.predictions[sink][1]:.1%}"  # type: ignore[index]
        # Every cell stands under its token: a dot for nothing, a blank for what comes later, else a bar.
        at = names.index("When")
        for i, position in enumerate(result.players.tolist()):
            said = line[at : at + 1] or " "
            value, seen = result.values[sink, i], result.visible(sink)[i]
            assert said == (" " if not seen else "·" if value == 0 else said)
            assert (said in "▁▂▃▄▅▆▇█") == bool(seen and value > 0)
            assert (said == "█") == (value > 0.94 * highest) or value > 0.8 * highest
            following = result.tokens[position + 1].strip() if position + 1 < len(result.tokens) else ""
            at = names.index(following, at + max(2, len(result.tokens[position].strip()))) if following else at
    assert lines[head + 10] == "what each step drew on most"
    best = result.top(3, 0)
    assert [row.token.strip() for row in best] == lines[head + 11].split()[3::2]


def test_a_long_matrix_counts_what_it_leaves_out() -> None:
    text = terminal.render(MANY["long generation"], width=80)
    said = re.search(r"… (\d+) more input tokens have no column: no score of theirs is above ([\d.]+)", text)
    assert said is not None
    result = MANY["long generation"]
    shown = len(result.players) - int(said[1])
    assert float(said[2]) == pytest.approx(np.sort(result.values.max(axis=0))[::-1][shown], rel=5e-3)
    assert "… 60 more steps are not shown" in text
    assert len(text.splitlines()) < 170
    everything = terminal.render(MANY["long generation"], width=80, limit=None)
    assert "have no column" not in everything
    assert "more steps" not in everything


def test_a_matrix_is_shaded_where_there_are_colours() -> None:
    text = terminal.render(generation(), width=120, colours="truecolor")
    assert "▁" not in text
    assert text.count("48;2;227;243;255m") == 2  # the strongest cell, and the end of the scale


def test_source_and_decoder_are_apart() -> None:
    for colours in (None, "truecolor"):
        text = ESCAPE.sub("", terminal.render(translation(steps=1), width=80, colours=colours))  # type: ignore[arg-type]
        assert text.count("source: what the encoder read") == 2  # over the text and in the table
        assert text.count("decoder: what it read and said") == 2
        assert "The keys to the cabinet are on the table.</s>" in text
        assert "<pad>Die Schlüssel" in text


def test_an_answer_that_was_given_is_not_called_the_models() -> None:
    shown = terminal.render(generation(options={"generated": False}), width=80)
    assert "made to say  He gave it to Mary." in shown
    assert "said         He" not in shown


def test_a_link_keeps_its_number() -> None:
    names = [f"{name} {n}" for n in (3, 12) for name in ("encoder layer", "residual of cross-attention")]
    one = translation(steps=1)
    cuts = np.arange(one.players.size)[None] % len(names)
    shown = terminal.render(replace(one, link_names=(*names, *"abcdefghijklmn"), bottlenecks=cuts), width=80)
    for cut in ("encoder layer 3", "encoder layer 12", "residual of cro… 3", "residual of cr… 12"):
        assert re.search(rf" {cut}$", shown, re.MULTILINE), cut


def test_an_image_is_a_table_of_cells_and_its_best_come_first() -> None:
    result = image()
    lines = terminal.render(result, width=80).splitlines()
    at = lines.index("image, 14 × 14 patches")
    cells = result.on_grid()
    for row in range(14):
        line = lines[at + 2 + row]
        assert line.startswith(f"{row:>2} ")
        for column in range(14):
            said = line[3 + 2 * column : 5 + 2 * column].ljust(2)
            assert (said == "· ") == (cells[row, column] == 0)
    table = next(i for i, line in enumerate(lines) if "token" in line and "score" in line)
    assert [int(line.split()[0]) for line in lines[table + 1 : table + 17]] == [row.position for row in result.top(16)]
    assert "… 180 players with lower scores are not shown" in lines


def test_an_image_wider_than_the_terminal_says_what_a_cell_is() -> None:
    narrow = " ".join(terminal.render(MANY["strip of an image"], width=30).split())
    assert "a cell is the highest of 4 × 4 patches" in narrow
    assert "a cell is the highest of" not in terminal.render(image(), width=80)
    assert "a cell is the highest of 24 frames" in terminal.render(recording(), width=80)


def test_half_blocks_hold_two_rows_of_a_small_image() -> None:
    text = terminal.render(caption(), width=80, colours="truecolor")
    assert "▀" in text
    assert "▀" not in terminal.render(caption(), width=80)
    many = terminal.render(caption(3, 3, [f" w{i}" for i in range(30)]), width=80)
    assert "… 18 more steps have no image here" in many


def test_several_steps_can_be_compared() -> None:
    text = terminal.render(generation(), generation(seed=1, options={"measure": "attention"}), width=100)
    assert text.count("what each step drew on most") == 2
    assert "Plain attention flow" in text
    assert "all 228 solves" in text


def test_results_of_other_tokens_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="same tokens"):
        terminal.render(sample(), sample(["x"]))


# --- show() ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def colourful(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("COLUMNS", "90")
    return monkeypatch


def test_show_colours_a_terminal(colourful: pytest.MonkeyPatch) -> None:
    views.show(sample(), file=(out := Terminal()))
    assert "\x1b[" in out.getvalue()


def test_show_honours_no_color(colourful: pytest.MonkeyPatch) -> None:
    colourful.setenv("NO_COLOR", "1")
    views.show(sample(), file=(out := Terminal()))
    assert "\x1b" not in out.getvalue()
    assert "▁" in out.getvalue()


def test_show_is_plain_in_a_pipe(colourful: pytest.MonkeyPatch) -> None:
    views.show(sample(), file=(out := io.StringIO()))
    assert "\x1b" not in out.getvalue()


def test_show_survives_an_encoding_without_the_characters() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as out:
        views.show(sample(HOSTILE), file=out)
        out.flush()
        assert b"verified: flow = cut" in raw.getvalue()


def test_show_prints_to_where_standard_output_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    sample().show(compare=[sample(plain=True)])
    assert "all 28 solves" in capsys.readouterr().out


def test_show_in_a_notebook_displays_html(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    shown: list[dict[str, str]] = []
    display = SimpleNamespace(display=lambda data, raw: shown.append(data))
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    sample().show()
    assert shown[0]["text/html"].startswith("<article")
    assert capsys.readouterr().out == ""


def test_show_in_ipython_without_a_notebook_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    sample().show()
    assert "all 14 solves" in capsys.readouterr().out


def test_a_missing_rich_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "attnflow.views.terminal")
    monkeypatch.delattr(views, "terminal")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(MissingDependencyError, match=r"attnflow\[views\]"):
        sample().show()
