"""all-MiniLM-L6-v2, a sentence encoder: its package holds what transformers itself reads."""

from __future__ import annotations

from typing import Any

from ._packages import Progress, package_folder
from ._transformers import load_folder

__all__ = ["load_minilm"]


def load_minilm(*, progress: Progress | None = None) -> tuple[Any, Any]:
    """all-MiniLM-L6-v2 and its tokenizer, in float32: a BERT of 6 layers without a prediction head.

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> model, tokenizer = packaged_models.load_minilm()  # doctest: +SKIP
    >>> model.config.num_hidden_layers  # doctest: +SKIP
    6
    """
    folder = package_folder("MiniLM") / "model"
    if progress is not None:
        progress("loading all-MiniLM-L6-v2")
    from transformers import AutoTokenizer

    model = load_folder(folder, "AutoModel", "all-MiniLM-L6-v2")
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
