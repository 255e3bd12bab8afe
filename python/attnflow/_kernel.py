"""The door to the compiled kernel: capacities in dtypes it reads, options, and errors in the caller's words.

The only module that touches the extension.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._positions import integer
from .errors import InvalidArgumentError, InvalidCapacityError
from .storage import SparseMatrix, TriangularMatrix, entries, place

Progress = Callable[[int, int], object]

NOBODY = 0xFFFFFFFF
"""Ends an order of players early."""

# Capacities from here on mean "unbounded" to the kernel.
_UNBOUNDED = 1 << 62

# More would be a slip of the pen.
_MOST_THREADS = 1024


class Edges(NamedTuple):
    """A link whose shapes are checked, under the name that its caller knows its capacities by."""

    name: str
    giver: int
    receiver: int
    capacities: Any  # an array, or of a storage of its own
    offset: int = 0


def solve(
    sizes: Sequence[int],
    edges: Sequence[Edges],
    sources: Sequence[Sequence[int]],
    sinks: Sequence[Sequence[int]],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Maximum flows between sets of nodes, numbered through the blocks; `options` as :func:`checked` returns them."""
    return _called(_core.solve, sizes, edges, sources, sinks, **options)


def eliminate(
    within: NDArray[np.float64], outside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Star-mesh elimination of n nodes: what each later one holds of what every node had, (n, n), and pivots (n,).

    Parameters
    ----------
    within
        (n, n) weights >= 0 between nodes, symmetric.
    outside
        (n,) weights >= 0 to everything else.
    """
    return _core.eliminate(within, outside)


def prefix_values(
    sizes: Sequence[int],
    edges: Sequence[Edges],
    players: Sequence[Sequence[int]],
    sink: Sequence[int],
    orders: NDArray[np.uint32],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What the first players of each order send to the sink together, for all lengths: int64 quanta of 2^-exponent."""
    return _called(_core.prefix_values, sizes, edges, players, sink, orders, **options)


def _called(
    function: Callable[..., dict[str, Any]], sizes: Any, edges: Any, *given: Any, **options: Any
) -> dict[str, Any]:
    try:
        raw = function(sizes, _kernel_links(edges), *given, **options)
    except InvalidCapacityError:
        _refuse_entries(edges)
        raise
    stats = raw["stats"]
    stats["quantum"] = math.ldexp(1.0, stats.pop("quantum_exponent"))
    stats["checked"] = options["check"]
    return raw


def checked(threads: Any, progress: Any, **flags: Any) -> dict[str, Any]:
    """Options that all calls have in common."""
    if threads is None:
        threads = _available_processors()
    if progress is not None and not callable(progress):
        raise InvalidArgumentError(f"progress is {progress!r}; it must be a function of (done, total), or None")
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise InvalidArgumentError(f"{name} is {flag!r}; it must be True or False")
    return {
        "threads": integer(threads, "threads", low=1, high=_MOST_THREADS),
        "progress": progress,
        **{name: bool(flag) for name, flag in flags.items()},
    }


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _kernel_links(edges: Sequence[Edges]) -> list[tuple[int, int, NDArray[Any], int, Any]]:
    """In the four dtypes the kernel reads, all integer or all floating, and how the entries are stored."""
    # A diagonal of infinities among integers stays with the integers.
    integral = all(
        entries(given).dtype.kind in "iu" or (given.ndim == 1 and _whole(given))
        for given in (link.capacities for link in edges)
    )
    convert = _as_integers if integral else _as_floats
    return [
        (link.giver, link.receiver, convert(link.name, link.capacities), link.offset, _storage(link.capacities))
        for link in edges
    ]


def _storage(given: Any) -> Any:
    """None for an array, True for a triangle, what goes with the entries of a sparse matrix."""
    if isinstance(given, SparseMatrix):
        return given.starts, given.columns, given.dropped_in, given.dropped_out, given.dropped_causal
    return True if isinstance(given, TriangularMatrix) else None


def _whole(array: NDArray[Any]) -> bool:
    return bool(np.all((array == np.floor(array)) & (array != -np.inf)))


def _as_integers(name: str, given: Any) -> NDArray[Any]:
    array = entries(given)
    if array.dtype.kind == "f":  # a diagonal of whole numbers
        unbounded = np.isposinf(array)
        finite = np.where(unbounded, 0, np.maximum(array, -1))  # the kernel refuses what is negative
        _check_largest(name, finite, _UNBOUNDED - 1, "integers must be below 2^62")
        return np.where(unbounded, _UNBOUNDED, finite.astype(np.int64))
    if array.dtype.itemsize == 8:
        _check_largest(name, given, _UNBOUNDED - 1, "integers must be below 2^62")
    return array.astype(np.int32 if np.can_cast(array.dtype, np.int32) else np.int64, copy=False)


def _as_floats(name: str, given: Any) -> NDArray[Any]:
    array = entries(given)
    if array.dtype.kind in "iu":
        rule = "beside floating point, integers above 2^53 would lose digits: make all integer, or scale them down"
        _check_largest(name, given, 1 << 53, rule)
        return array.astype(np.float64)
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)


def _check_largest(name: str, given: Any, limit: int, rule: str) -> None:
    array = entries(given)
    if array.size and int(array.max()) > limit:
        raise InvalidCapacityError(f"{_entry(name, given, int(array.argmax()))}; {rule}")


def _refuse_entries(edges: Sequence[Edges]) -> None:
    """Name what the kernel refused, NaN or negative, as the caller knows it: the kernel numbers links."""
    for name, _, _, given, _ in edges:
        refused = ~(entries(given) >= 0)
        if refused.any():
            raise InvalidCapacityError(
                f"{_entry(name, given, int(refused.argmax()))}; the entries of {name}, of shape {given.shape}, must be "
                ">= 0"
            ) from None


def _entry(name: str, given: Any, flat: int) -> str:
    return f"{name}[{', '.join(map(str, place(given, flat)))}] is {entries(given).flat[flat]}"
