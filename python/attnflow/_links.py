"""Links between blocks, as callers write them: read, checked against the blocks, counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import matrices
from ._positions import integer, items
from .errors import InvalidArgumentError, InvalidCapacityError
from .maxflow import Link
from .storage import Stored, as_capacities, entries, from_scipy

AnyLink = Link | tuple[int, int, Any] | tuple[int, int, Any, int]


def read(links: Iterable[AnyLink]) -> list[Link]:
    """By the rules of :meth:`Network.from_blocks`, their entries checked."""
    made = []
    for index, entry in enumerate(items(links, "links", "a sequence of links")):
        if isinstance(entry, Link):
            giver, receiver, capacities, offset = entry.giver, entry.receiver, entry.capacities, entry.offset
        elif isinstance(entry, (tuple, list)) and len(entry) in (3, 4):
            giver, receiver, capacities, offset = (*entry, 0) if len(entry) == 3 else entry
        else:
            raise InvalidArgumentError(
                f"link {index} is {entry!r}: it must be a Link, (giver, receiver, capacities) or"
                " (giver, receiver, diagonal, offset)"
            )
        place = f"link {index}"
        array = from_scipy(capacities, place)
        array = array if isinstance(array, Stored) else matrices.real(array, place)
        if array.ndim not in (1, 2):
            raise InvalidCapacityError(
                f"{place} has capacities of shape {tuple(array.shape)}: a matrix or a diagonal is needed"
            )
        matrices.check_entries(array, place, ("receiver", "giver")[-array.ndim :], unbounded=True)
        made.append(
            Link(
                integer(giver, f"links[{index}].giver"),
                integer(receiver, f"links[{index}].receiver"),
                array if isinstance(array, Stored) else matrices.host(array),
                integer(offset, f"links[{index}].offset"),
            )
        )
    return made


def readable(link: Link, name: str) -> Link:
    """With an array, or a matrix of a storage of its own, where lists or tensors were given."""
    capacities = as_capacities(link.capacities, name)
    return link if capacities is link.capacities else replace(link, capacities=capacities)


def check(links: Sequence[Link], sizes: Sequence[int]) -> None:
    """Raise at the first one that does not join two blocks of these sizes."""
    for index, link in enumerate(links):
        for end, block in (("giver", link.giver), ("receiver", link.receiver)):
            if not 0 <= block < len(sizes):
                raise InvalidArgumentError(
                    f"link {index}: {end}={block} names no block; there are {len(sizes)}: {sizes}"
                )
        if link.giver == link.receiver:
            raise InvalidArgumentError(f"link {index} joins block {link.giver} to itself: blocks have no inner edges")
        shape, giver, receiver = np.shape(link.capacities), sizes[link.giver], sizes[link.receiver]
        if shape not in ((receiver, giver), (giver,)):
            raise InvalidCapacityError(
                f"link {index} from block {link.giver} to block {link.receiver} has capacities of shape {shape}:"
                f" ({receiver}, {giver}) is needed, or ({giver},) for a diagonal"
            )
        if link.offset and len(shape) == 2:
            raise InvalidArgumentError(
                f"link {index} has offset={link.offset} with capacities of shape {shape}: only a diagonal has one"
            )


def input_blocks(inputs: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """The blocks that hold inputs, in order: each once, and none of them the last, which holds the outputs."""
    given = items(inputs, "inputs", "a sequence of blocks")
    blocks = tuple(integer(block, f"inputs[{i}]") for i, block in enumerate(given))
    if not blocks:
        raise InvalidArgumentError("inputs is empty: at least one block holds inputs")
    for i, block in enumerate(blocks):
        if not 0 <= block < len(sizes):
            raise InvalidArgumentError(f"inputs[{i}]={block} names no block; there are {len(sizes)}: {sizes}")
        if block == len(sizes) - 1:
            raise InvalidArgumentError(f"inputs[{i}]={block} is the last block, which holds the outputs: {sizes}")
        if block in blocks[:i]:
            raise InvalidArgumentError(f"inputs[{i}]={block} names block {block} again: each may be named once")
    return blocks


def n_edges(link: Link, n_receivers: int) -> int:
    """Number of edges of positive capacity, in one pass."""
    capacities = entries(link.capacities)
    if link.capacities.ndim == 1:  # edges k -> k + offset that end outside the receiver do not exist
        capacities = capacities[max(0, -link.offset) : max(0, n_receivers - link.offset)]
    return int(np.count_nonzero(capacities))
