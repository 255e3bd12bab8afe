"""A result as text for a terminal: the prompt as a heatmap, a table of every score, and what to know about them.

:func:`render` is pure: it returns the text, with escape codes only if a colour system is asked for. Without colours
the heatmap is drawn as bars beneath the words, so a pipe, a log file or ``NO_COLOR`` loses nothing.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

from ..attribution import require_alike
from ..errors import MissingDependencyError
from . import colour, layout, wording

try:
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.text import Text

    from . import terminal_grid, terminal_matrix
    from .terminal_style import ColourSystem, Palette, bar, block, palette, scale, short
except ImportError as error:
    raise MissingDependencyError("the terminal view needs rich: pip install 'attnflow[views]'") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..attribution import Attribution, Score

__all__ = ["render"]

_NARROWEST = 24
_TOP_CELLS = 16  # patches or frames in a table: their picture shows the others better


def render(*results: Attribution, width: int = 80, colours: ColourSystem | None = None, limit: int | None = 60) -> str:
    """Describe attributions of the same tokens, side by side where the width allows.

    Parameters
    ----------
    results
        One or more; the first is the one that counts, the others are there to compare.
    width
        Cells in a line.
    colours
        The terminal's colours, or None for plain text.
    limit
        Most rows of the table; the highest scores stay. None for all.
    """
    require_alike(results)
    width = max(width, _NARROWEST)
    out = StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colours is not None,
        color_system=colours,
        no_color=colours is None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )
    styles = palette(colours)
    if len(results[0].targets) > 1:
        _overview(console, results, styles, limit)
    else:
        _report(console, [wording.each_sink(result)[0] for result in results], styles, limit)
    console.print(
        Text(
            wording.verified_line(*results),
            {True: "bold green", False: styles.accent, None: "dim"}[wording.verified(*results)],
        )
    )
    # Padding at the end of a line is invisible and only gets in the way of copying and of comparing.
    return "\n".join(line.rstrip(" ") for line in out.getvalue().split("\n"))


def _report(console: Console, results: Sequence[Attribution], styles: Palette, limit: int | None) -> None:
    """All about one sink."""
    first = results[0]
    _title(console, first)
    facts = []
    if first.prediction is not None:
        token, probability = first.prediction
        facts.append(
            (
                wording.said_word(first),
                Text.assemble((wording.visible(token), "bold reverse"), (f"  {probability:.1%}", "bold")),
            )
        )
    facts.append(("target", Text(wording.visible(first.target_label))))
    _facts(console, facts)
    for result in results:
        console.print()
        console.print(_named(result))
        for line in _heatmaps(result, styles, console.width, limit):
            console.print(line, no_wrap=styles.shades is None and line.style != "dim italic")
        console.print(scale(styles, layout.largest(result), signed=result.is_signed))
        _worth(console, result, styles)
    console.print()
    for line in _table(results, styles, console.width, limit):
        console.print(line, no_wrap=True, overflow="crop")
    console.print()
    _definitions(console, results)


def _overview(console: Console, results: Sequence[Attribution], styles: Palette, limit: int | None) -> None:
    """All about several sinks: what each drew on, in one picture, and what to know about them, once."""
    first = results[0]
    _title(console, first)
    generated = wording.visible(layout.said(first))
    facts = [(wording.said_word(first), Text(short(generated, 4 * console.width), "bold"))] if generated else []
    facts.append(("target", Text(wording.visible(first.target_label))))
    _facts(console, facts)
    for result in results:
        console.print()
        console.print(_named(result))
        for part in (part for part in layout.parts(result) if part.cells):
            console.print(Text(part.heading, "italic"))
            for line in terminal_grid.draw(result, styles, console.width, limit):
                console.print(line, no_wrap=line.style != "dim italic", overflow="fold")
        for line in terminal_matrix.draw(result, styles, console.width, limit):
            console.print(line, no_wrap=line.style != "dim italic", overflow="fold")
        has_later = any(not result.visible(sink).all() for sink in range(len(result.targets)))
        legend = scale(styles, layout.largest(result), signed=result.is_signed)
        console.print(legend.append("   no cell: it comes after the step" * has_later, "dim"))
        console.print()
        console.print(Text(f"what each {wording.steps_word(result).removesuffix('s')} drew on most", "dim"))
        for line in terminal_matrix.best(result, console.width, limit):
            console.print(line, no_wrap=True, overflow="crop")
        console.print()
        _worth(console, result, styles)
    console.print()
    _definitions(console, results)


def _title(console: Console, result: Attribution) -> None:
    model = wording.visible(str(result.options.get("model", "")))
    console.print(Text.assemble(("attnflow", "bold"), (f"  {model}", "dim")))
    console.print()


def _named(result: Attribution) -> Text:
    return Text.assemble((wording.method_name(result), "bold"), (f"  {wording.method_note(result)}", "dim"))


def _definitions(console: Console, results: Sequence[Attribution]) -> None:
    for name, definition in dict.fromkeys((wording.method_name(r), r.definition) for r in results):
        console.print(Text(f"{name}: {wording.visible(definition)}", "dim"))


def _worth(console: Console, result: Attribution, styles: Palette) -> None:
    """What a ranking is worth, and what it cost."""
    facts = [("by position", Text(wording.position_share(result)))]
    limited = wording.limited_word(result)
    if result.trivial_fraction == result.trivial_fraction:  # not NaN
        facts.append(
            ("trivial cuts", Text(f"{result.trivial_fraction:.0%} of the {limited} (bottleneck at source or sink)"))
        )
    facts += [
        (name, Text(said))
        for name, said in (("interval", wording.widest(result)), ("network", wording.network_size(result)))
        if said
    ]
    if result.timings:
        stages = ", ".join(
            f"{wording.visible(s)} {wording.seconds(t)}" for s, t in result.timings.items() if s != "total"
        )
        facts.append(("time", Text(f"{wording.seconds(wording.total_time(result))}: {stages}")))
    _facts(console, facts)
    for caveat in wording.caveats(result):
        title = f"{caveat.title}. "
        style = f"bold {styles.accent}"
        console.print(Text.assemble(("! ", style), (title, style if caveat.severe else "bold"), caveat.text))


def _facts(console: Console, facts: Sequence[tuple[str, Text]]) -> None:
    """Names and values in two columns; a value that is too long continues under itself."""
    label_width = max(12, *(len(name) for name, _ in facts)) + 1
    for name, value in facts:
        room = console.width - label_width
        lines = value.wrap(console, room) if room >= 16 else [value]
        for i, line in enumerate(lines):
            label = (name if i == 0 else "").ljust(label_width)
            console.print(Text.assemble((label, "dim"), line))


# -- heatmaps -------------------------------------------------------------------------------------------------------


def _heatmaps(result: Attribution, styles: Palette, width: int, limit: int | None) -> list[Text]:
    """A result's parts one under the other: running text, or the cells of an image or a recording."""
    lines = []
    for part in layout.parts(result):
        if part.heading:
            lines.append(Text(part.heading, "italic"))
        if part.cells:
            lines += terminal_grid.draw(result, styles, width, limit)
        elif styles.shades is None:
            lines += _drawn_heatmap(result, part.positions, width)
        else:
            lines.append(_heatmap(result, part.positions, styles))
    return lines


def _heatmap(result: Attribution, positions: range, styles: Palette) -> Text:
    """The running text, each player's token on a background of its score."""
    steps = _steps(result)
    text = Text()
    for piece in wording.pieces(result, positions):
        if piece.position is None:
            text.append(piece.text)
        elif piece.position not in steps:
            text.append(piece.text, "dim")
        else:
            text.append(piece.text, styles.shade(steps[piece.position]))
        if piece.ends_line:
            text.append("\n")
    return text


def _drawn_heatmap(result: Attribution, positions: range, width: int) -> list[Text]:
    """The running text with a bar beneath each token, wrapped by hand so that the bars stay under their words."""
    steps = _steps(result)
    lines, words, bars = [], "", ""

    def finish() -> None:
        nonlocal words, bars
        if words.strip():
            lines.append(Text(words))
            if bars.strip():
                lines.append(Text(bars))
        words = bars = ""

    for piece in wording.pieces(result, positions):
        mark = " "
        if piece.position is not None and piece.position in steps:
            mark = block(steps[piece.position])
        # A sentence is wrapped between its words.
        for text in [piece.text] if result.members is None else re.findall(r"\s*\S+|\s+", piece.text):
            if cell_len(words) + cell_len(text) > width:
                finish()
                text = text if piece.position is not None and result.members is None else text.lstrip(" ")
            while cell_len(text) > width:  # a token longer than a line goes on in the next ones
                head = next(text[:i] for i in range(min(len(text), width), 0, -1) if cell_len(text[:i]) <= width)
                words, bars, text = head, mark * cell_len(head), text[len(head) :]
                finish()
            words += text
            bars += mark * cell_len(text)
        if piece.ends_line:
            finish()
    finish()
    return lines


def _steps(result: Attribution) -> dict[int, int]:
    highest = layout.largest(result)
    return {row.position: colour.level(row.score, highest) for row in result.rows()}


# -- table ----------------------------------------------------------------------------------------------------------


def _table(results: Sequence[Attribution], styles: Palette, width: int, limit: int | None) -> list[Text]:
    """One line a player: position, token, and for each method score, bar, interval and bottleneck."""
    tables = [result.rows() for result in results]
    first = results[0]
    kept = _kept(tables, limit if first.grid is None or limit is None else min(limit, _TOP_CELLS))
    if first.grid is not None:
        kept.sort(key=lambda i: -abs(tables[0][i].score))  # in a table of the highest cells, the highest come first
    tokens = [short(wording.label(first, row.position), 22) for row in tables[0]]
    parts = layout.part_of(first) if first.grid is None else {}
    heading = ""
    place_width = len(str(tables[0][-1].position))
    unit = wording.unit_word(first)
    token_width = max(5, *(cell_len(tokens[i]) for i in kept))
    blocks = [_Block(result, rows, kept, styles) for result, rows in zip(results, tables, strict=True)]
    room = width - place_width - 1 - min(token_width, 14)
    each = room // len(blocks) - 2
    if len(blocks) > 1 and each < max(block.narrowest for block in blocks):
        lines: list[Text] = []  # too narrow for two methods in a line: one under the other
        for result in results:
            lines += [Text(wording.method_name(result), "bold"), *_table([result], styles, width, limit), Text()]
        return lines[:-1]
    token_width = min(token_width, max(5, width - place_width - 1 - sum(block.narrowest + 2 for block in blocks)))
    each = (width - place_width - 1 - token_width) // len(blocks) - 2
    head = Text.assemble((" " * (place_width + 1) + set_cell_size(short(unit, token_width), token_width), "dim"))
    names = Text(" " * (place_width + 1 + token_width))
    interval = all(block.has_room_for_interval(each) for block in blocks)
    for block in blocks:
        block.fit(each, interval)
        names.append("  " + set_cell_size(short(block.name, block.width), block.width), "bold")
        head.append("  ").append_text(block.head())
    lines = [names, head] if len(blocks) > 1 else [head]
    for i in kept:
        _, part = parts.get(tables[0][i].position, ("", ""))
        if part != heading:
            lines.append(Text(short(part, width), "italic"))
            heading = part
        token = set_cell_size(short(tokens[i], token_width), token_width)
        line = Text.assemble((f"{tables[0][i].position:>{place_width}} ", "dim"), token)
        for block in blocks:
            line.append("  ").append_text(block.cell(i))
        lines.append(line)
    if left := len(tables[0]) - len(kept):
        weaker = "weaker" if first.is_signed else "lower"
        lines.append(Text(f"… {left} players with {weaker} scores are not shown", "dim italic"))
    return lines


def _kept(tables: Sequence[list[Score]], limit: int | None) -> list[int]:
    """Which players get a row, in the order of the text: the first method's strongest scores."""
    n = len(tables[0])
    if limit is None or n <= limit:
        return list(range(n))
    return sorted(sorted(range(n), key=lambda i: -abs(tables[0][i].score))[: max(1, limit)])


def _numbered(name: str, room: int) -> str:
    """A link's name in that many cells: what is left out of it is not its number."""
    words, _, number = name.rpartition(" ")
    if cell_len(name) <= room or not number.isdecimal() or len(number) > 4:
        return short(name, room)
    return f"{short(words, room - 1 - len(number))} {number}"


class _Block:
    """The columns of one method."""

    def __init__(self, result: Attribution, rows: list[Score], kept: list[int], styles: Palette) -> None:
        self.styles = styles
        self.name = wording.method_name(result)
        self.rows = rows
        self.highest = layout.largest(result)
        self.cut = result.is_flow
        self.places = wording.decimals(self.highest)
        self.intervals = [wording.uncertainty(row.score, row.lower, row.upper) for row in rows]
        self.scores = [wording.score(row.score, self.places) for row in rows]
        self.score_width = max(5, *(len(self.scores[i]) for i in kept))
        self.cuts = [_numbered(wording.visible(row.bottleneck), 18) for row in rows]
        self.cut_width = max(3, *(cell_len(self.cuts[i]) for i in kept)) if self.cut else 0
        self.interval_width = max(len(self.intervals[i]) for i in kept)
        self.narrowest = self.score_width + (1 + self.cut_width) * self.cut
        self.exact = set(self.intervals) == {"exact"}
        self.bar = 0
        self.interval = False

    def has_room_for_interval(self, width: int) -> bool:
        if self.exact:  # said once, above the table; of what is no flow there is nothing to say
            return not self.cut
        return width - self.narrowest >= 1 + self.interval_width + 1 + 6

    def fit(self, width: int, interval: bool) -> None:
        """Spend the width that the interval leaves on a bar."""
        self.interval = interval and not self.exact
        spare = width - self.narrowest - (1 + self.interval_width) * self.interval - 1
        self.bar = min(spare, 24) if spare >= 3 else 0

    @property
    def width(self) -> int:
        return self.narrowest + (1 + self.bar) * bool(self.bar) + (1 + self.interval_width) * self.interval

    def head(self) -> Text:
        text = "score".rjust(self.score_width)
        text += " " + " " * self.bar if self.bar else ""
        text += " " + set_cell_size("±", self.interval_width) if self.interval else ""
        return Text(text + (" " + set_cell_size("cut", self.cut_width)) * self.cut, "dim")

    def cell(self, i: int) -> Text:
        row = self.rows[i]
        text = Text(self.scores[i].rjust(self.score_width))
        if self.bar:
            drawn = bar(row.score / self.highest if self.highest else 0.0, self.bar)
            text.append(" ").append(drawn, self.styles.bar if row.score >= 0 else self.styles.bar_below)
        if self.interval:
            text.append(" " + self.intervals[i].ljust(self.interval_width), "dim")
        if not self.cut:
            return text
        style = "dim" if row.bottleneck in ("source", "sink", "none") else self.styles.accent
        return text.append(" ").append(set_cell_size(self.cuts[i], self.cut_width), style)
