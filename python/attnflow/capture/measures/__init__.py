"""What a contribution is: functions of a layer's probabilities, values, output projection, residual and gradient.

A measure turns one layer into an ``(n_queries, n_keys)`` matrix. :data:`MEASURES` holds those that have a name. To add
one, inherit from :class:`Measure`, and pass an object of your class wherever a measure is asked for; a function of an
:class:`Attention`, or the matrices themselves, do as well.

=====================  ==========================================================================================
attention              attention probabilities, heads reduced
alti                   how much of a position goes missing without another's share; holds the residual
attention_gradient     positive part of the derivative of an output by each probability
attention_x_gradient   positive part of each probability times that derivative
value_norm             length of what each position sends through all heads
value_norm_residual    the same with the residual and the layer norm behind it; holds the residual
=====================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock
from attnflow.capture.measures._alti import ALTI
from attnflow.capture.measures._gradient import AttentionGradient, AttentionTimesGradient
from attnflow.capture.measures._norm import ValueNorm, ValueNormWithResidual
from attnflow.capture.measures._own import Function, Given
from attnflow.capture.measures._protocol import Measure
from attnflow.capture.measures._raw import RawAttention
from attnflow.errors import InvalidArgumentError

__all__ = [
    "ALTI",
    "MEASURES",
    "Attention",
    "AttentionGradient",
    "AttentionTimesGradient",
    "Function",
    "Given",
    "Measure",
    "RawAttention",
    "SubBlock",
    "ValueNorm",
    "ValueNormWithResidual",
    "find",
]

MEASURES: Mapping[str, Callable[[Any], Measure]] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            RawAttention,
            ALTI,
            AttentionGradient,
            AttentionTimesGradient,
            ValueNorm,
            ValueNormWithResidual,
        )
    }
)


def find(measure: Any, heads: Any = "mean") -> Measure:
    """The measure of a name; or the object, the function or the matrices that were given, as one.

    Examples
    --------
    >>> from attnflow.capture.measures import MEASURES, find
    >>> list(MEASURES)[:2], find("alti").holds_residual
    (['attention', 'alti'], True)
    """
    if isinstance(measure, str) and measure in MEASURES:
        return MEASURES[measure](heads)
    if not isinstance(measure, str | type):
        if callable(getattr(measure, "matrix", None)):
            return measure  # type: ignore[no-any-return]
        if callable(measure):
            return Function(measure)
        if isinstance(measure, Tensor | Sequence) or hasattr(measure, "__array__"):
            if len(measure) == 0:
                raise InvalidArgumentError("measure holds no matrix: one a layer is needed")
            return Given(measure)
    raise InvalidArgumentError(
        f"measure must be one of {sorted(MEASURES)}, a Measure, a function of a layer's attention, or one matrix a "
        f"layer, got {measure!r}"
    )
