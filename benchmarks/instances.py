"""What is benchmarked: the attention of two trained models on a long text, kept in ``.cache`` once captured.

Attention that was made up is an easy case, and says nothing; random softmax attention is the easiest. So every figure
is taken on what SmolLM2-135M (30 layers, causal) and MiniLM (6 layers, every position sees every other) do with the
text in ``text.txt``: head mean, residual 0.5, as it is ("plain") and calibrated ("excess"), or without a residual
("raw").
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALL", "Case", "Instance", "load", "quantised"]

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("ATTNFLOW_CACHE", ROOT / ".cache")) / "benchmarks"
TEXT = Path(__file__).with_name("text.txt")

Model = Literal["SmolLM2", "MiniLM"]
Calibration = Literal["none", "excess"]
Floats = NDArray[np.float32]


class Case(NamedTuple):
    """Which attention, how long a text, which capacities, which sink."""

    model: Model
    n: int
    calibration: Calibration
    sink: int
    residual: float = 0.5

    @property
    def name(self) -> str:
        """Short, unique and readable: the benchmarks' group."""
        kind = "excess" if self.calibration == "excess" else "raw" if self.residual == 0 else "plain"
        return f"{self.model} n={self.n} {kind} sink={self.sink}"


class Instance(NamedTuple):
    """The same network twice: floats for attnflow, integers for the peers; ``floats * 2**exponent == integers``."""

    case: Case
    floats: Floats
    integers: NDArray[np.int64]
    exponent: int

    @property
    def edges(self) -> int:
        """Edges that carry anything."""
        return int(np.count_nonzero(self.integers))


LENGTHS: dict[Model, tuple[int, ...]] = {"SmolLM2": (128, 512), "MiniLM": (128, 256, 512)}
CALIBRATIONS: tuple[Calibration, ...] = ("none", "excess")
ALL = (
    *(
        Case(model, n, calibration, sink)
        for model, lengths in LENGTHS.items()
        for n in lengths
        for calibration in CALIBRATIONS
        # The last position predicts the next token; an encoder's class token is the first, and a position in the middle
        # of the text is the other kind of sink there is.
        for sink in ((n - 1,) if model == "SmolLM2" else (0, n // 2))
    ),
    Case("SmolLM2", 512, "none", 511, residual=0.0),  # attention as it is: no residual stream to lean on
    Case("SmolLM2", 1024, "none", 1023),
)


def load(case: Case) -> Instance:
    """Capacities of `case`, from the cache or from the model."""
    capacities = (1 - case.residual) * attention(case.model, case.n) + case.residual * np.eye(case.n, dtype=np.float32)
    if case.calibration == "excess":
        capacities = excess(capacities, causal=case.model == "SmolLM2")
    integers, exponent = quantised(capacities)
    return Instance(case, np.ldexp(integers.astype(np.float32), -exponent), integers, exponent)


def quantised(capacities: Floats) -> tuple[NDArray[np.int64], int]:
    """Integers that every peer is exact on, ``floor(capacities * 2**exponent)``.

    The narrowest peer computes in 32 bits, so the exponent is the largest one at which neither any capacity nor what
    can arrive at any node reaches 2**31. What is left of 24-bit float32 capacities is float32 again without rounding,
    so attnflow gets the very same network.
    """
    largest = float(max(capacities.sum(axis=2, dtype=np.float64).max(), capacities.max()))
    exponent = 30 - int(np.floor(np.log2(largest)))
    exponent -= float(largest) * 2.0**exponent >= 2**31 - 1
    integers = np.floor(np.ldexp(capacities.astype(np.float64), exponent)).astype(np.int64)
    assert np.array_equal(integers.astype(np.float32).astype(np.int64), integers)
    return integers, exponent


def excess(capacities: Floats, *, causal: bool) -> Floats:
    """What a layer passes on beyond an even spread of its row sums over the positions it can see."""
    _, n, _ = capacities.shape
    visible = np.tri(n, dtype=np.float32) if causal else np.ones((n, n), dtype=np.float32)
    even = capacities.sum(axis=2, keepdims=True) * (visible / visible.sum(axis=1, keepdims=True))
    calibrated: Floats = np.maximum(capacities - even, 0, dtype=np.float32)
    return calibrated


def attention(model: Model, n: int) -> Floats:
    """Head-mean attention ``(layers, n, n)`` on the first `n` tokens of the text."""
    file = CACHE / f"{model}-{n}.npy"
    if not file.exists():
        matrices = capture(model, n)
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npy")
        np.save(partial, matrices)
        partial.replace(file)
    stored: Floats = np.load(file)
    return stored


def capture(model: Model, n: int) -> Floats:
    """One forward pass of transformers' own eager attention: nothing of attnflow is in the benchmark's input."""
    import torch

    from packaged_models import load_minilm, load_smollm2

    network, tokenizer = load_smollm2(CACHE.parent) if model == "SmolLM2" else load_minilm()
    tokens: list[int] = tokenizer(TEXT.read_text(), add_special_tokens=False, truncation=True, max_length=n)[
        "input_ids"
    ]
    before, after = (
        ([tokenizer.bos_token_id], []) if model == "SmolLM2" else ([tokenizer.cls_token_id], [tokenizer.sep_token_id])
    )
    body = tokens[: n - len(before) - len(after)]
    input_ids = torch.tensor([before + body + after])
    if input_ids.shape[1] != n:
        raise ValueError(f"{TEXT.name} has {len(tokens)} tokens in {model}, fewer than the {n} asked for")
    network.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions: Iterable[Any] = network(input_ids, output_attentions=True).attentions
    return np.stack([matrix[0].float().mean(dim=0).numpy() for matrix in attentions])
