"""Shares of a total, as float64 that add up to it to the last bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..errors import CertificateError

__all__ = ["nearest", "to_the_last_bit", "verify"]


def to_the_last_bit(shares: Sequence[Fraction], total: int, exponent: int) -> NDArray[np.float64]:
    """Shares of ``total`` quanta of 2^-exponent, whose float64 sum is the float64 of the total in whatever order.

    All are whole multiples of one unit, the last bit of the total (a quantum, where that is larger), so that no sum of
    some of them rounds. Who gets the units that are left over is decided by the largest remainder: each share is less
    than a unit from what it should be, and one that is 0 stays 0.

    Parameters
    ----------
    shares
        Not negative, with the sum `total`.

    Examples
    --------
    >>> thirds = to_the_last_bit([Fraction(10, 3)] * 3, 10, 0)
    >>> float(thirds.sum()), bool(abs(thirds - 10 / 3).max() < 2e-15)
    (10.0, True)
    """
    # Its log2, in quanta; below 0 where a quantum is more than float64 needs, and no less than float64 has.
    unit = max(total.bit_length() - 53, exponent - 1074)
    scale = Fraction(2) ** unit
    units = round(Fraction(total) / scale)  # ties to even, as float64 has it
    floors = [int(share // scale) for share in shares]
    remainders = [share / scale - floor for share, floor in zip(shares, floors, strict=True)]
    left = units - sum(floors)
    for player in sorted(range(len(floors)), key=lambda i: (-remainders[i], i))[:left]:
        floors[player] += 1
    return np.array([math.ldexp(float(floor), unit - exponent) for floor in floors])


def verify(values: NDArray[np.float64], total: NDArray[np.float64]) -> None:
    """Assert that no share is negative, and that each row (n_players,) adds up to its total, to the last bit."""
    if not (values >= 0).all():
        raise CertificateError(f"a share of a monotone game is negative: {values.min()}")
    for row, everyone in zip(values, total, strict=True):
        if math.fsum(row) != everyone:
            raise CertificateError(f"the shares add up to {math.fsum(row)!r}, and the total is {everyone!r}")


def nearest(quanta: int, exponent: int) -> float:
    """The float64 nearest to so many quanta of 2^-exponent."""
    return float(Fraction(quanta) / Fraction(2) ** exponent)
