"""Shares of joint flows: against enumeration, axioms, convex programs and examples by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnflow import Network, instances
from attnflow._kernel import NOBODY
from attnflow.errors import CertificateError, InvalidArgumentError, UnboundedFlowError
from attnflow.games._orders import antithetic_orders, orders_through_all, prefix_masks
from attnflow.games._shares import nearest, to_the_last_bit

BOTTLENECK = Network.from_blocks([2, 1, 1], [(0, 1, [[10, 6]]), (1, 2, [[10]])])


def random_network(seed: int, n: int, layers: int = 3) -> Network:
    """Peaked, so that shares differ; the first players of some are doubled, and one has nothing to give."""
    rng = np.random.default_rng(seed)
    attention = rng.random((layers, n, n)) ** 6
    attention[:, rng.random((n, n)) < 0.4] = 0
    if seed % 3 == 0:
        attention[0, :, 0] = attention[0, :, n // 2]
    if seed % 4 == 0:
        attention[0, :, n - 1] = 0
    return Network.encoder(attention, residual=0.0)


def worth(network: Network, coalition: Any, sink: int = -1) -> float:
    return float(network.source_flows(sink, sources=[list(coalition)]).values[0, 0]) if coalition else 0.0


def by_enumeration(network: Network, n: int, sink: int = -1) -> np.ndarray:
    """The formula of 1953, with every coalition a maximum flow of its own."""
    v = {s: worth(network, s, sink) for k in range(n + 1) for s in itertools.combinations(range(n), k)}
    shares = np.zeros(n)
    for i in range(n):
        for s, value in v.items():
            if i not in s:
                weight = math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n)
                shares[i] += weight * (v[tuple(sorted((*s, i)))] - value)
    return shares


# --- Shapley values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 11))
def test_exact_values_are_those_of_enumeration(n: int) -> None:
    for seed in range(3 if n < 8 else 1):
        network = random_network(10 * n + seed, n)
        result = network.shapley_values(0, check=True)
        assert result.method == "exact"
        assert result.verified
        result.check()
        np.testing.assert_allclose(result.values[0], by_enumeration(network, n, 0), rtol=1e-12, atol=1e-15)
        assert not result.standard_errors.any()
        assert (result.rounding < 1e-15).all()  # float64: the smallest capacities lose digits


def test_the_example_of_the_definitions() -> None:
    result = BOTTLENECK.shapley_values()
    assert result.values.tolist() == [[7.0, 3.0]]
    assert result.total.tolist() == [10.0]
    assert BOTTLENECK.source_flows().values.tolist() == [[10.0, 6.0]]
    assert BOTTLENECK.joint_flow().values.tolist() == [[5.0, 5.0]]
    assert BOTTLENECK.joint_flow(rule="any").values.tolist() == [[10.0, 0.0]]


def test_sums_are_the_total_to_the_last_bit() -> None:
    for seed in range(20):
        network = random_network(seed, 9)
        for result in (
            network.shapley_values(0),
            network.shapley_values(0, permutations=100, seed=seed),
            network.joint_flow(0),
            network.joint_flow(0, rule="any"),
        ):
            result.check()
            row = result.values[0]
            everyone = worth(network, range(9), 0)
            assert result.total[0] == everyone
            for order in (row, row[::-1], np.sort(row)):
                assert sum(order.tolist()) == everyone
                assert float(order.sum()) == everyone


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 4))
def test_the_axioms(seed: int, n: int, layers: int) -> None:
    network = random_network(seed, n, layers)
    coalitions = [s for k in range(n + 1) for s in itertools.combinations(range(n), k)]
    v = {frozenset(s): worth(network, s, 0) for s in coalitions}
    for s in v:
        for i in set(range(n)) - s:
            assert v[s | {i}] >= v[s]  # monotone
            for j in set(range(n)) - s - {i}:  # submodular
                assert v[s | {i}] + v[s | {j}] >= v[s | {i, j}] + v[s] - 1e-12
    shares = network.shapley_values(0).values[0]
    assert sum(shares.tolist()) == v[frozenset(range(n))]
    for i in range(n):
        gains = [v[s | {i}] - v[s] for s in v if i not in s]
        assert min(gains) - 1e-15 <= shares[i] <= max(gains) + 1e-15
        if not any(gains):  # null player
            assert shares[i] == 0
        for j in range(i):  # symmetry
            if all(v[s | {i}] == v[s | {j}] for s in v if not s & {i, j}):
                assert abs(shares[i] - shares[j]) <= 1e-15


def test_sampled_values_are_within_their_errors() -> None:
    """4 standard errors in 99 of 100 seeds: of 200 seeds here, at most 2 may lie outside."""
    network = random_network(5, 8)
    exact = network.shapley_values(0).values[0]
    outside = 0
    for seed in range(200):
        result = network.shapley_values(0, permutations=200, seed=seed)
        error = np.abs(result.values[0] - exact)
        outside += bool((error > 4 * result.standard_errors[0] + 1e-15).any())
    assert outside <= 2


def test_sampled_values_do_not_depend_on_threads() -> None:
    network = Network.decoder(instances.peaked(4, 40, seed=3, residual=0))
    results = [network.shapley_values([-1, 20], permutations=300, seed=7, threads=k) for k in (1, 2, 3)]
    for result in results[1:]:
        assert np.array_equal(result.values, results[0].values)
        assert np.array_equal(result.standard_errors, results[0].standard_errors)
    other = network.shapley_values([-1, 20], permutations=300, seed=8)
    assert not np.array_equal(other.values, results[0].values)


def test_a_tolerance_is_reached() -> None:
    network = random_network(1, 30)
    loose, tight = (network.shapley_values(0, tolerance=t, seed=1) for t in (0.02, 0.004))
    assert loose.standard_errors.max() <= 0.02
    assert tight.standard_errors.max() <= 0.004
    assert tight.permutations[0] > loose.permutations[0] >= 128
    short = network.shapley_values(0, tolerance=1e-9, permutations=130)
    assert short.permutations == (130,)
    assert short.standard_errors.max() > 1e-9


def test_groups_are_players() -> None:
    network = random_network(2, 6)
    groups = [[0, 3], [1], [2, 4, 5]]
    result = network.shapley_values(0, players=groups)
    assert result.players == ((0, 3), (1,), (2, 4, 5))
    v = {
        s: worth(network, sorted(itertools.chain(*(groups[i] for i in s))), 0)
        for k in range(4)
        for s in itertools.combinations(range(3), k)
    }
    expected = [
        Fraction(sum(Fraction(v[tuple(sorted((*order[:k], i)))]) - Fraction(v[tuple(sorted(order[:k]))])
                     for order in itertools.permutations(range(3)) for k in [order.index(i)]), 6)
        for i in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(result.values[0], [float(share) for share in expected], rtol=1e-12)


def test_generated_tokens_that_are_read_again_are_players() -> None:
    """What enters a player does not count for himself, and does for others."""
    layer = np.array([[1.0, 0, 0], [0.25, 0.75, 0], [0, 0, 1]])
    network = Network.decoder([layer], residual=0.0).chained([2])
    assert network.source_flows().values.tolist() == [[0.25, 0.75, 1.0]]
    np.testing.assert_allclose(network.shapley_values().values, [[0.125, 0.375, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(network.joint_flow().values, [[0.25, 0.375, 0.375]], rtol=1e-15)


@pytest.mark.parametrize("n", range(1, 13))
def test_orders_pass_through_every_coalition(n: int) -> None:
    orders = orders_through_all(n)
    assert orders.shape == (math.comb(n, n // 2), n)
    came = orders != NOBODY
    assert not (np.diff(came.astype(int), axis=1) > 0).any()  # who ends an order ends it for good
    assert all(len(set(row[row != NOBODY].tolist())) == (row != NOBODY).sum() for row in orders)
    assert set(prefix_masks(orders)[came].tolist()) == set(range(1, 1 << n))


def test_random_orders_come_with_their_reverse() -> None:
    orders = antithetic_orders(7, 5, np.random.default_rng(0))
    assert orders.shape == (10, 7)
    assert np.array_equal(orders[::2], orders[1::2, ::-1])
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(7), (10, 1)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**61), min_size=1, max_size=12), st.integers(1, 10**6), st.integers(-5, 1100))
def test_rounded_shares_add_up(parts: list[int], divisor: int, exponent: int) -> None:
    scaled = [Fraction(part, divisor) for part in parts]
    total = math.floor(sum(scaled))
    shares = [share * total / sum(scaled) if total else Fraction(0) for share in scaled]
    got = to_the_last_bit(shares, total, exponent)
    expected = nearest(total, exponent)
    assert sum(got.tolist()) == expected == math.fsum(got)
    unit = Fraction(2) ** max(total.bit_length() - 53, exponent - 1074)
    for value, share in zip(got.tolist(), shares, strict=True):
        assert abs(Fraction(value) * Fraction(2) ** exponent - share) <= unit
        assert share or not value


def test_standard_errors_of_players_who_add_something_in_few_orders() -> None:
    """128 equal players share one unit: each adds it only where he comes first."""
    n = 128
    network = Network.from_blocks([n, 1, 1], [(0, 1, np.ones((1, n))), (1, 2, [[1.0]])])
    for seed in range(20):
        found = network.shapley_values(method="sampled", seed=seed)
        assert (np.abs(found.values - 1 / n) <= 4 * found.standard_errors).all()
    early = network.shapley_values(tolerance=0.01)
    assert early.standard_errors.min() > 0
    assert early.standard_errors.max() <= 0.01


def test_damaged_shares_fail_their_check() -> None:
    for result in (BOTTLENECK.shapley_values(), BOTTLENECK.joint_flow()):
        for values, message in (([[11.0, -1.0]], "negative: -1"), ([[5.0, 5.5]], "add up to 10.5, and the total")):
            with pytest.raises(CertificateError, match=message):
                replace(result, values=np.array(values)).check()


# --- the fair flow -----------------------------------------------------------------------------------------------


def fair_by_enumeration(network: Network, n: int) -> np.ndarray:
    """The least mean of what is left to give, over all sets of players, set by set."""
    v = {frozenset(s): worth(network, s, 0) for k in range(n + 1) for s in itertools.combinations(range(n), k)}
    shares, known = np.zeros(n), frozenset[int]()
    while len(known) < n:
        least = min((v[s] - v[known]) / len(s - known) for s in v if known < s)
        group = max((s for s in v if known < s and (v[s] - v[known]) / len(s - known) <= least + 1e-12), key=len)
        shares[list(group - known)] = least
        known = group
    return shares


@pytest.mark.parametrize("n", range(1, 9))
def test_the_fair_flow_is_that_of_enumeration(n: int) -> None:
    for seed in range(4):
        network = random_network(100 * n + seed, n)
        result = network.joint_flow(0, check=True)
        np.testing.assert_allclose(result.values[0], fair_by_enumeration(network, n), rtol=1e-12, atol=1e-15)
        assert sorted(itertools.chain(*result.levels[0])) == list(range(n))


def test_joint_flows_are_flows() -> None:
    for seed in range(5):
        network = random_network(seed, 12)
        for rule in ("fair", "any"):
            result = network.joint_flow([0, 5], rule=rule, check=True)
            for row, sink in enumerate((0, 5)):
                edges = result.flows[row]
                inflow = np.zeros((4, 12))
                outflow = np.zeros((4, 12))
                for link, receiver, giver, flow in zip(
                    edges.link, edges.receiver, edges.giver, edges.flow, strict=True
                ):
                    assert 0 < flow <= network.links[link].capacities[receiver, giver]
                    outflow[link, giver] += flow
                    inflow[link + 1, receiver] += flow
                np.testing.assert_allclose(outflow[0], result.values[row], atol=1e-14)
                np.testing.assert_allclose(inflow[1:3], outflow[1:3], atol=1e-14)
                assert inflow[3, sink] == pytest.approx(result.total[row], rel=1e-14)


# --- the barrier's centre ---------------------------------------------------------------------------------------


def centre_by_program(network: Network, n: int, sink: int) -> np.ndarray:
    """The same by a program of scipy: first which edges can change, one linear program an edge; then the centre."""
    optimize = pytest.importorskip("scipy.optimize")
    edges = [
        (link.giver, k, link.receiver, j, float(link.capacities[j, k]))
        for link in network.links
        for j, k in np.argwhere(link.capacities > 0).tolist()
    ]
    top = len(network.sizes) - 1
    inner = [(b, i) for b in range(1, top + 1) for i in range(network.sizes[b]) if (b, i) != (top, sink)]
    conserve = np.zeros((len(inner), len(edges)))
    value = np.zeros(len(edges))
    for e, (giver, k, receiver, j, _) in enumerate(edges):
        if (receiver, j) in inner:
            conserve[inner.index((receiver, j)), e] = 1
        if (giver, k) in inner:
            conserve[inner.index((giver, k)), e] = -1
        value[e] = (receiver, j) == (top, sink)
    bounds = [(0, capacity) for *_, capacity in edges]
    best = optimize.linprog(-value, A_eq=conserve, b_eq=np.zeros(len(inner)), bounds=bounds).fun
    equal, right = np.vstack([conserve, value]), np.append(np.zeros(len(inner)), -best)
    span = []
    for e in range(len(edges)):
        unit = np.eye(len(edges))[e]
        ends = [optimize.linprog(s * unit, A_eq=equal, b_eq=right, bounds=bounds, method="highs-ipm") for s in (1, -1)]
        span.append((ends[0].x, ends[1].x, abs(ends[0].fun + ends[1].fun) > 1e-7))
    flow = np.mean([x for low, high, _ in span for x in (low, high)], axis=0)  # inside, wherever there is an inside
    free = np.array([changes for *_, changes in span])
    capacity = np.array([capacity for *_, capacity in edges])
    # Newton on the null space of what must hold.
    _, sizes, rows = np.linalg.svd(equal[:, free])
    null = rows[int((sizes > 1e-9).sum()) :].T
    for _ in range(100 if null.size else 0):
        f, c = flow[free], capacity[free]
        slope, curvature = -1 / f + 1 / (c - f), 1 / f**2 + 1 / (c - f) ** 2
        step = null @ np.linalg.solve(null.T @ (curvature[:, None] * null), -null.T @ slope)
        room = np.where(step < 0, -f / np.where(step < 0, step, -1), (c - f) / np.where(step > 0, step, 1))
        flow[free] = f + min(1.0, 0.5 * room.min()) * step
    return np.array([sum(flow[e] for e, (giver, k, *_) in enumerate(edges) if (giver, k) == (0, i)) for i in range(n)])


@pytest.mark.parametrize("seed", range(6))
def test_the_centre_is_that_of_a_convex_program(seed: int) -> None:
    n = 3 + seed % 3
    network = random_network(300 + seed, n, layers=2 + seed % 2)
    result = network.joint_flow(0, rule="barrier", check=True)
    np.testing.assert_allclose(result.values[0], centre_by_program(network, n, 0), rtol=1e-5, atol=1e-6)
    assert result.errors[0] <= 1e-9
    result.check()


def test_the_centre_of_the_example() -> None:
    """x of player 0 and 10 - x of player 1: largest log x + log(10 - x) + log(10 - x) + log(6 - 10 + x)."""
    result = BOTTLENECK.joint_flow(rule="barrier")
    x = result.values[0, 0]
    assert 1 / x - 2 / (10 - x) + 1 / (x - 4) == pytest.approx(0, abs=1e-6)
    assert result.values.sum() == 10


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"players": [[0, 1], [1]]}, r"players\[1\] and players\[0\] both hold position 1 of block 0"),
        ({"players": [5]}, "players"),
        ({"players": []}, "players is empty"),
        ({"sinks": 7}, "sinks"),
        ({"method": "fast"}, "method is 'fast'"),
        ({"method": "exact", "permutations": 10}, "draws no permutations"),
        ({"permutations": 3}, "permutations is 3; it must be even"),
        ({"permutations": 0}, "permutations is 0; it must be an integer >= 2"),
        ({"permutations": 2.5}, "permutations is 2.5"),
        ({"tolerance": 0}, "tolerance is 0; it must be a number > 0"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"tolerance": "small"}, "tolerance is 'small'"),
        ({"tolerance": 10**400}, "tolerance is 1000"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"check": 1}, "check is 1"),
        ({"progress": 3}, "progress is 3"),
    ],
)
def test_what_is_wrong_with_shapley_values_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        BOTTLENECK.shapley_values(**options)


def test_too_many_players_for_exact_values() -> None:
    network = random_network(0, 21)
    with pytest.raises(InvalidArgumentError, match="up to 20 players, and there are 21"):
        network.shapley_values(method="exact")


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="rule is 'best'"):
        BOTTLENECK.joint_flow(rule="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", [0, -1.0, math.inf, math.nan, "fine", True, None])
def test_tolerances_are_positive(tolerance: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"tolerance is .*; it must be a number > 0"):
        BOTTLENECK.joint_flow(rule="barrier", tolerance=tolerance)


def test_unbounded_players_are_refused() -> None:
    network = Network.from_blocks([2, 1], [(0, 1, np.array([[1.0, np.inf]]))])
    for ask in (network.shapley_values, network.joint_flow):
        with pytest.raises(UnboundedFlowError, match="player 1"):
            ask()


def test_networks_that_dropped_edges_are_refused() -> None:
    network = random_network(0, 8).sparsified(keep=2)
    with pytest.raises(InvalidArgumentError, match="dropped edges"):
        network.shapley_values()


def test_progress_counts_orders_and_may_stop() -> None:
    network = random_network(0, 40)
    seen: list[tuple[int, int]] = []
    network.shapley_values([0, 1], permutations=256, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (512, 512)
    assert all(a <= b for (a, _), (b, _) in itertools.pairwise(seen))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.shapley_values(0, permutations=256, progress=stop)


@pytest.mark.parametrize("exponent", [-1000, 1000])
def test_standard_errors_scale_with_the_capacities(exponent: int) -> None:
    layers = np.random.default_rng(0).random((2, 5, 5))
    usual = Network.encoder(layers, residual=0.0).shapley_values(permutations=100)
    scaled = Network.encoder(np.ldexp(layers, exponent), residual=0.0).shapley_values(permutations=100)
    assert usual.standard_errors.max() > 0
    np.testing.assert_array_equal(scaled.standard_errors, np.ldexp(usual.standard_errors, exponent))
