"""Attention probabilities as they are, and the reduction of heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock
from attnflow.capture.measures._protocol import Measure, blank
from attnflow.errors import InvalidArgumentError

__all__ = ["RawAttention", "mean_only", "reduction"]


class RawAttention(Measure):
    """Attention probabilities, their heads reduced to one [1]_.

    Parameters
    ----------
    heads
        "mean", "max", "min", the index of one head, or H weights, none negative. Weights are used as they are: those
        of a weighted mean sum to 1.

    References
    ----------
    .. [1] Abnar, Zuidema, "Quantifying Attention Flow in Transformers", arXiv:2005.00928.
    """

    name = "attention"

    def __init__(self, heads: Any = "mean") -> None:
        self._reduce = reduction(heads)

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor:
        """See :meth:`Measure.matrix`."""
        result = blank(attention)
        for start, stop, probabilities in attention.blocks(reuse=True):
            result[start:stop, : probabilities.shape[-1]] = self._reduce(probabilities)
        return result


def reduction(heads: Any) -> Callable[[Tensor], Tensor]:
    """A function from (H, rows, keys) to (rows, keys)."""
    named: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda block: block.mean(dim=0),
        "max": lambda block: block.amax(dim=0),
        "min": lambda block: block.amin(dim=0),
    }
    rule = "heads must be 'mean', 'max', 'min', one head's index, or a weight for each head"
    if isinstance(heads, str):
        if heads not in named:
            raise InvalidArgumentError(f"{rule}, got {heads!r}")
        return named[heads]
    if isinstance(heads, bool):
        raise InvalidArgumentError(f"{rule}, got {heads!r}")
    if isinstance(heads, int):
        return lambda block: block[_head(heads, block.shape[0])]
    try:
        weights = torch.as_tensor(heads, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgumentError(f"{rule}, got {type(heads).__name__}") from None
    if weights.ndim == 0:
        if not float(weights).is_integer():
            raise InvalidArgumentError(f"{rule}, got {heads!r}")
        return lambda block: block[_head(int(weights), block.shape[0])]
    if weights.ndim != 1 or not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise InvalidArgumentError(f"{rule}, finite and not negative: got shape {tuple(weights.shape)}, {heads!r}")

    def weighted(block: Tensor) -> Tensor:
        if weights.shape[0] != block.shape[0]:
            raise InvalidArgumentError(f"heads: {weights.shape[0]} weights for a layer of {block.shape[0]} heads")
        return torch.einsum("h,hrk->rk", weights.to(block), block)

    return weighted


def _head(index: int, count: int) -> int:
    if not -count <= index < count:
        raise InvalidArgumentError(f"heads={index} is out of range for a layer of {count} heads")
    return index


def mean_only(heads: Any, name: str) -> None:
    """Refuse a reduction of heads where they are added up before anything is reduced."""
    if not isinstance(heads, str) or heads != "mean":
        raise InvalidArgumentError(
            f"heads={heads!r} has no meaning for measure {name!r}, which adds up what all heads write: leave it out"
        )
