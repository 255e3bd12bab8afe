"""Made-up attributions for the tests of the views: no model, no solver, but flows that conserve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attnflow.attribution import Attribution, Grid, PairFlow

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


# -- what else a result can be of ------------------------------------------------------------------------------------

ANSWER = [" He", " gave", " it", " to", " Mary", "."]


def scores(rng: np.random.Generator, seen: np.ndarray[Any, Any], n_links: int) -> dict[str, Any]:
    """Made-up scores of every sink, and where their cuts lie; nothing where nothing can be seen."""
    values = rng.gamma(0.5, 0.02, seen.shape) * (rng.random(seen.shape) > 0.15) * seen
    cuts = np.where(rng.random(seen.shape) < 0.3, -1, rng.integers(0, n_links, seen.shape))
    lower = np.maximum(values - 3e-8, 0)
    return {"values": values, "lower": lower, "upper": values + 3e-8, "bottlenecks": np.where(values > 0, cuts, -3)}


def generation(
    prompt: list[str] | None = None, answer: list[str] | None = None, *, seed: int = 0, **changes: Any
) -> Attribution:
    """A decoder that wrote `answer`: one sink a token of it."""
    rng = np.random.default_rng(seed)
    asked, said = split(PROMPT) if prompt is None else prompt, ANSWER if answer is None else answer
    n = 1 + len(asked) + len(said) - 1  # the last token is written and not read
    players = np.arange(1, n)
    targets = [len(asked) + step for step in range(len(said))]
    seen = players[None, :] <= np.array(targets)[:, None]
    shares = rng.uniform(0.2, 1, len(said)).tolist()
    fields: dict[str, Any] = {
        "players": players, "targets": targets, "target_label": f"{len(said)} generated tokens", "sink_labels": said,
        "predictions": list(zip(said, shares, strict=True)),
        "prediction": None, **scores(rng, seen, 12),
    }  # fmt: skip
    return sample([*asked, *said[:-1]], flows=0, **fields | changes)


def translation(
    source: list[str] | None = None, answer: list[str] | None = None, *, steps: int | None = None, seed: int = 0,
    **changes: Any,
) -> Attribution:  # fmt: skip
    """An encoder-decoder: the source's tokens with an end token, then a start token and what was said."""
    rng = np.random.default_rng(seed)
    read = split("The keys to the cabinet are on the table.") if source is None else source
    said = ["Die", " Schlüssel", " liegen", " auf", " dem", " Tisch", "."] if answer is None else answer
    spans, end = [], 0
    for token in read:
        spans.append((end, end + len(token)))
        end += len(token)
    end += 1
    later = []
    for token in said[:-1]:
        later.append((end, end + len(token)))
        end += len(token)
    n_source = len(read) + 1
    tokens = [*read, "</s>", "<pad>", *said[:-1]]
    players = np.array([p for p in range(len(tokens)) if p != n_source - 1])
    kept = len(said) if steps is None else steps
    targets = [n_source + step for step in range(kept)]
    seen = players[None, :] <= np.array(targets)[:, None]
    names = [*(f"encoder {i + 1}" for i in range(6)), *(f"{x} {i + 1}" for i in range(6) for x in ("self", "cross"))]
    several = {
        "sink_labels": said[:kept], "predictions": [(token, 0.5 + 0.05 * i) for i, token in enumerate(said[:kept])],
    }  # fmt: skip
    fields: dict[str, Any] = {
        "tokens": tokens, "offsets": [*spans, None, None, *later], "text": "".join(read) + "\n" + "".join(said[:-1]),
        "players": players, "targets": targets, "n_source": n_source, "kind": "encoder-decoder", "link_names": names,
        "target_label": f"{kept} generated tokens" if kept > 1 else "first generated token",
        "prediction": None if kept > 1 else (said[0], 0.5), **(several if kept > 1 else {}),
        **scores(rng, seen, len(names)),
    }  # fmt: skip
    return sample(fields.pop("tokens"), start_token=False, flows=0, **fields | changes)


def image(rows: int = 14, columns: int = 14, *, seed: int = 0, **changes: Any) -> Attribution:
    """A vision transformer: a class token and patches, with a bright spot among them."""
    rng = np.random.default_rng(seed)
    n = 1 + rows * columns
    row, column = np.divmod(np.arange(n - 1), columns)
    spot = np.exp(-(((row - rows * 0.4) / rows * 5) ** 2) - ((column - columns * 0.6) / columns * 6) ** 2)
    values = (spot * 0.02 + rng.gamma(0.5, 0.001, n - 1))[None, :] * (rng.random((1, n - 1)) > 0.1)
    cuts = np.where(values > 0, rng.integers(-2, 12, values.shape), -3)
    cuts[0, cuts[0] == -3] = -3
    fields: dict[str, Any] = {
        "tokens": ["[CLS]", *(f"patch {r},{c}" for r in range(rows) for c in range(columns))],
        "offsets": [None] * n, "text": "", "players": np.arange(1, n), "targets": [0], "kind": "encoder",
        "target_label": "class token '[CLS]'", "prediction": ("tabby cat", 0.81), "grid": Grid(1, (rows, columns)),
        "values": values, "lower": values, "upper": values, "bottlenecks": np.where(values > 0, cuts, -3),
        "n_nodes": 13 * n, "n_edges": 12 * n * n,
    }  # fmt: skip
    return sample(fields.pop("tokens"), start_token=False, flows=0, **fields | changes)


def caption(rows: int = 7, columns: int = 7, answer: list[str] | None = None, *, seed: int = 0) -> Attribution:
    """An image described by a decoder: cells and text in one result, several sinks."""
    rng = np.random.default_rng(seed)
    said = ["a", " cat", " on", " a", " red", " mat"] if answer is None else answer
    n_source = 1 + rows * columns
    patches = [f"patch {r},{c}" for r in range(rows) for c in range(columns)]
    tokens = ["[CLS]", *patches, "<s>", *said[:-1]]
    return _spoken(rng, tokens, said, n_source, Grid(1, (rows, columns)))


def recording(frames: int = 1500, answer: list[str] | None = None, *, seed: int = 0) -> Attribution:
    """Speech written down by a decoder, frame after frame."""
    rng = np.random.default_rng(seed)
    said = [" And", " so", ",", " my", " fellow", " Americans"] if answer is None else answer
    tokens = [*(f"frame {i}" for i in range(frames)), "<s>", *said[:-1]]
    spoken = _spoken(rng, tokens, said, frames, Grid(0, (frames,)))
    values = np.array(spoken.values)
    for step in range(len(said)):  # each word has its time
        at = frames * (step + 0.5) / len(said)
        values[step, :frames] *= 0.05 + 3 * np.exp(-(((np.arange(frames) - at) / frames * 12) ** 2))
    return replace(spoken, values=values, lower=values, upper=values, bottlenecks=np.where(values > 0, 3, -3))


def _spoken(rng: np.random.Generator, tokens: list[str], said: list[str], n_source: int, grid: Grid) -> Attribution:
    spans, end = [], 0
    for token in said[:-1]:
        spans.append((end, end + len(token)))
        end += len(token)
    players = np.arange(grid.start, len(tokens))
    targets = [n_source + step for step in range(len(said))]
    seen = players[None, :] <= np.array(targets)[:, None]
    return sample(
        tokens, start_token=False, flows=0, offsets=[None] * (n_source + 1) + spans, text="".join(said[:-1]),
        players=players, targets=targets, n_source=n_source, kind="encoder-decoder", grid=grid, prediction=None,
        target_label=f"{len(said)} generated tokens", sink_labels=said,
        predictions=list(zip(said, rng.uniform(0.2, 1, len(said)).tolist(), strict=True)),
        link_names=[f"link {i}" for i in range(12)], **scores(rng, seen, 12),
    )  # fmt: skip


def no_flow(result: Attribution, attribution: str = "leave_one_out", *, seed: int = 0, **options: Any) -> Attribution:
    """The same players and sinks with scores that are no flows, some of them below zero where they may be."""
    rng = np.random.default_rng(seed)
    signed = attribution in ("leave_one_out", "gradient_x_input", "combination")
    side = np.where(rng.random(result.values.shape) < 0.5, -1.0, 1.0) if signed else 1.0
    values = result.values * side
    network = {} if attribution in ("rollout", "widest_path") else {"n_nodes": 0, "n_edges": 0}
    measure = None if attribution in ("leave_one_out", "gradient_x_input", "random") else "attention"
    return replace(
        result, values=values, lower=values, upper=values, bottlenecks=np.full(values.shape, -3), flows=None,
        verified=False, attribution=attribution, definition=f"{attribution}, made up", **network,
        options={"model": "SmolLM2-135M-Instruct", "measure": measure, **options},
    )  # fmt: skip


def sentences(count: int = 3, words: int = 30, **changes: Any) -> Attribution:
    """A text whose players are sentences, longer than a line of any picture."""
    tokens = [" ".join(["", *(f"word{i}" for i in range(words))]) + f" {n}." for n in range(count)]
    each = words + 2
    members = [(0,), *(tuple(range(1 + each * n, 1 + each * (n + 1))) for n in range(count))]
    options = {"measure": "alti", "calibration": "excess", "units": "sentences"}
    return sample(tokens, flows=0, **{"members": members, "options": options} | changes)
