"""Made-up attributions for the tests of the views: no model, no solver, but flows that conserve."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnflow.attribution import Attribution, PairFlow

PROMPT = "When Mary and John went to the store, John gave a drink to"
HOSTILE = [
    "<script>alert(1)</script>", ' "quoted"', " 'single'", " &amp;", "\n", "\n\n", "\t", " 漢字", " שלום", " مرحبا",
    "👩‍👩‍👧", "\u202eevil", "\x1b[31mred", "\x00", "   ", "\u0301", "]]>", "{{ 7*7 }}", "{% raw %}", "\ud83d",
    " </style>", " -->", " [bold]x[/bold]", " :smile:", " ﷽", " url(//evil.example/x)",
]  # fmt: skip


def split(text: str) -> list[str]:
    """Cut a text into words that carry the blank before them, as byte-level tokenizers do."""
    words: list[str] = []
    for word in text.split(" "):
        head = word.rstrip(",.")
        words.append((" " if words else "") + head)
        words.extend(word[len(head) :])
    return [word for word in words if word]


def sample(
    tokens: list[str] | None = None, *, kind: str = "decoder", start_token: bool = True, plain: bool = False,
    n_layers: int = 12, flows: int | list[PairFlow] = 1, seed: int = 0, **changes: Any,
) -> Attribution:  # fmt: skip
    """An attribution that looks like one of a language model; `plain` makes it the published method's.

    `flows` are the flows it holds, or how many to make up for its highest scores.
    """
    rng = np.random.default_rng(seed)
    words = split(PROMPT) if tokens is None else tokens
    spans, end = [], 0
    for word in words:
        spans.append((end, end + len(word)))
        end += len(word)
    first = int(start_token)
    shown = ["<|im_start|>"] * first + words
    n = len(shown)
    players = np.arange(first, n)
    target = n - 1 if kind == "decoder" else 0
    if plain:
        scores = np.sort(rng.uniform(0.7, 1.0, len(players)))[::-1]
        cuts = np.full(len(players), -1)
    else:
        scores = rng.gamma(0.5, 0.02, len(players)) * (rng.random(len(players)) > 0.15)
        cuts = np.where(rng.random(len(players)) < 0.3, -1, rng.integers(0, n_layers, len(players)))
    cuts[scores == 0] = -3
    fields: dict[str, Any] = {
        "tokens": shown, "offsets": [None] * first + spans, "text": "".join(words), "players": players,
        "targets": (target,), "target_label": f"next token after {shown[-1]!r} (position {n - 1})",
        "values": [scores], "lower": [np.maximum(scores - 3e-8, 0)], "upper": [scores + 3e-8], "bottlenecks": [cuts],
        "kind": kind, "n_layers": n_layers, "n_nodes": n * (n_layers + 1), "n_edges": n_layers * n * (n + 1) // 2,
        "definition": "independent maximum flows: from each player alone to the target, through made-up contributions",
        "prediction": (" Mary", 0.9196),
        "timings": {"capture": 0.41, "network": 0.02, "kernel": 0.003},
        "options": {
            "model": "SmolLM2-135M-Instruct", "measure": "attention" if plain else "alti",
            "residual": 0.5 if plain else 0,
            "heads": "mean", "calibration": None if plain else "excess", "start_token": True, "algorithm": "dinic",
            "threads": 1,
        },
        "verified": True,
    }  # fmt: skip
    if not isinstance(flows, int):
        fields["flows"] = flows
    elif flows and not plain:
        best = players[np.argsort(-scores)[:flows]]
        fields["flows"] = tuple(
            pair_flow(rng, int(p), target, n_layers, kind, scores[p - first], cuts[p - first]) for p in best
        )
    return Attribution(**fields | changes)


def pair_flow(
    rng: np.random.Generator, source: int, target: int, n_layers: int, kind: str, value: float, cut: int
) -> PairFlow:
    """A sum of random paths, so that whatever enters a node leaves it."""
    edges: dict[tuple[int, int, int], float] = {}
    for share in rng.dirichlet(np.full(14, 0.7)) * value:
        stops = rng.choice(n_layers, rng.integers(1, min(4, n_layers + 1)), replace=False)
        at = source
        for layer in range(n_layers):
            following = at
            if layer in stops:
                low, high = (at, target) if kind == "decoder" else (0, max(source, target))
                following = int(rng.integers(low, high + 1))
            if layer >= stops.max():
                following = target
            edges[layer, following, at] = edges.get((layer, following, at), 0.0) + share
            at = following
    layer, receiver, giver = np.array(list(edges), dtype=np.int32).T
    return PairFlow(source, layer, receiver, giver, np.array(list(edges.values())), layer == cut)
