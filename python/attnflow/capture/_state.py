"""The promise to leave a model exactly as it was found, also after an error or Ctrl-C."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = ["eager_configuration", "evaluation", "hooked", "in_this_thread", "uninterrupted"]

# Models are changed for a while, and so is a class of transformers: those who do so take turns. Re-entrant: a progress
# callback may start a capture of its own.
_turn = threading.RLock()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the body has run: half a change could not be undone, nor half an undoing be repeated."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # interrupts come to the main thread alone
        return
    waiting: list[Any] = []
    signal.signal(signal.SIGINT, lambda *what: waiting.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])


@contextmanager
def hooked(registered: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks, registered as they are drawn, which are gone when the body has run."""
    handles: list[RemovableHandle] = []
    try:
        with uninterrupted():
            handles.extend(registered)
        yield
    finally:
        with uninterrupted():
            for handle in handles:
                handle.remove()


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that passes by a model's runs in other threads, which are somebody else's."""
    thread = threading.get_ident()

    @functools.wraps(hook)
    def here(*given: Any) -> Any:
        return hook(*given) if threading.get_ident() == thread else None

    return here


@contextmanager
def evaluation(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Run the body without dropout or compiled code, then put every module's own mode back.

    Without gradients, or with those of activations: weights are frozen while the body runs, so that nothing is kept
    for their sake.

    The flags are saved module by module: a model may well be training with some parts frozen in evaluation mode, and
    ``model.train()`` would not bring that back. ``train()`` itself is not called, because models may override it.
    """
    with _turn:
        yield from _evaluation(model, gradients)


def _evaluation(model: nn.Module, gradients: bool) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    # By name: offloading puts new parameters in the place of the old ones at every run.
    learning = [
        (module, name)
        for module in (model.modules() if gradients else ())
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]
    with ExitStack() as stack:
        with uninterrupted():
            stack.enter_context(torch.enable_grad() if gradients else torch.no_grad())
            if gradients:
                stack.enter_context(torch.inference_mode(False))
            # A compiled model would run its old graph, which knows nothing of the listener.
            set_stance = getattr(torch.compiler, "set_stance", None)
            if set_stance is not None:
                stack.enter_context(set_stance("force_eager"))
        try:
            with uninterrupted():
                for module in training:
                    module.training = False
                for module, name in learning:
                    module.get_parameter(name).requires_grad_(False)
            yield
        finally:
            with uninterrupted():
                for module in training:
                    module.training = True
                for module, name in learning:
                    module.get_parameter(name).requires_grad_(True)


@contextmanager
def eager_configuration(model: nn.Module) -> Iterator[bool]:
    """Make every configuration in the model say "eager" while the body runs; yields whether that changed any.

    Models without the attention interface still read this when they build their masks and choose a branch: under
    "sdpa" some would add a boolean mask to their scores, which raises no error and is wrong. The private field is set
    directly because the public setter also recurses and validates, and could not be undone exactly.
    """
    field = "_attn_implementation_internal"
    seen: dict[int, tuple[Any, Any]] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        todo = [config] if config is not None else []
        while todo:
            config = todo.pop()
            if id(config) in seen or field not in getattr(config, "__dict__", {}):
                continue
            seen[id(config)] = (config, config.__dict__[field])
            todo += [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    try:
        with uninterrupted():
            for config, _ in seen.values():
                config.__dict__[field] = "eager"
        yield any(value not in ("eager", None) for _, value in seen.values())
    finally:
        with uninterrupted():
            for config, value in seen.values():
                config.__dict__[field] = value
