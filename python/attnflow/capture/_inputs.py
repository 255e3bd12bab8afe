"""What the model is run on: its own inputs, checked before anything is touched."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.errors import InvalidArgumentError

__all__ = ["Inputs", "context_length", "prepare", "require_module", "text_configuration"]

# What a capture decides itself.
_OURS = ("output_attentions", "output_hidden_states", "past_key_values", "return_dict", "use_cache")
# Token ids of a model's two sequences, and the mask that goes with each.
_IDS = {"input_ids": "attention_mask", "decoder_input_ids": "decoder_attention_mask"}


@dataclass(frozen=True)
class Inputs:
    """A batch, ready to be given to the model.

    given
        The arguments of the model's forward, tensors on its device.
    batch, device
        How many texts (images, recordings) it holds, and where the model wants them.
    real
        For each sequence of token ids, or of what is embedded of them, that has a mask, ``(batch, n)`` bool: False is
        padding.
    """

    given: Mapping[str, Any]
    batch: int
    device: torch.device
    real: Mapping[str, Tensor]

    @property
    def last_mask(self) -> Tensor | None:
        """The mask of the sequence that the model's output belongs to: a decoder's own, where there is one."""
        return self.real.get(
            "decoder_input_ids", None if "decoder_input_ids" in self.given else self.real.get("input_ids")
        )


def require_module(model: Any) -> None:
    """Raise for what is no model."""
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch module of transformers, got {type(model).__name__}")


def text_configuration(model: nn.Module) -> Any:
    """The configuration of the text part of a model (a multimodal model keeps several)."""
    config = getattr(model, "config", None)
    if config is None:
        raise InvalidArgumentError(
            f"model must be a transformers model with a .config, got {type(model).__module__}.{type(model).__name__}; "
            "attnflow.capture.from_modules captures any torch module whose attention modules are named"
        )
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):  # it has none, or several
        return config


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


def _decoder_length(model: nn.Module) -> int | None:
    """The most tokens that a decoder behind an encoder accepts, or None if it states no limit."""
    config = text_configuration(model)
    stated = (getattr(config, name, None) for name in ("max_target_positions", "max_position_embeddings"))
    return next((limit for limit in stated if isinstance(limit, int) and limit > 0), None)


def prepare(model: nn.Module, inputs: Any) -> Inputs:
    """Check the inputs and bring them to the model's device."""
    require_module(model)
    if not isinstance(inputs, Mapping):
        ids = _tensor(inputs, "input_ids")
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    given = {name: value for name, value in inputs.items() if value is not None}
    for name in _OURS:
        if name in given:
            raise InvalidArgumentError(f"{name}={given[name]!r} is decided by the capture: leave it out")
    parameters = inspect.signature(model.forward).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    for name in given:
        if name in parameters:
            continue
        if not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}:
            raise InvalidArgumentError(
                f"{type(model).__name__} does not read {name!r}: its inputs are {', '.join(parameters)}"
            )
        # What a model hands on to its parts they may name; a slip would be passed over by all of them.
        meant = get_close_matches(name, parameters, 1, cutoff=0.85)
        if meant and not any(name in inspect.signature(part.forward).parameters for part in model.modules()):
            raise InvalidArgumentError(f"{type(model).__name__} does not read {name!r}: is {meant[0]!r} meant?")
    given = {name: _tensor(value, name) for name, value in given.items()}
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor) and value.ndim > 0}
    if not tensors:
        raise InvalidArgumentError(
            f"inputs hold no tensor, only {sorted(given)}: {type(model).__name__} needs something to look at"
        )
    for name, value in tensors.items():
        # Masks and what is added to scores may well hide by minus infinity.
        if value.dtype.is_floating_point and "mask" not in name and "bias" not in name and not value.isfinite().all():
            raise InvalidArgumentError(f"{name} of shape {tuple(value.shape)} must be finite: it holds NaN or infinity")
    for name, mask in _IDS.items():
        if name in tensors:
            # Beside other sequences a mask may belong to those.
            own = tensors.get(mask) if mask == "decoder_attention_mask" or _alone(tensors) else None
            _check_ids(model, tensors[name], name, own, mask)
    real = {}
    for name, mask in _IDS.items():
        embedded = tensors.get(name.replace("input_ids", "inputs_embeds"), torch.empty(0))  # in the place of ids
        shape = tensors[name].shape if name in tensors else embedded.shape[:2]
        if mask in tensors and tensors[mask].shape == shape:
            real[name] = tensors[mask].bool()
    stated = getattr(model, "main_input_name", "")
    first = [*(stated if isinstance(stated, list | tuple) else [stated]), *_IDS, *tensors]
    main = next(name for name in first if name in tensors)
    device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
    dtype = next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), torch.float32)
    moved = {
        name: value.to(device=device, dtype=dtype if value.dtype.is_floating_point else None)
        for name, value in tensors.items()
    }
    return Inputs(
        given={**given, **moved},
        batch=tensors[main].shape[0],
        device=device,
        real={name: mask.to(device) for name, mask in real.items() if mask.ndim == 2},
    )


def _alone(tensors: Mapping[str, Tensor]) -> bool:
    """Whether token ids are the only sequence that an encoder reads."""
    return not any(name.startswith(("input_features", "input_values", "pixel_values")) for name in tensors)


def _tensor(value: Any, name: str) -> Any:
    """As a tensor, what is an array or a list; a row of token ids is a batch of one."""
    if isinstance(value, bool | int | float | str):
        if name in _IDS or name in _IDS.values():
            raise InvalidArgumentError(f"{name} must be integers, a row a text, got {type(value).__name__} {value!r}")
        return value
    try:
        tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if name not in _IDS and name not in _IDS.values():
            return value  # the model may take things that are no tensors
        raise InvalidArgumentError(
            f"{name} must be integers, a row a text and all of one length, got {type(value).__name__}: {error}"
        ) from None
    if name in _IDS or name in _IDS.values():
        if tensor.ndim == 1:
            tensor = tensor[None]
        if name in _IDS and tensor.ndim not in (2, 3):  # three where several codes make a position
            raise InvalidArgumentError(f"{name} must have shape (batch, n) or (n,), got {tuple(tensor.shape)}")
    return tensor


def _check_ids(model: nn.Module, ids: Tensor, name: str, mask: Tensor | None, mask_name: str) -> None:
    if ids.numel() == 0:
        raise InvalidArgumentError(f"{name} is empty, shape {tuple(ids.shape)}: there is no text to look at")
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
        raise InvalidArgumentError(f"{name} must be integers, got dtype {ids.dtype}")
    if mask is not None and mask.ndim == 2:
        if mask.shape != ids.shape:
            raise InvalidArgumentError(
                f"{mask_name} must have one entry a token: shape {tuple(mask.shape)} for {name} of shape "
                f"{tuple(ids.shape)}"
            )
        for text, row in enumerate(mask.bool().any(dim=1).tolist()):
            if not row:
                raise InvalidArgumentError(
                    f"{mask_name}[{text}] is zero everywhere: all {ids.shape[1]} tokens are padding"
                )
    own = name == "input_ids"
    limit = context_length(model) if own else _decoder_length(model)
    if limit is not None and ids.shape[1] > limit:
        raise InvalidArgumentError(
            f"the text {'' if own else 'of the decoder '}has {ids.shape[1]} tokens, and the model's context holds "
            f"{limit}: shorten or split it"
        )
    part: Any = model
    if name == "decoder_input_ids":
        part = getattr(model, "get_decoder", lambda: None)()
    embeddings: Any = getattr(part, "get_input_embeddings", lambda: None)
    try:
        vocabulary = getattr(embeddings(), "num_embeddings", None)
    except (NotImplementedError, AttributeError):  # how transformers says that there are none
        vocabulary = None
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (isinstance(vocabulary, int) and high >= vocabulary):
        raise InvalidArgumentError(
            f"{name} must be in 0..{'' if vocabulary is None else vocabulary - 1}, got {low if low < 0 else high}: "
            "does the tokenizer belong to this model?"
        )
