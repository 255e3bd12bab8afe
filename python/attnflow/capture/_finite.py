"""Numbers that are not finite, traced to the module they come from.

NaN fails whichever proof it meets first, which then speaks of something else. Watching every module of every model
would cost time where nothing is wrong, so a model is watched only when its capture has failed, in a run of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.capture._state import hooked, in_this_thread
from attnflow.capture._subblock import first_tensor
from attnflow.errors import CaptureError

__all__ = ["finite", "name_the_source", "verify_output"]


def verify_output(model: nn.Module, outputs: Any) -> None:
    """Assert that what a model computed in the end are numbers: a broken head leaves no trace in the layers."""
    final = first_tensor(tuple(outputs.values()) if isinstance(outputs, Mapping) else outputs)
    # Minus infinity is how a head rules out a token. NaN is not less than anything.
    if final is not None and not float(final.detach().amax()) < math.inf:
        raise CaptureError(f"the output of {type(model).__name__} is not finite: it holds NaN or infinity")


def name_the_source(model: nn.Module, forward: Callable[[], object]) -> None:
    """Run a model, and raise if one of its modules makes numbers that are not finite of numbers that are.

    Parameters
    ----------
    model
        The model whose capture has failed.
    forward
        Runs it.
    """
    names = {module: name for name, module in model.named_modules()}

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        read, wrote = first_tensor((*args, *kwargs.values())), first_tensor(output)
        if wrote is not None and not finite(wrote) and (read is None or finite(read)):
            raise CaptureError(
                f"layer {names[module] or type(model).__name__!r}: what it computes is not finite (NaN or infinite): "
                f"its weights are damaged, or too large for {wrote.dtype}. Load the model from intact files, in float32"
            )

    here = in_this_thread(hook)
    with hooked(module.register_forward_hook(here, with_kwargs=True) for module in names):
        forward()


def finite(values: Tensor) -> bool:
    """Whether all are finite: then so is their sum, nearly always, and a sum takes a tenth of looking at each."""
    if values.element_size() == 1:  # eight bits: torch adds none of these up
        values = values.float()
    return math.isfinite(float(values.sum())) or bool(torch.isfinite(values).all())
