"""Capacity matrices that are not stored whole: lower triangles, and the larger entries alone.

A layer of a causal model has nothing above its diagonal: :class:`TriangularMatrix` stores the other half. Most of its
entries are small: :class:`SparseMatrix` keeps the larger ones, and of those it drops the sum into every receiver and
out of every giver, from which the kernel certifies an upper bound on the flow of all. Both are taken wherever
capacities are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._frozen import Frozen
from ._positions import integer
from .errors import AttnflowError, InvalidArgumentError, InvalidCapacityError

__all__ = [
    "SparseMatrix",
    "Stored",
    "TriangularMatrix",
    "as_array",
    "as_capacities",
    "entries",
    "from_scipy",
    "place",
    "thresholds",
    "whole",
]

Array = NDArray[Any]

# Entries made dense at once while a matrix is read: 32 MB of float32.
_CHUNK = 1 << 23

# The kernel numbers nodes in 32 bits.
_LONGEST = (1 << 32) - 1


@dataclass(frozen=True, eq=False, repr=False)
class TriangularMatrix(Frozen):
    """A square matrix with nothing above its diagonal, packed: half the memory of the whole. Read-only.

    Attributes
    ----------
    n : int
        Rows and columns.
    values : numpy.ndarray (n (n + 1) / 2,)
        Entries 0..j of row j, one row behind the other: the order of ``numpy.tril_indices(n)``. Floating or integer.

    Raises
    ------
    InvalidArgumentError
        `n` < 1.
    InvalidCapacityError
        `values` of another length, or of no real dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import attnflow
    >>> layer = attnflow.TriangularMatrix(2, np.array([1.0, 0.25, 0.75]))
    >>> layer
    TriangularMatrix((2, 2) float64)
    >>> layer.to_dense()
    array([[1.  , 0.  ],
           [0.25, 0.75]])
    >>> attnflow.maxflow.layered([layer, layer]).values
    array([[0.5 , 0.75]])
    """

    n: int
    values: Array

    def __post_init__(self) -> None:
        n = integer(self.n, "n", low=1, high=_LONGEST)
        values = _vector(self.values, "values")
        if len(values) != n * (n + 1) // 2:
            raise InvalidCapacityError(
                f"values has {len(values)} entries; a triangle of n={n} rows has n (n + 1) / 2 = {n * (n + 1) // 2}"
            )
        _set(self, n=n, values=values)
        super().__post_init__()

    @classmethod
    def from_dense(cls, matrix: Any) -> TriangularMatrix:
        """The lower triangle of a square matrix. O(n^2).

        Parameters
        ----------
        matrix : array (n, n), TriangularMatrix, SparseMatrix that dropped nothing, or matrix of scipy.sparse
            Row = receiver, column = giver; floating or integer, nothing above the diagonal.

        Returns
        -------
        TriangularMatrix
            Of the same dtype (float16 becomes float32).

        Raises
        ------
        InvalidCapacityError
            No square matrix of real numbers, one that dropped some, or an entry above the diagonal (names the first).

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> attnflow.TriangularMatrix.from_dense(np.tri(3)).values
        array([1., 1., 1., 1., 1., 1.])
        """
        if isinstance(matrix, TriangularMatrix):
            return matrix
        dense = _matrix(whole(matrix, "matrix"))
        n = len(dense)
        if dense.shape != (n, n):
            raise InvalidCapacityError(f"matrix has shape {dense.shape}; a triangle is cut from a square one")
        values = np.empty(n * (n + 1) // 2, dense.dtype)
        for j in range(n):
            above = dense[j, j + 1 :]
            if above.any():
                k = j + 1 + int(np.argmax(above != 0))
                raise InvalidCapacityError(
                    f"matrix[{j}, {k}] is {dense[j, k]}; a triangle has nothing above the diagonal"
                )
            values[j * (j + 1) // 2 :][: j + 1] = dense[j, : j + 1]
        return cls(n, values)

    def to_dense(self) -> Array:
        """The whole matrix, (n, n), in new memory."""
        return np.concatenate([chunk for _, chunk in _chunks(self)])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """2: a matrix."""
        return 2

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes

    def __repr__(self) -> str:
        return f"TriangularMatrix({self.shape} {self.dtype})"


@dataclass(frozen=True, eq=False, repr=False)
class SparseMatrix(Frozen):
    """A matrix stored by rows of kept entries, and sums of those that were dropped. Read-only.

    What is kept is solved exactly. Where something was dropped, ``Flows.values`` and ``Flows.lower`` are the flow
    through kept edges, and ``Flows.upper`` bounds the flow through all.

    Attributes
    ----------
    shape : (int, int)
        Receivers and givers.
    starts : int64 array (n_receivers + 1,)
        Row j's entries are ``starts[j]`` up to ``starts[j + 1]``.
    columns : uint32 array (n_kept,)
        The giver of each entry; ascending within a row.
    values : numpy.ndarray (n_kept,)
        Floating or integer.
    dropped_in, dropped_out : float64 arrays (n_receivers,), (n_givers,), or None
        No less than the sum of what was dropped into each receiver, out of each giver, in the unit of the values. None:
        nothing was; both or neither.
    dropped_causal : bool
        Whether nothing was dropped above the diagonal, from a giver k > j: it makes upper bounds tighter.

    Raises
    ------
    InvalidArgumentError
        A shape of less than one row or column, one of `dropped_in` and `dropped_out` without the other.
    InvalidCapacityError
        Arrays of the wrong length or dtype, `starts` that fall, columns that do not ascend or name no giver, sums that
        are NaN, negative or infinite (with the place of the first).

    Examples
    --------
    >>> import numpy as np
    >>> import attnflow
    >>> layer = attnflow.SparseMatrix((2, 2), [0, 1, 3], [0, 0, 1], np.array([1.0, 0.25, 0.75]))
    >>> layer.to_dense()
    array([[1.  , 0.  ],
           [0.25, 0.75]])
    """

    shape: tuple[int, int]
    starts: NDArray[np.int64]
    columns: NDArray[np.uint32]
    values: Array
    dropped_in: NDArray[np.float64] | None = None
    dropped_out: NDArray[np.float64] | None = None
    dropped_causal: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.shape, (tuple, list)) or len(self.shape) != 2:
            raise InvalidArgumentError(f"shape is {self.shape!r}; it must be (receivers, givers)")
        n_receivers, n_givers = (
            integer(size, f"shape[{i}]", low=1, high=_LONGEST) for i, size in enumerate(self.shape)
        )
        starts = _indices(self.starts, "starts", np.int64)
        columns = _indices(self.columns, "columns", np.uint32)
        values = _vector(self.values, "values")
        if len(starts) != n_receivers + 1:
            raise InvalidCapacityError(
                f"starts has {len(starts)} entries; a matrix of {n_receivers} rows needs {n_receivers + 1}"
            )
        if not len(columns) == len(values) == starts[-1]:
            raise InvalidCapacityError(
                f"there are {len(columns)} columns and {len(values)} values, but starts ends at {starts[-1]}"
            )
        _check_rows(starts, columns, n_givers)
        if (self.dropped_in is None) != (self.dropped_out is None):
            has, lacks = ("in", "out") if self.dropped_out is None else ("out", "in")
            raise InvalidArgumentError(
                f"dropped_{has} is given without dropped_{lacks}; a bound needs both, or neither"
            )
        if not isinstance(self.dropped_causal, (bool, np.bool_)):
            raise InvalidArgumentError(f"dropped_causal is {self.dropped_causal!r}; it must be True or False")
        _set(
            self,
            shape=(n_receivers, n_givers),
            starts=starts,
            columns=columns,
            values=values,
            dropped_in=_sums(self.dropped_in, "dropped_in", n_receivers),
            dropped_out=_sums(self.dropped_out, "dropped_out", n_givers),
            dropped_causal=bool(self.dropped_causal),
        )
        super().__post_init__()

    @classmethod
    def from_dense(cls, matrix: Any, *, keep: int | None = None, below: float | None = None) -> SparseMatrix:
        """The larger entries of a matrix, and the sums of the others.

        The straight edge k -> k of a square matrix, which carries the residual stream, and infinite entries are always
        kept, in addition to the others.

        Parameters
        ----------
        matrix : array (n_receivers, n_givers), TriangularMatrix, SparseMatrix or matrix of scipy.sparse
            Non-negative. What a SparseMatrix dropped before is added to what is dropped now.
        keep : int, optional
            Keep the `keep` largest entries of each row; of equal ones, any. 0 keeps the straight edges.
        below : float, optional
            Drop entries below this, in the unit of the matrix. With `keep`: drop what either drops. With neither,
            nothing but zeros is.

        Returns
        -------
        SparseMatrix
            Of the same dtype (float16 becomes float32). Sums are rounded up, so that they bound what was dropped.

        Raises
        ------
        InvalidArgumentError
            `keep` negative or no integer, `below` negative, NaN or no number.
        InvalidCapacityError
            No matrix of real numbers, NaN or negative entries (names the first), or dropped ones whose sum is more than
            float64 holds.

        Notes
        -----
        O(n_receivers n_givers), read in chunks: beside the result some 100 MB at most.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> layer = np.array([[0.5, 0.0, 0.0], [0.375, 0.5, 0.125], [0.25, 0.25, 0.5]])
        >>> thin = attnflow.SparseMatrix.from_dense(layer, below=0.375)
        >>> thin
        SparseMatrix((3, 3) float64, kept=4, dropped=0.625)
        >>> flows = attnflow.maxflow.layered([thin, thin], sinks=1)
        >>> flows.values, flows.upper.round(6)
        (array([[0.75, 0.5 , 0.  ]]), array([[1.  , 0.75, 0.25]]))
        >>> attnflow.maxflow.layered([layer, layer], sinks=1).values  # in between
        array([[0.875, 0.625, 0.25 ]])
        """
        keep, below = thresholds(keep, below)
        source = from_scipy(matrix, "matrix")
        source = source if isinstance(source, Stored) else _matrix(source)
        n_receivers, n_givers = source.shape
        counts = np.zeros(n_receivers + 1, np.int64)
        columns, values = [], []
        lost_in, lost_out, causal = np.zeros(n_receivers), np.zeros(n_givers), True
        for first, whole_rows in _chunks(source):
            _check_rows_of(whole_rows, first)
            # Half of a causal matrix need not be looked through.
            in_use = np.flatnonzero(whole_rows.any(axis=0))
            rows = whole_rows[:, : max(first + len(whole_rows), in_use[-1] + 1 if in_use.size else 0)]
            kept = _largest(rows, keep) if keep is not None else rows > 0
            if below is not None:
                with np.errstate(over="ignore"):  # above all of float32 is infinity there
                    kept &= rows >= below
            if rows.dtype.kind == "f":
                kept |= rows == np.inf
            if n_receivers == n_givers:
                straight = np.arange(len(rows))
                kept[straight, straight + first] = rows[straight, straight + first] > 0
            counts[first + 1 :][: len(rows)] = np.count_nonzero(kept, axis=1)
            columns.append(np.nonzero(kept)[1].astype(np.uint32))
            values.append(rows[kept])
            rows[kept] = 0  # a chunk is ours
            with np.errstate(over="ignore"):  # refused below
                lost_in[first:][: len(rows)] = rows.sum(axis=1, dtype=np.float64)
                lost_out[: rows.shape[1]] += rows.sum(axis=0, dtype=np.float64)
            causal = causal and not np.triu(rows, first + 1).any()
        dropped = bool(lost_in.any())
        with np.errstate(over="ignore"):
            sums = [_rounded_up(lost, n_receivers + n_givers, source.dtype) for lost in (lost_in, lost_out)]
            if isinstance(source, SparseMatrix) and source.dropped_in is not None and source.dropped_out is not None:
                befores = (source.dropped_in, source.dropped_out)
                sums = [_next(now + before) for now, before in zip(sums, befores, strict=True)]
                dropped, causal = True, causal and source.dropped_causal
        for lost, where in zip(sums, ("into receiver", "out of giver"), strict=True):
            if np.isinf(lost).any():
                raise InvalidCapacityError(
                    f"keep={keep}, below={below} drop more than float64 holds {where} {int(np.argmax(lost))} of matrix,"
                    f" of shape {source.shape}: scale it down"
                )
        made = cls((n_receivers, n_givers), np.cumsum(counts), np.concatenate(columns), np.concatenate(values))
        return replace(made, dropped_in=sums[0], dropped_out=sums[1], dropped_causal=causal) if dropped else made

    def to_dense(self) -> Array:
        """What was kept as a whole matrix, (n_receivers, n_givers), in new memory; zero elsewhere."""
        return np.concatenate([chunk for _, chunk in _chunks(self)])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """2: a matrix."""
        return 2

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.starts, self.columns, self.values, self.dropped_in, self.dropped_out)
        return sum(array.nbytes for array in arrays if array is not None)

    def __repr__(self) -> str:
        dropped = "" if self.dropped_in is None else f", dropped={self.dropped_in.sum():.4g}"
        return f"SparseMatrix({self.shape} {self.dtype}, kept={len(self.values)}{dropped})"


Stored = TriangularMatrix | SparseMatrix


# ---- what other rooms ask of a matrix, whatever its storage ----------------------------------------------------------


def entries(capacities: Any) -> Array:
    """The entries that are stored, as an array: what checks and conversions of entries work on."""
    return capacities.values if isinstance(capacities, Stored) else capacities


def place(capacities: Any, index: int) -> tuple[int, ...]:
    """Where entry `index` of :func:`entries` stands: (receiver, giver), or (giver,) of a diagonal."""
    if isinstance(capacities, TriangularMatrix):
        starts: Array = np.arange(capacities.n + 1, dtype=np.int64)
        starts = starts * (starts + 1) // 2
        receiver = int(np.searchsorted(starts, index, side="right")) - 1
        return receiver, index - int(starts[receiver])
    if isinstance(capacities, SparseMatrix):
        receiver = int(np.searchsorted(capacities.starts, index, side="right")) - 1
        return receiver, int(capacities.columns[index])
    return tuple(int(i) for i in np.unravel_index(index, capacities.shape))


def as_capacities(given: Any, name: str) -> Any:
    """As an array, or as a matrix of a storage of its own."""
    stored = from_scipy(given, name)
    return stored if isinstance(stored, Stored) else as_array(stored, name)


def whole(given: Any, name: str) -> Any:
    """A matrix of a storage of its own as an array; anything else as it is."""
    stored = from_scipy(given, name)
    if not isinstance(stored, Stored):
        return stored
    if isinstance(stored, SparseMatrix) and stored.dropped_in is not None:
        raise InvalidCapacityError(f"{name} is {stored!r}: what was dropped is not there; all entries are needed")
    return stored.to_dense()


def as_array(given: Any, name: str) -> Array:
    """As an array of a real dtype of 64 bits at most."""
    if isinstance(given, np.ma.MaskedArray):
        raise InvalidCapacityError(f"{name} is a masked array; the mask would be lost: use .filled(0)")
    if callable(getattr(given, "detach", None)):  # a torch tensor: its gradient is no business of a flow
        given = given.detach()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidCapacityError(f"{name} is not an array of numbers: {error}") from None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise InvalidCapacityError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; capacities must be float16, float32, float64 or "
            "integers"
        )
    return array


def from_scipy(given: Any, name: str) -> Any:
    """A scipy.sparse matrix or array as a SparseMatrix; anything else as it is. scipy is never imported."""
    if not callable(getattr(given, "tocsr", None)):
        return given
    rows = given.tocsr()
    if len(rows.shape) != 2 or 0 in rows.shape:
        raise InvalidCapacityError(f"{name} has shape {rows.shape}; (receivers, givers), not empty, is needed")
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    try:
        return SparseMatrix(rows.shape, rows.indptr, rows.indices, rows.data)
    except AttnflowError as error:
        raise type(error)(f"{name}: {error}") from None


# ---- checks ----------------------------------------------------------------------------------------------------------


def _set(instance: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _vector(given: Any, name: str) -> Array:
    array = _real(given, name)
    if array.ndim != 1:
        raise InvalidCapacityError(f"{name} has shape {array.shape}; a vector of entries is needed")
    return np.ascontiguousarray(array)


def _matrix(given: Any) -> Array:
    array = _real(given, "matrix")
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidCapacityError(f"matrix has shape {array.shape}; (receivers, givers), not empty, is needed")
    return array


def _real(given: Any, name: str) -> Array:
    array = as_array(given, name)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _indices(given: Any, name: str, dtype: type) -> Array:
    array = np.asarray(given)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InvalidCapacityError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; a vector of integers is needed"
        )
    limits = np.iinfo(dtype)
    if array.size and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
        raise InvalidCapacityError(f"{name} ranges from {array.min()} to {array.max()}; it must fit {np.dtype(dtype)}")
    return np.ascontiguousarray(array, dtype)


def _check_rows(starts: Array, columns: Array, n_givers: int) -> None:
    if starts[0] != 0:
        raise InvalidCapacityError(f"starts[0] is {starts[0]}; the first row starts at entry 0")
    falls = np.flatnonzero(np.diff(starts) < 0)
    if falls.size:
        j = int(falls[0])
        raise InvalidCapacityError(f"starts[{j + 1}] is {starts[j + 1]}, less than starts[{j}], {starts[j]}")
    beyond = np.flatnonzero(columns >= n_givers)
    if beyond.size:
        i = int(beyond[0])
        raise InvalidCapacityError(
            f"columns[{i}] is {columns[i]}, but there are {n_givers} givers: 0 ... {n_givers - 1}"
        )
    ascends = columns[1:] > columns[:-1]
    first_of_rows = starts[1:-1]
    ascends[first_of_rows[(first_of_rows > 0) & (first_of_rows < len(columns))] - 1] = True
    if not ascends.all():
        i = int(np.argmin(ascends)) + 1
        raise InvalidCapacityError(
            f"columns[{i}] is {columns[i]}, after {columns[i - 1]} in the same row; columns ascend, each named once"
        )


def _sums(given: Any, name: str, n: int) -> NDArray[np.float64] | None:
    if given is None:
        return None
    exact = _vector(given, name)
    array = np.ascontiguousarray(exact, np.float64)
    if exact.dtype.kind in "iu" and array.max(initial=0) >= 2**53:
        array = np.where(array >= 2**53, np.nextafter(array, np.inf), array)  # 2^53 may have been 2^53 + 1
    if len(array) != n:
        raise InvalidCapacityError(f"{name} has {len(array)} entries; one for each of {n} nodes is needed")
    refused = ~((array >= 0) & (array < np.inf))
    if refused.any():
        i = int(np.argmax(refused))
        raise InvalidCapacityError(f"{name}[{i}] is {array[i]}; sums of what was dropped are finite and >= 0")
    return array


def thresholds(keep: Any, below: Any) -> tuple[int | None, float | None]:
    """What :meth:`SparseMatrix.from_dense` is told to keep, checked."""
    if keep is not None:
        keep = integer(keep, "keep", low=0)
    if below is None:
        return keep, None
    if isinstance(below, (bool, np.bool_)) or not isinstance(below, (int, float, np.integer, np.floating)):
        raise InvalidArgumentError(f"below is {below!r}; it must be a number >= 0")
    if not below >= 0:
        raise InvalidArgumentError(f"below is {below!r}; it must be >= 0")
    try:
        return keep, float(below)
    except OverflowError:  # an integer beyond all capacities but infinite ones
        return keep, np.inf


def _check_rows_of(rows: Array, first: int) -> None:
    if rows.min(initial=0) >= 0:  # false of NaN
        return
    j, k = np.unravel_index(int(np.argmax(~(rows >= 0))), rows.shape)
    raise InvalidCapacityError(f"matrix[{j + first}, {k}] is {rows[j, k]}; entries must be >= 0")


# ---- dropping --------------------------------------------------------------------------------------------------------


def _chunks(matrix: Any) -> Iterator[tuple[int, Array]]:
    """The rows of a matrix, some at a time: the first one's number, and the rows whole, in memory of their own."""
    n_receivers, n_givers = matrix.shape
    height = max(1, _CHUNK // n_givers)
    fill = _filler(matrix)
    for first in range(0, n_receivers, height):
        end = min(first + height, n_receivers)
        rows = np.zeros((end - first, n_givers), matrix.dtype)
        fill(rows, first)
        yield first, rows


def _filler(matrix: Any) -> Callable[[Array, int], None]:
    """A function that writes rows `first` and following of a matrix into an array of zeros."""

    def from_triangle(rows: Array, first: int) -> None:
        for j, row in enumerate(rows, first):
            row[: j + 1] = matrix.values[j * (j + 1) // 2 :][: j + 1]

    def from_sparse(rows: Array, first: int) -> None:
        starts = matrix.starts[first : first + len(rows) + 1]
        receivers = np.repeat(np.arange(len(rows)), np.diff(starts))
        rows[receivers, matrix.columns[starts[0] : starts[-1]]] = matrix.values[starts[0] : starts[-1]]

    def from_dense(rows: Array, first: int) -> None:
        rows[...] = matrix[first : first + len(rows)]

    return {TriangularMatrix: from_triangle, SparseMatrix: from_sparse}.get(type(matrix), from_dense)


def _largest(rows: Array, keep: int) -> NDArray[np.bool_]:
    """Which entries are among the `keep` largest of their row, and positive."""
    n = rows.shape[1]
    if keep >= n:
        return rows > 0
    kept = np.zeros(rows.shape, np.bool_)
    if keep:
        np.put_along_axis(kept, np.argpartition(rows, n - keep, axis=1)[:, n - keep :], True, axis=1)
    kept &= rows > 0
    return kept


def _rounded_up(sums: Array, n: int, dtype: np.dtype[Any]) -> Array:
    """No less than the true sums of `n` terms at most, which float64 addition, in any order, rounded n times at most.

    A sum of non-negative terms is off by a factor of 1 + n 2^-53 and less than its square; zero is zero.
    """
    if dtype.kind in "iu" and sums.max(initial=0) < 2**53:
        return sums  # whole numbers that float64 holds; 2^53 itself may be what is left of 2^53 + 1
    return _next(sums * (1 + (n + 2) * 2.0**-52))


def _next(sums: Array) -> Array:
    """The float64 above, and zero for zero: no less than what was rounded once."""
    return np.where(sums > 0, np.nextafter(sums, np.inf), 0.0)
