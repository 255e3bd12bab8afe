"""ALTI: what goes missing of a position without the share of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock
from attnflow.capture.measures._protocol import Measure, blank, normalized
from attnflow.capture.measures._raw import mean_only

__all__ = ["ALTI"]


class ALTI(Measure):
    """How much of a layer's attention sub-block goes missing without a position's share [1]_.

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

    References
    ----------
    .. [1] Ferrando, Gállego, Costa-jussà, "Measuring the Mixing of Contextual Information in the Transformer",
       arXiv:2203.04212.
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
        mean_only(heads, self.name)

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """See :meth:`Measure.matrix`."""
        assert subblock is not None
        n, d = attention.n_keys, subblock.residual.shape[1]
        heads = self._projected(subblock, attention.n_heads, n, d)
        tile_bytes = self.tile_bytes * (1 if attention.device.type == "cpu" else 8)
        result = blank(attention)
        kept = torch.zeros(attention.n_queries, dtype=torch.float32, device=attention.device)
        cross = subblock.attention.cross
        for start, stop, probabilities in attention.blocks(self.rows, reuse=True):
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
            share = None
            if cross:
                along_own = sign * residual
                share = (along_own - 2 * (along_own - y.abs()).clamp_(min=0)).sum(dim=-1).clamp_(min=0)
            result[start:stop, :seen], own_share = normalized(contributions, share)
            if own_share is not None:
                kept[start:stop] = own_share
        return (result, kept) if cross else result

    def _projected(self, subblock: SubBlock, heads: int, n: int, d: int) -> Callable[[int, int], Tensor]:
        """``f(start, stop) -> (H, stop - start, d)``: kept for the whole layer if small, else computed anew."""
        if heads * n * d * subblock.residual.element_size() > self.kept_bytes:
            return subblock.heads
        kept = subblock.heads(0, n)
        return lambda start, stop: kept[:, start:stop]
