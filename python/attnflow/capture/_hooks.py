"""The fallback for models without the attention interface: eager weights, caught module by module.

The model is asked for its attentions, and every module that returns some has them taken away at once: reduced to one
(n, n) matrix, with an empty tensor left in their place, so that one layer of (H, n, n) is the most that ever exists.
The model's own tuple of attentions, which now holds those placeholders, is then the list of who must have reported.

Measures that look further than weights need the values that these are multiplied with. They are the other side of a
product: the products of tensors are noted while a layer runs, and the one that has the weights on its left is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnflow.capture._attention import GivenAttention, MultipliedAttention, tolerance
from attnflow.capture._layers import Stack
from attnflow.capture._state import hooked, in_this_thread, uninterrupted
from attnflow.errors import CaptureError

__all__ = ["Products", "catching", "returned", "verify_output"]

# One attention of every text of the batch; and, where products are noted, the one that the weights went into.
Report = Callable[[Sequence[GivenAttention], Tensor | None], None]

_RETURNED: dict[str, Stack | None] = {
    "encoder_attentions": "encoder",
    "decoder_attentions": "decoder",
    "cross_attentions": "cross",
    "attentions": None,
}


class Products(TorchFunctionMode):
    """Notes the products of tensors while it is entered: what a layer does with its probabilities is one of the last.

    Parameters
    ----------
    differentiable
        Whether what comes after the first product is to depend on it, in a model whose weights are frozen.
    """

    _multiply = frozenset({torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__})

    def __init__(self, *, differentiable: bool = False) -> None:
        super().__init__()
        self.differentiable = differentiable
        # Between the product and the return of a layer's weights stand its projection and little else.
        self.last: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=4)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self._multiply and len(args) == 2 and args[0].ndim > 2:
            if self.differentiable and torch.is_grad_enabled() and not result.requires_grad:
                result.requires_grad_()
            self.last.append((args[0], args[1], result))
        return result

    def of(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """What weights ``(batch, H, n_queries, n_keys)`` were multiplied with, and what came of it.

        As ``(batch, G, n_keys, e)`` and ``(batch, H, n_queries, e)``; behind them the result as the model had it. None
        if there was no such product.
        """
        batch, heads, queries, keys = weights.shape
        with torch._C.DisableTorchFunction():
            for left, right, result in reversed(self.last):
                if left.shape[-2:] != (queries, keys) or left.numel() != weights.numel() or right.shape[-2] != keys:
                    continue
                if left.data_ptr() != weights.data_ptr() and not torch.equal(left.reshape(weights.shape), weights):
                    continue
                # Values that heads share are broadcast.
                groups = right.shape[:-2].numel() // batch
                if groups not in (1, heads) or right.shape[:-2].numel() % batch:
                    continue
                written = result.detach().reshape(batch, heads, queries, -1)
                return right.detach().reshape(batch, groups, keys, -1), written, result
        return None


@contextmanager
def catching(
    model: nn.Module,
    batch: int,
    report: Report,
    placeholders: list[Tensor],
    block_bytes: int,
    products: Products | None = None,
) -> Iterator[None]:
    """Call ``report(attentions, product)`` for every module of ``model`` that returns attention weights.

    Parameters
    ----------
    batch
        How many texts the model runs on.
    placeholders
        Filled with the empty tensors that replace the weights, in the order of the reports.
    products
        Entered as well, and asked what weights were multiplied with.
    """
    names = {module: name for name, module in model.named_modules()}

    def hook(module: nn.Module, _: Any, output: Any) -> Any:
        # Modules that return a bare tensor (softmax, dropout) hand probabilities on to be used: hands off.
        if not isinstance(output, tuple | list):
            return None
        places = [i for i, item in enumerate(output) if i > 0 and _is_attention(item, batch)]
        if not places:
            return None
        if len(places) > 1:
            raise CaptureError(f"layer {names[module]!r} returned {len(places)} sets of attention weights, expected 1")
        (place,) = places
        weights = output[place].detach()
        found = None if products is None else products.of(weights)
        if found is None:
            report([GivenAttention(names[module], one, block_bytes) for one in weights], None)
        else:
            parts = zip(weights, *found[:2], strict=True)
            report([MultipliedAttention(names[module], one, block_bytes, *rest) for one, *rest in parts], found[2])
        placeholders.append(weights.new_empty((*weights.shape[:2], 0, 0)))
        replaced = [*output[:place], placeholders[-1], *output[place + 1 :]]
        return replaced if isinstance(output, list) else tuple(replaced)

    here = in_this_thread(hook)
    # Before those that transformers itself collects what it returns with, once a model was asked for any of it.
    ours = (module.register_forward_hook(here, prepend=True) for module in names)
    with _without_collectors(model), hooked(ours), products or nullcontext():
        yield


@contextmanager
def _without_collectors(model: nn.Module) -> Iterator[None]:
    """Undo that transformers leaves hooks on a model that was asked for its attentions, to be there the next time."""
    mark = "_output_capturing_hooks_installed"
    found = {module: (set(module._forward_hooks), mark in vars(module)) for module in model.modules()}
    try:
        yield
    finally:
        with uninterrupted():
            for module, (hooks, marked) in found.items():
                for key in module._forward_hooks.keys() - hooks:
                    del module._forward_hooks[key]
                if not marked:
                    vars(module).pop(mark, None)


def returned(model: nn.Module, outputs: Any, placeholders: Sequence[Tensor]) -> list[Stack | None]:
    """For each report the stack that the model says it belongs to; None in a model that has only one.

    What the model returned as its attentions must be exactly what was caught, each stack in the same order.
    """
    stacks: dict[int, Stack | None] = {}
    count = 0
    for field, stack in _RETURNED.items():
        weights = getattr(outputs, field, None) or ()
        if weights and all(one is None for one in weights):
            raise CaptureError(
                f"{type(model).__name__} returned none of the attentions that it was asked for: load it with "
                "attn_implementation='eager'"
            )
        count += len(weights)
        known = {id(placeholder): number for number, placeholder in enumerate(placeholders)}
        order = [known.get(id(one), -1) for one in weights]
        if -1 in order or order != sorted(order) or stacks.keys() & set(order):
            break
        stacks |= dict.fromkeys(order, stack)
    if len(stacks) != len(placeholders) or count != len(placeholders):
        raise CaptureError(
            f"{type(model).__name__} returned {count} attentions and {len(placeholders)} were caught inside "
            "its layers: they do not match. Build the matrices yourself and pass them to attnflow.Network"
        )
    return [stacks[number] for number in range(len(placeholders))]


def verify_output(model: nn.Module, eager: Any, own: Any, real: Tensor | None) -> None:
    """Assert that the eager pass, whose weights were caught, computed what the model computes as it was loaded.

    Some models do not: Falcon with ALiBi adds its bias twice when run eagerly.

    Parameters
    ----------
    real
        ``(batch, n)`` bool: where the input is no padding, of which a model may make what it likes. None: everywhere.
    """
    name = "logits" if "logits" in own else next(iter(own.keys()))
    expected, got = own[name].detach(), eager[name].detach()
    if real is not None and expected.shape[:2] == real.shape:
        expected, got = expected[real], got[real]
    scale = expected.abs().amax()
    error = float((got - expected).abs().amax() / scale.clamp_min(torch.finfo(scale.dtype).tiny))
    limit = tolerance(expected.dtype, eager=True)
    if not error <= limit:
        raise CaptureError(
            f"{type(model).__name__}: run with eager attention, its {name} are off by {error:.2g} of their scale from "
            f"those of the implementation it was loaded with (limit {limit:g}), so that eager weights are not the "
            "ones it uses. Load it with attn_implementation='eager' to explain that pass, or pass matrices of your "
            "own to attnflow.Network"
        )


def _is_attention(item: Any, batch: int) -> bool:
    """Whether something a module returned is a batch's attention: rows of probabilities, (batch, H, queries, keys)."""
    if not isinstance(item, Tensor) or item.ndim != 4 or not item.dtype.is_floating_point:
        return False
    if item.shape[0] != batch or item.numel() == 0:
        return False
    sums = item.sum(dim=-1, dtype=torch.float32)
    return bool((item >= 0).all()) and bool((sums <= 1.02).all())
