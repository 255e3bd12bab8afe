"""What must hold for every network: the identities of attention flow, searched for counter-examples by hypothesis.

Capacities are small integers, or sixteenths, so that sums and products are exact in float64 and equality is equality.
"""

from __future__ import annotations

from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import Case, check_bounds, check_certificate, exact, one_pair

from attnflow import Network, baselines, instances, maxflow
from attnflow.errors import UnboundedFlowError

algorithms = st.sampled_from(["auto", "dinic", "push_relabel"])


@st.composite
def layers(draw, max_layers=3, max_width=5, high=9):
    """Matrices [receiver, giver] of any widths, integers in 0..high, many of them 0."""
    widths = draw(st.lists(st.integers(1, max_width), min_size=2, max_size=max_layers + 1))
    elements = st.one_of(st.just(0), st.integers(0, high))
    return [
        draw(hnp.arrays(np.int64, (widths[layer + 1], widths[layer]), elements=elements))
        for layer in range(len(widths) - 1)
    ]


@st.composite
def attention(draw, max_layers=3, max_width=5, causal=False):
    """(L, n, n): rows of sixteenths that sum to 1."""
    n, n_layers = draw(st.integers(1, max_width)), draw(st.integers(1, max_layers))
    stack = np.zeros((n_layers, n, n))
    for layer in range(n_layers):
        for receiver in range(n):
            width = receiver + 1 if causal else n
            inner = sorted(draw(st.lists(st.integers(0, 16), min_size=width - 1, max_size=width - 1)))
            stack[layer, receiver, :width] = np.diff([0, *inner, 16]) / 16
    return stack


@st.composite
def block_graphs(draw):
    """Blocks of one to three nodes, links in any direction, parallel ones and cycles included; some edges unbounded."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    links = []
    for _ in range(draw(st.integers(1, 7))):
        giver, receiver = draw(st.lists(st.integers(0, len(sizes) - 1), min_size=2, max_size=2, unique=True))
        capacity = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, 13, np.inf])
        if draw(st.booleans()):
            links.append((giver, receiver, draw(hnp.arrays(float, (sizes[receiver], sizes[giver]), elements=capacity))))
        else:
            diagonal = draw(hnp.arrays(float, (sizes[giver],), elements=capacity))
            links.append((giver, receiver, diagonal, draw(st.integers(-2, 2))))
    return sizes, links


def flow(matrices, **options):
    """All sources x all sinks, unless said otherwise."""
    options.setdefault("sinks", range(np.shape(matrices[-1])[0]))
    return maxflow.layered(matrices, **options).values


# ---- against the oracle ----------------------------------------------------------------------------------------------


@given(layers(), algorithms)
def test_layered_networks(matrices, algorithm):
    case = Case.layered(matrices)
    flows = maxflow.layered(matrices, sinks=range(matrices[-1].shape[0]), algorithm=algorithm, check=True)
    check_bounds(flows, case, [[exact(case, source, sink) for source in case.sources] for sink in case.sinks])


@settings(max_examples=200)
@given(block_graphs(), algorithms, st.data())
def test_block_graphs(graph, algorithm, data):
    sizes, links = graph
    nodes = [(block, position) for block, size in enumerate(sizes) for position in range(size)]
    ends = data.draw(st.lists(st.sampled_from(nodes), min_size=2, max_size=4, unique=True))
    split = data.draw(st.integers(1, len(ends) - 1))
    case = Case(sizes, links, [ends[:split]], [ends[split:]])

    def solve():
        return maxflow.blocks(
            *case.to_maxflow(),
            sources=case.sources,
            sinks=case.sinks,
            algorithm=algorithm,
            flows=True,
            cuts=True,
            check=True,
        )

    try:
        answer = exact(case, *case.sources, *case.sinks)
    except nx.NetworkXUnbounded:
        with pytest.raises(UnboundedFlowError):
            solve()
        return
    flows = solve()
    check_bounds(flows, case, [[answer]])
    check_certificate(flows, case)
    sides = flows.cuts[0][0].source_side
    assert {node for node in nodes if sides[node[0]][node[1]]} == answer.source_side


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.just(3), st.just(3)),
        elements=st.one_of(st.just(0.0), st.floats(0, 1e6, allow_subnormal=False)),
    ),
    algorithms,
)
def test_any_floats_stay_within_the_bounds(capacities, algorithm):
    case = Case.layered(capacities)
    flows = maxflow.layered(capacities, sinks=range(3), algorithm=algorithm, check=True)
    for t, sink in enumerate(case.sinks):
        for s, source in enumerate(case.sources):
            answer = exact(case, source, sink).value
            assert Fraction(flows.lower[t, s]) <= answer <= Fraction(flows.upper[t, s])
            assert flows.lower[t, s] <= flows.values[t, s] <= flows.upper[t, s]
            assert flows.upper[t, s] - flows.lower[t, s] <= 2.0**-50 * capacities.max()


@given(layers(max_layers=2, max_width=4), algorithms, st.data())
def test_certificates(matrices, algorithm, data):
    case = Case.layered(matrices)
    t = data.draw(st.integers(0, len(case.sinks) - 1))
    s = data.draw(st.integers(0, len(case.sources) - 1))
    pair = one_pair(case, t, s)
    result = maxflow.blocks(
        *pair.to_maxflow(), sources=pair.sources, sinks=pair.sinks, algorithm=algorithm, flows=True, cuts=True
    )
    check_certificate(result, pair)


# ---- bounds ----------------------------------------------------------------------------------------------------------


@given(st.booleans().flatmap(lambda causal: attention(causal=causal)))
def test_rollout_is_a_feasible_flow(stack):
    sinks = range(stack.shape[1])
    assert np.all(baselines.rollout(stack, sinks=sinks) <= flow(stack))


@given(layers())
def test_the_widest_path_is_a_feasible_flow(matrices):
    widest = baselines.widest_path(matrices, sinks=range(matrices[-1].shape[0]))
    values = flow(matrices)
    assert np.all(widest <= values)
    assert np.all((widest > 0) == (values > 0))


@given(layers())
def test_no_flow_exceeds_what_leaves_its_source_or_enters_its_sink(matrices):
    leaving, entering = matrices[0].sum(axis=0), matrices[-1].sum(axis=1)
    assert np.all(flow(matrices) <= np.minimum(leaving[None, :], entering[:, None]))


@given(attention())
def test_all_sources_together_fill_a_sink(stack):
    n = stack.shape[1]
    together = flow(stack, sources=[range(n)])
    np.testing.assert_array_equal(together, np.ones((n, 1)))
    assert np.all(flow(stack).sum(axis=1) >= 1)


@given(layers())
def test_joint_flow_lies_between_the_largest_and_the_sum_of_the_parts(matrices):
    parts = flow(matrices)
    together = flow(matrices, sources=[range(matrices[0].shape[1])])[:, 0]
    assert np.all(parts.max(axis=1) <= together)
    assert np.all(together <= parts.sum(axis=1))


@given(attention(), st.integers(0, 16).map(lambda sixteenths: sixteenths / 16))
def test_the_residual_alone_guarantees_the_straight_path(stack, residual):
    values = Network.encoder(stack, residual=residual).source_flows(range(stack.shape[1])).values
    assert np.all(np.diagonal(values) >= residual)


# ---- joint flow is monotone and submodular ---------------------------------------------------------------------------


def subsets(n):
    return [[i for i in range(n) if mask >> i & 1] for mask in range(1, 2**n)]


def check_polymatroid(value, n):
    """value[mask], with value[0] = 0: monotone, and no element adds more to a larger set."""
    for small in range(2**n):
        for large in range(2**n):
            if small & large != small:
                continue
            assert value[small] <= value[large]
            for x in range(n):
                if not large >> x & 1:
                    gain_small = value[small | 1 << x] - value[small]
                    gain_large = value[large | 1 << x] - value[large]
                    assert gain_small >= gain_large, (small, large, x)


@settings(max_examples=40)
@given(layers(max_width=4))
def test_joint_flow_of_sources(matrices):
    n = matrices[0].shape[1]
    values = flow(matrices, sources=subsets(n))
    for row in values:
        check_polymatroid([0, *row], n)


@settings(max_examples=40)
@given(layers(max_width=4))
def test_joint_flow_of_sinks(matrices):
    n = matrices[-1].shape[0]
    values = flow(matrices, sinks=subsets(n))
    for column in values.T:
        check_polymatroid([0, *column], n)


# ---- symmetries ------------------------------------------------------------------------------------------------------


@given(layers(), algorithms)
def test_reversing_every_edge_changes_nothing(matrices, algorithm):
    backward = [matrix.T for matrix in reversed(matrices)]
    np.testing.assert_array_equal(flow(backward, algorithm=algorithm).T, flow(matrices))


@given(layers(), st.integers(-900, 900), algorithms)
def test_scaling_by_powers_of_two_is_exact(matrices, power, algorithm):
    scaled = [np.ldexp(matrix.astype(float), power) for matrix in matrices]
    np.testing.assert_array_equal(flow(scaled, algorithm=algorithm), np.ldexp(flow(matrices), power))


@given(layers(), st.integers(1, 2**40))
def test_scaling_integers(matrices, factor):
    np.testing.assert_array_equal(flow([matrix * factor for matrix in matrices]), flow(matrices) * factor)


@given(layers(), st.randoms(use_true_random=False), algorithms)
def test_permuting_tokens_permutes_the_flows(matrices, random, algorithm):
    widths = [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]
    orders = [random.sample(range(width), width) for width in widths]
    shuffled = [matrix[np.ix_(orders[layer + 1], orders[layer])] for layer, matrix in enumerate(matrices)]
    expected = flow(matrices)[np.ix_(orders[-1], orders[0])]
    np.testing.assert_array_equal(flow(shuffled, algorithm=algorithm), expected)


@given(attention(max_width=6), st.randoms(use_true_random=False), st.sampled_from([None, "excess"]))
def test_permuting_tokens_permutes_an_encoder(stack, random, calibration):
    n = stack.shape[1]
    order = np.array(random.sample(range(n), n))
    shuffled = stack[:, order][:, :, order]
    options = {"residual": 0.5, "calibration": calibration}
    values = Network.encoder(stack, **options).source_flows(range(n)).values
    np.testing.assert_allclose(
        Network.encoder(shuffled, **options).source_flows(range(n)).values, values[np.ix_(order, order)], atol=1e-12
    )


@given(attention(causal=True, max_width=6))
def test_a_decoder_looks_back_only(stack):
    n = stack.shape[1]
    values = Network.decoder(stack).source_flows(range(n)).values
    assert not np.triu(values, 1).any()


# ---- what changing the network does ----------------------------------------------------------------------------------


@given(layers(), st.data(), st.integers(1, 5))
def test_a_larger_capacity_helps_at_most_by_what_was_added(matrices, data, more):
    before = flow(matrices)
    layer = data.draw(st.integers(0, len(matrices) - 1))
    j = data.draw(st.integers(0, matrices[layer].shape[0] - 1))
    k = data.draw(st.integers(0, matrices[layer].shape[1] - 1))
    matrices[layer][j, k] += more
    gain = flow(matrices) - before
    assert np.all(gain >= 0)
    assert np.all(gain <= more)


@given(layers(), st.data(), algorithms)
def test_an_unbounded_identity_layer_changes_nothing(matrices, data, algorithm):
    place = data.draw(st.integers(0, len(matrices)))
    width = matrices[place].shape[1] if place < len(matrices) else matrices[-1].shape[0]
    identity = np.full((width, width), 0.0)
    np.fill_diagonal(identity, np.inf)
    longer = [*matrices[:place], identity, *matrices[place:]]
    np.testing.assert_array_equal(flow(longer, algorithm=algorithm), flow(matrices))


@given(layers(high=20), st.randoms(use_true_random=False), algorithms)
def test_a_link_may_be_split_into_parallel_ones(matrices, random, algorithm):
    sizes = [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]
    links = []
    for layer, matrix in enumerate(matrices):
        part = np.array([[random.randint(0, c) for c in row] for row in matrix.tolist()])
        links += [maxflow.Link(layer, layer + 1, part), maxflow.Link(layer, layer + 1, matrix - part)]
    values = maxflow.blocks(
        sizes,
        links,
        sources=[(0, k) for k in range(sizes[0])],
        sinks=[(len(sizes) - 1, j) for j in range(sizes[-1])],
        algorithm=algorithm,
    ).values
    np.testing.assert_array_equal(values, flow(matrices))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(-6, 6), st.integers(1, 6), algorithms)
def test_a_diagonal_is_the_matrix_it_stands_for(diagonal, offset, n_receivers, algorithm):
    n = len(diagonal)
    matrix = np.zeros((n_receivers, n), dtype=np.int64)
    for k, capacity in enumerate(diagonal):
        if 0 <= k + offset < n_receivers:
            matrix[k + offset, k] = capacity
    ends = {"sources": [(0, k) for k in range(n)], "sinks": [(1, j) for j in range(n_receivers)]}
    values = [
        maxflow.blocks((n, n_receivers), [link], algorithm=algorithm, **ends).values
        for link in (maxflow.Link(0, 1, np.array(diagonal), offset), maxflow.Link(0, 1, matrix))
    ]
    np.testing.assert_array_equal(*values)


@given(layers())
def test_a_stack_is_limited_by_its_parts(matrices):
    """A layer put on top of all outputs joined can only take away."""
    assume(len(matrices) > 1)
    below = flow(matrices[:-1], sinks=[range(matrices[-1].shape[1])])[0]
    assert np.all(flow(matrices) <= below[None, :])


# --- quanta: what Flows and EdgeFlows say of them ---------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "exponent"), [(np.float32, -36), (np.float64, -7)])
@pytest.mark.parametrize("total", [1.0, 1.0 - 2.0**-20, 0.75, 3e-9, 5e20])
def test_capacities_above_a_share_of_what_the_sink_takes_lose_nothing(total, dtype, exponent):
    small = dtype(total) * dtype(2.0**exponent) * (1 + np.finfo(dtype).eps)
    flows = maxflow.layered([np.array([[dtype(total), small]])], sinks=0)
    assert flows.lower[0, 1] == flows.upper[0, 1] == small
    assert 2.0**-61 <= flows.stats["quantum"] / float(dtype(total) + small) <= 2.0**-60 * (1 + 1e-5)


def test_an_interval_is_a_quantum_for_a_rounded_edge_and_the_largest_sink_sets_it():
    small = 0.1 * 2.0**-20
    wide = np.array([[1.0, small], [0.0, small]])
    for sinks, quantum in (([0, 1], 2.0**-60), ([0], 2.0**-60), ([1], 2.0**-84)):
        flows = maxflow.layered([wide], sources=[1], sinks=sinks)
        assert flows.stats["quantum"] == quantum
        assert set((flows.upper - flows.lower).flat) == {quantum if quantum > np.spacing(small) else 0.0}
    assert 2**16 * np.spacing(small) == 2.0**-60


def test_edge_flows_are_whole_quanta_and_conserved_in_them():
    flows = maxflow.layered(instances.peaked(4, 20, seed=0).astype(np.float64), sources=[{0, 3}], flows=True)
    quanta = flows.flows.flow / flows.stats["quantum"]
    np.testing.assert_array_equal(quanta, np.floor(quanta))
    for layer in range(3):
        into, out = flows.flows.link == layer, flows.flows.link == layer + 1
        arrives = np.bincount(flows.flows.receiver[into], flows.flows.flow[into], minlength=20)
        leaves = np.bincount(flows.flows.giver[out], flows.flows.flow[out], minlength=20)
        np.testing.assert_allclose(arrives, leaves, rtol=1e-14, atol=0)
