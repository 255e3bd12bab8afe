"""The weights in a ``model.bin`` of CTranslate2.

A header, then every variable with its name, shape, type and bytes, one after the other, then names that share another's
bytes. Numbers are little-endian, a string is preceded by its length and ended by a zero byte. Weights that were
quantised to integers come with scales, and are not read here.

References
----------
[1] ``Model::load`` in https://github.com/OpenNMT/CTranslate2/blob/master/src/models/model.cc
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError

_VERSION = 6
# Types by their numbers in the file.
_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read(file: Path) -> dict[str, NDArray[Any]]:
    """The variables of a model by name, as they are stored; a scalar has no axes.

    Raises
    ------
    FileFormatError
        It is cut short, or no file of CTranslate2, or of another version.
    """
    reader = _Reader(file.read_bytes())
    try:
        (version,) = reader.numbers("I")
        if version != _VERSION:
            raise ValueError(f"its version is {version}, and {_VERSION} is read")
        reader.text()  # the kind of model
        _, n_variables = reader.numbers("II")  # the kind's own revision
        variables: dict[str, NDArray[Any]] = {}
        for _ in range(n_variables):
            name = reader.text()
            (n_axes,) = reader.numbers("B")
            shape = reader.numbers(f"{n_axes}I")
            kind, n_bytes = reader.numbers("BI")
            if kind not in _TYPES:
                raise ValueError(f"{name} is of type {kind}")
            dtype = np.dtype(_TYPES[kind])
            if prod(shape) * dtype.itemsize != n_bytes:
                raise ValueError(f"{name} of shape {shape} has {n_bytes} bytes")
            variables[name] = np.frombuffer(reader.take(n_bytes), dtype).reshape(shape)
        (n_aliases,) = reader.numbers("I")
        for _ in range(n_aliases):
            alias, name = reader.text(), reader.text()
            variables[alias] = variables[name]
    except (KeyError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise FileFormatError(f"{file.name} is no model of CTranslate2 that is understood: {error}") from error
    return variables


class _Reader:
    """Takes one thing after the other from bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def take(self, n: int) -> memoryview:
        taken = self._content[self._at : self._at + n]
        if len(taken) < n:
            raise ValueError(f"it ends after {len(self._content)} bytes, in the middle")
        self._at += n
        return taken

    def numbers(self, layout: str) -> tuple[int, ...]:
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self) -> str:
        (length,) = self.numbers("H")
        return str(self.take(length)[:-1], "utf-8")
