"""A user's own measure: a function of a layer's attention, or matrices that are there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attnflow.capture._attention import Attention
from attnflow.capture._subblock import SubBlock
from attnflow.capture.measures._protocol import Measure
from attnflow.errors import InvalidArgumentError

__all__ = ["Function", "Given"]


class Function(Measure):
    """A function of a layer's :class:`~attnflow.capture.measures.Attention`, which returns ``(n_queries, n_keys)``."""

    def __init__(self, function: Callable[[Attention], Tensor]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor:
        """See :meth:`Measure.matrix`."""
        made = self.function(attention)
        _check(made, attention, f"measure {self.name!r}")
        return made.detach().to(torch.float32)


class Given(Measure):
    """Matrices that were computed elsewhere, one a layer in the order of computation, for one text.

    Parameters
    ----------
    layers
        ``(n_queries, n_keys)`` each; tensors or arrays.
    holds_residual
        Whether they count what a position keeps of itself.
    """

    name = "given"

    def __init__(self, layers: Sequence[Any], *, holds_residual: bool = False) -> None:
        self.layers = [torch.as_tensor(layer) for layer in layers]
        self.holds_residual = holds_residual
        self._used = 0

    def begin(self, batch: int) -> None:
        """See :meth:`Measure.begin`: the next matrix is the first layer's."""
        if batch != 1:
            raise InvalidArgumentError(f"the matrices of measure 'given' are of one text, and there are {batch}")
        self._used = 0

    def end(self) -> None:
        """See :meth:`Measure.end`: the model had no fewer layers than there are matrices."""
        if self._used < len(self.layers):
            raise InvalidArgumentError(
                f"measure holds {len(self.layers)} matrices, and the model has {self._used} layers: one a layer is "
                "needed, in the order of computation"
            )

    def matrix(self, attention: Attention, subblock: SubBlock | None) -> Tensor:
        """See :meth:`Measure.matrix`."""
        if self._used >= len(self.layers):
            raise InvalidArgumentError(
                f"measure holds {len(self.layers)} matrices, and none for layer {attention.name!r}: one a layer is "
                "needed, in the order of computation"
            )
        made = self.layers[self._used]
        self._used += 1
        _check(made, attention, f"the matrix given for layer {attention.name!r}")
        return made.detach().to(device=attention.device, dtype=torch.float32)


def _check(made: Any, attention: Attention, what: str) -> None:
    wanted = (attention.n_queries, attention.n_keys)
    if not isinstance(made, Tensor) or tuple(made.shape) != wanted:
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InvalidArgumentError(
            f"{what} must be a tensor of shape {wanted} for layer {attention.name!r}, got {shape}"
        )
    if bool((made < 0).any()) or not bool(torch.isfinite(made).all()):
        raise InvalidArgumentError(f"{what} must be finite and not negative, layer {attention.name!r}")
