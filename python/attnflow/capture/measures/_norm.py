"""Measures by the length of what a position sends another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock
from attnflow.capture.measures._protocol import Measure, blank, normalized
from attnflow.capture.measures._raw import mean_only

__all__ = ["ValueNorm", "ValueNormWithResidual"]


class ValueNorm(Measure):
    """Length of what each position sends through all heads: ``| sum_h A[h, j, k] V[h, k] W_O[h] |`` [1]_.

    With ``U[k, h]`` what head h would write of position k and ``G[k] = U[k] U[k]^T``, the squared length is ``p^T G p``
    for the H probabilities p: no ``(n, n, d)`` tensor is made. O(n d H^2 + n^2 H^2) a layer.

    Parameters
    ----------
    heads
        Must be "mean": heads are added up before the length is taken.
    normalize
        Whether rows are divided by their sums, which puts them on the scale of a residual connection.

    References
    ----------
    .. [1] Kobayashi, Kuribayashi, Yokoi, Inui, "Attention is Not Only a Weight", EMNLP 2020.
    """

    name = "value_norm"
    needs_subblock = True

    def __init__(self, heads: Any = "mean", *, normalize: bool = True) -> None:
        mean_only(heads, self.name)
        self.normalize = normalize

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """See :meth:`Measure.matrix`."""
        assert subblock is not None
        result = blank(attention)
        written = subblock.written(0, attention.n_keys)  # (H, n, d)
        products = torch.einsum("hkd,gkd->khg", written, written)
        for start, stop, probabilities in attention.blocks(reuse=True):
            rows = _lengths(probabilities, products)
            result[start:stop, : rows.shape[-1]] = normalized(rows)[0] if self.normalize else rows
        return result


class ValueNormWithResidual(Measure):
    """Length of what each position sends, with the residual for itself, and a layer norm behind it made linear [1]_.

    Rows are divided by their sums.

    Parameters
    ----------
    heads
        Must be "mean": heads are added up before the length is taken.

    References
    ----------
    .. [1] Kobayashi, Kuribayashi, Yokoi, Inui, "Incorporating Residual and Normalization Layers into Analysis of Masked
       Language Models", EMNLP 2021.
    """

    name = "value_norm_residual"
    holds_residual = True
    needs_subblock = True

    def __init__(self, heads: Any = "mean") -> None:
        mean_only(heads, self.name)

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """See :meth:`Measure.matrix`."""
        assert subblock is not None
        n = attention.n_keys
        result = blank(attention)
        kept = torch.zeros(attention.n_queries, dtype=torch.float32, device=attention.device)
        cross = subblock.attention.cross
        written = subblock.heads(0, n)
        products = torch.einsum("hkd,gkd->khg", written, written)
        for start, stop, probabilities in attention.blocks(reuse=True):
            rows = _lengths(probabilities, products)
            if subblock.gain is not None:
                rows = rows * subblock.gain[start:stop].abs()
            own = subblock.residual[start:stop]
            if cross:
                rows, share = normalized(rows, own.norm(dim=-1))
                assert share is not None
                kept[start:stop] = share
            else:
                here = torch.arange(start, stop, device=rows.device)
                sent = torch.einsum("hr,hrd->rd", probabilities[:, here - start, here], written[:, start:stop])
                if subblock.gain is not None:
                    sent = sent * subblock.gain[start:stop]
                rows[here - start, here] = (sent + own).norm(dim=-1)
                rows, _ = normalized(rows)
            result[start:stop, : rows.shape[-1]] = rows
        return (result, kept) if cross else result


def _lengths(probabilities: Tensor, products: Tensor) -> Tensor:
    """``(rows, keys)``: square roots of ``p^T G p``, for (H, rows, keys) probabilities and (keys, H, H) products."""
    by_key = probabilities.permute(2, 1, 0)  # (keys, rows, H)
    mixed = torch.matmul(by_key, products[: by_key.shape[0]])
    return (mixed * by_key).sum(dim=-1).clamp_(min=0).sqrt_().T
