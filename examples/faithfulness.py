"""Do flow scores agree with what happens when a token is left out? A measurement, with its standard errors.

A sentiment classifier is trained on film snippets (``sentiment.py``); then, for 150 snippets that it has not seen, each
token is left out in turn, and the drop in the log-probability of the classifier's own prediction is compared with each
method's scores: Spearman's rank correlation over the tokens of a snippet, mean over snippets, plus or minus its
standard error. Agreement with leave-one-out is one yardstick and no proof: tokens left out make texts that no one
would write, and a model whose tokens stand in for each other shows little when one of them goes.

``make faithfulness`` runs it: some ten minutes of training, once a seed, and then five, on two cores. Choices are made
on ``--part development``; the final figures come from the held-out part. ``--quick`` is a test of the script alone.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

import attnflow
import film_snippets
import sentiment
from attnflow.attribution import SINK, SOURCE, spearman
from attnflow.baselines import raw_attention, rollout
from attnflow.packaged_models import cache_folder
from film_snippets import Part, Snippet

MEASURES = ("attention", "value_norm_residual", "alti", "attention_x_gradient")
METHODS = ("plain flow", "rollout", "excess flow", "rollout on excess")
FACTS = ("cut at an end", "cut in the last layer", "cut elsewhere", "deviation / mean")
BEGIN, END = "<!-- measured: written by examples/faithfulness.py -->", "<!-- end of what was measured -->"

Scores = dict[str, NDArray[np.float64]]


def main() -> None:
    """Train, or load what was trained, measure, and print."""
    parser = argparse.ArgumentParser(description="Compare flow scores with leaving tokens out.")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument("--texts", type=int, default=150, help="how many snippets (default: 150)")
    parser.add_argument("--part", choices=["held-out", "development"], default="held-out")
    parser.add_argument("--quick", action="store_true", help="hardly train, three snippets: the figures mean nothing")
    parser.add_argument("--save", type=Path, metavar="FILE.md", help="write the tables into this page")
    options = parser.parse_args()
    set_up()
    count = 3 if options.quick else options.texts
    record = attnflow.bench.record(["torch", "transformers"])
    started = time.perf_counter()
    model, tokenizer, others, right = classifier(options.part, options.seed, quick=options.quick)
    tables = report(measured(model, tokenizer, chosen(others, tokenizer, count), options.seed))
    heading = (
        f"Training seed {options.seed}; {right:.1%} of {len(others)} {options.part} snippets classified right; "
        f"measured on {count} of them.\n{machine(record, started)}"
    )
    page = f"{heading}\n\n{tables}"
    print(page)
    if options.save is not None:
        write_between(options.save, BEGIN, END, page)


def set_up() -> None:
    """One thread, since more gain little on texts this short, and cost much on a busy machine; and no bars."""
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()


def classifier(part: Part, seed: int, *, quick: bool) -> tuple[Any, Any, list[Snippet], float]:
    """The classifier, its tokenizer, the snippets of `part`, and the share of them that it is right about."""
    cache = cache_folder() / "examples"
    try:
        archive = film_snippets.download(cache)
    except film_snippets.Unavailable as error:
        sys.exit(str(error))
    training, others = (film_snippets.read(archive, each) for each in ("training", part))
    if quick:
        training, others = training[::140], others[::20]
    model, tokenizer = sentiment.trained(
        training, passes=1 if quick else 2, seed=seed, cache=None if quick else cache, say=say
    )
    right = sentiment.accuracy(model, tokenizer, others)
    say(f"the classifier is right about {right:.1%} of {len(others)} {part} snippets")
    return model, tokenizer, others, right


def machine(record: dict[str, Any], started: float) -> str:
    """Where, when and with what it was measured, and how long that took."""
    versions = record["versions"]
    return (
        f"{attnflow.bench.describe(record)}, torch {versions['torch']}, transformers {versions['transformers']}; "
        f"{(time.perf_counter() - started) / 60:.0f} minutes."
    )


def write_between(file: Path, begin: str, end: str, page: str) -> None:
    """Replace what stands between two marks in a file."""
    text = file.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    file.write_text(f"{before}{begin}\n\n{page}\n\n{end}{after}", encoding="utf-8")


def say(what: str) -> None:
    """Announce a stage."""
    print(f"... {what}", file=sys.stderr, flush=True)


def chosen(snippets: Sequence[Snippet], tokenizer: Any, count: int) -> list[str]:
    """Texts of five tokens or more, which there is something to rank in, drawn with a fixed seed."""
    texts = [snippet.text for snippet in snippets if 5 <= len(tokenizer.tokenize(snippet.text)) <= 100]
    return [texts[index] for index in np.random.default_rng(0).permutation(len(texts))[:count]]


def measured(model: Any, tokenizer: Any, texts: Sequence[str], seed: int) -> dict[str, NDArray[np.float64]]:
    """For each method the correlation with leave-one-out, one a text; and facts about the flows."""
    found: dict[str, list[float]] = {}
    for done, text in enumerate(texts):
        if done % 25 == 0:
            say(f"measuring: snippet {done + 1} of {len(texts)}")
        inputs = tokenizer(text, return_tensors="pt")
        truth = left_out(model, inputs)
        scores = baseline_scores(model, inputs, np.random.default_rng([seed, done]))
        for measure in MEASURES:
            flows, told = flow_scores(model, tokenizer, text, measure)
            scores |= flows
            for fact, value in told.items():
                found.setdefault(fact, []).append(value)
        for name, values in scores.items():
            correlation = spearman(values, truth)
            # Scores that are all equal rank nothing.
            found.setdefault(name, []).append(0.0 if math.isnan(correlation) else correlation)
    return {name: np.array(values) for name, values in found.items()}


def left_out(model: Any, inputs: Mapping[str, Any]) -> NDArray[np.float64]:
    """How far the log-probability of the model's own prediction drops without each of the inner tokens."""
    ids = inputs["input_ids"][0]
    kept = torch.ones(len(ids), len(ids), dtype=torch.bool).fill_diagonal_(False)
    with torch.no_grad():
        whole = model(**inputs).logits[0].log_softmax(dim=-1)
        without = model(input_ids=torch.stack([ids[row] for row in kept[1:-1]])).logits.log_softmax(dim=-1)
    said = int(whole.argmax())
    return np.asarray((whole[said] - without[:, said]).numpy(), dtype=np.float64)


def flow_scores(model: Any, tokenizer: Any, text: str, measure: str) -> tuple[Scores, dict[str, float]]:
    """Flow and rollout to the class token, with and without excess; where the flows' cuts lie, and how flows differ.

    A measure by gradients derives the logit of the class that the model predicts.
    """
    captured = attnflow.capture.contributions(model, dict(tokenizer(text, return_tensors="pt")), measure=measure)
    layers = captured.of_text(0).encoder
    scores: Scores = {}
    told = {}
    calibrations: tuple[tuple[Literal["excess"] | None, str, str], ...]
    calibrations = ((None, "plain flow", "rollout"), ("excess", "excess flow", "rollout on excess"))
    for calibration, flow, product in calibrations:
        residual = 0.0 if captured.holds_residual else 0.5
        result = attnflow.explain(model, tokenizer, text, measure=measure, residual=residual, calibration=calibration)
        scores[f"{measure}, {flow}"] = result.values[0]
        alive = result.bottlenecks[result.values > 0]
        ends, last = np.isin(alive, (SOURCE, SINK)), alive == result.n_layers - 1
        for fact, each in zip(FACTS[:3], (ends, last, ~ends & ~last), strict=True):
            told[f"{measure}, {flow}: {fact}"] = float(each.mean()) if alive.size else math.nan
        told[f"{measure}, {flow}: {FACTS[3]}"] = float(result.values.std() / max(result.values.mean(), 1e-12))
        # Rollout is the product of the same capacities.
        network = attnflow.Network.encoder(layers, residual=residual, calibration=calibration)
        capacities = [link.capacities for link in network.links]
        scores[f"{measure}, {product}"] = rollout(capacities, sinks=0, sources=result.players.tolist())[0]
    return scores, told


def baseline_scores(model: Any, inputs: Mapping[str, Any], rng: np.random.Generator) -> Scores:
    """What needs no flow: chance, gradients, attention as it is."""
    attention = attnflow.capture.attentions(model, **inputs).of_text(0).encoder
    inner = range(1, len(inputs["input_ids"][0]) - 1)
    words = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=words).logits[0]
    (slope,) = torch.autograd.grad(logits.max(), words)
    return {
        "random": rng.random(len(inner)),
        "gradient x input": (slope * words).sum(dim=-1)[0, 1:-1].detach().numpy().astype(np.float64),
        "mean attention of the class token": raw_attention(attention, sinks=0, sources=inner, layers="mean")[0],
        "attention each token receives in the first layer": np.asarray(attention[0].sum(dim=0)[1:-1], dtype=np.float64),
        "how early a token stands": -np.arange(len(inner), dtype=np.float64),
    }


def report(found: Mapping[str, NDArray[np.float64]]) -> str:
    """The tables, in Markdown."""
    lines = ["| capacity measure | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for measure in MEASURES:
        cells = [mean(found[f"{measure}, {method}"]) for method in METHODS]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    lines += ["", "| baseline | |", "|---|---|"]
    flows = {f"{measure}, {method}" for measure in MEASURES for method in METHODS}
    lines += [
        f"| {name} | {mean(values)} |"
        for name, values in found.items()
        if name not in flows and not name.endswith(FACTS)
    ]
    lines += [
        "",
        "| difference on the same snippets | " + " | ".join(MEASURES) + " |",
        "|---|" + "---|" * len(MEASURES),
    ]
    for one, other in (("excess flow", "plain flow"), ("excess flow", "rollout"), ("excess flow", "rollout on excess")):
        cells = [mean(found[f"{measure}, {one}"] - found[f"{measure}, {other}"]) for measure in MEASURES]
        lines.append(f"| {one} - {other} | " + " | ".join(cells) + " |")
    lines += ["", "| flows | " + " | ".join(MEASURES) + " |", "|---|" + "---|" * len(MEASURES)]
    for fact in (f"{flow}: {fact}" for flow in ("plain flow", "excess flow") for fact in FACTS):
        cells = [f"{np.nanmean(found[f'{measure}, {fact}']):.0%}" for measure in MEASURES]
        lines.append(f"| {fact} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean(values: NDArray[np.float64]) -> str:
    """Mean over texts, plus or minus its standard error."""
    return f"{values.mean():+.3f} ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
