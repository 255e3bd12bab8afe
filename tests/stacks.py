"""Encoder-decoder networks as plain graphs, edge by edge from docs/definitions.md, and networkx's flows in them."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
from networkx.algorithms.flow import shortest_augmenting_path

N, M = 4, 3  # positions of the encoder and of the decoder
PARTS = ("encoder", "decoder", "cross")


def attention(n_layers=2, n_heads=None, n=N, m=M, *, seed=0, dtype=np.float64):
    """(encoder, decoder, cross) of rows that sum to 1, with an axis of heads or without."""
    rng = np.random.default_rng(seed)
    lead = (n_layers,) if n_heads is None else (n_layers, n_heads)
    drawn = [rng.random((*lead, *shape)) ** 4 + 1e-3 for shape in ((n, n), (m, m), (m, n))]
    drawn[1] = np.tril(drawn[1])
    return [(part / part.sum(axis=-1, keepdims=True)).astype(dtype) for part in drawn]


def graph(
    encoder, decoder, cross, *, residual=0.5, calibration=None, merge="sublayers", visible=None, kept=None, generated=()
):
    """The definitions, row by row: {(tail, head): capacity}, of matrices without heads."""
    edges = {}

    def add(head, row, part, layer, n_others=0):
        """`row` maps givers to what they give; `n_others` of them are not counted by `visible`."""
        counts = (visible or {}).get(part)
        n_seen = len(row) - n_others if counts is None else int(counts[layer][head[2]])
        even = sum(row.values()) / (n_seen + n_others)
        for tail, capacity in row.items():
            edges[tail, head] = max(capacity - even, 0.0) if calibration == "excess" else capacity

    r, top = residual, len(encoder)
    for layer, attended in enumerate(encoder):
        for j in range(len(attended)):
            row = {("E", layer, k): (1 - r) * a + r * (j == k) for k, a in enumerate(attended[j])}
            add(("E", layer + 1, j), row, "encoder", layer)
    for layer, (attended, crossed) in enumerate(zip(decoder, cross, strict=True)):
        for j in range(len(attended)):
            own, across = attended[j][: j + 1], {("E", top, k): (1 - r) * a for k, a in enumerate(crossed[j])}
            if merge == "sublayers":
                row = {("D", layer, k): (1 - r) * a + r * (j == k) for k, a in enumerate(own)}
                add(("between", layer, j), row, "decoder", layer)
                straight = {("between", layer, j): r if kept is None else kept[layer][j]} if r or kept else {}
                add(("D", layer + 1, j), across | straight, "cross", layer, n_others=len(straight))
            else:
                row = {("D", layer, k): (1 - r) / 2 * a + r * (j == k) for k, a in enumerate(own)}
                row |= {giver: a / 2 for giver, a in across.items()}
                add(("D", layer + 1, j), row, "", layer)
    for g in generated:
        edges[("D", len(decoder), g - 1), ("D", 0, g)] = math.inf
    return edges


def answers(edges, sources, sinks):
    """Maximum flows (n_sinks, n_sources) by networkx."""
    made = nx.DiGraph()
    made.add_nodes_from([*sources, *sinks])
    for (tail, head), capacity in edges.items():
        made.add_edge(tail, head, **({} if capacity == math.inf else {"capacity": float(capacity)}))
    return np.array(
        [
            [nx.maximum_flow_value(made, source, sink, flow_func=shortest_augmenting_path) for source in sources]
            for sink in sinks
        ]
    )


def wanted(encoder, decoder, cross, **options):
    """From every input, the encoder's first, to every position of the decoder's last block."""
    n, m, top = len(encoder[0]), len(decoder[0]), len(decoder)
    sources = [("E", 0, k) for k in range(n)] + [("D", 0, k) for k in range(m)]
    return answers(graph(encoder, decoder, cross, **options), sources, [("D", top, j) for j in range(m)])


def every_flow(network, **options):
    """From every input to every position of the last block."""
    return network.source_flows(range(network.sizes[-1]), **options).values


def close(found, expected, tolerance=1e-9):
    """Equal but for rounding."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
