"""Model and text to attribution: the main job, a thin line through capture, network and kernel.

``_subject``   what is asked, made into what the model reads, its answer included
``_reading``   what is known of each position of it
``_plan``      players and sinks
``_networks``  from captured layers to a network
``_scores``    what kind of score is asked for, and its computation
``_probing``   scores that ask the model instead of a network
``_outcome``   predictions, pictures and words for the result
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._positions import integer, is_many
from ..attribution import FLOWS, Attributed, Attribution, Scores
from ..errors import CaptureError, InvalidArgumentError
from ..network import Network
from . import _networks, _outcome
from ._clock import Clock, Progress
from ._networks import Method
from ._plan import Plan, Sources, Target, steps_of
from ._reading import NO_TEXT, Reading, located, text_part
from ._scores import Asked, Scored, on_network
from ._subject import Request, is_text, named, planned, read, validated

if TYPE_CHECKING:
    from ..capture import Contributions
    from ._probing import LeaveOut

__all__ = ["explain"]


def explain(
    model: Any,
    tokenizer: Any,
    text: Any,
    *,
    target: Target = None,
    generate: bool | Mapping[str, Any] | None = None,
    continuation: str | None = None,
    steps: int | Iterable[int] | None = None,
    chain: bool = False,
    receptive_field: bool = False,
    measure: Any = None,
    objective: Any = None,
    residual: float | None = None,
    heads: Literal["mean", "max", "min"] | int | Sequence[float] = "mean",
    calibration: Literal["excess"] | None = "excess",
    merge: Literal["sublayers", "single"] = "sublayers",
    sources: Sources = None,
    attribution: Attributed = "independent",
    sampling: Mapping[str, Any] | None = None,
    leave_out: LeaveOut = "mask",
    units: Literal["tokens", "words", "sentences"] | Sequence[tuple[int, int]] = "tokens",
    evidence: bool = True,
    start_token: Literal["auto"] | bool = "auto",
    batch_size: int = 8,
    keep: int | None = None,
    below: float | None = None,
    memory_limit: int | None = None,
    spill: Any = None,
    threads: int | None = None,
    algorithm: Literal["auto", "dinic", "push_relabel"] = "auto",
    check: bool = True,
    progress: Progress | None = None,
) -> Any:
    """Which tokens a model's prediction drew on, by exact maximum flow through its attention.

    The model runs once on the text, and on its answer if it is to give one. Every layer becomes a matrix of
    contributions, the matrices a network, and the score of a token is the maximum flow from it, alone, to the position
    that makes the prediction. The model is left exactly as it was found, also after an error.

    Parameters
    ----------
    model
        A model of transformers: decoder-only, encoder-only or encoder-decoder, of text, images or sound, in any
        precision, on any device.
    tokenizer
        Its tokenizer; of images and sound its processor. None where `text` is a mapping of arrays and nothing is said.
    text : str, conversation, image, recording, mapping, or a list of any one of these
        What to explain. Special tokens written in a text count as tokens of it. A conversation is a sequence of
        messages ``{"role": ..., "content": ...}``, put through the tokenizer's chat template. An image or a recording
        is whatever the processor takes, or a mapping of what it returns: its patches or frames are the players.
        Several texts in a list are padded and run together, `batch_size` at a time, and explained one by one.
    target : int, sequence of int, str or None
        Of an encoder-decoder the text that it is to say; None: what it generates. Else the output position to explain,
        the sink of the flow:

        - None: of a decoder the last token of the text, which predicts the next one; of an encoder the class token if
          the tokenizer puts one first, else "mean".
        - An integer p is output position p, negative ones counting from the end. In a decoder, output position p is
          what predicts token p + 1. Positions count all tokens, the start token included.
        - A sequence of integers: these positions joined in one sink.
        - "cls": the class token. "mean": the mean over the positions of the text, as in a sentence embedding.
        - Any other string is looked up in the text: the output positions of the tokens it covers, joined. What
          follows "word:" always is: "word:mean" is the word "mean".
    generate : bool or mapping, optional
        Lets a decoder go on where its text ends, and explains each token it says: options of the model's own
        ``generate``, or True for none. An encoder-decoder generates whenever it is given no target, with these.
    continuation : str, optional
        The same for a decoder that is made to go on with this text.
    steps : int or sequence of int, optional
        Which tokens of an answer to explain, from 0 on; None: all of them, a sink each.
    chain : bool
        Whether flow that reached a token of the answer goes on, unbounded, where that token is read again: it then
        counts as coming from what was given, and only that plays. Otherwise tokens of the answer are players too.
    receptive_field : bool
        Whether scores are divided by the number of positions, up to the sink's, that attend to the player.
    measure : str or capture.measures.Measure
        What a contribution is: one of :data:`attnflow.measures`, an object or a function of your own, or matrices, one
        a layer. None: "alti" where there is a network, else "attention".
    objective : int, str, pair of these, or callable, optional
        What gradients are taken of, and what tokens are left out for: the logit of a token or class, the difference of
        two, or a function of the model's output. None: the token that was said, or else predicted. Every step of an
        answer is a run of its own.
    residual : float, optional
        r in C = (1 - r) A + r I. By default 0.5 for a measure without the residual, 0 for one that holds it (ALTI).
    heads : {"mean", "max", "min"}, int or sequence of float
        How measure "attention" reduces the heads.
    calibration : "excess" or None
        "excess" counts what a layer passes on beyond an even spread over the positions it sees. None is the published
        method, whose scores follow the order of the tokens on real language models.
    merge : {"sublayers", "single"}
        Whether a decoder layer behind an encoder is two blocks, or one fed by both of its attentions; see
        :meth:`attnflow.Network.encoder_decoder`.
    sources : "all", "source", "decoder", iterable of int, or None
        The players. None: every token that the target can see. "all": every position, special tokens too. Of an
        encoder-decoder, "source" are the encoder's tokens and "decoder" the decoder's; positions count through both.
    attribution : str
        What a score is. "independent": the flow of each player alone, which counts capacity that players share for each
        of them. "shapley", "fair", "barrier": shares of what all players send together: its Shapley value
        (:meth:`attnflow.Network.shapley_values`), or the split of one joint flow that is fair, or the centre of all of
        them (:meth:`attnflow.Network.joint_flow`).

        What flows are compared with, in the same shape: "rollout" and "widest_path" through the same capacities;
        "raw_attention" and "mean_attention", the contributions of the last layer or the mean over all, as they are;
        "gradient_x_input"; "leave_one_out", how far the objective (of one token its log-probability) drops without a
        player; "random".
    sampling : mapping, optional
        Of "shapley" with many players: `permutations`, `tolerance` and `seed` of ``Network.shapley_values``; of
        "random" the `seed`.
    leave_out : {"mask", "delete"}
        How "leave_one_out" leaves a token out: the tokenizer's mask token in its place, or where there is none hidden
        from all attention; or taken out of the text. Of a patch or a frame the input's mean in its place.
    units : "tokens", "words", "sentences", or a sequence of (start, end)
        What the players are; see :meth:`Attribution.merge`.
    evidence : bool
        Whether the result holds its network, for :meth:`Attribution.check` and :meth:`Attribution.merge`.
    start_token : "auto" or bool
        Whether a start token (bos, else eos) stands before the text. "auto": in a decoder, if neither the tokenizer nor
        the text put one there, unless the model is to answer, which it does as it was trained to. It soaks up attention
        that means nothing, and is never a player unless asked for.
    batch_size : int
        How many texts run at once.
    keep, below : int, float, optional
        For long texts: only the largest capacities of each row are stored, and scores have certified intervals; see
        :meth:`attnflow.Network.encoder`.
    memory_limit : int, optional
        The most bytes that the captured matrices may take, by default half of the machine's memory.
    spill : path, optional
        A folder to put them into files in; see :func:`attnflow.capture.attentions`.
    threads : int, optional
        Threads of the flow solver.
    algorithm : {"auto", "dinic", "push_relabel"}
        Of the flow solver.
    check : bool
        Verify every flow against a cut.
    progress : callable, optional
        ``progress(stage, done, total)``, with stages "capture" and "flow". Raising in it ends the work.

    Returns
    -------
    Attribution, or a list of one a text
        With one sink; of an answer a sink a step: ``values`` is the matrix (step, player). ``result.source`` and
        ``result.decoder`` are the parts about either side's tokens.

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

    What it says next, or here is made to say, token by token, and what each drew on:

    >>> result = attnflow.explain(model, tokenizer, "the keys to", continuation=" the keys", chain=True)
    >>> result.values.shape, result.players.tolist(), result.sink_labels
    ((2, 3), [0, 1, 2], ('the', 'keys'))
    """
    if not callable(getattr(model, "named_modules", None)):
        raise InvalidArgumentError(f"model must be a model of transformers, already loaded, got {named(model)}")
    validated(text)
    if not (isinstance(start_token, bool) or (isinstance(start_token, str) and start_token == "auto")):
        raise InvalidArgumentError(f"start_token must be 'auto', True or False, got {start_token!r}")
    if not (generate is None or isinstance(generate, bool | Mapping)):
        raise InvalidArgumentError(f"generate must be True, or a mapping of generate()'s options, got {generate!r}")
    if continuation is not None and not isinstance(continuation, str):
        raise InvalidArgumentError(f"continuation must be a str, got {named(continuation)}")
    if continuation is not None and generate not in (None, False):
        raise InvalidArgumentError("continuation says how the text goes on: leave out generate")
    if not isinstance(merge, str) or merge not in ("sublayers", "single"):
        raise InvalidArgumentError(f"merge must be 'sublayers' or 'single', got {merge!r}")
    flags = {"chain": chain, "receptive_field": receptive_field, "check": check, "evidence": evidence}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise InvalidArgumentError(f"{name} must be True or False, got {flag!r}")
    if progress is not None and not callable(progress):
        raise InvalidArgumentError(f"progress must be a function of (stage, done, total), got {progress!r}")
    if isinstance(target, bytes):
        raise InvalidArgumentError(f"target={target!r} is bytes: a str, a position or several positions are needed")
    batch_size = integer(batch_size, "batch_size", low=1)
    method = Method(residual, calibration, merge, chain, receptive_field, keep, below)
    solver = {"threads": threads, "algorithm": algorithm, "check": check}
    asked = Asked(attribution, sampling, leave_out, units, evidence, solver, batch_size)
    asked.verify(method)
    # The small options are tried on a network of one node before the model runs for nothing.
    Network.encoder(
        np.ones((1, 1, 1)),
        residual=0.5 if residual is None else residual,
        calibration=calibration,
        keep=keep,
        below=below,
    )
    Network.encoder(np.ones((1, 1, 1))).source_flows(threads=threads, algorithm=algorithm)

    # Positions are read more than once, which an iterator would not survive.
    listed = [list(given) if is_many(given) else given for given in (target, sources, steps)]
    request = Request(
        target=listed[0],
        sources=listed[1],
        steps=listed[2],
        start_token=start_token,
        generate=generate,
        continuation=continuation,
        chain=chain,
    )
    work = _Work(
        model,
        tokenizer,
        request,
        method,
        asked,
        measure=asked.measure(measure),
        objective=objective,
        heads=heads,
        holding={"memory_limit": memory_limit, "spill": spill},
        progress=progress,
    )
    if is_text(text) or not isinstance(text, list | tuple):
        return work.explained([text], 1)[0]
    if not text:
        raise InvalidArgumentError("text is an empty list: there is nothing to explain")
    return work.explained(list(text), batch_size)


_WITHOUT_MEASURE = ("gradient_x_input", "leave_one_out", "random")


class _Work:
    """Everything that is the same for each text of one call."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        request: Request,
        method: Method,
        asked: Asked,
        *,
        measure: Any,
        objective: Any,
        heads: Any,
        holding: dict[str, Any],
        progress: Progress | None,
    ) -> None:
        from .. import capture

        self.capture = capture
        self.model, self.processor, self.request, self.method = model, processor, request, method
        self.asked = asked
        self.measure, self.objective, self.heads = capture.measures.find(measure, heads), objective, heads
        self.by_gradient = bool(getattr(self.measure, "needs_gradient", False))
        if objective is not None and not self.by_gradient and not asked.of_objective:
            raise InvalidArgumentError(f"objective has no meaning for measure {self.measure.name!r}: leave it out")
        self.holding, self.progress = holding, progress
        self.tokenizer = text_part(processor)
        # A guess, until something was captured; what goes on where its text ends is certainly causal.
        self.causal = request.answers or capture.is_causal(model)

    def explained(self, given: list[Any], batch_size: int) -> list[Attribution]:
        """A result a text."""
        for index, one in enumerate(given):
            with _told(index, len(given)):
                validated(one)
        results: list[Attribution] = []
        # Images and recordings may differ in their shapes, and there is no padding them.
        size = batch_size if all(is_text(one) for one in given) and not self.by_gradient else 1
        for start in range(0, len(given), size):
            results += self._batch(given[start : start + size], start, len(given))
        return results

    def _batch(self, given: list[Any], start: int, count: int) -> list[Attribution]:
        clock = Clock({}, self.progress)
        with clock.stage("capture") as step:
            for _ in range(2):
                readings = []
                for index, one in enumerate(given, start):
                    with _told(index, count):
                        readings.append(self._read(one))
                captured = self._captured(readings, step)
                kind, generates = captured[0].kind, getattr(self.model, "can_generate", lambda: False)()
                if self.request.answers and kind == "encoder" and not generates:
                    raise InvalidArgumentError(
                        f"{type(self.model).__name__} reads in both directions, what follows a token as well: it does "
                        "not go on with a text. Leave out continuation and generate"
                    )
                if kind == "encoder-decoder" or (kind == "decoder") == self.causal:
                    break
                # Models say little about themselves; what was captured tells for certain.
                self.causal = kind == "decoder"
        shared = {stage: seconds / len(given) for stage, seconds in clock.timings.items()}
        parts = [[one.of_text(text) for one in captured] for text in range(len(readings))]
        del captured  # what each result takes from its part is not held elsewhere
        results = []
        for text, reading in enumerate(readings):
            with _told(start + text, count):
                results.append(self._result(reading, parts.pop(0), shared))
        return results

    def _read(self, given: Any) -> Reading:
        """What the model reads of one text; what is wrong with it is said at once."""
        reading = read(self.capture, self.model, self.processor, given, self.request, self.causal)
        if not reading.arrays:
            self.asked.players(reading, planned(reading, self.tokenizer, self.request, self.causal))
            self.capture.estimate(self.model, _together([reading]))  # refuses what the model cannot read
        return reading

    def _captured(self, readings: Sequence[Reading], step: Any) -> list[Contributions]:
        """What was captured of these texts: once, or where gradients are taken of each sink's own output, a sink."""
        inputs = _together(readings)

        def run(objective: Any = None) -> Contributions:
            made: Contributions = self.capture.contributions(
                self.model, inputs, measure=self.measure, progress=step, objective=objective, **self.holding
            )
            return made

        if not self.by_gradient:
            return [run()]
        (reading,) = readings
        sinks: Sequence[tuple[int, ...] | Callable[[int], tuple[int, ...]]]
        if reading.said:
            sinks = steps_of(reading, self.request.steps)
        elif reading.tokens:
            sinks = planned(reading, self.tokenizer, self.request, self.causal).sinks
        else:

            def found(n: int) -> tuple[int, ...]:
                known = located(reading, self.model, n)
                return planned(known, self.tokenizer, self.request, self.causal).sinks[0]

            sinks = [found]
        return [run(_outcome.objective(self.objective, self.tokenizer, reading, sink)) for sink in sinks]

    def _result(self, reading: Reading, captures: list[Contributions], timings: Mapping[str, float]) -> Attribution:
        clock = Clock(dict(timings), self.progress)
        captures[:] = map(_networks.without_tower, captures)
        if reading.arrays:
            n = next(iter(captures[0].encoder), captures[0].layers[0].matrix).shape[-1]
            reading = located(reading, self.model, n)
        _networks.verify_unseen(captures, reading)
        plan = planned(reading, self.tokenizer, self.request, self.causal)
        _verify_positions(reading, captures[0])
        scored = self._scored(reading, captures, plan, clock)
        captured, scores = captures[0], scored.scores
        pictured = None
        if self.asked.attribution in FLOWS and scored.link_names is None and scored.players.members is None:
            (first,) = scored.solved
            if len(plan.sinks) == 1:
                with clock.stage("picture"):
                    pictured = _outcome.picture(
                        first.network, first.sinks, plan.players, scores.values[0], dict(self.asked.solver)
                    )
        told = _outcome.said(plan, self.tokenizer, reading, captured) if reading.said else None
        prediction = None if told is None or len(told) > 1 else told[0]
        if not reading.said:
            plan, prediction = _outcome.predicted(plan, self.tokenizer, reading, captured, self.model)
        return Attribution(
            **scored.players.about,
            **scores.arrays(),
            target_label=plan.label,
            kind=captured.kind,
            n_layers=len(captured.encoder) + len(captured.decoder),
            n_nodes=scored.n_nodes,
            n_edges=scored.n_edges,
            definition=self._definition(captured, scores, reading),
            prediction=prediction,
            timings=clock.timings,
            options=self._options(reading, plan, captured, scores.stats),
            verified=scores.verified,
            flows=pictured,
            sink_labels=plan.labels,
            predictions=told,
            link_names=scored.link_names,
            grid=reading.grid if scored.players.members is None else None,
            attribution=self.asked.attribution,
            members=scored.players.members,
            evidence=scored.evidence,
        )

    def _scored(self, reading: Reading, captures: list[Contributions], plan: Plan, clock: Clock) -> Scored:
        """The scores of every player; what was captured loses its matrices on the way."""
        asked = self.asked
        players = asked.players(reading, plan)
        if asked.on_network:
            return on_network(asked, self.method, reading, captures, plan, players, clock)
        from ._probing import Probe, attention

        with clock.stage("scores") as step:
            if asked.attribution == "raw_attention":
                values = attention(captures, reading, plan, players.groups, "last")
            elif asked.attribution == "mean_attention":
                values = attention(captures, reading, plan, players.groups, "mean")
            elif asked.attribution == "random":
                chance = np.random.default_rng((asked.sampling or {}).get("seed", 0))
                values = chance.random((len(plan.sinks), len(players.groups)))
            else:
                causal = captures[0].kind != "encoder"
                inputs = _together([reading])
                probe = Probe(
                    self.capture, self.model, self.tokenizer, reading, plan, inputs, self.objective, causal=causal
                )
                if asked.attribution == "gradient_x_input":
                    values = probe.gradient_x_input(players.groups)
                else:
                    values = probe.left_out(players.groups, asked.leave_out, asked.batch_size, step)
        captures[:] = map(_networks.lightened, captures)
        return Scored(Scores.exact(values), players)

    def _definition(self, captured: Contributions, scores: Scores, reading: Reading) -> str:
        asked, two_stacks = self.asked, captured.kind == "encoder-decoder"
        hidden = getattr(self.tokenizer, "mask_token", None)
        masked = f"which is replaced by {hidden!r}" if hidden else "which is hidden from all attention"
        if reading.grid is not None:
            masked = "in whose place the input's mean is put"
        score = asked.words(
            scores,
            measure=captured.measure,
            read="input" if getattr(self.model, "main_input_name", "") in NO_TEXT else "embedding",
            objective=_outcome.objective_words(
                self.objective, asked.attribution == "leave_one_out", said=bool(reading.said)
            ),
            left_out=masked if asked.leave_out == "mask" else "which is taken out of the text",
        )
        if asked.on_network:
            score = _outcome.definition(captured, self.method.mixing(captured), self.method, two_stacks, score)
        return score + asked.suffix()

    def _options(
        self, reading: Reading, plan: Plan, captured: Contributions, stats: Mapping[str, Any]
    ) -> dict[str, Any]:
        request, sources = self.request, self.request.sources
        target = request.target
        options = {
            "model": _outcome.model_name(self.model),
            "model_class": type(self.model).__name__,
            "target": target if target is None or isinstance(target, str) else list(plan.sinks[0]),
            "measure": None if self.asked.attribution in _WITHOUT_MEASURE else captured.measure,
            "heads": None
            if self.asked.attribution in _WITHOUT_MEASURE
            else np.asarray(self.heads, dtype=float)
            if is_many(self.heads)
            else self.heads,
            "sources": "text" if sources is None else sources if isinstance(sources, str) else list(plan.players),
            "start_token": None if reading.start is None else reading.tokens[reading.start],
            **self.asked.options(),
            "capture": captured.path,
        }
        if self.asked.on_network:
            solver = self.asked.solver
            options |= {
                "residual": self.method.mixing(captured),
                "calibration": self.method.calibration,
                "receptive_field": self.method.receptive_field,
                "keep": self.method.keep,
                "below": self.method.below,
                "threads": stats.get("threads", solver["threads"]),
                "algorithm": stats.get("algorithm", solver["algorithm"]),
            }
        if self.by_gradient or self.asked.of_objective:
            asked = self.objective
            options["objective"] = getattr(asked, "__name__", "a function") if callable(asked) else asked
        if reading.said:
            options |= {"chain": self.method.chain, "generated": request.continuation is None and target is None}
            if request.steps is not None:
                options["steps"] = [position - reading.first for (position,) in plan.sinks]
        if reading.n_source and self.asked.on_network:
            options["merge"] = self.method.merge
        return options


@contextmanager
def _told(index: int, count: int) -> Iterator[None]:
    """Which of several texts an error is about."""
    try:
        yield
    except InvalidArgumentError as error:
        if count == 1:
            raise
        raise InvalidArgumentError(f"text[{index}]: {error}") from error


def _together(readings: Sequence[Reading]) -> dict[str, Any]:
    """What the model reads of several texts at once, padded on the right, where no position is moved by it."""
    inputs: dict[str, Any] = dict(readings[0].arrays)
    for ids, mask, rows in (
        ("input_ids", "attention_mask", [reading.ids for reading in readings]),
        ("decoder_input_ids", "decoder_attention_mask", [reading.decoder_ids for reading in readings]),
    ):
        longest = max(map(len, rows))
        if longest == 0:
            continue
        inputs[ids] = [[*row, *[0] * (longest - len(row))] for row in rows]
        if ids == "input_ids" or any(len(row) < longest for row in rows):
            inputs[mask] = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return inputs


def _verify_positions(reading: Reading, captured: Contributions) -> None:
    """Assert that the layers are over the positions that were read, and no others."""
    n = len(reading.tokens)
    sizes = [stack[0].shape[-1] for stack in (captured.encoder, captured.decoder) if stack]
    if sum(sizes) != n or (len(sizes) == 2 and captured.kind != "encoder-decoder"):
        raise CaptureError(
            f"the model was given {n} positions, and its layers are over {' and '.join(map(str, sizes))}: which is "
            "which is unknown. Capture its attention and build a Network by hand"
        )
