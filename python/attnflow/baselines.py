"""What attention flow is compared with: raw attention, rollout and the widest path, in the shape of the flows.

Each function takes the matrices a network is made of (after head reduction and residual mixing) and returns a float64
array (n_sinks, n_sources), like the ``values`` of a flow. A matrix is ``[receiver, giver]``.

Networks of any shape have them as :meth:`attnflow.Network.rollout` and :meth:`attnflow.Network.widest_path`; results
with tokens and pictures are ``attnflow.explain(..., attribution="rollout")`` and the like, where baselines that ask the
model are, too: gradient times input, leaving tokens out, and chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _sweeps
from ._positions import Positions, as_position, groups, is_many
from .errors import InvalidArgumentError, InvalidCapacityError

__all__ = ["raw_attention", "rollout", "widest_path"]

Matrix = NDArray[np.float64]


def rollout(
    capacities: ArrayLike | Sequence[ArrayLike], *, sinks: Positions = -1, sources: Positions | None = None
) -> Matrix:
    """Attention rollout [1]_: the product of the layers' matrices.

    Entry (t, i) is the sum, over all paths from source i to sink t, of the product of the capacities on the path.
    Where no row sums to more than 1 it is a feasible flow, hence never above the maximum flow.

    Parameters
    ----------
    capacities : array_like (L, n, n), or a sequence of (n_l, n_(l-1)) matrices
        Layer by layer from the input to the output, the residual already mixed in.
    sinks : int, or sequence of ints and of sets of ints
        Positions after the last layer; negative ones count from the end. A set stands for the sum over its members.
    sources : the same, or None
        Positions before the first layer. None means each of them.

    Returns
    -------
    ndarray (n_sinks, n_sources), float64

    Raises
    ------
    InvalidCapacityError
        No layers, wrong shapes, NaN, negative or infinite entries.
    InvalidArgumentError
        A sink or source out of range.

    Notes
    -----
    O(n_sinks * L * n^2) time: the product is taken from the sinks' side.

    References
    ----------
    .. [1] Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import baselines
    >>> layer = np.array([[1.0, 0.0], [0.5, 0.5]])
    >>> baselines.rollout([layer, layer])
    array([[0.75, 0.25]])
    """
    matrices = _matrices(capacities)
    return _sweeps.product(*_chain(matrices, sinks, sources))


def raw_attention(
    contributions: ArrayLike | Sequence[ArrayLike],
    *,
    sinks: Positions = -1,
    sources: Positions | None = None,
    layers: Literal["last", "mean"] | int = "last",
) -> Matrix:
    """How much a sink draws from each source within one layer, or in the mean over layers.

    Parameters
    ----------
    contributions : array_like (L, n, n), or a sequence of (n, n) matrices
    sinks, sources
        As for :func:`rollout`.
    layers : "last", "mean" or int
        The last layer, the mean over all layers, or the layer of that index.

    Returns
    -------
    ndarray (n_sinks, n_sources), float64

    Raises
    ------
    InvalidCapacityError, InvalidArgumentError
        As for :func:`rollout`; also for an unknown `layers`.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import baselines
    >>> first, last = np.eye(2), np.array([[1.0, 0.0], [0.5, 0.5]])
    >>> baselines.raw_attention([first, last])
    array([[0.5, 0.5]])
    >>> baselines.raw_attention([first, last], layers="mean")
    array([[0.25, 0.75]])
    """
    matrices = _matrices(contributions)
    if isinstance(layers, str):
        if layers not in ("last", "mean"):
            raise InvalidArgumentError(f'layers={layers!r}: choose "last", "mean" or the index of a layer')
        chosen = matrices[-1:] if layers == "last" else matrices
    else:
        chosen = [matrices[as_position(layers, "layers", len(matrices), "the network", "layer")]]
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) > 1:
        raise InvalidCapacityError(f"raw attention needs layers of one shape; these have {sorted(shapes)}")
    left, right = _selections(matrices, sinks, sources)
    total: Matrix = sum((left @ matrix @ right for matrix in chosen), np.zeros((left.shape[0], right.shape[1])))
    return total / len(chosen)


def widest_path(
    capacities: ArrayLike | Sequence[ArrayLike], *, sinks: Positions = -1, sources: Positions | None = None
) -> Matrix:
    """The bottleneck of the best single path, by the (max, min) product of the layers' matrices [1]_.

    Entry (t, i) is the largest c such that one path whose edges all have capacity c or more leads from source i to
    sink t. It is a feasible flow, hence never above the maximum flow.

    Parameters
    ----------
    capacities, sinks, sources
        As for :func:`rollout`, but a set stands for the best of its members, and infinite capacities are allowed.

    Returns
    -------
    ndarray (n_sinks, n_sources), float64

    Raises
    ------
    InvalidCapacityError, InvalidArgumentError
        As for :func:`rollout`.

    Notes
    -----
    O(n_sinks * L * n^2) time, O(n^2) memory.

    References
    ----------
    .. [1] arXiv 2407.06182.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import baselines
    >>> layer = np.array([[1.0, 0.0], [0.3, 0.7]])
    >>> baselines.widest_path([layer, layer])
    array([[0.3, 0.7]])
    """
    matrices = _matrices(capacities, unbounded=True)
    return _sweeps.widest(*_chain(matrices, sinks, sources))


def _chain(matrices: list[Matrix], sinks: Any, sources: Any) -> tuple[tuple[int, ...], _sweeps.Edges, Any, Any]:
    """Layers one behind the other as blocks, and the ends as nodes of them."""
    receivers, givers = _ends(matrices, sinks, sources)
    sizes = (matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices))
    edges = [(layer, layer + 1, partial(np.asarray, matrix)) for layer, matrix in enumerate(matrices)]
    top = len(matrices)
    return (
        sizes,
        edges,
        [[(0, k) for k in group] for group in givers],
        [[(top, j) for j in group] for group in receivers],
    )


def _matrices(capacities: Any, *, unbounded: bool = False) -> list[Matrix]:
    """The layers as float64 matrices whose shapes chain, or an error that says which one does not."""
    if not is_many(capacities) or isinstance(capacities, dict):
        shape = f" of shape {capacities.shape}" if isinstance(capacities, np.ndarray) else ""
        raise InvalidCapacityError(
            f"capacities are a {type(capacities).__name__}{shape}: (L, n, n) or a sequence of matrices is needed"
        )
    matrices: list[Matrix] = []
    for index, layer in enumerate(capacities):
        try:
            given = np.asarray(layer)
        except (TypeError, ValueError) as error:
            raise InvalidCapacityError(f"layer {index} is no matrix of real numbers: {error}") from None
        if given.dtype.kind not in "fiu":
            raise InvalidCapacityError(
                f"layer {index} has dtype {given.dtype}: capacities must be real numbers (floating or integer)"
            )
        if given.ndim != 2 or 0 in given.shape:
            raise InvalidCapacityError(f"layer {index} has shape {given.shape}: a non-empty matrix is needed")
        matrix = given.astype(np.float64, copy=False)
        if matrices and matrix.shape[1] != matrices[-1].shape[0]:
            raise InvalidCapacityError(
                f"layer {index} of shape {matrix.shape} does not follow layer {index - 1} of shape"
                f" {matrices[-1].shape}: its columns must be the {matrices[-1].shape[0]} rows before"
            )
        refused = ~(matrix >= 0) | (np.isinf(matrix) & (not unbounded))
        if refused.any():
            j, k = np.argwhere(refused)[0]
            rule = "non-negative" if unbounded else "finite and non-negative"
            raise InvalidCapacityError(
                f"layer {index} holds {matrix[j, k]} at [{j}, {k}]: entries must be {rule}; its shape is {matrix.shape}"
            )
        matrices.append(matrix)
    if not matrices:
        raise InvalidCapacityError("capacities hold no layer: at least one is needed")
    return matrices


def _ends(matrices: list[Matrix], sinks: Any, sources: Any) -> tuple[list[list[int]], list[list[int]]]:
    """The positions of each row and of each column of the result."""
    rows, columns = matrices[-1].shape[0], matrices[0].shape[1]
    everyone = range(columns) if sources is None else sources
    return groups(sinks, "sinks", rows, len(matrices)), groups(everyone, "sources", columns, 0)


def _selections(matrices: list[Matrix], sinks: Any, sources: Any) -> tuple[Matrix, Matrix]:
    """(n_sinks, n) and (n, n_sources): 1 where the position belongs to the group."""
    left, right = _ends(matrices, sinks, sources)
    return _selection(left, matrices[-1].shape[0]), _selection(right, matrices[0].shape[1]).T


def _selection(joined: list[list[int]], size: int) -> Matrix:
    chosen = np.zeros((len(joined), size))
    for row, group in enumerate(joined):
        chosen[row, group] = 1.0
    return chosen
