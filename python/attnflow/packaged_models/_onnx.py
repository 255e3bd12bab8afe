"""The weights in an ONNX file, and which operation uses each.

An ONNX file is one message of protocol buffers, a nest of numbered fields. Of all that ONNX defines, six fields are
needed to find the weights, so they are read here from the bytes and not with the package ``onnx``.

References
----------
[1] https://protobuf.dev/programming-guides/encoding
[2] https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError

Floats = NDArray[np.float32]

# Numbers of the fields, from [2].
_GRAPH = 7  # of the model
_NODE, _INITIALIZER = 1, 5  # of the graph
_INPUT, _NODE_NAME = 1, 3  # of a node
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9  # of a tensor
_FLOAT32 = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Graph(NamedTuple):
    """What is needed of a graph."""

    nodes: tuple[tuple[str, tuple[str, ...]], ...]
    """Name and inputs of each operation, in the order they run."""
    weights: dict[str, Floats]
    """The stored tensors of float32, by name."""


def read(file: Path) -> Graph:
    """The operations and the weights of an ONNX file that holds its weights in itself.

    Raises
    ------
    FileFormatError
        It is cut short, or no ONNX file.
    """
    try:
        content = memoryview(file.read_bytes())
        nodes: list[tuple[str, tuple[str, ...]]] = []
        weights: dict[str, Floats] = {}
        for graph in _chosen(content, _GRAPH):
            for number, value in _fields(graph):
                if number == _NODE:
                    nodes.append((_text(value, _NODE_NAME), tuple(_texts(value, _INPUT))))
                elif number == _INITIALIZER:
                    weights.update(_tensor(value))
    except (IndexError, TypeError, ValueError) as error:
        raise FileFormatError(f"{file.name} is no ONNX file that is understood: {error}") from error
    return Graph(tuple(nodes), weights)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an integer, or the bytes of a string, a message or a row of numbers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError(f"field {number} of {length} bytes, and {len(message) - at} left")
            yield number, message[at : at + length]
            at += length
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field {number} is of kind {kind}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, the lowest first; the highest bit says that more follow. And where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _chosen(message: int | memoryview, number: int) -> Iterator[memoryview]:
    if not isinstance(message, memoryview):
        raise TypeError("a number where a message should be")
    return (value for found, value in _fields(message) if found == number and isinstance(value, memoryview))


def _texts(message: int | memoryview, number: int) -> Iterator[str]:
    return (str(value, "utf-8") for value in _chosen(message, number))


def _text(message: int | memoryview, number: int) -> str:
    return next(_texts(message, number), "")


def _tensor(message: int | memoryview) -> dict[str, Floats]:
    """A stored tensor under its name; nothing for one of another type than float32."""
    if not isinstance(message, memoryview):
        raise TypeError("a number where a tensor should be")
    shape: list[int] = []
    kind = 0
    for number, value in _fields(message):
        if number == _DIMS and isinstance(value, int):
            shape.append(value)
        elif number == _DIMS and isinstance(value, memoryview):  # several in a row, without their field numbers
            at = 0
            while at < len(value):
                size, at = _varint(value, at)
                shape.append(size)
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
    if kind != _FLOAT32:
        return {}
    raw = b"".join(_chosen(message, _RAW_DATA))
    return {_text(message, _NAME): np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)}
