"""Exact maximum flow through the layers of a transformer, from every input token at once."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import AttnflowError

if TYPE_CHECKING:
    from . import baselines, capture, instances, maxflow
    from .attribution import Attribution
    from .explain import explain
    from .network import Network

    __version__: str

__all__ = [
    "AttnflowError",
    "Attribution",
    "Network",
    "__version__",
    "baselines",
    "capture",
    "errors",
    "explain",
    "instances",
    "maxflow",
]

_LAZY = {  # name -> the module that holds it; a module of the name itself is returned as such
    "Attribution": "attribution",
    "Network": "network",
    "baselines": "baselines",
    "capture": "capture",
    "explain": "explain",
    "instances": "instances",
    "maxflow": "maxflow",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{_LAZY[name]}", __name__)
    value = module if name in ("baselines", "capture", "instances", "maxflow") else getattr(module, name)
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
