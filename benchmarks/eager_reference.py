"""What a tiny model's attention really is: as eager returns it, and as its softmaxes are seen to compute it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from tiny_inputs import Inputs
from tiny_models import run

__all__ = ["SEED", "Reference", "agrees_with", "eager_twin", "reference"]

SEED = 0  # of what a model does at random while it runs

_ATTENTION = re.compile(r"att(n|ention)", re.IGNORECASE)
_HIDDEN = 9e3  # masks subtract ten thousand at least
_KINDS = {"encoder_attentions": "encoder", "decoder_attentions": "decoder", "cross_attentions": "cross"}


@dataclass
class Reference:
    """One eager pass.

    Attributes
    ----------
    returned
        Name of the output's field -> one ``(batch, n_query, n_key)`` tensor a layer, heads averaged.
    peculiar
        What was returned in another shape, in words.
    softmaxes
        ``(batch, n_query, n_key)``, heads averaged: every softmax inside an attention module, in order.
    applied
        ``(batch, n_query, n_key)``, heads averaged: what the interface's functions multiplied the values with, where
        that is not what they returned (GraniteSWA takes its sink's share from the output alone).
    interface_calls
        How often transformers' attention interface was asked.
    largest_score
        The largest number, sign aside, that entered one of the softmaxes; hidden keys not counted.
    """

    returned: dict[str, list[Tensor]] = field(default_factory=dict)
    peculiar: list[str] = field(default_factory=list)
    softmaxes: list[Tensor] = field(default_factory=list)
    applied: list[Tensor] = field(default_factory=list)
    interface_calls: int = 0
    largest_score: float = 0.0

    @property
    def has_attention(self) -> bool:
        """Whether anything that looks like attention was computed or returned."""
        return bool(self.returned or self.peculiar or self.softmaxes or self.interface_calls)

    def kind(self, name: str) -> str:
        """What a field of the output holds: "encoder", "decoder", "cross", "self" or "other"."""
        return _KINDS.get(name, "self" if name == "attentions" else "other")


def eager_twin(model: Any) -> Any:
    """The same model with eager attention."""
    config = type(model.config).from_dict(model.config.to_dict())
    config._attn_implementation = "eager"
    twin = type(model)(config).to(model.dtype).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def agrees_with(model: Any, twin: Any, inputs: Inputs) -> bool:
    """Whether both compute the same of the same inputs, to a thousandth of its scale."""
    outputs = []
    for one in (model, twin):
        torch.manual_seed(SEED)
        outputs.append([leaf for leaf in _leaves(tuple(run(one, inputs).values())) if isinstance(leaf, Tensor)])
    return all(
        a.shape == b.shape and bool((a.float() - b.float()).abs().max() <= 1e-3 * b.float().abs().max())
        for a, b in zip(*outputs, strict=True)
        if a.numel()
    )


def reference(model: Any, inputs: Inputs) -> Reference:
    """Run the eager twin of a model and note its attention."""
    twin = eager_twin(model)
    found = Reference()
    batch = next((value.shape[0] for value in inputs.values() if isinstance(value, Tensor)), 1)
    torch.manual_seed(SEED)
    with _watching(twin, found, batch):
        try:
            output = run(twin, inputs, output_attentions=True)
        except TypeError as error:
            if "output_attentions" not in str(error):
                raise
            output = run(twin, inputs)  # it knows of no attention
    for name, value in _attention_fields(output):
        layers = [layer for layer in _leaves(value) if isinstance(layer, Tensor)]
        if not layers:
            continue
        if all(layer.ndim == 4 for layer in layers):
            found.returned[name] = [layer.float().mean(dim=1) for layer in layers]
        else:
            found.peculiar.append(f"{name}: {len(layers)} of shape {tuple(layers[0].shape)}")
    return found


@contextmanager
def _watching(model: nn.Module, found: Reference, batch: int) -> Iterator[None]:
    """Note every softmax inside an attention module, and every call of the interface."""
    stack: list[bool] = []
    handles = []

    def enter(module: nn.Module, *_: Any) -> None:
        stack.append(bool(stack and stack[-1]) or bool(_ATTENTION.search(type(module).__name__)))

    def leave(*_: Any) -> None:
        stack.pop()

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.aten._softmax.default and stack and stack[-1] and result.ndim in (3, 4):
                heads = result.detach().float()
                if heads.ndim == 3:
                    heads = heads.unflatten(0, (batch, -1)) if heads.shape[0] % batch == 0 else heads[:, None]
                found.softmaxes.append(heads.mean(dim=1))
                scores = args[0].detach().float().abs()
                seen = scores[scores < _HIDDEN]
                found.largest_score = max(found.largest_score, float(seen.max()) if seen.numel() else 0.0)
            return result

    original = AttentionInterface.__dict__["get_interface"]

    def get_interface(self: Any, implementation: str, default: Callable[..., Any]) -> Any:
        found.interface_calls += 1
        function = original(self, implementation, default)

        def noting(module: nn.Module, *tensors: Any, **options: Any) -> Any:
            result = function(module, *tensors, **options)
            value = tensors[2] if len(tensors) > 2 else options.get("value")
            _note_applied(found, result, value)
            return result

        return noting

    try:
        AttentionInterface.get_interface = get_interface
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        with Recorder():  # type: ignore[no-untyped-call]
            yield
    finally:
        AttentionInterface.get_interface = original
        for handle in handles:
            handle.remove()


def _note_applied(found: Reference, result: Any, value: Any) -> None:
    """Scale returned weights so that their product with the values is the output, where it is not."""
    output, weights = result[0], result[1] if len(result) > 1 else None
    if not (isinstance(weights, Tensor) and isinstance(value, Tensor)) or weights.ndim != 4 or output.ndim != 4:
        return
    heads, keys = weights.shape[1], weights.shape[3]
    if value.shape[2] != keys or heads % value.shape[1]:
        return
    mixed = weights @ value.repeat_interleave(heads // value.shape[1], dim=1).to(weights.dtype)
    output = output.transpose(1, 2)
    if output.shape != mixed.shape:
        return
    share = (output * mixed).sum(dim=-1, keepdim=True) / (mixed * mixed).sum(dim=-1, keepdim=True).clamp_min(1e-30)
    if float((share - 1).abs().max()) > 1e-3 and bool(torch.allclose(share * mixed, output, atol=1e-4)):
        found.applied.append((weights * share).float().mean(dim=1))


def _attention_fields(output: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of an output, and of outputs inside it, that are named after attention."""
    if not isinstance(output, dict):
        return
    for name, value in output.items():
        if isinstance(value, dict):
            yield from _attention_fields(value, f"{prefix}{name}.")
        elif name.endswith("attentions") and value is not None:
            yield f"{prefix}{name}", value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value
