"""What a contribution is: functions of a layer's probabilities, values, output projection and residual.

A measure turns one layer into an ``(n, n)`` matrix. To add one, write a class with the attributes and the method of
:class:`Measure` and enter it in :data:`MEASURES` (or pass an instance to ``contributions``); the capture itself does
not change.

References
----------
[1] Abnar, Zuidema, "Quantifying Attention Flow in Transformers", arXiv:2005.00928.
[2] Ferrando, Gállego, Costa-jussà, "Measuring the Mixing of Contextual Information in the Transformer",
    arXiv:2203.04212.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock
from attnflow.errors import InvalidArgumentError

__all__ = ["ALTI", "MEASURES", "Measure", "RawAttention", "find"]


class Measure(Protocol):
    """One way to say how much a position draws from another in one layer."""

    name: str
    holds_residual: bool
    """Whether the matrix already counts what a position keeps of itself (the network then adds no residual)."""
    needs_subblock: bool
    """Whether :meth:`matrix` must be given the sub-block; it is then called when the layer has run."""

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """The ``(n_queries, n_keys)`` contributions of one layer: row = receiver, column = giver, none negative.

        A measure that holds the residual returns beside it, where ``subblock.attention.cross`` says that the keys are
        another sequence, ``(n_queries,)``: what each position keeps of itself.

        Every block of ``attention.blocks()`` must be read, because the proof that the probabilities are the model's
        own is complete only after the last.
        """
        ...


class RawAttention:
    """Attention probabilities, their heads reduced to one [1]_.

    Parameters
    ----------
    heads
        "mean", "max", "min", the index of one head, or H weights, none negative. Weights are used as they are: those
        of a weighted mean sum to 1.
    """

    name = "attention"
    holds_residual = False
    needs_subblock = False

    def __init__(self, heads: Any = "mean") -> None:
        self._reduce = _reduction(heads)

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor:
        """See :meth:`Measure.matrix`."""
        result = torch.zeros(attention.n_queries, attention.n_keys, dtype=torch.float32, device=attention.device)
        for start, stop, probabilities in attention.blocks():
            result[start:stop, : probabilities.shape[-1]] = self._reduce(probabilities)
        return result


class ALTI:
    """How much of a layer's attention sub-block goes missing without a position's share [2]_.

    With ``T_i(x_j)`` what position i receives from position j through all heads, the residual included for j = i and
    the layer norm of post-norm models made linear, and ``y_i = sum_j T_i(x_j)``::

        c_ij = max(0, |y_i|_1 - |y_i - T_i(x_j)|_1),  every row then divided by its sum

    Costs O(n^2 H d) a layer and O(H n d) memory: no (n, n, d) tensor is made. A row whose contributions are all zero
    stays zero.

    Notes
    -----
    The two norms are huge and nearly equal where a residual stream has outliers, and their difference would lose five
    digits in float32. With s = sign(y), 1 where y is 0, each channel contributes exactly::

        |y| - |y - T| = s T - 2 max(0, s T - |y|)

    whose first term is a matrix product (s against what each head writes) and whose second vanishes wherever T stays
    short of y, so that every rounding error is on the scale of T itself.
    """

    name = "alti"
    holds_residual = True
    needs_subblock = True

    # Rows of a block: enough for the product over the heads to outweigh the projection of the values.
    rows = 64
    # Working memory of a tile (times eight on an accelerator, where a launch must be worth its while), and of the
    # projected values kept from one block of queries to the next. Tiles that fit in a cache are a little faster with
    # one thread, but ten times slower with two on a busy machine, where every small operation ends in a wait.
    tile_bytes = 1 << 23
    kept_bytes = 256 << 20

    def __init__(self, heads: Any = "mean") -> None:
        if not isinstance(heads, str) or heads != "mean":
            raise InvalidArgumentError(
                f"heads={heads!r} has no meaning for measure 'alti', which adds up what all heads write: leave it out"
            )

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """See :meth:`Measure.matrix`."""
        assert subblock is not None
        n, d = attention.n_keys, subblock.residual.shape[1]
        heads = self._projected(subblock, attention.n_heads, n, d)
        tile_bytes = self.tile_bytes * (1 if attention.device.type == "cpu" else 8)
        result = torch.zeros(attention.n_queries, n, dtype=torch.float32, device=attention.device)
        kept = torch.zeros(attention.n_queries, dtype=torch.float32, device=attention.device)
        cross = subblock.attention.cross
        for start, stop, probabilities in attention.blocks(self.rows):
            y = subblock.mixed(probabilities)
            if subblock.gain is not None:
                probabilities = probabilities * subblock.gain[start:stop]
                y = y * subblock.gain[start:stop]
            residual = subblock.residual[start:stop]
            y = y + residual
            sign = torch.where(y < 0, -1.0, 1.0).to(y.dtype)
            seen = probabilities.shape[-1]
            contributions = torch.empty(stop - start, seen, dtype=y.dtype, device=y.device)
            step = max(1, tile_bytes // ((stop - start) * d * y.element_size()))
            for first in range(0, seen, step):
                last = min(seen, first + step)
                part = probabilities[:, :, first:last]
                written = heads(first, last)  # (H, keys, d)
                along = torch.einsum("hrk,hrk->rk", part, torch.matmul(sign, written.transpose(1, 2)))
                # (keys, rows, d): T - y, one product over the heads for each key.
                whole = y.expand(last - first, -1, -1)
                rest = torch.baddbmm(whole, part.permute(2, 1, 0), written.transpose(0, 1), beta=-1)
                if not cross:
                    # A position's own share holds its residual.
                    near, far = max(start, first), min(stop, last)
                    own = torch.arange(near, max(near, far), device=y.device)
                    rest[own - first, own - start] += subblock.residual[own]
                    along[own - start, own - first] += (sign[own - start] * subblock.residual[own]).sum(dim=-1)
                # s (T - y) = s T - |y|. Plain in-place passes: norms and einsum are five times slower here.
                beyond = rest.mul_(sign).clamp_(min=0).sum(dim=-1)
                contributions[:, first:last] = along - 2 * beyond.T
            contributions.clamp_(min=0)
            # Out of sight is exactly zero, whatever the rounding of the two norms.
            visible = probabilities.amax(dim=0) > 0
            if not cross:
                here = torch.arange(start, min(stop, seen), device=y.device)
                visible[here - start, here] = True
            contributions.masked_fill_(~visible, 0)
            total = contributions.sum(dim=-1, keepdim=True)
            if cross:
                own_share = sign * residual
                share = (own_share - 2 * (own_share - y.abs()).clamp_(min=0)).sum(dim=-1).clamp_(min=0)
                total = total + share[:, None]
            total = total.clamp_min(torch.finfo(total.dtype).tiny)
            result[start:stop, :seen] = contributions / total
            if cross:
                kept[start:stop] = share / total[:, 0]
        return (result, kept) if cross else result

    def _projected(self, subblock: SubBlock, heads: int, n: int, d: int) -> Callable[[int, int], Tensor]:
        """``f(start, stop) -> (H, stop - start, d)``: kept for the whole layer if small, else computed anew."""
        if heads * n * d * subblock.residual.element_size() > self.kept_bytes:
            return subblock.heads
        kept = subblock.heads(0, n)
        return lambda start, stop: kept[:, start:stop]


MEASURES: dict[str, Callable[[Any], Measure]] = {"attention": RawAttention, "alti": ALTI}


def find(measure: str | Measure, heads: Any) -> Measure:
    """The measure of a name, or the one given."""
    if isinstance(measure, str):
        if measure not in MEASURES:
            raise InvalidArgumentError(f"measure must be one of {sorted(MEASURES)}, got {measure!r}")
        return MEASURES[measure](heads)
    if not callable(getattr(measure, "matrix", None)):
        raise InvalidArgumentError(f"measure must be one of {sorted(MEASURES)} or a Measure, got {measure!r}")
    return measure


def _reduction(heads: Any) -> Callable[[Tensor], Tensor]:
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
        if float(weights) != int(weights):
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
