"""What can be done with results: parts of them, sums and differences, groups of tokens, and checking them again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._positions import as_position, is_many, number
from ..errors import CertificateError, InvalidArgumentError
from ..maxflow import NONE
from ._groups import Grouping, Span, grouping, options_word
from ._kinds import ADDITIVE, COMBINATION, FLOWS
from ._scoring import Evidence, Scores

if TYPE_CHECKING:
    from ..network import Network
    from ._parts import PairFlow
    from ._result import Attribution

__all__ = ["check", "combined", "indices", "merged", "pair", "part", "regrouped", "require_alike", "scaled"]


# ---- parts -----------------------------------------------------------------------------------------------------------


def indices(key: Any, size: int, what: str) -> list[int]:
    """What an index, a slice, a list of indices or a mask picks of so many; never nothing."""
    index = key
    if is_many(key):
        index = np.asarray(list(key))
        if index.dtype.kind not in "iub" or index.ndim != 1 or (index.dtype.kind == "b" and index.size != size):
            raise InvalidArgumentError(f"{key!r} is no index of {size} {what}: integers, a slice or a mask of {size}")
    elif isinstance(key, bool) or not (isinstance(key, slice) or hasattr(key, "__index__")):
        raise InvalidArgumentError(f"{key!r} is no index of {size} {what}: an integer, a slice or several integers")
    try:
        chosen = np.atleast_1d(np.arange(size)[index]).tolist()
    except IndexError:
        raise InvalidArgumentError(f"{key!r} is out of range: there are {size} {what}") from None
    if not chosen:
        raise InvalidArgumentError(f"{key!r} picks none of the {size} {what}: a result holds one at least")
    if len(set(chosen)) < len(chosen):
        raise InvalidArgumentError(f"{key!r} picks one of the {size} {what} twice: each can be there once")
    return [int(each) for each in chosen]


def part(result: Attribution, rows: Sequence[int], columns: Sequence[int]) -> Attribution:
    """Some sinks, in the order given, and some players, in the order of the text."""
    columns = sorted(columns)
    players = result.players[columns]
    if len(rows) == len(result.targets) and list(rows) == sorted(rows) and len(columns) == result.players.size:
        return result
    chosen = result.options.get("steps")
    steps = chosen if isinstance(chosen, tuple) and len(chosen) == len(result.targets) else range(len(result.targets))
    options = dict(result.options)
    if result.sink_labels is not None:
        options["steps"] = [steps[row] for row in rows]
    new_row = {row: number for number, row in enumerate(rows)}
    flows = [replace(f, sink=new_row[f.sink]) for f in result.flows or () if f.sink in new_row and f.source in players]
    return replace(
        result,
        players=players,
        targets=tuple(result.targets[row] for row in rows),
        sink_labels=None if result.sink_labels is None else tuple(result.sink_labels[row] for row in rows),
        predictions=None if result.predictions is None else tuple(result.predictions[row] for row in rows),
        flows=tuple(flows) or None,
        options=options,
        evidence=None if result.evidence is None else result.evidence.showing(rows, columns),
        **{name: array[np.ix_(rows, columns)] for name, array in result.arrays().items()},
    )


# ---- sums and differences --------------------------------------------------------------------------------------------


def require_alike(results: Sequence[Attribution]) -> None:
    """Refuse to put results side by side that are not about the same tokens, players and sinks."""
    first = results[0]
    for other in results[1:]:
        if other.tokens != first.tokens or other.players.tolist() != first.players.tolist():
            raise InvalidArgumentError(
                f"results can be compared over the same tokens and players only: got {len(first.tokens)} tokens with "
                f"{first.players.size} players, and {len(other.tokens)} tokens with {other.players.size} players"
            )
        if len(other.targets) != len(first.targets):
            raise InvalidArgumentError(
                f"results can be compared over the same sinks only: got {len(first.targets)} and {len(other.targets)}"
            )
        if len(first.targets) > 1 and other.targets != first.targets:
            raise InvalidArgumentError(
                "results with several sinks can be compared over the same ones only: got positions "
                f"{_positions(first)} and {_positions(other)}"
            )
        several = len(first.targets) > 1
        for one, two, what in (
            (several and first.sink_labels, several and other.sink_labels, "steps"),
            (first.n_source, other.n_source, "division into what an encoder and what a decoder read"),
            (first.grid, other.grid, "grid"),
        ):
            if one != two:
                raise InvalidArgumentError(f"results can be compared over the same {what} only: got {one} and {two}")


def _positions(result: Attribution) -> list[Any]:
    return [target[0] if len(target) == 1 else target for target in result.targets]


def combined(one: Attribution, other: Attribution, sign: Literal[1, -1]) -> Attribution:
    """Sum or difference of the scores, and of their bounds."""
    require_alike((one, other))
    low, high = (other.lower, other.upper) if sign > 0 else (-other.upper, -other.lower)
    errors = None
    if one.standard_errors is not None or other.standard_errors is not None:
        # Samples of one seed go together: no more than the sum, however they do.
        none = np.zeros(one.values.shape)
        mine, others = (none if e is None else e for e in (one.standard_errors, other.standard_errors))
        errors = mine + others
    word = "+" if sign > 0 else "−"
    shared = {name: value for name, value in one.options.items() if other.options.get(name, math.nan) == value}
    return replace(
        _combination(one, f"{_named(one)} {word} {_named(other)}", f"({one.definition}) {word} ({other.definition})"),
        values=one.values + sign * other.values,
        lower=one.lower + low,
        upper=one.upper + high,
        standard_errors=errors,
        target_label=one.target_label if one.target_label == other.target_label else "two targets",
        prediction=one.prediction if one.prediction == other.prediction else None,
        predictions=one.predictions if one.predictions == other.predictions else None,
        options=shared | {"combination": f"{_named(one)} {word} {_named(other)}"},
        verified=one.verified and other.verified,
    )


def scaled(result: Attribution, factor: Any) -> Attribution:
    """All scores times a number, their bounds as well."""
    times = number(factor, "the factor of a result", above=-math.inf)
    low, high = (result.lower, result.upper) if times >= 0 else (result.upper, result.lower)
    errors = None if result.standard_errors is None else abs(times) * result.standard_errors
    name = f"{times:g} × {_named(result)}"
    return replace(
        _combination(result, name, f"{times:g} × ({result.definition})"),
        values=times * result.values,
        lower=times * low,
        upper=times * high,
        standard_errors=errors,
    )


def _combination(result: Attribution, name: str, definition: str) -> Attribution:
    """A result of the same shape that is no flow any more: it has no cuts, and nothing to check."""
    return replace(
        result,
        attribution="combination",
        definition=definition,
        bottlenecks=np.full(result.values.shape, NONE, dtype=np.int32),
        flows=None,
        timings={},
        options=dict(result.options) | {"combination": name},
        evidence=None,
    )


def _named(result: Attribution) -> str:
    from ..views import wording

    name = wording.method_name(result)
    return f"({name})" if result.attribution == COMBINATION else name


# ---- words, sentences, spans -----------------------------------------------------------------------------------------


def regrouped(about: dict[str, Any], units: Grouping) -> dict[str, Any]:
    """What a result says of tokens, of units instead: its `tokens`, `offsets`, `players`, `targets` and `n_source`."""
    tokens, offsets, text = about["tokens"], about["offsets"], about["text"]
    spans: list[Span | None] = []
    for group in units.members:
        inside = [offsets[position] for position in group if offsets[position] is not None]
        spans.append((min(a for a, _ in inside), max(b for _, b in inside)) if inside else None)
    crossing = [g for g in units.members if g[0] < about["n_source"] <= g[-1]]
    if crossing:
        raise InvalidArgumentError(
            f"the tokens at {list(crossing[0])} would be one unit, and an encoder read some of them, a decoder others"
        )
    return {
        **about,
        "tokens": tuple(
            tokens[group[0]] if span is None else text[slice(*span)]
            for group, span in zip(units.members, spans, strict=True)
        ),
        "offsets": tuple(spans),
        "players": sorted(units.units(list(about["players"]))),
        "targets": tuple(units.units(target) for target in about["targets"]),
        "n_source": sum(group[0] < about["n_source"] for group in units.members),
    }


def merged(result: Attribution, units: Any) -> Attribution:
    """With the words, sentences or spans of the text as players; see :meth:`Attribution.merge`."""
    found = grouping(result.text, result.offsets, units)
    names = ("tokens", "offsets", "text", "players", "targets", "n_source")
    about = regrouped({name: getattr(result, name) for name in names}, found)
    evidence = None if result.evidence is None else result.evidence.grouped(found.members)
    if evidence is not None:
        scores = evidence.scores()
    elif result.attribution in ADDITIVE:
        scores = Scores.exact(_sums(result, found, about["players"]))
    else:
        reason = {
            COMBINATION: "a combination of results is merged before: (a.merge(...) - b.merge(...))",
            "leave_one_out": f"what leaves several tokens out asks the model again: explain(..., units={units!r})",
            "random": f"a random score has no parts: explain(..., units={units!r})",
        }
        raise InvalidArgumentError(
            reason.get(
                result.attribution,
                "scores of tokens that share capacity do not add up, and this result has no network to ask again: it "
                f"was read from a file, or made with evidence=False. Use explain(..., units={units!r})",
            )
        )
    old = result.members or tuple((position,) for position in range(len(result.tokens)))
    return replace(
        result,
        **about,
        **scores.arrays(),
        definition=f"{result.definition}; {said(units)}",
        options=dict(result.options) | {"units": options_word(units)},
        members=tuple(tuple(sorted(p for unit in group for p in old[unit])) for group in found.members),
        grid=None,
        flows=None,
        verified=scores.verified if evidence is not None else result.verified,
        evidence=evidence,
    )


def said(units: Any) -> str:
    """What players are, in words."""
    return f"the tokens of a {units.removesuffix('s') if isinstance(units, str) else 'span'} are one player"


def _sums(result: Attribution, units: Grouping, players: Sequence[int]) -> NDArray[np.float64]:
    column = {position: index for index, position in enumerate(result.players.tolist())}
    return np.stack(
        [
            result.values[:, [column[position] for position in units.members[unit] if position in column]].sum(axis=1)
            for unit in players
        ],
        axis=1,
    )


# ---- checking --------------------------------------------------------------------------------------------------------


def _evidence(result: Attribution) -> Evidence:
    if result.evidence is None:
        what = "of a file, or made with evidence=False" if result.attribution in FLOWS else result.attribution
        raise InvalidArgumentError(f"there is no network to check this result by: it is {what}")
    return result.evidence


def pair(result: Attribution, player: Any, sink: Any) -> tuple[Network, tuple[int, ...], tuple[int, ...]]:
    """The network, and the positions of a player and of a sink in it."""
    evidence = _evidence(result)
    row = as_position(sink, "sink", len(result.targets), "the result", "sink")
    column = as_position(player, "player", result.players.size, "the result", "player")
    row, column = (
        chosen if order is None else order[chosen]
        for chosen, order in ((row, evidence.rows), (column, evidence.columns))
    )
    network, sinks = [(one.network, sinks) for one in evidence.solved for sinks in one.sinks][row]
    return network, evidence.players[column], sinks


def check(result: Attribution) -> None:
    """Assert that a result is what its network says; see :meth:`Attribution.check`."""
    evidence = _evidence(result)
    again = evidence.scores(check=True).arrays()
    mine = result.arrays()
    if sorted(again) != sorted(mine):
        raise CertificateError(f"the result has {sorted(mine)}, and its network gives {sorted(again)}")
    for name, array in again.items():
        wrong = mine[name] != array
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise CertificateError(
                f"{name}[{row}, {column}] is {mine[name][row, column]}, and solving the network again gives "
                f"{array[row, column]}"
            )
    for pair in result.flows or ():
        _check_pair(result, pair, evidence)


def _check_pair(result: Attribution, pair: PairFlow, evidence: Evidence) -> None:
    """Assert that no edge carries more than its capacity, what enters a node leaves it, and the cut is full."""
    (solved,) = evidence.solved
    network = solved.network
    where = f"the flow from position {pair.source}"
    balance = [np.zeros(size) for size in network.sizes]
    through = 0.0
    for number_, link in enumerate(network.links):
        mine = pair.layer == number_
        receiver, giver, flow = pair.receiver[mine], pair.giver[mine], pair.flow[mine]
        rows, columns, capacity = link.edges(network.sizes[link.receiver])
        size = network.sizes[link.giver]
        most = _looked_up(rows * size + columns, capacity, receiver.astype(np.int64) * size + giver)
        over = np.flatnonzero(flow > most * (1 + 1e-12))
        if over.size:
            j, k = receiver[over[0]], giver[over[0]]
            raise CertificateError(
                f"{where}: edge {k} -> {j} of layer {number_ + 1} carries {flow[over[0]]}, and its capacity is "
                f"{most[over[0]]}"
            )
        np.add.at(balance[link.giver], giver, -flow)
        np.add.at(balance[link.receiver], receiver, flow)
        if pair.cut is not None:
            through += float(most[pair.cut[mine]].sum())
    value = pair.value
    balance[0][pair.source] += value
    for position in solved.sinks[pair.sink]:
        balance[-1][position] = min(0.0, balance[-1][position])
    worst = max(float(np.abs(block).max()) for block in balance)
    if worst > 1e-9 * max(value, 1e-300):
        raise CertificateError(f"{where} is not conserved: a node gains or loses {worst}")
    if pair.cut is not None and abs(through - value) > 1e-9 * value:
        raise CertificateError(f"{where} is {value}, and its cut has capacity {through}")


def _looked_up(keys: NDArray[Any], values: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """The value of each wanted key, 0 where there is none."""
    order = np.argsort(keys)
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(0, keys.size - 1))
    found = np.zeros(wanted.shape)
    if keys.size:
        hit = keys[order[at]] == wanted
        found[hit] = values[order[at]][hit]
    return found
