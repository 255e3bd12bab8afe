"""From contribution matrices to flow networks: head reduction, residual mixing, calibration, and the shapes of models.

Contributions may be numpy arrays, torch tensors on any device or arrays of other libraries, which become one of these;
:mod:`attnflow.matrices` computes with them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from . import _encoder_decoder, _links, matrices
from ._links import AnyLink
from ._positions import distinct, integer, items
from ._queries import Queries
from .errors import InvalidArgumentError, InvalidCapacityError
from .matrices import Heads
from .maxflow import Link
from .storage import SparseMatrix, TriangularMatrix, thresholds

__all__ = ["Network"]


@dataclass(frozen=True, eq=False)
class Network(Queries):
    """A flow network: blocks of nodes joined by links, from the inputs in block 0 to the outputs in the last block.

    Made by :meth:`encoder`, :meth:`decoder`, :meth:`encoder_decoder` or :meth:`from_blocks`. Links hold views of the
    caller's arrays where nothing had to be computed: do not change those while the network is in use.

    Attributes
    ----------
    sizes : tuple of int
        Number of nodes of each block.
    links : tuple of maxflow.Link
        Edges between two blocks each. Where :meth:`encoder` or :meth:`decoder` made the network, link l is layer l.
    inputs : tuple of int
        The blocks that hold inputs, in order: block 0 alone, or one a stack. Sources count through their positions one
        block after the other.

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
    inputs: tuple[int, ...] = (0,)

    @classmethod
    def encoder(
        cls,
        contributions: Any,
        *,
        residual: float = 0.5,
        heads: Heads = "mean",
        calibration: Literal["excess"] | None = None,
        visible: Sequence[Any] | None = None,
        batch: int | None = None,
        keep: int | None = None,
        below: float | None = None,
    ) -> Network:
        """The layered network of a model in which every position sees every other.

        Parameters
        ----------
        contributions : array (L, n, n), (L, H, n, n) or (L, B, H, n, n), or an iterable of arrays of one layer each
            Row = receiver, column = giver, the orientation of Hugging Face attentions. numpy arrays, torch tensors on
            any device, lists of numbers, or what has ``__array__`` or ``__dlpack__`` (JAX, CuPy, TensorFlow, h5py);
            real, finite and non-negative, floating or integer. Rows need not sum to 1. Never modified. An iterable's
            layers are drawn one at a time, and each is stored before the next one is. Among them may be a
            :class:`attnflow.TriangularMatrix`, a :class:`attnflow.SparseMatrix` that dropped nothing or a matrix of
            scipy.sparse: it is made whole first.
        residual : float
            r in C = (1 - r) A + r I. 0.5 is the published method [1]_. Use 0 for contributions that already hold the
            residual.
        heads : "mean", "max", "min", int, or weights
            How (H, n, n) becomes (n, n): a reduction, one head, or the sum with one non-negative weight a head.
        calibration : None or "excess"
            None is the published method. "excess" keeps what each edge carries beyond an even spread of its row:
            max(C - N, 0), N being the row's sum divided by the number of positions the row can see (Notes).
        visible : sequence of L entries, None or int array (n,), optional
            How many positions each position of a layer can see, itself included, where sliding windows or masks make
            that fewer than the default of Notes. Only calibration reads it.
        batch : int, optional
            The text to take of layers (B, H, n, n), negative ones counting from the end. None where B is 1, or no axis.
        keep, below : int, float, optional
            Where either is given, layers are stored sparsely, after everything else: the `keep` largest capacities of
            each row, those of at least `below`, always the straight ones. ``Flows.upper`` bounds what was dropped. See
            :meth:`attnflow.SparseMatrix.from_dense`.

        Returns
        -------
        Network
            Capacities float32, or float64 where the contributions are. Integers stay integers where nothing has to be
            computed, and become float64 otherwise.

        Raises
        ------
        InvalidCapacityError
            No layers, empty or non-square matrices, layers of different sizes, several texts of which none is chosen, a
            dtype that is not real, NaN, infinite or negative entries (with the place of the first).
        InvalidArgumentError
            `residual` outside 0..1, unknown `heads` or `calibration`, counts in `visible` that cannot be, `batch` out
            of range or of layers that have no such axis, `keep` or `below` negative.

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
        store = _store("dense", keep, below)
        return cls._layered(
            map(
                store,
                matrices.capacities(contributions, residual, heads, calibration, visible, causal=False, batch=batch),
            )
        )

    @classmethod
    def decoder(
        cls,
        contributions: Any,
        *,
        residual: float = 0.5,
        heads: Heads = "mean",
        calibration: Literal["excess"] | None = None,
        visible: Sequence[Any] | None = None,
        batch: int | None = None,
        storage: Literal["dense", "triangle"] = "dense",
        keep: int | None = None,
        below: float | None = None,
    ) -> Network:
        """The layered network of a causal model, in which position j sees positions 0..j.

        Parameters
        ----------
        contributions, residual, heads, calibration, visible, batch, keep, below
            As for :meth:`encoder`; nothing may lie above the diagonal.
        storage : "dense" or "triangle"
            How layers are stored where neither `keep` nor `below` is given: whole, without a copy where nothing had to
            be computed; or as an :class:`attnflow.TriangularMatrix`, half of that. The flows are the same.

        Returns
        -------
        Network

        Raises
        ------
        InvalidCapacityError
            As for :meth:`encoder`, and where a position draws from a later one (with the place of the first).
        InvalidArgumentError
            As for :meth:`encoder`; an unknown `storage`, or "triangle" beside `keep` or `below`.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> uniform = np.tri(3) / np.arange(1, 4)[:, None]
        >>> attnflow.Network.decoder([uniform], residual=0.0).source_flows().values.round(3)
        array([[0.333, 0.333, 0.333]])
        >>> attnflow.Network.decoder([uniform], residual=0.0, calibration="excess").source_flows().values
        array([[0., 0., 0.]])

        Five layers of which one lives at a time, half of each stored:

        >>> layers = (uniform for _ in range(5))
        >>> attnflow.Network.decoder(layers, storage="triangle").nbytes == 5 * (3 + 2 + 1) * uniform.itemsize
        True
        """
        store = _store(storage, keep, below)
        return cls._layered(
            map(
                store,
                matrices.capacities(contributions, residual, heads, calibration, visible, causal=True, batch=batch),
            )
        )

    @classmethod
    def encoder_decoder(
        cls,
        encoder: Any,
        decoder: Any,
        cross: Any,
        *,
        residual: float = 0.5,
        heads: Heads = "mean",
        calibration: Literal["excess"] | None = None,
        visible: Mapping[str, Any] | Sequence[Any] | None = None,
        kept: Sequence[Any] | None = None,
        batch: int | None = None,
        merge: Literal["sublayers", "single"] = "sublayers",
        keep: int | None = None,
        below: float | None = None,
    ) -> Network:
        """The network of a model of two stacks: an encoder, and a causal decoder that attends to its last layer.

        Parameters
        ----------
        encoder, decoder : as `contributions` of :meth:`encoder`
            Self-attention of L encoder layers over n positions and of M decoder layers over m. Nothing of the decoder's
            may lie above the diagonal.
        cross : the same, but (m, n) where those have (n, n)
            Attention of each decoder layer's m positions to the encoder's n. Drawn in turn with the decoder's layers.
        residual, heads, batch, keep, below
            As for :meth:`encoder`, for all three. Diagonals are never sparse.
        calibration : None or "excess"
            As for :meth:`encoder`, N being the sum of all that a position draws on, divided by the number of positions
            that it can draw on (Notes).
        visible : mapping of "encoder", "decoder", "cross", or those three in that order, optional
            As for :meth:`encoder`, each; of "cross", how many encoder positions each decoder position sees.
        kept : sequence of M arrays (m,), optional
            For contributions that hold the residual, with ``residual=0``: what each decoder position keeps of itself in
            that layer's cross-attention, beside its row of `cross`.
        merge : "sublayers" or "single"
            Whether a decoder layer is two blocks, or one that both attentions feed (Notes).

        Returns
        -------
        Network
            ``inputs`` are block 0 and block L + 1: sources 0 ... n - 1 are the encoder's positions, those from n on the
            decoder's. Links are the encoder's layers, then of each decoder layer self-attention, cross-attention and,
            where there is one, the diagonal.

        Raises
        ------
        InvalidCapacityError
            As for :meth:`encoder` and :meth:`decoder`; matrices of `cross` that are not (m, n), or fewer or more of
            them than decoder layers; entries of `kept` that are not (m,), finite and non-negative.
        InvalidArgumentError
            As for :meth:`encoder`; an unknown `merge`, `kept` beside a residual or "single", or not one entry a layer.

        Notes
        -----
        "sublayers": C = (1 - r) A + r I from D(l - 1) to a block between; then (1 - r) A from the encoder's last block
        to D(l), and from the block between a diagonal of r, or `kept`. With neither, cross-attention alone feeds D(l).
        A row's null model there has n givers, and the position itself where there is a diagonal.

        "single": r I + (1 - r)/2 A from D(l - 1) and (1 - r)/2 A from the encoder's last block, straight to D(l). The
        null model of the two parts is one: n givers, and the j + 1 that position j of the decoder sees.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> encoder, decoder, cross = np.full((2, 3, 3), 1 / 3), np.eye(2)[None], np.array([[[0.5, 0.5, 0], [0, 0, 1]]])
        >>> network = attnflow.Network.encoder_decoder(encoder, decoder, cross)
        >>> network
        Network(sizes=(3, 3, 3, 2, 2, 2), n_layers=4, n_edges=25, inputs=(0, 3))
        >>> network.source_flows([0, 1]).values.round(3)
        array([[0.5, 0.5, 0.5, 0.5, 0. ],
               [0.5, 0.5, 0.5, 0. , 0.5]])
        """
        store = _store("dense", keep, below)
        options = _encoder_decoder.checked(residual, heads, calibration, visible, kept, merge, batch)
        return cls(*_encoder_decoder.wired(encoder, decoder, cross, options, store))

    @classmethod
    def from_blocks(cls, sizes: Sequence[int], links: Iterable[AnyLink], *, inputs: Sequence[int] = (0,)) -> Network:
        """Any network of blocks: several stacks, skip connections, generated tokens that are read again.

        Parameters
        ----------
        sizes : sequence of int
            Number of nodes of each block; the last one holds the outputs.
        links : iterable of maxflow.Link, (giver, receiver, capacities) or (giver, receiver, diagonal, offset)
            ``capacities[j, k]`` is the capacity from node k of the giver to node j of the receiver. A vector over the
            giver's nodes is a diagonal: node k to node k + offset (0 where not given). ``inf`` is unbounded. Several
            links may join the same two blocks. numpy arrays, torch tensors, :class:`attnflow.TriangularMatrix`,
            :class:`attnflow.SparseMatrix`, or matrices of scipy.sparse.
        inputs : sequence of int
            The blocks that hold inputs, in the order in which sources count through them.

        Returns
        -------
        Network

        Raises
        ------
        InvalidArgumentError
            Fewer than two blocks, an empty block, a link from a block to itself or to no block; no block of inputs, a
            repeated one, one that does not exist or the last one.
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
        counts = items(sizes, "sizes", "a sequence of ints")
        blocks = tuple(integer(size, f"sizes[{block}]") for block, size in enumerate(counts))
        return cls(blocks, tuple(_links.read(links)), tuple(items(inputs, "inputs", "a sequence of blocks")))

    def __post_init__(self) -> None:
        links = [_links.readable(link, f"link {index}") for index, link in enumerate(self.links)]
        object.__setattr__(self, "links", tuple(links))
        if len(self.sizes) < 2:
            raise InvalidArgumentError(f"sizes={self.sizes}: a network needs two blocks at least, inputs and outputs")
        for block, size in enumerate(self.sizes):
            if size < 1:
                raise InvalidArgumentError(f"block {block} has {size} nodes: at least 1 is needed (sizes={self.sizes})")
        object.__setattr__(self, "inputs", _links.input_blocks(self.inputs, self.sizes))
        if not self.links:
            raise InvalidCapacityError(f"a network of blocks {self.sizes} without any link: at least one is needed")
        _links.check(self.links, self.sizes)

    def chained(self, generated: Iterable[int]) -> Network:
        """The network in which generated tokens are read again: what flowed into one counts for what it came from.

        A further link feeds position g of the last block of inputs from position g - 1 of the last block, which
        predicted it, without limit, for each g in `generated`. Meant for causal models, whose nodes stay acyclic.

        Parameters
        ----------
        generated : iterable of int
            Positions of the last block of inputs (of an encoder-decoder, the decoder's), negative ones counting from
            the end. Not 0, which nothing comes before.

        Returns
        -------
        Network
            One link more. A generated token may still be a source, as if it had not been generated: what enters a
            source does not count.

        Raises
        ------
        InvalidArgumentError
            No position, a repeated one, one out of range, position 0; a last block of another size than the inputs, as
            that of a pooled network (pool afterwards).

        Examples
        --------
        Position 1 draws on position 0 alone, which only counts for position 2 if token 2 is what position 1 predicted:

        >>> import numpy as np
        >>> import attnflow
        >>> layer = np.array([[1.0, 0, 0], [0.25, 0.75, 0], [0, 0, 1]])
        >>> network = attnflow.Network.decoder([layer], residual=0.0)
        >>> network.source_flows().values, network.chained([2]).source_flows().values
        (array([[0., 0., 1.]]), array([[0.25, 0.75, 1.  ]]))
        """
        first, last = self.inputs[-1], len(self.sizes) - 1
        size, top = self.sizes[first], self.sizes[last]
        if size != top:
            raise InvalidArgumentError(
                f"block {last} has {top} nodes, the inputs of block {first} have {size}: a chain leads from each"
                " position of the one to the next position of the other"
            )
        chosen = distinct(generated, "generated", size, f"block {first}")
        if 0 in chosen:
            raise InvalidArgumentError(
                f"generated[{chosen.index(0)}] is position 0 of block {first}: no position comes before to predict it"
            )
        again = np.zeros(size, dtype=np.float32)
        again[np.array(chosen) - 1] = np.inf
        again.flags.writeable = False
        return replace(self, links=(*self.links, Link(last, first, again, 1)))

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
        size, last = self.sizes[-1], len(self.sizes) - 1
        everyone = range(size) if positions is None else positions
        chosen = distinct(everyone, "positions", size, f"block {last}")
        dtype = np.result_type(np.float32, *(link.capacities.dtype for link in self.links))
        weights = np.zeros((1, size), dtype=dtype)
        weights[0, chosen] = 1 / len(chosen)
        weights.flags.writeable = False
        return Network((*self.sizes, 1), (*self.links, Link(last, last + 1, weights)), self.inputs)

    def sparsified(self, *, keep: int | None = None, below: float | None = None) -> Network:
        """The network of its larger edges, with certified intervals for the flows of all. Diagonals stay as they are.

        Parameters
        ----------
        keep, below : int, float, optional
            As for :meth:`attnflow.SparseMatrix.from_dense`, link by link.

        Returns
        -------
        Network

        Raises
        ------
        InvalidArgumentError
            `keep` or `below` negative, or no number.

        Examples
        --------
        >>> import attnflow
        >>> network = attnflow.Network.decoder(attnflow.instances.peaked(4, 50, seed=0, residual=0))
        >>> thin = network.sparsified(keep=5)
        >>> flows, bounds = network.source_flows(), thin.source_flows()
        >>> bool((bounds.lower <= flows.values).all() and (flows.values <= bounds.upper).all())
        True
        >>> thin.n_edges < network.n_edges / 4
        True
        """
        keep, below = thresholds(keep, below)
        links = [
            link
            if link.capacities.ndim == 1
            else replace(link, capacities=SparseMatrix.from_dense(link.capacities, keep=keep, below=below))
            for link in self.links
        ]
        return replace(self, links=tuple(links))

    @property
    def n_positions(self) -> int:
        """Number of input positions: the nodes of all blocks that hold inputs."""
        return sum(self.sizes[block] for block in self.inputs)

    @property
    def n_layers(self) -> int:
        """Number of blocks after the inputs: the layers or sublayers of all stacks, and one for a pooling on top."""
        return len(self.sizes) - len(self.inputs)

    @property
    def n_nodes(self) -> int:
        """Number of nodes in all blocks."""
        return sum(self.sizes)

    @cached_property
    def n_edges(self) -> int:
        """Number of edges of positive capacity, dropped ones aside, counted in one pass on first use."""
        return sum(_links.n_edges(link, self.sizes[link.receiver]) for link in self.links)

    @property
    def nbytes(self) -> int:
        """Bytes of capacities as they are stored, views of the caller's arrays included."""
        return sum(link.capacities.nbytes for link in self.links)

    def __repr__(self) -> str:
        sizes = str(self.sizes) if len(self.sizes) <= 8 else f"({self.sizes[0]}, ..., {self.sizes[-1]})"
        inputs = "" if self.inputs == (0,) else f", inputs={self.inputs}"
        return f"Network(sizes={sizes}, n_layers={self.n_layers}, n_edges={self.n_edges}{inputs})"

    @classmethod
    def _layered(cls, layers: Iterable[Any]) -> Network:
        links = tuple(Link(index, index + 1, layer) for index, layer in enumerate(list(layers)))
        return cls((links[0].capacities.shape[0],) * (len(links) + 1), links)


def _store(storage: str, keep: int | None, below: float | None) -> Callable[[Any], Any]:
    """How a layer's capacities are kept."""
    if not isinstance(storage, str) or storage not in ("dense", "triangle"):
        raise InvalidArgumentError(f'storage={storage!r} is unknown: choose "dense" or "triangle"')
    keep, below = thresholds(keep, below)
    if keep is None and below is None:
        return TriangularMatrix.from_dense if storage == "triangle" else lambda layer: layer
    if storage == "triangle":
        raise InvalidArgumentError(f'storage="triangle" keeps every edge, but keep={keep!r}, below={below!r} drop some')
    return lambda layer: SparseMatrix.from_dense(layer, keep=keep, below=below)
