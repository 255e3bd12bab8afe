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

__all__ = ["Attention", "ComputedAttention", "GivenAttention", "MultipliedAttention", "ValuedAttention", "tolerance"]

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
    """One layer's attention over one text, or from one text to another: what a measure may ask of it."""

    name: str
    n_queries: int
    n_keys: int
    n_heads: int
    device: torch.device
    dtype: torch.dtype
    """Precision of the probabilities: float32, or float64 for a float64 model."""
    visible: Tensor | None = None
    """``(n_queries,)`` int64, known once all blocks have gone by: how many positions each query can see, itself
    included. None where only weights are known: a weight of zero may be hidden, or just small."""

    @abstractmethod
    def blocks(self, rows: int = 1, *, reuse: bool = False) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``(start, stop, probabilities)``, from the first query to the last.

        Parameters
        ----------
        rows
            At least so many queries a block, however large the block becomes.
        reuse
            Whether a block may lie where the one before did, which is then gone. Fresh memory for each costs more
            than what is computed in it: the system hands it out page by page.

        Yields
        ------
        start, stop
            The queries of this block.
        probabilities
            ``(H, stop - start, m)`` with ``m <= n_keys``: keys from ``m`` on are out of sight of every query here.
            All zero where a query sees nothing, as padding does. The tensor may be overwritten by the caller.
        """

    def block_rows(self, block_bytes: int, rows: int) -> int:
        """How many queries fit in a block, one at least."""
        size = torch.finfo(self.dtype).bits // 8
        return min(self.n_queries, max(1, rows, block_bytes // (self.n_heads * self.n_keys * size)))

    def finish(self) -> None:  # noqa: B027 - nothing is left undone of what was given
        """Do what a measure that did not read every block has left undone."""


class ValuedAttention(Attention):
    """One of which it is known what the probabilities are multiplied with, and what came of it."""

    value: Tensor
    """``(G, n_keys, e)``, with H a multiple of G (grouped heads)."""
    output: Tensor
    """``(n_queries, H, e)``: probabilities times values, as the model computed it."""
    groups: int
    """How many heads share values: H / G."""
    model_dtype: torch.dtype
    cross: bool = False
    """Whether the keys are another sequence than the queries."""
    gradient: Tensor | None = None
    """``(H, n_queries, e)``, where a measure asks for it: derivative of the objective by what each head wrote."""

    def slope(self, start: int, stop: int, keys: int) -> Tensor:
        """``(H, stop - start, keys)``: derivative of the objective by each probability, what is hidden included.

        A probability enters what its head writes as a factor of one value, so that no backward pass through a
        softmax, nor any probability that was kept for it, is needed.
        """
        assert self.gradient is not None
        grouped = self.gradient[:, start:stop].reshape(self.value.shape[0], self.groups * (stop - start), -1)
        return torch.matmul(grouped, self.value[:, :keys].transpose(1, 2)).view(self.n_heads, stop - start, keys)

    def mix(self, probabilities: Tensor) -> Tensor:
        """``(H, rows, m)`` probabilities times the values: ``(H, rows, e)``."""
        _, rows, keys = probabilities.shape
        grouped = probabilities.reshape(self.value.shape[0], self.groups * rows, keys)
        return torch.matmul(grouped, self.value[:, :keys]).view(self.n_heads, rows, -1)


class GivenAttention(Attention):
    """Probabilities that a model returned, ``(H, n_queries, n_keys)``."""

    def __init__(self, name: str, weights: Tensor, block_bytes: int) -> None:
        self.name = name
        self.n_heads, self.n_queries, self.n_keys = weights.shape
        self.device, self.block_bytes, self.weights = weights.device, block_bytes, weights
        self.dtype = torch.float64 if weights.dtype == torch.float64 else torch.float32

    def blocks(self, rows: int = 1, *, reuse: bool = False) -> Iterator[tuple[int, int, Tensor]]:
        step = self.block_rows(self.block_bytes, rows)
        for start in range(0, self.n_queries, step):
            block = self.weights[:, start : start + step]
            yield start, start + block.shape[1], block.to(self.dtype, copy=True)

    @property
    def ahead(self) -> Tensor:
        """``(n_queries,)`` bool: which queries gave anything to a later key."""
        return self.weights.amax(dim=0).triu(1).any(dim=-1)


class MultipliedAttention(GivenAttention, ValuedAttention):
    """Probabilities that a model returned, with the product that it was seen to make of them.

    Parameters
    ----------
    value, output
        ``(G, n_keys, e)`` and ``(H, n_queries, e)``, of one text.
    """

    def __init__(self, name: str, weights: Tensor, block_bytes: int, value: Tensor, output: Tensor) -> None:
        super().__init__(name, weights, block_bytes)
        self.model_dtype = output.dtype
        self.value, self.groups = value.detach().to(self.dtype), self.n_heads // value.shape[0]
        self.output = output.detach().transpose(0, 1)


class ComputedAttention(ValuedAttention):
    """Probabilities recomputed from what a layer passed to its attention function, for one text of the batch.

    Parameters
    ----------
    name
        The module's name, for messages.
    query, key, value
        ``(H, n_queries, d)``, ``(G, n_keys, d)``, ``(G, n_keys, e)``, with H a multiple of G (grouped heads).
    mask
        None, boolean (True = visible) or additive, broadcastable to ``(H, n_queries, n_keys)``.
    output
        ``(n_queries, H, e)``: what the model's own attention function returned.
    cross
        Whether the keys are another sequence than the queries.
    causal
        Whether keys after the query are hidden although no mask says so.
    window
        With no mask: how far back (and, if not causal, ahead) a query sees.
    options
        The remaining arguments of the call: ``scaling``, ``softcap``, ``s_aux``, ``sinks``; ``position_bias`` as
        ``(1 | H, 1 | n_queries, n_keys)``.
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
        cross: bool,
        causal: bool,
        window: int | None,
        options: dict[str, Any],
        eager: bool,
        block_bytes: int,
    ) -> None:
        self.name, self.block_bytes, self.eager, self.cross = name, block_bytes, eager, cross
        self.device = query.device
        self.dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        self.model_dtype = output.dtype
        self.n_heads, self.n_queries, _ = query.shape
        self.n_keys = key.shape[1]
        self.groups = self.n_heads // key.shape[0]
        # Grouped heads stay grouped, so that no key is ever repeated.
        self.query, self.value = (part.detach().to(self.dtype) for part in (query, value))
        self.output = output.detach()
        self.mask, self.causal, self.window = mask, causal and mask is None, window if mask is None else None
        scaling = options.get("scaling")
        # Scaled here, where there are d numbers to a key and not n_queries, and often fewer heads of them.
        self.key = key.detach().to(self.dtype) * float(query.shape[-1] ** -0.5 if scaling is None else scaling)
        self.softcap = options.get("softcap")
        self.bias = options.get("position_bias")
        sinks = options.get("s_aux")
        sinks = options.get("sinks") if sinks is None else sinks
        if sinks is not None:  # one a head, or (H, n_queries, 1)
            sinks = (sinks if sinks.ndim == 3 else sinks.reshape(-1, 1, 1)).to(device=self.device, dtype=self.dtype)
        self.sinks: Tensor | None = sinks
        self.visible = torch.zeros(self.n_queries, dtype=torch.int64, device=self.device)
        self._begun = self._proved = False

    def blocks(self, rows: int = 1, *, reuse: bool = False) -> Iterator[tuple[int, int, Tensor]]:
        self._begun = True
        step = self.block_rows(self.block_bytes, rows)
        proof = _Proof(self)
        room = self.query.new_empty(self.n_heads * step * self.n_keys) if reuse else None
        for start in range(0, self.n_queries, step):
            stop = min(self.n_queries, start + step)
            probabilities = self._probabilities(start, stop, room)
            proof.add(start, stop, probabilities)
            yield start, stop, probabilities
        worst = proof.worst()
        limit = tolerance(self.model_dtype, self.eager)
        if not worst <= limit:  # "not <=" so that NaN fails as well
            raise CaptureError(
                f"layer {self.name!r}: the attention recomputed from its queries and keys gives an output that is off "
                f"by {worst:.2g} of the values' scale (limit {limit:g}): the layer does something else than "
                "softmax(q k) v. Load the model in float32 with "
                "attn_implementation='eager' or 'sdpa'; if that fails too, pass matrices of your own to Network"
            )
        self._proved = True

    def finish(self) -> None:
        """Prove probabilities of which only some were read; where none were, count what each query sees."""
        if self._begun and not self._proved:
            for _ in self.blocks(reuse=True):
                pass
        elif not self._begun:
            step = self.block_rows(self.block_bytes, 1)
            for start in range(0, self.n_queries, step):
                stop = min(self.n_queries, start + step)
                keys = min(stop, self.n_keys) if self.causal else self.n_keys
                self._count_visible(start, stop, keys, self._hidden(start, stop, keys)[1])

    def _probabilities(self, start: int, stop: int, room: Tensor | None) -> Tensor:
        """``(H, stop - start, m)``: softmax of the scores of a block of queries."""
        keys = min(stop, self.n_keys) if self.causal else self.n_keys
        rows, groups = stop - start, self.key.shape[0]
        grouped = self.query[:, start:stop].reshape(groups, self.groups * rows, -1)
        out = None if room is None else room[: self.n_heads * rows * keys].view(groups, self.groups * rows, keys)
        scores = torch.matmul(grouped, self.key[:, :keys].transpose(1, 2), out=out).view(self.n_heads, rows, keys)
        if self.softcap is not None:
            scores.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.bias is not None:
            scores += _part(self.bias, start, stop, keys).to(self.dtype)
        first, hidden = self._hidden(start, stop, keys)
        if self.mask is not None and self.mask.dtype != torch.bool:
            scores += _part(self.mask, start, stop, keys).to(self.dtype)
        elif hidden is not None:
            scores[..., first:].masked_fill_(hidden, -torch.inf)
        blind = self._count_visible(start, stop, keys, hidden)
        if self.sinks is None:
            # On a CPU a row is read before it is written, so that it can take its own place.
            probabilities = torch.softmax(scores, dim=-1, out=scores if self.device.type == "cpu" else None)
        else:
            # A sink is one more key without a value: it takes its share and the row sums to less than one.
            sinks = _part(self.sinks, start, stop, 1)
            top = torch.maximum(scores.amax(dim=-1, keepdim=True), sinks)
            scores.sub_(top).exp_()
            probabilities = scores.div_(scores.sum(dim=-1, keepdim=True) + torch.exp(sinks - top))
        return probabilities if blind is None else probabilities.masked_fill_(blind[None, :, None], 0)

    def _count_visible(self, start: int, stop: int, keys: int, hidden: Tensor | None) -> Tensor | None:
        """Note how many keys each query sees; which queries see none, ``(rows,)``, or None if every one sees some."""
        assert self.visible is not None
        if hidden is None:
            self.visible[start:stop] = keys
            return None
        # Hidden from all heads alike: the first speaks for them.
        self.visible[start:stop] = keys - hidden[0].expand(stop - start, -1).sum(dim=-1)
        blind = self.visible[start:stop] == 0
        return blind if self.mask is not None and bool(blind.any()) else None

    def _hidden(self, start: int, stop: int, keys: int) -> tuple[int, Tensor | None]:
        """What a query may not see: the first key of which that is said, and ``(1 | H, 1 | rows, keys - first)`` bool.

        None where all of them are seen.
        """
        if self.mask is not None:
            mask = _part(self.mask, start, stop, keys)
            # Additive masks hide by minus infinity or by the smallest number there is.
            return 0, ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2
        if not self.causal and self.window is None:
            return 0, None
        # Without a window, what lies before a block's first query is seen by the whole block.
        first = min(start, keys) if self.window is None else 0
        queries = torch.arange(start, stop, device=self.device)
        ahead = torch.arange(first, keys, device=self.device)[None, :] - queries[:, None]
        hidden = ahead > 0 if self.causal else torch.zeros_like(ahead, dtype=torch.bool)
        if self.window is not None:
            hidden |= ahead.abs() >= self.window
        return first, hidden[None]


class _Proof:
    """That probabilities P are those a layer used: its output O is P V.

    Multiplying by V once more would cost as much as the layer itself. Freivalds' check multiplies both sides by random
    signs r, one a channel and eight times over: P (V r) = O r, V r being computed once. Of an error in a row, as long
    as sqrt(e) times the limit, each r shows less than a tenth with a probability of 0.08, so all eight with 2e-9.

    References
    ----------
    .. [1] Freivalds, "Probabilistic Machines Can Use Less Running Time", IFIP Congress 1977.
    """

    signs = 8

    def __init__(self, attention: ComputedAttention) -> None:
        self.attention = attention
        value = attention.value
        e = value.shape[-1]
        # The same at every call, and apart from the generator that the user's own work draws from.
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (self.signs, e), generator=generator).to(value) * 2 - 1
        # At least a little of every channel's scale is the layer's: a channel that is zero throughout proves nothing
        # and must not ask for exactness.
        scale = value.abs().amax(dim=1)
        scale = torch.maximum(scale, 1e-3 * scale.amax()).clamp_min(torch.finfo(value.dtype).tiny)
        # (groups, signs, e), on the scale of one channel, whatever their number. Signs are rows throughout: a product
        # that has few columns on its right takes up to four times as long.
        self.random = signs / (scale[:, None] * e**0.5)
        self.values = torch.matmul(self.random, value.transpose(1, 2))
        self.products = value.new_empty((len(value), self.signs, attention.groups, attention.n_queries))

    def add(self, start: int, stop: int, probabilities: Tensor) -> None:
        """Take in a block of queries."""
        grouped = probabilities.reshape(len(self.values), -1, probabilities.shape[-1])
        product = torch.matmul(self.values[..., : grouped.shape[-1]], grouped.transpose(1, 2))
        self.products[..., start:stop] = product.view(*self.products.shape[:3], -1)

    def worst(self) -> float:
        """The largest error of all queries, as a fraction of the values' scale."""
        attention = self.attention
        groups, _, members, n = self.products.shape
        output = attention.output.reshape(n, groups, members, -1).to(attention.dtype)
        real = torch.einsum("ngme,gse->gsmn", output, self.random)
        error = self.products.sub_(real).abs_().amax(dim=(0, 1, 2))
        # What a query that sees nothing is given is nobody's business: zeros, an even mean, NaN.
        assert attention.visible is not None
        return float(error.masked_fill_(attention.visible == 0, 0).amax())


def _part(full: Tensor, start: int, stop: int, keys: int) -> Tensor:
    """Rows and keys of a mask or bias of shape (1 | H, 1 | n_queries, >= keys), as (1 | H, 1 | rows, keys)."""
    rows = full if full.shape[-2] == 1 else full[:, start:stop]
    return rows[..., :keys]
