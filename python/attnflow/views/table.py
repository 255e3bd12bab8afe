"""A result as a table of pandas: one row a score; a column of bottlenecks where scores are flows."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from ..attribution import Attribution

__all__ = ["to_pandas"]


def to_pandas(result: Attribution) -> Any:
    """One row a score; see :meth:`Attribution.to_pandas` for the columns."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise MissingDependencyError("to_pandas() needs pandas: pip install pandas") from error
    rows = []
    for sink, target in enumerate(result.targets):
        about: dict[str, Any] = {"sink": sink}
        if result.sink_labels is not None:
            about["label"] = result.sink_labels[sink]
        if result.predictions is not None:
            about["probability"] = result.predictions[sink][1]
        about["target"] = target
        for index, row in enumerate(result.rows(sink)):
            start, end = result.offsets[row.position] or (None, None)
            part = {"part": "source" if row.position < result.n_source else "decoder"} if result.n_source else {}
            score: dict[str, Any] = {"score": row.score, "lower": row.lower, "upper": row.upper}
            if result.is_flow:
                score["bottleneck"] = row.bottleneck
            if result.standard_errors is not None:
                score["standard_error"] = float(result.standard_errors[sink, index])
            place = {"position": row.position, **_cell(result, row.position), "token": row.token}
            rows.append({**about, **part, **place, "start": start, "end": end, **score})
    whole = [name for name in ("row", "column", "frame", "start", "end") if name in rows[0]]
    return pandas.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))


def _cell(result: Attribution, position: int) -> dict[str, int | None]:
    """Where a position lies in the grid, if there is one; None outside it."""
    if result.grid is None:
        return {}
    shape = result.grid.shape
    names = {1: ("frame",), 2: ("row", "column")}.get(len(shape), ())
    at = position - result.grid.start
    if not 0 <= at < math.prod(shape):
        return dict.fromkeys(names)
    return dict(zip(names, (int(index) for index in np.unravel_index(at, shape)), strict=False))
