"""Which layers ought to report their attention, and the assertion that each did.

Every way in which a capture can fail - a layer that goes round the interface, a module that reports twice, a linear
attention that never had probabilities - is silent: the matrices that did arrive look perfectly well. So the calls are
counted against the model's own structure.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from attnflow.errors import CaptureError

__all__ = ["layer_of", "listens_at_interface", "uses_interface", "verify_calls"]


def listens_at_interface(module: nn.Module) -> bool:
    """Whether a module asks transformers' attention interface for its attention function.

    Read off the compiled code of its class: decorators are unwrapped, and a patched instance (accelerate's offloading)
    does not hide it.
    """
    forward = inspect.unwrap(type(module).forward)
    code = getattr(forward, "__code__", None)
    return code is not None and "get_interface" in code.co_names


def uses_interface(model: nn.Module) -> bool:
    """Whether any module of the model does."""
    return any(listens_at_interface(module) for module in model.modules())


def layer_of(model: nn.Module, name: str) -> tuple[str, int] | None:
    """The stack and the index a module belongs to: ``("model.layers", 3)`` for ``"model.layers.3.self_attn"``.

    The innermost list wins: ALBERT keeps a list of groups of lists of layers.
    """
    parts = name.split(".")
    for end in range(len(parts) - 1, -1, -1):
        if parts[end].isdigit():
            stack = ".".join(parts[:end])
            if isinstance(model.get_submodule(stack), nn.ModuleList | nn.Sequential):
                return stack, int(parts[end])
    return None


def expected_calls(config: Any) -> int | None:
    """How many layers the configuration promises, or None if it does not say."""
    number = getattr(config, "num_hidden_layers", None)
    if not isinstance(number, int):
        return None
    # ALBERT runs this many layers each time it goes through a group.
    return number * int(getattr(config, "inner_group_num", 1) or 1)


def verify_calls(model: nn.Module, config: Any, called: Sequence[str]) -> tuple[str, ...]:
    """Assert that every layer reported its attention exactly once and in order.

    Parameters
    ----------
    model, config
        The model, and the configuration of its text part.
    called
        Names of the attention modules in the order of their reports.

    Returns
    -------
    tuple of str
        One name a layer. Layers that share a module (ALBERT) are told apart by ``#0``, ``#1``, ...

    Raises
    ------
    CaptureError
        Naming the layer that is missing or reported twice.
    """
    expected = expected_calls(config)
    if not called:
        raise CaptureError(
            f"no attention of {type(model).__name__} could be captured: it neither uses transformers' attention "
            "interface nor returns attentions. Build the matrices yourself and pass them to attnflow.Network"
        )
    places = [layer_of(model, name) for name in called]
    stacks = {place[0] if place is not None else "" for place in places}
    if len(stacks) > 1:
        raise CaptureError(
            f"attention came from several stacks of layers ({', '.join(sorted(stacks))}), and which feeds which is "
            "unknown: capture a model with a single stack"
        )
    (stack,) = stacks
    indices = [place[1] if place is not None else 0 for place in places]
    modules = model.get_submodule(stack)
    length = len(modules) if stack and isinstance(modules, nn.ModuleList | nn.Sequential) else 1

    if len(set(called)) < len(called):
        # The same module more than once: right for layers that share their weights, wrong for anything else, and the
        # configuration alone can tell.
        if len(called) != expected:
            repeated = next(name for name in called if called.count(name) > 1)
            raise CaptureError(
                f"layer {repeated!r} reported its attention {called.count(repeated)} times, {len(called)} reports in "
                f"all, and the configuration promises {expected} layers"
            )
        return tuple(f"{name}#{number}" for number, name in enumerate(called))

    promised = list(range(length if expected is None else min(length, expected)))
    if indices == promised:
        return tuple(called)
    missing = sorted(set(promised) - set(indices))
    if missing:
        raise CaptureError(
            f"layer '{stack}.{missing[0]}' did not report its attention ({len(called)} of {len(promised)} layers "
            "did). Hybrid models have layers without softmax attention, through which no attention flow is defined; "
            "if this layer does have one, build the matrices yourself and pass them to attnflow.Network"
        )
    raise CaptureError(f"layers of {stack!r} reported in the order {indices}, expected {promised}")
