"""Baselines against their definitions, path by path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attnflow import baselines, instances

STACKS = {
    "softmax": list(instances.softmax(3, 4, seed=1)),
    "peaked": list(instances.peaked(2, 5, seed=2)),
    "one layer": list(instances.softmax(1, 4, seed=3)),
    "widths": [layer.astype(float) for layer in instances.integers([3, 4, 2], seed=4)],
}


def paths(stack):
    """(source, sink, capacities along the path) of every path."""
    widths = [stack[0].shape[1], *(layer.shape[0] for layer in stack)]
    for nodes in itertools.product(*(range(width) for width in widths)):
        yield nodes[0], nodes[-1], [layer[j, k] for layer, k, j in zip(stack, nodes, nodes[1:], strict=False)]


@pytest.mark.parametrize("name", STACKS)
def test_rollout_sums_the_products_along_all_paths(name):
    stack = STACKS[name]
    expected = np.zeros((stack[-1].shape[0], stack[0].shape[1]))
    for source, sink, capacities in paths(stack):
        expected[sink, source] += np.prod(capacities, dtype=float)
    np.testing.assert_allclose(baselines.rollout(stack, sinks=range(len(expected))), expected, rtol=1e-12)


@pytest.mark.parametrize("name", STACKS)
def test_widest_path_is_the_best_bottleneck_of_all_paths(name):
    stack = STACKS[name]
    expected = np.zeros((stack[-1].shape[0], stack[0].shape[1]))
    for source, sink, capacities in paths(stack):
        expected[sink, source] = max(expected[sink, source], min(capacities))
    np.testing.assert_array_equal(baselines.widest_path(stack, sinks=range(len(expected))), expected)


def test_raw_attention():
    stack = instances.softmax(3, 4, seed=1, residual=0.0)
    np.testing.assert_allclose(baselines.raw_attention(stack), stack[-1][[3]], rtol=1e-7)
    np.testing.assert_allclose(baselines.raw_attention(stack, sinks=[0, 1], layers=0), stack[0][:2], rtol=1e-7)
    np.testing.assert_allclose(baselines.raw_attention(stack, layers=-2), stack[1][[3]], rtol=1e-7)
    mean = baselines.raw_attention(stack, sinks=range(4), layers="mean")
    np.testing.assert_allclose(mean, stack.mean(axis=0, dtype=float), rtol=1e-6)


@pytest.mark.parametrize("function", [baselines.rollout, baselines.raw_attention, baselines.widest_path])
def test_sinks_and_sources_as_for_the_flows(function):
    stack = instances.softmax(2, 5, seed=5)
    full = function(stack, sinks=range(5))
    assert full.shape == (5, 5)
    assert full.dtype == np.float64
    np.testing.assert_array_equal(function(stack), full[[4]])
    np.testing.assert_array_equal(function(stack, sinks=np.int8(-2)), full[[3]])
    np.testing.assert_array_equal(function(stack, sinks=[3, 0], sources=[-1, 2]), full[[3, 0]][:, [4, 2]])
    join = np.max if function is baselines.widest_path else np.sum
    for sinks in ({1, 2}, [{1, 2}], [[1, 2, 1]], np.array([[2, 1]])):
        joined = function(stack, sinks=sinks, sources=[{0, 3}, 4])
        expected = [[join(full[1:3][:, [0, 3]]), join(full[1:3, 4])]]
        np.testing.assert_allclose(joined, expected, rtol=1e-12)


def test_pooling_of_rollout_is_the_mean():
    stack = list(instances.softmax(2, 5, seed=6))
    pooled = baselines.rollout([*stack, np.full((1, 5), 0.2)])
    np.testing.assert_allclose(pooled[0], baselines.rollout(stack, sinks=range(5)).mean(axis=0), rtol=1e-12)


def test_rollout_of_attention_sums_to_one():
    np.testing.assert_allclose(baselines.rollout(instances.peaked(6, 20, seed=7), sinks=range(20)).sum(axis=1), 1.0)


def test_unbounded_edges_never_limit_the_widest_path():
    assert baselines.widest_path([[[np.inf]], [[0.25]]]) == 0.25


def test_input_is_not_modified():
    stack = instances.softmax(2, 3, seed=8).astype(np.float64)
    before = stack.copy()
    for function in (baselines.rollout, baselines.raw_attention, baselines.widest_path):
        function(stack)
        np.testing.assert_array_equal(stack, before)
