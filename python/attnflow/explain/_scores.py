"""Which scores are asked for, and those that a network has; `_probing` has the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..attribution import (
    ATTRIBUTIONS,
    FLOWS,
    UNITS,
    Attributed,
    Evidence,
    Scores,
    Scoring,
    Solved,
    divided,
    grouping,
    options_word,
    regrouped,
    units_said,
)
from ..errors import InvalidArgumentError
from ..network import Network
from . import _networks
from ._clock import Clock
from ._networks import Method
from ._plan import Plan
from ._reading import Reading

if TYPE_CHECKING:
    from ..capture import Contributions
    from ._probing import LeaveOut

__all__ = ["Asked", "Players", "Scored", "on_network"]

_SAMPLING = ("permutations", "tolerance", "seed")

_WORDS = {
    "independent": "independent maximum flows: from each player alone to the target",
    "shapley": "Shapley values ({}) of the maximum flow from all players together to the target",
    "fair": "the fair split of the maximum flow from all players together to the target",
    "barrier": "the log-barrier centre of the maximum flows from all players together to the target",
    "rollout": "no flow, but the sum over all paths from each player to the target of the product of their capacities",
    "widest_path": "no maximum flow, but the bottleneck of the best single path from each player to the target",
    "raw_attention": "no flow, but what the target draws from each player in the last layer, by {measure}",
    "mean_attention": "no flow, but what the target draws from each player in a layer, by {measure}: the mean over all "
    "layers",
    "gradient_x_input": "no flow, but each player's {read} times the gradient of {objective} by it",
    "leave_one_out": "no flow, but how far {objective} drops without each player, {left_out}",
    "random": "no flow, but random numbers between 0 and 1, to compare with",
}


class Players(NamedTuple):
    """Who plays: tokens, or words and other units."""

    about: dict[str, Any]
    """What a result says of positions: tokens, offsets, text, players, targets, n_source."""
    members: tuple[tuple[int, ...], ...] | None
    """Of units: the positions that each is made of."""
    groups: tuple[tuple[int, ...], ...]
    """The input positions of each player."""


@dataclass(frozen=True, eq=False, repr=False)
class Scored:
    """Scores, and the networks that they were made of, if any."""

    scores: Scores
    players: Players
    solved: tuple[Solved, ...] = ()
    n_nodes: int = 0
    n_edges: int = 0
    link_names: tuple[str, ...] | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """What kind of scores a call asks for: options of :func:`attnflow.explain`."""

    attribution: Attributed
    sampling: Mapping[str, Any] | None
    leave_out: LeaveOut
    units: Any
    evidence: bool
    solver: Mapping[str, Any]
    batch_size: int

    def verify(self, method: Method) -> None:
        """Refuse what cannot be, before the model runs for nothing."""
        if not isinstance(self.attribution, str) or self.attribution not in ATTRIBUTIONS:
            raise InvalidArgumentError(
                f"attribution must be one of {', '.join(map(repr, ATTRIBUTIONS))}, got {self.attribution!r}"
            )
        if self.sampling is not None and not isinstance(self.sampling, Mapping):
            raise InvalidArgumentError(f"sampling must be a mapping of {', '.join(_SAMPLING)}, got {self.sampling!r}")
        known = {"shapley": _SAMPLING, "random": ("seed",)}.get(self.attribution, ())
        for name in self.sampling or ():
            if name not in _SAMPLING:
                raise InvalidArgumentError(f"sampling has no {name!r}: it may hold {', '.join(_SAMPLING)}")
            if name not in known:
                raise InvalidArgumentError(
                    f"sampling has {name!r}, which is of attribution='shapley', and it is {self.attribution!r}: leave "
                    "it out"
                )
        if self.attribution in ("shapley", "random"):  # the other's seed is read by the same rule
            Network.encoder(np.ones((1, 1, 1))).shapley_values(**(self.sampling or {}))
            if (self.sampling or {}).get("permutations") == 2:
                raise InvalidArgumentError(
                    "sampling has permutations=2: one order and its reverse have no standard error, which bounds a "
                    "score. Draw 4 or more"
                )
        if not isinstance(self.leave_out, str) or self.leave_out not in ("mask", "delete"):
            raise InvalidArgumentError(f"leave_out must be 'mask' or 'delete', got {self.leave_out!r}")
        if self.leave_out != "mask" and self.attribution != "leave_one_out":
            raise InvalidArgumentError(
                f"leave_out={self.leave_out!r} is of attribution='leave_one_out', and it is {self.attribution!r}"
            )
        if isinstance(self.units, str) and self.units not in ("tokens", *UNITS):
            raise InvalidArgumentError(
                f"units must be 'tokens', {', '.join(map(repr, UNITS))} or spans (start, end) of the text, got "
                f"{self.units!r}"
            )
        if self.attribution != "independent" and (method.keep is not None or method.below is not None):
            raise InvalidArgumentError(
                f"attribution={self.attribution!r} needs all edges: leave out keep and below, or take 'independent'"
            )
        if method.residual is not None and not self.on_network:
            raise InvalidArgumentError(
                f"residual={method.residual!r} is of a network, and attribution={self.attribution!r} has none"
            )
        unusable = {"chain": method.chain, "receptive_field": method.receptive_field}
        for name, on in unusable.items():
            if on and (not self.on_network or (name == "chain" and self.attribution == "rollout")):
                raise InvalidArgumentError(f"{name}=True has no meaning for attribution={self.attribution!r}")

    @property
    def on_network(self) -> bool:
        """Whether scores are computed on a network."""
        return self.attribution in (*FLOWS, "rollout", "widest_path")

    @property
    def of_objective(self) -> bool:
        """Whether scores are about a number that the model puts out."""
        return self.attribution in ("gradient_x_input", "leave_one_out")

    def measure(self, given: Any) -> Any:
        """The measure of contributions, where none is given that of the method."""
        default = "alti" if self.on_network else "attention"
        return default if given is None else given

    @property
    def scoring(self) -> Scoring:
        """The computation on a network."""
        return Scoring(self.attribution, dict(self.sampling or {}), dict(self.solver))

    @property
    def by_units(self) -> bool:
        """Whether players are more than tokens."""
        return not isinstance(self.units, str) or self.units != "tokens"

    def players(self, reading: Reading, plan: Plan) -> Players:
        """Who plays."""
        about: dict[str, Any] = {
            "tokens": reading.tokens,
            "offsets": reading.offsets,
            "text": reading.text,
            "players": list(plan.players),
            "targets": plan.sinks,
            "n_source": reading.n_source,
        }
        if not self.by_units:
            return Players(about, None, tuple((position,) for position in plan.players))
        found = grouping(reading.text, reading.offsets, self.units)
        about = regrouped(about, found)
        playing = set(plan.players)
        groups = tuple(tuple(p for p in found.members[unit] if p in playing) for unit in about["players"])
        return Players(about, found.members, groups)

    def options(self) -> dict[str, Any]:
        """What a result says of them."""
        found: dict[str, Any] = {}
        if self.attribution != "independent":
            found |= {"attribution": self.attribution, **(self.sampling or {})}
        if self.attribution == "leave_one_out":
            found["leave_out"] = self.leave_out
        if self.by_units:
            found["units"] = options_word(self.units)
        return found

    def words(self, scores: Scores, **told: str) -> str:
        """What a score is."""
        how = f"sampled from {scores.permutations} orders of the players" if scores.permutations else "exact"
        return _WORDS[self.attribution].format(how, **told)

    def suffix(self) -> str:
        """What else is to be said of the players."""
        return f"; {units_said(self.units)}" if self.by_units else ""


def on_network(
    asked: Asked,
    method: Method,
    reading: Reading,
    captures: list[Contributions],
    plan: Plan,
    players: Players,
    clock: Clock,
) -> Scored:
    """Build the network, or one for each sink where gradients were taken of each, and score its players."""
    drawn = [_networks.Matrices(one) for one in captures]
    captures[:] = map(_networks.lightened, captures)
    each_sinks = [plan.sinks] if len(captures) == 1 else [(sink,) for sink in plan.sinks]
    stage = "shares" if asked.attribution in FLOWS[1:] else "flow"
    solved: list[Solved] = []
    scored: list[Scores] = []
    for one, matrices, sinks in zip(captures, drawn, each_sinks, strict=True):
        with clock.stage("network"):
            made = _networks.build(one, matrices, reading, replace(plan, sinks=sinks), method)
        with clock.stage(stage) as step:
            scored.append(asked.scoring.of(made.network, made.sinks, players.groups, step))
        if asked.evidence or not solved:
            solved.append(Solved(made.network, tuple(map(tuple, made.sinks))))
    fields = _networks.receptive_fields(captures[0], reading, plan) if method.receptive_field else None
    evidence = None
    if asked.evidence:
        positions = tuple(players.about["players"])
        evidence = Evidence(tuple(solved), asked.scoring, players.groups, positions, fields)
    return Scored(
        divided(Scores.joined(scored), fields, players.groups),
        players,
        tuple(solved[:1]),
        made.network.n_nodes,
        made.network.n_edges,
        made.link_names,
        evidence,
    )
