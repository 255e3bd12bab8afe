"""The main path: listening at transformers' attention interface.

Nearly every modelling file asks one function, ``AttentionInterface.get_interface``, for the attention function to
use, at every call of every layer. While a capture runs, that function hands out a listener instead: it calls the
function the layer would have called, so that the model computes exactly what it always does, and notes queries, keys,
values and mask. Nothing about the model or its configuration changes, whichever implementation it was loaded with,
and modules that are not being captured (another model in another thread) are passed by.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from attnflow.capture._attention import ComputedAttention
from attnflow.errors import CaptureError

__all__ = ["available", "listening"]

Report = Callable[[nn.Module, ComputedAttention], None]

# The patch is on a class, so captures take turns. Re-entrant: a progress callback may start a capture of its own.
_turn = threading.RLock()


def available() -> bool:
    """Whether this version of transformers has the interface in the form listened at here."""
    return "get_interface" in vars(AttentionInterface)


@contextmanager
def listening(model: nn.Module, report: Report, block_bytes: int) -> Iterator[None]:
    """Call ``report(module, attention)`` for every attention of ``model`` computed in this thread.

    ``attention`` is complete when the report comes, but its probabilities are computed only when it is asked for them,
    which may be later in the pass: queries, keys and values stay as they are.
    """
    names = {module: name for name, module in model.named_modules()}
    thread = threading.get_ident()
    original = AttentionInterface.__dict__["get_interface"]

    def get_interface(self: Any, implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        function: Callable[..., Any] = original(self, implementation, default)
        if threading.get_ident() != thread:
            return function

        def listener(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:
            name = names.get(module)
            if name is None:
                return function(module, query, key, value, *rest, **options)
            mask = rest[0] if rest else options.pop("attention_mask", None)
            call = _Call(function, function is default or implementation == "eager", implementation)
            output, attention = call.run(module, name, query, key, value, mask, options, block_bytes)
            report(module, attention)
            return output, None

        return listener

    with _turn:
        try:
            AttentionInterface.get_interface = get_interface
            yield
        finally:
            AttentionInterface.get_interface = original


class _Call:
    """One call of a layer's own attention function."""

    def __init__(self, function: Callable[..., Any], eager: bool, implementation: str | None) -> None:
        self.function, self.eager, self.implementation = function, eager, implementation or ""

    def run(
        self,
        module: nn.Module,
        name: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        options: dict[str, Any],
        block_bytes: int,
    ) -> tuple[Tensor, ComputedAttention]:
        """Compute the layer's output as it would, and what a measure needs to know."""
        if mask is not None and not isinstance(mask, Tensor):
            raise CaptureError(
                f"layer {name!r}: attention implementation {self.implementation!r} masks with a "
                f"{type(mask).__name__}, which cannot be read: load the model with attn_implementation='sdpa'"
            )
        n = query.shape[2]
        if self.eager and query.shape[1] * n * n * query.element_size() > block_bytes:
            output = self._in_blocks(module, query, key, value, mask, options, block_bytes)
        else:
            output = self.function(module, query, key, value, mask, **options)[0]
        readable = None if mask is None else mask[..., : key.shape[2]]
        if mask is not None and mask.ndim == 2:  # flash attention: which tokens are padding; here none is
            if not bool(mask.all()):
                raise CaptureError(f"layer {name!r}: its mask hides tokens of a text without padding")
            readable = None
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        return output, ComputedAttention(
            name,
            query,
            key,
            value,
            mask=readable,
            output=output,
            # An eager function knows nothing of causality beyond its mask.
            causal=bool(causal) and n > 1 and not self.eager,
            # Only the flash functions are told of a window instead of a mask.
            window=options.get("sliding_window") if "flash" in self.implementation else None,
            options=options,
            eager=self.eager,
            block_bytes=block_bytes,
        )

    def _in_blocks(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
        block_bytes: int,
    ) -> Tensor:
        """The eager function on a few queries at a time: it would build all H x n x n probabilities otherwise.

        Queries do not see each other, so this changes nothing; should a model's function be an exception, the proof
        in :class:`ComputedAttention` fails.
        """
        _, heads, n, _ = query.shape
        step = max(1, block_bytes // (heads * n * query.element_size()))
        bias = options.get("position_bias")
        parts = []
        for start in range(0, n, step):
            stop = min(n, start + step)
            local = dict(options)
            if bias is not None and bias.shape[-2] == n:
                local["position_bias"] = bias[..., start:stop, :]
            rows = mask[..., start:stop, :] if mask is not None and mask.ndim == 4 and mask.shape[-2] == n else mask
            parts.append(self.function(module, query[:, :, start:stop], key, value, rows, **local)[0])
        return torch.cat(parts, dim=1)
