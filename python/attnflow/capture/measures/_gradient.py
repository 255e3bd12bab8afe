"""Measures by the derivative of an output by each attention probability."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attnflow.capture._attention import Attention, ValuedAttention
from attnflow.capture._subblock import SubBlock
from attnflow.capture.measures._protocol import Measure, blank, normalized
from attnflow.capture.measures._raw import reduction

__all__ = ["AttentionGradient", "AttentionTimesGradient"]


class AttentionGradient(Measure):
    """Positive part of the derivative of an output by each attention probability, heads reduced [1]_.

    The derivative comes from one pass back through the model, to what each attention put out; by a probability it is
    the product of that with a value, computed a block of queries at a time.

    Parameters
    ----------
    heads
        As for measure "attention"; the positive part is taken of each head.
    normalize
        Whether rows are divided by their sums, which puts them on the scale of a residual connection. A row without
        anything positive stays zero.

    References
    ----------
    .. [1] Azarkhalili, Libbrecht, "Generalized Attention Flow", arXiv:2502.15765.
    """

    name = "attention_gradient"
    needs_gradient = True
    times_attention = False

    def __init__(self, heads: Any = "mean", *, normalize: bool = True) -> None:
        self._reduce, self.normalize = reduction(heads), normalize

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor:
        """See :meth:`Measure.matrix`."""
        assert isinstance(attention, ValuedAttention)
        result = blank(attention)
        for start, stop, probabilities in attention.blocks(reuse=True):
            slope = attention.slope(start, stop, probabilities.shape[-1])
            # Of a probability that a mask holds at zero nothing can be made to depend.
            slope = slope * probabilities if self.times_attention else slope.masked_fill_(probabilities == 0, 0)
            rows = self._reduce(slope.clamp_(min=0))
            result[start:stop, : probabilities.shape[-1]] = normalized(rows)[0] if self.normalize else rows
        return result


class AttentionTimesGradient(AttentionGradient):
    """Positive part of each attention probability times the derivative of an output by it, heads reduced [1]_.

    Parameters and references are those of :class:`AttentionGradient`.
    """

    name = "attention_x_gradient"
    times_attention = True
