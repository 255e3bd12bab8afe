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
from samples import HOSTILE, sample

pytest.importorskip("jinja2")

from attnflow import views
from attnflow.attribution import Attribution
from attnflow.errors import InvalidArgumentError, MissingDependencyError
from attnflow.views import html

CASES: dict[str, tuple[Attribution, ...]] = {
    "usual": (sample(seed=3, n_layers=30), sample(plain=True, n_layers=30)),
    "hostile": (sample(HOSTILE, flows=2, n_layers=6), sample(HOSTILE, plain=True)),
    "long": (sample([f" tok{i}" for i in range(300)]), sample([f" tok{i}" for i in range(300)], plain=True)),
    "encoder": (sample(kind="encoder", start_token=False, prediction=None),),
    "one long token": (sample(["漢" * 300, " " + "x" * 500]),),
    "right to left": (sample(["שלום", " עולם", " مرحبا", " بالعالم"], start_token=False),),
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


def test_hostile_tokens_are_text_and_nothing_else() -> None:
    text = html.page(*CASES["hostile"])
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


def test_several_targets_have_a_section_each() -> None:
    one = sample()
    many = {name: np.repeat(getattr(one, name), 14, axis=0) for name in ("values", "lower", "upper", "bottlenecks")}
    text = html.page(sample(targets=list(range(1, 15)), **many))
    assert text.count("What the prediction drew on") == 12
    assert "2 more targets" in text


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
    title = browse(html.page(*CASES[name]), tmp_path / "x.html", width, dark=False)
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
