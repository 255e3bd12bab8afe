"""What a model says, found out before its attention is captured in one pass over all of it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.capture import _layers, _state
from attnflow.capture._inputs import prepare, require_module
from attnflow.errors import InvalidArgumentError

__all__ = ["decoder_inputs", "generate", "is_encoder_decoder"]

# What would make several answers of one, or another thing than an answer.
_REFUSED = ("num_return_sequences", "input_ids", "inputs", "inputs_embeds", "attention_mask", "decoder_input_ids")


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether a model reads with an encoder and answers with a decoder.

    Examples
    --------
    >>> from transformers import T5Config, T5ForConditionalGeneration
    >>> from attnflow.capture import is_encoder_decoder
    >>> size = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    >>> model = T5ForConditionalGeneration(T5Config(vocab_size=11, **size))
    >>> is_encoder_decoder(model), is_encoder_decoder(model.get_encoder())
    (True, False)
    """
    return _layers.encoder_name(model) is not None and _layers.decoder_name(model) is not None


def generate(model: nn.Module, inputs: Any, options: Mapping[str, Any] | None = None) -> tuple[list[int], list[int]]:
    """Let a model answer one text (image, recording), by its own ``generate``.

    The model is left as it was found. Attention is not looked at here: one pass over the answer shows the same.

    Parameters
    ----------
    model : torch.nn.Module
        Of transformers, able to generate.
    inputs : mapping, or array of int
        As for :func:`attnflow.capture.contributions`, a batch of one.
    options : mapping, optional
        Any of ``generate``'s: ``max_new_tokens``, ``do_sample``, ``num_beams``, ``logits_processor``, ...

    Returns
    -------
    read : list of int
        Token ids that a decoder behind an encoder read; of a decoder alone, those of its prompt and of its answer. The
        last token of the answer is not among them: nothing was said after it.
    said : list of int
        Token ids of the answer; the i-th was said at the position of ``read[i - len(said)]``.

    Raises
    ------
    InvalidArgumentError
        An option that asks for several answers or for another input, a model that cannot generate, no answer.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from attnflow.capture import generate
    >>> options = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, eos_token_id=None, bos_token_id=None, **options))
    >>> read, said = generate(model, [3, 4, 5], {"max_new_tokens": 2})
    >>> len(read), len(said), read[:3], read[3] == said[0]
    (4, 2, [3, 4, 5], True)
    """
    require_module(model)
    if not isinstance(options, Mapping | None):
        raise InvalidArgumentError(f"options must be a mapping of generate()'s options, got {options!r}")
    options = dict(options or {})
    for name in _REFUSED:
        if name in options and not (name == "num_return_sequences" and options[name] == 1):
            raise InvalidArgumentError(f"generate's option {name}={options[name]!r} has no meaning here: leave it out")
    if not _layers.can_generate(model):
        raise InvalidArgumentError(f"{type(model).__name__} cannot generate: it has no language model's head")
    prepared = prepare(model, inputs)
    if prepared.batch != 1:
        raise InvalidArgumentError(f"one text is answered at a time, and inputs hold {prepared.batch}")
    own = options.get("generation_config")  # what it leaves open is as the model has it

    def configured(name: str) -> Any:
        found = (getattr(one, name, None) for one in (own, getattr(model, "generation_config", None)))
        return next((value for value in found if value is not None), None)

    ends = options["eos_token_id"] if "eos_token_id" in options else configured("eos_token_id")
    if isinstance(ends, Tensor):
        ends = ends.flatten().tolist()
    ends = {int(end) for end in (ends if isinstance(ends, Sequence) else [ends]) if end is not None}
    if ends and own is None and configured("pad_token_id") is None:
        options.setdefault("pad_token_id", min(ends))  # as generate would, which says so every time
    prompts: list[list[int]] = []

    def note(_: nn.Module, __: Any, given: dict[str, Any]) -> None:
        if not prompts and isinstance(ids := given.get("decoder_input_ids"), Tensor):
            prompts.append(ids[0].tolist())

    noting = (one.register_forward_pre_hook(_state.in_this_thread(note), with_kwargs=True) for one in [model])
    with _state.evaluation(model), _state.hooked(noting):
        answer: Any = model.generate(**prepared.given, **options)  # type: ignore[operator]
    sequence = [int(token) for token in _first(answer)]
    if not is_encoder_decoder(model):
        prompts = [prepared.given["input_ids"][0].tolist()]
    elif not prompts:
        raise InvalidArgumentError(f"{type(model).__name__} generated without a decoder that could be seen")
    (prompt,) = prompts
    # Some models return what follows their prompt alone, others the prompt as well.
    said = sequence[len(prompt) :] if sequence[: len(prompt)] == prompt else sequence
    # Behind its end an answer is filled up where others go on: here there are no others, but some models do.
    end = next((place for place, token in enumerate(said) if token in ends), len(said) - 1)
    said = said[: end + 1]
    if not said:
        raise InvalidArgumentError(f"{type(model).__name__} generated nothing (options {sorted(options)})")
    return [*prompt, *said[:-1]], said


def _first(answer: Any) -> Tensor:
    sequences = getattr(answer, "sequences", answer)
    if isinstance(sequences, Mapping):  # Whisper's, with its segments
        sequences = sequences["sequences"]
    assert isinstance(sequences, Tensor)
    return sequences[0]


def decoder_inputs(model: nn.Module, labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """What a decoder behind an encoder reads for it to say `labels`, one place later, by the model's rule; and they.

    Where the labels begin with the token that answers start from, which is read and never said, it is dropped.

    Raises
    ------
    InvalidArgumentError
        No labels, or a model that does not say which token its answers start from.

    Examples
    --------
    >>> from transformers import T5Config, T5ForConditionalGeneration
    >>> from attnflow.capture import decoder_inputs
    >>> size = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    >>> decoder_inputs(T5ForConditionalGeneration(T5Config(vocab_size=11, **size)), [7, 8, 1])
    ([0, 7, 8], [7, 8, 1])
    """
    require_module(model)
    try:
        labels = [operator.index(label) for label in labels]
    except TypeError:
        raise InvalidArgumentError(f"labels must be token ids, a row of integers, got {labels!r}") from None
    if min(labels, default=0) < 0:
        raise InvalidArgumentError(f"labels must be token ids, none of them negative, got {min(labels)}")
    sources = (getattr(model, "generation_config", None), getattr(model, "config", None))
    start = next((s for s in (getattr(c, "decoder_start_token_id", None) for c in sources) if s is not None), None)
    said = labels[1:] if len(labels) > 1 and labels[0] == start else labels
    if not said:
        raise InvalidArgumentError("the target is empty: there is nothing that the model is to say")
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        shifted: Tensor = shift(labels=torch.tensor([said]))
        return [int(token) for token in shifted[0]], said
    if start is None:
        raise InvalidArgumentError(
            f"{type(model).__name__} has no decoder_start_token_id in its configuration: set it, to say from which "
            "token its answers start"
        )
    return [int(start), *said[:-1]], said
