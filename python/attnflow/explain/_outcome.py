"""From flows to the result: predictions, the picture of a flow, and what the numbers are, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._positions import integer, is_many
from ..attribution import PairFlow
from ..errors import InvalidArgumentError
from ..network import Network
from ._networks import Method
from ._plan import Plan
from ._reading import Reading

if TYPE_CHECKING:
    from ..capture import Contributions

__all__ = [
    "definition",
    "logits_of",
    "meant",
    "model_name",
    "objective",
    "objective_words",
    "picture",
    "predicted",
    "said",
    "wanted_tokens",
]

# Pairs whose flow is drawn: the picture of more would show nothing.
_PICTURED = 3


def predicted(
    plan: Plan, tokenizer: Any, reading: Reading, captured: Contributions, model: Any
) -> tuple[Plan, tuple[str, float] | None]:
    """The token that the model predicts at the plan's position, if it has a language model's head; and the plan."""
    logits = captured.logits
    if plan.predicts is None or logits is None or logits.ndim != 2 or len(logits) != len(reading.tokens):
        return plan, None
    if reading.grid is not None or not callable(getattr(tokenizer, "decode", None)):
        return plan, None
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    if logits.shape[-1] < getattr(config, "vocab_size", math.inf):
        return plan, None  # classes of tokens, not words
    probabilities = logits[plan.predicts].softmax(dim=-1)
    token = int(probabilities.argmax())
    if captured.kind == "decoder" and len(plan.sinks[0]) == 1:
        plan = replace(plan, label=f"next token after {reading.name([plan.predicts])}")
    return plan, (str(tokenizer.decode([token])), float(probabilities[token]))


def said(plan: Plan, tokenizer: Any, reading: Reading, captured: Contributions) -> tuple[tuple[str, float], ...] | None:
    """For each sink the token of the answer, and the probability that the model gave it."""
    logits = captured.logits
    if logits is None or logits.ndim != 2:
        return None
    found = []
    for (position,) in plan.sinks:
        token = reading.said[position - reading.first]
        row = logits[position - reading.n_source]
        found.append((str(tokenizer.decode([token])), float(row.softmax(dim=-1)[token])))
    return tuple(found)


def picture(
    network: Network, sinks: Any, players: Sequence[int], values: Any, solver: dict[str, Any]
) -> tuple[PairFlow, ...] | None:
    """Edge flows and cuts of the highest scores."""
    pairs = []
    for index in np.argsort(-values, kind="stable")[:_PICTURED].tolist():
        if values[index] <= 0:
            break
        one = network.source_flows(sinks, sources=[players[index]], flows=True, cuts=True, **solver)
        edges, cuts = one.flows, one.cuts
        if edges is None or cuts is None:
            return None
        side = cuts[0][0].source_side
        ends = zip(edges.link.tolist(), edges.giver.tolist(), edges.receiver.tolist(), strict=True)
        crossing = [
            bool(side[network.links[link].giver][giver]) and not side[network.links[link].receiver][receiver]
            for link, giver, receiver in ends
        ]
        pairs.append(
            PairFlow(
                players[index], edges.link, edges.receiver, edges.giver, edges.flow, np.array(crossing, dtype=bool)
            )
        )
    return tuple(pairs) or None


def objective(
    asked: Any, tokenizer: Any, reading: Reading, sink: tuple[int, ...] | Callable[[int], tuple[int, ...]]
) -> Callable[[Any], Any]:
    """What gradients are taken of, as a function of the model's output: a logit, or the difference of two.

    Parameters
    ----------
    asked
        None for the token that was said or else has the highest logit; a token or class, by number or text; two of
        these for their difference; or the function itself.
    sink
        Positions of the sink: the last one's logits are meant, unless the model has one row of them. Where they are not
        known before the model has run, a function of how many there are.
    """
    if callable(asked):
        return asked  # type: ignore[no-any-return]
    wanted = wanted_tokens(asked, tokenizer)

    def derived(outputs: Any) -> Any:
        logits = logits_of(outputs)
        if logits.ndim == 2:
            row, last = logits[0], reading.first
        else:
            last = max(sink(logits.shape[1]) if callable(sink) else sink)
            row = logits[0, last - reading.n_source]
        tokens = meant(wanted, row, reading, last)
        return row[tokens[0]] - row[tokens[1]] if len(tokens) == 2 else row[tokens[0]]

    return derived


def wanted_tokens(asked: Any, tokenizer: Any) -> list[int | None]:
    """One token or class, or two, that an objective names; None for the one that was said or is predicted."""
    pair = list(asked) if is_many(asked) else [asked]
    if len(pair) not in (1, 2):
        raise InvalidArgumentError(f"objective must be a token, or two for their difference, got {len(pair)}")
    wanted = [None if one is None else _token(one, tokenizer) for one in pair]
    if len(pair) == 2 and wanted[0] == wanted[1]:
        raise InvalidArgumentError(f"objective must be the difference of two tokens, got {asked!r}: they are the same")
    return wanted


def logits_of(outputs: Any) -> Any:
    """``(batch, classes)`` or ``(batch, n, vocabulary)``."""
    logits = getattr(outputs, "logits", None)
    if logits is None or getattr(logits, "ndim", 0) not in (2, 3):
        raise InvalidArgumentError(
            f"{type(outputs).__name__} has no logits that could be derived: take a model with a head, or give an "
            "objective, a function of the model's output"
        )
    return logits


def meant(wanted: Sequence[int | None], row: Any, reading: Reading, last: int) -> list[int]:
    """The tokens that an objective is about, of one row of logits at position `last`."""
    said = reading.said[last - reading.first] if reading.said else int(row.argmax())
    tokens = [said if one is None else one for one in wanted]
    for token in tokens:
        if not -len(row) <= token < len(row):
            raise InvalidArgumentError(f"objective names {token}, and the model's output has {len(row)} logits")
    return tokens


def _token(asked: Any, tokenizer: Any) -> int:
    if not isinstance(asked, str):
        return integer(asked, "objective")
    if not callable(tokenizer) or not callable(getattr(tokenizer, "decode", None)):
        raise InvalidArgumentError(
            f"objective {asked!r} is text, and there is no tokenizer to read it: name a token or a class by its number"
        )
    ids = [int(token) for token in tokenizer(asked, add_special_tokens=False)["input_ids"]]
    if len(ids) != 1:
        raise InvalidArgumentError(
            f"objective {asked!r} is {len(ids)} tokens, {ids}: one is needed (is the blank before it meant?)"
        )
    return ids[0]


def definition(captured: Contributions, residual: float, method: Method, two_stacks: bool, score: str) -> str:
    """What numbers of a network are, in one sentence that begins with what a score is."""
    mixed = "which hold the residual" if captured.holds_residual else f"mixed with a residual of {residual:g}"
    spread = ", as excess over an even spread" if method.calibration == "excess" else ""
    merged = (
        {"sublayers": "", "single": ", both attentions of a decoder layer in one"}[method.merge] if two_stacks else ""
    )
    chained = ", going on from what was said to what was said next" if method.chain else ""
    divided = "" if method.receptive_field else "not "
    return (
        f"{score}, through the {captured.measure} contributions of every layer, {mixed}{spread}{merged}{chained}; "
        f"{divided}divided by receptive fields"
    )


def objective_words(asked: Any, probability: bool, said: bool) -> str:
    """What an objective is, in words; `said`: of what the model said, or was made to say."""
    if callable(asked):
        return getattr(asked, "__name__", "a function") + " of the model's output"
    if is_many(asked):
        return "the difference of two logits"
    token = f"{asked!r}" if asked is not None else "what was said" if said else "what is predicted"
    return f"the {'log-probability' if probability else 'logit'} of {token}"


def model_name(model: Any) -> str:
    """The name a model was loaded by; of a folder its last part, because paths are nobody else's business."""
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    return Path(name).name if Path(name).exists() else name
