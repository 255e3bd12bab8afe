"""What nnsight saved in a trace: tensors, or proxies of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..errors import InvalidArgumentError
from ._stacks import Stacks, arranged, layers_of

__all__ = ["from_nnsight"]

_PARTS = ("encoder", "decoder", "cross")
_HOW = 'load the model with attn_implementation="eager", so that its attention modules return their weights'


def from_nnsight(saved: Any, *, stack: Literal["encoder", "decoder"] | None = None) -> Stacks:
    """The layers that were saved in a trace of nnsight, such as ``layer.self_attn.output[1].save()`` of each.

    Parameters
    ----------
    saved : sequence, or mapping of "encoder", "decoder" and "cross" to sequences
        One entry a layer, from the input up: attention weights, (B, H, n, n) or (H, n, n), or all that the attention
        module returned, of which the one entry with four axes is taken. Tensors, or what holds them as ``.value``, the
        proxies of nnsight before 0.5; so may the sequence itself.
    stack : "encoder" or "decoder", optional
        What a single stack is. None: a decoder if no position of any layer draws from a later one.

    Returns
    -------
    Stacks

    Raises
    ------
    InvalidArgumentError
        No layer, or one that was not saved or has no weights; another name in the mapping, or not all three where one
        is "cross"; an unknown `stack`, or one beside a mapping.
    InvalidCapacityError
        A layer that is no array of real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import adapters
    >>> class Proxy:
    ...     value = np.eye(3)[None, None]
    >>> adapters.from_nnsight([Proxy(), Proxy()])
    Stacks(decoder=2 layers)
    """
    held = _opened(saved, "saved")
    if isinstance(held, Mapping):
        unknown = [part for part in held if part not in _PARTS]
        if unknown or not held:
            raise InvalidArgumentError(
                f"saved names {unknown[0] if unknown else None!r}: it must be a sequence of layers, or a mapping of"
                f" {', '.join(map(repr, _PARTS))} to such"
            )
        found = {str(part): _layers(layers, f"saved[{part!r}]") for part, layers in held.items()}
    else:
        found = {"alone": _layers(held, "saved")}
    return arranged(**found, stack=stack, name="saved")


def _layers(given: Any, name: str) -> list[Any]:
    entries = _opened(given, name)
    if not isinstance(entries, (tuple, list)) and not hasattr(entries, "shape"):
        raise InvalidArgumentError(f"{name} is {type(entries).__name__}: a sequence of one entry a layer is needed")
    if not len(entries):
        raise InvalidArgumentError(f"{name} is empty: at least one layer is needed")
    return layers_of((_weights(entry, f"{name}[{index}]") for index, entry in enumerate(entries)), name, _HOW)


def _weights(entry: Any, name: str) -> Any:
    """A layer's array, or the one in what its module returned."""
    value = _opened(entry, name)
    if not isinstance(value, (tuple, list)):
        return value
    parts = [_opened(part, name) for part in value]
    found = [part for part in parts if len(getattr(part, "shape", ())) == 4]
    if len(found) != 1:
        raise InvalidArgumentError(
            f"{name} is a {type(value).__name__} with {len(found)} arrays of four axes, (B, H, n, n): one is needed;"
            f" {_HOW}"
        )
    return found[0]


def _opened(given: Any, name: str) -> Any:
    """What a proxy holds; anything else as it is."""
    try:
        return getattr(given, "value", given)
    except Exception as error:  # whatever a proxy without a value raises
        raise InvalidArgumentError(f"{name} has no value: call .save() on it inside the trace ({error})") from error
