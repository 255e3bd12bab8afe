"""MathFormer: four Llamas of one layer and 8 dimensions, one for each operation on small numbers."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from ..errors import InvalidArgumentError
from ._packages import Progress, package_folder
from ._transformers import load_folder, word_tokenizer

__all__ = ["Operation", "load_mathformer"]

Operation = Literal["add", "sub", "mul", "div"]


def load_mathformer(operation: Operation = "add", *, progress: Progress | None = None) -> tuple[Any, Any]:
    """The MathFormer of an operation and its tokenizer of characters, in float32: a Llama of one layer, two heads.

    Each answers as it was trained to: "6+9=", "15-7=" (no negative results), "6*9=" with "54", and "17/5=" with
    "Q3R2", quotient and remainder. One digit on either side, but a difference may start from up to 19, a
    quotient from up to 89. Nothing is put around a text.

    Parameters
    ----------
    operation
        "add", "sub", "mul" or "div".
    progress
        Called with a sentence when loading begins.

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.
    InvalidArgumentError
        No such operation.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> model, tokenizer = packaged_models.load_mathformer("add")  # doctest: +SKIP
    >>> question = tokenizer("6+9=", return_tensors="pt")  # doctest: +SKIP
    >>> tokenizer.decode(model.generate(**question, max_new_tokens=4)[0], skip_special_tokens=True)  # doctest: +SKIP
    '6+9=15'
    """
    operations = get_args(Operation)
    if operation not in operations:
        raise InvalidArgumentError(f"operation is {operation!r}; it must be one of {', '.join(map(repr, operations))}")
    folder = package_folder("MathFormer") / f"{operation}former"
    name = f"MathFormer-{operation}"
    if progress is not None:
        progress(f"loading {name}")
    tokenizer = word_tokenizer(
        json.loads((folder / "vocab.json").read_text()),
        r"[\s\S]",
        unknown="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )
    return load_folder(folder, "LlamaForCausalLM", name), tokenizer
