"""What is compared: trained models' attention, made-up networks of every awkward kind, an encoder-decoder model.

Attention that was made up is an easy case, and random softmax attention the easiest. So most cases are what
SmolLM2-135M (30 layers, causal) and MiniLM (6 layers, every position sees every other) do with the text in
``text.txt``: head mean, residual 0.5, as it is ("plain") and calibrated ("excess"), or without a residual ("raw"). The
made-up ones are there for what a text never is: near-uniform, in pieces, of eight positions, of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import instances, maxflow
from .._positions import integer, items
from ..errors import InvalidArgumentError, InvalidCapacityError
from ..maxflow import Algorithm, Flows, Link
from .peers import Graph
from .trained import Model, attention, missing

__all__ = ["CASES", "Case", "Instance", "excess", "instance", "load", "select"]

Calibration = Literal["plain", "excess"]
Floats = NDArray[np.float32]
Stack = tuple[tuple[int, ...], list[Link]]

SEED = 1


class Case(NamedTuple):
    """A network by its name; it is only built by :func:`load`."""

    name: str
    """Short, unique and readable."""
    build: Callable[[], Stack]
    """Sizes of the blocks, and the links between them: the inputs are block 0, the sink lies in the last."""
    sink: int
    """Position in the last block."""
    n: int
    """Positions of the longest block."""
    model: Model | None = None
    """Whose attention it is; None for made-up networks, which need nothing installed."""

    @property
    def missing(self) -> str | None:
        """The commands that install what this case needs and this machine lacks; None if it can run."""
        return None if self.model is None else missing(self.model, self.n)


class Instance(NamedTuple):
    """A network that attnflow reads as float32 and the peers as integers, and that is the very same for both."""

    name: str
    sizes: tuple[int, ...]
    links: tuple[Link, ...]
    """float32; multiplied by ``2**exponent`` all capacities are integers."""
    sink: int
    """Position in the last block."""
    exponent: int
    is_layered: bool
    """Whether matrices lead from each block to the next, and that is all: then the call is `maxflow.layered`."""

    def solve(self, *, threads: int = 1, algorithm: Algorithm = "auto") -> Flows:
        """Maximum flow from every node of block 0 to the sink, in one call of attnflow."""
        if self.is_layered:
            layers = [link.capacities for link in self.links]
            return maxflow.layered(layers, sinks=[self.sink], threads=threads, algorithm=algorithm)
        return maxflow.blocks(
            self.sizes,
            self.links,
            sources=[(0, position) for position in range(self.sizes[0])],
            sinks=[(len(self.sizes) - 1, self.sink)],
            threads=threads,
            algorithm=algorithm,
        )

    def graph(self) -> Graph:
        """The edges that carry anything, as the peers get them; node 0 is the first of block 0."""
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        tails, heads, capacities = [], [], []
        for link in self.links:
            receiver, giver, values = _edges(link, self.sizes)
            tails.append(first[link.giver] + giver)
            heads.append(first[link.receiver] + receiver)
            capacities.append(np.ldexp(values.astype(np.float64), self.exponent).astype(np.int64))
        return Graph(
            int(first[-1]),
            np.concatenate(tails).astype(np.int32),
            np.concatenate(heads).astype(np.int32),
            np.concatenate(capacities),
        )

    @property
    def sink_node(self) -> int:
        """The sink's number in :meth:`graph`; sources are numbered as they stand in block 0."""
        return sum(self.sizes[:-1]) + self.sink

    @property
    def n_edges(self) -> int:
        """Edges that carry anything."""
        return sum(int(np.count_nonzero(link.capacities)) for link in self.links)

    @property
    def n_bytes(self) -> int:
        """Bytes of the float32 capacities."""
        return sum(link.capacities.nbytes for link in self.links)


def select(only: str = "", *, quick: bool = False) -> list[Case]:
    """The cases whose name contains a text.

    Parameters
    ----------
    only : str
        Part of a name; "" is in all of them.
    quick : bool
        Only those that even the slowest library is done with in seconds.

    Raises
    ------
    InvalidArgumentError
        There is none, or `only` is no text.

    Examples
    --------
    >>> from attnflow import bench
    >>> [case.name for case in bench.select("one layer n=8")]
    ['one layer n=8']
    """
    if not isinstance(only, str):
        raise InvalidArgumentError(f"only is {only!r}; it must be part of a name, a text")
    chosen = [case for case in CASES if only in case.name and (not quick or case in _QUICK)]
    if not chosen:
        kind = "quick case" if quick else "case"
        raise InvalidArgumentError(f"only={only!r}: no {kind} has that in its name")
    return chosen


def load(case: Case) -> Instance:
    """Build the network of a case.

    Raises
    ------
    MissingDependencyError
        It is one of a trained model that is neither installed nor in the cache.

    Examples
    --------
    >>> from attnflow import bench
    >>> (case,) = bench.select("peaked n=8")
    >>> network = bench.load(case)
    >>> network.sizes, network.n_edges, network.solve().values.shape
    ((8, 8, 8, 8, 8), 144, (1, 8))
    """
    sizes, links = case.build()
    return instance(case.name, sizes, links, case.sink)


def instance(name: str, sizes: Sequence[int], links: Iterable[Link], sink: int) -> Instance:
    """A network on the integers that every peer is exact on: ``floor(capacities * 2**exponent)``.

    The narrowest peer computes in 32 bits, so the exponent is the largest one at which neither any capacity nor what
    can arrive at any node reaches 2**31. What is left of 24-bit float32 capacities is float32 again without rounding,
    so attnflow gets the very same network.

    Parameters
    ----------
    name : str
    sizes : sequence of int
        Nodes of each block.
    links : iterable of Link
        float32 and finite, at most one between two blocks: peers differ in what they take parallel edges for.
    sink : int
        Position in the last block.

    Raises
    ------
    InvalidArgumentError
        Two links join the same two blocks, a link or the sink is in none, an offset of what is no diagonal.
    InvalidCapacityError
        Capacities that are no float32 array of the shape that `sizes` asks for, or NaN, infinite or negative.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import bench
    >>> link = bench.Link(0, 1, np.array([[0.3, 0.7]], dtype=np.float32))
    >>> network = bench.instance("two inputs", [2, 1], [link], sink=0)
    >>> network.graph().capacities.tolist(), network.exponent
    ([322122560, 751619264], 30)
    """
    sizes = tuple(
        integer(size, f"{name}: sizes[{block}]", low=1)
        for block, size in enumerate(items(sizes, f"{name}: sizes", "a sequence of ints"))
    )
    if len(sizes) < 2:
        raise InvalidArgumentError(f"{name}: sizes is {sizes}; a network needs two blocks at least")
    links = tuple(items(links, f"{name}: links", "a sequence of links"))
    for index, link in enumerate(links):
        _check(link, sizes, f"{name}: links[{index}]")
    sink = integer(sink, f"{name}: sink", low=0, high=sizes[-1] - 1)
    pairs = [(link.giver, link.receiver) for link in links]
    if len(set(pairs)) < len(pairs):
        raise InvalidArgumentError(f"{name}: two of the links join the same two blocks; there must be one")
    arriving = [np.zeros(size) for size in sizes]
    for link in links:
        receiver, _, values = _edges(link, sizes)
        arriving[link.receiver] += np.bincount(receiver, values, minlength=sizes[link.receiver])
    largest = max(float(block.max()) for block in arriving)
    exponent = 30 - int(np.floor(np.log2(largest or 1.0)))
    exponent -= largest * 2.0**exponent >= 2**31 - 1
    return Instance(
        name,
        sizes,
        tuple(replace(link, capacities=_floored(link.capacities, exponent)) for link in links),
        sink,
        exponent,
        is_layered=all(link.capacities.ndim == 2 for link in links) and pairs == list(pairwise(range(len(sizes)))),
    )


def excess(matrix: Floats, *, causal: bool = False) -> Floats:
    """What a layer passes on beyond an even spread of its row sums over the positions that each position sees."""
    visible = np.tri(len(matrix), dtype=np.float32) if causal else np.ones_like(matrix)
    even = matrix.sum(axis=1, keepdims=True) * (visible / visible.sum(axis=1, keepdims=True))
    calibrated: Floats = np.maximum(matrix - even, 0, dtype=np.float32)
    return calibrated


def _check(link: Any, sizes: Sequence[int], name: str) -> None:
    """Raise where a link is not what :func:`instance` asks for."""
    if not isinstance(link, Link):
        raise InvalidArgumentError(f"{name} is a {type(link).__name__}; it must be a maxflow.Link")
    giver, receiver = (
        integer(block, f"the block {name}.{end}", low=0, high=len(sizes) - 1)
        for end, block in (("giver", link.giver), ("receiver", link.receiver))
    )
    if giver == receiver:
        raise InvalidArgumentError(f"{name} joins block {giver} to itself; it must join two blocks")
    given = link.capacities
    if not isinstance(given, np.ndarray) or given.dtype != np.float32:
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
        raise InvalidCapacityError(f"{name}.capacities is {kind}; an array of float32 is what everybody reads exactly")
    shapes = (sizes[receiver], sizes[giver]), (sizes[giver],)
    if given.shape not in shapes:
        raise InvalidCapacityError(f"{name}.capacities has shape {given.shape}; it must be {shapes[0]} or {shapes[1]}")
    if integer(link.offset, f"{name}.offset") and given.ndim == 2:
        raise InvalidArgumentError(f"{name}.offset is {link.offset}, but only a diagonal (1-d) may have one")
    refused = ~((given >= 0) & (given < np.inf))
    if refused.any():
        place = tuple(int(i) for i in np.argwhere(refused)[0])
        raise InvalidCapacityError(
            f"{name}.capacities{list(place)} is {given[place]}; the entries must be finite and >= 0, its shape is"
            f" {given.shape}"
        )


def _edges(link: Link, sizes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Receivers, givers and capacities of the edges that carry anything."""
    if link.capacities.ndim == 2:
        receiver, giver = np.nonzero(link.capacities)
        return receiver, giver, link.capacities[receiver, giver]
    (giver,) = np.nonzero(link.capacities)
    receiver = giver + link.offset
    giver = giver[(receiver >= 0) & (receiver < sizes[link.receiver])]
    return giver + link.offset, giver, link.capacities[giver]


def _floored(capacities: Floats, exponent: int) -> Floats:
    integers = np.floor(np.ldexp(capacities.astype(np.float64), exponent))
    return np.ldexp(integers, -exponent).astype(np.float32)


# --- the networks ---------------------------------------------------------------------------------------------------


def _stack(layers: Iterable[Floats]) -> Stack:
    links = [Link(index, index + 1, layer) for index, layer in enumerate(layers)]
    return (links[0].capacities.shape[1], *(len(link.capacities) for link in links)), links


def _trained(model: Model, n: int, calibration: Calibration, residual: float) -> Stack:
    layers = (1 - residual) * attention(model, n) + residual * np.eye(n, dtype=np.float32)
    return _stack(excess(layer, causal=model == "SmolLM2") if calibration == "excess" else layer for layer in layers)


def _pooled(model: Model, n: int, calibration: Calibration) -> Stack:
    """A sink that every position of the top feeds alike, which is how sentences are embedded."""
    sizes, links = _trained(model, n, calibration, 0.5)
    pool = np.full((1, n), 1 / n, dtype=np.float32)
    return (*sizes, 1), [*links, Link(len(links), len(links) + 1, pool)]


def _made_up(generate: Callable[..., Floats], *arguments: Any, **options: Any) -> Stack:
    return _stack(generate(*arguments, seed=SEED, **options))


def _encoder_decoder(n_layers: int, n: int, calibration: Calibration) -> Stack:
    """`n_layers` and `n` in either half. Only attention is calibrated, the residual diagonals stay as they are."""
    network = instances.encoder_decoder(n_layers, n, n_layers, n, seed=SEED)
    links = [Link(*link) for link in network.links]
    if calibration == "excess":
        links = [
            # The decoder's self-attention is what looks back only.
            Link(link.giver, link.receiver, excess(link.capacities, causal=not np.triu(link.capacities, 1).any()))
            if link.capacities.ndim == 2
            else link
            for link in links
        ]
    return network.sizes, links


def _cases() -> list[Case]:
    cases = []
    lengths: dict[Model, tuple[int, ...]] = {"SmolLM2": (128, 512, 1024), "MiniLM": (128, 256, 512)}
    kinds: tuple[Calibration, ...] = ("plain", "excess")
    for model, several in lengths.items():
        for n in several:
            for kind in kinds:
                # The last position predicts the next token; an encoder's class token is the first, and a position in
                # the middle of the text is the other kind of sink there is.
                for sink in (n - 1,) if model == "SmolLM2" else (0, n // 2):
                    name = f"{model} n={n} {kind} sink={sink}"
                    cases.append(Case(name, partial(_trained, model, n, kind, 0.5), sink, n, model))
    cases += [
        Case(f"MiniLM n=512 {kind} pooled", partial(_pooled, "MiniLM", 512, kind), 0, 512, "MiniLM") for kind in kinds
    ]
    # Attention as it is, no residual stream to lean on.
    raw = partial(_trained, "SmolLM2", 512, "plain", 0.0)
    cases.append(Case("SmolLM2 n=512 raw sink=511", raw, 511, 512, "SmolLM2"))
    for n, n_layers in ((8, 4), (64, 6), (256, 6)):
        texts = [n // 8, n // 4, n - n // 8 - n // 4]
        cases += [
            Case(f"near-uniform n={n}", partial(_made_up, instances.near_uniform, n_layers, n), n - 1, n),
            Case(f"peaked n={n}", partial(_made_up, instances.peaked, n_layers, n), n - 1, n),
            Case(f"packed n={n}", partial(_made_up, instances.packed, n_layers, texts), n - 1, n),
            # A position of the half that never sees the other one.
            Case(f"disconnected n={n}", partial(_made_up, instances.disconnected, n_layers, n), 1, n),
            Case(f"one layer n={n}", partial(_made_up, instances.softmax, 1, n), n - 1, n),
        ]
    # The hardest of its kind: twenty times the work of what the next seed, or twice the layers, makes.
    hard = partial(_made_up, instances.peaked, 12, 256)
    cases.append(Case("peaked L=12 n=256", hard, 255, 256))
    for n_layers, n in ((2, 16), (12, 256)):
        for kind in kinds:
            name = f"encoder-decoder {n_layers}+{n_layers} n={n} {kind}"
            cases.append(Case(name, partial(_encoder_decoder, n_layers, n, kind), n - 1, n))
    return cases


CASES = tuple(_cases())
"""Every network that is compared."""

_QUICK = {case for case in CASES if (case.model is None and case.n <= 64) or case.name == "MiniLM n=128 plain sink=0"}
