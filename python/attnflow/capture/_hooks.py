"""The fallback for models without the attention interface: eager weights, caught module by module.

The model is asked for its attentions, and every module that returns some has them taken away at once: reduced to one
(n, n) matrix, with an empty tensor left in their place, so that one layer of (H, n, n) is the most that ever exists.
The model's own tuple of attentions, which now holds those placeholders, is then the list of who must have reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.capture._attention import GivenAttention, tolerance
from attnflow.errors import CaptureError

__all__ = ["catching", "verify_output", "verify_returned"]

Report = Callable[[nn.Module, GivenAttention], None]


@contextmanager
def catching(model: nn.Module, n: int, report: Report, placeholders: list[Tensor], block_bytes: int) -> Iterator[None]:
    """Call ``report(module, attention)`` for every module of ``model`` that returns attention weights.

    Parameters
    ----------
    n
        Length of the text.
    placeholders
        Filled with the empty tensors that replace the weights, in the order of the reports.
    """
    names = {module: name for name, module in model.named_modules()}

    def hook(module: nn.Module, _: Any, output: Any) -> Any:
        # Modules that return a bare tensor (softmax, dropout) hand probabilities on to be used: hands off.
        if not isinstance(output, tuple | list):
            return None
        places = [i for i, item in enumerate(output) if i > 0 and _is_attention(item, n)]
        if not places:
            return None
        if len(places) > 1:
            raise CaptureError(f"layer {names[module]!r} returned {len(places)} sets of attention weights, expected 1")
        (place,) = places
        report(module, GivenAttention(names[module], output[place][0].detach(), block_bytes))
        placeholders.append(torch.empty(0, device=output[place].device))
        replaced = [*output[:place], placeholders[-1], *output[place + 1 :]]
        return replaced if isinstance(output, list) else tuple(replaced)

    handles = []
    try:
        for module in names:
            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def verify_returned(model: nn.Module, outputs: Any, placeholders: list[Tensor]) -> None:
    """Assert that what the model returned as its attentions is exactly what was caught, in the same order."""
    returned = getattr(outputs, "attentions", None)
    if not returned:
        returned = getattr(outputs, "decoder_attentions", None)
    returned = tuple(returned or ())
    if len(returned) != len(placeholders) or any(a is not b for a, b in zip(returned, placeholders, strict=True)):
        raise CaptureError(
            f"{type(model).__name__} returned {len(returned)} attentions and {len(placeholders)} were caught inside "
            "its layers: they do not match. Build the matrices yourself and pass them to attnflow.Network"
        )


def verify_output(model: nn.Module, eager: Any, own: Any) -> None:
    """Assert that the eager pass, whose weights were caught, computed what the model computes as it was loaded.

    Some models do not: Falcon with ALiBi adds its bias twice when run eagerly.
    """
    name = "logits" if "logits" in own else next(iter(own.keys()))
    expected, got = own[name], eager[name]
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


def _is_attention(item: Any, n: int) -> bool:
    """Whether something a module returned is one text's attention: rows of probabilities, all positions by all."""
    if not isinstance(item, Tensor) or item.ndim != 4 or not item.dtype.is_floating_point:
        return False
    if item.shape[0] != 1 or item.shape[2] != n or item.shape[3] != n:
        return False
    sums = item.sum(dim=-1, dtype=torch.float32)
    return bool((item >= 0).all()) and bool((sums <= 1.02).all())
