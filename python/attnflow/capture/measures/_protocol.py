"""What the capture asks of a measure."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock

__all__ = ["Measure", "normalized"]


class Measure(Protocol):
    """One way to say how much a position draws from another in one layer. Made to be inherited from."""

    name: str
    holds_residual: bool = False
    """Whether the matrix already counts what a position keeps of itself (the network then adds no residual)."""
    needs_subblock: bool = False
    """Whether :meth:`matrix` must be given the sub-block; it is then called when the layer has run."""
    needs_gradient: bool = False
    """Whether ``attention.gradient`` must be there; :meth:`matrix` is then called after the pass back."""

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor | tuple[Tensor, Tensor]:
        """The ``(n_queries, n_keys)`` contributions of one layer: row = receiver, column = giver, none negative.

        A measure that holds the residual returns beside it, where ``subblock.attention.cross`` says that the keys are
        another sequence, ``(n_queries,)``: what each position keeps of itself.

        Every block of ``attention.blocks()`` must be read, because the proof that the probabilities are the model's
        own is complete only after the last.
        """
        ...


def normalized(rows: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Rows divided by their sums, what is kept beside them included; rows of zeros stay as they are."""
    total = rows.sum(dim=-1, keepdim=True)
    if kept is not None:
        total = total + kept[:, None]
    total = total.clamp_min(1e-38)
    return rows / total, None if kept is None else kept / total[:, 0]
