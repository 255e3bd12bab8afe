"""Exact maximum flows from every source at once: the kernel, for numpy arrays.

:func:`layered` takes a stack of capacity matrices, :func:`blocks` any graph of blocks. Both return :class:`Flows`.

Floating point capacities are solved exactly as integers of a quantum chosen from their scale; ``lower`` and ``upper``
certify how far the answer can be from the maximum flow in the capacities as given (usually not at all).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from . import _kernel
from ._frozen import Frozen
from ._kernel import Edges, Progress
from ._positions import Node, groups, integer, items, node_groups
from .errors import InvalidArgumentError, InvalidCapacityError
from .storage import SparseMatrix, Stored, as_capacities, from_scipy

__all__ = ["NONE", "SINK", "SOURCE", "Cut", "Cuts", "EdgeFlows", "Flows", "Link", "blocks", "layered"]

SOURCE = -1
"""Bottleneck: the value is all that leaves the source towards nodes that reach the sink."""
SINK = -2
"""Bottleneck: the value is all that enters the sink from nodes the source reaches."""
NONE = -3
"""Bottleneck: the value is 0; the source does not reach the sink through capacities of a quantum or more."""

Algorithm = Literal["auto", "dinic", "push_relabel"]

# The kernel numbers nodes in 32 bits.
_LONGEST_BLOCK = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Link:
    """Edges between two blocks of nodes.

    Attributes
    ----------
    giver, receiver : int
        The blocks the edges leave and enter.
    capacities : numpy.ndarray, TriangularMatrix, SparseMatrix or scipy.sparse matrix (which becomes a SparseMatrix)
        (n_receiver, n_giver): ``[j, k]`` is the capacity of the edge from the giver's node k to the receiver's node j.
        Or (n_giver,), a diagonal: edges from node k to node k + `offset`, those that leave the block ignored. Floating
        or integer, any strides, >= 0; 0 is no edge, infinity an unbounded one.
    offset : int
        Only for a diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> Link(giver=0, receiver=1, capacities=np.array([[0.5, 0.5]]))
    Link(giver=0, receiver=1, capacities=(1, 2) float64)
    >>> Link(1, 0, np.full(3, np.inf), offset=1)  # node k of block 1 feeds node k + 1 of block 0, without limit
    Link(giver=1, receiver=0, capacities=(3,) float64, offset=1)
    """

    giver: int
    receiver: int
    capacities: Any
    offset: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacities", from_scipy(self.capacities, "capacities"))

    def edges(self, n_receivers: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        """Receivers, givers and capacities of the edges of positive capacity, row by row; dropped ones aside.

        Parameters
        ----------
        n_receivers : int
            Nodes of the receiver's block, beyond which a diagonal may lead.
        """
        given: Any = self.capacities
        receiver: NDArray[Any]
        giver: NDArray[Any]
        capacity: NDArray[Any]
        if isinstance(given, SparseMatrix):
            receiver = np.repeat(np.arange(given.shape[0]), np.diff(given.starts))
            giver, capacity = given.columns, given.values
        elif given.ndim == 1:
            giver = np.arange(len(given))
            receiver, capacity = giver + self.offset, np.asarray(given)
            inside = (receiver >= 0) & (receiver < n_receivers)
            receiver, giver, capacity = receiver[inside], giver[inside], capacity[inside]
        else:
            dense = given.to_dense() if isinstance(given, Stored) else np.asarray(given)
            receiver, giver = np.nonzero(dense)
            capacity = dense[receiver, giver]
        some = capacity > 0
        return receiver[some].astype(np.int32), giver[some].astype(np.int32), capacity[some].astype(np.float64)

    def __repr__(self) -> str:
        offset = f", offset={self.offset}" if self.offset else ""
        capacities: Any = self.capacities
        if not isinstance(capacities, Stored):
            array = np.asarray(capacities)
            capacities = f"{array.shape} {array.dtype}"
        return f"Link(giver={self.giver}, receiver={self.receiver}, capacities={capacities}{offset})"


@dataclass(frozen=True, eq=False)
class Cut(Frozen):
    """A minimum cut, the one nearest the source; of the kept edges, where some were dropped.

    Attributes
    ----------
    source_side : tuple of bool arrays
        One a block, (n_nodes,): which nodes lie on the source's side.
    capacity : float
        Sum of the capacities of the edges that leave it, which is the value of the maximum flow.
    """

    source_side: tuple[NDArray[np.bool_], ...]
    capacity: float


@dataclass(frozen=True, eq=False, repr=False)
class Cuts(Frozen, Sequence[Sequence[Cut]]):
    """Minimum cuts by ``[sink][source]``, unpacked when looked at: a bit a node is all that is stored."""

    _sizes: tuple[int, ...]
    _words: NDArray[np.uint64]
    _values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, sink: int) -> tuple[Cut, ...]: ...
    @overload
    def __getitem__(self, sink: slice) -> tuple[tuple[Cut, ...], ...]: ...
    def __getitem__(self, sink: int | slice) -> tuple[Cut, ...] | tuple[tuple[Cut, ...], ...]:
        if isinstance(sink, slice):
            return tuple(self[i] for i in range(*sink.indices(len(self))))
        return tuple(self.cut(sink, source) for source in range(self._values.shape[1]))

    def cut(self, sink: int, source: int) -> Cut:
        """One cut, without unpacking the others of its sink."""
        words = self._words[sink, source]
        sides, first = [], 0
        for size in self._sizes:
            n_words = -(-size // 64)
            block = words[first : first + n_words].astype("<u8").view(np.uint8)
            sides.append(np.unpackbits(block, bitorder="little", count=size).astype(bool))
            first += n_words
        return Cut(tuple(sides), float(self._values[sink, source]))

    def __repr__(self) -> str:
        return f"Cuts(n_sinks={self._values.shape[0]}, n_sources={self._values.shape[1]})"


@dataclass(frozen=True, eq=False)
class EdgeFlows(Frozen):
    """The flow on every edge that carries some, as parallel arrays of one entry an edge.

    Attributes
    ----------
    link : int32 array
        Which link (of a layered network: which layer).
    receiver, giver : int32 arrays
        Positions in the link's blocks.
    flow : float64 array
        In the unit of the capacities, > 0.

    Notes
    -----
    Of floating point capacities these are multiples of one quantum, ``Flows.stats["quantum"]``, and an edge may carry
    a single one, about 1e-18 of what the sink takes, where one would expect none. What enters and what leaves a node is
    equal to the quantum; of ``flow``, to what float64 rounds.
    """

    link: NDArray[np.int32]
    receiver: NDArray[np.int32]
    giver: NDArray[np.int32]
    flow: NDArray[np.float64]

    def along(self, link: int, receiver: NDArray[np.int32], giver: NDArray[np.int32]) -> NDArray[np.float64]:
        """The flow on edges of one link, in the order of :meth:`Link.edges`; 0 where there is none."""
        mine = self.link == link
        flow = np.zeros(receiver.size)
        width = int(max(giver.max(initial=0), self.giver[mine].max(initial=0))) + 1
        places = np.searchsorted(
            receiver.astype(np.int64) * width + giver, self.receiver[mine].astype(np.int64) * width + self.giver[mine]
        )
        flow[places] = self.flow[mine]
        return flow

    def __len__(self) -> int:
        return len(self.flow)

    def __repr__(self) -> str:
        return f"EdgeFlows({len(self)} edges)"


@dataclass(frozen=True, eq=False)
class Flows(Frozen):
    """Maximum flows between every source and every sink, certified. All of it is read-only.

    Where a SparseMatrix dropped edges, all of this speaks of the kept ones, except `upper`.

    Attributes
    ----------
    values : float64 array (n_sinks, n_sources)
        Maximum flow, in the unit of the capacities.
    lower, upper : float64 arrays (n_sinks, n_sources)
        ``lower <= maximum flow in the capacities as given <= upper``. `lower` is a feasible flow, `upper` a cut. Where
        no edge of the cut was rounded to quanta they equal `values` or its neighbours in float64, and every edge that
        was adds one quantum to `upper` (Notes). Where edges were dropped, `upper` bounds the flow through kept and
        dropped edges together (infinite where nothing does).
    bottlenecks : int32 array (n_sinks, n_sources) or None
        What limits the flow: `SOURCE`, `SINK`, `NONE`, or the number of the link (>= 0, of a layered network the layer)
        that holds the largest share of the minimum cut nearest the source. Where both the source and the sink limit it,
        `SOURCE`.
    cuts : Cuts or None
        ``cuts[t][s]``: minimum cut of sink t and source s.
    flows : EdgeFlows or None
        One maximum flow, edge by edge.
    stats : mapping
        edges, algorithm, threads, quantum (size of one unit of the exact arithmetic), searches, augmentations,
        touched_edges, index_bytes (shared by all sources), workspace_bytes (all threads), checked.

    Notes
    -----
    Floating point capacities are rounded down to multiples of one quantum, ``stats["quantum"]``: a power of two, 2^-61
    to 2^-60 of B, the largest sum of capacities into any one sink of the call (where that is unbounded, of the sum of
    all finite capacities, counted once for every edge into the sink). float32 capacities above 2^-36 B and float64 ones
    above 2^-7 B lose nothing. The interval of a flow far below B, along small float64 capacities or into a small sink
    beside a large one, can hold many float64 numbers; a small sink's is narrower in a call of its own. Integers are
    never rounded.
    """

    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    bottlenecks: NDArray[np.int32] | None = None
    cuts: Cuts | None = None
    flows: EdgeFlows | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Flows(n_sinks={self.values.shape[0]}, n_sources={self.values.shape[1]})"


def layered(
    capacities: Any,
    *,
    sources: Any = None,
    sinks: Any = -1,
    threads: int | None = None,
    algorithm: Algorithm = "auto",
    bottlenecks: bool = False,
    cuts: bool = False,
    flows: bool = False,
    check: bool = False,
    progress: Progress | None = None,
) -> Flows:
    """Maximum flow from every source position of the first block to each sink position of the last.

    Parameters
    ----------
    capacities : array (L, n, n), or a sequence of L matrices (n_l, n_(l-1))
        ``capacities[l][j, k]`` is the capacity of the edge from node k before layer l to node j after it. float16/32/64
        or integers, any strides, finite (or infinite: unbounded) and >= 0. float32, float64, int32 and int64 are read
        where they lie, without a copy. In a sequence also :class:`attnflow.TriangularMatrix`,
        :class:`attnflow.SparseMatrix` and matrices of scipy.sparse.
    sources : int, set of ints, or sequence of ints and sets of ints, optional
        Positions of the first block; a set (or any inner sequence) is one super source. Default: every position by
        itself.
    sinks : int, set of ints, or sequence of ints and sets of ints
        Positions of the last block, one row of the result each; a set is one super sink. Negative counts from the end.
    threads : int, optional
        Default: the processors this process may use. The answer does not depend on it.
    algorithm : "auto", "dinic" or "push_relabel"
        "auto" is "dinic" (with a flow along the columns first, where layers are square), which was faster on every
        instance measured.
    bottlenecks, cuts, flows : bool
        What else to return. `flows` needs one source and one sink.
    check : bool
        Verify every solve: 0 <= flow <= capacity, conservation, value == capacity of the cut.
    progress : callable, optional
        ``progress(done, total)``, pairs, about ten times a second. What it raises stops the solve.

    Returns
    -------
    Flows
        ``values`` of shape (n_sinks, n_sources): source-sink flows, F[t, i] of docs/definitions.md.

    Raises
    ------
    InvalidCapacityError
        No layers, wrong shapes or dtypes, NaN or negative entries (names the first), integers whose sums pass 2^61.
    InvalidArgumentError
        Sources or sinks out of range or empty, `threads` < 1, unknown algorithm.
    UnboundedFlowError
        A source reaches a sink through infinite capacities alone.
    CertificateError
        `check` failed: a bug.

    Notes
    -----
    Memory: beside the given capacities, 3 bits for each of n_l x n_(l-1) entries, stored or not, and, a thread, what
    one flow touches (some 40 bytes for about 10 edges a node). Time: O(n^2 m) a pair in the worst case; with a residual
    stream mostly O(L n), a few passes over the source's columns and the sink's rows.

    References
    ----------
    .. [1] Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, 2020.
    .. [2] Metzger et al., "Attention Flows for General Transformers", arXiv 2205.15389, 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import maxflow
    >>> layer = np.array([[0.7, 0.3], [0.4, 0.6]])
    >>> maxflow.layered([layer, layer], sinks=[0, 1]).values
    array([[1. , 0.6],
           [0.8, 0.9]])
    >>> maxflow.layered([layer, layer], sinks=0, bottlenecks=True).bottlenecks  # the sink is the limit; layer 0 is
    array([[-2,  0]], dtype=int32)
    """
    layers = _layers(capacities)
    top, size = len(layers), layers[0].capacities.shape[1]
    sizes = [size, *(layer.capacities.shape[0] for layer in layers)]
    givers = [[position] for position in range(size)] if sources is None else groups(sources, "sources", size, 0)
    receivers = groups(sinks, "sinks", sizes[top], top)
    return _solve(
        sizes,
        layers,
        [[(0, position) for position in group] for group in givers],
        [[(top, position) for position in group] for group in receivers],
        _options(threads, algorithm, progress, bottlenecks=bottlenecks, cuts=cuts, flows=flows, check=check),
    )


def blocks(
    sizes: Sequence[int],
    links: Iterable[Link],
    *,
    sources: Any,
    sinks: Any,
    threads: int | None = None,
    algorithm: Algorithm = "auto",
    bottlenecks: bool = False,
    cuts: bool = False,
    flows: bool = False,
    check: bool = False,
    progress: Progress | None = None,
) -> Flows:
    """Maximum flow between nodes of any graph of blocks.

    Parameters
    ----------
    sizes : sequence of int
        Nodes of each block.
    links : iterable of Link
        Any number between any two blocks; the graph of blocks may even have cycles.
    sources, sinks : sequence of nodes and of sequences of nodes
        A node is a pair (block, position); an inner sequence of nodes, or a set, is one super source or super sink.
    threads, algorithm, bottlenecks, cuts, flows, check, progress
        As for :func:`layered`.

    Returns
    -------
    Flows

    Raises
    ------
    InvalidCapacityError, InvalidArgumentError, UnboundedFlowError, CertificateError
        As for :func:`layered`; InvalidArgumentError also where a node is both source and sink.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow.maxflow import Link, blocks
    >>> narrow = Link(0, 1, np.array([[10, 6]]))  # two inputs with 10 and 6 ...
    >>> last = Link(1, 2, np.array([[10]]))       # ... share a bottleneck of 10
    >>> blocks([2, 1, 1], [narrow, last], sources=[(0, 0), (0, 1), [(0, 0), (0, 1)]], sinks=[(2, 0)]).values
    array([[10.,  6., 10.]])
    """
    sizes = [integer(size, f"sizes[{b}]", low=1) for b, size in enumerate(items(sizes, "sizes", "a sequence of ints"))]
    if not sizes:
        raise InvalidArgumentError("sizes is empty; a network needs at least one block")
    return _solve(
        sizes,
        _links(links, sizes),
        node_groups(sources, "sources", sizes),
        node_groups(sinks, "sinks", sizes),
        _options(threads, algorithm, progress, bottlenecks=bottlenecks, cuts=cuts, flows=flows, check=check),
    )


def _solve(
    sizes: list[int],
    edges: list[Edges],
    sources: list[list[Node]],
    sinks: list[list[Node]],
    options: dict[str, Any],
) -> Flows:
    first = [0, *accumulate(sizes)]
    givers, receivers = (
        [[first[block] + position for block, position in group] for group in joined] for joined in (sources, sinks)
    )
    raw = _kernel.solve(sizes, edges, givers, receivers, options)
    edge_flows = ("flow_link", "flow_receiver", "flow_giver", "flow")
    return Flows(
        values=raw["values"],
        lower=raw["lower"],
        upper=raw["upper"],
        bottlenecks=raw.get("bottlenecks"),
        cuts=Cuts(tuple(sizes), raw["source_sides"], raw["values"]) if options["cuts"] else None,
        flows=EdgeFlows(*(raw[name] for name in edge_flows)) if options["flows"] else None,
        stats=raw["stats"],
    )


def _options(threads: Any, algorithm: Any, progress: Any, **flags: Any) -> dict[str, Any]:
    """The kernel's options, checked."""
    if not isinstance(algorithm, str) or algorithm not in ("auto", "dinic", "push_relabel"):
        raise InvalidArgumentError(f"algorithm is {algorithm!r}; it must be 'auto', 'dinic' or 'push_relabel'")
    return {"algorithm": algorithm, **_kernel.checked(threads, progress, **flags)}


# --- capacities -------------------------------------------------------------------------------------------------------


def _layers(capacities: Any) -> list[Edges]:
    if isinstance(capacities, Sequence):
        matrices = [as_capacities(matrix, f"capacities[{layer}]") for layer, matrix in enumerate(capacities)]
    else:
        array = as_capacities(capacities, "capacities")
        if isinstance(array, Stored):
            raise InvalidCapacityError(
                f"capacities is one matrix, {array!r}; it must be (layers, n, n), or a sequence of matrices"
            )
        if array.ndim != 3 or array.shape[1] != array.shape[2]:
            raise InvalidCapacityError(
                f"capacities has shape {array.shape}; it must be (layers, n, n), or a sequence of matrices"
            )
        matrices = list(array)
    if not matrices:
        raise InvalidCapacityError("capacities has 0 layers; at least one is needed")
    for layer, matrix in enumerate(matrices):
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise InvalidCapacityError(
                f"capacities[{layer}] has shape {matrix.shape}; a layer must be a matrix (receivers, givers), not empty"
            )
        if layer > 0 and matrix.shape[1] != matrices[layer - 1].shape[0]:
            raise InvalidCapacityError(
                f"capacities[{layer}] has shape {matrix.shape}, but layer {layer - 1} ends in "
                f"{matrices[layer - 1].shape[0]} nodes: it must have as many columns"
            )
    return [Edges(f"capacities[{layer}]", layer, layer + 1, matrix) for layer, matrix in enumerate(matrices)]


def _links(links: Any, sizes: list[int]) -> list[Edges]:
    edges = []
    for e, link in enumerate(items(links, "links", "a sequence of maxflow.Link")):
        if not isinstance(link, Link):
            raise InvalidArgumentError(f"links[{e}] is a {type(link).__name__}; it must be a maxflow.Link")
        giver = integer(link.giver, f"the block links[{e}].giver", low=0, high=len(sizes) - 1)
        receiver = integer(link.receiver, f"the block links[{e}].receiver", low=0, high=len(sizes) - 1)
        offset = integer(link.offset, f"links[{e}].offset", low=-_LONGEST_BLOCK, high=_LONGEST_BLOCK)
        name = f"links[{e}].capacities"
        array = as_capacities(link.capacities, name)
        if offset and array.ndim != 1:
            raise InvalidArgumentError(f"links[{e}].offset is {offset}, but only a diagonal (1-d) may have one")
        if giver == receiver and array.ndim != 1:
            raise InvalidArgumentError(f"links[{e}] joins block {giver} to itself; it must join two blocks")
        n_receiver, n_giver = sizes[receiver], sizes[giver]
        if array.shape not in ((n_receiver, n_giver), (n_giver,)):
            raise InvalidCapacityError(
                f"{name} has shape {array.shape}, but from block {giver} ({n_giver} nodes) to block {receiver} "
                f"({n_receiver} nodes) it must be ({n_receiver}, {n_giver}), or ({n_giver},) for a diagonal"
            )
        edges.append(Edges(name, giver, receiver, array, offset))
    return edges
