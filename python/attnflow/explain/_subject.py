"""What is to be explained, made into what the model reads; a model that is to answer does so here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from .._positions import is_many
from ..errors import InvalidArgumentError
from . import _plan
from ._plan import Plan
from ._reading import NO_TEXT, Reading, is_chat, read_arrays, read_text, short, text_part, with_output, with_target

__all__ = ["Request", "is_text", "named", "planned", "read", "validated"]


@dataclass(frozen=True)
class Request:
    """What is asked of each text."""

    target: Any = None
    sources: Any = None
    start_token: Literal["auto"] | bool = "auto"
    generate: bool | Mapping[str, Any] | None = None
    continuation: str | None = None
    steps: Any = None
    chain: bool = False

    @property
    def answers(self) -> bool:
        """Whether a decoder is to go on where its text ends."""
        return self.continuation is not None or self.generate not in (None, False)

    @property
    def generation(self) -> Mapping[str, Any]:
        """Options of generate()."""
        return self.generate if isinstance(self.generate, Mapping) else {}


def is_text(given: Any) -> bool:
    """Whether this is a text or a conversation, rather than an image, a recording or several of any."""
    return isinstance(given, str) or (isinstance(given, list | tuple) and len(given) > 0 and is_chat(given))


def validated(text: Any, name: str = "text") -> Any:
    """What was given, if it can be read."""
    if text is None or isinstance(text, bytes | int | float):
        raise InvalidArgumentError(f"{name} must be a str, a conversation, an image or a recording, got {named(text)}")
    if isinstance(text, str):
        if not text:
            raise InvalidArgumentError(f"{name} is empty: there is nothing to explain")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"the {name} holds {text[error.start]!r} at character {error.start}, half of a character: it must be "
                "valid Unicode (was it read with the right encoding?)"
            ) from None
    return text


def read(capture: ModuleType, model: Any, processor: Any, given: Any, request: Request, causal: bool) -> Reading:
    """What the model reads of one text, image or recording, its answer included where one is asked for."""
    two_stacks = capture.is_encoder_decoder(model)
    tokenizer = text_part(processor)
    if is_text(given):
        main = getattr(model, "main_input_name", "input_ids")
        if main in NO_TEXT:
            raise InvalidArgumentError(
                f"{type(model).__name__} reads {main}: an image or a recording is needed, as its processor takes or "
                f"returns them, got {named(given)}"
            )
        _require_tokenizer(tokenizer)
        reading = read_text(tokenizer, given, causal and not two_stacks, request.start_token, answers=request.answers)
    else:
        reading = read_arrays(model, processor, given)
    if two_stacks:
        _require_tokenizer(tokenizer)
        return _answered(capture, model, tokenizer, reading, request)
    if request.steps is not None and not request.answers:
        raise InvalidArgumentError(f"steps={request.steps!r} are of an answer: set generate or continuation as well")
    if not request.answers:
        return reading
    if request.target is not None:
        raise InvalidArgumentError(
            f"target={request.target!r} names a position of the text; of an answer give steps, or none for all of it"
        )
    if not reading.ids:
        raise InvalidArgumentError(f"{type(model).__name__} answers texts: got {named(given)}")
    if request.continuation is not None:
        return with_output(reading, tokenizer, _continuation(tokenizer, reading, request.continuation))
    _, said = capture.generate(model, reading.ids, request.generation)
    return with_output(reading, tokenizer, said)


def _answered(capture: ModuleType, model: Any, tokenizer: Any, reading: Reading, request: Request) -> Reading:
    """What an encoder reads, followed by what its decoder says or is made to say."""
    if request.continuation is not None:
        raise InvalidArgumentError(
            f"continuation={short(request.continuation)!r} goes on with the text of a decoder: of an encoder-decoder "
            "give target, the text it is to say"
        )
    if request.target is None:
        decoder_ids, said = capture.generate(model, encoder_inputs(reading), request.generation)
        return with_target(reading, tokenizer, decoder_ids, said)
    if not isinstance(request.target, str):
        raise InvalidArgumentError(
            f"target must be the text that {type(model).__name__} is to say, or None for it to generate one, got "
            f"{request.target!r}; which of its steps to explain is what steps says"
        )
    if request.generate not in (None, False):
        raise InvalidArgumentError(f"target={short(request.target)!r} says what is said: leave out generate")
    validated(request.target, "target")
    labels = [int(token) for token in tokenizer(text_target=request.target)["input_ids"]]
    if set(labels) <= set(getattr(tokenizer, "all_special_ids", ())) and not request.target.strip():
        raise InvalidArgumentError(f"target={request.target!r} holds no token: there is nothing that is to be said")
    decoder_ids, said = capture.decoder_inputs(model, labels)
    # The language or the task that a text begins with (M2M100, Whisper) is told the model and not asked of it: it is
    # read like the start token, and no step.
    while len(said) > 1 and said[0] in getattr(tokenizer, "all_special_ids", ()):
        said = said[1:]
    return with_target(reading, tokenizer, decoder_ids, said)


def encoder_inputs(reading: Reading) -> Any:
    """What an encoder reads, as capture takes it."""
    return dict(reading.arrays) if reading.arrays else list(reading.ids)


def _continuation(tokenizer: Any, reading: Reading, text: str) -> list[int]:
    """The tokens that a text is continued by, as the tokenizer would have cut the whole where that agrees."""
    validated(text, "continuation")
    whole = [int(token) for token in tokenizer(reading.text + text, add_special_tokens=False)["input_ids"]]
    for head in range(len(reading.ids)):
        rest = list(reading.ids[head:])
        if whole[: len(rest)] == rest and len(whole) > len(rest):
            return whole[len(rest) :]
        if not reading.special[head]:  # those in front are what the whole lacks, and no others
            break
    own = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not own:
        raise InvalidArgumentError(f"continuation={text!r} holds no token")
    return own


def planned(reading: Reading, tokenizer: Any, request: Request, causal: bool) -> Plan:
    """Players and sinks."""
    if reading.said:
        tokens = [str(tokenizer.decode([token])) for token in reading.said]
        return _plan.of_answer(reading, request.steps, request.sources, request.chain, tokens)
    if request.chain:
        raise InvalidArgumentError("chain=True follows an answer to what was said before it: set generate as well")
    return _plan.of_text(reading, request.target, request.sources, causal)


def _require_tokenizer(tokenizer: Any) -> None:
    if not callable(tokenizer) or not callable(getattr(tokenizer, "decode", None)):
        raise InvalidArgumentError(
            f"tokenizer must be a tokenizer of transformers, already loaded, got {named(tokenizer)}"
        )


def named(value: Any) -> str:
    """A value by its type and the beginning of what it shows."""
    if is_many(value) and hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {short(repr(value))}"
