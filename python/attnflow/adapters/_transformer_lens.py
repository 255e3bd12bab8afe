"""Caches of TransformerLens: activations by the names of their hooks."""

from __future__ import annotations

import re
from typing import Any, Literal

from ..errors import InvalidArgumentError
from ._stacks import Stacks, arranged

__all__ = ["from_transformer_lens"]

# blocks.3.attn of decoders and encoders; encoder.3.attn, decoder.3.cross_attn of encoder-decoders up to version 3, and
# encoder_blocks.3.attn, decoder_blocks.3.self_attn from 4 on.
_NAME = re.compile(r"(blocks|encoder|decoder|encoder_blocks|decoder_blocks)\.(\d+)\.(attn|self_attn|cross_attn)")
_HOOK = ".hook_pattern"


def from_transformer_lens(cache: Any, *, stack: Literal["encoder", "decoder"] | None = None) -> Stacks:
    """The layers in a cache of TransformerLens, as ``run_with_cache`` returns it.

    Parameters
    ----------
    cache : ActivationCache or mapping of str to arrays
        With an entry ``blocks.{l}.attn.hook_pattern`` a layer, (batch, head, query, key) or without batch; those of
        encoder-decoders begin with ``encoder`` and ``decoder``, or ``encoder_blocks`` and ``decoder_blocks``. What
        else it holds is not looked at.
    stack : "encoder" or "decoder", optional
        What ``blocks`` are. None: a decoder if no position of any layer draws from a later one.

    Returns
    -------
    Stacks
        In the order of the layers' numbers.

    Raises
    ------
    InvalidArgumentError
        No such entry, one whose name is none of the above, a layer that is missing between others or beyond them; an
        unknown `stack`, or one beside a cache that says what it holds.
    InvalidCapacityError
        A layer that is no array of real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import adapters
    >>> uniform = np.tri(3) / np.arange(1, 4)[:, None]
    >>> cache = {f"blocks.{layer}.attn.hook_pattern": uniform[None, None] for layer in (10, 9, 8, 7, *range(7))}
    >>> adapters.from_transformer_lens(cache)
    Stacks(decoder=11 layers)
    """
    name = type(cache).__name__
    if not callable(getattr(cache, "keys", None)):
        raise InvalidArgumentError(f"cache is {name}: an ActivationCache, or a mapping of such names, is needed")
    found: dict[str, dict[int, str]] = {"encoder": {}, "decoder": {}, "cross": {}, "alone": {}}
    keys = list(cache.keys())
    for key in (key for key in keys if isinstance(key, str) and key.endswith(_HOOK)):
        match = _NAME.fullmatch(key.removesuffix(_HOOK))
        if match is None:
            raise InvalidArgumentError(
                f"{name} holds {key!r}, which is none of blocks.0.attn.hook_pattern, encoder_blocks.0.attn..., "
                "decoder_blocks.0.self_attn..., decoder_blocks.0.cross_attn...: hand on a mapping of the stack's "
                "own layers alone"
            )
        blocks, layer, attention = match.groups()
        part = "cross" if attention == "cross_attn" else "alone" if blocks == "blocks" else blocks.split("_")[0]
        found[part][int(layer)] = key
    if not any(found.values()):
        raise InvalidArgumentError(
            f"{name} of {len(keys)} entries holds no attention: none is named like 'blocks.0.attn.hook_pattern'"
        )
    stacks = {part: [cache[layers[index]] for index in _complete(cache, layers)] for part, layers in found.items()}
    return arranged(**stacks, stack=stack, name=name)


def _complete(cache: Any, layers: dict[int, str]) -> range:
    """The numbers of all layers there should be, or an error that names the first that is missing."""
    if not layers:
        return range(0)
    first = next(iter(layers.values()))
    model = getattr(getattr(cache, "model", None), "cfg", None)
    stated = getattr(model, "n_layers", None) if first.startswith("blocks.") else None
    numbers = range(max(max(layers) + 1, stated if isinstance(stated, int) else 0))
    for number in numbers:
        if number not in layers:
            missing = re.sub(r"\.\d+\.", f".{number}.", first, count=1)
            raise InvalidArgumentError(
                f"{type(cache).__name__} lacks {missing!r} of layers 0 ... {numbers[-1]}: every layer's attention is"
                " needed; cache them all (names_filter)"
            )
    return numbers
