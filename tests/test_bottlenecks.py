"""What limits a flow, and its ways: against all cuts of small networks, and by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from attnflow import Network, SparseMatrix, TriangularMatrix, instances
from attnflow.errors import CertificateError, InvalidArgumentError, UnboundedFlowError
from attnflow.maxflow import NONE, SINK, SOURCE

NARROW = Network.from_blocks([2, 1, 1], [(0, 1, [[10, 6]]), (1, 2, [[10]])])


def small(seed: int, layers: int = 3, n: int = 3) -> Network:
    """Small whole numbers, so that minimum cuts are often several."""
    rng = np.random.default_rng(seed)
    return Network.from_blocks(
        [n] * (layers + 1),
        [(layer, layer + 1, rng.integers(0, 4, (n, n)) * (rng.random((n, n)) < 0.8)) for layer in range(layers)],
    )


def every_minimum_cut(network: Network, source: list[int], sink: list[int]) -> tuple[float, list[Any]]:
    """The source's sides of all minimum cuts, by trying all sides."""
    n, top = network.sizes[0], len(network.sizes) - 1
    nodes = [(b, i) for b in range(top + 1) for i in range(n)]
    free = [v for v in nodes if not (v[0] == 0 and v[1] in source) and not (v[0] == top and v[1] in sink)]
    edges = [
        ((link.giver, k), (link.receiver, j), float(link.capacities[j, k]))
        for link in network.links
        for j, k in np.argwhere(link.capacities > 0).tolist()
    ]
    least, found = np.inf, []
    for chosen in itertools.product([False, True], repeat=len(free)):
        side = {v for v, inside in zip(free, chosen, strict=True) if inside} | {(0, i) for i in source}
        capacity = sum(c for a, b, c in edges if a in side and b not in side)
        if capacity < least:
            least, found = capacity, []
        if capacity == least:
            found.append(side)
    return least, found


def side_of(arrays: Any) -> set[tuple[int, int]]:
    return {(b, i) for b, array in enumerate(arrays) for i in np.flatnonzero(array).tolist()}


@pytest.mark.parametrize("seed", range(25))
def test_the_cuts_are_the_first_and_the_last_of_all(seed: int) -> None:
    network = small(seed)
    source, sink = [[0], [0, 2], [1]][seed % 3], [[2], [0, 1]][seed % 2]
    least, cuts = every_minimum_cut(network, source, sink)
    result = network.bottleneck(source, sink, check=True)
    result.check()
    assert result.value == least
    assert side_of(result.near_source) == set.intersection(*cuts)
    assert side_of(result.near_sink) == set.union(*cuts)
    assert result.cut.capacity.sum() == least
    assert result.cut_near_sink.capacity.sum() == least
    # An edge in every minimum cut, and no other, lets more through when it is wider.
    in_all = set.intersection(
        *(
            {
                (number, j, k)
                for number, link in enumerate(network.links)
                for j, k in np.argwhere(link.capacities > 0).tolist()
                if (link.giver, k) in cut and (link.receiver, j) not in cut
            }
            for cut in cuts
        )
    )
    wide = result.widening
    assert {tuple(map(int, e)) for e in zip(wide.link, wide.receiver, wide.giver, strict=True)} == in_all
    for index, (number, j, k) in enumerate(zip(wide.link, wide.receiver, wide.giver, strict=True)):
        links = [(link.giver, link.receiver, link.capacities.copy()) for link in network.links]
        links[number][2][j, k] += 1
        wider = Network.from_blocks(network.sizes, links).source_flows([sink], sources=[source])
        assert wider.values[0, 0] == least + 1
        assert result.gain(index) >= 1
    for number, j, k in zip(result.full.link, result.full.receiver, result.full.giver, strict=True):
        assert network.links[number].capacities[j, k] > 0
    assert (result.full.flow == result.full.capacity).all()


def test_the_example() -> None:
    result = NARROW.bottleneck([0, 1])
    assert (result.value, result.limit) == (10.0, SINK)
    assert side_of(result.near_source) == side_of(result.near_sink) == {(0, 0), (0, 1), (1, 0)}
    assert result.gain(-1) == 6
    alone = NARROW.bottleneck(1)
    assert (alone.value, alone.limit) == (6.0, SOURCE)
    assert alone.widening.link.tolist() == [0]
    assert alone.gain(0) == 4
    assert repr(alone) == "Bottleneck(value=6, limit=-1, cut=1 edges)"
    nothing = Network.from_blocks([2, 1], [(0, 1, [[1, 0]])]).bottleneck(1)
    assert (nothing.value, nothing.limit, len(nothing.cut), len(nothing.widening)) == (0.0, NONE, 0, 0)


@pytest.mark.parametrize(
    ("into", "out"),
    [([[2**54 - 1]], [[2**54]]), ([[0.5, 0.25, 0.25 - 2**-55]], [[1.0]])],
)
def test_cuts_are_told_apart_by_digits_that_float64_lacks(into: Any, out: Any) -> None:
    n = len(into[0])
    network = Network.from_blocks([n, 1, 1], [(0, 1, np.array(into)), (1, 2, np.array(out))])
    result = network.bottleneck(list(range(n)))
    assert result.cut.link.tolist() == result.cut_near_sink.link.tolist() == [0] * n
    assert len(result.widening) == n


def test_several_minimum_cuts_leave_nothing_to_widen() -> None:
    chain = Network.from_blocks([1, 1, 1], [(0, 1, [[2]]), (1, 2, [[2]])])
    result = chain.bottleneck(0)
    assert (result.cut.link.tolist(), result.cut_near_sink.link.tolist()) == ([0], [1])
    assert len(result.widening) == 0
    assert result.full.link.tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(10))
def test_paths_add_up_to_the_flow(seed: int) -> None:
    layers = instances.peaked(4, 30, seed=seed)
    network = Network.decoder(layers)
    source, sink = [seed, seed + 3], [29, 20]
    result = network.paths(source, sink, check=True)
    value = network.source_flows([sink], sources=[source]).values[0, 0]
    assert sum(path.flow for path in result) == pytest.approx(value, rel=1e-12)
    assert 0 <= result.left <= 1e-12 * value
    assert [path.flow for path in result] == sorted((path.flow for path in result), reverse=True)
    used: dict[Any, float] = {}
    for path in result:
        assert path.flow > 0
        assert path.nodes[0][0] == 0
        assert path.nodes[0][1] in source
        assert path.nodes[-1][0] == 4
        assert path.nodes[-1][1] in sink
        for a, b in itertools.pairwise(path.nodes):
            used[a, b] = used.get((a, b), 0.0) + path.flow
    for ((giver, k), (receiver, j)), flow in used.items():
        assert receiver == giver + 1
        assert flow <= network.links[giver].capacities[j, k] * (1 + 1e-12)
    few = network.paths(source, sink, most=2)
    assert len(few) == min(2, len(result))
    assert few.left == pytest.approx(value - sum(path.flow for path in few), abs=1e-15)


@pytest.mark.parametrize("kind", ["triangle", "sparse", "diagonal", "chain"])
def test_any_storage_and_any_links(kind: str) -> None:
    layers = instances.peaked(3, 12, seed=1)
    whole = Network.decoder(layers)
    networks = {
        "triangle": Network.decoder(layers, storage="triangle"),
        "sparse": Network.from_blocks(
            whole.sizes, [(i, i + 1, SparseMatrix.from_dense(link.capacities)) for i, link in enumerate(whole.links)]
        ),
        "diagonal": Network.from_blocks([*whole.sizes, 12], [*whole.links, (3, 4, np.full(12, 0.5), -1)]),
        "chain": whole.chained([10, 11]),
    }
    network = networks[kind]
    assert isinstance(networks["triangle"].links[0].capacities, TriangularMatrix)
    result = network.bottleneck(2, 10)
    result.check()
    assert result.value == network.source_flows(10, sources=[2]).values[0, 0]
    if kind in ("triangle", "sparse"):
        other = whole.bottleneck(2, 10)
        assert side_of(result.near_source) == side_of(other.near_source)
        assert side_of(result.near_sink) == side_of(other.near_sink)
    assert sum(path.flow for path in network.paths(2, 10)) == pytest.approx(result.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": 5}, "source"),
        ({"source": []}, "source"),
        ({"source": 0, "sink": 4}, "sinks"),
        ({"source": 0, "threads": 0}, "threads is 0"),
        ({"source": 0, "check": 1}, "check is 1"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], message: str) -> None:
    for ask in (NARROW.bottleneck, NARROW.paths):
        with pytest.raises(InvalidArgumentError, match=message):
            ask(**options)
    with pytest.raises(InvalidArgumentError, match="most is 0"):
        NARROW.paths(0, most=0)
    with pytest.raises(InvalidArgumentError, match="index is 1, but widening has 1 edge"):
        NARROW.bottleneck(1).gain(1)
    with pytest.raises(InvalidArgumentError, match="index is 0, but widening has no edge"):
        NARROW.bottleneck(0).gain(0)


def test_unbounded_flows_are_refused() -> None:
    network = Network.from_blocks([1, 1], [(0, 1, np.array([[np.inf]]))])
    for ask in (network.bottleneck, network.paths):
        with pytest.raises(UnboundedFlowError):
            ask(0)
    lonely = Network.from_blocks([1, 1], [(0, 1, [[3.0]])]).bottleneck(0)
    with pytest.raises(UnboundedFlowError):
        lonely.gain(0)


def test_a_damaged_result_fails_its_check() -> None:
    from dataclasses import replace

    result = NARROW.bottleneck(1)
    with pytest.raises(CertificateError, match="nearest the source has capacity 6"):
        replace(result, value=7.0).check()
