"""Probabilities of one attention layer, a block of queries at a time, and the proof that they are the model's own.

The scores are recomputed from the queries and keys that the layer handed to its attention function, in float32, for a
few rows at once. While the blocks go by, their product with the values is compared with what the layer really
computed: a mask, a bias or a cap that was misread cannot pass unnoticed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attnflow.errors import CaptureError

__all__ = ["Attention", "ComputedAttention", "GivenAttention", "tolerance"]

# How far a recomputed number may be from the model's, as a fraction of the largest number that enters it. float64
# models round to float32 inside (softmax, norms); float32 leaves room for tensor-float-32 products on a GPU; half
# precision for probabilities that were rounded before use.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
# Eager attention in half precision rounds the scores too, before the exponential magnifies the error.
_EAGER_TOLERANCE = {torch.float16: 4e-2, torch.bfloat16: 0.2}


def tolerance(dtype: torch.dtype, eager: bool = False) -> float:
    """How far a recomputed quantity may be from the one a model computed in ``dtype``, relative to its scale."""
    return _EAGER_TOLERANCE.get(dtype, _TOLERANCE[dtype]) if eager else _TOLERANCE.get(dtype, 4e-2)


class Attention(ABC):
    """One layer's attention over one text: what a measure may ask of it."""

    name: str
    n: int
    n_heads: int
    device: torch.device
    dtype: torch.dtype
    """Precision of the probabilities: float32, or float64 for a float64 model."""
    visible: Tensor | None = None
    """``(n,)`` int64, known once all blocks have gone by: how many positions each query can see, itself included.
    None where only weights are known: a weight of zero may be hidden, or just small."""

    @abstractmethod
    def blocks(self, rows: int = 1) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``(start, stop, probabilities)``, from the first query to the last.

        Parameters
        ----------
        rows
            At least so many queries a block, however large the block becomes.

        Yields
        ------
        start, stop
            The queries of this block.
        probabilities
            ``(H, stop - start, m)`` with ``m <= n``: keys from ``m`` on are out of sight of every query here. The
            tensor may be overwritten by the caller.
        """

    def block_rows(self, block_bytes: int, rows: int) -> int:
        """How many queries fit in a block, one at least."""
        size = torch.finfo(self.dtype).bits // 8
        return min(self.n, max(1, rows, block_bytes // (self.n_heads * self.n * size)))


class GivenAttention(Attention):
    """Probabilities that a model returned, ``(H, n, n)``."""

    def __init__(self, name: str, weights: Tensor, block_bytes: int) -> None:
        self.name, self.n_heads, self.n = name, weights.shape[0], weights.shape[1]
        self.device, self.block_bytes, self.weights = weights.device, block_bytes, weights
        self.dtype = torch.float64 if weights.dtype == torch.float64 else torch.float32

    def blocks(self, rows: int = 1) -> Iterator[tuple[int, int, Tensor]]:
        step = self.block_rows(self.block_bytes, rows)
        for start in range(0, self.n, step):
            block = self.weights[:, start : start + step]
            yield start, start + block.shape[1], block.to(self.dtype, copy=True)


class ComputedAttention(Attention):
    """Probabilities recomputed from what a layer passed to its attention function.

    Parameters
    ----------
    name
        The module's name, for messages.
    query, key, value
        ``(1, H, n, d)``, ``(1, G, n, d)``, ``(1, G, n, e)``, with H a multiple of G (grouped heads).
    mask
        None, boolean (True = visible) or additive, broadcastable to ``(1, H, n, n)``.
    output
        ``(1, n, H, e)``: what the model's own attention function returned.
    causal
        Whether keys after the query are hidden although no mask says so.
    window
        With no mask: how far back (and, if not causal, ahead) a query sees.
    options
        The remaining arguments of the call: ``scaling``, ``softcap``, ``position_bias``, ``s_aux``, ``sinks``.
    eager
        Whether the model's own function computes in the precision of the model throughout.
    """

    def __init__(
        self,
        name: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Tensor | None,
        output: Tensor,
        causal: bool,
        window: int | None,
        options: dict[str, Any],
        eager: bool,
        block_bytes: int,
    ) -> None:
        self.name, self.block_bytes, self.eager = name, block_bytes, eager
        self.device = query.device
        self.dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        self.model_dtype = output.dtype
        _, self.n_heads, self.n, _ = query.shape
        self._check_shapes(query, key, value, output)
        self.groups = self.n_heads // key.shape[1]
        # One text: the batch goes. Grouped heads stay grouped, so that no key is ever repeated.
        self.query = query[0].to(self.dtype)
        self.key = key[0].to(self.dtype)
        self.value = value[0].to(self.dtype)
        self.output = output[0]
        self.mask, self.causal, self.window = mask, causal and mask is None, window if mask is None else None
        scaling = options.get("scaling")
        self.scaling = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
        self.softcap = options.get("softcap")
        self.bias = options.get("position_bias")
        sinks = options.get("s_aux")
        sinks = options.get("sinks") if sinks is None else sinks
        self.sinks = None if sinks is None else sinks.reshape(-1, 1, 1).to(device=self.device, dtype=self.dtype)
        self.visible = torch.zeros(self.n, dtype=torch.int64, device=self.device)

    def _check_shapes(self, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        heads, rest = divmod(self.n_heads, key.shape[1])
        wanted = (1, self.n, self.n_heads, value.shape[-1])
        if query.shape[0] != 1 or key.shape[2] != self.n or rest or not heads or value.shape[:3] != key.shape[:3]:
            raise CaptureError(
                f"layer {self.name!r}: cannot read its attention: queries {tuple(query.shape)}, keys "
                f"{tuple(key.shape)}, values {tuple(value.shape)} are not one text attending to itself. "
                "Use Network with matrices of your own"
            )
        if output.numel() != torch.Size(wanted).numel():
            raise CaptureError(
                f"layer {self.name!r}: its attention function returned {tuple(output.shape)}, expected {wanted}"
            )

    def blocks(self, rows: int = 1) -> Iterator[tuple[int, int, Tensor]]:
        step = self.block_rows(self.block_bytes, rows)
        scale = self.value.abs().amax(dim=1, keepdim=True).repeat_interleave(self.groups, dim=0)
        # At least a little of every channel's scale is the layer's: a channel that is zero throughout proves nothing
        # and must not ask for exactness.
        scale = torch.maximum(scale, 1e-3 * scale.amax()).clamp_min(torch.finfo(self.dtype).tiny)
        worst = torch.zeros((), dtype=self.dtype, device=self.device)
        for start in range(0, self.n, step):
            stop = min(self.n, start + step)
            probabilities = self._probabilities(start, stop)
            real = self.output.reshape(self.n, self.n_heads, -1)[start:stop].transpose(0, 1).to(self.dtype)
            error = (self.mix(probabilities) - real).abs_().div_(scale).amax()
            worst = torch.maximum(worst, error)
            yield start, stop, probabilities
        limit = tolerance(self.model_dtype, self.eager)
        if not float(worst) <= limit:  # "not <=" so that NaN fails as well
            raise CaptureError(
                f"layer {self.name!r}: the attention recomputed from its queries and keys gives an output that is off "
                f"by {float(worst):.2g} of the values' scale (limit {limit:g}): the layer does something else than "
                "softmax(q k) v. Load the model in float32 with "
                "attn_implementation='eager' or 'sdpa'; if that fails too, pass matrices of your own to Network"
            )

    def _probabilities(self, start: int, stop: int) -> Tensor:
        """``(H, stop - start, m)``: softmax of the scores of a block of queries."""
        keys = stop if self.causal else self.n
        rows = stop - start
        grouped = self.query[:, start:stop].reshape(self.key.shape[0], self.groups * rows, -1)
        scores = torch.matmul(grouped, self.key[:, :keys].transpose(1, 2)).view(self.n_heads, rows, keys)
        scores *= self.scaling
        if self.softcap is not None:
            scores.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.bias is not None:
            scores += _part(self.bias, start, stop, keys).to(self.dtype)
        if self.mask is not None:
            mask = _part(self.mask, start, stop, keys)
            if mask.dtype == torch.bool:
                scores.masked_fill_(~mask, -torch.inf)
            else:
                scores += mask.to(self.dtype)
        elif self.causal or self.window is not None:
            scores.masked_fill_(self._hidden(start, stop, keys), -torch.inf)
        # Masks hide by minus infinity or by the smallest number there is, and from all heads alike.
        assert self.visible is not None
        self.visible[start:stop] = (scores[0] > torch.finfo(scores.dtype).min / 2).sum(dim=-1)
        if self.sinks is None:
            return torch.softmax(scores, dim=-1)
        # A sink is one more key without a value: it takes its share and the row sums to less than one.
        top = torch.maximum(scores.amax(dim=-1, keepdim=True), self.sinks)
        scores.sub_(top).exp_()
        return scores.div_(scores.sum(dim=-1, keepdim=True) + torch.exp(self.sinks - top))

    def _hidden(self, start: int, stop: int, keys: int) -> Tensor:
        """``(stop - start, keys)`` bool: what a query may not see where no mask was given."""
        ahead = torch.arange(keys, device=self.device)[None, :] - torch.arange(start, stop, device=self.device)[:, None]
        hidden = ahead > 0 if self.causal else torch.zeros_like(ahead, dtype=torch.bool)
        if self.window is not None:
            hidden |= ahead.abs() >= self.window
        return hidden

    def mix(self, probabilities: Tensor) -> Tensor:
        """``(H, rows, m)`` probabilities times the values: ``(H, rows, e)``."""
        _, rows, keys = probabilities.shape
        grouped = probabilities.reshape(self.value.shape[0], self.groups * rows, keys)
        return torch.matmul(grouped, self.value[:, :keys]).view(self.n_heads, rows, -1)


def _part(full: Tensor, start: int, stop: int, keys: int) -> Tensor:
    """Rows and keys of a mask or bias of shape (1, 1 | H, 1 | n, >= keys), as (1 | H, 1 | rows, keys)."""
    rows = full[0] if full.shape[-2] == 1 else full[0, :, start:stop]
    return rows[..., :keys]
