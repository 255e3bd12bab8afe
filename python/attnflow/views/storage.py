"""Results in files: a plain, versioned schema as JSON or npz, and pictures by suffix.

Nothing here can run code when a file is read (no pickle), floats survive exactly (JSON through ``repr``, npz as they
are), and a file appears whole or not at all: it is written beside its final name and then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import uuid
from dataclasses import fields
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ..attribution import Attribution, PairFlow
from ..errors import AttnflowError, FileFormatError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["from_dict", "load", "save", "to_dict"]

FORMAT = "attnflow.attribution"
VERSION = 4
# What each version added: older files lack it, and it has its default. 2: encoder-decoders, several predictions and
# grids. 3: shares of joint flows. 4: words and other units, and scores that are no flows.
_ADDED = {
    2: {"n_source", "sink_labels", "predictions", "link_names", "grid"},
    3: {"attribution", "standard_errors"},
    4: {"members"},
}

# What a result holds in memory alone: networks are large, and can be made again.
_NOT_STORED = {"evidence"}

# Fields that are arrays in an npz file; everything else goes into its "meta" entry, which is the JSON without them.
_ARRAYS = ("players", "values", "lower", "upper", "bottlenecks", "standard_errors")
_PAIR_ARRAYS = ("layer", "receiver", "giver", "flow", "cut")


def to_dict(result: Attribution) -> dict[str, Any]:
    """The JSON form of a result. ``summary`` repeats what is derived, for readers without this library."""
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    for field in fields(result):
        if field.name in _NOT_STORED:
            continue
        value = getattr(result, field.name)
        if field.name == "flows":
            value = None if value is None else [_pair_to_dict(pair) for pair in value]
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        elif field.name in ("timings", "options"):
            value = dict(value)
        elif isinstance(value, tuple):
            value = [list(item) if isinstance(item, tuple) else item for item in value]
        record[field.name] = value
    summary = {"position_correlation": result.position_correlation, "trivial_fraction": result.trivial_fraction}
    record["summary"] = {name: None if math.isnan(number) else number for name, number in summary.items()}
    return record


def _pair_to_dict(pair: PairFlow) -> dict[str, Any]:
    record: dict[str, Any] = {"source": int(pair.source), "sink": int(pair.sink)}
    for name in _PAIR_ARRAYS:
        array = getattr(pair, name)
        record[name] = None if array is None else array.tolist()
    return record


def from_dict(record: Any) -> Attribution:
    """Inverse of :func:`to_dict`. The constructor checks everything, so a damaged record cannot get through."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FileFormatError(f"this is no attnflow result: its format is not {FORMAT!r}")
    version = record.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise FileFormatError(
            f"this result has schema version {version!r}; this release of attnflow reads versions up to {VERSION}"
        )
    added = _NOT_STORED.union(*(names for later, names in _ADDED.items() if later > version))
    names = [field.name for field in fields(Attribution) if field.name not in added]
    missing = [name for name in names if name not in record]
    if missing:
        raise FileFormatError(f"the result lacks {', '.join(missing)}")
    try:
        state = {name: record[name] for name in names}
        if state["flows"] is not None:
            state["flows"] = tuple(PairFlow(**pair) for pair in state["flows"])
        return Attribution(**state)
    except (AttnflowError, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"the result is damaged: {error}") from error


def save(result: Attribution, path: Path, compare: tuple[Attribution, ...] = ()) -> Path:
    """Write `result` as the kind of file the suffix of `path` says; see :meth:`Attribution.save`."""
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InvalidArgumentError(
            f"cannot tell what to write from the suffix {path.suffix!r} of {str(path)!r}: "
            f"use one of {', '.join(sorted(_WRITERS))}"
        )
    if compare and path.suffix.lower() in _HOLD_ONE:
        raise InvalidArgumentError(f"a {path.suffix} file holds one result: save those to compare on their own")
    content = writer(result, compare)  # all of it, before any file is touched
    _write_atomically(path, content)
    return path


def _write_atomically(path: Path, content: bytes) -> None:
    final = path.resolve()  # through a symbolic link, so that the link stays one
    beside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with beside.open("xb") as file:
            file.write(content)
        beside.replace(final)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from None  # not the name of our scratch file
        raise


def load(path: Path) -> Attribution:
    """Read a ``.json`` or ``.npz`` file that :func:`save` wrote; see :meth:`Attribution.load`."""
    content = path.read_bytes()
    try:
        # The content tells the kinds apart, whatever the file has been renamed to.
        if content[:2] == b"PK":
            return from_dict(_from_npz(content))
        record = _from_json(content)
        result = from_dict(record)
        if record.get("checksum", sum_ := _checksum(record)) != sum_:
            raise FileFormatError(
                "the result is damaged, or was changed by hand: it is not what its checksum says. Without its checksum "
                "it is read as it is"
            )
        return result
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error.__cause__


def _from_json(content: bytes) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON number")

    try:
        return json.loads(content.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"neither a JSON nor an npz file written by attnflow: {error}") from error


def _from_npz(content: bytes) -> Any:
    try:
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            record = _from_json(archive["meta"].tobytes())
            if isinstance(record, dict):
                record |= {name: archive[name] for name in _ARRAYS if name in archive}
                for i, pair in enumerate(record.get("flows") or ()):
                    pair |= {
                        name: archive[f"flows.{i}.{name}"] for name in _PAIR_ARRAYS if f"flows.{i}.{name}" in archive
                    }
            return record
    except Exception as error:  # zipfile, zlib, struct and numpy each have errors of their own for a damaged file
        raise FileFormatError(f"the npz archive is damaged: {error}") from error


def _checksum(record: dict[str, Any]) -> str:
    """Of all that a record says, however it is laid out."""
    said = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _to_json(result: Attribution, _: tuple[Attribution, ...]) -> bytes:
    record = to_dict(result)
    record["checksum"] = _checksum(record)

    def lines(ensure_ascii: bool) -> bytes:
        # One field a line: a person can read it, and a long array does not take a line a number.
        options: dict[str, Any] = {"allow_nan": False, "ensure_ascii": ensure_ascii}
        body = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, **options)}" for k, v in record.items())
        return f"{{\n{body}\n}}\n".encode()

    try:
        return lines(ensure_ascii=False)
    except UnicodeEncodeError:  # half of a surrogate pair, as some byte-level tokens decode to, has no UTF-8
        return lines(ensure_ascii=True)


def _to_npz(result: Attribution, _: tuple[Attribution, ...]) -> bytes:
    record = to_dict(result)
    arrays = {name: part for name in _ARRAYS if (part := getattr(result, name)) is not None}
    for name in arrays:
        del record[name]
    for i, pair in enumerate(result.flows or ()):
        for name in _PAIR_ARRAYS:
            del record["flows"][i][name]
            array = getattr(pair, name)
            if array is None:
                record["flows"][i][name] = None
            else:
                arrays[f"flows.{i}.{name}"] = array
    meta = json.dumps(record, ensure_ascii=True, allow_nan=False).encode()
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, meta=np.frombuffer(meta, dtype=np.uint8), **arrays)
    return buffer.getvalue()


def _to_html(result: Attribution, compare: tuple[Attribution, ...]) -> bytes:
    from . import html

    return html.page(result, *compare).encode("utf-8", "replace")


def _to_svg(result: Attribution, compare: tuple[Attribution, ...]) -> bytes:
    from . import svg

    return svg.picture(result, *compare).encode("utf-8", "replace")


_WRITERS: dict[str, Callable[[Attribution, tuple[Attribution, ...]], bytes]] = {
    ".html": _to_html,
    ".json": _to_json,
    ".npz": _to_npz,
    ".svg": _to_svg,
}
_HOLD_ONE = (".json", ".npz")
