"""Results that stay as they are, down to the arrays and dicts they hold."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class Frozen:
    """Base of frozen dataclasses: arrays are held as read-only views, dicts as read-only proxies of copies.

    A view, so that an array which somebody else made stays writeable where it is. Pickles and deep copies go through
    the constructor again: a proxy cannot be pickled, and a pickled array forgets that it was read-only.
    """

    def __post_init__(self) -> None:
        held = vars(self)  # past __setattr__, which refuses
        for name, value in held.items():
            held[name] = _frozen(value)

    def __reduce__(self) -> tuple[Any, ...]:
        values = (getattr(self, field.name) for field in fields(self))
        return type(self), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    return MappingProxyType(dict(value)) if isinstance(value, (dict, MappingProxyType)) else value
