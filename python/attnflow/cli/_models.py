"""Models by path or name, with the class their configuration asks for, in float32 and without noise."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import attnflow

__all__ = ["load"]


def load(
    name: str,
    gguf_file: str | None = None,
    threads: int | None = None,
    *,
    kind: str = "text",
    device: str = "cpu",
) -> tuple[Any, Any]:
    """The model and its tokenizer or processor: with a head if the weights have one, without a head otherwise.

    `kind` is what it is to read: "text", "image" or "audio".
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported: some bars heed nothing else
    try:
        import torch
        import transformers
    except ImportError as error:
        message = f"explaining a model needs torch and transformers: pip install 'attnflow[torch]' ({error})"
        raise attnflow.errors.MissingDependencyError(message) from error
    if threads is not None:
        torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if looks_like_path(name) and not Path(name).is_dir():
        raise attnflow.errors.InvalidArgumentError(f"--model {name}: there is no such folder")
    options: dict[str, Any] = {"local_files_only": Path(name).is_dir()}
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    # Whatever goes wrong in there, it is the folder or the name that the user can do something about.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = transformers.AutoConfig.from_pretrained(name, **options)
            loader = model_class(config)
            if kind == "image" and loader == "AutoModel":  # of a model of images and texts, the tower that sees
                config = getattr(config, "vision_config", config)
            model = getattr(transformers, loader).from_pretrained(name, config=config, dtype=torch.float32, **options)
            # A recording that becomes words needs both; of others the folder may hold no tokenizer.
            ears = "AutoProcessor" if loader == "AutoModelForSpeechSeq2Seq" else "AutoFeatureExtractor"
            reader = {"text": "AutoTokenizer", "image": "AutoImageProcessor", "audio": ears}[kind]
            tokenizer = getattr(transformers, reader).from_pretrained(name, **options)
    except ImportError as error:
        raise attnflow.errors.MissingDependencyError(f"--model {name}: {_first_line(error)}") from error
    except Exception as error:
        weights = sorted(path.name for path in Path(name).glob("*.gguf"))
        if weights and gguf_file is None:
            raise attnflow.errors.InvalidArgumentError(
                f"--model {name}: holds {', '.join(weights)}; say which to load with --gguf-file"
            ) from error
        raise attnflow.errors.InvalidArgumentError(f"--model {name}: cannot be loaded: {_first_line(error)}") from error
    try:
        return model.eval().to(device), tokenizer
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise attnflow.errors.InvalidArgumentError(f"--device {device}: {_first_line(error)}") from error


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path: hub names have one slash at most and no dots in front."""
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1


def model_class(config: Any) -> str:
    """The transformers class to load a model with, by the architectures that its configuration names."""
    from transformers.models.auto import modeling_auto as auto

    heads = {
        "AutoModelForCausalLM": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForSeq2SeqLM": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForSpeechSeq2Seq": auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
        "AutoModelForImageClassification": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForMaskedLM": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "AutoModelForSequenceClassification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    architectures = config.architectures
    if architectures:
        for loader, names in heads.items():
            if any(architecture in names.values() for architecture in architectures):
                return loader
        return "AutoModel"
    # No word on it: a family that has no masked language models is one of language models.
    causal, masked = heads["AutoModelForCausalLM"], heads["AutoModelForMaskedLM"]
    if getattr(config, "is_encoder_decoder", False) and config.model_type in heads["AutoModelForSeq2SeqLM"]:
        return "AutoModelForSeq2SeqLM"
    return "AutoModelForCausalLM" if config.model_type in causal and config.model_type not in masked else "AutoModel"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
