"""The result of an explanation: which input positions a prediction drew on, by exact maximum flow.

An :class:`Attribution` is a frozen value. Everything in it is *positional*: a score belongs to the position of a
token, never to its text, so a token that occurs twice keeps two scores. It knows nothing of models and needs numpy
alone; pictures and files are reached by a lazy import, so that a stored result can be read where no torch is.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ._frozen import Frozen
from ._positions import as_position, integer, is_many
from .errors import InvalidArgumentError, MissingDependencyError
from .maxflow import NONE, SINK, SOURCE

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["NONE", "SINK", "SOURCE", "Attribution", "Grid", "PairFlow", "Score", "spearman"]

Kind = Literal["decoder", "encoder", "encoder-decoder"]


class Grid(NamedTuple):
    """How positions lie in what they were cut from: patches of an image, frames of a recording."""

    start: int
    """Position of the first; the others follow, row by row."""
    shape: tuple[int, ...]
    """``(rows, columns)`` of an image, ``(frames,)`` of a recording."""


class Score(NamedTuple):
    """One player's score towards one sink, ready to be shown."""

    position: int
    token: str
    score: float
    lower: float
    upper: float
    bottleneck: str


@dataclass(frozen=True, eq=False)
class PairFlow(Frozen):
    """The edges that carry one maximum flow from one player to one sink.

    Parameters
    ----------
    source
        Position of the player the flow starts from.
    layer, receiver, giver
        One entry an edge, integers. Edge ``e`` belongs to layer ``layer[e]`` (0-based: it leads from the block before
        that layer to the block after it), from position ``giver[e]`` to position ``receiver[e]``.
    flow
        What the edge carries, float64, in the unit of the capacities.
    cut
        Optional: True where the edge crosses the minimum cut, that is, where it is full and limits the score.
    sink
        Row of :attr:`Attribution.values` the flow leads to.
    """

    source: int
    layer: NDArray[np.int32]
    receiver: NDArray[np.int32]
    giver: NDArray[np.int32]
    flow: NDArray[np.float64]
    cut: NDArray[np.bool_] | None = None
    sink: int = 0

    def __post_init__(self) -> None:
        for name in ("layer", "receiver", "giver"):
            _put(self, name, _frozen(getattr(self, name), np.int32, name))
        _put(self, "flow", _frozen(self.flow, np.float64, "flow"))
        if self.cut is not None:
            _put(self, "cut", _frozen(self.cut, np.bool_, "cut"))
        shapes = {
            n: a.shape for n in ("layer", "receiver", "giver", "flow", "cut") if (a := getattr(self, n)) is not None
        }
        if len(set(shapes.values())) != 1 or self.flow.ndim != 1:
            raise InvalidArgumentError(
                f"a PairFlow holds 1-D arrays of one length, one entry an edge; got shapes {shapes}"
            )
        if not (np.isfinite(self.flow).all() and (self.flow >= 0).all()):
            raise InvalidArgumentError("the flow on every edge of a PairFlow must be finite and >= 0")


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Frozen):
    """How much each input position can send to a prediction through a transformer's attention.

    Parameters
    ----------
    tokens
        The n tokens, decoded so that a person can read them. May repeat. Of an encoder-decoder the encoder's come
        first, `n_source` of them, then the decoder's.
    offsets
        For each token its ``(start, end)`` characters in `text`, or None for a token that is not in the text (a start
        token, say).
    text
        What was explained; behind it, after a line end in an encoder-decoder, what the model said.
    players
        Positions that are sources, ascending, shape ``(n_players,)``.
    targets
        One entry a sink: the position, or the tuple of positions joined in it.
    target_label
        What was explained, in words: ``"next token after 'to'"``.
    values, lower, upper
        Float64, ``(n_sinks, n_players)``: maximum flow from each player to each sink, and its certified bounds.
    bottlenecks
        Int32, ``(n_sinks, n_players)``: where the minimum cut lies. ``SOURCE`` (-1), ``SINK`` (-2), ``NONE``
        (-3: nothing arrives), or a link index >= 0, which is layer ``index + 1``.
    kind
        ``"decoder"``, ``"encoder"`` or ``"encoder-decoder"``.
    n_layers, n_nodes, n_edges
        Size of the network that was solved.
    definition
        Which definition of attention flow the numbers follow, in one sentence.
    prediction
        The predicted token and its probability, or None for a model without a prediction.
    timings
        Stage -> seconds, in the order the stages ran.
    options
        Option -> value (model, measure, residual, heads, calibration, start_token, algorithm, threads ...): strings,
        numbers, bools, None, and lists of these, which become tuples.
    verified
        True when every solve passed the certificate: the flow is feasible and equals the capacity of a cut.
    flows
        Edge flows of a few (player, sink) pairs for the picture of the flow, or None.
    n_source
        How many of the tokens an encoder read for a decoder; 0 for models of one stack.
    sink_labels
        One a sink, in words: the tokens of an answer, say. None: see `target_label`, and the positions in `targets`.
    predictions
        One a sink: the token and the probability that the model gave it. None: see `prediction`.
    link_names
        Names of the links that bottlenecks refer to, where these are not simply the layers from the input up.
    grid
        Where the positions of an image's patches or of a recording's frames lie. None for text.

    Examples
    --------
    >>> a = Attribution(
    ...     tokens=("The", " cat", " sat"), offsets=((0, 3), (3, 7), (7, 11)), text="The cat sat", players=[0, 1, 2],
    ...     targets=(2,), target_label="next token", values=[[0.25, 0.5, 0.75]], lower=[[0.25, 0.5, 0.75]],
    ...     upper=[[0.25, 0.5, 0.75]], bottlenecks=[[0, -1, -2]], kind="decoder", n_layers=2, n_nodes=9, n_edges=12,
    ...     definition="independent maximum flows")
    >>> a
    <Attribution of next token: 3 players, 1 sink, top ' sat' 0.75, ' cat' 0.5, 'The' 0.25>
    >>> a.scores
    array([0.25, 0.5 , 0.75])
    >>> a.top(1)[0].token, a.bottleneck_label(0)
    (' sat', 'layer 1')
    >>> round(a.position_correlation, 12)  # the later, the higher: position explains this ranking entirely
    1.0
    """

    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int] | None, ...]
    text: str
    players: NDArray[np.int64]
    targets: tuple[tuple[int, ...], ...]
    target_label: str
    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    bottlenecks: NDArray[np.int32]
    kind: Kind
    n_layers: int
    n_nodes: int
    n_edges: int
    definition: str
    prediction: tuple[str, float] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    verified: bool = False
    flows: tuple[PairFlow, ...] | None = None
    n_source: int = 0
    sink_labels: tuple[str, ...] | None = None
    predictions: tuple[tuple[str, float], ...] | None = None
    link_names: tuple[str, ...] | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        for name, kind in (("text", str), ("target_label", str), ("definition", str), ("verified", bool | np.bool_)):
            if not isinstance(given := getattr(self, name), kind):
                raise InvalidArgumentError(f"{name} must be a {'str' if kind is str else 'bool'}, got {given!r}")
        _put(self, "verified", bool(self.verified))
        n = len(self.tokens)
        _put(self, "tokens", tuple(self.tokens))
        if n == 0 or not all(isinstance(token, str) for token in self.tokens):
            raise InvalidArgumentError(f"tokens must be one or more strings, got {self.tokens!r}")
        _put(self, "offsets", tuple(None if span is None else (int(span[0]), int(span[1])) for span in self.offsets))
        if len(self.offsets) != n:
            raise InvalidArgumentError(f"offsets must hold one entry a token: {n} tokens, {len(self.offsets)} offsets")
        for position, span in enumerate(self.offsets):
            if span is not None and not 0 <= span[0] <= span[1] <= len(self.text):
                raise InvalidArgumentError(
                    f"offsets[{position}] = {span} is no span of the text, which has {len(self.text)} characters"
                )
        _put(self, "players", _frozen(self.players, np.int64, "players"))
        if self.players.ndim != 1 or self.players.size == 0 or (np.diff(self.players) <= 0).any():
            raise InvalidArgumentError(
                f"players must be a 1-D array of ascending positions, got {self.players.tolist()}"
            )
        _put(self, "targets", tuple(_joined(t, f"targets[{i}]") for i, t in enumerate(self.targets)))
        for name, positions in [("players", self.players.tolist()), *(("targets", t) for t in self.targets)]:
            if not positions or min(positions) < 0 or max(positions) >= n:
                raise InvalidArgumentError(
                    f"{name} must be positions of the {n} tokens (0..{n - 1}), got {list(positions)}"
                )
        if self.kind not in ("decoder", "encoder", "encoder-decoder"):
            raise InvalidArgumentError(f"kind must be 'decoder', 'encoder' or 'encoder-decoder', got {self.kind!r}")
        _put(self, "n_source", integer(self.n_source, "n_source", low=0, high=n - 1))
        if (self.n_source > 0) != (self.kind == "encoder-decoder"):
            raise InvalidArgumentError(
                f"n_source is {self.n_source}: an encoder-decoder has one source token at least and other models have "
                f"none, and kind is {self.kind!r}"
            )
        self._check_labels(n)
        self._check_numbers((len(self.targets), self.players.size))
        if self.prediction is not None:
            _put(self, "prediction", _prediction(self.prediction))
        _put(self, "timings", MappingProxyType({str(k): float(v) for k, v in self.timings.items()}))
        _put(self, "options", MappingProxyType({str(k): _plain(v, str(k)) for k, v in self.options.items()}))
        if self.flows is not None:
            _put(self, "flows", tuple(self.flows))
            for pair in self.flows:
                self._check_pair(pair)

    def _check_labels(self, n: int) -> None:
        for name in ("sink_labels", "predictions"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.targets):
                raise InvalidArgumentError(f"{name} must hold one entry a sink: {len(given)} for {len(self.targets)}")
        if self.sink_labels is not None:
            _put(self, "sink_labels", tuple(str(label) for label in self.sink_labels))
        if self.predictions is not None:
            _put(self, "predictions", tuple(map(_prediction, self.predictions)))
        if self.link_names is not None:
            _put(self, "link_names", tuple(str(name) for name in self.link_names))
        if self.grid is not None:
            start, shape = self.grid
            shape = tuple(integer(side, "a side of the grid", low=1) for side in shape)
            start = integer(start, "the start of the grid", low=0)
            if not shape or start + math.prod(shape) > n:
                raise InvalidArgumentError(
                    f"a grid of shape {shape} from position {start} does not fit into {n} positions"
                )
            _put(self, "grid", Grid(start, shape))

    def _check_numbers(self, shape: tuple[int, int]) -> None:
        """Give the arrays their dtype and refuse what no solver could have returned."""
        for name in ("values", "lower", "upper"):
            array = _frozen(getattr(self, name), np.float64, name)
            if array.shape != shape:
                raise InvalidArgumentError(f"{name} must have shape (n_sinks, n_players) = {shape}, got {array.shape}")
            if not np.isfinite(array).all() or (array < 0).any():
                raise InvalidArgumentError(f"{name} must be finite and >= 0 everywhere")
            _put(self, name, array)
        # An interval that does not hold its own value would be worse than none; the slack is a rounding of float64.
        slack = 1e-9 * np.maximum(1.0, self.upper)
        if ((self.lower > self.values + slack) | (self.values > self.upper + slack)).any():
            raise InvalidArgumentError("lower <= values <= upper must hold everywhere")
        _put(self, "bottlenecks", _frozen(self.bottlenecks, np.int32, "bottlenecks"))
        if self.bottlenecks.shape != shape:
            raise InvalidArgumentError(f"bottlenecks must have shape {shape}, got {self.bottlenecks.shape}")
        if (self.bottlenecks < NONE).any():
            raise InvalidArgumentError("bottlenecks must be SOURCE (-1), SINK (-2), NONE (-3) or a link index >= 0")
        for name in ("n_layers", "n_nodes", "n_edges"):
            _put(self, name, integer(getattr(self, name), name, low=0))
        last = int(self.bottlenecks.max(initial=NONE))
        if self.link_names is not None and last >= len(self.link_names):
            raise InvalidArgumentError(
                f"bottlenecks hold link {last}, and link_names has {len(self.link_names)} entries: one a link is needed"
            )

    def _check_pair(self, pair: PairFlow) -> None:
        if pair.source not in self.players or not 0 <= pair.sink < len(self.targets):
            raise InvalidArgumentError(
                f"a PairFlow must lead from a player to one of the {len(self.targets)} sinks; "
                f"got position {pair.source} to sink {pair.sink}"
            )
        # Layer n_layers is the mean over positions, if there is one; its only receiver is position 0.
        for name, array, top in (
            ("giver", pair.giver, len(self.tokens)),
            ("receiver", pair.receiver, len(self.tokens)),
            ("layer", pair.layer, len(self.link_names or ()) or self.n_layers + 1),
        ):
            if array.size and (array.min() < 0 or array.max() >= top):
                raise InvalidArgumentError(
                    f"a PairFlow's {name} must lie in 0..{top - 1}, got {array.min()}..{array.max()}"
                )

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores of the players: shape ``(n_players,)`` for one sink, ``(n_sinks, n_players)`` for several."""
        return self.values[0] if len(self.targets) == 1 else self.values

    def visible(self, sink: int = 0) -> NDArray[np.bool_]:
        """Which players a sink can see at all: in a decoder those not after it. Shape ``(n_players,)``."""
        if self.kind == "encoder":
            return np.ones(self.players.size, dtype=np.bool_)
        # What an encoder read stands before all that a decoder says.
        return np.asarray(self.players <= max(self.targets[self._sink(sink)]), dtype=np.bool_)

    @property
    def source(self) -> Attribution | None:
        """The part about the tokens that an encoder read; None where there are none among the players."""
        return self._side(self.players < self.n_source if self.kind != "encoder" else self.players >= 0)

    @property
    def decoder(self) -> Attribution | None:
        """The part about the tokens that a decoder read or said; None where there are none among the players."""
        return self._side(self.players >= self.n_source if self.kind != "encoder" else self.players < 0)

    def _side(self, mask: NDArray[np.bool_]) -> Attribution | None:
        if mask.all() or not mask.any():
            return self if mask.any() else None
        parts = {name: getattr(self, name)[:, mask] for name in ("values", "lower", "upper", "bottlenecks")}
        kept = None if self.flows is None else tuple(f for f in self.flows if f.source in self.players[mask])
        return replace(self, players=self.players[mask], flows=kept, **parts)

    def on_grid(self, sink: int = 0) -> NDArray[np.float64]:
        """Scores towards one sink where they lie in the image or recording: shape ``grid.shape``, NaN for no player.

        Raises
        ------
        InvalidArgumentError
            What was explained has no grid.
        """
        if self.grid is None:
            raise InvalidArgumentError("this result is not of an image or a recording: it has no grid")
        cells = np.full(math.prod(self.grid.shape), np.nan)
        places = self.players - self.grid.start
        inside = (places >= 0) & (places < cells.size)
        cells[places[inside]] = self.values[self._sink(sink)][inside]
        return cells.reshape(self.grid.shape)

    @property
    def position_correlation(self) -> float:
        """Spearman correlation of score with position, over the players a sink can see; the mean over several sinks.

        1 or -1 means that the ranking is the order of the tokens and says nothing about their content. What an encoder
        read and what its decoder said have an order each, and the mean counts either by its players. NaN when it is
        not defined: fewer than two players, or scores all equal.
        """
        defined = []
        for sink in range(len(self.targets)):
            seen, source = self.visible(sink), self.players < self.n_source
            sides = [side for side in (seen & source, seen & ~source) if side.any()]
            found = [(spearman(self.values[sink][side], self.players[side]), int(side.sum())) for side in sides]
            found = [(rho, count) for rho, count in found if not math.isnan(rho)]
            if found:
                defined.append(sum(rho * count for rho, count in found) / sum(count for _, count in found))
        return sum(defined) / len(defined) if defined else math.nan

    @property
    def trivial_fraction(self) -> float:
        """Fraction of the nonzero scores whose minimum cut is the source's or the sink's own edges (NaN if none).

        Such a score is a column sum of the first layer, or a row sum of the last: no route in between mattered.
        """
        alive = self.values > 0
        trivial = alive & ((self.bottlenecks == SOURCE) | (self.bottlenecks == SINK))
        return float(trivial.sum() / alive.sum()) if alive.any() else math.nan

    def bottleneck_label(self, player: int, sink: int = 0) -> str:
        """Where a score's minimum cut lies: ``"source"``, ``"sink"``, ``"layer 7"``, ``"pooling"`` or ``"none"``.

        In an encoder-decoder, or where generated tokens are read again, the link's name in `link_names`.

        `player` counts in :attr:`players`, `sink` in :attr:`targets`.
        """
        player = as_position(player, "player", self.players.size, "the result", "player")
        code = int(self.bottlenecks[self._sink(sink), player])
        if code < 0:
            return {SOURCE: "source", SINK: "sink", NONE: "none"}[code]
        if self.link_names is not None:
            return self.link_names[code]
        return f"layer {code + 1}" if code < self.n_layers else "pooling"

    def rows(self, sink: int = 0) -> list[Score]:
        """Every player's score towards one sink, in the order of the text."""
        sink = self._sink(sink)
        values, lower, upper = (array[sink].tolist() for array in (self.values, self.lower, self.upper))
        return [
            Score(p, self.tokens[p], values[i], lower[i], upper[i], self.bottleneck_label(i, sink))
            for i, p in enumerate(self.players.tolist())
        ]

    def top(self, k: int = 10, sink: int = 0) -> list[Score]:
        """The k highest scores, highest first; equal scores in the order of the text."""
        return sorted(self.rows(sink), key=lambda row: -row.score)[: integer(k, "k", low=0)]

    def _sink(self, sink: int) -> int:
        return as_position(sink, "sink", len(self.targets), "the result", "sink")

    # -- what it becomes ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The result as plain lists, numbers and strings: what ``save("x.json")`` writes. Floats survive exactly."""
        from .views import storage

        return storage.to_dict(self) | {"options": {name: _lists(value) for name, value in self.options.items()}}

    def to_pandas(self) -> Any:
        """One row a score: sink, target, position, token, start, end, score, lower, upper, bottleneck (a DataFrame).

        Where there is something to tell apart, further columns: `label` and `probability` of a sink that has them,
        `part` ("source", "decoder") in an encoder-decoder, `row` and `column` of a patch or `frame` of a recording. A
        token that a sink cannot see has a score of 0 and the bottleneck "none".
        """
        from .views import table

        return table.to_pandas(self)

    def show(self, *, compare: Sequence[Attribution] = ()) -> None:
        """Show the result where you are: as a page in a notebook, as text in a terminal.

        `compare` holds further attributions of the same tokens, shown beside this one.
        """
        from . import views

        views.show(self, *compare)

    def save(self, path: str | os.PathLike[str], *, compare: Sequence[Attribution] = ()) -> Path:
        """Write the result to a file, of the kind its suffix says: ``.html``, ``.svg``, ``.json`` or ``.npz``.

        The file appears whole or not at all. ``.json`` and ``.npz`` are read back by :meth:`load`; `compare` adds
        attributions of the same tokens to a picture (``.html``, ``.svg``). Returns the path.
        """
        from .views import storage

        return storage.save(self, Path(path), tuple(compare))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Attribution:
        """Read a result that :meth:`save` wrote as ``.json`` or ``.npz``.

        Raises
        ------
        FileFormatError
            The file is damaged, is something else, or was written by a later version.
        OSError
            It cannot be read at all.
        """
        from .views import storage

        return storage.load(Path(path))

    def _repr_html_(self) -> str:
        from .views import html

        return html.fragment(self)

    def _repr_mimebundle_(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> dict[str, str]:
        """What a notebook shows; plain text remains where jinja2 is not installed."""
        bundle = {"text/plain": repr(self)}
        try:
            bundle["text/html"] = self._repr_html_()
        except MissingDependencyError as error:
            print(error, file=sys.stderr)
        return bundle

    def __repr__(self) -> str:
        sizes = f"{self.players.size} players, {len(self.targets)} sink{'s' * (len(self.targets) != 1)}"
        top = ", ".join(f"{row.token!r} {row.score:.3g}" for row in self.top(3))
        return f"<Attribution of {self.target_label}: {sizes}, top {top}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attribution) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # equal by content, which is large: not a key


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN for fewer than two pairs or a constant side.

    Examples
    --------
    >>> spearman([1, 2, 2, 9], [3, 4, 4, 5])
    1.0
    """
    a, b = _ranks(np.asarray(x)), _ranks(np.asarray(y))
    if a.size < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / norm)) if norm > 0 else math.nan


def _ranks(x: NDArray[Any]) -> NDArray[np.float64]:
    """Rank of each entry from 1, equal entries sharing the mean of the ranks they take up."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], dtype=np.float64)


def _put(instance: object, name: str, value: object) -> None:
    object.__setattr__(instance, name, value)  # how a frozen dataclass sets its own fields


def _frozen(values: ArrayLike, dtype: type[np.generic], name: str) -> NDArray[Any]:
    """A read-only copy, refusing what does not fit the dtype instead of rounding it."""
    try:
        source = np.asarray(values)
        if np.issubdtype(dtype, np.integer) and source.size and not np.issubdtype(source.dtype, np.integer):
            raise TypeError(f"dtype {source.dtype}")
        array = np.array(source, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name} must be an array of {np.dtype(dtype).name}: {error}") from error
    array.flags.writeable = False
    return array


def _prediction(given: tuple[str, float]) -> tuple[str, float]:
    token, probability = given
    if not 0 <= float(probability) < math.inf:
        raise InvalidArgumentError(f"the probability of {token!r} must be finite and >= 0, got {probability}")
    return str(token), float(probability)


def _joined(target: int | Iterable[int], name: str) -> tuple[int, ...]:
    return tuple(integer(member, name) for member in (target if is_many(target) else [target]))


def _plain(value: Any, name: str) -> Any:
    """An option in types that JSON knows, so that every file holds what the result holds; tuples cannot be changed."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(_plain(v, name) for v in value)
    raise InvalidArgumentError(
        f"option {name!r} must be a string, a finite number, a bool, None or a list of these, got {value!r}"
    )


def _lists(value: Any) -> Any:
    return [_lists(member) for member in value] if isinstance(value, tuple) else value
