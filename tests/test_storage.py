"""Triangles and sparse matrices: the same flows as whole matrices, and intervals that hold what was dropped."""

from __future__ import annotations

import copy
import pickle
import re
import weakref
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import Case, exact

from attnflow import Network, SparseMatrix, TriangularMatrix, instances, maxflow
from attnflow.errors import InvalidArgumentError, InvalidCapacityError
from attnflow.maxflow import Link

torch = pytest.importorskip("torch")

nan, inf = float("nan"), float("inf")
dtypes = [np.float32, np.float64, np.int32, np.int64]


def causal_stack(n_layers=3, n=7, dtype=np.float32):
    return instances.peaked(n_layers, n, seed=n).astype(dtype)


def wholes(n_layers=3, n=7, dtype=np.int64):
    return np.tril(np.random.default_rng(n).integers(0, 9, (n_layers, n, n))).astype(dtype)


def sparse(matrix, **options):
    return SparseMatrix.from_dense(matrix, **options)


def refused(error, *patterns):
    return pytest.raises(error, match="(?is)" + "".join(f"(?=.*(?:{pattern}))" for pattern in patterns))


# ---- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*dtypes, np.float16, np.uint8])
@pytest.mark.parametrize("n", [1, 2, 65, 130])
def test_a_triangle_there_and_back(n, dtype):
    matrix = np.tril(np.random.default_rng(n).integers(0, 9, (n, n))).astype(dtype)
    triangle = TriangularMatrix.from_dense(matrix)
    assert triangle.shape == (n, n)
    assert triangle.dtype == (np.float32 if dtype == np.float16 else dtype)
    np.testing.assert_array_equal(triangle.to_dense(), matrix)
    np.testing.assert_array_equal(triangle.values, matrix[np.tril_indices(n)])
    assert triangle.nbytes == n * (n + 1) // 2 * triangle.dtype.itemsize
    assert repr(triangle) == f"TriangularMatrix(({n}, {n}) {triangle.dtype})"


@pytest.mark.parametrize("dtype", [*dtypes, np.float16, np.uint8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (70, 2), (66, 66)])
def test_a_sparse_matrix_there_and_back(shape, dtype):
    random = np.random.default_rng(1)
    matrix = (random.integers(0, 9, shape) * (random.random(shape) < 0.3)).astype(dtype)
    stored = sparse(matrix)
    np.testing.assert_array_equal(stored.to_dense(), matrix)
    assert stored.dropped_in is None
    assert stored.dropped_out is None
    assert len(stored.values) == np.count_nonzero(matrix)
    assert repr(stored) == f"SparseMatrix({shape} {stored.dtype}, kept={np.count_nonzero(matrix)})"
    reference = scipy.sparse.csr_array(matrix.astype(stored.dtype))
    for mine, other in zip(
        (stored.starts, stored.columns, stored.values),
        (reference.indptr, reference.indices, reference.data),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


def test_triangles_and_tensors_become_sparse():
    matrix = wholes()[0]
    for given_as in (TriangularMatrix.from_dense(matrix), torch.from_numpy(matrix), sparse(matrix), matrix.tolist()):
        np.testing.assert_array_equal(sparse(given_as).to_dense(), matrix)
    np.testing.assert_array_equal(TriangularMatrix.from_dense(torch.from_numpy(matrix)).to_dense(), matrix)


def test_many_chunks_are_one_matrix(monkeypatch):
    matrix = causal_stack(1, 40)[0]
    once = sparse(matrix, keep=3)
    monkeypatch.setattr("attnflow.storage._CHUNK", 100)
    again = sparse(matrix, keep=3)
    np.testing.assert_array_equal(once.to_dense(), again.to_dense())
    np.testing.assert_allclose(once.dropped_out, again.dropped_out, rtol=1e-12)
    np.testing.assert_array_equal(TriangularMatrix.from_dense(matrix).to_dense(), matrix)


def test_frozen_read_only_and_fit_for_pickle():
    for made in (TriangularMatrix.from_dense(wholes()[0]), sparse(causal_stack()[0], keep=2)):
        with pytest.raises(AttributeError):
            made.values = None
        with pytest.raises(ValueError, match="read-only"):
            made.values[0] = 1
        for same in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
            np.testing.assert_array_equal(same.to_dense(), made.to_dense())
            assert repr(same) == repr(made)
            assert not same.values.flags.writeable


# ---- dropping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", dtypes)
@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5)])
@pytest.mark.parametrize("keep", [None, 0, 1, 3, 100])
@pytest.mark.parametrize("below", [None, 0, 4, 1000])
def test_what_is_kept_and_what_is_summed_up(dtype, shape, keep, below):
    matrix = np.random.default_rng(3).permutation(shape[0] * shape[1]).reshape(shape)
    matrix = (matrix * (matrix % 3 > 0)).astype(dtype)
    stored = sparse(matrix, keep=keep, below=below)
    kept = stored.to_dense()
    for j, row in enumerate(matrix):
        least = 0 if keep is None else sorted(row.tolist(), reverse=True)[keep - 1] if 0 < keep < len(row) else 0
        for k, c in enumerate(row):
            straight = j == k and shape[0] == shape[1]
            wanted = c > 0 and (straight or (c >= least and keep != 0 and (below is None or c >= below)))
            assert kept[j, k] == (c if wanted else 0), (j, k)
    lost = (matrix - kept).astype(np.float64)
    if not lost.any():
        assert stored.dropped_in is stored.dropped_out is None
        return
    np.testing.assert_allclose(stored.dropped_in, lost.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(stored.dropped_out, lost.sum(axis=0), rtol=1e-12)
    assert np.all(stored.dropped_in >= lost.sum(axis=1))
    assert np.all(stored.dropped_out >= lost.sum(axis=0))
    assert np.dtype(dtype).kind == "f" or np.array_equal(stored.dropped_in, lost.sum(axis=1))
    assert stored.dropped_causal == (not np.triu(lost, 1).any())


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 2.0**100, width=32)),
    st.integers(0, 3),
)
def test_sums_bound_what_was_dropped(matrix, keep):
    stored = sparse(matrix, keep=keep)
    lost = matrix - stored.to_dense()
    for sums, along in ((stored.dropped_in, lost), (stored.dropped_out, lost.T)):
        for i, terms in enumerate(along):
            total = sum(map(Fraction, terms.tolist()))
            assert (0 if sums is None else Fraction(sums[i])) >= total


@pytest.mark.parametrize("row", [[2**53, 1, 0], [2**53 + 1, 0], [2**53 - 1, 1, 1], [2**53 - 1, 0, 0]])
def test_sums_of_integers_beyond_float64(row):
    """2^53 + 1 has no float64: what bounds it is above."""
    stored = sparse(np.array([row], dtype=np.int64), keep=0)
    for bound in (stored.dropped_in[0], maxflow.layered([stored], sources=[set(range(len(row)))], sinks=0).upper[0, 0]):
        assert int(bound) == sum(row) if sum(row) < 2**53 else int(bound) > 2**53
    given = SparseMatrix((2, 1), [0, 0, 0], [], np.array([], dtype=int), np.array([2**53 + 1, 1]), [2**53 + 2])
    assert (int(given.dropped_in[0]) > 2**53, int(given.dropped_in[1])) == (True, 1)


def test_infinite_entries_are_kept():
    matrix = np.array([[inf, inf, 3.0], [1.0, 2.0, inf], [1.0, 1.0, 1.0]])
    stored = sparse(matrix, keep=1, below=2.5)
    np.testing.assert_array_equal(stored.to_dense(), [[inf, inf, 0], [0, 2, inf], [0, 0, 1]])
    np.testing.assert_allclose(stored.dropped_in, [3, 1, 2])


def test_what_was_dropped_before_counts():
    matrix = causal_stack(1, 20)[0]
    once, twice = sparse(matrix, keep=2), sparse(sparse(matrix, keep=6), keep=2)
    np.testing.assert_array_equal(once.to_dense(), twice.to_dense())
    for name in ("dropped_in", "dropped_out"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-12)
    assert twice.dropped_causal
    assert not sparse(SparseMatrix((1, 2), [0, 0], [], np.zeros(0), [1.0], [0.0, 1.0])).dropped_causal


# ---- the same flows --------------------------------------------------------------------------------------------------


def forms(matrices):
    """The same layers in every storage, mixed too."""
    made = {
        "triangle": [TriangularMatrix.from_dense(matrix) for matrix in matrices],
        "sparse": [sparse(matrix) for matrix in matrices],
        "scipy csr": [scipy.sparse.csr_matrix(matrix) for matrix in matrices],
        "scipy csc": [scipy.sparse.csc_array(matrix) for matrix in matrices],
        "scipy coo, entries in parts": [
            scipy.sparse.coo_array((np.repeat(matrix[matrix > 0], 2) / 2, np.repeat(np.nonzero(matrix), 2, axis=1)))
            if matrix.dtype.kind == "f" and matrix[-1, -1]
            else scipy.sparse.coo_array(matrix)
            for matrix in matrices
        ],
    }
    pick = [list(matrices), made["triangle"], made["sparse"]]
    made["mixed"] = [pick[layer % 3][layer] for layer in range(len(matrices))]
    return made


def everything(matrices, **options):
    n = len(matrices)
    links = [Link(layer, layer + 1, matrix) for layer, matrix in enumerate(matrices)]
    top = matrices[0].shape[0]
    pair = {"sources": [(0, min(1, top - 1))], "sinks": [(n, top - 1)]}
    return (
        maxflow.layered(matrices, sinks=[0, top // 2, -1], bottlenecks=True, cuts=True, check=True, **options),
        maxflow.blocks([top] * (n + 1), links, **pair, flows=True, cuts=True, check=True, **options),
    )


def assert_same(answers, expected):
    for one, other in zip(answers, expected, strict=True):
        for name in ("values", "lower", "upper"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (one.bottlenecks is None) or np.array_equal(one.bottlenecks, other.bottlenecks)
        for row, other_row in zip(one.cuts, other.cuts, strict=True):
            for cut, other_cut in zip(row, other_row, strict=True):
                assert cut.capacity == other_cut.capacity
                assert all(map(np.array_equal, cut.source_side, other_cut.source_side))


@pytest.mark.parametrize("dtype", dtypes)
@pytest.mark.parametrize(("n", "algorithm"), [(3, "auto"), (70, "auto"), (20, "push_relabel")])
def test_every_storage_has_the_same_flows(n, dtype, algorithm):
    matrices = wholes(4, n, dtype) if np.dtype(dtype).kind == "i" else causal_stack(4, n, dtype)
    expected = everything(list(matrices), algorithm=algorithm)
    for name, form in forms(matrices).items():
        if "parts" in name and np.dtype(dtype) == np.float32:
            continue  # halves of the smallest floats are none
        assert_same(everything(form, algorithm=algorithm), expected)


@given(st.integers(1, 4), st.integers(1, 6), st.data())
def test_every_storage_has_the_same_flows_as_the_oracle(n_layers, n, data):
    elements = st.one_of(st.just(0), st.integers(0, 9))
    matrices = np.tril(data.draw(hnp.arrays(np.int64, (n_layers, n, n), elements=elements)))
    case = Case.layered(matrices)
    expected = [[exact(case, source, sink).value for source in case.sources] for sink in case.sinks]
    for form in ([TriangularMatrix.from_dense(m) for m in matrices], [sparse(m) for m in matrices]):
        flows = maxflow.layered(form, sinks=range(n), check=True)
        np.testing.assert_array_equal(flows.values, expected)
        np.testing.assert_array_equal(flows.upper, expected)


def test_rectangular_sparse_layers_and_dtypes_side_by_side():
    random = np.random.default_rng(8)
    a, b = random.random((5, 3)), random.integers(0, 4, (2, 5))
    expected = maxflow.layered([a, b], sinks=[0, 1])
    for form in (
        [sparse(a), b],
        [a, sparse(b)],
        [sparse(a), sparse(b.astype(np.uint8))],
        [a, scipy.sparse.csr_array(b)],
    ):
        np.testing.assert_array_equal(maxflow.layered(form, sinks=[0, 1]).values, expected.values)
    integers = maxflow.layered([sparse(b.T.astype(np.int16)), sparse(b)], sinks=[0, 1])
    np.testing.assert_array_equal(integers.values, maxflow.layered([b.T, b], sinks=[0, 1]).values)


# ---- intervals -------------------------------------------------------------------------------------------------------


@st.composite
def thinned(draw):
    """Layers of small integers, the same with edges dropped in some, or in all."""
    n_layers, n, causal = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.booleans())
    elements = st.one_of(st.just(0), st.integers(0, 9))
    matrices = draw(hnp.arrays(np.int64, (n_layers, n, n), elements=elements))
    matrices = np.tril(matrices) if causal else matrices
    keep = draw(st.one_of(st.none(), st.integers(0, 2)))
    below = draw(st.one_of(st.none(), st.integers(0, 9)))
    thin = [sparse(matrix, keep=keep, below=below) if draw(st.booleans()) else matrix for matrix in matrices]
    return matrices, thin


@settings(max_examples=200)
@given(thinned(), st.sampled_from(["auto", "push_relabel"]))
def test_the_interval_holds_the_flow_of_all_edges(layers, algorithm):
    matrices, thin = layers
    n = matrices.shape[1]
    case = Case.layered(matrices)
    flows = maxflow.layered(thin, sinks=range(n), algorithm=algorithm, check=True)
    kept = [m if isinstance(m, np.ndarray) else m.to_dense() for m in thin]
    np.testing.assert_array_equal(flows.values, maxflow.layered(kept, sinks=range(n)).values)
    np.testing.assert_array_equal(flows.values, flows.lower)
    dropped = any(isinstance(m, SparseMatrix) and m.dropped_in is not None for m in thin)
    for t, sink in enumerate(case.sinks):
        for s, source in enumerate(case.sources):
            answer = exact(case, source, sink).value
            assert flows.lower[t, s] <= answer <= flows.upper[t, s]
            assert dropped or flows.lower[t, s] == flows.upper[t, s]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("options", [{"keep": 8}, {"below": 0.02}, {"keep": 20, "below": 0.01}], ids=str)
def test_intervals_of_attention(causal, options):
    n = 60
    whole = Network.encoder(instances.softmax(5, n, seed=4, causal=causal), residual=0)
    sinks, sources = [0, n // 2, n - 1], [*range(0, n, 7), [3, 4, 5]]
    flows = whole.source_flows(sinks, sources=sources)
    thin = whole.sparsified(**options)
    bounds = thin.source_flows(sinks, sources=sources, check=True, cuts=True, bottlenecks=True)
    assert np.all(bounds.lower <= flows.values)
    assert np.all(flows.values <= bounds.upper)
    assert np.array_equal(bounds.upper, thin.source_flows(sinks, sources=sources, threads=2).upper)
    assert np.mean(bounds.upper - bounds.lower) < 0.5
    assert thin.n_edges < whole.n_edges
    assert thin.nbytes < whole.nbytes
    if causal:  # nothing comes from later positions, kept or dropped
        assert not bounds.upper[0, 1:-1].any()


def test_an_interval_without_a_bound_is_infinite():
    links = [
        Link(0, 1, np.array([inf])),
        Link(1, 2, SparseMatrix((1, 1), [0, 0], [], np.zeros(0), [3.0], [2.0])),
        Link(0, 2, np.array([inf])),
    ]
    flows = maxflow.blocks([1, 1, 1], links[:2], sources=[(0, 0)], sinks=[(2, 0)])
    assert flows.values[0, 0] == 0
    assert 2 <= flows.upper[0, 0] < 2.001


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("calibration", [None, "excess"])
def test_decoders_of_every_storage(library, calibration):
    heads = instances.peaked(6, 20, seed=2, residual=0).reshape(3, 2, 20, 20)
    made = {
        name: Network.decoder(library(heads), calibration=calibration, **options)
        for name, options in {"dense": {}, "triangle": {"storage": "triangle"}, "sparse": {"keep": 20}}.items()
    }
    expected = made["dense"].source_flows([5, -1], bottlenecks=True, check=True)
    for network in made.values():
        assert repr(network) == repr(made["dense"])
        flows = network.source_flows([5, -1], bottlenecks=True, check=True)
        np.testing.assert_array_equal(flows.values, expected.values)
        np.testing.assert_array_equal(flows.bottlenecks, expected.bottlenecks)
    assert made["triangle"].nbytes == 3 * 210 * 4 < made["dense"].nbytes == 3 * 400 * 4
    assert made["sparse"].nbytes == sum(link.capacities.nbytes for link in made["sparse"].links)
    pooled = [network.pooled([3, 4]).source_flows().values for network in made.values()]
    np.testing.assert_array_equal(pooled[0], pooled[1])
    np.testing.assert_array_equal(pooled[0], pooled[2])


def test_encoders_keep_the_largest():
    attention = instances.softmax(3, 12, seed=1, residual=0)
    thin = Network.encoder(attention, keep=4)
    whole = Network.encoder(attention)
    assert {type(link.capacities) for link in thin.links} == {SparseMatrix}
    for link, other in zip(thin.links, whole.sparsified(keep=4).links, strict=True):
        np.testing.assert_array_equal(link.capacities.to_dense(), other.capacities.to_dense())
    assert thin.n_edges <= 3 * 12 * 5


def test_layers_of_a_generator_live_one_at_a_time():
    drawn, most = [], []

    class Layer(np.ndarray):
        pass

    def layers():
        for seed in range(5):
            most.append(sum(layer() is not None for layer in drawn))  # before the next one is made
            layer = instances.peaked(1, 30, seed=seed, residual=0)[0].view(Layer)
            drawn.append(weakref.ref(layer))
            yield layer
            del layer

    for options in ({"storage": "triangle"}, {"keep": 3}, {"residual": 0, "keep": 3}, {"calibration": "excess"}):
        drawn.clear()
        most.clear()
        network = Network.decoder(layers(), **options)
        assert network.n_layers == 5
        assert max(most) == 0, options


def test_from_blocks_takes_every_storage():
    matrices = wholes(2, 5)
    expected = maxflow.layered(list(matrices), sinks=range(5)).values
    for form in forms(matrices).values():
        network = Network.from_blocks([5, 5, 5], [(0, 1, form[0]), Link(1, 2, form[1])])
        np.testing.assert_array_equal(network.source_flows(range(5)).values, expected)
        assert network.n_edges == np.count_nonzero(matrices)
    assert repr(Link(0, 1, sparse(matrices[0]))).startswith("Link(giver=0, receiver=1, capacities=SparseMatrix((5, 5)")
    assert "SparseMatrix" in repr(Link(0, 1, scipy.sparse.csr_array(matrices[0])))


def test_sparsified_leaves_diagonals_alone():
    network = Network.from_blocks([3, 3], [(0, 1, np.ones((3, 3))), (0, 1, np.full(3, 0.5), 1)])
    thin = network.sparsified(keep=0)
    assert isinstance(thin.links[0].capacities, SparseMatrix)
    np.testing.assert_array_equal(thin.links[1].capacities, network.links[1].capacities)
    assert thin.n_edges == 3 + 2


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "values", "error", "said"),
    [
        (0, [], InvalidArgumentError, "n is 0"),
        (1.5, [1.0], InvalidArgumentError, "n is 1.5"),
        (2, [1.0, 2.0], InvalidCapacityError, r"2 entries.*n=2.*3"),
        (1, [[1.0]], InvalidCapacityError, r"values has shape \(1, 1\)"),
        (1, [1j], InvalidCapacityError, "values has dtype complex128"),
        (1, "a", InvalidCapacityError, "dtype"),
    ],
)
def test_triangles_that_are_none(n, values, error, said):
    with refused(error, said):
        TriangularMatrix(n, values)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\).*square"),
        (np.ones(3), r"shape \(3,\)"),
        (np.zeros((0, 0)), r"shape \(0, 0\).*empty"),
        ([[1.0, 0.25], [1.0, 1.0]], r"matrix\[0, 1\] is 0.25.*above the diagonal"),
        ([[1.0, nan], [1.0, 1.0]], r"matrix\[0, 1\] is nan"),
        (None, "dtype object"),
        (sparse(np.eye(3) + 1, keep=1), "matrix is SparseMatrix.*dropped"),
        (np.ma.masked_array(np.eye(2), mask=True), "masked array"),
        ([[1], [1, 2]], "not an array"),
    ],
)
def test_matrices_that_are_no_triangles(matrix, said):
    with refused(InvalidCapacityError, said):
        TriangularMatrix.from_dense(matrix)


GOOD = {"shape": (2, 3), "starts": [0, 2, 3], "columns": [0, 2, 1], "values": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"shape": 3}, InvalidArgumentError, "shape is 3"),
        ({"shape": (0, 3)}, InvalidArgumentError, r"shape\[0\] is 0"),
        ({"starts": [0, 3]}, InvalidCapacityError, "starts has 2 entries.*needs 3"),
        ({"starts": [1, 2, 3]}, InvalidCapacityError, r"starts\[0\] is 1"),
        ({"starts": [0, 4, 3]}, InvalidCapacityError, r"starts\[2\] is 3, less than starts\[1\], 4"),
        ({"starts": [0, 2, 4]}, InvalidCapacityError, "3 columns and 3 values.*4"),
        ({"starts": [0.0, 2.0, 3.0]}, InvalidCapacityError, "starts.*float64.*integers"),
        ({"columns": [0, 2]}, InvalidCapacityError, "2 columns and 3 values"),
        ({"columns": [0, 3, 1]}, InvalidCapacityError, r"columns\[1\] is 3.*0 ... 2"),
        ({"columns": [0, -1, 1]}, InvalidCapacityError, "columns ranges from -1 to 1.*uint32"),
        ({"columns": [2, 0, 1]}, InvalidCapacityError, r"columns\[1\] is 0, after 2.*ascend"),
        ({"columns": [2, 2, 1]}, InvalidCapacityError, r"columns\[1\] is 2, after 2.*once"),
        ({"values": [1j, 2, 3]}, InvalidCapacityError, "values has dtype complex128"),
        ({"dropped_in": [1.0, 2.0]}, InvalidArgumentError, "dropped_in is given without dropped_out"),
        ({"dropped_out": [1.0, 2.0, 3.0]}, InvalidArgumentError, "dropped_out is given without dropped_in"),
        ({"dropped_in": [1.0], "dropped_out": [1.0] * 3}, InvalidCapacityError, "dropped_in has 1 entries.*2"),
        ({"dropped_in": [1.0, nan], "dropped_out": [1.0] * 3}, InvalidCapacityError, r"dropped_in\[1\] is nan"),
        ({"dropped_in": [1.0] * 2, "dropped_out": [1.0, -1, 0]}, InvalidCapacityError, r"dropped_out\[1\] is -1"),
        ({"dropped_in": [1.0, inf], "dropped_out": [1.0] * 3}, InvalidCapacityError, r"dropped_in\[1\] is inf"),
        ({"dropped_causal": 1}, InvalidArgumentError, "dropped_causal is 1"),
    ],
)
def test_sparse_matrices_that_are_none(change, error, said):
    SparseMatrix(**GOOD)
    with refused(error, said):
        SparseMatrix(**{**GOOD, **change})


def test_arrays_that_change_behind_a_matrix_are_refused():
    columns, dropped = np.array([0, 2, 1], np.uint32), np.ones(2)
    stored = SparseMatrix(**{**GOOD, "columns": columns, "dropped_in": dropped, "dropped_out": np.ones(3)})
    assert maxflow.layered([stored]).values.shape == (1, 3)
    columns[1] = 7
    with refused(InvalidArgumentError, "link 0", "columns of row 0"):
        maxflow.layered([stored])
    columns[1], dropped[0] = 2, nan
    with refused(InvalidArgumentError, "link 0", r"dropped_in\[0\] is nan"):
        maxflow.layered([stored])


def test_rows_without_entries_are_fine():
    stored = SparseMatrix((5, 2), [0, 0, 1, 1, 3, 3], [1, 0, 1], [4, 5, 6])
    np.testing.assert_array_equal(stored.to_dense(), [[0, 0], [0, 4], [0, 0], [5, 6], [0, 0]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": -1}, "keep is -1.*>= 0"),
        ({"keep": 1.5}, "keep is 1.5"),
        ({"keep": True}, "keep is True"),
        ({"below": -0.5}, "below is -0.5.*>= 0"),
        ({"below": nan}, "below is nan"),
        ({"below": "a"}, "below is 'a'"),
    ],
)
def test_what_to_keep(options, said):
    network, diagonal = Network.encoder(np.eye(3)[None]), Network.from_blocks([3, 3], [(0, 1, np.ones(3))])
    for call in (
        lambda: sparse(np.eye(3), **options),
        lambda: Network.encoder(np.eye(3)[None], **options),
        lambda: Network.decoder(np.eye(3)[None], **options),
        lambda: network.sparsified(**options),
        lambda: diagonal.sparsified(**options),
    ):
        with refused(InvalidArgumentError, said):
            call()


@pytest.mark.filterwarnings("error")
def test_thresholds_and_sums_beyond_the_dtype():
    for dtype in dtypes:
        for below in (10**400, 1e300, np.float64(1e300), inf):
            assert len(sparse(np.array([[1, 0], [2, 3]], dtype), below=below).values) == 2  # the straight ones
    assert sparse(np.array([[inf, 1.0, 2.0]], np.float32), below=1e300).values.tolist() == [inf]
    with refused(InvalidCapacityError, r"keep=0.*more than float64 holds into receiver 0 of matrix.*\(4, 4\)"):
        sparse(np.full((4, 4), 1e308), keep=0)
    with refused(InvalidCapacityError, "more than float64 holds out of giver 2 of matrix"):
        sparse(SparseMatrix((3, 3), [0, 0, 1, 1], [2], [1e308], [0, 0, 0], [0, 0, 1e308]), keep=0)


@pytest.mark.parametrize("value", [nan, -1.0])
def test_entries_that_are_no_capacities(value):
    bad = np.tri(3)
    bad[2, 1] = value
    with refused(InvalidCapacityError, rf"matrix\[2, 1\] is {value}.*>= 0"):
        sparse(bad, keep=1)
    stored = SparseMatrix((3, 3), [0, 1, 3, 6], [0, 0, 1, 0, 1, 2], bad[np.tril_indices(3)])
    for form in (TriangularMatrix.from_dense(bad), stored, scipy.sparse.csr_array(bad)):
        with refused(InvalidCapacityError, rf"^capacities\[1\]\[2, 1\] is {value}; .*shape \(3, 3\).*>= 0"):
            maxflow.layered([np.eye(3), form])
        with refused(InvalidCapacityError, "link 0", f"{value}", "receiver 2, giver 1", r"\(3, 3\)"):
            Network.from_blocks([3, 3], [(0, 1, form)])


def test_entries_too_large():
    for form in (TriangularMatrix(2, np.array([1, 1, 2**62])), SparseMatrix((2, 2), [0, 0, 1], [1], np.array([2**62]))):
        with refused(InvalidCapacityError, rf"capacities\[0\]\[1, 1\] is {2**62}.*2\^62"):
            maxflow.layered([form])
    with refused(InvalidCapacityError, r"capacities\[1\]\[1, 1\] is .*beside floating"):
        maxflow.layered([np.eye(2), TriangularMatrix(2, np.array([1, 1, 2**53 + 1]))])


def test_shapes_that_do_not_fit():
    for form in (TriangularMatrix(3, np.ones(6)), sparse(np.eye(3)), scipy.sparse.eye_array(3)):
        with refused(InvalidCapacityError, r"capacities\[1\] has shape \(3, 3\), but layer 0 ends in 2 nodes"):
            maxflow.layered([np.ones((2, 2)), form])
        for call in (
            lambda form=form: Network.from_blocks([2, 3], [(0, 1, form)]),
            lambda form=form: maxflow.blocks([2, 3], [Link(0, 1, form)], sources=[(0, 0)], sinks=[(1, 0)]),
        ):
            with refused(InvalidCapacityError, "links?.*0", re.escape("(3, 3)")):
                call()
        with refused(InvalidArgumentError, "offset"):
            maxflow.blocks([3, 3], [Link(0, 1, form, 1)], sources=[(0, 0)], sinks=[(1, 0)])


@pytest.mark.parametrize(
    "form", [scipy.sparse.csr_array, scipy.sparse.coo_matrix, TriangularMatrix.from_dense, sparse], ids=str
)
def test_every_storage_is_taken_where_matrices_are(form):
    matrix = np.tri(3) / 4
    given = form(matrix)
    for stored in (sparse(given), TriangularMatrix.from_dense(given)):
        np.testing.assert_array_equal(stored.to_dense(), matrix)
    assert len(sparse(given, keep=0).values) == 3
    for make in (Network.encoder, Network.decoder):
        made, whole = make([given, matrix]), make([matrix, matrix])
        np.testing.assert_array_equal(made.source_flows([0, 2]).values, whole.source_flows([0, 2]).values)
    with refused(InvalidCapacityError, r"^capacities is one matrix, .*\(3, 3\).*sequence of matrices"):
        maxflow.layered(given)
    with refused(InvalidCapacityError, "contributions must be", type(given).__name__):
        Network.encoder(given)
    with refused(InvalidCapacityError, "layer 1 is SparseMatrix", "dropped"):
        Network.encoder([given, sparse(matrix, keep=0)])


def test_scipy_matrices_that_are_none():
    with refused(InvalidCapacityError, r"capacities\[0\]", "complex128"):
        maxflow.layered([scipy.sparse.csr_array(np.eye(2) * 1j)])
    with refused(InvalidCapacityError, r"capacities\[0\]", r"\(0, 2\)", "empty"):
        maxflow.layered([scipy.sparse.csr_array((0, 2))])


@pytest.mark.parametrize("storage", ["sparse", None, 3, "Triangle"])
def test_storages_that_do_not_exist(storage):
    with refused(InvalidArgumentError, re.escape(repr(storage)), "dense", "triangle"):
        Network.decoder(np.eye(2)[None], storage=storage)


def test_a_triangle_drops_nothing():
    with refused(InvalidArgumentError, "triangle", "keep=3"):
        Network.decoder(np.eye(2)[None], storage="triangle", keep=3)
    with refused(InvalidCapacityError, "layer 0", "receiver 0, giver 1"):
        Network.decoder(np.ones((1, 2, 2)), storage="triangle")
