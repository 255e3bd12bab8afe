"""From a network to scores: the flow of each player alone, shares of what all of them send, or products of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..maxflow import NONE
from ._kinds import FLOWS, Attributed

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["Evidence", "Scores", "Scoring", "Solved"]

Progress = Callable[[int, int], object]
Players = Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Arrays (n_sinks, n_players), and what is known of how they came about."""

    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    bottlenecks: NDArray[np.int32]
    standard_errors: NDArray[np.float64] | None = None
    permutations: int = 0
    verified: bool = False
    stats: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def exact(cls, values: NDArray[np.float64]) -> Scores:
        """Of what is no flow, and has neither bounds nor cuts."""
        return cls(values, values, values, np.full(values.shape, NONE, dtype=np.int32))

    def arrays(self) -> dict[str, Any]:
        """Those there are, by the names that a result has for them."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: part for name, part in found.items() if isinstance(part, np.ndarray)}

    def map(self, change: Callable[[NDArray[Any]], NDArray[Any]], *, numbers: bool = False) -> Scores:
        """With all arrays changed, or all but the codes of bottlenecks."""
        kept = ("bottlenecks",) if numbers else ()
        changed: dict[str, Any] = {name: change(part) for name, part in self.arrays().items() if name not in kept}
        return replace(self, **changed)

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Of several networks, one a sink."""
        if len(parts) == 1:
            return parts[0]
        names = list(parts[0].arrays())
        together: dict[str, Any] = {name: np.concatenate([part.arrays()[name] for part in parts]) for name in names}
        return replace(
            parts[0],
            **together,
            permutations=max(part.permutations for part in parts),
            verified=all(part.verified for part in parts),
        )


@dataclass(frozen=True)
class Scoring:
    """How scores are made of a network.

    Parameters
    ----------
    attribution
        One that a network has: a flow, a share, "rollout" or "widest_path".
    sampling
        Options of :meth:`attnflow.Network.shapley_values`, for "shapley".
    solver
        `threads`, `algorithm` and `check` of :meth:`attnflow.Network.source_flows`.
    """

    attribution: Attributed
    sampling: Mapping[str, Any]
    solver: Mapping[str, Any]

    def of(self, network: Network, sinks: Any, players: Players, progress: Progress | None = None) -> Scores:
        """The scores of groups of input positions towards each sink."""
        if self.attribution == "rollout":
            return Scores.exact(network.rollout(sinks, sources=players))
        if self.attribution == "widest_path":
            return Scores.exact(network.widest_path(sinks, sources=players))
        assert self.attribution in FLOWS
        told = progress if self.attribution == "independent" else None
        flows = network.source_flows(sinks, sources=players, bottlenecks=True, progress=told, **self.solver)
        assert flows.bottlenecks is not None
        verified = bool(flows.stats.get("checked", self.solver["check"]))
        own = Scores(
            flows.values, flows.lower, flows.upper, flows.bottlenecks, verified=verified, stats=dict(flows.stats)
        )
        return own if self.attribution == "independent" else self._shares(network, sinks, players, progress, own)

    def _shares(self, network: Network, sinks: Any, players: Players, progress: Progress | None, own: Scores) -> Scores:
        """Shares of a joint flow; bottlenecks are those of the players' own flows."""
        options = {"threads": self.solver["threads"], "check": self.solver["check"], "progress": progress}
        if self.attribution == "shapley":
            found = network.shapley_values(sinks, players=players, **self.sampling, **options)
            found.check()
            # Where orders were drawn, two standard errors are much more than what rounding lost.
            width = 2 * found.standard_errors + found.rounding[:, None]
            errors = found.standard_errors if found.method == "sampled" else None
            own = replace(own, standard_errors=errors, permutations=max(found.permutations))
            values, verified = found.values, found.verified
        else:
            assert self.attribution in ("fair", "barrier")
            split = network.joint_flow(sinks, rule=self.attribution, players=players, **options)
            split.check()
            width = split.rounding[:, None] + split.errors[:, None] * split.values
            values, verified = split.values, split.verified
        return replace(
            own,
            values=values,
            lower=np.maximum(values - width, 0),
            upper=values + width,
            verified=own.verified and verified,
        )


@dataclass(frozen=True)
class Solved:
    """A network, and its sinks as positions of its last block."""

    network: Network
    sinks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """What scores were computed from: they can be checked, and computed again for groups of tokens.

    Attributes
    ----------
    solved : tuple of Solved
        The network and its sinks; where gradients are taken for each sink, a network each.
    scoring : Scoring
        How.
    players : tuple of tuples of int
        The input positions that each player is made of: all who play, of whom a result may show some.
    positions : tuple of int
        Where each player stands among the tokens of the result.
    fields : numpy.ndarray, optional
        (n_sinks, n_inputs): the size of each input position's receptive field, which scores were divided by.
    rows, columns : tuple of int, optional
        The sinks and players that a result shows, None for all.
    """

    solved: tuple[Solved, ...]
    scoring: Scoring
    players: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    fields: NDArray[np.float64] | None = None
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None

    def scores(self, *, check: bool = False) -> Scores:
        """All of it again."""
        scoring = replace(self.scoring, solver={**self.scoring.solver, "check": True}) if check else self.scoring
        every = Scores.joined([scoring.of(one.network, one.sinks, self.players) for one in self.solved])
        return self._shown(divided(every, self.fields, self.players))

    def _shown(self, every: Scores) -> Scores:
        rows = range(len(every.values)) if self.rows is None else self.rows
        columns = range(len(self.players)) if self.columns is None else self.columns
        return every.map(lambda part: part[np.ix_(rows, columns)])

    def showing(self, rows: Sequence[int], columns: Sequence[int]) -> Evidence:
        """For a part of a result: some of its sinks and players, by their number there."""
        old_rows = range(sum(len(one.sinks) for one in self.solved)) if self.rows is None else self.rows
        old_columns = range(len(self.players)) if self.columns is None else self.columns
        return replace(
            self, rows=tuple(old_rows[row] for row in rows), columns=tuple(old_columns[column] for column in columns)
        )

    def grouped(self, members: Sequence[Sequence[int]]) -> Evidence:
        """With groups of the result's positions as players: those that hold any player, and show any that is shown."""
        at = {position: number for number, position in enumerate(self.positions)}
        shown = set(range(len(self.players)) if self.columns is None else self.columns)
        players: list[tuple[int, ...]] = []
        positions: list[int] = []
        columns: list[int] = []
        for unit, group in enumerate(members):
            mine = [at[position] for position in group if position in at]
            if not mine:
                continue
            if not shown.isdisjoint(mine):
                columns.append(len(players))
            players.append(tuple(sorted(position for number in mine for position in self.players[number])))
            positions.append(unit)
        return replace(self, players=tuple(players), positions=tuple(positions), columns=tuple(columns))


def divided(scores: Scores, receptive: NDArray[np.float64] | None, players: Players) -> Scores:
    """By the receptive fields (n_sinks, n_inputs) of the players; of several positions the largest counts."""
    if receptive is None:
        return scores
    largest = np.stack([receptive[:, list(group)].max(axis=1) for group in players], axis=1)
    return scores.map(lambda part: part / largest, numbers=True)
