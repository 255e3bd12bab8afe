"""Positions and other integers as a caller may write them: one reading, and one wording of what is wrong."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, TypeGuard, TypeVar

from .errors import InvalidArgumentError

Node = tuple[int, int]
Positions = int | Iterable[int | Iterable[int]]

_T = TypeVar("_T", int, Node)


def is_many(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether it holds several: a text is one, and so is a 0-d array, although it has ``__iter__``."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) != 0


def items(value: Any, name: str, rule: str) -> list[Any]:
    """What it holds, if it holds several."""
    if not is_many(value):
        raise InvalidArgumentError(f"{name} is {value!r}; it must be {rule}")
    return list(value)


def integer(value: Any, name: str, *, low: float = -math.inf, high: float = math.inf) -> int:
    """As an int, Python's, numpy's or torch's; a bool is none."""
    if type(value) is int and low <= value <= high:  # what nearly all are: a small network has hardly more to solve
        return value
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(plain, bool):
        with suppress(TypeError):
            number = operator.index(plain)
            if low <= number <= high:
                return number
    limits = "" if low == -math.inf else f" >= {low}" if high == math.inf else f" from {low} to {high}"
    raise InvalidArgumentError(f"{name} is {plain!r}; it must be an integer{limits}")


def number(value: Any, name: str, *, above: float) -> float:
    """As a float, finite and larger than a bound; a bool or a text is none."""
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(plain, (int, float)) and not isinstance(plain, bool) and above < plain < math.inf:
        with suppress(OverflowError):  # an int that float64 has not
            return float(plain)
    rule = "a finite number" if above == -math.inf else f"a number > {above:g}"
    raise InvalidArgumentError(f"{name} is {plain!r}; it must be {rule}")


def as_position(value: Any, name: str, size: int, of: str, noun: str = "node") -> int:
    """As an index from 0 of something that has `size` many; negative ones count from the end."""
    number = integer(value, name)
    if not -size <= number < size:
        has = f"{size} {noun}s: 0 ... {size - 1}, or {-size} ... -1"
        has = {0: f"no {noun}", 1: f"1 {noun}: 0, or -1"}.get(size, has)
        raise InvalidArgumentError(f"{name} is {number}, but {of} has {has}")
    return number % size


def distinct(given: Any, name: str, size: int, of: str, noun: str = "node") -> list[int]:
    """One position or more, each named once, in the order given."""
    members = enumerate(items(given, name, "several positions"))
    chosen = [as_position(member, f"{name}[{i}]", size, of, noun) for i, member in members]
    repeated = [index for index, count in Counter(_filled(chosen, name)).items() if count > 1]
    if repeated:
        raise InvalidArgumentError(f"{name} names {noun} {repeated[0]} more than once; each may be named once")
    return chosen


def groups(given: Any, name: str, size: int, *blocks: int) -> list[list[int]]:
    """Positions of one block: one, or a sequence of positions and of sets of them, a list for each.

    Of several blocks, they count through one after the other, `size` in all.
    """
    of = f"block {blocks[0]}" if len(blocks) == 1 else f"the row of blocks {', '.join(map(str, blocks))}"

    def read(value: Any, where: str) -> int:
        return as_position(value, where, size, of)

    return _groups(given, name, read, lambda value: not is_many(value), "a position, or several")


def node_groups(given: Any, name: str, sizes: Sequence[int]) -> list[list[Node]]:
    """Nodes of any block, pairs (block, position), likewise."""
    rule = "a node, the pair (block, position)"

    def is_node(value: Any) -> bool:
        if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
            return True
        pair = isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and len(value) == 2
        return pair and not any(map(is_many, value))

    def read(value: Any, where: str) -> Node:
        if not is_node(value):
            raise InvalidArgumentError(f"{where} is {value!r}; it must be {rule}")
        block = integer(value[0], f"the block of {where}", low=0, high=len(sizes) - 1)
        return block, as_position(value[1], f"the position of {where}", sizes[block], f"block {block}")

    return _groups(given, name, read, is_node, f"{rule}, or several")


def _groups(
    given: Any, name: str, read: Callable[[Any, str], _T], is_one: Callable[[Any], bool], rule: str
) -> list[list[_T]]:
    def group(value: Any, where: str) -> list[_T]:
        if is_one(value):
            return [read(value, where)]
        return sorted({read(member, f"a member of {where}") for member in _filled(items(value, where, rule), where)})

    # A set in the place of a sequence has no order that results could follow: it is one group.
    if is_one(given) or isinstance(given, AbstractSet):
        return [group(given, name)]
    return [group(entry, f"{name}[{i}]") for i, entry in enumerate(_filled(items(given, name, rule), name))]


def _filled(held: list[Any], name: str) -> list[Any]:
    if not held:
        raise InvalidArgumentError(f"{name} is empty; at least one position is needed")
    return held
