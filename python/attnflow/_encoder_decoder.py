"""The two stacks of an encoder-decoder model as blocks and links.

Blocks 0..L hold the encoder, block L + 1 the decoder's input, and after it come one or two blocks for each decoder
layer. Every layer is drawn when its turn comes and stored before the next of its kind is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import matrices
from ._positions import items
from .errors import InvalidArgumentError, InvalidCapacityError
from .matrices import (
    Heads,
    PerLayer,
    capacities,
    excess,
    floating,
    host,
    layer_name,
    mixed,
    reduced,
    seen_by,
)
from .maxflow import Link

Array = NDArray[Any]
_BOTH = "every layer of the decoder attends to itself and to the encoder"
PARTS = ("encoder", "decoder", "cross")


class Options(NamedTuple):
    """What :meth:`Network.encoder_decoder` was asked for, `visible` by part."""

    residual: float
    heads: Heads
    calibration: str | None
    visible: Mapping[str, Any]
    kept: Any
    merge: str
    batch: Any


def checked(
    residual: Any, heads: Any, calibration: Any, visible: Any, kept: Any, merge: Any, batch: Any = None
) -> Options:
    """The options, or an error that names the one that is wrong or contradicts another."""
    matrices.check_options(residual, calibration)
    if not isinstance(merge, str) or merge not in ("sublayers", "single"):
        raise InvalidArgumentError(f'merge={merge!r} is unknown: choose "sublayers" or "single"')
    if kept is not None and merge == "single":
        raise InvalidArgumentError(
            'kept is given beside merge="single": it is what cross-attention keeps of the block between the sublayers,'
            ' and only merge="sublayers" has one'
        )
    if kept is not None and residual:
        raise InvalidArgumentError(
            f"residual={residual!r} beside kept, which holds the residual of the contributions: residual=0 is needed"
        )
    return Options(float(residual), heads, calibration, _by_part(visible), kept, merge, batch)


def _by_part(visible: Any) -> dict[str, Any]:
    """The counts of the encoder's, the decoder's and the cross-attention's layers, None where not given."""
    rule = f"a mapping of {', '.join(map(repr, PARTS))}, or three entries in that order"
    if visible is None:
        return dict.fromkeys(PARTS)
    if isinstance(visible, Mapping):
        unknown = [part for part in visible if part not in PARTS]
        if unknown:
            raise InvalidArgumentError(f"visible names {unknown[0]!r}; it must be {rule}")
        return {part: visible.get(part) for part in PARTS}
    entries = items(visible, "visible", rule)
    if len(entries) != len(PARTS):
        raise InvalidArgumentError(f"visible has {len(entries)} entries; it must be {rule}")
    return dict(zip(PARTS, entries, strict=True))


def wired(
    encoder: Any, decoder: Any, cross: Any, options: Options, store: Callable[[Any], Any]
) -> tuple[tuple[int, ...], tuple[Link, ...], tuple[int, int]]:
    """Sizes of blocks, links, and the two blocks of inputs."""
    stack = list(map(store, _stack(encoder, options, "encoder")))
    links = [Link(block, block + 1, layer) for block, layer in enumerate(stack)]
    n, top = stack[0].shape[0], len(stack)
    joined = _two_blocks if options.merge == "sublayers" else _one_block
    links.extend(joined(decoder, cross, top, n, options, store))
    m, last = links[top].capacities.shape[0], links[-1].receiver
    return (n,) * (top + 1) + (m,) * (last - top), tuple(links), (0, top + 1)


def _two_blocks(
    decoder: Any, cross: Any, top: int, n: int, options: Options, store: Callable[[Any], Any]
) -> Iterator[Link]:
    """Self-attention into a block between, cross-attention and the residual out of it."""
    below = top + 1
    crossing = partial(_cross_sublayers, cross, n, options)
    for own, (across, straight) in _paired(_stack(decoder, options, "decoder"), crossing):
        yield Link(below, below + 1, store(own))
        yield Link(top, below + 2, store(across))
        if straight is not None:
            yield Link(below + 1, below + 2, straight)
        del own, across, straight
        below += 2


def _one_block(
    decoder: Any, cross: Any, top: int, n: int, options: Options, store: Callable[[Any], Any]
) -> Iterator[Link]:
    """Both attentions into one block: r I + (1 - r)/2 A from below, (1 - r)/2 A from the encoder."""
    residual, heads, calibration, visible, _, _, batch = options
    seen, seen_across = (PerLayer(visible[part], "visible", part) for part in ("decoder", "cross"))
    weight, index = (1 - residual) / 2, 0
    matrices_of_decoder = reduced(decoder, heads, "decoder", causal=True, batch=batch)
    crossing = partial(_crossing, cross, n, options)
    for own, across in _paired(matrices_of_decoder, crossing):
        m = own.shape[0]
        counts = seen_by(seen, index, np.arange(1, m + 1)) + seen_by(seen_across, index, np.full(m, n))
        own = mixed(floating(own, layer_name("decoder", index)), weight, residual)
        across = floating(across, layer_name("cross", index)) * weight
        if calibration:
            own, across = excess([own, across], counts)
        yield Link(top + 1 + index, top + 2 + index, store(host(own)))
        yield Link(top, top + 2 + index, store(host(across)))
        del own, across
        index += 1
    seen.check_length(index)
    seen_across.check_length(index)


def _crossing(cross: Any, n: int, options: Options, m: int) -> Iterator[Any]:
    """The (m, n) attention of each layer to the encoder."""
    return reduced(cross, options.heads, "cross", shape=(m, n), batch=options.batch)


def _stack(contributions: Any, options: Options, part: str) -> Iterator[Array]:
    """The self-attention of either stack, with its residual."""
    residual, heads, calibration, visible, _, _, batch = options
    causal, seen = part == "decoder", visible[part]
    return capacities(contributions, residual, heads, calibration, seen, causal=causal, part=part, batch=batch)


def _cross_sublayers(cross: Any, n: int, options: Options, m: int) -> Iterator[tuple[Array, Array | None]]:
    """(m, n) from the encoder's last block, and (m,) from the block between, or None where nothing comes from there."""
    residual, _, calibration, visible, given, _, _ = options
    seen, kept = PerLayer(visible["cross"], "visible", "cross"), PerLayer(given, "kept", entry="(m,)")
    index = 0
    for matrix in _crossing(cross, n, options, m):
        name = layer_name("cross", index)
        givers = seen_by(seen, index, np.full(m, n))
        parts = [matrix]
        if residual:
            weighted = floating(matrix, name) * (1 - residual)
            parts = [weighted, weighted[:, :1] * 0 + residual]  # a column of the same dtype, where the matrix lies
            del weighted
        elif given is not None:
            parts.append(_column(kept[index], f"kept[{index}]", m))
        if calibration:
            parts = excess([floating(part, name) for part in parts], givers + (len(parts) - 1))
        yield host(parts[0]), host(parts[1])[:, 0] if len(parts) == 2 else None
        del matrix, parts
        index += 1
    seen.check_length(index)
    kept.check_length(index)


def _column(given: Any, name: str, m: int) -> Any:
    """(m, 1): what each position keeps of itself."""
    vector = matrices.real(given, name)
    if tuple(vector.shape) != (m,):
        raise InvalidCapacityError(
            f"{name} has shape {tuple(vector.shape)}: ({m},) is needed, an entry a decoder position"
        )
    matrices.check_entries(vector, name, ("position",))
    return vector[:, None]


def _paired(own: Iterator[Any], crossing: Callable[[int], Iterator[Any]]) -> Iterator[tuple[Any, Any]]:
    """Layer by layer what either yields, the second made for the m positions of the first, or an error at the end."""
    n_layers = 0
    others: Iterator[Any] = iter(())
    for matrix in own:
        others = others if n_layers else crossing(matrix.shape[0])
        other = next(others, None)
        if other is None:
            raise InvalidCapacityError(f"cross holds {n_layers} layers, decoder more: {_BOTH}")
        yield matrix, other
        del matrix, other
        n_layers += 1
    if next(others, None) is not None:
        raise InvalidCapacityError(f"decoder holds {n_layers} layers, cross more: {_BOTH}")
