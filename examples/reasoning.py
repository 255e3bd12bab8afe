"""Which part of a formula decides the value of a variable? An encoder-decoder that reasons, explained step by step.

A small BART learns to satisfy propositional formulas (``formulas.py``). One of its answers is explained: for each step,
which says the value of a variable, the maximum flow from each symbol of the formula. Then a check of such explanations
on formulas that it was not trained on and answers rightly: does the step that says the value of x rank the places
where x stands above the places of other variables? That is told by the AUC, the probability that a place of x has a
higher score than a place of another variable, 0.5 being chance. What the model really depends on is measured as well:
how much the log-probability of what it said drops when another variable is put in a place ("substitution").

``make reasoning`` runs it: some minutes of training on two quiet cores, once, and then two. ``--quick`` is a test of
the script.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

import attnflow
import formulas
from attnflow import Attribution
from attnflow.attribution import spearman
from attnflow.packaged_models import cache_folder
from formulas import ANSWERS, VARIABLES, Formula

STEPS = range(len(VARIABLES))
SHOWN = Formula("&!a|b&c!b", "001")
# Name -> options of attnflow.explain.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "excess flow, ALTI": {},
    "excess flow, ALTI, chained": {"chain": True},
    "excess flow, attention x gradient": {"measure": "attention_x_gradient"},
    "plain flow, ALTI": {"calibration": None},
    "plain flow, attention (the published method)": {"measure": "attention", "calibration": None},
}

Scores = NDArray[np.float64]


def main() -> None:
    """Train, or load what was trained, check the answers, explain one, and measure the explanations of many."""
    parser = argparse.ArgumentParser(description="Explain how a model satisfies formulas.")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument("--formulas", type=int, default=100, help="how many to measure on (default: 100)")
    parser.add_argument("--page", type=Path, default=Path("attnflow-reasoning.html"), help="the page to write")
    parser.add_argument("--quick", action="store_true", help="hardly train, five formulas: the figures mean nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    transformers.logging.set_verbosity_error()
    steps, count, tested = (3, 5, 50) if options.quick else (2500, options.formulas, 2000)
    cache = None if options.quick else cache_folder() / "examples"
    model, tokenizer = formulas.trained(steps=steps, seed=options.seed, cache=cache, say=say)
    unseen = draw(tested, options.seed)
    answers = formulas.answered(model, tokenizer, unseen)
    print(correctness(unseen, answers))
    show(model, tokenizer, SHOWN, options.page)
    # An untrained model is right about nothing, and --quick takes what comes.
    fine = [f for f, a in zip(unseen, answers, strict=True) if options.quick or formulas.holds(f.text, a)]
    print(agreement(model, tokenizer, fine[:count], options.seed))


def say(what: str) -> None:
    """Announce a stage."""
    print(f"... {what}", file=sys.stderr, flush=True)


def draw(count: int, seed: int) -> list[Formula]:
    """Different formulas that the model was not trained on."""
    rng = random.Random(f"unseen {seed}")
    found: dict[str, Formula] = {}
    while len(found) < count:
        formula = formulas.sample(rng)
        if formulas.held_out(formula):
            found[formula.text] = formula
    return list(found.values())


def correctness(unseen: Sequence[Formula], answers: Sequence[str]) -> str:
    """How many formulas the answers satisfy, by truth table, beside the best that one answer to all could do."""
    right = np.mean([formulas.holds(f.text, a) for f, a in zip(unseen, answers, strict=True)])
    smallest = np.mean([f.answer == a for f, a in zip(unseen, answers, strict=True)])
    constant = max(float(np.mean([formulas.holds(f.text, answer) for f in unseen])) for answer in ANSWERS)
    return (
        f"{len(unseen)} unseen formulas: {right:.1%} satisfied, {smallest:.1%} by the smallest assignment; "
        f"the same answer to all would satisfy {constant:.1%} at best"
    )


# --- One answer ------------------------------------------------------------------------------------------------------


def show(model: Any, tokenizer: Any, formula: Formula, page: Path) -> None:
    """One answer in words, and as a page; then once more, what was said counted as coming from the formula."""
    result = attnflow.explain(model, tokenizer, formula.text, steps=STEPS)
    (answer,) = formulas.answered(model, tokenizer, [formula])
    verdict = "satisfies it" if formulas.holds(formula.text, answer) else "does not satisfy it"
    values = ", ".join(f"{name} = {digit}" for name, digit in zip(VARIABLES, answer, strict=False))
    print(f"\n{formula.text} is {formulas.infix(formula.text)}\nThe model answers {values}, which {verdict}.")
    print("\nWhat each step drew on, of the formula and of what was said before:")
    print(in_words(result))
    chained = attnflow.explain(model, tokenizer, formula.text, steps=STEPS, chain=True)
    print("\nThe same, flow through what was said counted as coming from the formula:")
    print(in_words(chained))
    print(f"\nwrote {result.save(page)}\n")


def in_words(result: Attribution) -> str:
    """The matrix (step, token), and the best of each row."""
    names = [result.tokens[position].strip() or "?" for position in result.players]
    lines = [" " * 9 + "".join(f"{name:>6}" for name in names)]
    for step, row in enumerate(result.values):
        lines.append(f"{VARIABLES[step]} is said " + "".join(f"{score:6.2f}" for score in row))
    for step in STEPS:
        best = ", ".join(f"{row.token} at {row.position} ({row.score:.2f})" for row in result.top(3, step))
        lines.append(f"the value of {VARIABLES[step]} drew most on {best}")
    return "\n".join(lines)


# --- Many answers ----------------------------------------------------------------------------------------------------


def agreement(model: Any, tokenizer: Any, chosen: Sequence[Formula], seed: int) -> str:
    """A table: for each method the AUC, and the correlation with substitution, means over formulas."""
    auc: dict[str, list[float]] = {}
    like: dict[str, list[float]] = {}
    for done, formula in enumerate(chosen):
        if done % 25 == 0:
            say(f"measuring: formula {done + 1} of {len(chosen)}")
        places = [place for place, symbol in enumerate(formula.text) if symbol in VARIABLES]
        symbols = np.array(list(formula.text))[places]
        truth = substituted(model, tokenizer, formula, places)
        scores = {"substitution": truth, "chance": np.random.default_rng([seed, done]).random(truth.shape)}
        scores["mean cross-attention"] = cross_attention(model, tokenizer, formula)[:, places]
        for name, options in METHODS.items():
            result = attnflow.explain(model, tokenizer, formula.text, steps=STEPS, **options)
            column = {position: index for index, position in enumerate(result.players.tolist())}
            scores[name] = result.values[:, [column[place] for place in places]]
        for name, matrix in scores.items():
            each = [area(row, symbols == VARIABLES[step]) for step, row in enumerate(matrix)]
            auc.setdefault(name, []).append(float(np.mean(each)))
            correlations = [spearman(*rows) for rows in zip(matrix, truth, strict=True)]
            # Scores that are all equal rank nothing.
            like.setdefault(name, []).append(float(np.mean([0.0 if math.isnan(r) else r for r in correlations])))
    lines = [f"{len(chosen)} formulas, means ± standard errors", ""]
    lines += [
        "| scores of the places of variables | AUC of the step's own variable | like substitution |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {mean(auc[name], '.3f')} | {mean(like[name], '+.3f')} |" for name in auc]
    return "\n".join(lines)


def area(scores: Scores, own: NDArray[np.bool_]) -> float:
    """The share of pairs in which the step's own variable has the higher score; a tie is half a pair."""
    differences = scores[own][:, None] - scores[~own][None, :]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def substituted(model: Any, tokenizer: Any, formula: Formula, places: Sequence[int]) -> Scores:
    """The mean drop in log-probability of each value with another variable in each place: (step, place)."""
    (answer,) = formulas.answered(model, tokenizer, [formula])
    texts = [formula.text]
    for place in places:
        others = [name for name in VARIABLES if name != formula.text[place]]
        texts += [formula.text[:place] + other + formula.text[place + 1 :] for other in others]
    inputs = tokenizer(texts, return_tensors="pt")
    said = tokenizer([answer.ljust(len(VARIABLES), "0")[: len(VARIABLES)]] * len(texts), return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        logits = model(**inputs, labels=said).logits[:, : len(VARIABLES)]
    log = logits.log_softmax(dim=-1).gather(2, said[:, : len(VARIABLES), None])[..., 0].double().numpy()
    drops = log[0] - log[1:].reshape(len(places), len(VARIABLES) - 1, len(VARIABLES)).mean(axis=1)
    return np.asarray(drops.T)


def cross_attention(model: Any, tokenizer: Any, formula: Formula) -> Scores:
    """What each step attends to in the encoder's output, mean over layers and heads: (step, position)."""
    (answer,) = formulas.answered(model, tokenizer, [formula])
    begun = tokenizer(tokenizer.bos_token + answer, add_special_tokens=False)["input_ids"][: len(VARIABLES)]
    inputs = {**tokenizer(formula.text), "decoder_input_ids": begun}
    captured = attnflow.capture.attentions(model, **inputs).of_text(0)
    return np.asarray(np.mean([layer.numpy() for layer in captured.cross], axis=0, dtype=np.float64))


def mean(values: Sequence[float], shape: str) -> str:
    """Mean over formulas, plus or minus its standard error."""
    return f"{np.mean(values):{shape}} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
