"""Seeded networks, small and large, shared by the tests, the benchmarks and the documentation.

Every function takes a ``seed`` and returns the same arrays for the same seed. Two shapes come out:

- capacities ``(L, n, n)``, or a list of ``(n_l, n_(l-1))`` matrices: ``[l][j, k]`` is the capacity from node k before
  layer l to node j after it, as :func:`attnflow.maxflow.layered` takes them;
- :class:`Blocks`, whose links ``(giver, receiver, capacities)`` or ``(giver, receiver, diagonal, offset)`` are those of
  ``attnflow.Network.from_blocks``.

Random softmax attention without a mask is the easy case: a benchmark of that alone measures nothing. ``peaked``, which
has the attention sinks, the locality and the causal mask of trained language models, is the one closest to real use.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Blocks",
    "acyclic_dense",
    "disconnected",
    "encoder_decoder",
    "genrmf",
    "integers",
    "near_uniform",
    "packed",
    "peaked",
    "random_blocks",
    "softmax",
    "washington",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Node = tuple[int, int]


class Blocks(NamedTuple):
    """A network of blocks with one source and one sink to start from."""

    sizes: tuple[int, ...]
    """Number of nodes of each block."""
    links: list[tuple[Any, ...]]
    """``(giver, receiver, (n_receiver, n_giver) array)`` or ``(giver, receiver, (n,) diagonal, offset)``."""
    source: Node
    """(block, position)."""
    sink: Node
    """(block, position)."""


def softmax(
    n_layers: int, n: int, *, seed: int, residual: float = 0.5, sharpness: float = 2.0, causal: bool = False
) -> Floats:
    """Softmax of Gaussian scores, the residual mixed in: an encoder, or a decoder without structure.

    Parameters
    ----------
    n_layers, n : int
        Layers and positions, each at least 1.
    seed : int
    residual : float
        r in (1 - r) A + r I; 0 gives raw attention.
    sharpness : float
        Standard deviation of the scores: 0 is uniform attention, 5 nearly one-hot.
    causal : bool
        Whether position j sees positions up to j only.

    Returns
    -------
    ndarray (n_layers, n, n), float32, rows summing to 1

    Examples
    --------
    >>> from attnflow import instances
    >>> capacities = instances.softmax(2, 3, seed=0)
    >>> capacities.shape, capacities.sum(axis=2).round(6).tolist()
    ((2, 3, 3), [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    _at_least(1, n_layers=n_layers, n=n)
    random = np.random.default_rng(seed)
    scores = random.standard_normal((n_layers, n, n), dtype=np.float32) * np.float32(sharpness)
    return _mix(_softmax(scores, causal), residual)


def peaked(n_layers: int, n: int, *, seed: int, residual: float = 0.5) -> Floats:
    """Causal attention as trained language models have it: a sink at the first position, locality, a few far peaks.

    Each row of a layer gives a share, drawn by layer and row, to position 0; the rest is a softmax whose scores fall
    with distance at a rate drawn by layer, plus Gaussian noise.

    Parameters
    ----------
    n_layers, n, seed, residual
        As for :func:`softmax`.

    Returns
    -------
    ndarray (n_layers, n, n), float32, zero above the diagonal, rows summing to 1

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import instances
    >>> bool(np.triu(instances.peaked(1, 5, seed=0)[0], 1).any())
    False
    """
    _at_least(1, n_layers=n_layers, n=n)
    random = np.random.default_rng(seed)
    attention = np.empty((n_layers, n, n), dtype=np.float32)
    distance = np.abs(np.arange(n, dtype=np.float32)[:, None] - np.arange(n, dtype=np.float32))
    for layer in attention:
        reach = np.float32(2.0 ** random.uniform(0.0, 6.0))
        layer[...] = random.standard_normal((n, n), dtype=np.float32) * np.float32(2.0) - distance / reach
        layer[...] = _softmax(layer, causal=True)
        share = np.clip(random.uniform(0.1, 0.9) + 0.1 * random.standard_normal(n), 0.0, 0.98).astype(np.float32)
        layer *= 1 - share[:, None]
        layer[:, 0] += share
    return _mix(attention, residual)


def near_uniform(
    n_layers: int, n: int, *, seed: int, residual: float = 0.5, jitter: float = 1e-3, causal: bool = False
) -> Floats:
    """Attention spread evenly up to a relative `jitter`: nearly every cut is nearly minimum.

    Parameters
    ----------
    n_layers, n, seed, residual, causal
        As for :func:`softmax`.
    jitter : float
        Standard deviation of the scores.

    Returns
    -------
    ndarray (n_layers, n, n), float32, rows summing to 1

    Examples
    --------
    >>> from attnflow import instances
    >>> instances.near_uniform(1, 2, seed=0, residual=0.0, jitter=0.0).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """
    return softmax(n_layers, n, seed=seed, residual=residual, sharpness=jitter, causal=causal)


def packed(n_layers: int, lengths: Sequence[int], *, seed: int, residual: float = 0.5) -> Floats:
    """Several texts in one sequence, none of which sees another: block-diagonal attention.

    Parameters
    ----------
    n_layers, seed, residual
        As for :func:`softmax`.
    lengths : sequence of int
        Positions of each text.

    Returns
    -------
    ndarray (n_layers, n, n), float32, with n the sum of `lengths`; rows summing to 1

    Examples
    --------
    >>> from attnflow import instances
    >>> (instances.packed(1, [1, 2], seed=0)[0] > 0).astype(int).tolist()
    [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    """
    _at_least(1, number_of_lengths=len(lengths))
    capacities = np.zeros((n_layers, sum(lengths), sum(lengths)), dtype=np.float32)
    start = 0
    for index, length in enumerate(lengths):
        end = start + length
        text_seed = int(np.random.default_rng((seed, index)).integers(2**31))
        capacities[:, start:end, start:end] = softmax(n_layers, length, seed=text_seed, residual=residual)
        start = end
    return capacities


def disconnected(n_layers: int, n: int, *, seed: int, residual: float = 0.5) -> Floats:
    """Encoder attention with dead ends: a silent giver, a deaf receiver, and two halves that part midway.

    In the first layer position 0 gives nothing, in the last it hears nothing. The first half of the sequence never sees
    the second, nor the second the first from the middle layer on. Nearly half of all pairs have flow 0.

    Parameters
    ----------
    n_layers, n, seed, residual
        As for :func:`softmax`.

    Returns
    -------
    ndarray (n_layers, n, n), float32

    Examples
    --------
    >>> from attnflow import instances
    >>> capacities = instances.disconnected(2, 4, seed=0)
    >>> capacities[0, :, 0].tolist(), capacities[-1, 0].tolist()
    ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    """
    capacities = softmax(n_layers, n, seed=seed, residual=residual)
    half = n // 2
    capacities[:, :half, half:] = 0.0
    capacities[n_layers // 2 :, half:, :half] = 0.0
    capacities[0, :, 0] = 0.0
    capacities[-1, 0, :] = 0.0
    return capacities


def integers(widths: Sequence[int], *, seed: int, high: int = 10, density: float = 0.7) -> list[Integers]:
    """Layers of any widths with integer capacities in 0..high, each edge present with probability `density`.

    Parameters
    ----------
    widths : sequence of int
        Number of nodes of each block, the inputs first: one layer fewer than its length.
    seed : int
    high : int
        Largest capacity.
    density : float
        Share of edges present.

    Returns
    -------
    list of ndarray (widths[l + 1], widths[l]), int64

    Examples
    --------
    >>> from attnflow import instances
    >>> [layer.shape for layer in instances.integers([2, 3, 1], seed=0)]
    [(3, 2), (1, 3)]
    """
    _at_least(2, number_of_widths=len(widths))
    _at_least(1, width=min(widths))
    random = np.random.default_rng(seed)
    return [_sparse(random, (receivers, givers), high, density) for givers, receivers in pairwise(widths)]


def random_blocks(
    *, seed: int, n_blocks: int = 5, max_size: int = 3, high: int = 10, density: float = 0.7, unbounded: float = 0.2
) -> Blocks:
    """A random acyclic network of blocks of different sizes: integer capacities, diagonals, unbounded edges.

    Every block but the first receives from one earlier block at least, and about half of all other pairs are joined
    too, by a matrix or a diagonal. Links into the last block are bounded, so that no path to the sink is unbounded.

    Parameters
    ----------
    seed : int
    n_blocks : int
        At least 2.
    max_size : int
        Blocks have 1 to `max_size` nodes.
    high, density
        As for :func:`integers`.
    unbounded : float
        Share of edges that are unbounded.

    Returns
    -------
    Blocks
        Capacities int64, or float64 where a link has unbounded edges.

    Examples
    --------
    >>> from attnflow import instances
    >>> instances.random_blocks(seed=1, n_blocks=3).sizes
    (2, 2, 3)
    """
    _at_least(2, n_blocks=n_blocks)
    _at_least(1, max_size=max_size)
    random = np.random.default_rng(seed)
    sizes = tuple(int(size) for size in random.integers(1, max_size + 1, n_blocks))
    links: list[tuple[Any, ...]] = []
    for receiver in range(1, n_blocks):
        needed = int(random.integers(receiver))
        for giver in range(receiver):
            if giver != needed and random.random() < 0.5:
                continue
            diagonal = random.random() < 0.3
            shape = (sizes[giver],) if diagonal else (sizes[receiver], sizes[giver])
            capacities: NDArray[Any] = _sparse(random, shape, high, density)
            if receiver < n_blocks - 1 and random.random() < 0.5:
                capacities = np.where(random.random(shape) < unbounded, np.inf, capacities)
            if diagonal and sizes[giver] > sizes[receiver]:
                capacities[sizes[receiver] :] = 0
            links.append((giver, receiver, capacities, 0) if diagonal else (giver, receiver, capacities))
    last = n_blocks - 1
    return Blocks(sizes, links, (0, int(random.integers(sizes[0]))), (last, int(random.integers(sizes[last]))))


def encoder_decoder(
    n_encoder_layers: int,
    n_source: int,
    n_decoder_layers: int,
    n_target: int,
    *,
    seed: int,
    residual: float = 0.5,
    chain: bool = False,
) -> Blocks:
    """The network of an encoder-decoder model: two stacks, a decoder layer being two sublayers with a residual each.

    Blocks 0..L hold the encoder, then comes the decoder's input, then two blocks for each decoder layer: after
    self-attention, and after cross-attention from block L.

    Parameters
    ----------
    n_encoder_layers, n_decoder_layers : int
        Layers of the two stacks.
    n_source, n_target : int
        Positions of the two stacks.
    seed : int
    residual : float
        r of each sublayer.
    chain : bool
        Adds unbounded edges from the top at position p to the decoder's input at p + 1. The graph of blocks then has a
        cycle, though the nodes still have none.

    Returns
    -------
    Blocks
        float32; the source is the first input, the sink the last target position on top.

    Examples
    --------
    >>> from attnflow import instances
    >>> network = instances.encoder_decoder(1, 3, 1, 2, seed=0)
    >>> network.sizes, [link[:2] for link in network.links]
    ((3, 3, 2, 2, 2), [(0, 1), (2, 3), (3, 4), (1, 4)])
    """
    _at_least(1, n_encoder_layers=n_encoder_layers, n_source=n_source)
    _at_least(1, n_decoder_layers=n_decoder_layers, n_target=n_target)
    random = np.random.default_rng(seed)
    links: list[tuple[Any, ...]] = []
    for index, layer in enumerate(softmax(n_encoder_layers, n_source, seed=seed, residual=residual)):
        links.append((index, index + 1, layer))
    top, below = n_encoder_layers, n_encoder_layers + 1
    for layer in peaked(n_decoder_layers, n_target, seed=seed, residual=residual):
        links.append((below, below + 1, layer))
        scores = random.standard_normal((n_target, n_source), dtype=np.float32) * np.float32(2.0)
        links.append((below + 1, below + 2, np.full(n_target, residual, dtype=np.float32), 0))
        links.append((top, below + 2, _softmax(scores, causal=False) * np.float32(1 - residual)))
        below += 2
    if chain and n_target > 1:
        again = np.full(n_target, np.inf, dtype=np.float32)
        again[-1] = 0.0  # the last position predicts what is not read again
        links.append((below, n_encoder_layers + 1, again, 1))
    sizes = (n_source,) * (n_encoder_layers + 1) + (n_target,) * (2 * n_decoder_layers + 1)
    return Blocks(sizes, links, (0, 0), (below, n_target - 1))


def washington(n_levels: int, width: int, *, seed: int, high: int = 10_000, mesh: bool = False) -> list[Integers]:
    """Random level graph, or mesh, of the Washington generator of the first DIMACS challenge [1]_.

    A source feeds all nodes of the first level, every node feeds three nodes of the next level (drawn at random, or in
    the mesh its three nearest, the sides wrapped round), and all nodes of the last level feed the sink. Capacities
    between levels are uniform in 1..high; source and sink edges are three times `high`.

    Parameters
    ----------
    n_levels, width : int
        Levels, and nodes of a level (3 or more).
    seed : int
    high : int
        Largest capacity.
    mesh : bool
        Whether edges go to the nearest nodes instead of random ones.

    Returns
    -------
    list of n_levels + 1 int64 matrices, from one source node to one sink node

    References
    ----------
    .. [1] Johnson and McGeoch (eds), "Network Flows and Matching: First DIMACS Implementation Challenge", 1993.

    Examples
    --------
    >>> from attnflow import instances
    >>> [layer.shape for layer in instances.washington(2, 4, seed=0)]
    [(4, 1), (4, 4), (1, 4)]
    """
    _at_least(1, n_levels=n_levels)
    _at_least(3, width=width)
    random = np.random.default_rng(seed)
    layers = [np.full((width, 1), 3 * high, dtype=np.int64)]
    for _ in range(n_levels - 1):
        layer = np.zeros((width, width), dtype=np.int64)
        for giver in range(width):
            near = (giver + np.arange(-1, 2)) % width
            receivers = near if mesh else random.choice(width, 3, replace=False)
            layer[receivers, giver] = random.integers(1, high + 1, 3)
        layers.append(layer)
    layers.append(np.full((1, width), 3 * high, dtype=np.int64))
    return layers


def genrmf(side: int, depth: int, *, seed: int, low: int = 1, high: int = 100) -> Blocks:
    """Goldfarb and Grigoriadis' RMF networks [1]_: square frames behind one another.

    A frame is a grid of side * side nodes whose neighbours are joined both ways with capacity high * side^2; a random
    permutation joins each frame to the next with capacities uniform in low..high. The source is a corner of the first
    frame, the sink the opposite corner of the last. As no edge may stay within a block, a frame is two blocks, the
    black and the white squares of a chessboard: blocks 2f and 2f + 1.

    Parameters
    ----------
    side : int
        Nodes along a frame's side, at least 2.
    depth : int
        Number of frames, at least 2.
    seed : int
    low, high : int
        Range of the capacities between frames.

    Returns
    -------
    Blocks
        int64; the graph of blocks has cycles.

    References
    ----------
    .. [1] Goldfarb and Grigoriadis, "A computational comparison of the Dinic and network simplex methods for maximum
       flow", Annals of Operations Research 13, 1988.

    Examples
    --------
    >>> from attnflow import instances
    >>> network = instances.genrmf(3, 2, seed=0)
    >>> network.sizes, network.source, network.sink
    ((5, 4, 5, 4), (0, 0), (2, 4))
    """
    _at_least(2, side=side, depth=depth)
    random = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(side * side), side)
    colour = (rows + columns) % 2
    # place[v]: position of grid node v within the block of its colour
    place = np.where(colour == 0, np.cumsum(colour == 0) - 1, np.cumsum(colour == 1) - 1)
    sizes = (int(np.count_nonzero(colour == 0)), int(np.count_nonzero(colour == 1))) * depth
    links: list[tuple[Any, ...]] = []
    near = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns) == 1
    across = np.where(near[np.ix_(colour == 1, colour == 0)], high * side * side, 0).astype(np.int64)
    for frame in range(depth):
        black, white = 2 * frame, 2 * frame + 1
        links += [(black, white, across), (white, black, np.ascontiguousarray(across.T))]
        if frame == depth - 1:
            break
        target, capacity = random.permutation(side * side), random.integers(low, high + 1, side * side)
        for giver in range(2):
            for receiver in range(2):
                layer = np.zeros((sizes[receiver], sizes[giver]), dtype=np.int64)
                chosen = (colour == giver) & (colour[target] == receiver)
                layer[place[target[chosen]], place[chosen]] = capacity[chosen]
                links.append((2 * frame + giver, 2 * frame + 2 + receiver, layer))
    corner = side * side - 1
    return Blocks(sizes, links, (0, 0), (2 * depth - 2 + int(colour[corner]), int(place[corner])))


def acyclic_dense(n: int, *, seed: int, high: int = 1000) -> Blocks:
    """Setubal's acyclic dense networks ("AC") [1]_: an edge from every node to every later one.

    As no edge may stay within a block, every node is a block of its own, so this one is for small n.

    Parameters
    ----------
    n : int
        Number of nodes, at least 2.
    seed : int
    high : int
        Capacities are uniform in 1..high.

    Returns
    -------
    Blocks
        int64; from the first node to the last.

    References
    ----------
    .. [1] Johnson and McGeoch (eds), "Network Flows and Matching: First DIMACS Implementation Challenge", 1993.

    Examples
    --------
    >>> from attnflow import instances
    >>> len(instances.acyclic_dense(5, seed=0).links)
    10
    """
    _at_least(2, n=n)
    random = np.random.default_rng(seed)
    links: list[tuple[Any, ...]] = [
        (giver, receiver, random.integers(1, high + 1, (1, 1)))
        for giver in range(n)
        for receiver in range(giver + 1, n)
    ]
    return Blocks((1,) * n, links, (0, 0), (n - 1, 0))


def _at_least(minimum: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < minimum:
            raise InvalidArgumentError(f"{name}={count} is too small: at least {minimum}")


def _softmax(scores: Floats, causal: bool) -> Floats:
    """Softmax over the last axis; `causal` leaves position j only the positions up to j."""
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    if causal:
        weights *= np.tri(scores.shape[-1], dtype=np.float32)
    weights /= weights.sum(axis=-1, keepdims=True, dtype=np.float32)
    return weights


def _mix(attention: Floats, residual: float) -> Floats:
    attention *= np.float32(1 - residual)
    places = np.arange(attention.shape[-1])
    attention[..., places, places] += np.float32(residual)
    return attention


def _sparse(random: np.random.Generator, shape: tuple[int, ...], high: int, density: float) -> Integers:
    return np.where(random.random(shape) < density, random.integers(0, high + 1, shape), 0)
