"""One maximum flow of all players together, and who sends how much of it.

A maximum flow splits in many ways: what players can send in one is any point of the base polytope of v, x(S) <= v(S)
for all S and x(all) = v(all). The fair split is the point whose least share is largest, then the next, and so on. It
is unique, and of all of them the one with the least sum of squares [1]_.

Decomposition [2]_. If all of them can have the mean of v, the mean is their share. Otherwise some set S of players is
worth less than the mean times their number: none of them gets as much as the mean, the others get more, and S is split
by itself, the others beside S. A maximum flow from players who may send the mean each tells S: those who could send
more than they may, and could not if all of S did.

References
----------
.. [1] Fujishige, "Lexicographically Optimal Base of a Polymatroid with Respect to a Weight Vector", Mathematics of
   Operations Research 5 (1980).
.. [2] Megiddo, "Optimal Flows in Networks with Multiple Sources and Sinks", Mathematical Programming 7 (1974);
   Groenevelt, "Two Algorithms for Maximizing a Separable Concave Function over a Polymatroid Feasible Region",
   European Journal of Operational Research 54 (1991).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .. import _kernel, maxflow
from .._frozen import Frozen
from .._kernel import NOBODY, Progress
from .._positions import Node, number
from ..errors import InvalidArgumentError
from ..maxflow import EdgeFlows, Flows, Link
from ._game import Game
from ._shares import nearest, to_the_last_bit, verify

__all__ = ["JointFlow", "joint_flow"]

Rule = Literal["fair", "barrier", "any"]


@dataclass(frozen=True, eq=False, repr=False)
class JointFlow(Frozen):
    """One maximum flow from all players together to each sink, and how much of it each of them sends.

    Attributes
    ----------
    values : numpy.ndarray
        (n_sinks, n_players) float64: what leaves each player. Each row adds up to its `total` to the last bit, in
        whatever order.
    total : numpy.ndarray
        (n_sinks,) float64: the value of the maximum flow.
    players : tuple of tuples of int
        Positions of each player.
    rule : {"fair", "barrier", "any"}
        How the flow was chosen among all maximum flows. "any": the first player sends all he can, the next what is left
        to him, and so on.
    levels : tuple of tuples of tuples of int
        A sink: the groups of players (by number) that have one share, the smallest share first. Of "fair" alone.
    flows : tuple of maxflow.EdgeFlows
        A sink: the edges that carry it, of :attr:`attnflow.Network.links`.
    rounding : numpy.ndarray
        (n_sinks,) float64: how far the kernel's rounding of capacities can have moved a share. Mostly 0.
    errors : numpy.ndarray
        (n_sinks,) float64: of "barrier", Newton's decrement at the end, at most the tolerance: how far the flow on an
        edge may be from the centre's, relative to its distance from 0 or from the capacity. Else 0.
    verified : bool
        Whether every flow that was solved on the way passed the kernel's certificate.
    stats : Mapping
        What the kernel counted, of the last flow.
    """

    values: NDArray[np.float64]
    total: NDArray[np.float64]
    players: tuple[tuple[int, ...], ...]
    rule: Rule
    levels: tuple[tuple[tuple[int, ...], ...], ...]
    flows: tuple[EdgeFlows, ...]
    rounding: NDArray[np.float64]
    errors: NDArray[np.float64]
    verified: bool = False
    stats: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Assert that the shares are not negative and add up to the total, to the last bit.

        Raises
        ------
        CertificateError
            They do not.
        """
        verify(self.values, self.total)

    def __repr__(self) -> str:
        sinks, players = self.values.shape
        return f"JointFlow(n_sinks={sinks}, n_players={players}, rule={self.rule!r})"


def joint_flow(
    games: Sequence[Game],
    players: Sequence[Sequence[int]],
    *,
    rule: str,
    tolerance: float,
    threads: int | None,
    check: bool,
    progress: Progress | None,
) -> JointFlow:
    """One joint flow a sink; see :meth:`attnflow.Network.joint_flow`."""
    options = _kernel.checked(threads, progress, check=check)
    if not isinstance(rule, str) or rule not in get_args(Rule):
        raise InvalidArgumentError(f"rule is {rule!r}; it must be 'fair', 'barrier' or 'any'")
    tolerance = number(tolerance, "tolerance", above=0)
    if progress is not None:  # of a single flow: not worth telling; Ctrl-C is looked for all the same
        options["progress"] = None
    splits = []
    for done, game in enumerate(games):
        splits.append(_Split(game, options))
        splits[-1].run(cast(Rule, rule), tolerance)
        if progress is not None:
            progress(done + 1, len(games))
    return JointFlow(
        values=np.stack([split.values for split in splits]),
        total=np.array([split.total for split in splits]),
        players=tuple(tuple(player) for player in players),
        rule=cast(Rule, rule),
        levels=tuple(split.levels for split in splits),
        flows=tuple(split.edges for split in splits),
        rounding=np.array([split.rounding for split in splits]),
        errors=np.array([split.error for split in splits]),
        verified=options["check"],
        stats=splits[-1].stats,
    )


class _Split:
    """The joint flow of one game."""

    def __init__(self, game: Game, options: dict[str, Any]) -> None:
        self.n_links, self.n = len(game.links), game.n_players  # those that a caller knows
        self.game = game = game.with_doors()
        self.options = options
        # Each player behind two nodes of his own: an allowance between them, and free passage to his positions.
        purse = len(game.sizes)
        self.purse, self.sizes = purse, (*game.sizes, self.n, self.n)
        passages: dict[tuple[int, int], NDArray[np.float32]] = {}  # by block and offset
        for player, nodes in enumerate(game.players):
            for block, position in nodes:
                place = block, position - player
                passages.setdefault(place, np.zeros(self.n, dtype=np.float32))[player] = np.inf
        self.passages = [Link(purse + 1, block, open_, offset) for (block, offset), open_ in passages.items()]
        self.levels: tuple[tuple[int, ...], ...] = ()
        self.error = 0.0

    def run(self, rule: Rule, tolerance: float) -> None:
        """Find the shares, and a flow that has them."""
        found = self.game.values(self._order(range(self.n)), {**self.options, "threads": 1})
        self.exponent, self.rounding = found.exponent, found.rounding
        self.total = nearest(found.everyone, found.exponent)
        if rule == "fair":
            groups = self._groups(found.everyone)
            self.levels = tuple(tuple(group) for group, _ in groups)
            by_player = {player: Fraction(worth, len(group)) for group, worth in groups for player in group}
            shares = [by_player[player] for player in range(self.n)]
        else:
            shares = [Fraction(marginal) for marginal in np.diff(found.quanta[0], prepend=0).tolist()]
        self.values = to_the_last_bit(shares, found.everyone, found.exponent)
        # Shares are rounded, and what they allow may fall short of a maximum flow by a last bit.
        allowed = np.full(self.n, np.inf) if rule == "barrier" else self.values
        flow = self._flow(range(self.n), allowed, flows=True)
        assert flow.flows is not None
        edges, self.stats = _of_links(flow.flows, len(self.game.links)), flow.stats
        if rule == "barrier":
            from ._barrier import centre  # seldom asked for, and with a room of its own behind it

            middle = centre(self.game, edges, flow.stats["quantum"], tolerance)
            edges, self.error = middle.edges, middle.error
            parts = [Fraction(share) for share in middle.shares.tolist()]
            together = sum(parts) or Fraction(1)
            shares = [part * found.everyone / together for part in parts]
            self.values = to_the_last_bit(shares, found.everyone, found.exponent)
        self.edges = _of_links(edges, self.n_links)

    def _groups(self, everyone: int) -> list[tuple[list[int], int]]:
        """Players of one share and what they send together, in quanta; the smallest share first."""
        done: list[tuple[list[int], int]] = []
        before: list[int] = []  # whose shares are known
        waiting = [(list(range(self.n)), everyone)]  # worth: beside those before
        while waiting:
            group, worth = waiting.pop()
            poor = self._poor(before, group, Fraction(worth, len(group)))
            if poor:
                theirs = self._worth([*before, *poor]) - sum(part for _, part in done)
                if 0 < len(poor) < len(group) and theirs * len(group) < worth * len(poor):
                    others = [player for player in group if player not in set(poor)]
                    waiting += [(others, worth - theirs), (poor, theirs)]
                    continue
            done.append((group, worth))
            before += group
        return done

    def _poor(self, before: list[int], group: list[int], mean: Fraction) -> list[int]:
        """Those of a group who cannot all have the mean, if there are such."""
        allowed = np.zeros(self.n)
        allowed[before] = np.inf
        allowed[group] = math.ldexp(float(mean), -self.exponent)
        cuts = self._flow([*before, *group], allowed, cuts=True).cuts
        assert cuts is not None
        could_send_more = cuts[0][0].source_side[self.purse + 1]
        return [player for player in group if could_send_more[player]]

    def _flow(
        self, players: Sequence[int], allowed: NDArray[np.float64], *, cuts: bool = False, flows: bool = False
    ) -> Flows:
        """A maximum flow from some players, none of whom sends more than is allowed."""
        links = [*self.game.links, Link(self.purse, self.purse + 1, allowed), *self.passages]
        sources: list[Node] = [(self.purse, player) for player in players]
        sinks = [list(self.game.sink)]
        return maxflow.blocks(self.sizes, links, sources=[sources], sinks=sinks, cuts=cuts, flows=flows, **self.options)

    def _worth(self, coalition: Sequence[int]) -> int:
        found = self.game.values(self._order(coalition), {**self.options, "threads": 1})
        return int(found.quanta[0, len(coalition) - 1])

    def _order(self, coalition: Sequence[int]) -> NDArray[np.uint32]:
        return np.fromiter(chain(coalition, [NOBODY] * (self.n - len(coalition))), np.uint32, self.n)[None]


def _of_links(edges: EdgeFlows, n_links: int) -> EdgeFlows:
    """The edges of the first links alone."""
    some = edges.link < n_links
    return EdgeFlows(edges.link[some], edges.receiver[some], edges.giver[some], edges.flow[some])
