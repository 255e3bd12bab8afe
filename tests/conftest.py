"""Settings and models that tests share."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Before anything imports transformers: no test may reach for a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import numpy as np

from attnflow import instances, maxflow
from attnflow.packaged_models import MODELS, missing

# Timings on shared machines are no reason to fail; a failure there must be one here too.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a device this machine lacks; under CI, miss no model that the setup should have installed."""
    if os.environ.get("CI") and (commands := [what for model in MODELS if (what := missing(model))]):
        raise pytest.UsageError(f"tests on real models would be skipped; they need {' && '.join(commands)}")
    for item in items:
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_gpu() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tiny products are slower on many threads, and other work shares the machine."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, loaded once."""
    from attnflow.packaged_models import load_smollm2

    return load_smollm2(ROOT / ".cache")


@pytest.fixture(scope="session")
def minilm() -> tuple[Any, Any]:
    """all-MiniLM-L6-v2 and its tokenizer, loaded once."""
    from attnflow.packaged_models import load_minilm

    return load_minilm()


@pytest.fixture(scope="session")
def peaked() -> np.ndarray:
    """Three small causal layers."""
    return instances.peaked(3, 7, seed=3)


@pytest.fixture(scope="session")
def full(peaked: np.ndarray) -> np.ndarray:
    """Their flows, all sinks x all sources."""
    return maxflow.layered(peaked, sinks=range(7)).values
