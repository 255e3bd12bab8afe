"""One capture under way: the model's run, the reports of its layers, and the two ways to get them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attnflow.capture import _hooks, _interface, _layers, _state
from attnflow.capture._attention import Attention, GivenAttention, ValuedAttention
from attnflow.capture._inputs import Inputs
from attnflow.capture._layers import Stack
from attnflow.capture._memory import Trimming, spilled
from attnflow.capture._result import Layer
from attnflow.capture._subblock import SubBlock, Tape, resolve, taping
from attnflow.capture.measures import Measure
from attnflow.errors import AttnflowError, CaptureError, InvalidArgumentError

__all__ = ["Objective", "Progress", "Run", "run", "verify_shapes"]

Progress = Callable[[int, int], object]
Objective = Callable[[Any], Tensor]


@dataclass
class _Report:
    """One attention, over every text of the batch."""

    name: str
    cross: bool
    matrix: Tensor
    kept: Tensor | None
    visible: Tensor | None
    ahead: Tensor | None
    """``(batch, n_queries)`` bool, where only weights are known: which queries gave anything to a later key."""


def run(model: nn.Module, inputs: Inputs, **options: Any) -> Any:
    """A model's output, without caches and what else nobody asked for."""
    parameters = inspect.signature(model.forward).parameters
    # Options that a model takes among others it may hand on to parts that know nothing of them.
    for name, value in {"use_cache": False, "return_dict": True, "output_attentions": False}.items():
        if name in parameters or (name != "use_cache" and getattr(model.config, name, value) != value):
            options.setdefault(name, value)
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        options = {name: value for name, value in options.items() if name in parameters}
    try:
        return model(**inputs.given, **options)
    except ValueError as error:
        if _layers.encoder_name(model) is None or any("decoder" in name for name in inputs.given):
            raise
        raise InvalidArgumentError(
            f"{type(model).__name__} is an encoder-decoder model: pass decoder_input_ids as well, or capture "
            f"its encoder alone, model.get_encoder() ({error})"
        ) from error


class Run:
    """One capture under way: the reports so far, and the two ways to get them."""

    def __init__(
        self,
        model: nn.Module,
        config: Any,
        inputs: Inputs,
        measure: Measure,
        progress: Progress | None,
        block_bytes: int,
        objective: Objective | None = None,
        spill: Path | None = None,
    ) -> None:
        self.model, self.config, self.inputs, self.measure = model, config, inputs, measure
        self.progress, self.block_bytes = progress, block_bytes
        self.total = _layers.expected_calls(config) if _layers.encoder_name(model) is None else None
        self.reports: list[_Report] = []
        self.told: list[Stack | None] = []
        self.ran: set[str] = set()
        self.trimming = Trimming()
        self.tapes: dict[str, Tape] = {}
        self.objective, self.spill = objective, spill
        # Attentions, with what they put out: of each text (n, H, e), by hooks (H, n, e).
        self.waiting: list[tuple[Sequence[ValuedAttention], Tensor]] = []

    def through_either(self) -> tuple[Literal["interface", "hooks"], Any, tuple[Layer, ...]]:
        """Run the model with a listener at the attention interface; if layers are missing, with hooks."""
        incomplete: CaptureError | None = None
        if _interface.available() and _layers.uses_interface(self.model):
            try:
                outputs = self.through_interface()
                return "interface", outputs, self.layers()
            except _layers.IncompleteError as error:
                incomplete = error if self.reports else None
        try:
            outputs = self.through_hooks()
            return "hooks", outputs, self.layers()
        except CaptureError:
            if incomplete is not None:
                raise incomplete from None
            raise

    def through_interface(self) -> Any:
        """Run the model with a listener at the attention interface."""
        self._begin()
        with _interface.listening(self.model, self.inputs.batch, self._attention, self.block_bytes):
            if self.measure.needs_gradient:
                return self._with_gradients(self.forward())
            if not self.measure.needs_subblock:
                return self.forward()
            listening = [name for name, one in self.model.named_modules() if _layers.listens_at_interface(one)]
            with taping(self.model, listening, self._layer) as self.tapes:
                return self.forward()

    def through_hooks(self) -> Any:
        """Run the model with eager attention and catch its weights."""
        self._begin()
        placeholders: list[Tensor] = []
        measure, batch = self.measure, self.inputs.batch
        more = measure.needs_subblock or measure.needs_gradient
        products = _hooks.Products(differentiable=measure.needs_gradient) if more else None

        def report(attentions: Sequence[GivenAttention], product: Tensor | None) -> None:
            if not more:
                self._report(attentions, [None] * len(attentions))
            elif product is not None:
                self._attention([one for one in attentions if isinstance(one, ValuedAttention)], product)
            else:
                raise CaptureError(
                    f"layer {attentions[0].name!r}: measure {measure.name!r} needs to know what attention is "
                    "multiplied with, which could not be seen: use measure='attention'"
                )

        with ExitStack() as stack:
            changed = stack.enter_context(_state.eager_configuration(self.model))
            if measure.needs_subblock:
                called = [name for name, one in self.model.named_modules() if _layers.is_called_attention(one)]
                self.tapes = stack.enter_context(taping(self.model, called, self._layer))
            stack.enter_context(_hooks.catching(self.model, batch, report, placeholders, self.block_bytes, products))
            try:
                outputs = self.forward(output_attentions=True)
                if measure.needs_gradient:
                    self._with_gradients(outputs)
            except Exception as error:
                if not placeholders or not self.is_of_the_model(error):
                    raise
                raise CaptureError(
                    f"{type(self.model).__name__} does not run with eager attention when its weights are taken away "
                    f"({type(error).__name__}: {error}): build the matrices yourself and pass them to attnflow.Network"
                ) from error
        self.told = _hooks.returned(self.model, outputs, placeholders)
        for one, told in zip(self.reports, self.told, strict=True):
            one.cross = told == "cross"
            if one.cross and measure.needs_subblock:
                raise CaptureError(
                    f"layer {one.name!r}: measure {measure.name!r} of an attention to another sequence needs a layer "
                    f"that asks transformers' attention interface, and those of {type(self.model).__name__} do not: "
                    "use measure='attention'"
                )
        if not changed:
            return outputs
        own = self.forward()
        _hooks.verify_output(self.model, outputs, own, self.inputs.last_mask)
        return own

    def _begin(self) -> None:
        """Forget what was reported of another pass."""
        self.reports.clear()
        self.measure.begin(self.inputs.batch)

    def forward(self, **options: Any) -> Any:
        """Run the model as it is."""
        with _layers.noticing(self.model) as self.ran:
            return run(self.model, self.inputs, **options)

    def is_of_the_model(self, error: Exception) -> bool:
        """Whether an error was raised by the model, and neither here nor by a function of the caller's."""
        here = str(Path(__file__).parent)
        ours = [
            code for code in (frame.f_code for frame, _ in walk_tb(error.__traceback__)) if here in code.co_filename
        ]
        own = isinstance(error, AttnflowError | torch.OutOfMemoryError)
        return not own and bool(ours) and ours[-1] is run.__code__

    def layers(self) -> tuple[Layer, ...]:
        """The reports, arranged in stacks and found to be complete."""
        called = [_layers.Called(one.name, one.cross) for one in self.reports]
        names, stacks = _layers.arrange(
            self.model,
            self.config,
            called,
            self._alone() if called else "encoder",
            encoded="encoder_outputs" in self.inputs.given,
        )
        _layers.verify_none_silent(self.model, self.ran, called)
        for told, stack in zip(self.told, stacks, strict=False):
            if told is not None and told != stack:
                raise CaptureError(
                    f"{type(self.model).__name__} says that the attentions of its layers are {self.told}, and its "
                    f"modules say {stacks}: they do not match"
                )
        self.measure.end()
        layers = []
        for one, name, stack in zip(self.reports, names, stacks, strict=True):
            kept, visible = (None if part is None else part.to(self.inputs.device) for part in (one.kept, one.visible))
            # What was put into files is not to be carried back.
            matrix = one.matrix if self.spill is not None else one.matrix.to(self.inputs.device)
            layers.append(Layer(name, stack, matrix, kept, visible))
        verify_shapes(layers)
        return tuple(layers)

    def _with_gradients(self, outputs: Any) -> Any:
        """The model has run: derive the objective by what every attention put out, and report them."""
        objective = self.objective or partial(highest, mask=self.inputs.last_mask)
        target = objective(outputs)
        if not isinstance(target, Tensor) or target.numel() != 1 or not target.requires_grad:
            raise InvalidArgumentError(
                f"the objective must be one number that depends on the model's output, got {target!r}"
            )
        # What is checkpointed runs again on the way back, and reports again: to no one.
        waiting, self.waiting = self.waiting, []
        written = [output for _, output in waiting]
        gradients = torch.autograd.grad(target, written, allow_unused=True) if written else ()
        with torch.no_grad():
            for (attentions, output), gradient in zip(waiting, gradients, strict=True):
                batch = len(attentions)
                first = attentions[0]
                slopes = torch.zeros_like(output) if gradient is None else gradient
                if isinstance(first, GivenAttention):
                    slopes = slopes.reshape(batch, first.n_heads, first.n_queries, -1)
                else:
                    slopes = slopes.reshape(batch, first.n_queries, first.n_heads, -1).transpose(1, 2)
                for attention, slope in zip(attentions, slopes, strict=True):
                    attention.gradient = slope.to(attention.dtype)
                self._report(attentions, [None] * batch)
        return outputs

    def _attention(self, attentions: Sequence[ValuedAttention], output: Tensor) -> None:
        """An attention has run. A measure that looks at its surroundings waits until the layer is done."""
        if self.measure.needs_gradient:
            if not output.requires_grad:
                raise CaptureError(
                    f"layer {attentions[0].name!r}: runs without gradients, which measure {self.measure.name!r} needs "
                    "(torch.no_grad inside the model, or checkpointing with use_reentrant=True): turn that off, or use "
                    "measure='attention'"
                )
            self.waiting.append((attentions, output))
            return
        if not self.measure.needs_subblock:
            self._report(attentions, [None] * len(attentions))
            return
        name = attentions[0].name
        tape = self.tapes.get(_layers.layer_of(self.model, name) or "")
        if tape is None:
            raise CaptureError(
                f"layer {name!r}: measure {self.measure.name!r} cannot tell which layer it belongs to: use "
                "measure='attention'"
            )
        tape.attentions.append(attentions)

    def _layer(self, name: str, tape: Tape) -> None:
        """A layer has run."""
        if not tape.attentions:
            return  # missing layers are named at the end
        try:
            subblocks = resolve(name, tape)
        except CaptureError:
            # The measure that is advised instead could not follow a hybrid model either.
            if _layers.uses_interface(self.model):
                _layers.refuse_hybrid(self.model, tape.attentions[0][0].name)
            raise
        for attentions, subblock in zip(tape.attentions, subblocks, strict=True):
            self._report(attentions, [subblock.of_text(text) for text in range(len(attentions))])

    def _report(self, attentions: Sequence[Attention], subblocks: Sequence[SubBlock | None]) -> None:
        name = attentions[0].name
        matrices, kept = [], []
        for attention, subblock in zip(attentions, subblocks, strict=True):
            # The user's autocast is for the model: scores stay in float32.
            with torch.autocast(attention.device.type, enabled=False):
                made = self.measure.matrix(attention, subblock)
                attention.finish()
            matrix, own = made if isinstance(made, tuple) else (made, None)
            matrices.append(matrix)
            kept.append(own)
        cross = any(isinstance(attention, ValuedAttention) and attention.cross for attention in attentions)
        ahead = [attention.ahead if isinstance(attention, GivenAttention) else None for attention in attentions]
        visible = [attention.visible for attention in attentions]
        joined = _joined(matrices)
        if self.spill is not None:
            del matrices
            joined = spilled(joined, self.spill)
        self.reports.append(
            _Report(name, cross, joined, _joined_if_any(kept), _joined_if_any(visible), _joined_if_any(ahead))
        )
        self.trimming.after(joined.nbytes)
        if self.progress is not None:
            self.progress(len(self.reports), max(self.total or 0, len(self.reports)))

    def _alone(self) -> Stack:
        """What a single stack is: a decoder if no position, in any layer, sees a later one."""
        n = self.reports[0].matrix.shape[1]
        if n == 1:
            return "decoder" if _layers.is_causal(self.model) else "encoder"
        real = self.inputs.real.get("input_ids")
        for one in self.reports:
            ahead = _ahead(one.matrix)
            if one.ahead is not None:
                ahead = ahead.to(one.ahead.device) | one.ahead
            if one.visible is not None:  # a measure may be zero where the layer could look
                places = torch.arange(ahead.shape[1], device=one.visible.device)
                ahead = ahead.to(one.visible.device) | (one.visible > places + 1)
            if real is not None and real.shape == ahead.shape:
                ahead = ahead[real.to(ahead.device)]  # of padding's rows a model may make what it likes
            if bool(ahead.any()):
                return "encoder"
        return "decoder"


def _ahead(matrices: Tensor) -> Tensor:
    """``(batch, n)`` bool: which rows draw from a later position; some rows at a time, for want of a second matrix."""
    _, rows, keys = matrices.shape
    ahead, step = torch.zeros(matrices.shape[:2], dtype=torch.bool, device=matrices.device), 256
    # From as many rows on as there are keys (a long answer to a short source) nothing is later.
    for start in range(0, min(rows, keys), step):
        ahead[:, start : start + step] = matrices[:, start : start + step, start:].triu(1).amax(dim=-1) > 0
    return ahead


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One tensor a text, as one of the batch; one text's is not copied."""
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))


def _joined_if_any(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _joined(present) if len(present) == len(parts) else None


def verify_shapes(layers: Sequence[Layer]) -> None:
    """Assert that layers of one stack are over the same positions: pooled or shifted ones make no network."""
    n = {layer.stack: layer.matrix.shape[-1] for layer in reversed(layers) if layer.stack != "cross"}
    for layer in layers:
        rows, keys = layer.matrix.shape[-2:]
        wanted = (n[layer.stack],) * 2 if layer.stack != "cross" else (n.get("decoder", rows), n.get("encoder", keys))
        if (rows, keys) != wanted:
            raise CaptureError(
                f"layer {layer.name!r}: {rows} positions attend to {keys}, where {wanted[0]} and {wanted[1]} are "
                f"expected of the {layer.stack} stack: the positions change from layer to layer"
            )


def highest(outputs: Any, mask: Tensor | None = None) -> Tensor:
    """The default objective: each text's highest logit, of a language model at the text's last position.

    Parameters
    ----------
    outputs
        What the model returned.
    mask
        ``(batch, n)`` bool, False at padding.
    """
    logits = getattr(outputs, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 3):
        raise InvalidArgumentError(
            f"{type(outputs).__name__} has no logits that could be an objective: take a model with a head, or give an "
            "objective, a function of the model's output"
        )
    if logits.ndim == 3:
        last = torch.full((len(logits),), logits.shape[1] - 1, device=logits.device)
        if mask is not None and mask.shape == logits.shape[:2]:
            last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
        logits = logits[torch.arange(len(logits), device=logits.device), last]
    return logits.amax(dim=-1).sum()
