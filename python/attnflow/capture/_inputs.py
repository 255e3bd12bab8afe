"""What the model is run on: token ids and a mask, checked before anything is touched."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.errors import CaptureError, InvalidArgumentError

__all__ = ["Text", "context_length", "prepare", "refuse_unknown_kinds", "text_configuration"]


@dataclass(frozen=True)
class Text:
    """One text without its padding.

    ids
        ``(1, n)`` int64, on the model's device.
    positions
        Where each of the ``n`` tokens stood in the ids that were given.
    """

    ids: Tensor
    positions: tuple[int, ...]


def text_configuration(model: nn.Module) -> Any:
    """The configuration of the text part of a model (a multimodal model keeps several)."""
    config = getattr(model, "config", None)
    if config is None:
        raise InvalidArgumentError(
            f"model must be a transformers model with a .config, got {type(model).__module__}.{type(model).__name__}"
        )
    getter = getattr(config, "get_text_config", None)
    return getter() if getter is not None else config


def context_length(model: nn.Module) -> int | None:
    """The most tokens a model accepts, or None if it states no limit."""
    config = text_configuration(model)
    stated = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits = [limit for limit in stated if isinstance(limit, int) and limit > 0][:1]
    # RoBERTa and its kin start counting positions after the padding index: a table of 514 rows serves 512 tokens.
    for name, module in model.named_modules():
        if (
            name.rpartition(".")[2] == "position_embeddings"
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min(limits, default=None)


def prepare(model: nn.Module, input_ids: Any, attention_mask: Any) -> Text:
    """Check the ids and the mask, and drop the padding.

    Dropping it *before* the pass rather than after makes left and right padding exactly alike, also for models that
    count absolute positions from the first column whatever the mask says, and costs nothing for the padded part.
    """
    if isinstance(input_ids, Mapping):
        raise InvalidArgumentError(
            "input_ids must be token ids, got a mapping: pass encoding['input_ids'] and attention_mask="
            "encoding['attention_mask']"
        )
    ids = _row(input_ids, "input_ids")
    if ids.numel() == 0:
        raise InvalidArgumentError("input_ids is empty: there is no text to look at")
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
        raise InvalidArgumentError(f"input_ids must be integers, got dtype {ids.dtype}")

    positions = range(ids.numel())
    if attention_mask is not None:
        mask = _row(attention_mask, "attention_mask")
        if mask.shape != ids.shape:
            raise InvalidArgumentError(
                f"attention_mask must have one entry a token: {mask.numel()} entries for {ids.numel()} tokens"
            )
        kept = torch.nonzero(mask).flatten().tolist()
        if not kept:
            raise InvalidArgumentError(f"attention_mask is zero everywhere: all {ids.numel()} tokens are padding")
        if kept[-1] - kept[0] + 1 != len(kept):
            hole = next(i for i in range(kept[0], kept[-1]) if not mask[i])
            raise InvalidArgumentError(
                f"attention_mask must be one run of ones (padding left or right), but position {hole} inside it is 0"
            )
        positions = range(kept[0], kept[-1] + 1)
        ids = ids[kept[0] : kept[-1] + 1]

    limit = context_length(model)
    if limit is not None and ids.numel() > limit:
        raise InvalidArgumentError(
            f"the text has {ids.numel()} tokens, and the model's context holds {limit}: shorten or split it"
        )
    embeddings: Any = getattr(model, "get_input_embeddings", lambda: None)
    vocabulary = getattr(embeddings(), "num_embeddings", None)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (isinstance(vocabulary, int) and high >= vocabulary):
        raise InvalidArgumentError(
            f"token ids must be in 0..{'' if vocabulary is None else vocabulary - 1}, got {low if low < 0 else high}: "
            "does the tokenizer belong to this model?"
        )
    device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
    return Text(ids=ids.to(device=device, dtype=torch.int64)[None], positions=tuple(positions))


def _row(values: Any, name: str) -> Tensor:
    """One text's worth of numbers as a flat tensor; a batch of one is unwrapped."""
    try:
        row = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(f"{name} must be a row of integers, got {type(values).__name__}: {error}") from None
    if row.ndim == 2 and row.shape[0] == 1:
        row = row[0]
    if row.ndim != 1:
        raise InvalidArgumentError(
            f"{name} must be one text, shape (n,) or (1, n), got {tuple(row.shape)}: capture texts one at a time"
        )
    return row


def refuse_unknown_kinds(model: nn.Module) -> None:
    """Turn away, by name, the kinds of model whose attention is more than one stack over one text."""
    name = type(model).__name__
    decodes = "decoder_input_ids" in inspect.signature(model.forward).parameters
    if decodes and getattr(model.config, "is_encoder_decoder", False):
        raise CaptureError(
            f"{name} is an encoder-decoder model, which is not supported yet: pass its encoder alone "
            "(model.get_encoder()), or a decoder-only model"
        )
