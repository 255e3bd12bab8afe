"""What a model reads, and what is known of each of its positions: texts, chats, pairs of texts, images, sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from .._positions import is_many
from ..attribution import Grid
from ..errors import InvalidArgumentError

__all__ = [
    "NO_TEXT",
    "Reading",
    "is_chat",
    "located",
    "read_arrays",
    "read_text",
    "short",
    "text_part",
    "with_output",
    "with_target",
]

# What models that read no text call their main input.
NO_TEXT = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "audio_values")


@dataclass(frozen=True)
class Reading:
    """One text (image, recording) as the model sees it; sequences have one entry a position.

    An encoder-decoder's positions are those of its source, `n_source` many, and behind them its decoder's.
    """

    text: str
    ids: tuple[int, ...]
    """Token ids that the model reads, or its encoder; of what is no text, none."""
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int] | None, ...]
    special: tuple[bool, ...]
    start: int | None = None
    """Position of the start token."""
    cls: int | None = None
    """Position of the class token."""
    arrays: Mapping[str, Any] = field(default_factory=dict)
    """What the model reads beside token ids, a batch of one."""
    n_source: int = 0
    decoder_ids: tuple[int, ...] = ()
    """Token ids that the decoder behind an encoder reads."""
    said: tuple[int, ...] = ()
    """Token ids the model said, or was made to say."""
    first: int = 0
    """The position whose output is the first of `said`."""
    grid: Grid | None = None

    @property
    def inner(self) -> list[int]:
        """Positions of the tokens that were given or said, special ones aside."""
        return [position for position, special in enumerate(self.special) if not special]

    @property
    def extent(self) -> tuple[int, str, str]:
        """How many positions there are, and of what, for the reading of positions."""
        return len(self.tokens), "the input", "token" if self.grid is None else "position"

    def name(self, positions: Sequence[int]) -> str:
        """Positions in words, for a label."""
        if len(positions) > 3:
            return f"{len(positions)} positions"
        tokens = [self.tokens[position] for position in positions]
        return ", ".join(repr(token.strip() or token) for token in tokens)


def text_part(processor: Any) -> Any:
    """The tokenizer in a processor of several kinds of input, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def is_chat(text: Any) -> bool:
    """Whether this is a conversation: messages, each a mapping with a role."""
    return is_many(text) and all(isinstance(message, Mapping) and "role" in message for message in text)


def read_text(
    tokenizer: Any, text: Any, causal: bool, start_token: Literal["auto"] | bool, *, answers: bool = False
) -> Reading:
    """A text or a conversation, tokenized."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    chat = not isinstance(text, str)
    if chat:
        messages, text = list(text), _rendered(tokenizer, text)
    # Not verbose: that a text is too long is said once, by the capture.
    encoding = tokenizer(
        text,
        return_special_tokens_mask=True,
        return_offsets_mapping=fast,
        truncation=False,
        verbose=False,
        # The template writes a conversation's special tokens itself.
        **({"add_special_tokens": False} if chat else {}),
    )
    ids = [int(token) for token in encoding["input_ids"]]
    special = [bool(flag) for flag in encoding["special_tokens_mask"]]
    if chat:
        _verify_chat(tokenizer, messages, ids)
        known_special = set(getattr(tokenizer, "all_special_ids", ()))
        special = [token in known_special for token in ids]
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
    if start is None and (start_token is True or (start_token == "auto" and causal and not chat and not answers)):
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
    return Reading(
        text=text,
        ids=tuple(ids),
        tokens=tuple(str(tokenizer.decode([token])) for token in ids),
        offsets=tuple(offsets),
        special=tuple(special),
        start=start,
        cls=cls,
    )


def _rendered(tokenizer: Any, messages: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except Exception as error:  # a template is a program, which raises what it likes
        raise InvalidArgumentError(
            f"the text is a conversation, and {type(tokenizer).__name__} has no chat template for it: {error}"
        ) from error


def _verify_chat(tokenizer: Any, messages: Any, ids: list[int]) -> None:
    """Assert that the rendered conversation was tokenized as the template's own ids: nothing doubled, nothing lost."""
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    own = [int(token) for token in wanted["input_ids"]]
    if own != ids:
        raise InvalidArgumentError(
            f"the chat template makes {len(own)} ids of the conversation and its rendered text {len(ids)} others: pass "
            "the text as the model is to read it"
        )


def with_output(reading: Reading, tokenizer: Any, said: Sequence[int]) -> Reading:
    """A decoder's text followed by what it said, whose last token it does not read again."""
    shown = _decoded(reading, tokenizer, said[:-1], reading.text, reading.ids[-1:])
    return replace(
        reading,
        text=shown.text,
        ids=(*reading.ids, *said[:-1]),
        tokens=(*reading.tokens, *shown.tokens),
        offsets=(*reading.offsets, *shown.offsets),
        special=(*reading.special, *shown.special),
        said=tuple(said),
        first=len(reading.ids) - 1,
    )


def with_target(reading: Reading, tokenizer: Any, decoder_ids: Sequence[int], said: Sequence[int]) -> Reading:
    """An encoder's text followed by what the decoder reads, and what it said at each of those positions."""
    start, n = len(decoder_ids) - len(said), len(reading.tokens)
    head = [str(tokenizer.decode([token])) for token in decoder_ids[: start + 1]]
    shown = _decoded(reading, tokenizer, decoder_ids[start + 1 :], f"{reading.text}\n" if reading.text else "")
    return replace(
        reading,
        text=shown.text,
        decoder_ids=tuple(decoder_ids),
        tokens=(*reading.tokens, *head, *shown.tokens),
        offsets=(*reading.offsets, *[None] * len(head), *shown.offsets),
        special=(*reading.special, *[True] * len(head), *shown.special),
        n_source=n,
        said=tuple(said),
        first=n + start,
    )


def _decoded(reading: Reading, tokenizer: Any, ids: Sequence[int], text: str, before: Sequence[int] = ()) -> Reading:
    """Tokens as they continue a text, with their places in it.

    Many tokenizers write no blank before the first token they are given: with what stands `before` it is not the first.
    """
    hidden = set(getattr(tokenizer, "all_special_ids", ()))

    def decoded(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    offsets: list[tuple[int, int] | None] = []
    spoken = list(before)
    so_far = decoded(spoken) if spoken else ""
    given = len(so_far)
    for token in ids:
        if token in hidden:
            offsets.append(None)
            continue
        spoken.append(token)
        longer = decoded(spoken)
        # Half a character is shown as a mark that the rest of it replaces.
        same = next(
            (i for i, (a, b) in enumerate(zip(so_far, longer, strict=False)) if a != b), min(len(so_far), len(longer))
        )
        same = max(same, given)
        offsets.append((len(text) + same - given, len(text) + len(longer) - given) if len(longer) > same else None)
        so_far = longer
    text += so_far[given:]
    return replace(
        reading,
        text=text,
        tokens=tuple(str(tokenizer.decode([token])) for token in ids),
        offsets=tuple(None if span is None else (min(span[0], len(text)), min(span[1], len(text))) for span in offsets),
        special=tuple(token in hidden for token in ids),
    )


# -- images and sound ------------------------------------------------------------------------------------------------


def read_arrays(model: Any, processor: Any, given: Any) -> Reading:
    """An image, a recording, or what a processor made of them; its positions are known when the model has run."""
    main = getattr(model, "main_input_name", "")
    words = isinstance(given, Mapping) and not {"input_ids", "inputs_embeds"}.isdisjoint(given)
    if main == "input_ids" and not words and getattr(model.config, "vision_config", None) is not None:
        raise InvalidArgumentError(
            f"{type(model).__name__} reads text beside images: of an image alone, explain the part that sees, such as "
            "model.vision_model"
        )
    if isinstance(given, Mapping):
        arrays = dict(given)
        if not arrays:
            raise InvalidArgumentError(f"text is an empty mapping: what {type(model).__name__} reads is needed")
        if main in NO_TEXT and main not in arrays:
            raise InvalidArgumentError(
                f"{type(model).__name__} reads {main}, and the mapping holds {', '.join(map(str, arrays))}"
            )
    else:
        if main == "input_ids":
            raise InvalidArgumentError(
                f"{type(model).__name__} reads text: a str or a conversation is needed, messages with a role each, got "
                f"{type(given).__name__} {short(repr(given))}"
            )
        part = getattr(processor, "image_processor", None) or getattr(processor, "feature_extractor", None) or processor
        if not callable(part):
            raise InvalidArgumentError(
                f"{type(model).__name__} reads {main}, and to make them of {type(given).__name__} its processor is "
                f"needed: pass it as the tokenizer, got {type(processor).__name__}"
            )
        if main == "pixel_values":
            arrays = dict(part(images=given, return_tensors="pt"))
        else:
            rate = {"sampling_rate": part.sampling_rate} if hasattr(part, "sampling_rate") else {}
            arrays = dict(part(given, return_tensors="pt", **rate))
    shape: tuple[int, ...] = ()
    with suppress(ValueError):  # of rows of several lengths, which the capture refuses
        shape = tuple(np.shape(arrays.get(main, 0)))
    if len(shape) > 1 and shape[0] != 1:
        raise InvalidArgumentError(
            f"{main} of shape {tuple(shape)} hold {shape[0]}, and one is explained at a time: pass "
            "several in a list, each on its own"
        )
    empty = Reading(text="", ids=(), tokens=(), offsets=(), special=(), arrays=arrays)
    return _named(empty, model, text_part(processor)) if "input_ids" in arrays else empty


def _named(reading: Reading, model: Any, tokenizer: Any) -> Reading:
    """Token ids that were given as they are, alone or beside an image, by their tokens; nameless without a tokenizer.

    What stands in the place of an image, or of a word that is to be found, is a token like others and no special one.
    """
    if not callable(getattr(tokenizer, "decode", None)):
        return reading
    try:
        ids, mask = (np.asarray(reading.arrays.get(name)) for name in ("input_ids", "attention_mask"))
    except ValueError:  # rows of several lengths, which the capture refuses
        return reading
    if ids.dtype.kind not in "iu" or ids.ndim > 2:
        return reading
    ids = ids.reshape(-1)
    if mask.size == ids.size and mask.shape:
        ids = ids[mask.reshape(-1).astype(bool)]
    looked = {getattr(model.config, f"image_token_{end}", None) for end in ("id", "index")}
    hidden = set(getattr(tokenizer, "all_special_ids", ())) - looked - {getattr(tokenizer, "mask_token_id", None)}
    special = tuple(token in hidden for token in ids.tolist())
    tokens = tuple(str(tokenizer.decode([token])) for token in ids.tolist())
    cls = 0 if special and special[0] and ids[0] == getattr(tokenizer, "cls_token_id", None) else None
    return replace(reading, tokens=tokens, offsets=(None,) * len(tokens), special=special, cls=cls)


def located(reading: Reading, model: Any, n: int) -> Reading:
    """An image's or a recording's positions, now that their number is known, before what a decoder said of it."""
    if len(reading.tokens) > len(reading.decoder_ids):
        return reading  # they have their names
    grid, front, behind = _cells(model, reading.arrays, n)
    if grid is None:
        names = [f"position {index}" for index in range(n)]
    elif len(grid.shape) == 1:
        names = [f"frame {index}" for index in range(n)]
    else:
        rows, columns = grid.shape
        names = [*front, *(f"patch {row},{column}" for row in range(rows) for column in range(columns)), *behind]
    return replace(
        reading,
        tokens=(*names, *reading.tokens),
        offsets=(*[None] * n, *reading.offsets),
        special=(*(not len(front) <= place < n - len(behind) for place in range(n)), *reading.special),
        cls=0 if front else None,
        n_source=n if reading.decoder_ids else 0,
        first=reading.first + n,
        grid=grid,
    )


def _cells(model: Any, arrays: Mapping[str, Any], n: int) -> tuple[Grid | None, list[str], list[str]]:
    """The grid of patches or frames, and the names of the tokens before and behind it.

    None where the positions are not known to be these tokens and all patches, in order: a guess would put scores where
    they do not belong.
    """
    parts = [getattr(model.config, name, None) for name in ("vision_config", "encoder")]  # of the part that sees
    config = next((part for part in parts if hasattr(part, "patch_size")), model.config)
    unknown: tuple[None, list[str], list[str]] = (None, [], [])
    if "input_ids" in arrays:
        return unknown  # text, or text and an image, whose places among the positions are the model's own affair
    picture: tuple[int, ...] = ()
    if "pixel_values" in arrays:
        picture = tuple(np.shape(arrays["pixel_values"]))[2:]
    elif hasattr(config, "frequency_stride"):  # a spectrogram, cut like an image of its transpose
        picture = tuple(np.shape(arrays["input_values"]))[:0:-1]
    elif not hasattr(config, "patch_size"):
        return Grid(0, (n,)), [], []
    size = getattr(config, "patch_size", None)
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or len(picture) != 2 or hasattr(config, "mask_ratio"):  # masked autoencoders shuffle patches
        return unknown
    strides = [getattr(config, f"{axis}_stride", side) for axis, side in zip(("frequency", "time"), sides, strict=True)]
    rows, columns = (
        (length - side) // stride + 1 for length, side, stride in zip(picture, sides, strides, strict=True)
    )
    registers = [f"[REG{index + 1}]" for index in range(getattr(config, "num_register_tokens", None) or 0)]
    distilled = any(name.endswith("distillation_token") for name, _ in model.named_parameters())
    behind = [f"[DET{index + 1}]" for index in range(getattr(config, "num_detection_tokens", None) or 0)]
    for front in ([], ["[CLS]"], ["[CLS]", *registers], ["[CLS]", "[DIST]"] if distilled else []):
        if rows > 0 and columns > 0 and n == len(front) + rows * columns + len(behind):
            return Grid(len(front), (rows, columns)), front, behind
    return unknown


def short(text: str) -> str:
    """At most 60 characters, for a message."""
    return text if len(text) <= 60 else text[:57] + "..."
