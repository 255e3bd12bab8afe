"""What every view says in words: names of methods, caveats, numbers, and text made safe to look at."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import replace
from decimal import ROUND_UP, Decimal, localcontext
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..attribution import Attribution

__all__ = [
    "Caveat",
    "Piece",
    "bottleneck_words",
    "caveats",
    "count",
    "decimals",
    "each_sink",
    "figure",
    "highest_word",
    "label",
    "left_out",
    "limit_line",
    "limited_word",
    "method_name",
    "method_note",
    "network_size",
    "pieces",
    "players_word",
    "position_share",
    "said_word",
    "score",
    "seconds",
    "shown_token",
    "signed",
    "steps_word",
    "subject_word",
    "total_time",
    "uncertainty",
    "unit_word",
    "verified",
    "verified_line",
    "visible",
    "widest",
]

_NAMED = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\x7f": "␡", "\u2028": "⏎", "\u2029": "⏎", "\x85": "⏎"}
_JOINERS = "\u200c\u200d"  # part of how emoji and several scripts are spelt


def visible(text: str) -> str:
    r"""The text with everything invisible or harmful made visible: line ends, controls, direction marks, stray marks.

    Spaces stay; a text of spaces alone becomes open boxes. No output of this function can move a cursor, turn a line
    round, or break an XML file.

    Examples
    --------
    >>> visible("a\nb"), visible("  "), visible("\x1b[31m"), visible("\u202eabc")
    ('a⏎b', '␣␣', '␛[31m', '‹U+202E›abc')
    """
    if text and not text.strip(" "):
        return "␣" * len(text)
    shown = []
    for character in text:
        category = unicodedata.category(character)
        if character in _NAMED:
            shown.append(_NAMED[character])
        elif character < " ":
            shown.append(chr(0x2400 + ord(character)))
        elif character in _JOINERS and len(text) > 1:
            shown.append(character)
        elif category in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"):
            shown.append(f"‹U+{ord(character):04X}›")
        elif category.startswith("M") and not shown:
            shown.append("◌" + character)  # a mark needs something to sit on
        else:
            shown.append(character)
    return "".join(shown)


class Piece(NamedTuple):
    """A stretch of the running text: one token, or what lies between tokens (`position` None)."""

    text: str
    position: int | None
    ends_line: bool = False


def shown_token(token: str) -> str:
    """A token by itself, as a name: without the blank before a word, never empty, never only a mark of damage.

    Examples
    --------
    >>> shown_token(" cat"), shown_token(" "), shown_token(""), shown_token(" \ufffd\ufffd")
    ('cat', '␣', '∅', '⋯')
    """
    whole = re.sub("\ufffd+", "⋯", token)  # bytes of a character that goes on in the next token
    return visible(whole).strip(" ") or "∅"


def label(result: Attribution, position: int) -> str:
    """The name of a token in a table: what :func:`shown_token` says, and more where the text knows more.

    A piece of a character (an emoji spelt in bytes) is shown as ``⋯F0`` where the pieces are known to be a byte each,
    and as ``⋯👧`` otherwise; a token that decodes to nothing, by what it stands for in the text.
    """
    token, span = result.tokens[position], result.offsets[position]
    if span is None or span[0] == span[1]:
        return shown_token(token)
    spelt = result.text[slice(*span)]
    if not token:
        return shown_token(spelt)
    if "\ufffd" not in token or "\ufffd" in spelt:
        return shown_token(token)
    first = last = position
    while first > 0 and _share(result, first - 1, first):
        first -= 1
    while last + 1 < len(result.tokens) and _share(result, last, last + 1):
        last += 1
    code = spelt.strip(" ").encode("utf-8", "replace")
    if first < last and len(code) == last - first + 1:
        return f"⋯{code[position - first]:02X}"
    return "⋯" + visible(spelt).strip(" ")


def _share(result: Attribution, one: int, other: int) -> bool:
    """Whether two tokens are pieces of one character."""
    a, b = result.offsets[one], result.offsets[other]
    broken = "\ufffd" in result.tokens[one] and "\ufffd" in result.tokens[other]
    return broken and a is not None and b is not None and a[0] < b[1] and b[0] < a[1]


def pieces(result: Attribution, positions: range | None = None) -> list[Piece]:
    """The prompt as running text, cut into tokens, nothing lost and nothing twice; of some positions alone if given.

    The text's own characters are used where the tokens follow each other in it, so what lies between tokens and what
    the tokenizer normalised away stays readable. Tokens outside the text appear as themselves; a token that shares a
    character with the one before (an emoji spelt in bytes) appears as ``⋯``.
    """
    kept = range(len(result.tokens)) if positions is None else positions
    shown: list[Piece] = []
    end = max((span[1] for span in result.offsets[: kept.start] if span is not None), default=0)
    if kept.start == result.n_source > 0 and result.text[end : end + 1] == "\n":
        end += 1  # between what was read and what was said; no part of either
    for position in kept:
        token, span = result.tokens[position], result.offsets[position]
        if span is None or span[0] == span[1]:
            shown.append(Piece(visible(token) or "∅", position))
            continue
        if span[0] < end:
            shown.append(Piece("⋯", position))
            end = max(end, span[1])
            continue
        text, between = result.text[slice(*span)], result.text[end : span[0]]
        end = span[1]
        stripped = text.lstrip(" ")
        if stripped:  # the blank before a word is not coloured: it reads better
            between, text = between + text[: len(text) - len(stripped)], stripped
        if between:
            shown.append(Piece(visible(between) if between.strip(" ") else between, None, "\n" in between))
        shown.append(Piece(visible(text), position, "\n" in text))
    if kept.stop == len(result.tokens) and result.text[end:].strip():
        shown.append(Piece(visible(result.text[end:]), None))
    return shown


def each_sink(result: Attribution) -> list[Attribution]:
    """The result as one result a sink, with the players it can see, so that a view has one sink to think of."""
    if len(result.targets) == 1:
        alone = result.predictions[0] if result.predictions is not None else result.prediction
        return [result if alone == result.prediction else replace(result, prediction=alone)]
    return [_one_sink(result, sink) for sink in range(len(result.targets))]


def _one_sink(result: Attribution, sink: int) -> Attribution:
    seen = result.visible(sink)
    alone = result[sink, seen if seen.any() else ~seen]  # a result needs a player, and scores say that nothing arrives
    return replace(
        alone,
        target_label=_sink_label(result, sink),
        sink_labels=None,
        prediction=result.predictions[sink] if result.predictions is not None else result.prediction,
        predictions=None,
    )


def _sink_label(result: Attribution, sink: int) -> str:
    if result.sink_labels is not None:
        return result.sink_labels[sink]
    return f"{result.target_label}: {_target(result, result.targets[sink])}"


def _target(result: Attribution, target: tuple[int, ...]) -> str:
    if len(target) == 1:
        return f"position {target[0]} {result.tokens[target[0]]!r}"
    return f"{len(target)} positions {target[0]}..{target[-1]}"


# Names and notes of the measures that come with the library. Any other has the name that its author gave it.
_MEASURES = {
    "alti": ("ALTI", ""),
    "attention": ("attention", ""),
    "attention_gradient": ("attention gradient", "how much attention moves the {}"),
    "attention_x_gradient": ("attention × gradient", "attention times how much it moves the {}"),
    "value_norm": ("value norm", "attention weighted by the size of what it carries"),
    "value_norm_residual": ("value norm with residual", "attention weighted by the size of what it carries"),
}


def method_name(result: Attribution) -> str:
    """A short name for how a result was computed, from its options."""
    if result.attribution == "combination":
        return visible(str(result.options.get("combination", "Combination of results")))
    if result.attribution in _NO_MEASURE:
        return _NO_MEASURE[result.attribution]
    measure = str(result.options.get("measure", "attention"))
    shown, _ = _MEASURES.get(measure, (visible(measure), ""))
    if result.attribution in _DRAWN:
        return _DRAWN[result.attribution].format(shown)
    calibration = result.options.get("calibration")
    calibrated = f"excess {shown}" if calibration == "excess" else shown
    changed = "" if calibration in ("excess", None) else f", {visible(str(calibration))}"
    if result.attribution in _THROUGH:
        return _THROUGH[result.attribution].format(calibrated) + changed
    flow = f"plain {shown} flow" if calibration is None else f"{calibrated} flow{changed}"
    return (
        _SHARES[result.attribution].format(flow) if result.attribution != "independent" else flow[0].upper() + flow[1:]
    )


_SHARES = {
    "shapley": "Shapley values of {}",
    "fair": "Fair split of {}",
    "barrier": "Barrier centre of {}",
}
# Of the capacities that flows go through.
_THROUGH = {"rollout": "Rollout on {}", "widest_path": "Widest path through {}"}
# Of one layer's contributions, or of their mean.
_DRAWN = {"raw_attention": "Raw {}, last layer", "mean_attention": "Raw {}, mean over layers"}
_NO_MEASURE = {"gradient_x_input": "Gradient × input", "leave_one_out": "Leave-one-out", "random": "Random"}


def method_note(result: Attribution) -> str:
    """What tells a method from the others, in a few words."""
    options = result.options
    measure, calibration = str(options.get("measure", "attention")), options.get("calibration")
    mixed = options.get("residual", 0.5) == 0.5 and options.get("heads", "mean") == "mean"
    plain = measure == "attention" and calibration is None and result.attribution == "independent"
    if plain and mixed and not _is_divided(result):
        return "the published method"
    moved = "prediction" if options.get("objective") is None else "objective"
    player = {"patches": "patch"}.get(players := players_word(result), players.removesuffix("s"))
    notes = [_NOTES.get(result.attribution, "").format(moved=moved, player=player, left=_left(result))]
    if result.attribution not in (*_NO_MEASURE, "combination"):
        notes.append(_MEASURES.get(measure, ("", ""))[1].format(moved))
    if result.is_flow or result.attribution in _THROUGH:
        spread = {"excess": "only what exceeds evenly spread attention", None: "no calibration"}
        notes.append(spread.get(calibration, ""))
    notes.append("divided by receptive fields" if _is_divided(result) else "")
    return "; ".join(note for note in notes if note)


_NOTES = {
    "rollout": "the product of all layers",
    "widest_path": "the best single path",
    "gradient_x_input": "how far each {player} moves the {moved}, to first order",
    "leave_one_out": "how far the {moved} drops without each {player}, {left}",
    "random": "to compare with",
    "combination": "sums and differences of scores",
}


def _left(result: Attribution) -> str:
    """How something is left out."""
    return "taken out of the text" if result.options.get("leave_out") == "delete" else "which is masked"


def _is_divided(result: Attribution) -> bool:
    return result.options.get("receptive_field") is True


def position_share(result: Attribution) -> str:
    """How much of the ranking position alone explains: Spearman's correlation and the share of rank variance."""
    rho = result.position_correlation
    if math.isnan(rho):
        return "not defined"
    if len(result.targets) > 1:
        return f"Spearman {signed(rho)}, the mean over {len(result.targets)} {steps_word(result)}"
    return f"Spearman {signed(rho)}, {rho * rho:.0%} of the rank variance"


def steps_word(result: Attribution) -> str:
    """What several sinks are: the steps of a generation, or targets."""
    return "targets" if result.sink_labels is None else "steps"


def said_word(result: Attribution) -> str:
    """How a model came to a token: it was made to say it, said it, or would have."""
    generated = result.options.get("generated")
    if generated is False:
        return "made to say"
    return "predicted" if generated is None and len(result.targets) == 1 else "said"


def subject_word(result: Attribution) -> str:
    """What was explained: a text, or what a grid says."""
    if result.grid is None:
        return "text"
    return "image" if len(result.grid.shape) == 2 else "recording"


def players_word(result: Attribution) -> str:
    """What the players are: tokens, words, sentences, patches, frames, or some of each."""
    if result.members is not None:
        units = result.options.get("units")
        return visible(units) if isinstance(units, str) else "spans"
    if result.grid is None:
        return "tokens"
    places = result.players - result.grid.start
    inside = (places >= 0) & (places < math.prod(result.grid.shape))
    return {"image": "patches", "recording": "frames"}[subject_word(result)] if inside.all() else "players"


def unit_word(result: Attribution) -> str:
    """What one of the `tokens` is, in tables and sentences: a token, or a word where tokens were merged."""
    return "token" if result.members is None else players_word(result).removesuffix("s")


def highest_word(result: Attribution) -> str:
    """What comes first: the highest scores, or where they may be below zero the strongest."""
    return "strongest" if result.is_signed else "highest"


def left_out(result: Attribution, count: int, highest: float) -> str:
    """How many columns a matrix lacks, and what a reader does not miss."""
    bound = f"further from 0 than {highest:.3g}" if result.is_signed else f"above {highest:.3g}"
    return f"{count} more input {unit_word(result)}s have no column: no score of theirs is {bound}"


def limited_word(result: Attribution) -> str:
    """What has a bottleneck: a score, where that is a flow by itself."""
    return "scores" if result.attribution == "independent" else "players' own flows"


def limit_line(result: Attribution, player: int, sink: int = 0) -> str:
    """What limits a score, as a further line of a tooltip; nothing for what is no flow."""
    return "\n" + bottleneck_words(result.bottleneck_label(player, sink), unit_word(result)) if result.is_flow else ""


def bottleneck_words(label: str, unit: str = "token") -> str:
    """What limits a score, as a phrase."""
    known = {
        "source": f"limited by the {unit}'s own edges in the first layer",
        "sink": "limited by the target's own edges in the last layer",
        "none": "nothing arrives",
        "pooling": "limited by the mean over positions",
    }
    return known.get(label, f"limited mainly in {visible(label)}")


def signed(number: float) -> str:
    """A correlation with two decimals and a real minus sign; ``+0.00`` never shows as ``−0.00``."""
    return f"{round(number, 2) + 0.0:+.2f}".replace("-", "−")


class Caveat(NamedTuple):
    """Something a reader must know before believing a ranking; `severe` when it voids the ranking."""

    severe: bool
    title: str
    text: str


def caveats(result: Attribution) -> list[Caveat]:
    """What may not be read out of a result, the worst first."""
    found = []
    rho, trivial = result.position_correlation, result.trivial_fraction
    players = players_word(result)
    order = f"{'earlier' if rho < 0 else 'later'} {players}"
    if players == "patches":  # an image is read row by row
        order = f"patches further {'up' if rho < 0 else 'down'}"
    if result.is_flow and not result.values.any():
        found.append(Caveat(True, "No flow at all", "No player can send anything to the target under this measure."))
    elif math.isnan(rho):
        found.append(Caveat(True, "No ranking", "All scores are equal, or there is a single player."))
    elif len(result.players) < 4:
        text = f"With fewer than four players any ranking looks much like the order of the {players}, or its reverse."
        found.append(Caveat(False, "Too few players for a ranking", text))
    elif abs(rho) >= 0.9:
        text = f"Spearman correlation of score with position {signed(rho)}: {order} score higher, whatever they say. "
        found.append(
            Caveat(True, f"This ranking is the order of the {players}", text + "Do not read it as an explanation.")
        )
    elif abs(rho) >= 0.5:
        text = f"Spearman correlation of score with position {signed(rho)}: {order} tend to score higher."
        found.append(Caveat(False, "Position explains part of this ranking", text))
    if _is_divided(result):
        each, more = ("a flow ", " The numbers are no flows any more, and the") if result.is_flow else ("", " The")
        text = (
            f"Each is {each}divided by the number of positions that can attend to its {unit_word(result)}.{more} "
            f"division by itself lifts late {unit_word(result)}s, whatever they say."
        )
        found.append(Caveat(False, "Scores are divided by receptive fields", text))
    if trivial >= 0.9 and result.attribution == "independent":
        text = (
            f"{trivial:.0%} of the scores are limited by the {unit_word(result)}'s own or the target's own edges: they "
            "are sums over one layer, and no route through the layers between mattered."
        )
        found.append(Caveat(False, "Most minimum cuts are trivial", text))
    if result.is_flow and not result.verified:
        found.append(Caveat(True, "Not verified", "The solves were not checked against their minimum cuts."))
    return sorted(found, key=lambda caveat: not caveat.severe)


def verified(*results: Attribution) -> bool | None:
    """Whether all flows among the results are certified; None where none of them is a flow."""
    flows = [result.verified for result in results if result.is_flow]
    return all(flows) if flows else None


def verified_line(*results: Attribution) -> str:
    """The one line about the certificate."""
    flows = [result for result in results if result.is_flow]
    if not flows:
        return "no flow: nothing to certify"
    if any(result.attribution != "independent" for result in flows):
        of = " for every solve" if verified(*flows) else ""
    else:
        n_solves = sum(result.values.size for result in flows)
        of = " for the one solve" if n_solves == 1 else f" for all {count(n_solves)} solves"
    line = f"verified: flow = cut{of}" if verified(*flows) else f"NOT verified: flow = cut was not checked{of}"
    return line if len(flows) == len(results) else f"{line}; what is no flow has nothing to certify"


def figure(value: float, digits: int = 4) -> str:
    """A number in a picture, with a real minus sign.

    Examples
    --------
    >>> figure(0.25), figure(-1.5e-07, 2), figure(-0.0)
    ('0.25', '−1.5e-07', '0')
    """
    return f"{'−' if value < 0 else ''}{abs(value):.{digits}g}"


def decimals(highest: float) -> int:
    """Decimals that show the highest score with four digits, the same for a whole column; 3 to 9."""
    return 3 if highest <= 0 else max(3, min(9, 3 - math.floor(math.log10(highest))))


def score(value: float, places: int) -> str:
    """A score with that many decimals, and a real minus sign; zero only when it is zero.

    Examples
    --------
    >>> score(0.25, 4), score(0.0, 4), score(0.00002, 4), score(-0.25, 4)
    ('0.2500', '0', '2e-05', '−0.2500')
    """
    if value < 0:
        return "−" + score(-value, places)
    if value == 0:
        return "0"
    return f"{value:.{places}f}" if value >= 0.5 * 10.0**-places else f"{value:.0e}"


def uncertainty(value: float, lower: float, upper: float) -> str:
    """A half-width that covers the certified interval around a value: ``±3e-8``, or ``exact``."""
    half = max(value - lower, upper - value)
    if half <= 0:
        return "exact"
    with localcontext(rounding=ROUND_UP):  # a bound that is rounded down is none
        return f"±{Decimal(half):.0e}"


def widest(result: Attribution) -> str:
    """How far any score can be from the truth; nothing is said of what has no bounds."""
    half = max(float((result.values - result.lower).max()), float((result.upper - result.values).max()))
    if result.standard_errors is not None and half > 0:
        return f"every score sampled to {uncertainty(half, 0.0, half)}, two standard errors"
    if not result.is_flow:
        return f"every score within {uncertainty(half, 0.0, half)}" if half > 0 else ""
    return "every score exact" if half <= 0 else f"every score certified to {uncertainty(half, 0.0, half)}"


def network_size(result: Attribution) -> str:
    """How large the network was that was solved; nothing where there was none."""
    if not result.is_flow and (result.n_edges == 0 or result.attribution == "combination"):
        return ""
    layers, nodes, edges = (count(size) for size in (result.n_layers, result.n_nodes, result.n_edges))
    return f"{layers} layers, {nodes} nodes, {edges} edges; {count(result.players.size)} players"


def count(number: int) -> str:
    """A number with thin spaces between thousands, as 1 234 567."""
    return f"{number:,}".replace(",", "\u202f")


def seconds(time: float) -> str:
    """A duration: 1.2 s, 340 ms, 12 µs, 3 min 20 s."""
    if time >= 90:
        return f"{int(time // 60)} min {time % 60:.0f} s"
    if time >= 1:
        return f"{time:.1f} s"
    return f"{time * 1e3:.0f} ms" if time >= 1e-3 else f"{time * 1e6:.0f} µs"


def total_time(result: Attribution) -> float:
    """Seconds over all stages; a stage named ``total`` is not counted twice."""
    return sum(time for stage, time in result.timings.items() if stage != "total")
