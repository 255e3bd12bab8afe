"""What a model says of an input, and how what it says depends on each part of it: attention is not looked at here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.capture import _layers, _state
from attnflow.capture._inputs import prepare
from attnflow.capture._run import Objective, run
from attnflow.errors import CaptureError, InvalidArgumentError

__all__ = ["gradient_x_input", "outputs"]


def outputs(model: nn.Module, inputs: Mapping[str, Any], read: Callable[[Any], Tensor]) -> Tensor:
    """Numbers that are read off a model's output, without gradients; the model is left as it was found.

    Parameters
    ----------
    model, inputs
        As for :func:`attnflow.capture.contributions`.
    read
        Makes a tensor of the output.

    Returns
    -------
    torch.Tensor
        Float64, on the CPU.

    Raises
    ------
    InvalidArgumentError
        As for :func:`attnflow.capture.contributions`.

    Examples
    --------
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from attnflow.capture import outputs
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = BertForSequenceClassification(BertConfig(vocab_size=11, **size))
    >>> outputs(model, {"input_ids": [[3, 4], [5, 6]]}, lambda output: output.logits).shape
    torch.Size([2, 2])
    """
    given = prepare(model, inputs)
    with _state.evaluation(model):
        return read(run(model, given)).detach().to("cpu", torch.float64)


def gradient_x_input(
    model: nn.Module, inputs: Mapping[str, Any], objectives: Sequence[Objective]
) -> list[dict[str, Tensor]]:
    """What a model reads, times the gradient by it: tokens by their embeddings, images and recordings by their values.

    Parameters
    ----------
    model, inputs
        As for :func:`attnflow.capture.contributions`, a batch of one.
    objectives
        Functions of the model's output that return the number to derive.

    Returns
    -------
    list of dict
        For each objective, by the name of an input: float64 on the CPU, ``(n,)`` of token ids, summed over the
        embedding, and of other inputs their own shape.

    Raises
    ------
    InvalidArgumentError
        As for :func:`attnflow.capture.contributions`; an objective that is not one number, or does not depend on
        what was read.
    CaptureError
        The model does not embed its token ids by its own input embeddings.

    Examples
    --------
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from attnflow.capture import gradient_x_input
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = BertForSequenceClassification(BertConfig(vocab_size=11, **size))
    >>> (found,) = gradient_x_input(model, {"input_ids": [[3, 4, 5]]}, [lambda output: output.logits[0, 1]])
    >>> found["input_ids"].shape
    torch.Size([3])
    """
    given = prepare(model, inputs)
    if given.batch != 1:
        raise InvalidArgumentError(f"the batch holds {given.batch} texts, and gradients are taken of one at a time")
    named = {name: value for name, value in given.given.items() if name in ("input_ids", "decoder_input_ids")}
    read: dict[str, Tensor] = {}
    waiting = dict(named)

    def embedded(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        for name, ids in waiting.items():
            if args and isinstance(args[0], Tensor) and torch.equal(args[0].reshape(-1), ids.reshape(-1)):
                del waiting[name]
                read[name] = output.detach().requires_grad_()
                return read[name]
        return output

    with _state.evaluation(model, gradients=True):
        moved = {
            name: value.detach().clone().requires_grad_()
            for name, value in given.given.items()
            if isinstance(value, Tensor)
            and value.is_floating_point()
            and "mask" not in name
            and "input_ids" not in named
        }
        read |= moved
        given = replace(given, given={**given.given, **moved})
        hooks = (module.register_forward_hook(_state.in_this_thread(embedded)) for module in _embeddings(model))
        with _state.hooked(hooks):
            output = run(model, given)
        if waiting or not read:
            raise CaptureError(
                f"{type(model).__name__} does not read {next(iter(waiting), 'its input')} through its input "
                "embeddings: there is nothing to take a gradient by"
            )
        return [_product(objective(output), read) for objective in objectives]


def _embeddings(model: nn.Module) -> list[nn.Module]:
    """The modules that embed token ids, of the whole model and of each of its stacks."""
    names = (_layers.encoder_name(model), _layers.decoder_name(model))
    parts: list[Any] = [model, *(model.get_submodule(name) for name in names if name)]
    found = []
    for part in parts:
        try:
            found.append(part.get_input_embeddings())
        except (AttributeError, NotImplementedError):  # how transformers says that there are none
            continue
    return list({id(module): module for module in found if isinstance(module, nn.Module)}.values())


def _product(target: Any, read: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(target, Tensor) or target.numel() != 1 or not target.requires_grad:
        raise InvalidArgumentError(
            f"the objective must be one number that depends on the model's output, got {target!r}"
        )
    slopes = torch.autograd.grad(target.reshape(()), list(read.values()), retain_graph=True, allow_unused=True)
    found = {}
    for (name, value), slope in zip(read.items(), slopes, strict=True):
        product = (value.detach().double() * (0 if slope is None else slope.double())).to("cpu")
        found[name] = product.sum(dim=-1).reshape(-1) if name.endswith("ids") else product
    return found
