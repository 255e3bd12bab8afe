"""Tiny random models of every modelling file in the installed transformers, and their attention as eager returns it."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from tiny_configs import RUNGS, tiny_config
from tiny_inputs import Inputs, candidates, with_placeholders
from tiny_overrides import CHOICES

LARGEST = 64_000_000  # parameters: larger ones are not tiny, and a rung that builds one is passed by

_HEADS = (
    *("ForConditionalGeneration", "ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForSpeechSeq2Seq", "ForSpeechToText"),
    *("ForCTC", "ForPreTraining", "ForImageClassification", "ForObjectDetection", "ForSemanticSegmentation"),
    *("ForUniversalSegmentation", "ForDepthEstimation", "ForImageSegmentation", "ForAudioClassification"),
    *("ForVideoClassification", "ForSequenceClassification", "ForQuestionAnswering", "ForPrediction"),
    *("ForKeypointMatching", "ForImageTextRetrieval"),
)


@dataclass(frozen=True)
class ModelClass:
    """One class to try: where it is, and what it is made of."""

    module: str
    name: str

    @property
    def family(self) -> str:
        """The folder of the modelling file."""
        return self.module.split(".")[-2]

    def load(self) -> type[PreTrainedModel]:
        """Import the class."""
        return getattr(importlib.import_module(self.module), self.name)  # type: ignore[no-any-return]


def modelling_files() -> list[str]:
    """Every modelling module of the installed transformers."""
    root = Path(transformers.__file__).parent / "models"
    return [f"transformers.models.{path.parent.name}.{path.stem}" for path in sorted(root.glob("*/modeling_*.py"))]


def classes_of(module: str) -> list[ModelClass]:
    """The classes to try of a modelling file: base models, and the first head there is."""
    loaded = importlib.import_module(module)
    own = [name for name, thing in vars(loaded).items() if _is_model(thing, module)]
    family = module.split(".")[-2]
    if family in CHOICES:
        return [ModelClass(module, name) for name in CHOICES[family]]
    mapped: set[str] = set()
    for value in modeling_auto.MODEL_MAPPING_NAMES.values():
        mapped.update([value] if isinstance(value, str) else value)
    chosen = [name for name in own if name in mapped]
    for suffix in _HEADS:
        heads = [name for name in own if name.endswith(suffix)]
        if heads:
            chosen.append(min(heads, key=len))
            break
    public = [name for name in own if name in getattr(loaded, "__all__", [])]
    if not chosen:
        chosen = public[:2] or own[:1]
    return [ModelClass(module, name) for name in dict.fromkeys(chosen)]


def _is_model(thing: Any, module: str) -> bool:
    """Whether something is a class of this module that can be built from a configuration and run."""
    return (
        inspect.isclass(thing)
        and thing.__module__ == module
        and issubclass(thing, PreTrainedModel)
        and not thing.__name__.endswith("PreTrainedModel")
        and getattr(thing, "config_class", None) is not None
        and getattr(thing, "forward", None) is not nn.Module.forward
    )


def build(chosen: ModelClass, rung: str) -> Any:
    """A model with random weights, large enough for sharp attention, in evaluation mode."""
    model_class = chosen.load()
    config = tiny_config(model_class.config_class, rung)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in model_class(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} million parameters on rung {rung!r}")
    torch.manual_seed(0)
    model = model_class(config).float().eval()
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False
    sharpen(model)
    return model


def sharpen(model: nn.Module) -> None:
    """Replace the weights by noise that makes attention far from uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            last = name.rpartition(".")[2]
            if not parameter.is_floating_point() or (last not in ("weight", "bias") and parameter.ndim < 2):
                continue
            if "parametrizations" in name or "A_log" in name:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan = parameter[0].numel() if parameter.ndim != 3 else parameter.shape[-1]
                parameter.copy_(noise * min(0.25, 1.6 / fan**0.5))
            elif last == "bias":
                parameter.copy_(0.1 * noise)
            else:
                parameter.add_(0.1 * noise)


@dataclass
class Prepared:
    """A tiny model that ran."""

    model: Any
    inputs: Inputs
    rung: str
    output: Any


def prepare(chosen: ModelClass, batch: int = 1) -> Prepared:
    """Build a class and find inputs that it runs on.

    Raises
    ------
    RuntimeError
        With the reasons of each rung.
    """
    reasons = []
    for rung in RUNGS:
        try:
            model = build(chosen, rung)
        except Exception as error:
            reasons.append(f"{rung}: {brief(error)}")
            if isinstance(error, ImportError):
                break
            continue
        found = fit(model, batch)
        if not isinstance(found, str):
            return Prepared(model, found[0], rung, found[1])
        reasons.append(f"{rung}: {found}")
    raise RuntimeError(" | ".join(reasons))


def fit(model: Any, batch: int) -> tuple[Inputs, Any] | str:
    """Inputs that a model runs on and its output, or why there are none."""
    reasons: list[str] = []
    for inputs in candidates(model, batch):
        attempt: Inputs | None = inputs
        for _ in range(3):
            if attempt is None:
                break
            try:
                return attempt, run(model, attempt)
            except Exception as error:
                reasons.append(brief(error))
                attempt = with_placeholders(model, attempt, str(error))
    return " / ".join(dict.fromkeys([reasons[0], reasons[-1]])) if reasons else "no input was found for its forward"


def reads(model: Any) -> set[str]:
    """Names of the arguments of a model's forward."""
    return set(inspect.signature(model.forward).parameters)


def run(model: Any, inputs: Inputs, **options: Any) -> Any:
    """Run a model without gradients, with the same random numbers each time."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(**inputs, **options)


def brief(error: BaseException) -> str:
    """One line of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def every_class() -> Iterator[ModelClass]:
    """All classes to try; files that cannot be imported yield a class without a name."""
    for module in modelling_files():
        try:
            yield from classes_of(module)
        except ImportError:
            yield ModelClass(module, "")
