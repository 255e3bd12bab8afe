"""Orders of players: those that pass through every coalition, and random ones in pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._kernel import NOBODY

__all__ = ["antithetic_orders", "orders_through_all", "prefix_masks"]


def orders_through_all(n_players: int) -> NDArray[np.uint32]:
    """As few orders as there can be so that every set of players is how one of them begins.

    Sets of half the players are not part of each other, so there must be ``comb(n, n // 2)`` orders; and so many are
    enough: the subsets fall into so many chains, symmetric about the middle [1]_. Read a subset as parentheses, a
    member closing and a non-member opening. The chain goes through the sets with the same matched ones; its first set
    holds none of the others, and they join it from left to right.

    Returns
    -------
    numpy.ndarray
        ``(comb(n, n // 2), n)`` uint32; each order ends with its chain, and NOBODY follows.

    References
    ----------
    .. [1] Greene and Kleitman, "Strong Versions of Sperner's Theorem", J. Combinatorial Theory A 20 (1976).

    Examples
    --------
    >>> orders_through_all(3).astype(np.int32)
    array([[ 0,  1,  2],
           [ 1,  2, -1],
           [ 2,  0, -1]], dtype=int32)
    """
    masks = np.arange(1 << n_players, dtype=np.uint32)
    open_ones = np.zeros(masks.size, dtype=np.int8)
    smallest = np.ones(masks.size, dtype=bool)  # all members matched: the first of its chain
    for player in range(n_players):
        member = (masks >> player & 1).astype(bool)
        smallest &= ~member | (open_ones > 0)
        open_ones += np.where(member, -1, 1).astype(np.int8)
    masks = masks[smallest]
    inside = (masks[:, None] >> np.arange(n_players, dtype=np.uint32) & 1).astype(bool)
    unmatched = np.zeros_like(inside)
    closing = np.zeros(masks.size, dtype=np.int8)
    for player in range(n_players - 1, -1, -1):
        unmatched[:, player] = ~inside[:, player] & (closing == 0)
        closing = np.maximum(closing + np.where(inside[:, player], 1, -1), 0).astype(np.int8)
    # Members first, then the unmatched; each ascending; the matched non-members never come.
    key = np.where(inside, 0, np.where(unmatched, 1, 2))
    orders = np.argsort(key, axis=1, kind="stable").astype(np.uint32)
    orders[np.take_along_axis(key, orders.astype(np.intp), axis=1) == 2] = NOBODY
    return orders


def prefix_masks(orders: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """``(n_orders, length)``: the players who have come, bit i of a mask being player i."""
    bits = np.where(orders == NOBODY, np.uint32(0), np.uint32(1) << np.minimum(orders, np.uint32(31)))
    return np.bitwise_or.accumulate(bits, axis=1)


def antithetic_orders(n_players: int, n_pairs: int, generator: np.random.Generator) -> NDArray[np.uint32]:
    """``(2 n_pairs, n)``: random orders, each followed by its reverse: who came late comes early."""
    rows = np.broadcast_to(np.arange(n_players, dtype=np.uint32), (n_pairs, n_players))
    orders = generator.permuted(rows, axis=1)
    return np.stack([orders, orders[:, ::-1]], axis=1).reshape(2 * n_pairs, n_players)
