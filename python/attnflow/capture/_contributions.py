"""The public function: check the input, run the model once, assert that nothing is missing, wrap up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attnflow.capture import _finite, _hooks, _interface, _layers, _state
from attnflow.capture._attention import Attention, ComputedAttention
from attnflow.capture._inputs import prepare, refuse_unknown_kinds, text_configuration
from attnflow.capture._subblock import SubBlock, Tape, resolve, taping
from attnflow.capture.measures import Measure, find
from attnflow.errors import CaptureError, InvalidArgumentError

__all__ = ["Contributions", "contributions", "is_causal"]


@dataclass(frozen=True)
class Contributions:
    """What every layer's positions draw from each other: the result of :func:`contributions`.

    Attributes
    ----------
    matrices : tuple of torch.Tensor
        One ``(n, n)`` float32 tensor a layer, from the input up, on the model's device; ``[j, k]`` is what position j
        after the layer draws from position k before it. Never negative; rows need not sum to 1.
    holds_residual : bool
        Whether the matrices count what a position keeps of itself, so that a network must add no residual.
    kind : {"decoder", "encoder"}
        "decoder" if no position sees a later one, in any layer.
    logits : torch.Tensor or None
        float32, the first text's logits as the model returned them: ``(n, vocabulary)`` of a language model; None for a
        model without a head.
    layer_names : tuple of str
        Name of the attention module of each layer.
    path : {"interface", "hooks"}
        How they were captured.
    measure : str
        Name of the measure.
    positions : tuple of int
        Where each of the n positions stood in the ids that were given (padding is dropped).
    visible : tuple of (torch.Tensor or None)
        One ``(n,)`` int64 tensor a layer: how many positions each position can see, itself included, which sliding
        windows make fewer. None for layers caught by hooks: weights do not tell a hidden position from a small one.
    """

    matrices: tuple[Tensor, ...]
    holds_residual: bool
    kind: Literal["decoder", "encoder"]
    logits: Tensor | None
    layer_names: tuple[str, ...]
    path: Literal["interface", "hooks"]
    measure: str
    positions: tuple[int, ...]
    visible: tuple[Tensor | None, ...]

    @property
    def n_positions(self) -> int:
        """How many positions the text has."""
        return len(self.positions)

    @property
    def n_layers(self) -> int:
        """How many layers the model has."""
        return len(self.matrices)


def contributions(
    model: nn.Module,
    input_ids: Any,
    *,
    measure: str | Measure = "attention",
    heads: str | int | Sequence[float] = "mean",
    attention_mask: Any = None,
    progress: Callable[[int, int], object] | None = None,
    block_bytes: int | None = None,
) -> Contributions:
    """Run a model on one text and return one contribution matrix a layer.

    The model runs once, in evaluation mode and without gradients, and computes what it always does: its own attention
    functions are called, and what is captured is proved against their output. It is left exactly as it was found,
    also after an error. Heads are reduced a block of queries at a time, so that memory beyond the model's own is
    ``O(layers * n^2)``, without a factor for the heads.

    Parameters
    ----------
    model : torch.nn.Module
        A decoder-only or encoder-only model of transformers, in any precision, on any device.
    input_ids : array of int
        ``(n,)`` or ``(1, n)``: the tokens of one text, special tokens included if the model is to see them.
    measure : {"attention", "alti"} or Measure
        What a contribution is; see :mod:`attnflow.capture.measures`.
    heads : {"mean", "max", "min"}, int or sequence of float
        How measure "attention" reduces the heads: by name, to one head, or with a weight a head.
    attention_mask : array of int, optional
        ``(n,)`` or ``(1, n)``: 0 marks padding on the left or the right, which is dropped before the pass.
    progress : callable, optional
        ``progress(done, total)`` is called after every layer. An exception raised in it ends the capture.
    block_bytes : int, optional
        Size of a block of probabilities. By default 1 MiB on a CPU, which fits the second-level cache of a core and was
        faster than larger blocks, and 64 MiB on an accelerator.

    Returns
    -------
    Contributions

    Raises
    ------
    InvalidArgumentError
        If the ids are empty, too long for the model's context, outside its vocabulary or more than one text, or an
        option is not one of those above.
    CaptureError
        If a layer's attention cannot be captured completely and exactly. The message names the layer and a way out.

    Notes
    -----
    Models whose files do not use transformers' attention interface (Bloom, Falcon, GPT-J, DeBERTa, MPNet, ...) are run
    with eager attention and their weights are caught module by module; only measure "attention" is possible there,
    and one layer of (H, n, n) exists at a time.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from attnflow.capture import contributions
    >>> options = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, **options))
    >>> result = contributions(model, [1, 2, 3, 4])
    >>> [tuple(matrix.shape) for matrix in result.matrices], result.kind, tuple(result.logits.shape)
    ([(4, 4), (4, 4)], 'decoder', (4, 11))
    >>> [round(total, 3) for total in result.matrices[0].sum(dim=1).tolist()]
    [1.0, 1.0, 1.0, 1.0]
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch module of transformers, got {type(model).__name__}")
    if block_bytes is not None and (not isinstance(block_bytes, int) or block_bytes < 1):
        raise InvalidArgumentError(f"block_bytes must be a positive number of bytes, got {block_bytes!r}")
    chosen = find(measure, heads)
    config = text_configuration(model)
    refuse_unknown_kinds(model)
    text = prepare(model, input_ids, attention_mask)
    if block_bytes is None:
        block_bytes = 1 << 20 if text.ids.device.type == "cpu" else 1 << 26
    run = _Run(model, config, text.ids, chosen, progress, block_bytes)
    with _state.evaluation(model):
        path: Literal["interface", "hooks"] = "interface"
        try:
            outputs = run.through_interface() if _interface.available() and _layers.uses_interface(model) else None
            if not run.names:
                path = "hooks"
                outputs = run.through_hooks()
            _finite.verify_output(model, outputs)
        except CaptureError:
            _finite.name_the_source(model, run.forward)
            raise
    names = _layers.verify_calls(model, config, run.names)
    for name, matrix in zip(names, run.matrices, strict=True):
        if not bool(torch.isfinite(matrix).all()):
            raise CaptureError(f"layer {name!r}: its contributions are not all finite numbers")
    logits = getattr(outputs, "logits", None)
    return Contributions(
        matrices=tuple(matrix.to(text.ids.device) for matrix in run.matrices),
        holds_residual=chosen.holds_residual,
        kind=_kind(model, run.matrices),
        logits=logits[0].detach().float() if isinstance(logits, Tensor) else None,
        layer_names=names,
        path=path,
        measure=chosen.name,
        positions=text.positions,
        visible=tuple(run.visible),
    )


class _Run:
    """One capture under way: the matrices so far, and the two ways to get them."""

    def __init__(
        self,
        model: nn.Module,
        config: Any,
        ids: Tensor,
        measure: Measure,
        progress: Callable[[int, int], object] | None,
        block_bytes: int,
    ) -> None:
        self.model, self.ids, self.measure = model, ids, measure
        self.progress, self.block_bytes = progress, block_bytes
        self.total = _layers.expected_calls(config)
        self.names: list[str] = []
        self.matrices: list[Tensor] = []
        self.visible: list[Tensor | None] = []
        self.tapes: dict[str, Tape] = {}

    def through_interface(self) -> Any:
        """Run the model with a listener at the attention interface."""
        with _interface.listening(self.model, self._attention, self.block_bytes):
            if not self.measure.needs_subblock:
                return self.forward()
            with taping(self.model, self._layer) as self.tapes:
                return self.forward()

    def through_hooks(self) -> Any:
        """Run the model with eager attention and catch its weights."""
        placeholders: list[Tensor] = []
        n = self.ids.shape[1]
        with (
            _state.eager_configuration(self.model) as changed,
            _hooks.catching(self.model, n, self._report, placeholders, self.block_bytes),
        ):
            outputs = self.forward(output_attentions=True)
        _hooks.verify_returned(self.model, outputs, placeholders)
        if not changed:
            return outputs
        own = self.forward()
        _hooks.verify_output(self.model, outputs, own)
        return own

    def forward(self, **options: Any) -> Any:
        """Run the model on the text as it is."""
        options = {"output_attentions": False, "use_cache": False, "return_dict": True, **options}
        parameters = inspect.signature(self.model.forward).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            options = {name: value for name, value in options.items() if name in parameters}
        if "input_ids" not in parameters and not any(
            p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values()
        ):
            raise CaptureError(f"{type(self.model).__name__} does not read input_ids: it is not a model of text")
        return self.model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids), **options)

    def _attention(self, module: nn.Module, attention: ComputedAttention) -> None:
        """An attention has run. A measure that looks at its surroundings waits until the layer is done."""
        if not self.measure.needs_subblock:
            self._report(module, attention)
            return
        tape = self.tapes.get(_layers.layer_of(self.model, attention.name) or "")
        if tape is None:
            raise CaptureError(
                f"layer {attention.name!r}: measure {self.measure.name!r} cannot tell which layer it belongs to: use "
                "measure='attention'"
            )
        tape.attentions.append(attention)

    def _layer(self, name: str, tape: Tape) -> None:
        """A layer has run."""
        if not tape.attentions:
            return  # missing layers are named at the end
        if len(tape.attentions) > 1:
            raise CaptureError(f"layer {name!r} computed {len(tape.attentions)} attentions in one run, expected 1")
        (attention,) = tape.attentions
        try:
            subblock = resolve(name, tape)
        except CaptureError:
            # The measure that is advised instead could not follow a hybrid model either.
            _layers.refuse_hybrid(self.model, attention.name)
            raise
        self._report(None, attention, subblock)

    def _report(self, _: nn.Module | None, attention: Attention, subblock: SubBlock | None = None) -> None:
        if self.measure.needs_subblock and subblock is None:
            raise CaptureError(
                f"layer {attention.name!r}: measure {self.measure.name!r} needs a layer that asks transformers' "
                f"attention interface, and those of {type(self.model).__name__} do not: use measure='attention'"
            )
        self.matrices.append(self.measure.matrix(attention, subblock))
        self.visible.append(attention.visible)
        self.names.append(attention.name)
        if self.progress is not None:
            self.progress(len(self.names), max(self.total or 0, len(self.names)))


def is_causal(model: nn.Module) -> bool:
    """Whether a model looks like one whose positions see no later ones, judged by what it says of itself.

    A guess for what must be decided before the model runs; what it did is in :attr:`Contributions.kind`.

    Examples
    --------
    >>> from transformers import BertConfig, BertModel
    >>> from attnflow.capture import is_causal
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> is_causal(BertModel(BertConfig(vocab_size=11, **size)))
    False
    """
    stated = [getattr(module, "is_causal", None) for module in model.modules()]
    flags = [value for value in stated if isinstance(value, bool)]
    if flags:
        return any(flags)
    config = text_configuration(model)
    return bool(getattr(config, "is_decoder", False)) or type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def _kind(model: nn.Module, matrices: Sequence[Tensor]) -> Literal["decoder", "encoder"]:
    """Whether any position saw a later one; of a text of one token the model's own statement is taken."""
    if matrices[0].shape[0] == 1:
        return "decoder" if is_causal(model) else "encoder"
    return "encoder" if any(bool(torch.triu(matrix, diagonal=1).any()) for matrix in matrices) else "decoder"
