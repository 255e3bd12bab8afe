"""Sources, sinks and other positions: every function reads the same forms, and refuses the others in the same words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from attnflow import Network, baselines, maxflow
from attnflow.errors import InvalidArgumentError
from attnflow.maxflow import Link

torch = pytest.importorskip("torch")

STACK = np.tile(np.eye(3), (2, 1, 1))
FUNCTIONS = {
    "layered": lambda **where: maxflow.layered(STACK, **where).values,
    "source_flows": lambda **where: Network.encoder(STACK).source_flows(**where).values,
    "rollout": lambda **where: baselines.rollout(STACK, **where),
    "raw_attention": lambda **where: baselines.raw_attention(STACK, **where),
    "widest_path": lambda **where: baselines.widest_path(STACK, **where),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
either_end = pytest.mark.parametrize(("name", "block"), [("sources", 0), ("sinks", 2)])


def blocks(sources=((0, 0),), sinks=((1, 0),)):
    return maxflow.blocks((2, 3), [Link(0, 1, np.ones((3, 2)))], sources=sources, sinks=sinks)


def refused(said, end="$"):
    return pytest.raises(InvalidArgumentError, match=f"^{re.escape(said)}{end}")


# ---- positions of one block ------------------------------------------------------------------------------------------


@every_function
def test_every_form(function):
    expected = function(sinks=[2], sources=[0, 1])
    for two in (2, -1, np.int8(-1), np.array(2), torch.tensor(2), [2], (2,), {2}, range(2, 3), [{2, -1}], iter([[2]])):
        np.testing.assert_array_equal(function(sinks=two, sources=(k for k in (0, -2))), expected)


@every_function
def test_a_set_in_the_place_of_the_sequence_is_one_super_node(function):
    """It never becomes rows in whatever order a set has."""
    for joined in ({2, 1}, frozenset({2, 1}), {2: "two", 1: "one"}.keys()):
        np.testing.assert_array_equal(function(sinks=joined), function(sinks=[[1, 2, -1]]))


@every_function
@either_end
def test_out_of_range(function, name, block):
    for position in (3, -4, 10**20):
        for given, where in (
            (position, name),
            ([0, position], f"{name}[1]"),
            ([[0, position]], f"a member of {name}[0]"),
            ({0, position}, f"a member of {name}"),
            (np.array([[0], [position]], dtype=object), f"a member of {name}[1]"),
        ):
            with refused(f"{where} is {position}, but block {block} has 3 nodes: 0 ... 2, or -3 ... -1"):
                function(**{name: given})


@every_function
@either_end
def test_no_position(function, name, block):
    for wrong in (0.5, "0", b"0", True, np.True_, torch.tensor(True), np.float64(1), 1j, np.array(0.5)):
        plain = wrong.item() if hasattr(wrong, "item") else wrong
        for given, where in ((wrong, name), ([0, wrong], f"{name}[1]"), ([[wrong]], f"a member of {name}[0]")):
            with refused(f"{where} is {plain!r}; it must be an integer"):
                function(**{name: given})
    for wrong in ([None], {"a": 1}, np.array([0.5]), *([None] if name == "sinks" else [])):
        with refused(name, end=".* is .*; it must be an integer$"):
            function(**{name: wrong})


@every_function
@either_end
def test_empty(function, name, block):
    for nothing in ([], (), set(), np.array([], dtype=int)):
        with refused(f"{name} is empty; at least one position is needed"):
            function(**{name: nothing})
        with refused(f"{name}[1] is empty; at least one position is needed"):
            function(**{name: [0, nothing]})


@pytest.mark.parametrize("layers", [2, -3, "first", None, 0.5, True], ids=repr)
def test_layers_of_raw_attention(layers):
    with refused("layers", end=f".*{layers}"):
        baselines.raw_attention(STACK, layers=layers)
    with refused("layers is 7, but the network has 1 layer: 0, or -1"):
        baselines.raw_attention(STACK[:1], layers=7)


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ([0, 9], "positions[1] is 9, but block 2 has 3 nodes: 0 ... 2, or -3 ... -1"),
        ([1, 2, -2], "positions names node 1 more than once; each may be named once"),
        (2, "positions is 2; it must be several positions"),
        ([], "positions is empty; at least one position is needed"),
    ],
)
def test_pooled_positions(positions, said):
    with refused(said):
        Network.encoder(STACK).pooled(positions)


# ---- nodes of any block ----------------------------------------------------------------------------------------------


def test_every_form_of_node():
    for node in ((1, 2), [1, -1], (np.int8(1), np.array(2))):
        for sinks in (node, [node], (node,), [[node, node]], iter([node])):
            assert blocks(sinks=sinks).values == 1
    assert blocks(sinks={(1, 0), (1, 1)}).values == 2
    np.testing.assert_array_equal(blocks(sinks=[(1, 0), {(1, 0), (1, 1)}]).values, [[1], [2]])


@pytest.mark.parametrize(
    "node",
    [(2, 0), (-1, 0), (1, 3), (1, -4), (0.5, 0), (1, True), (1,), (1, 0, 0), 3, "10", None, ((0, 0), 5)],
    ids=repr,
)
def test_wrong_nodes(node):
    for wrong in ([node], [[node]], [[(1, 0), node]]):
        for name in ("sinks", "sources"):
            with pytest.raises(InvalidArgumentError, match=name):
                blocks(**{name: wrong})


@pytest.mark.parametrize(
    ("sinks", "said"),
    [
        ((1, 3), "the position of sinks is 3, but block 1 has 3 nodes: 0 ... 2, or -3 ... -1"),
        ([(1, 0), (2, 0)], "the block of sinks[1] is 2; it must be an integer from 0 to 1"),
        (
            [[(1, 0), (1, -4)]],
            "the position of a member of sinks[0] is -4, but block 1 has 3 nodes: 0 ... 2, or -3 ... -1",
        ),
        ([(1, 0.5)], "the position of sinks[0] is 0.5; it must be an integer"),
        ([(1, 0), 7], "sinks[1] is 7; it must be a node, the pair (block, position), or several"),
        ([[(1, 0), 7, "x"]], "a member of sinks[0] is 7; it must be a node, the pair (block, position)"),
        ([], "sinks is empty; at least one position is needed"),
        ([(1, 0), []], "sinks[1] is empty; at least one position is needed"),
    ],
)
def test_a_wrong_node_is_named_with_the_rule(sinks, said):
    with refused(said):
        blocks(sinks=sinks)
