"""Captured attention against the eager reference: the largest difference, and what is missing."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eager_reference import Reference

__all__ = ["compare"]

_WANTED = {
    "encoder": ("encoder", "self", "other"),
    "decoder": ("decoder", "self", "other"),
    "cross": ("cross", "other"),
}


def compare(captured: Any, eager: Reference, inputs: dict[str, Any]) -> tuple[float, str, str]:
    """The largest difference, what it was checked against, and what is wrong beyond numbers ("" if nothing).

    Each captured list is held against the returned one of its kind. Where the model returned none, or another number
    of layers, each matrix must be one of the softmaxes seen in the eager pass.
    """
    lists = {kind: layers for kind in _WANTED if (layers := list(getattr(captured, kind)))}
    if not lists:
        return math.inf, "", "nothing was captured, and no error raised"
    worst, checked, used = 0.0, "returned", set()
    for kind, layers in lists.items():
        if any(layer.ndim != 3 or not bool(torch.isfinite(layer).all()) for layer in layers):
            return math.inf, checked, f"{kind}: not finite matrices (batch, queries, keys)"
        rows = _real_rows(kind, layers[0], inputs)
        names = [name for want in _WANTED[kind] for name in eager.returned if eager.kind(name) == want]
        errors = {name: _distance(layers, eager.returned[name], rows) for name in names if name not in used}
        best = min(errors, key=lambda name: errors[name], default=None)
        if best is not None and errors[best] > 1e-3 and len(eager.applied) == len(layers):
            errors[best] = _distance(layers, eager.applied, rows)
            checked = "applied"
        if best is not None and errors[best] < math.inf:
            used.add(best)
            worst = max(worst, errors[best])
            continue
        checked = "softmaxes"
        for number, layer in enumerate(layers):
            seen = [_distance([layer], [softmax], rows) for softmax in eager.softmaxes]
            error = min(seen, default=math.inf)
            if error == math.inf:
                shape = tuple(layer.shape)
                return (
                    math.inf,
                    checked,
                    f"{kind} layer {number}: no softmax of shape {shape} was seen in the eager pass",
                )
            worst = max(worst, error)
    # What eager returned and capture did not, or not all of it.
    for name, layers in eager.returned.items():
        kind = eager.kind(name)
        counterparts = [kind] if kind in _WANTED else ["encoder", "decoder"] if kind == "self" else []
        if counterparts and max(len(lists.get(part, [])) for part in counterparts) < len(layers):
            return worst, checked, f"eager returned {len(layers)} {name}, captured: " + _counts(lists)
    return worst, checked, ""


def _counts(lists: dict[str, list[Tensor]]) -> str:
    return ", ".join(f"{kind} {len(layers)}" for kind, layers in lists.items())


def _real_rows(kind: str, layer: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Which queries are no padding: the attention of the others means nothing."""
    batch, n, _ = layer.shape
    names = ["attention_mask"] if kind == "encoder" else ["decoder_attention_mask", "attention_mask"]
    if kind != "encoder" and "decoder_input_ids" in inputs:
        names = names[:1]
    for name in names:
        mask = inputs.get(name)
        if isinstance(mask, Tensor) and mask.shape == (batch, n):
            return mask.bool()
    return torch.ones(batch, n, dtype=torch.bool)


def _distance(captured: list[Tensor], returned: list[Tensor], rows: Tensor) -> float:
    """The largest difference of two lists of matrices, infinite if they do not have the same shapes."""
    if [layer.shape for layer in captured] != [layer.shape for layer in returned]:
        return math.inf
    worst = 0.0
    for ours, theirs in zip(captured, returned, strict=True):
        error = (ours.float() - theirs).abs()
        error = error[rows] if rows.shape == error.shape[:2] else error
        worst = max(worst, float(error.max()) if error.numel() else 0.0)
    return worst if worst == worst else math.inf
