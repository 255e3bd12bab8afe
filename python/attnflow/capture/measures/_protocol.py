"""What the capture asks of a measure."""

from __future__ import annotations

import mmap
from typing import Protocol

import torch
from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock

__all__ = ["Measure", "blank", "normalized"]


class Measure(Protocol):
    """One way to say how much a position draws from another in one layer. Made to be inherited from."""

    name: str
    holds_residual: bool = False
    """Whether the matrix already counts what a position keeps of itself (the network then adds no residual)."""
    needs_subblock: bool = False
    """Whether :meth:`matrix` must be given the sub-block; it is then called when the layer has run."""
    needs_gradient: bool = False
    """Whether ``attention.gradient`` must be there; :meth:`matrix` is then called after the pass back."""

    def begin(self, batch: int) -> None:
        """A pass over so many texts begins."""
        return

    def end(self) -> None:
        """The pass is over, and every layer was there."""
        return

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """The ``(n_queries, n_keys)`` contributions of one layer: row = receiver, column = giver, none negative.

        A measure that holds the residual returns beside it, where ``subblock.attention.cross`` says that the keys are
        another sequence, ``(n_queries,)``: what each position keeps of itself.

        Every block of ``attention.blocks()`` must be read, because the proof that the probabilities are the model's
        own is complete only after the last.
        """
        ...


def blank(attention: Attention) -> Tensor:
    """``(n_queries, n_keys)`` float32 zeros, for a measure to write into.

    On a CPU they are pages that no one has touched: what a causal layer has above the diagonal takes no memory, which
    is a quarter of 2,048 positions and close to half of 8,192. ``torch.zeros`` would write all of it.
    """
    shape = (attention.n_queries, attention.n_keys)
    if attention.device.type != "cpu" or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.zeros(shape, dtype=torch.float32, device=attention.device)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return torch.frombuffer(mmap.mmap(-1, 4 * shape[0] * shape[1], flags), dtype=torch.float32).view(shape)


def normalized(rows: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Rows divided by their sums, what is kept beside them included; rows of zeros stay as they are."""
    total = rows.sum(dim=-1, keepdim=True)
    if kept is not None:
        total = total + kept[:, None]
    total = total.clamp_min(1e-38)
    return rows / total, None if kept is None else kept / total[:, 0]
