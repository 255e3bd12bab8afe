"""The page: complete, self-contained, safe with hostile tokens; in a real browser nothing overlaps or is fetched."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from samples import HOSTILE, caption, generation, image, no_flow, recording, sample, sentences, translation

pytest.importorskip("jinja2")

from attnflow import views
from attnflow.attribution import Attribution
from attnflow.errors import InvalidArgumentError, MissingDependencyError
from attnflow.views import colour, html

CASES: dict[str, tuple[Attribution, ...]] = {
    "usual": (sample(seed=3, n_layers=30), sample(plain=True, n_layers=30)),
    "hostile": (sample(HOSTILE, flows=2, n_layers=6), sample(HOSTILE, plain=True)),
    "long": (sample([f" tok{i}" for i in range(300)]), sample([f" tok{i}" for i in range(300)], plain=True)),
    "encoder": (sample(kind="encoder", start_token=False, prediction=None),),
    "one long token": (sample(["漢" * 300, " " + "x" * 500]),),
    "right to left": (sample(["שלום", " עולם", " مرحبا", " بالعالم"], start_token=False),),
    "generation": (generation(), generation(seed=1, options={"measure": "attention"})),
    "hostile generation": (generation(HOSTILE, HOSTILE[:9]),),
    "long generation": (generation([f" tok{i}" for i in range(150)], [f" word{i}" for i in range(120)]),),
    "wide letters": (
        generation([" WWWWWWWWWW", " mmmm"], [" mm", " WWWWWWWWWWWW", " MMMMMMMMMMMMMMMM", " HEADQUARTERS"]),
    ),
    "translation": (translation(),),
    "long translation": (translation([*"CC(=O)Nc1ccc(O)cc1"], [*"CC(=O)Nc1ccc(OC)cc1"]),),
    "hostile translation": (translation(HOSTILE, HOSTILE[::-1], link_names=HOSTILE),),
    "one step of a translation": (translation(steps=1),),
    "image": (image(), image(seed=1)),
    "large image": (image(40, 30),),
    "caption": (caption(),),
    "recording": (recording(),),
    "short recording": (recording(9, ["a", " b"]),),
    "recording in wide letters": (recording(40, [" mm", " WWWWWWWWWWWW"]),),
    "below zero": (sample(seed=3), no_flow(sample(seed=3, flows=0)), no_flow(sample(seed=3, flows=0), "rollout")),
    "generation below zero": (no_flow(generation(), "gradient_x_input"),),
    "image below zero": (no_flow(image()),),
    "sentences": (sentences(), no_flow(sentences(), units="sentences")),
    "nothing": (sample(values=np.zeros((1, 14)), lower=np.zeros((1, 14)), upper=np.zeros((1, 14)), flows=0),),
}


class Page(HTMLParser):
    """The tags of a page, whether they nest, and its text without style sheets."""

    VOID = frozenset({"meta", "br", "link", "hr", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_well_formed_and_self_contained(name: str) -> None:
    text = html.page(*CASES[name])
    page = Page(text)
    used = {tag for tag, _ in page.tags}
    assert not used & {"script", "img", "iframe", "link", "object", "embed", "form", "a", "base", "audio", "video"}
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on") or key in ("href", "src", "srcset", "action")], (
            tag
        )
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    # An address may be shown if a token spells one, and is in no place where a browser would follow it.
    assert "://" not in style
    assert "default-src 'none'" in text


def test_it_says_all_that_a_reader_must_know() -> None:
    text = Page(html.page(*CASES["usual"])).text
    for said in (
        "SmolLM2-135M-Instruct",
        "predicted Mary 92.0%",
        "next token after ' to' (position 14)",
        "30 layers, 465 nodes, 3 600 edges; 14 players",
        "time433 ms",
        "✓ verified: flow = cut for all 28 solves",
        "Plain attention flow the published method",
        "Spearman −1.00, 100% of the rank variance",
        "This ranking is the order of the tokens.",
        "100% of the scores",
        "independent maximum flows: from each player alone",
        "calibrationexcessnone",
        "time: capture410 ms410 ms",
    ):
        assert said in text, said


def test_every_score_is_in_the_table() -> None:
    mine, published = CASES["usual"]
    page = html.page(mine, published)
    rows = re.findall(r'<tr><td class="at">(\d+)</td><th scope="row">(.*?)</th>(.*?)</tr>', page, re.DOTALL)
    assert [int(row[0]) for row in rows] == mine.players.tolist()
    for (_, _, cells), one, other in zip(rows, mine.rows(), published.rows(), strict=True):
        assert re.findall(r'class="limit[^"]*">(.*?)<', cells) == [one.bottleneck, other.bottleneck]
        assert f"{other.score:.4f}" in cells


def test_a_column_of_intervals_only_where_there_is_something_to_say() -> None:
    exact = sample(seed=3)
    exact = sample(seed=3, lower=exact.values, upper=exact.values)
    assert "±" not in html.page(exact)
    assert "every score exact" in html.page(exact)
    assert html.page(exact, sample(seed=3)).count('class="pm"') == 2 + 2 * 14


def test_the_heatmap_gives_the_highest_score_the_strongest_shade() -> None:
    result = sample(seed=3)
    best = result.top(1)[0]
    (token,) = re.findall(r'<span class="t h24" title="position (\d+)', html.fragment(result))
    assert int(token) == best.position


def test_long_tables_are_folded_and_their_best_come_first() -> None:
    mine, _ = CASES["long"]
    text = html.page(mine)
    unfolded, folded = text.split("<details>")
    shown = [int(p) for p in re.findall(r'<td class="at">(\d+)</td>', unfolded)]
    assert shown == [row.position for row in mine.top(24)]
    assert len(re.findall(r'<td class="at">', folded)) == 300


@pytest.mark.parametrize("name", ["hostile", "hostile generation", "hostile translation"])
def test_hostile_tokens_are_text_and_nothing_else(name: str) -> None:
    text = html.page(*CASES[name])
    assert "<script" not in text
    assert text.count("</style>") == 2
    shown = Page(text).text
    for said in (
        "<script>alert(1)</script>",
        "{{ 7*7 }}",
        "{% raw %}",
        "]]>",
        "-->",
        '"quoted"',
        "&amp;",
        "‹U+202E›evil",
    ):
        assert said in shown, said
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "\x00" not in text


def test_hostile_words_around_the_tokens_are_text_too() -> None:
    bad = "<script>alert(1)</script>"
    result = sample(
        prediction=(bad, 0.5), target_label=bad, definition=bad, options={"model": bad, bad: [bad]}, timings={bad: 1.0}
    )
    text = html.page(result)
    assert "<script" not in text
    assert Page(text).text.count(bad) >= 7


def test_what_was_not_verified_is_not_called_verified() -> None:
    text = Page(html.page(sample(verified=False))).text
    assert "✕ NOT verified" in text
    assert "✓" not in text


def test_several_targets_are_a_matrix_and_have_details_each() -> None:
    one = sample()
    many = {name: np.repeat(getattr(one, name), 14, axis=0) for name in ("values", "lower", "upper", "bottlenecks")}
    text = html.page(sample(targets=list(range(1, 15)), flows=0, **many))
    assert "What each target drew on" in text
    assert text.count('<details class="step">') == 14
    # A decoder's position sees what stands before it: a triangle of cells.
    assert len(re.findall(r'<rect class="cell ', text)) == 14 * 15 // 2


def test_a_generation_shows_what_was_said_and_the_matrix_first() -> None:
    result = generation()
    text = html.page(result)
    page = Page(text)
    assert "said He gave it to Mary." in page.text
    assert text.count("How to read this") == 1
    assert text.count("explained by position alone</dt>") == 1  # once, not once a step
    assert text.index('class="cell') < text.index("<details")
    titles = re.findall(r"<title>(\d+) (\S+) ← (\d+) (\S+): ([\d.e-]+)\n", text)
    assert len(titles) == sum(int(result.visible(sink).sum()) for sink in range(6))
    step, said, position, token, value = titles[20]
    row = next(row for row in result.rows(int(step) - 1) if row.position == int(position))
    assert (said, token) == (result.sink_labels[int(step) - 1].strip(), row.token.strip())  # type: ignore[index]
    assert value == f"{row.score:.4g}"


def test_details_of_a_step_end_with_what_it_sees() -> None:
    first = html.page(generation()).split('<details class="step">')[1]
    assert "gave" in first
    assert "He</span>" not in first
    assert "position 15" not in first


def test_a_long_generation_stays_a_page_and_says_what_it_lacks() -> None:
    (result,) = CASES["long generation"]
    text = html.page(result)
    assert len(text) < 8e6
    assert "20 more steps are in the result and not drawn" in text
    assert re.search(r"\d+ more input tokens have no column: no score of theirs is above [\d.]+", text)
    assert "steps are in the result and have no details on this page" in text


def test_source_and_decoder_have_headings_of_their_own() -> None:
    text = html.page(translation(steps=1))
    for heading in ("source: what the encoder read", "decoder: what it read and said"):
        assert f"<h4>{heading}</h4>" in text
        assert re.search(rf'<tr class="part"><th colspan="5" scope="rowgroup">{heading}</th></tr>', text)


def test_cells_of_pictures_have_the_scale_of_light_and_of_dark_pages() -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", html.fragment(generation()), re.DOTALL)
    *_, dark = style.split("@media (prefers-color-scheme: dark)")
    for part, stops in ((style.removesuffix(dark), colour.LIGHT), (dark, colour.DARK)):
        for step, shade in enumerate(colour.shades(stops)):
            rule = (
                f".attnflow .h{step} {{ background: {shade.background}; color: {shade.ink}; fill: {shade.background} }}"
            )
            assert rule in part


def test_an_image_is_its_cells() -> None:
    result = image(3, 5)
    text = html.page(result)
    assert len(re.findall(r'<rect class="cell h\d+" ', text)) == 15
    best = int(np.argmax(result.values))
    assert len(re.findall(rf"<title>row {best // 5}, column {best % 5}: ", text)) == 1
    assert "Scores along the text" not in text
    assert "All 15 scores" in text


def test_the_fragment_keeps_its_style_to_itself() -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", html.fragment(sample()), re.DOTALL)
    selectors = re.findall(r"(?:^|[{}])\s*([^{}@]+?)\s*\{", style)
    assert len(selectors) > 100
    for selector in selectors:
        for part in selector.split(","):
            assert ".attnflow" in part or re.fullmatch(r"\s*\((min|max|prefers).*", part), part


def test_results_of_other_tokens_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="same tokens"):
        html.page(sample(), sample(["x"]))


def test_a_missing_jinja2_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "attnflow.views.html")
    monkeypatch.delattr(views, "html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"attnflow\[views\]"):
        sample().save(tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


# --- In a browser ---------------------------------------------------------------------------------------------------

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# Run by the test in the page, which itself has no script: what sticks out or overlaps.
PROBE = f"<script>{Path(__file__).with_name('probe.js').read_text(encoding='utf-8')}</script>"


def browse(text: str, path: Path, width: int, *, dark: bool) -> str:
    """The title of the page after the probe has run in it, without any network."""
    # The page's own policy forbids scripts, the probe included; what it fetches is told by the resource timing.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    path.write_text(text.replace("</head>", PROBE + "</head>"), encoding="utf-8")
    assert BROWSER is not None
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000", f"--window-size={width},900"),
        f"--user-data-dir={path.parent / 'profile'}",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    return title.group(1)


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no headless browser")
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", CASES)
def test_in_a_browser_nothing_overlaps_and_nothing_is_fetched(name: str, width: int, tmp_path: Path) -> None:
    page = html.page(*CASES[name])
    if len(page) < 1e6:  # with everything unfolded; of the longest pages, as they open
        page = page.replace("<details", "<details open")
    title = browse(page, tmp_path / "x.html", width, dark=False)
    assert '"found":[]' in title


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no headless browser")
def test_in_a_browser_dark_is_dark(tmp_path: Path) -> None:
    page = html.page(*CASES["usual"])
    assert "rgb(255, 255, 255)" in browse(page, tmp_path / "x.html", 800, dark=False)
    assert "rgb(20, 25, 31)" in browse(page, tmp_path / "x.html", 800, dark=True)


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no headless browser")
def test_the_probe_finds_what_it_looks_for(tmp_path: Path) -> None:
    page = html.page(*CASES["usual"])
    wide = page.replace("</article>", '<p style="width:3000px">x</p></article>')
    assert "scrolls sideways" in browse(wide, tmp_path / "x.html", 800, dark=False)
    over = page.replace("</header>", '</header><section style="margin-top:-40px">x</section>')
    assert "overlap" in browse(over, tmp_path / "x.html", 800, dark=False)
    remote = page.replace("</article>", '<img src="https://example.org/x.png"></article>')
    assert "fetched https://example.org" in browse(remote, tmp_path / "x.html", 800, dark=False)
