"""The game of a network: v(S) is the maximum flow from all players in S, joined, to a sink."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _kernel
from .._kernel import Edges
from .._positions import Node
from ..errors import InvalidArgumentError
from ..maxflow import Link

__all__ = ["Game", "Values", "exact_sums"]


@dataclass(frozen=True)
class Values:
    """What coalitions are worth, in exact integers.

    Attributes
    ----------
    quanta : numpy.ndarray
        (n_orders, length) int64: ``[o, i]`` is v of the first i + 1 players of order o, in quanta of 2^-exponent.
    everyone : int
        v of all players.
    exponent : int
        See `quanta`.
    rounding : float
        No v of the capacities as given is larger than what is told by more than this. Mostly 0.
    stats : dict
        What the kernel counted.
    """

    quanta: NDArray[np.int64]
    everyone: int
    exponent: int
    rounding: float
    stats: dict[str, Any]


@dataclass(frozen=True)
class Game:
    """A network, its players and a sink.

    Attributes
    ----------
    sizes, links
        Those of a Network, checked.
    players : tuple of tuples of nodes
        Pairs (block, position); no node is part of two players.
    sink : tuple of nodes
        Joined in one.
    """

    sizes: tuple[int, ...]
    links: tuple[Link, ...]
    players: tuple[tuple[Node, ...], ...]
    sink: tuple[Node, ...]

    def __post_init__(self) -> None:
        owner: dict[Node, int] = {}
        for player, nodes in enumerate(self.players):
            for node in nodes:
                if owner.setdefault(node, player) != player:
                    raise InvalidArgumentError(
                        f"players[{player}] and players[{owner[node]}] both hold position {node[1]} of block "
                        f"{node[0]}: players share no position"
                    )

    @property
    def n_players(self) -> int:
        """How many players there are."""
        return len(self.players)

    def values(self, orders: NDArray[np.uint32], options: dict[str, Any]) -> Values:
        """What the first players of each order are worth, for all lengths.

        Parameters
        ----------
        orders
            (n_orders, length): players, none of them twice in a row of the array; ``NOBODY`` ends an order early.
        options
            As :func:`attnflow._kernel.checked` returns them, with `check`.
        """
        game = self.with_doors()
        first = [0, *accumulate(game.sizes)]
        links = [(link.giver, link.receiver, link.capacities, link.offset) for link in game.links]
        raw = _kernel.prefix_values(
            game.sizes,
            [Edges(f"link {index}", *link) for index, link in enumerate(links)],
            [[first[block] + position for block, position in nodes] for nodes in game.players],
            [first[block] + position for block, position in game.sink],
            orders,
            options,
        )
        # Each edge of a cut may have lost less than one quantum.
        n_edges = sum(math.prod(link.capacities.shape) for link in game.links)
        lost = 0.0 if raw["exact"] else math.ldexp(float(n_edges), -raw["exponent"])
        return Values(raw["values"], raw["all"], raw["exponent"], lost, raw["stats"])

    def with_doors(self) -> Game:
        """The same game, with unbounded doors into blocks of players that edges enter.

        A generated token that is read again is entered by what it came from. That counts for others, and not for
        itself: it becomes a node behind a door of its own, which nothing enters. Blocks and links are added behind
        those there are.
        """
        entered = {link.receiver for link in self.links} & {block for nodes in self.players for block, _ in nodes}
        if not entered:
            return self
        sizes, links, doors = list(self.sizes), list(self.links), {}
        for block in sorted(entered):
            doors[block] = len(sizes)
            sizes.append(self.sizes[block])
            links.append(Link(doors[block], block, np.full(self.sizes[block], np.inf, dtype=np.float32)))
        players = (tuple((doors.get(block, block), position) for block, position in nodes) for nodes in self.players)
        return Game(tuple(sizes), tuple(links), tuple(players), self.sink)


def exact_sums(quanta: NDArray[np.int64]) -> list[int]:
    """Sums of columns that int64 may not hold."""
    low = (quanta & 0x7FFFFFFF).sum(axis=0).tolist()
    high = (quanta >> 31).sum(axis=0).tolist()
    return [(int(h) << 31) + int(part) for h, part in zip(high, low, strict=True)]
