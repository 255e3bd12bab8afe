"""The kernel's answers: every algorithm on every instance against every oracle, and the promises of its interface."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from oracles import (
    FAMILIES,
    TINY,
    Answer,
    Case,
    bottleneck,
    by_enumeration,
    by_linear_program,
    by_scipy,
    check_bounds,
    check_certificate,
    check_cut,
    exact,
    exact_family,
    one_pair,
)

from attnflow import instances, maxflow
from attnflow.errors import InvalidArgumentError, InvalidCapacityError, UnboundedFlowError

ALGORITHMS = ("auto", "dinic", "push_relabel")
INTEGRAL = [name for name, case in FAMILIES.items() if case.integral]
LAYERED = [name for name, case in FAMILIES.items() if case.is_layered]
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
every_family = pytest.mark.parametrize("name", FAMILIES)


def solve(case, **options):
    return maxflow.blocks(*case.to_maxflow(), sources=case.sources, sinks=case.sinks, **options)


def solve_layered(case, **options):
    sinks = [[position for _, position in group] for group in case.sinks]
    sources = [[position for _, position in group] for group in case.sources]
    return maxflow.layered([link[2] for link in case.links], sources=sources, sinks=sinks, **options)


# ---- against the oracles ---------------------------------------------------------------------------------------------


@every_family
@every_algorithm
def test_bounds_hold_the_exact_maximum_flow(name, algorithm):
    case = FAMILIES[name]
    check_bounds(solve(case, algorithm=algorithm, check=True), case, exact_family(name))


@pytest.mark.parametrize("name", LAYERED)
@every_algorithm
def test_layered_is_blocks_in_a_chain(name, algorithm):
    case = FAMILIES[name]
    flows = solve_layered(case, algorithm=algorithm)
    check_bounds(flows, case, exact_family(name))
    np.testing.assert_array_equal(flows.values, solve(case, algorithm=algorithm).values)


@every_family
def test_linear_program(name):
    case = FAMILIES[name]
    values = solve(case).values
    for t, sink in enumerate(case.sinks):
        for s, source in enumerate(case.sources):
            assert values[t, s] == pytest.approx(by_linear_program(case, source, sink), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", TINY)
@every_algorithm
def test_every_cut_enumerated(name, algorithm):
    case = FAMILIES[name]
    answers = [[by_enumeration(case, source, sink) for (source,) in case.sources] for (sink,) in case.sinks]
    assert [[a.value for a in row] for row in answers] == [[a.value for a in row] for row in exact_family(name)]
    check_bounds(solve(case, algorithm=algorithm), case, answers)


@every_family
@every_algorithm
def test_certificate(name, algorithm):
    case = FAMILIES[name]
    for t in range(len(case.sinks)):
        for s in range(len(case.sources)):
            pair = one_pair(case, t, s)
            check_certificate(solve(pair, algorithm=algorithm, flows=True, cuts=True, check=True), pair)


@every_family
@every_algorithm
def test_cuts_are_minimum_and_nearest_the_source(name, algorithm):
    case = FAMILIES[name]
    flows = solve(case, algorithm=algorithm, cuts=True)
    for t in range(len(case.sinks)):
        for s in range(len(case.sources)):
            capacity, answer = check_cut(flows, case, t, s), exact_family(name)[t][s]
            if case.integral:
                assert capacity == answer.value
                sides = flows.cuts[t][s].source_side
                assert {node for node in case.nodes if sides[node[0]][node[1]]} == answer.source_side
            else:
                assert float(capacity) == pytest.approx(float(answer.value), rel=1e-12, abs=0)


@pytest.mark.parametrize("name", INTEGRAL)  # rounding may break the ties that the definition decides
@every_algorithm
def test_bottlenecks(name, algorithm):
    case = FAMILIES[name]
    flows = solve(case, algorithm=algorithm, bottlenecks=True)
    assert flows.bottlenecks.shape == flows.values.shape
    assert flows.bottlenecks.dtype == np.int32
    names = {maxflow.SOURCE: "source", maxflow.SINK: "sink", maxflow.NONE: "none"}
    for t, sink in enumerate(case.sinks):
        for s, source in enumerate(case.sources):
            code = int(flows.bottlenecks[t, s])
            assert names.get(code, code) in bottleneck(case, source, sink), (t, s, code)


def test_the_bottlenecks_of_the_tests_are_varied():
    """Or the test above would show little."""
    found = set()
    for case in FAMILIES.values():
        found |= set(solve(case, bottlenecks=True).bottlenecks.ravel().tolist())
    assert {maxflow.SOURCE, maxflow.SINK, maxflow.NONE, 0, 1, 2} <= found


@every_algorithm
@pytest.mark.parametrize(
    "widths",
    [[63, 64, 65], [64, 64, 64], [1, 65, 1, 130, 2], [128, 1, 129], [66, 3, 3, 3, 66], [200, 40, 70, 10]],
    ids=str,
)
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_widths_around_the_word_size(widths, density, algorithm):
    matrices = instances.integers(widths, seed=sum(widths), high=50, density=density)
    case = Case.layered(matrices, sinks=[0, -1] if widths[-1] > 1 else [0])
    np.testing.assert_array_equal(solve(case, algorithm=algorithm, check=True).values, by_scipy(case))


@every_algorithm
@pytest.mark.parametrize(
    "network",
    [
        instances.washington(24, 30, seed=1),
        instances.washington(30, 20, seed=2, mesh=True),
        instances.genrmf(5, 6, seed=3),
        instances.genrmf(3, 12, seed=4, low=1, high=10_000),
        instances.acyclic_dense(40, seed=5),
        instances.random_blocks(seed=6, n_blocks=12, max_size=12, high=100, unbounded=0.0),
        instances.random_blocks(seed=7, n_blocks=20, max_size=6, high=3, unbounded=0.0),
    ],
    ids=["level", "mesh", "genrmf wide", "genrmf long", "acyclic", "blocks", "many blocks"],
)
def test_families_that_are_hard_for_somebody(network, algorithm):
    case = Case.blocks(network) if isinstance(network, instances.Blocks) else Case.layered(network)
    flows = solve(case, algorithm=algorithm, check=True)
    np.testing.assert_array_equal(flows.values, by_scipy(case))
    np.testing.assert_array_equal(flows.lower, flows.upper)


@pytest.mark.parametrize(
    "capacities",
    [
        instances.peaked(6, 48, seed=1),
        instances.peaked(6, 48, seed=2, residual=0.0),
        instances.softmax(4, 48, seed=3),
        instances.near_uniform(4, 48, seed=4),
        instances.packed(4, [20, 28], seed=5),
        instances.disconnected(4, 48, seed=6),
    ],
    ids=["peaked", "peaked raw", "softmax", "near uniform", "packed", "disconnected"],
)
def test_algorithms_agree_on_attention(capacities):
    results = [maxflow.layered(capacities, sinks=[-1, 0, 20], algorithm=a, check=True) for a in ALGORITHMS]
    for result in results:
        np.testing.assert_array_equal(result.values, results[0].values)
        np.testing.assert_allclose(result.lower, result.upper, rtol=1e-14, atol=1e-15)


def test_statistics():
    case = FAMILIES["integers"]
    for algorithm in ALGORITHMS:
        stats = solve(case, algorithm=algorithm, threads=2).stats
        assert stats["algorithm"] in ("dinic", "push_relabel")
        assert algorithm in ("auto", stats["algorithm"])
        assert stats["edges"] >= len(case.edges)
        assert stats["threads"] in (1, 2)
        assert stats["augmentations"] > 0


def test_results_are_read_only_and_stay_so(peaked):
    solved = maxflow.layered(peaked, sources=[0], bottlenecks=True, cuts=True, flows=True)
    for flows in (solved, pickle.loads(pickle.dumps(solved)), copy.deepcopy(solved), copy.copy(solved)):
        cut, edge = flows.cuts[0][0], flows.flows
        arrays = [flows.values, flows.lower, flows.upper, flows.bottlenecks]
        for array in [*arrays, *cut.source_side, edge.link, edge.receiver, edge.giver, edge.flow]:
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
        with pytest.raises(TypeError):
            flows.stats["edges"] = 0
        assert dict(flows.stats) == dict(solved.stats)
        np.testing.assert_array_equal(flows.values, solved.values)
        np.testing.assert_array_equal(edge.flow, solved.flows.flow)
        for side, other in zip(cut.source_side, solved.cuts[0][0].source_side, strict=True):
            np.testing.assert_array_equal(side, other)


def test_an_array_of_the_callers_stays_writeable():
    mine, stats = np.ones((1, 1)), {"edges": 1}
    flows = maxflow.Flows(mine, mine, mine, stats=stats)
    assert not flows.values.flags.writeable
    mine[0, 0], stats["edges"] = 2, 2
    assert flows.stats["edges"] == 1


# ---- sources and sinks -----------------------------------------------------------------------------------------------


def test_defaults_are_all_sources_and_the_last_sink(peaked, full):
    np.testing.assert_array_equal(maxflow.layered(peaked).values, full[[6]])


def test_positions(peaked, full):
    np.testing.assert_array_equal(maxflow.layered(peaked, sinks=2).values, full[[2]])
    np.testing.assert_array_equal(maxflow.layered(peaked, sinks=np.int16(-3)).values, full[[4]])
    chosen = maxflow.layered(peaked, sinks=(3, -1, 3), sources=np.array([5, -7]))
    np.testing.assert_array_equal(chosen.values, full[[3, 6, 3]][:, [5, 0]])


def test_super_sinks_and_super_sources(peaked):
    joined = maxflow.layered(peaked, sinks=[{4, 6}, 5], sources=[{0, 1, 2}, 3])
    case = Case.layered(peaked, sources=[[0, 1, 2], [3]], sinks=[[4, 6], [5]])
    check_bounds(joined, case, [[exact(case, source, sink) for source in case.sources] for sink in case.sinks])
    again = maxflow.layered(peaked, sinks=[frozenset({-3, 6}), 5], sources=[{0, -6, 2}, -4])
    np.testing.assert_array_equal(again.values, joined.values)


def test_blocks_take_nodes_and_sequences_of_nodes():
    case = FAMILIES["genrmf"]
    one = maxflow.blocks(*case.to_maxflow(), sources=[(0, 0), [(0, 1), (1, 1)]], sinks=[(4, 4), [(5, 0), (4, 0)]])
    expected = Case(case.sizes, case.links, [[(0, 0)], [(0, 1), (1, 1)]], [[(4, 4)], [(5, 0), (4, 0)]])
    check_bounds(one, expected, [[exact(expected, s, t) for s in expected.sources] for t in expected.sinks])
    negative = maxflow.blocks(*case.to_maxflow(), sources=[(0, 0)], sinks=[(4, -1)])
    assert negative.values[0, 0] == one.values[0, 0]


def test_sources_that_cannot_reach():
    capacities = np.zeros((2, 3, 3), dtype=np.float32)
    capacities[:, 0, 0] = 0.5
    flows = maxflow.layered(capacities, sinks=[0, 1], bottlenecks=True, cuts=True, check=True)
    np.testing.assert_array_equal(flows.values, [[0.5, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(flows.upper, flows.values)
    assert np.all(flows.bottlenecks.ravel()[1:] == maxflow.NONE)
    assert [[cut.capacity for cut in row] for row in flows.cuts] == flows.values.tolist()


@every_algorithm
def test_a_sink_without_capacity(algorithm):
    """No quantum can be taken from a bound of 0, and still the interval has no width."""
    capacities = np.array([[[0.5, 0.25], [0.125, 0.7]], [[0.5, 0.3], [0.0, 0.0]]], dtype=np.float32)
    flows = maxflow.layered(capacities, sinks=1, algorithm=algorithm, cuts=True, check=True)
    for array in (flows.values, flows.lower, flows.upper):
        np.testing.assert_array_equal(array, [[0.0, 0.0]])
    case = Case.layered(capacities, sinks=[1])
    assert check_cut(flows, case, 0, 0) == check_cut(flows, case, 0, 1) == 0


def test_a_node_cannot_be_source_and_sink():
    links = [maxflow.Link(0, 1, np.ones((2, 2)))]
    for sources, sinks in (([(0, 0)], [(0, 0)]), ([[(0, 0), (1, 1)]], [[(1, 0), (1, 1)]])):
        with pytest.raises(InvalidArgumentError, match="sink"):
            maxflow.blocks((2, 2), links, sources=sources, sinks=sinks)


# ---- dtypes and strides ----------------------------------------------------------------------------------------------

REALS = [np.dtype(kind) for kind in ("e", "f", "d", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q")]


@pytest.mark.parametrize("dtype", [*REALS, *(dtype.newbyteorder(">") for dtype in REALS)], ids=lambda d: d.str)
@every_algorithm
def test_dtypes(dtype, algorithm):
    case = FAMILIES["integers"]
    cast = Case(case.sizes, [(g, r, c.astype(dtype), o) for g, r, c, o in case.links], case.sources, case.sinks)
    check_bounds(solve(cast, algorithm=algorithm), case, exact_family("integers"))
    check_bounds(solve_layered(cast, algorithm=algorithm), case, exact_family("integers"))


@pytest.mark.parametrize("dtype", ["e", "f", "d", "i2", "i8"])
def test_diagonals_of_every_dtype(dtype):
    diagonal = np.array([1, 2, 3, 4], dtype=dtype)[::-1]
    links = [maxflow.Link(0, 1, diagonal, 1), maxflow.Link(1, 2, np.ones((1, 5), dtype=dtype) * 3)]
    values = maxflow.blocks((4, 5, 1), links, sources=[(0, k) for k in range(4)], sinks=[(2, 0)]).values
    np.testing.assert_array_equal(values, [[3, 3, 2, 1]])


@pytest.mark.parametrize("offset", [-4, -3, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 70])
def test_diagonals_with_an_offset(offset, size):
    """Edges that would end outside the receiver do not exist."""
    diagonal = np.arange(1, 4)
    links = [maxflow.Link(0, 1, diagonal, offset), maxflow.Link(1, 2, np.full((1, size), 100))]
    values = maxflow.blocks((3, size, 1), links, sources=[(0, k) for k in range(3)], sinks=[(2, 0)], check=True).values
    expected = [k + 1 if 0 <= k + offset < size else 0 for k in range(3)]
    np.testing.assert_array_equal(values, [expected])


def views(capacities):
    yield "Fortran", np.asfortranarray(capacities)
    yield "transposed", np.ascontiguousarray(capacities.transpose(2, 1, 0)).transpose(2, 1, 0)
    yield "negative strides", np.ascontiguousarray(capacities[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    larger = np.full((2 * len(capacities), *(3 * size for size in capacities.shape[1:])), 7, dtype=capacities.dtype)
    larger[::2, 1::3, ::3] = capacities
    yield "slices", larger[::2, 1::3, ::3]
    fields = np.zeros(capacities.shape, dtype=[("pad", "i1"), ("c", capacities.dtype)])
    fields["c"] = capacities
    yield "unaligned", fields["c"]
    locked = capacities.copy()
    locked.flags.writeable = False
    yield "read-only", locked
    yield "list of lists", capacities.tolist()
    yield "tuple of layers", tuple(capacities)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8])
@every_algorithm
def test_strides(dtype, algorithm):
    capacities = np.stack(instances.integers([5, 5, 5, 5], seed=1, high=50)).astype(dtype)
    expected = maxflow.layered(capacities, sinks=range(5), algorithm=algorithm).values
    before = capacities.copy()
    for name, view in views(capacities):
        flows = maxflow.layered(view, sinks=range(5), algorithm=algorithm, check=True)
        np.testing.assert_array_equal(flows.values, expected, err_msg=name)
    np.testing.assert_array_equal(capacities, before)


@every_algorithm
def test_broadcast_capacities(algorithm):
    row = np.array([1, 2, 4, 8])
    one = np.broadcast_to(row, (3, 4, 4))  # stride 0 along layers and receivers
    expected = maxflow.layered(np.ascontiguousarray(one), sinks=range(4)).values
    np.testing.assert_array_equal(maxflow.layered(one, sinks=range(4), algorithm=algorithm).values, expected)
    constant = np.broadcast_to(np.float32(0.25), (2, 3, 3))
    np.testing.assert_array_equal(maxflow.layered(constant, algorithm=algorithm).values, [[0.75] * 3])
    diagonal = np.broadcast_to(2.0, (3,))
    links = [maxflow.Link(0, 1, diagonal)]
    assert maxflow.blocks((3, 3), links, sources=[(0, 1)], sinks=[(1, 1)], algorithm=algorithm).values == 2.0


@pytest.mark.parametrize("dtype", [bool, object, str, bytes, np.complex64, np.complex128, "M8[s]", "m8[s]", "V8"])
def test_dtypes_refused(dtype):
    capacities = np.zeros((2, 3, 3), dtype=dtype)
    with pytest.raises(InvalidCapacityError, match="dtype"):
        maxflow.layered(capacities)
    with pytest.raises(InvalidCapacityError, match="dtype"):
        maxflow.blocks((3, 3), [maxflow.Link(0, 1, capacities[0])], sources=[(0, 0)], sinks=[(1, 0)])


# ---- exactness -------------------------------------------------------------------------------------------------------


@every_algorithm
@pytest.mark.parametrize("capacity", [2**24 + 1, 2**31 - 1, 2**32 + 5, 2**53 - 1, 2**53 + 1, 2**60 - 1])
def test_large_integers_are_exact(capacity, algorithm):
    """Where peers wrap to 32 bits or round to 53. Beyond 2^53 the bounds are the floats on either side."""
    flows = maxflow.layered(np.array([[[capacity]]]), algorithm=algorithm, check=True)
    lower, value, upper = (int(a[0, 0]) for a in (flows.lower, flows.values, flows.upper))
    assert lower <= capacity <= upper
    assert lower <= value <= upper
    assert upper - lower <= (0 if capacity <= 2**53 else math.ulp(capacity))


@every_algorithm
def test_sums_of_large_integers(algorithm):
    rng = np.random.default_rng(0)
    matrices = [rng.integers(2**50, 2**52, (4, 3)), rng.integers(2**50, 2**52, (3, 4))]
    case = Case.layered(matrices)
    flows = solve(case, algorithm=algorithm, check=True)
    check_bounds(flows, case, [[exact(case, source, sink) for source in case.sources] for sink in case.sinks])


@pytest.mark.parametrize("dtype", ["<u4", ">u4", "<i8", ">i8", "<u8", ">u8"])
def test_integers_beyond_31_bits_never_wrap(dtype):
    assert maxflow.layered(np.array([[[2**32 - 5]]], dtype=dtype)).values == 2**32 - 5


def test_integers_too_large_are_refused():
    for capacities in (np.full((1, 1, 1), 2**64 - 1, dtype=np.uint64), np.full((1, 3, 3), 2**62)):
        with pytest.raises(InvalidCapacityError, match=r"2\^6\d"):
            maxflow.layered(capacities)


@every_algorithm
@pytest.mark.parametrize("power", [-1000, -950, -300, -1, 1, 300, 900, 1000])
def test_powers_of_two_scale_exactly(power, algorithm):
    capacities = instances.peaked(3, 6, seed=1).astype(np.float64)
    flows = maxflow.layered(capacities, sinks=range(6), algorithm=algorithm)
    scaled = maxflow.layered(np.ldexp(capacities, power), sinks=range(6), algorithm=algorithm, check=True)
    for name in ("values", "lower", "upper"):
        np.testing.assert_array_equal(getattr(scaled, name), np.ldexp(getattr(flows, name), power), err_msg=name)


@every_algorithm
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (np.float64, 1e300),
        (np.float64, 1e-300),
        (np.float64, 3.7e-310),  # below the normal numbers
        (np.float64, 5e-324),
        (np.float32, 1e38),
        (np.float32, 1e-38),
        (np.float32, 1e-44),
        (np.float16, 6e-8),
        (np.float16, 20000),
    ],
)
def test_extreme_magnitudes(scale, dtype, algorithm):
    unit = np.random.default_rng(1).integers(1, 4, (2, 4, 4)).astype(dtype)
    with np.errstate(under="ignore"):
        capacities = unit * dtype(scale)
    assert capacities.dtype == dtype
    assert np.all((capacities > 0) & (capacities < np.inf))
    case = Case.layered(capacities)
    flows = solve(case, algorithm=algorithm, check=True)
    assert np.all(flows.values > 0)
    check_bounds(flows, case, [[exact(case, source, sink) for source in case.sources] for sink in case.sinks])


@every_algorithm
def test_mixed_magnitudes_stay_within_the_bounds(algorithm):
    """What a quantum cannot resolve widens the interval; it never makes it wrong."""
    rng = np.random.default_rng(2)
    case = Case.layered(10.0 ** rng.uniform(-200, 200, (3, 5, 5)))
    flows = solve(case, algorithm=algorithm, check=True)
    for t, sink in enumerate(case.sinks):
        for s, source in enumerate(case.sources):
            answer = exact(case, source, sink).value
            assert Fraction(flows.lower[t, s]) <= answer <= Fraction(flows.upper[t, s])
            assert flows.lower[t, s] <= flows.values[t, s] <= flows.upper[t, s]


@every_algorithm
def test_a_small_pair_beside_large_ones(algorithm):
    """A value far below the largest capacity is still held by its bounds, closely in absolute terms."""
    capacities = np.array([[[1.0, 0.0], [0.0, 2.0**-40 + 2.0**-70]]])
    flows = maxflow.layered(capacities, sinks=[0, 1], algorithm=algorithm)
    assert flows.lower[1, 1] <= capacities[0, 1, 1] <= flows.upper[1, 1]
    assert flows.upper[1, 1] - flows.lower[1, 1] <= 2.0**-55


# ---- unbounded edges -------------------------------------------------------------------------------------------------


@every_algorithm
def test_unbounded_edges_pass_everything(algorithm):
    links = [
        maxflow.Link(0, 1, np.array([[0.25, 0.5], [np.inf, 0.0]])),
        maxflow.Link(1, 2, np.full(2, np.inf)),
        maxflow.Link(2, 3, np.array([[2.0, 3.0]], dtype=np.float32)),
    ]
    case = Case((2, 2, 2, 1), [(k.giver, k.receiver, k.capacities, 0) for k in links], [[(0, 0)], [(0, 1)]], [[(3, 0)]])
    flows = solve(case, algorithm=algorithm, check=True)
    np.testing.assert_array_equal(flows.values, [[3.25, 0.5]])
    np.testing.assert_array_equal(flows.upper, [[3.25, 0.5]])
    for s in range(2):
        pair = one_pair(case, 0, s)
        check_certificate(solve(pair, algorithm=algorithm, cuts=True, flows=True), pair)


@every_algorithm
def test_unbounded_answers_are_an_error(algorithm):
    capacities = np.array([[[np.inf, 1.0], [0.0, 1.0]], [[np.inf, 1.0], [1.0, 1.0]]])
    with pytest.raises(UnboundedFlowError, match="unbounded"):
        maxflow.layered(capacities, sinks=0, algorithm=algorithm)
    np.testing.assert_array_equal(maxflow.layered(capacities, sinks=1, algorithm=algorithm).values, [[1.0, 2.0]])
    np.testing.assert_array_equal(maxflow.layered(capacities, sinks=0, sources=[1]).values, [[2.0]])
    with pytest.raises(UnboundedFlowError):
        maxflow.layered(np.full((1, 1, 1), np.inf), algorithm=algorithm)
    with pytest.raises(UnboundedFlowError):
        maxflow.layered(capacities, sources=[{0, 1}], sinks=[{0, 1}], algorithm=algorithm)


@every_algorithm
def test_unbounded_cycles_do_no_harm(algorithm):
    links = [
        maxflow.Link(0, 1, np.array([[3]])),
        maxflow.Link(1, 2, np.array([np.inf])),
        maxflow.Link(2, 1, np.array([np.inf])),
        maxflow.Link(2, 3, np.array([[2]])),
    ]
    case = Case((1, 1, 1, 1), [(k.giver, k.receiver, k.capacities, 0) for k in links], [[(0, 0)]], [[(3, 0)]])
    check_certificate(solve(case, algorithm=algorithm, cuts=True, flows=True, check=True), case)


@every_algorithm
@pytest.mark.parametrize("large", [8.0, 1e15, np.inf])
@pytest.mark.parametrize("width", [2, 3, 4, 5, 9])
def test_sums_of_edges_far_above_what_the_sink_takes(width, large, algorithm):
    """Their sum must not overflow, wherever it is taken: at the source, in the middle, at a super sink."""
    wide, narrow = np.full((width, 1), large), np.full((1, width), 0.25)
    middle = np.full((width, width), large)
    for matrices in ([wide, narrow], [wide, middle, narrow], [wide, middle, middle, narrow]):
        flows = maxflow.layered(matrices, algorithm=algorithm, check=True, bottlenecks=True)
        assert flows.values == flows.lower == flows.upper == width / 4
        assert flows.bottlenecks == maxflow.SINK
    for matrices in ([narrow.T, wide.T], [narrow.T, middle, wide.T]):
        flows = maxflow.layered(matrices, algorithm=algorithm, check=True, bottlenecks=True)
        assert flows.values == flows.lower == flows.upper == width / 4
        assert flows.bottlenecks == maxflow.SOURCE
    flows = maxflow.layered([narrow.T, middle], sinks=[set(range(width))], algorithm=algorithm, check=True)
    assert flows.values == width / 4
    if large == np.inf:
        for matrices in ([wide], [wide, middle], [wide, middle, wide.T]):
            with pytest.raises(UnboundedFlowError):
                maxflow.layered(matrices, sinks=[set(range(len(matrices[-1])))], algorithm=algorithm, check=True)


@every_algorithm
def test_parallel_unbounded_edges(algorithm):
    links = [maxflow.Link(0, 1, np.array([[np.inf]])) for _ in range(5)]
    for count in (1, 2, 3, 5):
        with pytest.raises(UnboundedFlowError):
            maxflow.blocks((1, 1), links[:count], sources=[(0, 0)], sinks=[(1, 0)], algorithm=algorithm)


@every_algorithm
def test_zero_and_negative_zero_are_no_edges(algorithm):
    capacities = np.array([[[-0.0, 1.0], [0.0, -0.0]]])
    flows = maxflow.layered(capacities, sinks=[0, 1], algorithm=algorithm, bottlenecks=True)
    np.testing.assert_array_equal(flows.values, [[0.0, 1.0], [0.0, 0.0]])
    assert not np.signbit(flows.values).any()


# ---- the checker can fail --------------------------------------------------------------------------------------------


@pytest.fixture
def certified():
    case = one_pair(FAMILIES["integers"], 0, 1)
    flows = solve(case, flows=True, cuts=True)
    assert flows.values[0, 0] > 0
    return case, flows


def test_the_certificate_notices_every_kind_of_fault(certified):
    import dataclasses

    case, flows = certified
    check_certificate(flows, case)
    edge, (row,) = flows.flows, flows.cuts
    value = flows.values[0, 0]
    less = edge.flow.copy()
    less[0] -= 1
    sides = [side.copy() for side in row[0].source_side]
    sides[case.sources[0][0][0]][case.sources[0][0][1]] = False
    wide = [np.ones_like(side) for side in sides]
    wide[-1][:] = False
    faults = {
        "value": {"values": np.array([[value + 1]])},
        "lower": {"lower": np.array([[value + 1]])},
        "upper": {"upper": np.array([[value - 1]])},
        "flow too small": {"flows": dataclasses.replace(edge, flow=less)},
        "flow too large": {"flows": dataclasses.replace(edge, flow=edge.flow + 100)},
        "no flow": {"flows": dataclasses.replace(edge, flow=edge.flow * 0)},
        "cut off the source": {"cuts": ((dataclasses.replace(row[0], source_side=tuple(sides)),),)},
        "a larger cut": {"cuts": ((dataclasses.replace(row[0], source_side=tuple(wide)),),)},
        "capacity of the cut": {"cuts": ((dataclasses.replace(row[0], capacity=row[0].capacity + 1),),)},
    }
    unnoticed = []
    for name, fault in faults.items():
        try:
            check_certificate(dataclasses.replace(flows, **fault), case)
        except AssertionError:
            continue
        unnoticed.append(name)
    assert not unnoticed


def test_the_oracles_agree_with_a_network_solved_by_hand():
    """Two disjoint routes of 2 and 3 into a neck of 4."""
    case = Case((1, 2, 1, 1), [(0, 1, [[2], [3]]), (1, 2, [[9, 9]]), (2, 3, [[4]])], [[(0, 0)]], [[(3, 0)]])
    case = Case(case.sizes, [(g, r, np.array(c), o) for g, r, c, o in case.links], case.sources, case.sinks)
    answer = Answer(Fraction(4), frozenset({(0, 0), (1, 0), (1, 1), (2, 0)}))
    assert exact(case, [(0, 0)], [(3, 0)]) == by_enumeration(case, (0, 0), (3, 0)) == answer
    assert by_linear_program(case, [(0, 0)], [(3, 0)]) == pytest.approx(4)
    assert by_scipy(case) == 4
    assert bottleneck(case, [(0, 0)], [(3, 0)]) == {"sink"}
