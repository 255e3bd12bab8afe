"""From contribution matrices to flow networks: head reduction, residual mixing, calibration, and the shapes of models.

Contributions may be numpy arrays or torch tensors on any device. Everything is computed where the tensors are, and each
layer is carried to the host once, as one (n, n) matrix. torch is never imported here: it is looked up among the modules
the user has already loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from . import maxflow
from .errors import InvalidArgumentError, InvalidCapacityError
from .maxflow import Algorithm, Flows, Link, Progress

__all__ = ["Network"]

Array = NDArray[Any]
Heads = Literal["mean", "max", "min"] | int | Sequence[float]
Positions = int | Iterable[int | Iterable[int]]
AnyLink = Link | tuple[int, int, Any] | tuple[int, int, Any, int]


@dataclass(frozen=True, eq=False)
class Network:
    """A flow network: blocks of nodes joined by links, from the inputs in block 0 to the outputs in the last block.

    Made by :meth:`encoder`, :meth:`decoder` or :meth:`from_blocks`. Links hold views of the caller's arrays where
    nothing had to be computed: do not change those while the network is in use.

    Attributes
    ----------
    sizes : tuple of int
        Number of nodes of each block.
    links : tuple of maxflow.Link
        Edges between two blocks each. Where :meth:`encoder` or :meth:`decoder` made the network, link l is layer l.

    Examples
    --------
    >>> import numpy as np
    >>> import attnflow
    >>> attention = np.array([[[1.0, 0.0], [0.4, 0.6]]])
    >>> network = attnflow.Network.decoder(attention, residual=0.5)
    >>> network
    Network(sizes=(2, 2), n_layers=1, n_edges=3)
    >>> network.source_flows().values
    array([[0.2, 0.8]])
    """

    sizes: tuple[int, ...]
    links: tuple[Link, ...]

    @classmethod
    def encoder(
        cls,
        contributions: Any,
        *,
        residual: float = 0.5,
        heads: Heads = "mean",
        calibration: Literal["excess"] | None = None,
    ) -> Network:
        """The layered network of a model in which every position sees every other.

        Parameters
        ----------
        contributions : array (L, n, n) or (L, H, n, n), or a sequence of (n, n), (H, n, n) or (1, H, n, n) arrays
            Row = receiver, column = giver, the orientation of Hugging Face attentions. numpy arrays or torch tensors on
            any device; real, finite and non-negative, floating or integer. Rows need not sum to 1. Never modified.
        residual : float
            r in C = (1 - r) A + r I. 0.5 is the published method [1]_. Use 0 for contributions that already hold the
            residual.
        heads : "mean", "max", "min", int, or weights
            How (H, n, n) becomes (n, n): a reduction, one head, or the sum with one non-negative weight a head.
        calibration : None or "excess"
            None is the published method. "excess" keeps what each edge carries beyond an even spread of its row:
            max(C - N, 0), N being the row's sum divided by the number of positions the row can see (Notes).

        Returns
        -------
        Network
            Capacities float32, or float64 where the contributions are. Integers stay integers where nothing has to be
            computed, and become float64 otherwise.

        Raises
        ------
        InvalidCapacityError
            No layers, empty or non-square matrices, layers of different sizes, a dtype that is not real, NaN, infinite
            or negative entries (with the place of the first).
        InvalidArgumentError
            `residual` outside 0..1, unknown `heads` or `calibration`.

        Notes
        -----
        With ``residual=0``, contributions (L, n, n) in float32 or float64 and no calibration, nothing is copied.

        The even spread is over all n positions in an encoder and over the j + 1 positions up to itself that position j
        of a decoder sees. Without calibration the scores of real models are close to a ranking by position.

        References
        ----------
        .. [1] Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, 2020.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> rng = np.random.default_rng(0)
        >>> attentions = rng.dirichlet(np.ones(5), size=(3, 4, 5))  # 3 layers, 4 heads, 5 positions
        >>> attnflow.Network.encoder(attentions)
        Network(sizes=(5, 5, 5, 5), n_layers=3, n_edges=75)
        """
        return cls._layered(contributions, residual, heads, calibration, causal=False)

    @classmethod
    def decoder(
        cls,
        contributions: Any,
        *,
        residual: float = 0.5,
        heads: Heads = "mean",
        calibration: Literal["excess"] | None = None,
    ) -> Network:
        """The layered network of a causal model, in which position j sees positions 0..j.

        Parameters
        ----------
        contributions, residual, heads, calibration
            As for :meth:`encoder`; nothing may lie above the diagonal.

        Returns
        -------
        Network

        Raises
        ------
        InvalidCapacityError
            As for :meth:`encoder`, and where a position draws from a later one (with the place of the first).
        InvalidArgumentError
            As for :meth:`encoder`.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> uniform = np.tri(3) / np.arange(1, 4)[:, None]
        >>> attnflow.Network.decoder([uniform], residual=0.0).source_flows().values.round(3)
        array([[0.333, 0.333, 0.333]])
        >>> attnflow.Network.decoder([uniform], residual=0.0, calibration="excess").source_flows().values
        array([[0., 0., 0.]])
        """
        return cls._layered(contributions, residual, heads, calibration, causal=True)

    @classmethod
    def from_blocks(cls, sizes: Sequence[int], links: Iterable[AnyLink]) -> Network:
        """Any network of blocks: several stacks, skip connections, generated tokens that are read again.

        Parameters
        ----------
        sizes : sequence of int
            Number of nodes of each block; block 0 holds the inputs, the last one the outputs.
        links : iterable of maxflow.Link, (giver, receiver, capacities) or (giver, receiver, diagonal, offset)
            ``capacities[j, k]`` is the capacity from node k of the giver to node j of the receiver. A vector over the
            giver's nodes is a diagonal: node k to node k + offset (0 where not given). ``inf`` is unbounded. Several
            links may join the same two blocks. numpy arrays or torch tensors.

        Returns
        -------
        Network

        Raises
        ------
        InvalidArgumentError
            Fewer than two blocks, an empty block, a link from a block to itself or to no block.
        InvalidCapacityError
            Capacities of the wrong shape or dtype, NaN or negative (with the place of the first), or no link at all.

        Examples
        --------
        A skip connection around a narrow block:

        >>> import numpy as np
        >>> import attnflow
        >>> network = attnflow.Network.from_blocks(
        ...     [2, 1, 2], [(0, 1, np.ones((1, 2))), (1, 2, np.ones((2, 1))), (0, 2, np.array([0.5, 0.5]))]
        ... )
        >>> network.source_flows(sinks=[0, 1]).values
        array([[1.5, 1. ],
               [1. , 1.5]])
        """
        if not _is_many(sizes):
            raise InvalidArgumentError(f"sizes={sizes!r}: a sequence of the blocks' numbers of nodes is needed")
        if not _is_many(links):
            raise InvalidArgumentError(f"links must be a sequence of links, not {links!r}")
        blocks = tuple(_integer(size, "sizes") for size in sizes)
        made = []
        for index, entry in enumerate(links):
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
            array = _real(capacities, place)
            if array.ndim not in (1, 2):
                raise InvalidCapacityError(
                    f"{place} has capacities of shape {tuple(array.shape)}: a matrix or a diagonal is needed"
                )
            _check_entries(array, place, ("receiver", "giver")[-array.ndim :], unbounded=True)
            made.append(
                Link(
                    _integer(giver, f"{place}: giver"),
                    _integer(receiver, f"{place}: receiver"),
                    _host(array),
                    _integer(offset, f"{place}: offset"),
                )
            )
        return cls(blocks, tuple(made))

    def __post_init__(self) -> None:
        if len(self.sizes) < 2:
            raise InvalidArgumentError(f"sizes={self.sizes}: a network needs two blocks at least, inputs and outputs")
        for block, size in enumerate(self.sizes):
            if size < 1:
                raise InvalidArgumentError(f"block {block} has {size} nodes: at least 1 is needed (sizes={self.sizes})")
        if not self.links:
            raise InvalidCapacityError(f"a network of blocks {self.sizes} without any link: at least one is needed")
        for index, link in enumerate(self.links):
            for end, block in (("giver", link.giver), ("receiver", link.receiver)):
                if not 0 <= block < len(self.sizes):
                    raise InvalidArgumentError(
                        f"link {index}: {end}={block} names no block; there are {len(self.sizes)}: {self.sizes}"
                    )
            if link.giver == link.receiver:
                raise InvalidArgumentError(
                    f"link {index} joins block {link.giver} to itself: blocks have no inner edges"
                )
            shape, giver, receiver = np.shape(link.capacities), self.sizes[link.giver], self.sizes[link.receiver]
            if shape not in ((receiver, giver), (giver,)):
                raise InvalidCapacityError(
                    f"link {index} from block {link.giver} to block {link.receiver} has capacities of shape {shape}:"
                    f" ({receiver}, {giver}) is needed, or ({giver},) for a diagonal"
                )
            if link.offset and len(shape) == 2:
                raise InvalidArgumentError(
                    f"link {index} has offset={link.offset} with capacities of shape {shape}: only a diagonal has one"
                )

    def pooled(self, positions: Iterable[int] | None = None) -> Network:
        """The network followed by mean pooling: a further block of one node, fed 1/m by each of m output positions.

        Parameters
        ----------
        positions : iterable of int, or None
            Positions of the last block, negative ones counting from the end. None means all of them.

        Returns
        -------
        Network
            One block and one link more; its only sink is position 0.

        Raises
        ------
        InvalidArgumentError
            No position, a repeated one, or one out of range.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> network = attnflow.Network.encoder(np.eye(4)[None])
        >>> network.pooled([0, 2]).source_flows().values
        array([[0.5, 0. , 0.5, 0. ]])
        """
        size = self.sizes[-1]
        chosen = list(range(size)) if positions is None else _positions(positions, size, "positions")
        if len(set(chosen)) != len(chosen):
            raise InvalidArgumentError(f"positions={positions!r} repeats a position: each may be pooled once")
        dtype = np.result_type(np.float32, *(link.capacities.dtype for link in self.links))
        weights = np.zeros((1, size), dtype=dtype)
        weights[0, chosen] = 1 / len(chosen)
        weights.flags.writeable = False
        last = len(self.sizes) - 1
        return Network((*self.sizes, 1), (*self.links, Link(last, last + 1, weights)))

    def source_flows(
        self,
        sinks: Positions = -1,
        *,
        sources: Positions | None = None,
        threads: int | None = None,
        algorithm: Algorithm = "auto",
        bottlenecks: bool = False,
        cuts: bool = False,
        flows: bool = False,
        check: bool = False,
        progress: Progress | None = None,
    ) -> Flows:
        """Maximum flow from every source to every sink, each pair on its own (the *independent* flows).

        Parameters
        ----------
        sinks : int, or sequence of ints and of sequences (or sets) of ints
            Positions of the last block, negative ones counting from the end. A sequence or set inside the sequence is
            joined in one super sink, and so is a set in its place.
        sources : the same, or None
            Positions of block 0; a sequence or set inside is joined in one super source. None means each of them.
        threads, algorithm, bottlenecks, cuts, flows, check, progress
            As for :func:`attnflow.maxflow.layered`.

        Returns
        -------
        maxflow.Flows
            ``values`` has shape (n_sinks, n_sources). Bottleneck codes from 0 on are indices of `links`, the layers.

        Raises
        ------
        InvalidArgumentError
            A sink or source that is no integer, or out of range, or an empty set of them.
        UnboundedFlowError
            A source reaches a sink through unbounded edges alone.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> network = attnflow.Network.encoder(np.full((1, 3, 3), 1 / 3), residual=0.0)
        >>> network.source_flows([0, {1, 2}]).values.round(3)
        array([[0.333, 0.333, 0.333],
               [0.667, 0.667, 0.667]])
        """
        first, last = self.sizes[0], self.sizes[-1]
        if sources is None:
            sources = range(first)
        top = len(self.sizes) - 1
        return maxflow.blocks(
            self.sizes,
            self.links,
            sources=[[(0, position) for position in group] for group in _groups(sources, first, "sources")],
            sinks=[[(top, position) for position in group] for group in _groups(sinks, last, "sinks")],
            threads=threads,
            algorithm=algorithm,
            bottlenecks=bottlenecks,
            cuts=cuts,
            flows=flows,
            check=check,
            progress=progress,
        )

    @property
    def n_positions(self) -> int:
        """Number of input positions: the nodes of block 0."""
        return self.sizes[0]

    @property
    def n_layers(self) -> int:
        """Number of blocks after the inputs: the layers of a layered network, and one for a pooling on top."""
        return len(self.sizes) - 1

    @property
    def n_nodes(self) -> int:
        """Number of nodes in all blocks."""
        return sum(self.sizes)

    @cached_property
    def n_edges(self) -> int:
        """Number of edges of positive capacity, counted in one pass on first use."""
        return sum(_count_edges(link, self.sizes[link.receiver]) for link in self.links)

    @property
    def nbytes(self) -> int:
        """Bytes of capacities, views of the caller's arrays included."""
        return sum(link.capacities.nbytes for link in self.links)

    def __repr__(self) -> str:
        sizes = str(self.sizes) if len(self.sizes) <= 8 else f"({self.sizes[0]}, ..., {self.sizes[-1]})"
        return f"Network(sizes={sizes}, n_layers={self.n_layers}, n_edges={self.n_edges})"

    @classmethod
    def _layered(
        cls, contributions: Any, residual: float, heads: Heads, calibration: str | None, causal: bool
    ) -> Network:
        if isinstance(residual, (bool, np.bool_)) or not isinstance(residual, (int, float, np.floating, np.integer)):
            raise InvalidArgumentError(f"residual={residual!r}: a number from 0 to 1 is needed")
        if not 0 <= residual <= 1:
            raise InvalidArgumentError(f"residual={residual!r} is outside 0..1, r in C = (1 - r) A + r I")
        if calibration not in (None, "excess"):
            raise InvalidArgumentError(f'calibration={calibration!r} is unknown: choose None or "excess"')
        reduce = _head_reduction(heads)
        layers = _layers(contributions)
        links = []
        for index, array in enumerate(layers):
            name = f"layer {index}"
            _check_entries(array, name, ("head", "receiver", "giver")[-array.ndim :])
            matrix = reduce(array, name)
            if causal:
                _check_causal(matrix, name)
            if residual:
                matrix = _mix(_floating(matrix, name), float(residual))
            if calibration:
                matrix = _excess(_floating(matrix, name), causal)
            host = _host(matrix)
            links.append(Link(index, index + 1, host))
        return cls((layers[0].shape[-1],) * (len(layers) + 1), tuple(links))


# ---- positions -----------------------------------------------------------------------------------------------------


def _groups(positions: Positions, size: int, name: str) -> list[list[int]]:
    """The sinks or sources as lists of positions, each to be joined in one super node."""
    if isinstance(positions, (set, frozenset)) or not _is_many(positions):
        positions = [cast("int", positions)]
    groups = [
        _positions(entry if _is_many(entry) else [entry], size, name) for entry in cast("Iterable[Any]", positions)
    ]
    if not groups:
        raise InvalidArgumentError(f"{name} is empty: name at least one of the {size} positions")
    return groups


def _positions(members: Iterable[Any], size: int, name: str) -> list[int]:
    if not _is_many(members):
        raise InvalidArgumentError(f"{name} must be positions, not {members!r}")
    chosen = []
    for member in members:
        position = _integer(member, name)
        if not -size <= position < size:
            raise InvalidArgumentError(
                f"{name}: position {position} is out of range for {size} positions (allowed: {-size} to {size - 1})"
            )
        chosen.append(position % size)
    if not chosen:
        raise InvalidArgumentError(f"{name} holds an empty set: each needs at least one of the {size} positions")
    return chosen


def _is_many(value: object) -> bool:
    """Whether it holds several positions: a 0-d array has ``__iter__`` and yet is one."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) != 0


def _integer(value: Any, name: str) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise InvalidArgumentError(f"{name} must be integers, got {value!r}")
    try:
        return int(value.__index__())
    except TypeError:
        raise InvalidArgumentError(f"{name} must be integers, got {value!r}") from None


# ---- arrays: each function has one branch for numpy and one for torch ----------------------------------------------


def _torch_of(array: Any) -> Any:
    """The torch module if this is a tensor, else None. torch is never imported: a tensor proves that the user did."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, getattr(torch, "Tensor", ())) else None


def _real(given: Any, name: str) -> Any:
    """As an ndarray or a detached tensor of a real dtype."""
    torch = _torch_of(given)
    if torch is not None:
        tensor = given.detach()
        floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if tensor.dtype not in (*floats, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
            raise InvalidCapacityError(_dtype_message(name, tensor.dtype))
        return tensor
    if given is None or isinstance(given, (str, bytes, dict, set, frozenset)):
        raise InvalidCapacityError(f"{name} is {given!r}: an array of real numbers is needed")
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InvalidCapacityError(f"{name} is {type(given).__name__}, not an array of real numbers: {error}") from None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise InvalidCapacityError(_dtype_message(name, array.dtype))
    return array


def _dtype_message(name: str, dtype: Any) -> str:
    return f"{name} has dtype {dtype}: capacities must be real numbers of 64 bits at most, floating or integer"


def _layers(contributions: Any) -> list[Any]:
    """One (n, n) or (H, n, n) array a layer, all of the same n, or an error that says what is wrong with which."""
    form = "(L, n, n), (L, H, n, n) or a sequence of (n, n), (H, n, n) or (1, H, n, n) arrays"
    if (
        contributions is None
        or isinstance(contributions, (str, bytes, dict))
        or not isinstance(contributions, Iterable)
    ):
        raise InvalidCapacityError(f"contributions must be {form}, not {type(contributions).__name__}")
    whole = _torch_of(contributions) is not None or isinstance(contributions, np.ndarray)
    shape = tuple(getattr(contributions, "shape", ())) if whole else ()
    if whole:
        if len(shape) not in (3, 4, 5):
            raise InvalidCapacityError(f"contributions of shape {shape}: {form} is needed; one layer has L = 1")
        contributions = _real(contributions, "contributions")
    layers: list[Any] = []
    for index, given in enumerate(contributions):
        name = f"layer {index}"
        array = _real(given, name)
        held = tuple(array.shape)
        if array.ndim == 4 and held[0] == 1:
            array = array[0]
        elif array.ndim == 4:
            raise InvalidCapacityError(f"{name} has shape {held}, a batch of {held[0]}: one text at a time")
        if array.ndim not in (2, 3):
            raise InvalidCapacityError(f"{name} has shape {held}: (n, n), (H, n, n) or (1, H, n, n) is needed")
        if held[-1] != held[-2]:
            raise InvalidCapacityError(f"{name} has shape {held}: receivers and givers are the same n positions")
        if 0 in held:
            raise InvalidCapacityError(f"{name} has shape {held}: it is empty")
        if layers and layers[0].shape[-1] != held[-1]:
            raise InvalidCapacityError(
                f"{name} has shape {held}, but layer 0 has {layers[0].shape[-1]} positions: all need the same"
            )
        layers.append(array)
    if not layers:
        raise InvalidCapacityError(
            f"contributions{f' of shape {shape}' if shape else ''} hold no layer: at least one is needed"
        )
    return layers


def _check_entries(array: Any, name: str, axes: tuple[str, ...], *, unbounded: bool = False) -> None:
    """Raise at the first entry that is NaN, negative or (unless allowed) infinite. One pass where all is well."""
    torch = _torch_of(array)
    if torch is not None:
        if array.numel() == 0:
            return
        low, high = torch.stack(torch.aminmax(array)).tolist()
    else:
        if array.size == 0:
            return
        low, high = array.min(), array.max()
    if low >= 0 and (unbounded or high < np.inf):
        return
    host = _host(array)
    refused = ~(host >= 0) | (np.isinf(host) & (not unbounded))
    first = np.unravel_index(int(np.argmax(refused)), host.shape)
    place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    rule = "non-negative (inf is unbounded)" if unbounded else "finite and non-negative"
    raise InvalidCapacityError(
        f"{name} holds {host[first]} at {place}: entries must be {rule}; its shape is {host.shape}"
    )


def _check_causal(matrix: Any, name: str) -> None:
    """Raise where a position draws from a later one."""
    torch = _torch_of(matrix)
    if torch is not None:
        above = torch.triu(matrix, diagonal=1)
        if not bool(above.any()):
            return
        receiver, giver = (int(index) for index in above.nonzero()[0])
    else:
        for receiver in range(len(matrix) - 1):
            later = matrix[receiver, receiver + 1 :]
            if later.any():
                giver = receiver + 1 + int(np.argmax(later != 0))
                break
        else:
            return
    raise InvalidCapacityError(
        f"{name} holds {float(matrix[receiver, giver])} at receiver {receiver}, giver {giver}: no position of a decoder"
        f" draws from a later one; its shape is {tuple(matrix.shape)}. Network.encoder is for models that do"
    )


def _floating(array: Any, name: str) -> Any:
    """float64 stays, other floats become float32, integers float64 where that is exact."""
    torch = _torch_of(array)
    if torch is not None:
        integers = not array.dtype.is_floating_point
        target = torch.float64 if integers or array.dtype == torch.float64 else torch.float32
        largest = int(array.max()) if array.dtype == torch.int64 else 0
    else:
        integers = array.dtype.kind in "iu"
        target = np.float64 if integers or array.dtype.itemsize == 8 else np.float32
        largest = int(array.max()) if integers and array.dtype.itemsize == 8 else 0
    if largest > 2**53:
        raise InvalidCapacityError(
            f"{name} holds the integer {largest}: above 2^53 it has no exact float64 to compute with;"
            f" its shape is {tuple(array.shape)}"
        )
    return array.to(target) if torch is not None else array.astype(target, copy=False)


def _head_reduction(heads: Any) -> Callable[[Any, str], Any]:
    """The function (H, n, n) -> (n, n) that `heads` names, or an error; (n, n) passes where that makes sense."""
    if isinstance(heads, str):
        if heads not in ("mean", "max", "min"):
            raise InvalidArgumentError(f'heads={heads!r} is unknown: choose "mean", "max", "min", a head, or weights')
        return lambda array, name: array if array.ndim == 2 else _reduce(array, heads, name)
    if not _is_many(heads):
        return lambda array, name: _one_head(array, _integer(heads, "heads"), name)
    try:
        weights = [float(weight) for weight in heads]
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"heads={heads!r}: one weight a head is needed") from None
    for head, weight in enumerate(weights):
        if not 0 <= weight < np.inf:
            raise InvalidArgumentError(f"heads: the weight of head {head} is {weight}: it must be finite, 0 or more")
    return lambda array, name: _weighted(array, weights, name)


def _reduce(array: Any, how: str, name: str) -> Any:
    if how == "mean":
        if array.shape[0] == 1:
            return array[0]
        narrow = array.dtype.itemsize < 4
        if _torch_of(array) is not None:
            if not array.dtype.is_floating_point:
                return _floating(array, name).mean(dim=0)
            return array.mean(dim=0, dtype=_torch_of(array).float32 if narrow else None)
        if array.dtype.kind in "iu":
            return _floating(array, name).mean(axis=0)
        return array.mean(axis=0, dtype=np.float32 if narrow else None)
    if _torch_of(array) is not None:
        return array.amax(dim=0) if how == "max" else array.amin(dim=0)
    return array.max(axis=0) if how == "max" else array.min(axis=0)


def _one_head(array: Any, head: int, name: str) -> Any:
    if array.ndim == 2:
        raise InvalidArgumentError(f"heads={head} names a head, but {name} of shape {tuple(array.shape)} has no heads")
    n_heads = array.shape[0]
    if not -n_heads <= head < n_heads:
        raise InvalidArgumentError(
            f"heads={head} is out of range: {name} of shape {tuple(array.shape)} has {n_heads} heads"
        )
    return array[head]


def _weighted(array: Any, weights: list[float], name: str) -> Any:
    if array.ndim == 2 or array.shape[0] != len(weights):
        held = "no heads" if array.ndim == 2 else f"{array.shape[0]} heads"
        raise InvalidArgumentError(
            f"heads holds {len(weights)} weights, but {name} of shape {tuple(array.shape)} has {held}"
        )
    total = _floating(array[0], name) * weights[0]
    for head in range(1, len(weights)):
        total += _floating(array[head], name) * weights[head]
    return total


def _mix(matrix: Any, residual: float) -> Any:
    """(1 - r) A + r I, in new memory."""
    mixed = matrix * (1 - residual)
    if _torch_of(mixed) is not None:
        mixed.diagonal().add_(residual)
    else:
        places = np.arange(len(mixed))
        mixed[places, places] += mixed.dtype.type(residual)
    return mixed


def _excess(matrix: Any, causal: bool) -> Any:
    """max(C - N, 0), N the row's sum spread evenly over the positions it sees, in new memory.

    Sums and quotients are taken in float64, so that an even row leaves exactly nothing behind.
    """
    n = matrix.shape[0]
    torch = _torch_of(matrix)
    if torch is not None:
        wide = torch.float32 if matrix.device.type == "mps" else torch.float64
        rows = matrix.sum(dim=1, keepdim=True, dtype=wide)
        even = rows / (torch.arange(1, n + 1, device=matrix.device, dtype=wide)[:, None] if causal else n)
        return (matrix - even.to(matrix.dtype)).clamp_(min=0)
    rows = matrix.sum(axis=1, keepdims=True, dtype=np.float64)
    even = rows / (np.arange(1, n + 1)[:, None] if causal else n)
    excess = matrix - even.astype(matrix.dtype)
    return np.maximum(excess, 0, out=excess)


def _host(array: Any) -> Array:
    """The read-only ndarray of a layer: a view where it already is one, one transfer where it is on a device."""
    torch = _torch_of(array)
    if torch is not None:
        array = (array.float() if array.dtype in (torch.float16, torch.bfloat16) else array).numpy(force=True)
    elif array.dtype.kind == "f" and array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    view: Array = array.view()
    view.flags.writeable = False
    return view


def _count_edges(link: Link, n_receivers: int) -> int:
    capacities = link.capacities
    if capacities.ndim == 1:  # edges k -> k + offset that end outside the receiver do not exist
        capacities = capacities[max(0, -link.offset) : max(0, n_receivers - link.offset)]
    return int(np.count_nonzero(capacities))
