"""The attention of two trained models on a long text: captured once, and kept in the cache.

Head means, as transformers' own eager attention has them: nothing of attnflow is in the benchmark's input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import packaged_models
from .._positions import integer
from ..errors import InvalidArgumentError

__all__ = ["TEXT", "Model", "attention", "missing"]

Model = Literal["SmolLM2", "MiniLM"]

TEXT = Path(__file__).with_name("text.txt")

# The models, and what they put around a text: token ids of their tokenizer by name.
_AROUND: dict[Model, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "SmolLM2": (("bos_token_id",), ()),
    "MiniLM": (("cls_token_id",), ("sep_token_id",)),
}

Floats = NDArray[np.float32]


def attention(model: Model, n: int, *, progress: Callable[[str], object] | None = None) -> Floats:
    """Attention ``(layers, n, n)``, the mean over heads, on the first `n` tokens of the text; causal for SmolLM2.

    Raises
    ------
    MissingDependencyError
        It is not in the cache yet, and what the model needs is not installed.
    InvalidArgumentError
        No such model, or the text is shorter than `n` tokens, or `n` leaves no room for any of it.

    Examples
    --------
    >>> from attnflow import bench
    >>> bench.attention("MiniLM", 128).shape  # doctest: +SKIP
    (6, 128, 128)
    """
    if model not in tuple(_AROUND):  # before anything is kept under that name
        raise InvalidArgumentError(f"model is {model!r}; it must be {' or '.join(map(repr, _AROUND))}")
    # One token of the text at least, beside what the model puts around it.
    n = integer(n, "n", low=1 + sum(map(len, _AROUND[model])))
    file = _file(model, n)
    if not file.exists():
        matrices = _capture(model, n, progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npy")
        np.save(partial, matrices)
        partial.replace(file)
    stored: Floats = np.load(file)
    return stored


def missing(model: Model, n: int) -> str | None:
    """The commands that install what :func:`attention` lacks here; None if nothing is missing."""
    return None if _file(model, n).exists() else packaged_models.missing(model)


def _file(model: Model, n: int) -> Path:
    return packaged_models.cache_folder() / "benchmarks" / f"{model}-{n}.npy"


def _capture(model: Model, n: int, progress: Callable[[str], object] | None) -> Floats:
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported: some bars heed nothing else
    load = packaged_models.load_smollm2 if model == "SmolLM2" else packaged_models.load_minilm
    network, tokenizer = load(progress=progress)
    import torch

    before, after = ([getattr(tokenizer, name) for name in names] for names in _AROUND[model])
    room = n - len(before) - len(after)
    tokens: list[int] = tokenizer(TEXT.read_text(), add_special_tokens=False, truncation=True, max_length=n)[
        "input_ids"
    ]
    if len(tokens) < room:  # then nothing was cut off, and this is all of it
        raise InvalidArgumentError(f"n is {n}, but {TEXT.name} has {len(tokens)} tokens in {model}")
    input_ids = torch.tensor([before + tokens[:room] + after])
    network.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions: Iterable[Any] = network(input_ids, output_attentions=True).attentions
    return np.stack([matrix[0].float().mean(dim=0).numpy() for matrix in attentions])
