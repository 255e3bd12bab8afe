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

__all__ = ["expected_calls", "layer_of", "listens_at_interface", "refuse_hybrid", "uses_interface", "verify_calls"]

_HYBRID = (
    "Hybrid models have layers without softmax attention, through which no attention flow is defined; if this layer "
    "does have one, build the matrices yourself and pass them to attnflow.Network"
)


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


def places(model: nn.Module, name: str) -> list[tuple[str, int]]:
    """The stacks a module belongs to, innermost first: ``[("model.layers", 3)]`` for ``"model.layers.3.self_attn"``.

    There can be several: ALBERT keeps a list of groups of lists of layers, T5 a list of blocks of lists of sub-blocks.
    """
    parts = name.split(".")
    stacks = ((".".join(parts[:end]), int(parts[end])) for end in range(len(parts) - 1, -1, -1) if parts[end].isdigit())
    return [place for place in stacks if isinstance(model.get_submodule(place[0]), nn.ModuleList | nn.Sequential)]


def layer_of(model: nn.Module, name: str) -> str | None:
    """Name of the innermost layer around a module, or None."""
    found = places(model, name)
    return f"{found[0][0]}.{found[0][1]}" if found else None


def refuse_hybrid(model: nn.Module, name: str) -> None:
    """Raise if the stack around an attention module has a layer without any."""
    stack, _ = places(model, name)[-1]
    for index, layer in enumerate(model.get_submodule(stack).children()):
        if not uses_interface(layer):
            raise CaptureError(f"layer '{stack}.{index}' has no attention that could be captured. {_HYBRID}")


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
            f"{type(model).__name__} has no attention to capture: no layer asks transformers' attention interface, and "
            "none returns attention weights. Models without attention (Mamba and other state space models) have no "
            "attention flow; take a transformer, or pass matrices of your own to attnflow.Network"
        )
    found = [places(model, name) for name in called]
    # The innermost stack that holds them all.
    common = [stack for stack, _ in found[0] if all(stack in dict(other) for other in found)]
    if not common and len(called) > 1:
        stacks = sorted({other[-1][0] if other else "" for other in found})
        raise CaptureError(
            f"attention came from several stacks of layers ({', '.join(stacks)}), and which feeds which is unknown: "
            "capture a model with a single stack"
        )
    stack = common[0] if common else ""
    indices = [dict(other).get(stack, 0) for other in found]
    modules = model.get_submodule(stack)
    length = len(modules) if isinstance(modules, nn.ModuleList | nn.Sequential) else 1

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
            f"layer '{stack}.{missing[0]}' did not report its attention ({len(called)} of {len(promised)} layers did). "
            f"{_HYBRID}"
        )
    raise CaptureError(f"layers of {stack!r} reported in the order {indices}, expected {promised}")
