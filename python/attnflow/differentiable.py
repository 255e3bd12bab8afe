"""Maximum flow as a function that torch can differentiate.

The derivative of a maximum flow by a capacity is 1 where the edge leaves the minimum cut and 0 elsewhere: duality says
that the flow is the capacity of that cut. Where there are several minimum cuts the function has a kink, and the cut
nearest the source gives one of its subgradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import maxflow
from ._positions import Positions
from .errors import InvalidCapacityError

__all__ = ["layered"]

_RULE = "capacities must be a tensor (layers, n, n) of float32 or float64"


def layered(
    capacities: Tensor,
    *,
    sources: Positions | None = None,
    sinks: Positions = -1,
    threads: int | None = None,
    check: bool = False,
) -> Tensor:
    """Maximum flow from every source position of the first block to each sink position of the last, differentiable.

    Parameters
    ----------
    capacities : torch.Tensor
        (L, n, n), float32 or float64, on any device: as for :func:`attnflow.maxflow.layered`.
    sources, sinks, threads, check
        As for :func:`attnflow.maxflow.layered`.

    Returns
    -------
    torch.Tensor
        (n_sinks, n_sources), of the dtype and on the device of the capacities.

    Raises
    ------
    InvalidCapacityError
        No tensor (L, n, n) of float32 or float64; NaN or negative capacities.
    InvalidArgumentError, UnboundedFlowError, CertificateError
        As for :func:`attnflow.maxflow.layered`.

    Notes
    -----
    Backwards takes O(L n^2) for each pair of a source and a sink whose derivative is asked for. There is no second
    derivative.

    Examples
    --------
    >>> import torch
    >>> from attnflow import differentiable
    >>> layer = torch.tensor([[0.7, 0.3], [0.4, 0.6]], requires_grad=True)
    >>> flow = differentiable.layered(torch.stack([layer, layer]), sources=0, sinks=1)
    >>> flow.sum().backward()
    >>> flow.item(), layer.grad.tolist()  # 0.8 = min(0.7, 0.4) + min(0.4, 0.6)
    (0.800000011920929, [[0.0, 0.0], [2.0, 0.0]])
    """
    if not isinstance(capacities, Tensor):
        raise InvalidCapacityError(f"{_RULE}, got {type(capacities).__name__}")
    if capacities.ndim != 3 or capacities.dtype not in (torch.float32, torch.float64):
        raise InvalidCapacityError(f"{_RULE}, got shape {tuple(capacities.shape)}, {capacities.dtype}")
    options = {"sources": sources, "sinks": sinks, "threads": threads, "check": check}
    flow: Tensor = _LayeredFlow.apply(capacities, options)  # type: ignore[no-untyped-call]
    return flow


class _LayeredFlow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, capacities: Tensor, options: dict[str, Any]) -> Tensor:
        array = capacities.detach().cpu().numpy()
        ctx.flows = maxflow.layered(array, **options, cuts=ctx.needs_input_grad[0])
        ctx.shape = array.shape
        return torch.from_numpy(np.array(ctx.flows.values)).to(capacities)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (slope,) = slopes
        wanted = slope.detach().cpu().numpy().astype(np.float64)
        gradient = np.zeros(ctx.shape)
        for sink, source in np.argwhere(wanted).tolist():
            side = ctx.flows.cuts.cut(sink, source).source_side
            for layer in range(len(gradient)):
                gradient[layer] += wanted[sink, source] * np.outer(~side[layer + 1], side[layer])
        return torch.from_numpy(gradient).to(slope), None
