"""Model and text to attribution: the main job, a thin line through capture, network and kernel."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ._positions import as_position, distinct, is_many
from .attribution import Attribution, PairFlow
from .errors import InvalidArgumentError
from .network import Network

if TYPE_CHECKING:
    from .capture import Contributions

__all__ = ["explain"]

Target = int | str | Sequence[int] | None
Progress = Callable[[str, int, int], object]

# Pairs whose flow is drawn: the picture of more would show nothing.
_PICTURED = 3


def explain(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    target: Target = None,
    measure: Any = "alti",
    residual: float | None = None,
    heads: Literal["mean", "max", "min"] | int | Sequence[float] = "mean",
    calibration: Literal["excess"] | None = "excess",
    sources: Literal["all"] | Iterable[int] | None = None,
    start_token: Literal["auto"] | bool = "auto",
    threads: int | None = None,
    algorithm: Literal["auto", "dinic", "push_relabel"] = "auto",
    check: bool = True,
    progress: Progress | None = None,
) -> Attribution:
    """Which tokens a model's prediction drew on, by exact maximum flow through its attention.

    The model runs once on the text. Every layer becomes a matrix of contributions, the matrices a network, and the
    score of a token is the maximum flow from it, alone, to the position that makes the prediction. The model is left
    exactly as it was found, also after an error.

    Parameters
    ----------
    model
        A decoder-only or encoder-only model of transformers, in any precision, on any device.
    tokenizer
        Its tokenizer.
    text : str
        What to explain. Special tokens written in it count as tokens of the text.
    target : int, sequence of int, str or None
        The output position to explain: the sink of the flow.

        - None: of a decoder the last token of the text, which predicts the next one; of an encoder the class token if
          the tokenizer puts one first, else "mean".
        - An integer p is output position p, negative ones counting from the end. In a decoder, output position p is
          what predicts token p + 1. Positions count all tokens, the start token included.
        - A sequence of integers: these positions joined in one sink.
        - "cls": the class token. "mean": the mean over the positions of the text, as in a sentence embedding.
        - Any other string is looked up in the text: the output positions of the tokens it covers, joined. What
          follows "word:" always is: "word:mean" is the word "mean".
    measure : {"attention", "alti"} or capture.measures.Measure
        What a contribution is.
    residual : float, optional
        r in C = (1 - r) A + r I. By default 0.5 for a measure without the residual, 0 for one that holds it (ALTI).
    heads : {"mean", "max", "min"}, int or sequence of float
        How measure "attention" reduces the heads.
    calibration : "excess" or None
        "excess" counts what a layer passes on beyond an even spread over the positions it sees. None is the published
        method, whose scores follow the order of the tokens on real language models.
    sources : "all", iterable of int, or None
        The players. None: every token of the text that the target can see. "all": every position, special tokens too.
    start_token : "auto" or bool
        Whether a start token (bos, else eos) stands before the text. "auto": in a decoder, if neither the tokenizer nor
        the text put one there. It soaks up attention that means nothing, and is never a player unless asked for.
    threads : int, optional
        Threads of the flow solver.
    algorithm : {"auto", "dinic", "push_relabel"}
        Of the flow solver.
    check : bool
        Verify every flow against a cut.
    progress : callable, optional
        ``progress(stage, done, total)``, with stages "capture", "network" and "flow". Raising in it ends the work.

    Returns
    -------
    Attribution

    Raises
    ------
    InvalidArgumentError
        Empty text, a text longer than the model's context, a target that is not in the text or there more than once, a
        position out of range, an unknown option.
    CaptureError
        The model's attention cannot be captured exactly; the message names the layer and a way out.
    MissingDependencyError
        torch or transformers is not installed.

    Examples
    --------
    A model of random weights over a vocabulary of four words, so that the example runs anywhere:

    >>> import attnflow
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"<s>": 0, "the": 1, "keys": 2, "to": 3}, unk_token="<s>"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=4, **size))
    >>> result = attnflow.explain(model, tokenizer, "the keys to the")
    >>> result.tokens, result.players.tolist(), result.targets
    (('<s>', 'the', 'keys', 'to', 'the'), [1, 2, 3, 4], ((4,),))
    >>> result.target_label, result.verified, result.values.shape
    ("next token after 'the'", True, (1, 4))
    """
    from . import capture

    if not isinstance(text, str):
        raise InvalidArgumentError(f"text must be a str, got {type(text).__name__}")
    if not text:
        raise InvalidArgumentError("text is empty: there is nothing to explain")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"the text holds {text[error.start]!r} at character {error.start}, half of a character: it must be valid"
            " Unicode (was it read with the right encoding?)"
        ) from None
    if not callable(getattr(model, "named_modules", None)):
        raise InvalidArgumentError(f"model must be a model of transformers, already loaded, got {_named(model)}")
    if not callable(tokenizer) or not callable(getattr(tokenizer, "decode", None)):
        raise InvalidArgumentError(
            f"tokenizer must be a tokenizer of transformers, already loaded, got {_named(tokenizer)}"
        )
    if not (isinstance(start_token, bool) or (isinstance(start_token, str) and start_token == "auto")):
        raise InvalidArgumentError(f"start_token must be 'auto', True or False, got {start_token!r}")
    if progress is not None and not callable(progress):
        raise InvalidArgumentError(f"progress must be a function of (stage, done, total), got {progress!r}")
    if isinstance(target, bytes):
        raise InvalidArgumentError(f"target={target!r} is bytes: a str, a position or several positions are needed")
    # Read twice below, which an iterator would not survive.
    target = list(target) if is_many(target) else target
    sources = list(sources) if is_many(sources) else sources
    # The small options are tried on a network of one node before the model runs for nothing.
    Network.encoder(np.ones((1, 1, 1)), residual=0.5 if residual is None else residual, calibration=calibration)
    Network.encoder(np.ones((1, 1, 1))).source_flows(threads=threads, algorithm=algorithm)

    timings: dict[str, float] = {}
    clock = _Clock(timings, progress)
    with clock.stage("capture") as step:
        causal = capture.is_causal(model)
        for _ in range(2):
            encoded = _encode(tokenizer, text, causal, start_token)
            plan = _plan(encoded, target, sources, causal)
            captured = capture.contributions(model, encoded.ids, measure=measure, heads=heads, progress=step).of_text(0)
            if captured.kind == ("decoder" if causal else "encoder"):
                break
            # Models say little about themselves; what was captured tells for certain.
            causal = captured.kind == "decoder"
    if residual is None:
        residual = 0.0 if captured.holds_residual else 0.5
    elif residual and captured.holds_residual:
        raise InvalidArgumentError(
            f"residual={residual} would count the residual twice: measure {captured.measure!r} holds it. Leave it out"
        )
    with clock.stage("network"):
        make = Network.decoder if causal else Network.encoder
        network = make(
            [layer.matrix for layer in captured.layers],
            residual=residual,
            calibration=calibration,
            visible=[layer.visible for layer in captured.layers],
        )
        sinks: Any = [list(plan.positions)]
        if plan.pooled:
            network, sinks = network.pooled(plan.positions), 0
    solver: Any = {"threads": threads, "algorithm": algorithm, "check": check}
    with clock.stage("flow") as step:
        flows = network.source_flows(sinks, sources=plan.players, bottlenecks=True, progress=step, **solver)
    with clock.stage("picture"):
        pictured = _picture(network, sinks, plan.players, flows.values[0], solver)
    plan = _with_prediction(plan, tokenizer, encoded, captured, model)
    return Attribution(
        tokens=encoded.tokens,
        offsets=encoded.offsets,
        text=text,
        players=np.asarray(plan.players),
        targets=(plan.positions,),
        target_label=plan.label,
        values=flows.values,
        lower=flows.lower,
        upper=flows.upper,
        bottlenecks=np.asarray(flows.bottlenecks),
        kind=captured.kind,
        n_layers=len(captured.layers),
        n_nodes=network.n_nodes,
        n_edges=network.n_edges,
        definition=_definition(captured, residual, calibration),
        prediction=plan.prediction,
        timings=timings,
        options={
            "model": _model_name(model),
            "model_class": type(model).__name__,
            "target": target if target is None or isinstance(target, str) else list(plan.positions),
            "measure": captured.measure,
            "residual": residual,
            "heads": np.asarray(heads, dtype=float) if is_many(heads) else heads,
            "calibration": calibration,
            "sources": "text" if sources is None else sources if isinstance(sources, str) else list(plan.players),
            "start_token": None if encoded.start is None else encoded.tokens[encoded.start],
            "threads": flows.stats.get("threads", threads),
            "algorithm": flows.stats.get("algorithm", algorithm),
            "capture": captured.path,
        },
        verified=bool(flows.stats.get("checked", check)),
        flows=pictured,
    )


# -- text to tokens --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Encoded:
    """A text as the model sees it; every sequence has one entry a position."""

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int] | None, ...]
    special: tuple[bool, ...]
    start: int | None  # position of the start token
    cls: int | None  # position of the class token

    @property
    def inner(self) -> list[int]:
        """Positions of the text's own tokens."""
        return [position for position, special in enumerate(self.special) if not special]

    @property
    def extent(self) -> tuple[int, str, str]:
        """How many positions there are, and of what, for the reading of positions."""
        return len(self.ids), "the input", "token"

    def name(self, positions: Sequence[int]) -> str:
        """Positions in words, for a label."""
        if len(positions) > 3:
            return f"{len(positions)} positions"
        return ", ".join(f"{self.tokens[position].strip()!r}" for position in positions)


def _encode(tokenizer: Any, text: str, causal: bool, start_token: Literal["auto"] | bool) -> _Encoded:
    fast = bool(getattr(tokenizer, "is_fast", False))
    # Not verbose: that a text is too long is said once, by the capture.
    encoding = tokenizer(
        text, return_special_tokens_mask=True, return_offsets_mapping=fast, truncation=False, verbose=False
    )
    ids = [int(token) for token in encoding["input_ids"]]
    special = [bool(flag) for flag in encoding["special_tokens_mask"]]
    spans = encoding["offset_mapping"] if fast else [None] * len(ids)
    offsets: list[tuple[int, int] | None] = [
        None if span is None or hidden or span[0] == span[1] else (int(span[0]), int(span[1]))
        for span, hidden in zip(spans, special, strict=True)
    ]
    if all(special):
        raise InvalidArgumentError(f"the text {text!r} holds no token: there is nothing to explain")

    known = [getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")]
    begin = next((token for token in known if token is not None), None)
    start = 0 if special[0] or (causal and ids[0] == begin) else None
    if start is None and (start_token is True or (start_token == "auto" and causal)):
        if begin is not None:
            ids, special, offsets, start = [begin, *ids], [True, *special], [None, *offsets], 0
        elif start_token is True:
            raise InvalidArgumentError(f"start_token=True, but {type(tokenizer).__name__} has neither a bos nor an eos")
    elif start == 0 and start_token is False and not special[0]:
        start = None  # written in the text, and a token like any other if it is wanted so
    if start is not None:
        special[start] = True
    if not any(not flag for flag in special):
        raise InvalidArgumentError(f"the text {text!r} holds no token but a start token: there is nothing to explain")
    cls_id = getattr(tokenizer, "cls_token_id", None)
    cls = 0 if special[0] and not causal and cls_id is not None and ids[0] == cls_id else None
    return _Encoded(
        text=text,
        ids=tuple(ids),
        tokens=tuple(str(tokenizer.decode([token])) for token in ids),
        offsets=tuple(offsets),
        special=tuple(special),
        start=start,
        cls=cls,
    )


# -- what flows to what ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Players and target, as positions."""

    players: tuple[int, ...]
    positions: tuple[int, ...]
    pooled: bool
    label: str
    predicts: int | None  # the position whose prediction this explains
    prediction: tuple[str, float] | None = None


def _plan(encoded: _Encoded, target: Target, sources: Any, causal: bool) -> _Plan:
    positions, pooled, label = _sink(encoded, target, causal)
    if sources is None:
        last = max(positions)
        players = [position for position in encoded.inner if position <= last or not causal]
        if not players:
            raise InvalidArgumentError(f"target={target!r}: no token of the text comes before it")
    elif isinstance(sources, str):
        if sources != "all":
            raise InvalidArgumentError(f"sources must be None, 'all' or positions, got {sources!r}")
        players = list(range(len(encoded.ids)))
    else:
        players = sorted(distinct(sources, "sources", *encoded.extent))
    # An encoder predicts in place, where it predicts at all: the word behind a mask, say.
    predicts = max(positions) if causal or (len(positions) == 1 and not isinstance(target, str | None)) else None
    return _Plan(tuple(players), positions, pooled, label, None if pooled else predicts)


def _sink(encoded: _Encoded, target: Target, causal: bool) -> tuple[tuple[int, ...], bool, str]:
    """The positions of the target, whether they are averaged rather than joined, and their name."""
    inner = tuple(encoded.inner)
    if target is None and causal:
        return (inner[-1],), False, f"output at {encoded.name(inner[-1:])}"
    if target == "cls" or (target is None and encoded.cls is not None):
        if encoded.cls is None:
            raise InvalidArgumentError("target='cls', but the tokenizer puts no class token before this text")
        return (encoded.cls,), False, f"class token {encoded.tokens[encoded.cls]!r}"
    if target is None or target == "mean":
        return inner, True, f"mean over {len(inner)} positions"
    if isinstance(target, str):
        words = target.removeprefix("word:")
        if not words:
            raise InvalidArgumentError(f"target is {target!r}: no word to look up in the text")
        return _look_up(encoded, words), False, f"output at {words!r}"
    extent = encoded.extent
    found = tuple(distinct(target, "target", *extent)) if is_many(target) else (as_position(target, "target", *extent),)
    return found, False, f"output at {encoded.name(found)}"


def _look_up(encoded: _Encoded, words: str) -> tuple[int, ...]:
    """The tokens that a piece of the text covers."""
    begins = [at for at in range(len(encoded.text)) if encoded.text.startswith(words, at)] if words else []
    if not begins:
        raise InvalidArgumentError(f"target {words!r} is not in the text {_short(encoded.text)!r}")
    if len(begins) > 1:
        raise InvalidArgumentError(
            f"target {words!r} is in the text {len(begins)} times, at characters {', '.join(map(str, begins))}: give "
            "more of the words around it, or a position"
        )
    start, stop = begins[0], begins[0] + len(words)
    found = [p for p, span in enumerate(encoded.offsets) if span is not None and span[0] < stop and span[1] > start]
    if not found:
        raise InvalidArgumentError(
            f"target {words!r} cannot be matched to tokens: "
            + ("no token covers it" if any(encoded.offsets) else "the tokenizer gives no offsets; use a position")
        )
    return tuple(found)


# -- what is told beside the scores ----------------------------------------------------------------------------------


def _with_prediction(plan: _Plan, tokenizer: Any, encoded: _Encoded, captured: Contributions, model: Any) -> _Plan:
    """The plan with the token that the model predicts at its position, if it has a language model's head."""
    logits = captured.logits
    if plan.predicts is None or logits is None or logits.ndim != 2 or len(logits) != len(encoded.ids):
        return plan
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    if logits.shape[-1] < getattr(config, "vocab_size", math.inf):
        return plan  # classes of tokens, not words
    probabilities = logits[plan.predicts].softmax(dim=-1)
    token = int(probabilities.argmax())
    label = plan.label
    if captured.kind == "decoder" and len(plan.positions) == 1:
        label = f"next token after {encoded.tokens[plan.predicts].strip()!r}"
    return replace(plan, label=label, prediction=(str(tokenizer.decode([token])), float(probabilities[token])))


def _picture(
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


def _definition(captured: Contributions, residual: float, calibration: str | None) -> str:
    mixed = "which hold the residual" if captured.holds_residual else f"mixed with a residual of {residual:g}"
    spread = ", as excess over an even spread" if calibration == "excess" else ""
    return (
        "independent maximum flows: from each player alone to the target, through the "
        f"{captured.measure} contributions of every layer, {mixed}{spread}; not divided by receptive fields"
    )


def _model_name(model: Any) -> str:
    """The name a model was loaded by; of a folder its last part, because paths are nobody else's business."""
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    return Path(name).name if Path(name).exists() else name


def _named(value: Any) -> str:
    return f"{type(value).__name__} {_short(repr(value))}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


class _Clock:
    """Times the stages and passes their progress on."""

    def __init__(self, timings: dict[str, float], progress: Progress | None) -> None:
        self.timings, self.progress = timings, progress

    def stage(self, name: str) -> _Stage:
        return _Stage(self, name)


class _Stage:
    """A context that times one stage; it yields the callback for its progress, or None if nobody listens."""

    def __init__(self, clock: _Clock, name: str) -> None:
        self.clock, self.name, self.started = clock, name, 0.0

    def __enter__(self) -> Callable[[int, int], object] | None:
        self.started = time.perf_counter()
        progress = self.clock.progress
        return None if progress is None else lambda done, total: progress(self.name, done, total)

    def __exit__(self, *_: object) -> None:
        self.clock.timings[self.name] = time.perf_counter() - self.started
