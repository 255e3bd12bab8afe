"""Shapley values of the flow game: every player's fair share of what all send together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _kernel
from .._frozen import Frozen
from .._kernel import NOBODY, Progress
from .._positions import integer, number
from ..errors import InvalidArgumentError
from ._game import Game, Values, exact_sums
from ._orders import antithetic_orders, orders_through_all, prefix_masks
from ._shares import nearest, to_the_last_bit, verify

__all__ = ["ShapleyValues", "shapley_values"]

_MOST_EXACT = 20
"""More players than that have more coalitions than there is time for."""

_FEW = 14
"""So many are solved exactly unless something else is said: it takes less than a second."""

# Pairs of orders between two looks at the tolerance. Part of what a seed means: results would differ in the last digits
# of standard errors otherwise.
_PAIRS = 64

# A player who adds much in one order of hundreds may not have had it yet: standard errors are those of the sample and
# so many pairs more, in which one of both orders gave him all he can send or would have. Of players who add something
# in most orders that is next to nothing.
_UNSEEN_PAIRS = 4

# Entries of all orders of a call of the kernel, which sorts them and sends what they have in common once: the more, the
# cheaper each is, up to 32 MB of them.
_MOST_ENTRIES = 1 << 22


@dataclass(frozen=True, eq=False, repr=False)
class ShapleyValues(Frozen):
    """Shapley values of v(S) = maximum flow from the players in S, joined, to a sink.

    Attributes
    ----------
    values : numpy.ndarray
        (n_sinks, n_players) float64, >= 0. Each row adds up to its `total` to the last bit, in whatever order.
    standard_errors : numpy.ndarray
        (n_sinks, n_players) float64, from pairs of an order and its reverse and from four made-up ones, half of what a
        player sends alone off: who happened to add nothing is not certain to. 0 where `method` is "exact".
    total : numpy.ndarray
        (n_sinks,) float64: what all players send together.
    players : tuple of tuples of int
        Positions of each player.
    method : {"exact", "sampled"}
        Whether all coalitions were solved, or orders drawn.
    permutations : tuple of int
        A sink: the orders drawn; 0 where `method` is "exact".
    rounding : numpy.ndarray
        (n_sinks,) float64: how far the kernel's rounding of capacities can have moved a value. Mostly 0.
    verified : bool
        Whether every value of a coalition equals the capacity of a cut, and every order's flow is one.
    stats : Mapping
        What the kernel counted, of the last call.
    """

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    total: NDArray[np.float64]
    players: tuple[tuple[int, ...], ...]
    method: Literal["exact", "sampled"]
    permutations: tuple[int, ...]
    rounding: NDArray[np.float64]
    verified: bool = False
    stats: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Assert what Shapley values must fulfil: none negative, and together the total, to the last bit.

        Raises
        ------
        CertificateError
            They do not.
        """
        verify(self.values, self.total)

    def __repr__(self) -> str:
        sinks, players = self.values.shape
        how = "exact" if self.method == "exact" else f"{max(self.permutations)} permutations"
        return f"ShapleyValues(n_sinks={sinks}, n_players={players}, {how})"


def shapley_values(
    games: Sequence[Game],
    players: Sequence[Sequence[int]],
    *,
    method: str,
    permutations: int | None,
    tolerance: float | None,
    seed: int,
    threads: int | None,
    check: bool,
    progress: Progress | None,
) -> ShapleyValues:
    """Shapley values of one game a sink, all of the same players; see :meth:`attnflow.Network.shapley_values`."""
    options = _kernel.checked(threads, progress, check=check)
    plain = permutations is None and tolerance is None
    if not isinstance(method, str) or method not in ("auto", "exact", "sampled"):
        raise InvalidArgumentError(f"method is {method!r}; it must be 'auto', 'exact' or 'sampled'")
    if method == "exact" and not plain:
        raise InvalidArgumentError("method='exact' draws no permutations: leave out permutations and tolerance")
    if method == "exact" and len(players) > _MOST_EXACT:
        raise InvalidArgumentError(
            f"method='exact' solves the coalitions of up to {_MOST_EXACT} players, and there are {len(players)}: "
            "sample them, or join several in one player"
        )
    tolerance = None if tolerance is None else number(tolerance, "tolerance", above=0)
    few = 1000 if tolerance is None else 1_000_000
    most = few if permutations is None else integer(permutations, "permutations", low=2)
    if most % 2:
        raise InvalidArgumentError(f"permutations is {most}; it must be even: each order comes with its reverse")
    seed = integer(seed, "seed", low=0)
    exact = method == "exact" or (method == "auto" and plain and len(players) <= _FEW)
    each = math.comb(len(players), len(players) // 2) if exact else most

    def options_from(first: int) -> Callable[[int], dict[str, Any]]:
        def after(before: int) -> dict[str, Any]:
            if progress is None:
                return options
            return {**options, "progress": lambda done, _: progress(first + before + done, each * len(games))}

        return after

    rows: list[_Row] = []
    for row, game in enumerate(games):
        options_after = options_from(row * each)
        if exact:
            rows.append(_exact(game, options_after(0)))
        else:
            generator = np.random.default_rng([seed, row])
            rows.append(_sampled(game, most, tolerance, generator, options_after))
    if progress is not None:
        progress(each * len(games), each * len(games))
    return ShapleyValues(
        values=np.stack([row.values for row in rows]),
        standard_errors=np.stack([row.standard_errors for row in rows]),
        total=np.array([row.total for row in rows]),
        players=tuple(tuple(player) for player in players),
        method="exact" if exact else "sampled",
        permutations=tuple(row.permutations for row in rows),
        rounding=np.array([row.rounding for row in rows]),
        verified=options["check"],
        stats=rows[-1].stats,
    )


@dataclass(frozen=True)
class _Row:
    """Values of one sink."""

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    total: float
    permutations: int
    rounding: float
    stats: dict[str, Any]


def _exact(game: Game, options: dict[str, Any]) -> _Row:
    """From the values of all coalitions, in integers throughout.

    Orders that pass through all 2^n of them are asked for, comb(n, n/2) in number; the weights are fractions.
    """
    n = game.n_players
    orders = orders_through_all(n)
    found = game.values(orders, options)
    values = np.zeros(1 << n, dtype=np.int64)
    present = orders != NOBODY
    values[prefix_masks(orders)[present]] = found.quanta[present]
    shares = _weighted(values, n)
    return _Row(
        to_the_last_bit(shares, found.everyone, found.exponent),
        np.zeros(n),
        nearest(found.everyone, found.exponent),
        0,
        found.rounding,
        found.stats,
    )


def _weighted(values: NDArray[np.int64], n: int) -> list[Fraction]:
    """The Shapley value of each player, from v of every set of players: bit i of an index being player i."""
    # The others of a coalition, by number: marginal values of coalitions of one size have one weight.
    sizes = np.zeros(1, dtype=np.intp)
    for _ in range(n - 1):
        sizes = np.concatenate([sizes, sizes + 1])
    shares = []
    for player in range(n):
        split = values.reshape(-1, 2, 1 << player)
        marginal = (split[:, 1] - split[:, 0]).ravel()
        # Sums of 31 bits each, which float64 holds exactly for up to 2^22 of them.
        low = np.bincount(sizes, (marginal & 0x7FFFFFFF).astype(np.float64), n)
        high = np.bincount(sizes, (marginal >> 31).astype(np.float64), n)
        shares.append(
            sum(
                (
                    Fraction((int(h) << 31) + int(part), n * math.comb(n - 1, size))
                    for size, (h, part) in enumerate(zip(high.tolist(), low.tolist(), strict=True))
                ),
                Fraction(0),
            )
        )
    return shares


def _sampled(
    game: Game,
    permutations: int,
    tolerance: float | None,
    generator: np.random.Generator,
    options_after: Callable[[int], dict[str, Any]],
) -> _Row:
    """The mean marginal value over random orders, each with its reverse; options, after so many orders.

    A mean over orders keeps the axioms that hold for each order: the values add up to v of all players, and who adds
    nothing to any coalition gets nothing.
    """
    n = game.n_players
    alone = game.values(np.arange(n, dtype=np.uint32)[:, None], options_after(0)).quanta[:, 0]
    sums = [0] * n
    pairs, mean, spread = 0, np.zeros(n), np.zeros(n)  # of pairs; the sum of squares about the mean
    errors = np.full(n, np.inf)
    found = None
    for orders, found, quanta in _in_chunks(game, permutations, tolerance is not None, generator, options_after):
        chunk = len(orders) // 2
        marginal = np.diff(quanta, axis=1, prepend=0)
        by_player = np.empty_like(marginal)
        np.put_along_axis(by_player, orders.astype(np.intp), marginal, axis=1)
        sums = [a + b for a, b in zip(sums, exact_sums(by_player), strict=True)]
        # In units of about the total: squares of 1e-200 and 1e200 are not in float64.
        unit = found.everyone.bit_length()
        halves = np.ldexp(by_player.astype(np.float64), -unit).reshape(chunk, 2, n).mean(axis=1)
        # Chan's update, chunk by chunk: the same whatever the threads did.
        chunk_mean = halves.mean(axis=0)
        shift = chunk_mean - mean
        spread += ((halves - chunk_mean) ** 2).sum(axis=0) + shift**2 * (pairs * chunk / (pairs + chunk))
        mean += shift * (chunk / (pairs + chunk))
        pairs += chunk
        # No marginal value is above what a player sends alone.
        unseen = _UNSEEN_PAIRS * np.ldexp(alone.astype(np.float64), -unit - 1) ** 2
        errors = np.ldexp(np.sqrt((spread + unseen) / max(1, pairs - 1) / pairs), unit - found.exponent)
        if tolerance is not None and pairs >= _PAIRS and errors.max(initial=0.0) <= tolerance:
            break
    assert found is not None
    shares = [Fraction(part, 2 * pairs) for part in sums]
    return _Row(
        to_the_last_bit(shares, found.everyone, found.exponent),
        errors if pairs > 1 else np.full(n, np.inf),
        nearest(found.everyone, found.exponent),
        2 * pairs,
        found.rounding,
        found.stats,
    )


def _in_chunks(
    game: Game,
    permutations: int,
    may_stop: bool,
    generator: np.random.Generator,
    options_after: Callable[[int], dict[str, Any]],
) -> Iterator[tuple[NDArray[np.uint32], Values, NDArray[np.int64]]]:
    """Random orders and the values along them, `_PAIRS` pairs at a time; the kernel gets as many at once as it can.

    Where it may stop early, twice as many at each call: at most half of all are for nothing.
    """
    n = game.n_players
    most = max(1, _MOST_ENTRIES // (2 * _PAIRS * n))
    pairs, at_once = 0, 1 if may_stop else most
    while 2 * pairs < permutations:
        left = permutations // 2 - pairs
        sizes = [min(_PAIRS, left - first) for first in range(0, min(left, at_once * _PAIRS), _PAIRS)]
        parts = [antithetic_orders(n, size, generator) for size in sizes]
        found = game.values(np.concatenate(parts), options_after(2 * pairs))
        first = 0
        for part in parts:
            yield part, found, found.quanta[first : first + len(part)]
            first += len(part)
        pairs += sum(sizes)
        at_once = min(2 * at_once, most)
