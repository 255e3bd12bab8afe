"""Spearman's rank correlation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["spearman"]


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
