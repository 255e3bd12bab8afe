"""SmolLM2-135M-Instruct, a language model: its package holds 4-bit weights, which are unpacked once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ._packages import Progress, cache_folder, package_folder
from ._transformers import load_folder

__all__ = ["load_smollm2"]

_NAME = "SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The number changes with how the model is converted, so that new code never meets an old cache.
_CACHE = Path("packaged-models-1", _NAME)


def load_smollm2(
    cache_dir: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, in float32.

    The package holds 4-bit weights in GGUF, which take a quarter of a minute to unpack. The first call writes them as
    safetensors below `cache_dir` (540 MB), where later calls find them.

    Parameters
    ----------
    cache_dir
        Made if it does not exist. Default: :func:`cache_folder`.
    progress
        Called with a sentence when something slow begins.

    Returns
    -------
    (LlamaForCausalLM, tokenizer)

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> model, tokenizer = packaged_models.load_smollm2()  # doctest: +SKIP
    >>> model.config.num_hidden_layers  # doctest: +SKIP
    30
    """
    folder = package_folder("SmolLM2")
    say = progress or (lambda _: None)
    target = (cache_folder() if cache_dir is None else Path(cache_dir)) / _CACHE
    if not (target / "model.safetensors").is_file():
        say(f"converting SmolLM2-135M-Instruct to float32, once (about 20 seconds), in {target.parent}")
        _convert(folder, target)
    say("loading SmolLM2-135M-Instruct")
    from transformers import AutoTokenizer

    model = load_folder(target, "AutoModelForCausalLM", _NAME)
    return model, AutoTokenizer.from_pretrained(target, local_files_only=True)


def _convert(folder: Path, target: Path) -> None:
    """Unpack the GGUF file into `target`, which appears whole or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    draft.chmod(0o755)
    try:
        AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF).save_pretrained(draft)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=_GGUF, dtype="float32")
        # The weights are plain float32 by now, but transformers 5.23 still takes the model for a quantised one, which
        # it would refuse to write.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(draft)
        try:
            draft.rename(target)
        except OSError:
            # Another process was faster, which is fine; anything else is not.
            if not (target / "model.safetensors").is_file():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
