"""Outputs of Hugging Face models, and the tuples of attentions that are in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..errors import InvalidArgumentError
from ._stacks import Stacks, arranged, layers_of

__all__ = ["from_transformers"]

_FIELDS = {
    "encoder_attentions": "encoder",
    "decoder_attentions": "decoder",
    "cross_attentions": "cross",
    "attentions": "alone",
}
_HOW = 'load the model with attn_implementation="eager" and run it with output_attentions=True'


def from_transformers(outputs: Any, *, stack: Literal["encoder", "decoder"] | None = None) -> Stacks:
    """The layers in the outputs of a Hugging Face model that was run with ``output_attentions=True``.

    Parameters
    ----------
    outputs : ModelOutput, mapping, or tuple
        What the model returned: anything that has ``attentions``, or ``encoder_attentions``, ``decoder_attentions`` and
        ``cross_attentions``, as attributes or keys. Or the ``attentions`` themselves, a tuple of one (B, H, n, n) array
        a layer, as bertviz takes them. Or the tuple that a model returns with ``return_dict=False``.
    stack : "encoder" or "decoder", optional
        What a single stack is. None: a decoder if no position of any layer draws from a later one.

    Returns
    -------
    Stacks

    Raises
    ------
    InvalidArgumentError
        No attentions, or a layer without; a decoder and an encoder without the attention between them; the outputs of
        ``generate()``, which come step by step; an unknown `stack`, or one beside outputs that say what they hold.
    InvalidCapacityError
        A layer that is no array of real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import adapters
    >>> uniform = np.tri(3) / np.arange(1, 4)[:, None]
    >>> attentions = (uniform[None, None], uniform[None, None])  # 2 layers of (batch, heads, n, n)
    >>> adapters.from_transformers(attentions)
    Stacks(decoder=2 layers)
    >>> adapters.from_transformers({"attentions": attentions}).network(calibration="excess").n_edges
    4
    """
    name = type(outputs).__name__
    if isinstance(outputs, (tuple, list)):
        found = _in_tuple(outputs, name)
    else:
        named = isinstance(outputs, Mapping)
        given = {field: outputs.get(field) if named else getattr(outputs, field, None) for field in _FIELDS}
        found = {
            _FIELDS[field]: _layers(value, f"{name}.{field}")
            for field, value in given.items()
            if value is not None and len(value)
        }
        if not found:
            fields = list(outputs) if named else []
            held = f" It holds {', '.join(map(str, fields))}." if fields else ""
            raise InvalidArgumentError(f"{name} holds no attentions: {_HOW}.{held}")
    return arranged(**found, stack=stack, name=name)


def _in_tuple(outputs: Any, name: str) -> dict[str, list[Any]]:
    """The stacks in a tuple of layers, or in a tuple of outputs of which some are tuples of layers."""
    entries = list(outputs)
    nested = [isinstance(entry, (tuple, list)) and any(map(_is_layer, entry)) for entry in entries]
    if not any(nested):
        if not any(map(_is_layer, entries)):
            raise InvalidArgumentError(f"{name} of {len(entries)} entries holds no attentions, (B, H, n, n): {_HOW}")
        return {"alone": _layers(entries, name)}
    if all(nested):
        _refuse_steps(name)
    stacks = [_layers(entry, name) for entry, is_stack in zip(entries, nested, strict=True) if is_stack]
    if len(stacks) == 1:
        return {"alone": stacks[0]}
    if len(stacks) == 3:  # the order of every encoder-decoder of transformers
        return dict(zip(("decoder", "cross", "encoder"), stacks, strict=True))
    raise InvalidArgumentError(
        f"{name} holds {len(stacks)} tuples of attentions, which nothing tells apart: run the model with"
        " return_dict=True, or hand on a mapping of encoder_attentions, decoder_attentions and cross_attentions"
    )


def _layers(value: Any, name: str) -> list[Any]:
    layers = layers_of(value, name, _HOW)
    if any(isinstance(layer, (tuple, list)) and any(map(_is_layer, layer)) for layer in layers):
        _refuse_steps(name)
    return layers


def _refuse_steps(name: str) -> None:
    raise InvalidArgumentError(
        f"{name} holds a tuple of layers a step, as generate() returns them. Run the model once more on the whole"
        " sequence (outputs.sequences, as decoder_input_ids of an encoder-decoder and input_ids of any other model)"
        " with output_attentions=True: what each token attends to is the same, and comes layer by layer"
    )


def _is_layer(value: Any) -> bool:
    """Whether it is an array of the four axes (B, H, n, n)."""
    return len(getattr(value, "shape", ())) == 4
