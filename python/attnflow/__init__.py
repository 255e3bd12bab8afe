"""Exact maximum flow through the layers of a transformer, from every input token at once."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import baselines, errors, maxflow
from .errors import AttnflowError
from .network import Network
from .storage import SparseMatrix, TriangularMatrix

if TYPE_CHECKING:
    from . import adapters, bench, capture, differentiable, instances
    from .attribution import Attribution
    from .capture.measures import MEASURES as measures
    from .explain import explain

    __version__: str

__all__ = [
    "AttnflowError",
    "Attribution",
    "Network",
    "SparseMatrix",
    "TriangularMatrix",
    "__version__",
    "adapters",
    "baselines",
    "bench",
    "capture",
    "differentiable",
    "errors",
    "explain",
    "instances",
    "maxflow",
    "measures",
]


_LAZY = {"Attribution": ".attribution", "explain": ".explain"}  # what would import torch, or is seldom needed


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        value = import_module("importlib.metadata").version(__name__)
    elif name in ("adapters", "bench", "capture", "differentiable", "instances"):
        value = import_module(f".{name}", __name__)
    elif name == "measures":
        value = import_module(".capture.measures", __name__).MEASURES
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``attnflow.explain`` the function, although importing the module of that name would bind the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "explain" and isinstance(value, ModuleType):
            value = value.explain
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
