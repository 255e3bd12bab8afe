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


# --- any graph of blocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_derivatives_through_blocks(seed: int) -> None:
    """Matrices, diagonals with an offset, and a way round a block: two inputs, one of them half-way."""
    random = np.random.default_rng(seed)
    shapes = ((3, 4), (4,), (2, 3), (2, 4), (2, 2))
    given = [torch.from_numpy(random.random(shape)).requires_grad_() for shape in shapes]

    def flow(*tensors: Any) -> Any:
        ends = [(0, 1), (0, 1, 1), (1, 3), (0, 3), (2, 3)]
        links = [(*end[:2], tensor, *end[2:]) for end, tensor in zip(ends, tensors, strict=True)]
        return differentiable.blocks(
            [4, 3, 2, 2], links, sources=[(0, 0), [(0, 1), (2, 1)]], sinks=[(3, 0), [(3, 0), (3, 1)]], check=True
        )

    assert torch.autograd.gradcheck(flow, tuple(given), eps=1e-7, atol=1e-6)
    total = flow(*given).sum()
    slopes = torch.autograd.grad(total, given)
    euler = sum(float((slope * tensor.detach()).sum()) for slope, tensor in zip(slopes, given, strict=True))
    assert euler == pytest.approx(total.item(), rel=1e-9)
    assert (slopes[1][2:] == 0).all()  # their edges would end outside


def test_networks_of_two_stacks_through_blocks() -> None:
    encoder, decoder, cross = (
        np.random.default_rng(i).dirichlet(np.ones(n), (2, m)) for i, (m, n) in enumerate(((3, 3), (2, 2), (2, 3)))
    )
    decoder = np.tril(decoder)
    network = attnflow.Network.encoder_decoder(encoder, decoder, cross)
    links = [
        (link.giver, link.receiver, torch.tensor(np.asarray(link.capacities), dtype=torch.float64), link.offset)
        for link in network.links
    ]
    nodes = [(block, k) for block in network.inputs for k in range(network.sizes[block])]
    flow = differentiable.blocks(network.sizes, links, sources=nodes, sinks=[(len(network.sizes) - 1, 1)])
    assert np.array_equal(flow.numpy(), network.source_flows().values)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([], "links are empty"),
        ([(0, 1)], r"link 0 is \(0, 1\): it must be"),
        ([(0, 1, [[1.0]])], "link 0 has capacities that are list: tensors of float32 or float64"),
        ([(0, 1, torch.ones(1, 1, dtype=torch.int64))], "link 0 has capacities that are torch.int64"),
        (
            [(0, 1, torch.ones(1, 1)), (0, 1, torch.ones(1, 1).double())],
            "link 1 .*float64, and link 0 of torch.float32",
        ),
        ([(0, 1, -torch.ones(1, 1))], "-1"),
        ([(0, 1, torch.ones(2, 1))], r"\(2, 1\)"),
    ],
)
def test_wrong_links(links: Any, message: str) -> None:
    with pytest.raises((InvalidArgumentError, InvalidCapacityError), match=message):
        differentiable.blocks([1, 1], links, sources=[(0, 0)], sinks=[(1, 0)])


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match="sizes is 3; it must be a sequence of integers"):
        differentiable.blocks(3, [(0, 1, torch.ones(1, 1))], sources=[(0, 0)], sinks=[(1, 0)])  # type: ignore[arg-type]
