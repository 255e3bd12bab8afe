"""Layer by layer: do attention, rollout and flow agree with blanking tokens out? The shape of a published table.

Abnar and Zuidema, *Quantifying Attention Flow in Transformers*, arXiv 2005.00928, tables 1 and 2: for each layer l,
the importance of every input token for one embedding after layer l, by the attention of layer l, by attention rollout
and by attention flow through layers 1..l; compared, by Spearman's rank correlation, with how far the probability of the
right class drops when the unknown token takes the token's place, and with the input gradients. Here they are measured
on two other models: the sentiment classifier of ``sentiment.py`` on film snippets, whose class token decides, and a
language model, SmolLM2, which says " is" or " are" after the beginnings of ``verb_numbers.py``, at its last position.
Added are Shapley values and the fair split of the joint flow, and excess capacities.

``make blank-out`` runs it: some ten minutes of training, once a seed, and then ten or more. ``--quick`` is a test of
the script alone.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import torch
from numpy.typing import NDArray

import attnflow
import verb_numbers
from attnflow.attribution import spearman
from attnflow.baselines import raw_attention, rollout
from attnflow.packaged_models import load_smollm2
from faithfulness import chosen, classifier, machine, mean, say, set_up, write_between
from verb_numbers import VERBS, Sentence

BEGIN, END = (
    "<!-- measured: written by examples/blank_out.py -->",
    "<!-- end of what examples/blank_out.py measured -->",
)
# Name -> measure of the contributions, and calibration.
CAPACITIES: Mapping[str, tuple[str, Literal["excess"] | None]] = {
    "published": ("attention", None),
    "excess": ("attention", "excess"),
    "excess, attention x gradient": ("attention_x_gradient", "excess"),
}
RAW, MEAN, ROLLOUT, FLOW, SHAPLEY, FAIR = (
    "raw attention",
    "mean attention",
    "rollout",
    "flow",
    "Shapley values",
    "fair flow",
)
METHODS = (RAW, MEAN, ROLLOUT, FLOW, SHAPLEY, FAIR)
# The unknown token, as published, or the mean of all word embeddings, takes a token's place.
BLANK, BLANK_MEAN, GRADIENTS = "blank-out", "blank-out to the mean", "input gradients"
HELD = ", position held"
YARDSTICKS = (BLANK, BLANK + HELD, "absolute change", BLANK_MEAN, BLANK_MEAN + HELD, "left out", GRADIENTS)
PAIRS = ((SHAPLEY, FLOW), (FAIR, FLOW), (FLOW, ROLLOUT), (SHAPLEY, ROLLOUT), (FLOW, RAW))
RESIDUAL = 0.5
EXACT = 14  # players, up to which Shapley values are exact

Scores = NDArray[np.float64]
Matrices = Sequence[NDArray[np.float32]]
Answer = Callable[[torch.Tensor], torch.Tensor]


class Case(NamedTuple):
    """One text: the contributions of its layers by measure, what is asked of them, and what they are compared with."""

    layers: Mapping[str, Matrices]
    causal: bool
    sink: int
    players: range
    truths: Mapping[str, Scores]
    baselines: Mapping[str, Scores]


# (what it is compared with, the scores' name, the layer or 0 for baselines) -> a correlation for each text; NaN where
# one of the two was constant.
Found = dict[tuple[str, str, int], NDArray[np.float64]]


def main() -> None:
    """Train, or load what was trained, measure both models, and print."""
    parser = argparse.ArgumentParser(description="Compare attention, rollout and flow with blanking tokens out.")
    parser.add_argument("--seed", type=int, default=0, help="of the training, the sentences and the sampling")
    parser.add_argument("--texts", type=int, default=150, help="how many film snippets (default: 150)")
    parser.add_argument("--sentences", type=int, default=80, help="how many beginnings of sentences (default: 80)")
    parser.add_argument("--quick", action="store_true", help="hardly train, three texts: the figures mean nothing")
    parser.add_argument("--save", type=Path, metavar="FILE.md", help="write the tables into this page")
    options = parser.parse_args()
    set_up()
    record = attnflow.bench.record(["torch", "transformers"])
    started = time.perf_counter()
    texts, count = (3, 6) if options.quick else (options.texts, options.sentences)
    parts = [of_classifier(texts, options.seed, options.quick), of_language_model(count, options.seed)]
    page = "\n\n".join([machine(record, started), *parts])
    print(page)
    if options.save is not None:
        write_between(options.save, BEGIN, END, page)


def of_classifier(count: int, seed: int, quick: bool) -> str:
    """The tables of the sentiment classifier: sink the class token, players the tokens of the snippet."""
    model, tokenizer, snippets, right = classifier("held-out", seed, quick=quick)

    def cases() -> Iterator[Case]:
        for done, text in enumerate(chosen(snippets, tokenizer, count)):
            ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
            with torch.no_grad():
                said = int(model(ids[None]).logits[0].argmax())

            def answer(logits: torch.Tensor, said: int = said) -> torch.Tensor:
                return logits[:, said] - logits[:, 1 - said]

            rng = np.random.default_rng([seed, done])
            yield case(model, ids, answer, tokenizer.unk_token_id, sink=0, players=range(1, len(ids) - 1), rng=rng)

    heading = (
        f"### The sentiment classifier\n\nTraining seed {seed}; {right:.1%} of {len(snippets)} held-out snippets "
        f"classified right; measured on {count} of them. The answer is the class that the model predicts."
    )
    return tables(heading, measured(cases(), range(1, model.config.num_hidden_layers + 1), count, seed))


def of_language_model(count: int, seed: int) -> str:
    """The tables of SmolLM2: sink the last position, players the tokens of the sentence, its last one among them."""
    model, tokenizer = load_smollm2()
    verbs = [tokenizer.encode(verb, add_special_tokens=False)[0] for verb in VERBS]
    unknown = tokenizer.unk_token_id

    def begun(sentence: Sentence) -> torch.Tensor:
        # The unknown token also separates the texts that it was trained on: a text begins with it.
        return torch.tensor([unknown, *tokenizer.encode(sentence.text, add_special_tokens=False)])

    def answer_to(sentence: Sentence) -> Answer:
        right, wrong = verbs[sentence.plural], verbs[not sentence.plural]
        return lambda logits: logits[:, -1, right] - logits[:, -1, wrong]

    drawn = verb_numbers.draw(count, seed)
    with torch.no_grad():
        right = np.array([float(answer_to(each)(model(begun(each)[None]).logits)) > 0 for each in drawn])
    attracted = np.array([each.attracted for each in drawn])
    kept = [sentence for sentence, fine in zip(drawn, right, strict=True) if fine]

    decisive: dict[str, list[bool]] = {}

    def cases() -> Iterator[Case]:
        for done, sentence in enumerate(kept):
            ids, rng = begun(sentence), np.random.default_rng([seed, done])
            players = range(1, len(ids))
            text = case(model, ids, answer_to(sentence), unknown, sink=len(ids) - 1, players=players, rng=rng)
            for name, truth in text.truths.items():
                token = tokenizer.decode([int(ids[players[int(truth.argmax())]])])
                decisive.setdefault(name, []).append(token.strip().lower() == sentence.subject)
            yield text

    heading = (
        f"### SmolLM2 and the number of a verb\n\n{len(drawn)} beginnings; the right verb is the likelier of the two "
        f"after {right.mean():.1%}, after {right[attracted].mean():.1%} where the noun before it has the other number. "
        f"Measured on those {len(kept)}. The answer is the right verb of the two."
    )
    layers = model.config.num_hidden_layers
    found = measured(cases(), [1, *range(5, layers + 1, 5)], len(kept), seed)
    shares = ", ".join(f"{name} {np.mean(values):.0%}" for name, values in decisive.items())
    return tables(f"{heading} The token with the highest score is the subject's noun: {shares}.", found)


# --- One text --------------------------------------------------------------------------------------------------------


def case(
    model: Any, ids: torch.Tensor, answer: Answer, unknown: int, *, sink: int, players: range, rng: np.random.Generator
) -> Case:
    """Capture a text's layers, and find out what its answer depends on. `answer` gives log-odds from logits."""
    layers: dict[str, Matrices] = {}
    causal = False
    for measure in dict.fromkeys(measure for measure, _ in CAPACITIES.values()):
        captured = attnflow.capture.contributions(
            model, {"input_ids": ids[None]}, measure=measure, objective=lambda output: answer(output.logits)[0]
        ).of_text(0)
        causal = len(captured.decoder) > 0
        layers[measure] = [np.asarray(layer) for layer in (captured.decoder if causal else captured.encoder)]
    table = model.get_input_embeddings().weight.detach()
    words = table[ids].requires_grad_()
    (slope,) = torch.autograd.grad(answer(model(inputs_embeds=words[None]).logits)[0], words)
    words = words.detach()
    places = torch.tensor(players)
    blanked = drops(model, answer, words, replaced(words, places, table[unknown]))
    kept = [torch.arange(len(ids)) != place for place in places]
    truths = {
        BLANK: blanked,
        "absolute change": np.abs(blanked),
        BLANK_MEAN: drops(model, answer, words, replaced(words, places, table.mean(dim=0))),
        "left out": drops(model, answer, words, torch.stack([words[rows] for rows in kept])),
        GRADIENTS: slope.norm(dim=-1)[places].double().numpy(),
    }
    baselines = {
        "random": rng.random(len(players)),
        "how early a token stands": -np.arange(len(players), dtype=np.float64),
        "gradient x input": (slope * words).sum(dim=-1)[places].double().numpy(),
    }
    return Case(layers, causal, sink, players, truths, baselines)


def replaced(words: torch.Tensor, places: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """A copy of the embedded text for each of the places, which holds `vector` there."""
    copies = words.repeat(len(places), 1, 1)
    copies[torch.arange(len(places)), places] = vector
    return copies


def drops(model: Any, answer: Answer, words: torch.Tensor, changed: torch.Tensor) -> Scores:
    """How far the probability of the answer, of two, drops in each changed text."""
    with torch.no_grad():
        before, after = (answer(model(inputs_embeds=texts).logits).double() for texts in (words[None], changed))
    return np.asarray((before.sigmoid() - after.sigmoid()).numpy())


def network_of(text: Case, capacities: str, depth: int) -> attnflow.Network:
    """The network of layers 1..depth."""
    measure, calibration = CAPACITIES[capacities]
    make = attnflow.Network.decoder if text.causal else attnflow.Network.encoder
    return make(text.layers[measure][:depth], residual=RESIDUAL, calibration=calibration)


def layer_scores(text: Case, capacities: str, depth: int, seed: int) -> dict[str, Scores]:
    """What each method says of the players, for the sink after layer `depth`."""
    network = network_of(text, capacities, depth)
    mixed = [link.capacities for link in network.links]
    measure, calibration = CAPACITIES[capacities]
    # Raw attention is without the residual, as published; calibrated it is what the flow runs through.
    raw = mixed if calibration else text.layers[measure][:depth]
    ends: dict[str, Any] = {"sinks": text.sink, "sources": text.players}
    joint: dict[str, Any] = {"sinks": text.sink, "players": text.players}
    return {
        RAW: raw_attention(raw, **ends)[0],
        MEAN: raw_attention(raw, **ends, layers="mean")[0],
        ROLLOUT: rollout(mixed, **ends)[0],
        FLOW: network.source_flows(**ends).values[0],
        SHAPLEY: network.shapley_values(**joint, seed=seed).values[0],
        FAIR: network.joint_flow(**joint).values[0],
    }


# --- Many texts ------------------------------------------------------------------------------------------------------


def measured(cases: Iterator[Case], depths: Sequence[int], count: int, seed: int) -> Found:
    """The correlation of everything with everything it is compared with, one a text."""
    lists: dict[tuple[str, str, int], list[float]] = {}
    for done, text in enumerate(cases):
        if done % 25 == 0:
            say(f"measuring: text {done + 1} of {count}")
        # What a blanked token does is a score like others, for the other yardsticks.
        found: dict[tuple[str, int], Scores] = {(name, 0): scores for name, scores in text.baselines.items()}
        found |= {(name, 0): text.truths[name] for name in (BLANK, BLANK_MEAN, GRADIENTS)}
        for depth in depths:
            for capacities in CAPACITIES:
                for method, scores in layer_scores(text, capacities, depth, seed).items():
                    found[f"{capacities}: {method}", depth] = scores
        for (name, depth), scores in found.items():
            for yardstick, r in correlations(scores, text).items():
                lists.setdefault((yardstick, name, depth), []).append(r)
        if len(text.players) > EXACT:
            for capacities in CAPACITIES:
                network = network_of(text, capacities, depths[-1])
                again = network.shapley_values(text.sink, players=text.players, seed=seed + 1).values[0]
                r = spearman(shortened(found[f"{capacities}: {SHAPLEY}", depths[-1]]), shortened(again))
                lists.setdefault(("the same, sampled again", f"{capacities}: {SHAPLEY}", depths[-1]), []).append(r)
    return {key: np.array(values) for key, values in lists.items()}


def correlations(scores: Scores, text: Case) -> dict[str, float]:
    """With each yardstick; where position is held, the partial correlation."""
    ranked = shortened(scores)
    position = np.arange(len(ranked))
    found = {name: spearman(ranked, truth) for name, truth in text.truths.items()}
    along = spearman(ranked, position)
    for name in (BLANK, BLANK_MEAN):
        across = spearman(text.truths[name], position)
        rest = math.sqrt((1 - along**2) * (1 - across**2))
        # What ranks by position alone has nothing left.
        found[name + HELD] = (found[name] - along * across) / rest if rest > 1e-9 else math.nan
    return found


def shortened(scores: Scores) -> Scores:
    """To nine digits: shares that are equal may differ in the last bit, and would be ranked by it."""
    return np.array([float(f"{score:.9g}") for score in scores])


# --- Tables ----------------------------------------------------------------------------------------------------------


def tables(heading: str, found: Found) -> str:
    """The tables of one model, in Markdown."""
    depths = sorted({depth for _, _, depth in found if depth})
    parts = [heading]
    for yardstick in (BLANK, BLANK_MEAN, GRADIENTS):
        rows = {
            f"{capacities}: {method}": [cell(found[yardstick, f"{capacities}: {method}", depth]) for depth in depths]
            for capacities in CAPACITIES
            for method in METHODS
        }
        parts.append(table(f"like {yardstick}, after layer", [str(depth) for depth in depths], rows))
    names = [(name, depth) for yardstick, name, depth in found if yardstick == BLANK and depth in (0, depths[-1])]
    rows = {name: [cell(found[yardstick, name, depth]) for yardstick in YARDSTICKS] for name, depth in names}
    parts.append(table("all layers", YARDSTICKS, rows))
    for yardstick in (BLANK, BLANK_MEAN):
        rows = {}
        for one, other in PAIRS:
            both = [[filled(found[yardstick, f"{c}: {m}", depths[-1]]) for m in (one, other)] for c in CAPACITIES]
            rows[f"{one} - {other}"] = [mean(first - second) for first, second in both]
        parts.append(table(f"difference on the same texts, all layers, {yardstick}", list(CAPACITIES), rows))
    parts.append(spread(found, depths[-1]))
    return "\n\n".join(parts)


def table(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores that are all equal rank nothing: 0."""
    return np.nan_to_num(values, nan=0.0)


def cell(values: NDArray[np.float64]) -> str:
    """Mean and standard error over texts; in brackets, how many texts had nothing to correlate."""
    constant = int(np.isnan(values).sum())
    return mean(filled(values)) + (f" ({constant})" if constant else "")


def spread(found: Found, top: int) -> str:
    """How far texts differ, as the published table tells it, and how far sampled values depend on the sampling."""
    names = {f"{capacities}: {method}" for capacities in CAPACITIES for method in (ROLLOUT, FLOW)}
    deviations = [float(filled(found[BLANK, name, top]).std(ddof=1)) for name in names]
    said = f"Standard deviation over texts, rollout and flow: {min(deviations):.2f} to {max(deviations):.2f}."
    sampled = {c: found.get(("the same, sampled again", f"{c}: {SHAPLEY}", top)) for c in CAPACITIES}
    each = [f"{cell(values)} ({c})" for c, values in sampled.items() if values is not None and len(values) > 1]
    if each:
        n = max(len(values) for values in sampled.values() if values is not None)
        said += f" Shapley values of {n} texts are sampled; sampled again, they correlate with themselves: "
        said += ", ".join(each) + "."
    return said


if __name__ == "__main__":
    main()
