"""Maximum flow as a function that torch can differentiate.

The derivative of a maximum flow by a capacity is 1 where the edge leaves the minimum cut and 0 elsewhere: duality says
that the flow is the capacity of that cut. Where there are several minimum cuts the function has a kink, and the cut
nearest the source gives one of its subgradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import maxflow
from ._positions import Positions, items
from .errors import InvalidArgumentError, InvalidCapacityError

__all__ = ["blocks", "layered"]

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


def blocks(
    sizes: Sequence[int],
    links: Iterable[tuple[int, int, Tensor] | tuple[int, int, Tensor, int]],
    *,
    sources: Any,
    sinks: Any,
    threads: int | None = None,
    check: bool = False,
) -> Tensor:
    """Maximum flow between nodes of any graph of blocks, differentiable by the capacities of every link.

    Encoder-decoders, residual streams as diagonals and chained answers: whatever :class:`attnflow.Network` makes.

    Parameters
    ----------
    sizes : sequence of int
        Nodes of each block.
    links : iterable of (giver, receiver, capacities) and (giver, receiver, diagonal, offset)
        As the fields of :class:`attnflow.maxflow.Link`; capacities are tensors (n_receivers, n_givers), or (n_givers,)
        of the edges k -> k + offset, all float32 or all float64. Infinite ones are unbounded.
    sources, sinks, threads, check
        As for :func:`attnflow.maxflow.blocks`: nodes (block, position), or groups of them.

    Returns
    -------
    torch.Tensor
        (n_sinks, n_sources), of the dtype and on the device of the first link's capacities.

    Raises
    ------
    InvalidCapacityError
        No links; capacities that are no tensors, or not of one dtype of these two; NaN or negative ones.
    InvalidArgumentError, UnboundedFlowError, CertificateError
        As for :func:`attnflow.maxflow.blocks`.

    Notes
    -----
    Backwards takes O(n_edges) for each pair of a source and a sink whose derivative is asked for. There is no second
    derivative.

    Examples
    --------
    Capacities of 10 and 6 share a bottleneck of 10; only more of that would let more through:

    >>> import torch
    >>> from attnflow import differentiable
    >>> first, last = (torch.tensor(c, requires_grad=True) for c in ([[10.0, 6.0]], [[10.0]]))
    >>> flow = differentiable.blocks(
    ...     [2, 1, 1], [(0, 1, first), (1, 2, last)], sources=[[(0, 0), (0, 1)]], sinks=[(2, 0)]
    ... )
    >>> flow.backward()
    >>> flow.item(), first.grad.tolist(), last.grad.tolist()
    (10.0, [[0.0, 0.0]], [[1.0]])
    """
    read: list[tuple[int, int, Tensor, int]] = []
    for index, link in enumerate(items(links, "links", "a sequence of links")):
        if not isinstance(link, (tuple, list)) or len(link) not in (3, 4):
            raise InvalidArgumentError(
                f"link {index} is {link!r}: it must be (giver, receiver, capacities) or (giver, receiver, diagonal, "
                "offset)"
            )
        giver, receiver, capacities, offset = (*link, 0) if len(link) == 3 else link
        if not isinstance(capacities, Tensor) or capacities.dtype not in (torch.float32, torch.float64):
            said = capacities.dtype if isinstance(capacities, Tensor) else type(capacities).__name__
            raise InvalidCapacityError(f"link {index} has capacities that are {said}: tensors of float32 or float64")
        if read and capacities.dtype != read[0][2].dtype:
            raise InvalidCapacityError(
                f"link {index} has capacities of {capacities.dtype}, and link 0 of {read[0][2].dtype}: one is needed"
            )
        read.append((giver, receiver, capacities, offset))
    if not read:
        raise InvalidCapacityError("links are empty: at least one is needed")
    shape = tuple((giver, receiver, offset) for giver, receiver, _, offset in read)
    options = {"sources": sources, "sinks": sinks, "threads": threads, "check": check}
    tensors = [capacities for _, _, capacities, _ in read]
    flow: Tensor = _BlockFlow.apply(items(sizes, "sizes", "a sequence of integers"), shape, options, *tensors)  # type: ignore[no-untyped-call]
    return flow


class _BlockFlow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: list[int], shape: Any, options: dict[str, Any], *capacities: Tensor) -> Tensor:
        links = [
            maxflow.Link(giver, receiver, tensor.detach().cpu().numpy(), offset)
            for (giver, receiver, offset), tensor in zip(shape, capacities, strict=True)
        ]
        ctx.flows = maxflow.blocks(sizes, links, **options, cuts=any(ctx.needs_input_grad))
        ctx.links, ctx.devices = links, [tensor.device for tensor in capacities]
        return torch.from_numpy(np.array(ctx.flows.values)).to(capacities[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = slopes
        wanted = slope.detach().cpu().numpy().astype(np.float64)
        gradients = [np.zeros(link.capacities.shape) for link in ctx.links]
        for sink, source in np.argwhere(wanted).tolist():
            side = ctx.flows.cuts.cut(sink, source).source_side
            for link, gradient in zip(ctx.links, gradients, strict=True):
                here, there = side[link.giver], side[link.receiver]
                if gradient.ndim == 2:
                    gradient += wanted[sink, source] * np.outer(~there, here)
                    continue
                givers = np.arange(here.size)
                givers = givers[(givers + link.offset >= 0) & (givers + link.offset < there.size)]
                gradient[givers] += wanted[sink, source] * (here[givers] & ~there[givers + link.offset])
        found = zip(gradients, ctx.devices, strict=True)
        return None, None, None, *(torch.from_numpy(g).to(device=d, dtype=slope.dtype) for g, d in found)


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
