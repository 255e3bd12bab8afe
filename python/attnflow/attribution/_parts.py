"""What a result is made of beside its arrays: grids, rows to be shown, the edges of a flow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._frozen import Frozen
from .._positions import integer, is_many
from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Grid", "PairFlow", "Score", "frozen", "joined", "lists", "plain", "prediction", "put"]


class Grid(NamedTuple):
    """How positions lie in what they were cut from: patches of an image, frames of a recording."""

    start: int
    """Position of the first; the others follow, row by row."""
    shape: tuple[int, ...]
    """``(rows, columns)`` of an image, ``(frames,)`` of a recording."""


class Score(NamedTuple):
    """One player's score towards one sink, ready to be shown."""

    position: int
    token: str
    score: float
    lower: float
    upper: float
    bottleneck: str


@dataclass(frozen=True, eq=False)
class PairFlow(Frozen):
    """The edges that carry one maximum flow from one player to one sink.

    Parameters
    ----------
    source
        Position of the player the flow starts from.
    layer, receiver, giver
        One entry an edge, integers. Edge ``e`` belongs to layer ``layer[e]`` (0-based: it leads from the block before
        that layer to the block after it), from position ``giver[e]`` to position ``receiver[e]``.
    flow
        What the edge carries, float64, in the unit of the capacities.
    cut
        Optional: True where the edge crosses the minimum cut, that is, where it is full and limits the score.
    sink
        Row of :attr:`Attribution.values` the flow leads to.
    """

    source: int
    layer: NDArray[np.int32]
    receiver: NDArray[np.int32]
    giver: NDArray[np.int32]
    flow: NDArray[np.float64]
    cut: NDArray[np.bool_] | None = None
    sink: int = 0

    def __post_init__(self) -> None:
        for name in ("layer", "receiver", "giver"):
            put(self, name, frozen(getattr(self, name), np.int32, name))
        put(self, "flow", frozen(self.flow, np.float64, "flow"))
        if self.cut is not None:
            put(self, "cut", frozen(self.cut, np.bool_, "cut"))
        shapes = {
            n: a.shape for n in ("layer", "receiver", "giver", "flow", "cut") if (a := getattr(self, n)) is not None
        }
        if len(set(shapes.values())) != 1 or self.flow.ndim != 1:
            raise InvalidArgumentError(
                f"a PairFlow holds 1-D arrays of one length, one entry an edge; got shapes {shapes}"
            )
        if not (np.isfinite(self.flow).all() and (self.flow >= 0).all()):
            raise InvalidArgumentError("the flow on every edge of a PairFlow must be finite and >= 0")

    @property
    def value(self) -> float:
        """What leaves the player, in the first layer: his own flow, of which a joint flow's share may be a part."""
        return float(self.flow[(self.layer == self.layer.min(initial=0)) & (self.giver == self.source)].sum())


def put(instance: object, name: str, value: object) -> None:
    object.__setattr__(instance, name, value)  # how a frozen dataclass sets its own fields


def frozen(values: ArrayLike, dtype: type[np.generic], name: str) -> NDArray[Any]:
    """A read-only copy, refusing what does not fit the dtype instead of rounding it."""
    try:
        source = np.asarray(values)
        if np.issubdtype(dtype, np.integer) and source.size and not np.issubdtype(source.dtype, np.integer):
            raise TypeError(f"dtype {source.dtype}")
        array = np.array(source, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name} must be an array of {np.dtype(dtype).name}: {error}") from error
    array.flags.writeable = False
    return array.view()  # which, unlike what owns its memory, cannot be made writeable again


def prediction(given: tuple[str, float]) -> tuple[str, float]:
    """A token and its probability."""
    token, probability = given
    if not 0 <= float(probability) < math.inf:
        raise InvalidArgumentError(f"the probability of {token!r} must be finite and >= 0, got {probability}")
    return str(token), float(probability)


def joined(target: int | Iterable[int], name: str) -> tuple[int, ...]:
    """One position or several, as a tuple."""
    return tuple(integer(member, name) for member in (target if is_many(target) else [target]))


def plain(value: Any, name: str) -> Any:
    """An option in types that JSON knows, so that every file holds what the result holds; tuples cannot be changed."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(plain(v, name) for v in value)
    raise InvalidArgumentError(
        f"option {name!r} must be a string, a finite number, a bool, None or a list of these, got {value!r}"
    )


def lists(value: Any) -> Any:
    """With lists in the place of tuples, as JSON has them."""
    return [lists(member) for member in value] if isinstance(value, tuple) else value
