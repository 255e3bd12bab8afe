"""The frozen result: every score belongs to a position."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._frozen import Frozen
from .._positions import as_position, integer, number
from ..errors import InvalidArgumentError, MissingDependencyError
from ..maxflow import NONE, SINK, SOURCE
from . import _operations
from ._kinds import ATTRIBUTIONS, COMBINATION, FLOWS, SIGNED, Attributed, Kind
from ._parts import Grid, PairFlow, Score, frozen, joined, lists, plain, prediction, put
from ._ranks import spearman
from ._scoring import Evidence

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..bottlenecks import Bottleneck, Paths

__all__ = ["Attribution"]


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
        Float64, ``(n_sinks, n_players)``: maximum flow from each player to each sink, or its share of what all players
        send, or what flows are compared with (see `attribution`); and bounds: certified ones, or of sampled shares two
        standard errors either way. Never negative, but for gradients, for tokens left out, and for combinations.
    bottlenecks
        Int32, ``(n_sinks, n_players)``: where the minimum cut of the player's own flow lies. ``SOURCE`` (-1), ``SINK``
        (-2), ``NONE`` (-3: nothing arrives), or a link index >= 0, which is layer ``index + 1``.
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
        True when every solve passed the certificate: the flow is feasible and equals the capacity of a cut. What is no
        flow has none.
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
    attribution
        ``"independent"``: each player's flow by itself, so that shared capacity counts for each. ``"shapley"``,
        ``"fair"``, ``"barrier"``: shares of one joint flow, which add up to it. ``"rollout"``, ``"widest_path"``,
        ``"raw_attention"``, ``"mean_attention"``, ``"gradient_x_input"``, ``"leave_one_out"``, ``"random"``: no flows,
        but what they are compared with. ``"combination"``: sums, differences and multiples of results.
    standard_errors
        Of sampled Shapley values: float64, ``(n_sinks, n_players)``. Else None.
    members
        Where tokens were merged to words or other units: for each of `tokens`, the positions that the model read.
    evidence
        The network, so that scores can be checked and computed again for groups of tokens. Not in files.

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
    attribution: Attributed | Literal["combination"] = "independent"
    standard_errors: NDArray[np.float64] | None = None
    members: tuple[tuple[int, ...], ...] | None = None
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        for name, kind in (("text", str), ("target_label", str), ("definition", str), ("verified", bool | np.bool_)):
            if not isinstance(given := getattr(self, name), kind):
                raise InvalidArgumentError(f"{name} must be a {'str' if kind is str else 'bool'}, got {given!r}")
        put(self, "verified", bool(self.verified))
        n = len(self.tokens)
        put(self, "tokens", tuple(self.tokens))
        if n == 0 or not all(isinstance(token, str) for token in self.tokens):
            raise InvalidArgumentError(f"tokens must be one or more strings, got {self.tokens!r}")
        put(self, "offsets", tuple(None if span is None else (int(span[0]), int(span[1])) for span in self.offsets))
        if len(self.offsets) != n:
            raise InvalidArgumentError(f"offsets must hold one entry a token: {n} tokens, {len(self.offsets)} offsets")
        for position, span in enumerate(self.offsets):
            if span is not None and not 0 <= span[0] <= span[1] <= len(self.text):
                raise InvalidArgumentError(
                    f"offsets[{position}] = {span} is no span of the text, which has {len(self.text)} characters"
                )
        put(self, "players", frozen(self.players, np.int64, "players"))
        if self.players.ndim != 1 or self.players.size == 0 or (np.diff(self.players) <= 0).any():
            raise InvalidArgumentError(
                f"players must be a 1-D array of ascending positions, got {self.players.tolist()}"
            )
        put(self, "targets", tuple(joined(t, f"targets[{i}]") for i, t in enumerate(self.targets)))
        for name, positions in [("players", self.players.tolist()), *(("targets", t) for t in self.targets)]:
            if not positions or min(positions) < 0 or max(positions) >= n:
                raise InvalidArgumentError(
                    f"{name} must be positions of the {n} tokens (0..{n - 1}), got {list(positions)}"
                )
        if self.kind not in ("decoder", "encoder", "encoder-decoder"):
            raise InvalidArgumentError(f"kind must be 'decoder', 'encoder' or 'encoder-decoder', got {self.kind!r}")
        kinds = (*ATTRIBUTIONS, COMBINATION)
        if not isinstance(self.attribution, str) or self.attribution not in kinds:
            raise InvalidArgumentError(f"attribution must be {', '.join(map(repr, kinds))}, got {self.attribution!r}")
        put(self, "n_source", integer(self.n_source, "n_source", low=0, high=n - 1))
        if (self.n_source > 0) != (self.kind == "encoder-decoder"):
            raise InvalidArgumentError(
                f"n_source is {self.n_source}: an encoder-decoder has one source token at least and other models have "
                f"none, and kind is {self.kind!r}"
            )
        self._check_labels(n)
        self._check_numbers((len(self.targets), self.players.size))
        if self.prediction is not None:
            put(self, "prediction", prediction(self.prediction))
        put(self, "timings", MappingProxyType({str(k): float(v) for k, v in self.timings.items()}))
        put(self, "options", MappingProxyType({str(k): plain(v, str(k)) for k, v in self.options.items()}))
        if self.flows is not None:
            put(self, "flows", tuple(self.flows))
            for pair in self.flows:
                self._check_pair(pair)

    def _check_labels(self, n: int) -> None:
        for name in ("sink_labels", "predictions"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.targets):
                raise InvalidArgumentError(f"{name} must hold one entry a sink: {len(given)} for {len(self.targets)}")
        if self.sink_labels is not None:
            put(self, "sink_labels", tuple(str(label) for label in self.sink_labels))
        if self.predictions is not None:
            put(self, "predictions", tuple(map(prediction, self.predictions)))
        if self.link_names is not None:
            put(self, "link_names", tuple(str(name) for name in self.link_names))
        if self.members is not None:
            put(self, "members", tuple(joined(member, f"members[{i}]") for i, member in enumerate(self.members)))
            if len(self.members) != n or not all(self.members):
                raise InvalidArgumentError(f"members must hold one entry a token, and none empty: {n} tokens")
        if self.grid is not None:
            start, shape = self.grid
            shape = tuple(integer(side, "a side of the grid", low=1) for side in shape)
            start = integer(start, "the start of the grid", low=0)
            if not shape or start + math.prod(shape) > n:
                raise InvalidArgumentError(
                    f"a grid of shape {shape} from position {start} does not fit into {n} positions"
                )
            put(self, "grid", Grid(start, shape))

    def _check_numbers(self, shape: tuple[int, int]) -> None:
        """Give the arrays their dtype and refuse what no solver could have returned."""
        for name in ("values", "lower", "upper"):
            array = frozen(getattr(self, name), np.float64, name)
            if array.shape != shape:
                raise InvalidArgumentError(f"{name} must have shape (n_sinks, n_players) = {shape}, got {array.shape}")
            if not np.isfinite(array).all() or (self.attribution not in SIGNED and (array < 0).any()):
                raise InvalidArgumentError(f"{name} must be finite and >= 0 everywhere")
            put(self, name, array)
        # An interval that does not hold its own value would be worse than none; the slack is a rounding of float64.
        slack = 1e-9 * np.maximum(1.0, np.abs(self.values))
        if ((self.lower > self.values + slack) | (self.values > self.upper + slack)).any():
            raise InvalidArgumentError("lower <= values <= upper must hold everywhere")
        if self.standard_errors is not None:
            errors = frozen(self.standard_errors, np.float64, "standard_errors")
            if errors.shape != shape or not (np.isfinite(errors).all() and (errors >= 0).all()):
                raise InvalidArgumentError(f"standard_errors must be finite, >= 0 and of shape {shape}, or None")
            put(self, "standard_errors", errors)
        put(self, "bottlenecks", frozen(self.bottlenecks, np.int32, "bottlenecks"))
        if self.bottlenecks.shape != shape:
            raise InvalidArgumentError(f"bottlenecks must have shape {shape}, got {self.bottlenecks.shape}")
        if (self.bottlenecks < NONE).any():
            raise InvalidArgumentError("bottlenecks must be SOURCE (-1), SINK (-2), NONE (-3) or a link index >= 0")
        for name in ("n_layers", "n_nodes", "n_edges"):
            put(self, name, integer(getattr(self, name), name, low=0))
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
        return self[:, mask] if mask.any() else None

    @property
    def is_flow(self) -> bool:
        """Whether scores are flows or shares of one, which have cuts and certificates."""
        return self.attribution in FLOWS

    @property
    def is_signed(self) -> bool:
        """Whether scores may be below zero."""
        return self.attribution in SIGNED

    def arrays(self) -> dict[str, Any]:
        """Everything there is of shape ``(n_sinks, n_players)``, by name."""
        names = ("values", "lower", "upper", "bottlenecks", "standard_errors")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

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

        Such a score is a column sum of the first layer, or a row sum of the last: no route in between mattered. Of
        shares of a joint flow: that of the players' own flows. NaN for what is no flow.
        """
        alive = self.values > 0
        trivial = alive & ((self.bottlenecks == SOURCE) | (self.bottlenecks == SINK))
        return float(trivial.sum() / alive.sum()) if alive.any() and self.is_flow else math.nan

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
        """The k highest scores, highest first; equal scores in the order of the text.

        Of scores that may be below zero, those furthest from it.
        """
        return sorted(self.rows(sink), key=lambda row: -abs(row.score))[: integer(k, "k", low=0)]

    def _sink(self, sink: int) -> int:
        return as_position(sink, "sink", len(self.targets), "the result", "sink")

    # -- what can be done with it ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many sinks there are."""
        return len(self.targets)

    def __iter__(self) -> Iterator[Attribution]:
        """The parts about one sink each."""
        return (self[sink] for sink in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The `values`, for functions of numpy."""
        return np.array(self.values, dtype=dtype, copy=copy)

    __array_ufunc__ = None  # an array and a result do not add up: which of the two would it be?

    def __getitem__(self, key: Any) -> Attribution:
        """A part: ``result[sinks]`` or ``result[sinks, players]``, counted in :attr:`targets` and :attr:`players`.

        Indices, slices, several indices or masks, as of an array of numpy, but that both axes stay. Shares stay shares
        of what all players send. Players keep the order of the text.

        Raises
        ------
        InvalidArgumentError
            An index out of range, of another kind, given twice, or a part without sinks or players.
        """
        sinks, players = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
        rows = _operations.indices(sinks, len(self.targets), "sinks")
        return _operations.part(self, rows, _operations.indices(players, self.players.size, "players"))

    def __add__(self, other: Attribution) -> Attribution:
        """The sum of the scores of the same players towards the same sinks."""
        return _operations.combined(self, other, 1) if isinstance(other, Attribution) else NotImplemented

    def __sub__(self, other: Attribution) -> Attribution:
        """The difference of scores: what one method, model or text has more than another.

        Bounds are those of the difference; a standard error is at most the sum of both.

        Raises
        ------
        InvalidArgumentError
            The results are not about the same tokens, players and sinks.
        """
        return _operations.combined(self, other, -1) if isinstance(other, Attribution) else NotImplemented

    def __mul__(self, factor: float) -> Attribution:
        """All scores times a number."""
        return _operations.scaled(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Attribution:
        """All scores divided by a number."""
        if isinstance(divisor, (int, float)) and divisor == 0:
            raise InvalidArgumentError("a result cannot be divided by 0")
        return _operations.scaled(self, 1 / number(divisor, "the divisor of a result", above=-math.inf))

    def __neg__(self) -> Attribution:
        """All scores with the other sign."""
        return _operations.scaled(self, -1)

    def merge(self, units: Literal["words", "sentences"] | Sequence[tuple[int, int]]) -> Attribution:
        """The same with words, sentences or other spans of the text as players, computed anew.

        The tokens of a word share capacity, so that their flows do not add up: each word is one source, and of shares
        one player. What a word can send lies between its best token's flow and the sum of all of them. Where a sink's
        or a player's tokens are some of a word, the word stands for these.

        Parameters
        ----------
        units : "words", "sentences", or a sequence of (start, end)
            Words are runs of letters, digits and marks, and of other signs; sentences end behind . ! ? and at the end
            of a line. Spans are characters of `text`, as `offsets` are. Which tokens belong to them, the tokenizer's
            offsets say; tokens that belong to none stay alone.

        Returns
        -------
        Attribution
            Over units: they are its `tokens`, and `members` says what each is made of.

        Raises
        ------
        InvalidArgumentError
            Unknown units; spans that overlap, hold no token or lie outside of the text; tokens without offsets; a
            result that cannot be computed again: of flows one that was read from a file, and tokens that were left out
            (``explain(..., units="words")`` does both from the start).
        """
        return _operations.merged(self, units)

    def bottleneck(self, player: int = 0, sink: int = 0) -> Bottleneck:
        """What limits a player's own flow to a sink: cuts nearest either end, full edges, what more capacity would add.

        `player` counts in :attr:`players`, `sink` in :attr:`targets`; see :meth:`attnflow.Network.bottleneck`. Raises
        InvalidArgumentError where there is no network: the result is of a file, or no flow.
        """
        network, source, target = _operations.pair(self, player, sink)
        return network.bottleneck(source, target)

    def paths(self, player: int = 0, sink: int = 0, *, most: int | None = None) -> Paths:
        """A player's own flow to a sink, as paths; like :meth:`bottleneck`, and :meth:`attnflow.Network.paths`."""
        network, source, target = _operations.pair(self, player, sink)
        return network.paths(source, target, most=most)

    def check(self) -> None:
        """Verify the result once more: solve its network again, and compare.

        Every flow is checked by the kernel - conservation, capacities, and a cut of the same value -, shares must add
        up to what all players send, all scores must be the same to the last bit, and the flows that are there to be
        drawn must be flows of the network. Takes as long as computing it.

        Raises
        ------
        CertificateError
            Something differs: the result was changed, or there is a defect.
        InvalidArgumentError
            There is no network: the result is of a file, or no flow.
        """
        _operations.check(self)

    # -- what it becomes ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The result as plain lists, numbers and strings: what ``save("x.json")`` writes. Floats survive exactly."""
        from ..views import storage

        return storage.to_dict(self) | {"options": {name: lists(value) for name, value in self.options.items()}}

    def to_pandas(self) -> Any:
        """One row a score: sink, target, position, token, start, end, score, lower, upper, bottleneck (a DataFrame).

        What is no flow has no bottleneck. Sampled shares have a standard_error.
        Where there is something to tell apart, further columns: `label` and `probability` of a sink that has them,
        `part` ("source", "decoder") in an encoder-decoder, `row` and `column` of a patch or `frame` of a recording. A
        token that a sink cannot see has a score of 0 and the bottleneck "none".
        """
        from ..views import table

        return table.to_pandas(self)

    def show(self, *, compare: Sequence[Attribution] = ()) -> None:
        """Show the result where you are: as a page in a notebook, as text in a terminal.

        `compare` holds further attributions of the same tokens, shown beside this one.
        """
        from .. import views

        views.show(self, *compare)

    def save(self, path: str | os.PathLike[str], *, compare: Sequence[Attribution] = ()) -> Path:
        """Write the result to a file, of the kind its suffix says: ``.html``, ``.svg``, ``.json`` or ``.npz``.

        The file appears whole or not at all. ``.json`` and ``.npz`` are read back by :meth:`load`; `compare` adds
        attributions of the same tokens to a picture (``.html``, ``.svg``). Returns the path.
        """
        from ..views import storage

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
        from ..views import storage

        return storage.load(Path(path))

    def _repr_html_(self) -> str:
        from ..views import html

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
        if not isinstance(other, Attribution):
            return NotImplemented
        # How long it took is no part of what was found.
        return self.to_dict() | {"timings": {}} == other.to_dict() | {"timings": {}}

    __hash__ = None  # type: ignore[assignment]  # equal by content, which is large: not a key
