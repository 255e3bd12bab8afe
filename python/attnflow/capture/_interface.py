"""The main path: listening at transformers' attention interface.

Nearly every modelling file asks one function, ``AttentionInterface.get_interface``, for the attention function to
use, at every call of every layer. While a capture runs, that function hands out a listener instead: it calls the
function the layer would have called, so that the model computes exactly what it always does, and notes queries, keys,
values and mask. Nothing about the model or its configuration changes, whichever implementation it was loaded with,
and modules that are not being captured (another model in another thread) are passed by.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from attnflow.capture._attention import ComputedAttention
from attnflow.capture._layers import listens_at_interface
from attnflow.capture._state import hooked, in_this_thread
from attnflow.errors import CaptureError

__all__ = ["available", "listening"]

# One attention of every text of the batch, and what it put out, with its place in autograd's graph.
Report = Callable[[Sequence[ComputedAttention], Tensor], None]

# By what name an attention module takes another sequence to attend to.
_OTHER_SEQUENCE = ("key_value_states", "encoder_hidden_states", "cross_attention_states", "encoder_outputs", "context")


# Arguments of an attention function that may differ from text to text, (1 | batch, ...).
_PER_TEXT = ("position_bias", "s_aux", "sinks")


def available() -> bool:
    """Whether this version of transformers has the interface in the form listened at here."""
    return "get_interface" in vars(AttentionInterface)


@contextmanager
def listening(model: nn.Module, batch: int, report: Report, block_bytes: int) -> Iterator[None]:
    """Call ``report(attentions, output)`` for every attention of ``model`` computed in this thread.

    ``attentions`` are complete when the report comes, but their probabilities are computed only when they are asked
    for them, which may be later in the pass: queries, keys and values stay as they are.

    Parameters
    ----------
    batch
        How many texts the model runs on.
    """
    names = {module: name for name, module in model.named_modules()}
    crossing: dict[nn.Module, bool] = {}
    thread = threading.get_ident()
    original = AttentionInterface.__dict__["get_interface"]

    def get_interface(self: Any, implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        function: Callable[..., Any] = original(self, implementation, default)
        if threading.get_ident() != thread:
            return function

        def listener(module: nn.Module, *tensors: Any, **options: Any) -> Any:
            name = names.get(module)
            if name is None:
                return function(module, *tensors, **options)
            # By place or, in a few models, by name.
            given = dict(zip(("query", "key", "value", "attention_mask"), tensors, strict=False))
            query, key, value = (given.get(part, options.pop(part, None)) for part in ("query", "key", "value"))
            mask = given.get("attention_mask", options.pop("attention_mask", None))
            call = _Call(function, function is default or implementation == "eager", implementation)
            cross = crossing.get(module, False)
            output, attentions = call.run(
                module, name, query, key, value, mask, options, batch=batch, cross=cross, block_bytes=block_bytes
            )
            report(attentions, output)
            return output, None

        return listener

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        crossing[module] = _reads_another_sequence(module, args, kwargs)

    here = in_this_thread(note)
    listening = [module for module in names if listens_at_interface(module)]
    with hooked(module.register_forward_pre_hook(here, with_kwargs=True) for module in listening):
        try:
            AttentionInterface.get_interface = get_interface
            yield
        finally:
            AttentionInterface.get_interface = original


def _reads_another_sequence(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module is called with a sequence to attend to beside its own."""
    given = dict(kwargs)
    if args:
        # Not bind(): a call that does not fit the signature is the module's own business.
        names = [name for name in inspect.signature(type(module).forward).parameters if name != "self"]
        given |= dict(zip(names, args, strict=False))
    return any(given.get(name) is not None for name in _OTHER_SEQUENCE)


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
        *,
        batch: int,
        cross: bool,
        block_bytes: int,
    ) -> tuple[Tensor, list[ComputedAttention]]:
        """Compute the layer's output as it would, and what a measure needs to know."""
        if mask is not None and not isinstance(mask, Tensor):
            raise CaptureError(
                f"layer {name!r}: attention implementation {self.implementation!r} masks with a "
                f"{type(mask).__name__}, which cannot be read: load the model with attn_implementation='sdpa'"
            )
        n = query.shape[2]
        size = query.numel() // query.shape[-1] * key.shape[2] * query.element_size()
        if self.eager and (size > block_bytes or torch.is_grad_enabled()):
            output = self._in_blocks(module, query, key, value, mask, options, block_bytes)
        else:
            output = self.function(module, query, key, value, mask, **options)[0]
        _check_shapes(name, query, key, value, output, batch=batch, cross=cross)
        if torch.is_grad_enabled() and not output.requires_grad:
            output.requires_grad_()  # the first layer, whose weights are frozen: what follows depends on it
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        # An eager function knows nothing of causality beyond its mask.
        causal = bool(causal) and n > 1 and not self.eager
        # Only the flash functions are told of a window instead of a mask.
        window = options.get("sliding_window") if "flash" in self.implementation else None
        readable = None if mask is None else mask[..., : key.shape[2]]
        if readable is not None and readable.ndim == 3:
            readable = readable[:, None]  # the same for all heads
        if mask is not None and mask.ndim == 2:  # flash attention: which tokens are padding
            readable = None if bool(mask.all()) else _unpadded(mask, n, causal, window, cross)
        outputs = output.reshape(batch, n, query.shape[1], -1)
        return output, [
            ComputedAttention(
                name,
                query[text],
                key[text],
                value[text],
                mask=_of_text(readable, text),
                output=outputs[text],
                cross=cross,
                causal=causal,
                window=window,
                options={**options, **{part: _of_text(options.get(part), text) for part in _PER_TEXT}},
                eager=self.eager,
                block_bytes=block_bytes,
            )
            for text in range(batch)
        ]

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
        batch, heads, n, _ = query.shape
        step = max(1, block_bytes // (batch * heads * key.shape[2] * query.element_size()))
        bias = options.get("position_bias")
        parts = []
        for start in range(0, n, step):
            stop = min(n, start + step)
            local = dict(options)
            if bias is not None and bias.shape[-2] == n:
                local["position_bias"] = bias[..., start:stop, :]
            rows = mask[..., start:stop, :] if mask is not None and mask.ndim == 4 and mask.shape[-2] == n else mask
            asked = query[:, :, start:stop]
            if torch.is_grad_enabled():
                # Probabilities kept for the way back would add up to H x n x n again: they are computed anew there.
                run = _with_its_own(module, partial(self.function, module, **local))
                part = checkpoint(run, asked, key, value, rows, use_reentrant=False)
            else:
                part = self.function(module, asked, key, value, rows, **local)[0]
            parts.append(part)
        return torch.cat(parts, dim=1)


def _with_its_own(module: nn.Module, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """An attention function that, when called again later, finds the parameters (sinks) that its module has now.

    Those of an offloaded module are there only while it runs.
    """
    own = dict(module._parameters)

    def run(*given: Any) -> Tensor:
        found = dict(module._parameters)
        module._parameters.update(own)
        try:
            output: Tensor = function(*given)[0]
        finally:
            module._parameters.update(found)
        return output

    return run


def _check_shapes(
    name: str, query: Tensor, key: Tensor, value: Tensor, output: Tensor, *, batch: int, cross: bool
) -> None:
    """Refuse what is not every text of the batch attending to itself or, across, to another sequence."""
    shapes = f"queries {tuple(query.shape)}, keys {tuple(key.shape)}, values {tuple(value.shape)}"
    heads, rest = divmod(query.shape[1], key.shape[1])
    if query.shape[0] != batch or key.shape[0] != batch or rest or not heads or value.shape[:3] != key.shape[:3]:
        raise CaptureError(
            f"layer {name!r}: cannot read its attention: {shapes} are not a batch of {batch}, each text attending to "
            "itself or to another sequence (windows and other local attention are not). Use Network with matrices of "
            "your own"
        )
    if not cross and query.shape[2] != key.shape[2]:
        raise CaptureError(
            f"layer {name!r}: {shapes}: {query.shape[2]} positions attend to {key.shape[2]}, and no module says that "
            "these are another sequence. Pass the whole text without past_key_values, or use Network with matrices of "
            "your own"
        )
    wanted = (batch, query.shape[2], query.shape[1], value.shape[-1])
    if output.numel() != torch.Size(wanted).numel():
        raise CaptureError(f"layer {name!r}: its attention function returned {tuple(output.shape)}, expected {wanted}")


def _unpadded(padding: Tensor, n: int, causal: bool, window: int | None, cross: bool) -> Tensor:
    """The (batch, 1, n, keys) mask that flash attention works with when it is told which tokens are padding."""
    keys = padding.shape[1]
    visible = padding.bool()[:, None, None, :].expand(-1, 1, n, keys).clone()
    ahead = torch.arange(keys, device=padding.device) - torch.arange(n, device=padding.device)[:, None]
    if causal:
        visible &= ahead <= 0
    if window is not None:
        visible &= ahead.abs() < window
    if not cross:
        visible &= padding.bool()[:, None, :, None]
    return visible


def _of_text(full: Tensor | None, text: int) -> Tensor | None:
    """One text's part of a mask, a bias or sinks of shape (1 | batch, ...); what has no batch is everybody's."""
    if full is None or full.ndim < 4:
        return full
    return full[text if full.shape[0] > 1 else 0]
