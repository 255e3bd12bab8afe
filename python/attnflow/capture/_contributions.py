"""The public functions: check the input, run the model once, assert that nothing is missing, wrap up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from attnflow.capture import _finite, _state
from attnflow.capture._inputs import Inputs, prepare, require_module, text_configuration
from attnflow.capture._layers import Stack
from attnflow.capture._memory import check, checked_folder, of_inputs
from attnflow.capture._result import Contributions
from attnflow.capture._run import Objective, Progress, Run
from attnflow.capture.measures import Measure, find
from attnflow.errors import CaptureError, InvalidArgumentError

__all__ = ["attentions", "contributions"]

Heads = str | int | Sequence[float]


def attentions(
    model: nn.Module,
    *,
    heads: Heads = "mean",
    progress: Progress | None = None,
    block_bytes: int | None = None,
    memory_limit: int | None = None,
    spill: str | os.PathLike[str] | None = None,
    **inputs: Any,
) -> Contributions:
    """Run a model once and return the attention of every layer, its heads reduced to one.

    The model computes what it always does: its own attention functions are called, and what is captured is proved
    against their output. It is left exactly as it was found, also after an error. Heads are reduced a block of queries
    at a time, so that memory beyond the model's own is ``O(layers * n^2)``, without a factor for the heads.

    Parameters
    ----------
    model : torch.nn.Module
        Any model of transformers that has attention, in any precision, on any device: decoder-only, encoder-only,
        encoder-decoder; of text, images or sound.
    heads : {"mean", "max", "min"}, int or sequence of float
        How the heads are reduced: by name, to one head, or with a weight a head.
    progress : callable, optional
        ``progress(done, total)`` is called after every layer. An exception raised in it ends the capture.
    block_bytes : int, optional
        Size of a block of probabilities. By default 2 MiB on a CPU, which was faster than smaller and larger ones,
        and 64 MiB on an accelerator.
    memory_limit : int, optional
        The most bytes that the captured matrices may take, by default half of the machine's memory: more is refused
        before the model runs. :func:`estimate` says how many they are.
    spill : path, optional
        A folder: matrices are put into files there, mapped into memory, which vanish with them; `memory_limit` does not
        count then. They stay on the CPU.
    **inputs
        What the model's forward reads, a batch of any size: ``input_ids``, ``attention_mask``, ``decoder_input_ids``,
        ``pixel_values``, ``input_features``, ... Tensors, arrays or lists; they are brought to the model's device.

    Returns
    -------
    Contributions
        With ``.encoder``, ``.decoder`` and ``.cross``, lists of one ``(batch, n_queries, n_keys)`` tensor a layer. Of
        one text, without its padding: ``.of_text(index)``, whose matrices :class:`attnflow.Network` takes.

    Raises
    ------
    InvalidArgumentError
        If ids are empty, too long for the model's context or outside its vocabulary, a mask does not fit, an input is
        none of the model's or not finite, or an option is not one of those above.
    CaptureError
        If a layer's attention cannot be captured completely and exactly. The message names the layer and a way out. If
        the model itself fails on its inputs: the cause has its own error.

    Notes
    -----
    Models whose files do not use transformers' attention interface (Bloom, Falcon, GPT-J, DeBERTa, MPNet, ...) are run
    with eager attention and their weights are caught module by module; one layer of (H, n, n) exists at a time there
    (of measures by gradients every layer's, which autograd keeps).

    Examples
    --------
    >>> from transformers import T5Config, T5ForConditionalGeneration
    >>> import attnflow
    >>> size = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
    >>> model = T5ForConditionalGeneration(T5Config(vocab_size=11, **size))
    >>> result = attnflow.capture.attentions(model, input_ids=[[4, 5, 6, 1]], decoder_input_ids=[[0, 7]])
    >>> [tuple(layer.shape) for layer in result.encoder]
    [(1, 4, 4), (1, 4, 4), (1, 4, 4)]
    >>> [tuple(layer.shape) for layer in result.decoder], [tuple(layer.shape) for layer in result.cross]
    ([(1, 2, 2), (1, 2, 2)], [(1, 2, 4), (1, 2, 4)])
    >>> result.layer_names[-1], result.path
    ('decoder.block.1.layer.1.EncDecAttention', 'interface')
    """
    return contributions(
        model,
        inputs,
        heads=heads,
        progress=progress,
        block_bytes=block_bytes,
        memory_limit=memory_limit,
        spill=spill,
    )


def contributions(
    model: nn.Module,
    inputs: Any,
    *,
    measure: str | Measure = "attention",
    heads: Heads = "mean",
    progress: Progress | None = None,
    block_bytes: int | None = None,
    objective: Objective | None = None,
    memory_limit: int | None = None,
    spill: str | os.PathLike[str] | None = None,
) -> Contributions:
    """Run a model once and return one contribution matrix a layer, of any measure.

    Parameters
    ----------
    model, heads, progress, block_bytes, memory_limit, spill
        As for :func:`attentions`. `heads` is how measure "attention" reduces them.
    inputs : mapping, or array of int
        What the model's forward reads, by name, as a tokenizer returns it; or the ``(n,)`` or ``(batch, n)`` token ids
        alone, none of them padding.
    measure : str or Measure
        What a contribution is: one of :data:`attnflow.measures`, or an object of your own.
    objective : callable, optional
        For measures by gradients: what is derived, a function of the model's output that returns one number. By default
        the highest logit, of a language model at the last position; of several texts their sum.

    Returns
    -------
    Contributions

    Raises
    ------
    InvalidArgumentError, CaptureError
        As for :func:`attentions`; ALTI and the value norms need a structure around the attention that is recognised.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from attnflow.capture import contributions
    >>> options = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, **options))
    >>> result = contributions(model, [1, 2, 3, 4], measure="alti")
    >>> [tuple(matrix.shape) for matrix in result.decoder], result.kind, tuple(result.logits.shape)
    ([(1, 4, 4), (1, 4, 4)], 'decoder', (1, 4, 11))
    >>> [round(total, 3) for total in result.decoder[0][0].sum(dim=1).tolist()]
    [1.0, 1.0, 1.0, 1.0]
    """
    require_module(model)
    if block_bytes is not None and (
        isinstance(block_bytes, bool) or not isinstance(block_bytes, int) or block_bytes < 1
    ):
        raise InvalidArgumentError(f"block_bytes must be a positive number of bytes, got {block_bytes!r}")
    if progress is not None and not callable(progress):
        raise InvalidArgumentError(f"progress must be a function of (done, total), got {progress!r}")
    if objective is not None and not callable(objective):
        raise InvalidArgumentError(f"objective must be a function of the model's output, got {objective!r}")
    chosen = find(measure, heads)
    if chosen.needs_gradient and any(parameter.is_inference() for parameter in model.parameters()):
        raise CaptureError(
            f"{type(model).__name__} was made under torch.inference_mode, which has no gradients, and measure "
            f"{chosen.name!r} needs them: load the model outside of it, or use measure='attention'"
        )
    config = text_configuration(model)
    prepared = prepare(model, inputs)
    folder = checked_folder(spill)
    check(None if folder is not None else of_inputs(model, prepared), memory_limit)
    if block_bytes is None:
        block_bytes = 1 << 21 if prepared.device.type == "cpu" else 1 << 26
    run = Run(model, config, prepared, chosen, progress, block_bytes, objective, folder)
    with _state.evaluation(model, gradients=chosen.needs_gradient):
        try:
            path, outputs, layers = run.through_either()
            _finite.verify_output(model, outputs)
        except CaptureError:
            _finite.name_the_source(model, run.forward)
            raise
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            if not run.is_of_the_model(error):
                raise
            kind = CaptureError if isinstance(error, RuntimeError) else InvalidArgumentError
            raise kind(
                f"{type(model).__name__} does not run on what it was given: {type(error).__name__}: {error}"
            ) from error
    for layer in layers:
        if not _finite.finite(layer.matrix):
            raise CaptureError(f"layer {layer.name!r}: its contributions are not all finite numbers")
    logits = getattr(outputs, "logits", None)
    return Contributions(
        layers=layers,
        measure=chosen.name,
        holds_residual=chosen.holds_residual,
        path=path,
        logits=logits.detach().float() if isinstance(logits, Tensor) else None,
        real=_real(prepared, {layer.stack for layer in layers}),
    )


def _real(inputs: Inputs, stacks: set[Stack]) -> dict[Literal["encoder", "decoder"], Tensor]:
    """The masks of the sequences of token ids, by the stack that reads them."""
    # An encoder without cross-attention beside a decoder is a tower, which reads no tokens.
    first: Literal["encoder", "decoder"] = "encoder" if "cross" in stacks or "decoder" not in stacks else "decoder"
    by_stack = {first: inputs.real.get("input_ids"), "decoder": inputs.real.get("decoder_input_ids")}
    if first == "decoder":
        by_stack["decoder"] = inputs.real.get("input_ids")
    return {stack: mask for stack, mask in by_stack.items() if mask is not None}
