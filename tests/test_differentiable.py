"""Derivatives of flows: those of finite differences, and the cut that they are read off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import differentiable, instances, maxflow  # noqa: E402
from attnflow.errors import InvalidArgumentError, InvalidCapacityError  # noqa: E402


def capacities(seed: int, layers: int = 3, n: int = 4) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).random((layers, n, n))).requires_grad_()


@pytest.mark.parametrize("seed", range(8))
def test_derivatives_are_those_of_finite_differences(seed: int) -> None:
    """At random capacities there is one minimum cut, and the function is smooth."""
    for options in ({}, {"sources": [0, {1, 2}], "sinks": [0, [1, 3]]}):

        def flow(given: Any, options: Any = options) -> Any:
            return differentiable.layered(given, **options)

        assert torch.autograd.gradcheck(flow, (capacities(seed),), eps=1e-7, atol=1e-6)


def test_values_are_the_kernels() -> None:
    layers = instances.peaked(4, 20, seed=0)
    for dtype in (torch.float32, torch.float64):
        given = torch.from_numpy(layers).to(dtype)
        flow = differentiable.layered(given, sinks=[5, 19], check=True)
        assert (flow.dtype, flow.requires_grad) == (dtype, False)
        values = maxflow.layered(given.numpy(), sinks=[5, 19]).values
        assert np.array_equal(flow.numpy(), values.astype(flow.numpy().dtype))


def test_the_derivative_is_the_cut() -> None:
    given = capacities(3).detach().float().requires_grad_()
    flow = differentiable.layered(given, sources=1, sinks=2)
    flow.sum().backward()
    side = maxflow.layered(given.detach().numpy(), sources=1, sinks=2, cuts=True).cuts
    assert side is not None
    assert given.grad is not None
    for layer, gradient in enumerate(given.grad.numpy()):
        assert np.array_equal(gradient, np.outer(~side[0][0].source_side[layer + 1], side[0][0].source_side[layer]))
    # The flow is homogeneous: Euler's identity.
    assert (given.grad * given).sum().item() == pytest.approx(flow.item(), rel=1e-6)


def test_an_optimiser_widens_the_bottleneck() -> None:
    given = torch.tensor([[[0.5, 0.2], [0.3, 0.1]], [[0.1, 0.9], [0.2, 0.2]]], requires_grad=True)
    before = differentiable.layered(given, sources=0, sinks=0)
    for _ in range(20):
        loss = -differentiable.layered(given, sources=0, sinks=0).sum()
        (slope,) = torch.autograd.grad(loss, given)
        given = (given - 0.05 * slope).detach().requires_grad_()
    assert differentiable.layered(given, sources=0, sinks=0).item() > before.item() + 0.5


@pytest.mark.parametrize("wrong", [np.ones((1, 2, 2)), torch.ones(2, 2), torch.ones(1, 2, 2).half(), None])
def test_what_is_no_stack_of_layers_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidCapacityError, match="must be a tensor"):
        differentiable.layered(wrong)


def test_errors_are_the_kernels() -> None:
    with pytest.raises(InvalidCapacityError, match="nan"):
        differentiable.layered(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(InvalidArgumentError):
        differentiable.layered(torch.ones(1, 2, 2), sinks=4)
    assert attnflow.differentiable is differentiable
