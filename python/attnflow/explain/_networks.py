"""From what was captured of one text to its network, with names for the links and the receptive fields."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import CaptureError, InvalidArgumentError
from ..network import Network
from ._plan import Plan
from ._reading import Reading

if TYPE_CHECKING:
    from ..capture import Contributions

__all__ = ["Matrices", "Method", "Solvable", "build", "lightened", "receptive_fields", "verify_unseen", "without_tower"]

_STACKS: tuple[Literal["encoder"], Literal["decoder"], Literal["cross"]] = ("encoder", "decoder", "cross")


@dataclass(frozen=True)
class Method:
    """How capacities are made of contributions."""

    residual: float | None = None
    calibration: Literal["excess"] | None = "excess"
    merge: Literal["sublayers", "single"] = "sublayers"
    chain: bool = False
    receptive_field: bool = False
    keep: int | None = None
    below: float | None = None

    def mixing(self, captured: Contributions) -> float:
        """The residual to mix in: by default none where the measure holds it."""
        if self.residual is None:
            return 0.0 if captured.holds_residual else 0.5
        if self.residual and captured.holds_residual:
            raise InvalidArgumentError(
                f"residual={self.residual} would count the residual twice: measure {captured.measure!r} holds it. "
                "Leave it out"
            )
        return self.residual


@dataclass(frozen=True)
class Solvable:
    """A network, its sinks as positions of its last block, and the names of its links where layers are not all."""

    network: Network
    sinks: list[list[int]]
    link_names: tuple[str, ...] | None


class Matrices:
    """The captured matrices of one text, to be drawn once: what the network has stored is not held here as well."""

    def __init__(self, captured: Contributions) -> None:
        self._held = {stack: deque(layer.matrix for layer in captured.stack(stack)) for stack in _STACKS}

    def drawn(self, *stacks: Literal["encoder", "decoder", "cross"]) -> Iterator[Any]:
        """The layers of these stacks, each forgotten when the next one is asked for."""
        for stack in stacks:
            while self._held[stack]:
                yield self._held[stack].popleft()


def without_tower(captured: Contributions) -> Contributions:
    """What a language model draws on is told over its own positions; the tower that made some of them stands before."""
    if captured.kind != "decoder":
        return captured
    return replace(captured, layers=tuple(captured.stack("decoder")))


def lightened(captured: Contributions) -> Contributions:
    """The same without the entries of its matrices, whose shapes stay."""
    return replace(captured, layers=tuple(replace(layer, matrix=layer.matrix.to("meta")) for layer in captured.layers))


def verify_unseen(captures: Sequence[Contributions], reading: Reading) -> None:
    """Assert that no position saw what was said after it: word by word, as it was generated, it could not have.

    A text may be read in both directions, and the answer behind it not.
    """
    for captured in captures:
        if not reading.said or captured.kind != "encoder":  # the networks of the others refuse it
            continue
        for layer in captured.layers:
            unsaid = layer.matrix.triu(1)[:, reading.first + 1 :].any(dim=1)
            if layer.visible is not None:  # a measure may be zero where the layer could look
                reach = layer.visible.new_tensor(range(1, len(unsaid) + 1)).clamp(min=reading.first + 1)
                unsaid = unsaid.to(reach.device) | (layer.visible > reach)
            if bool(unsaid.any()):
                raise CaptureError(
                    f"layer {layer.name!r}: position {int(unsaid.int().argmax())} sees what was said after it, so that "
                    "one pass over the answer is not how the model gave it, word by word: explain the text without "
                    "generate or continuation, or a step at a time, each with the text up to there"
                )


def build(captured: Contributions, matrices: Matrices, reading: Reading, plan: Plan, method: Method) -> Solvable:
    """The network of one text.

    Parameters
    ----------
    captured
        Its layers, whose matrices may be without entries.
    matrices
        The entries.
    """
    residual = method.mixing(captured)
    sinks = [[position - reading.n_source for position in sink] for sink in plan.sinks]
    names: tuple[str, ...] | None = None
    if captured.kind == "encoder-decoder":
        network, names = _two_stacks(captured, matrices, residual, method)
    else:
        make = Network.decoder if captured.kind == "decoder" else Network.encoder
        network = make(
            matrices.drawn("encoder", "decoder"),
            residual=residual,
            calibration=method.calibration,
            visible=[layer.visible for layer in captured.layers],
            keep=method.keep,
            below=method.below,
        )
    if plan.pooled:
        network, sinks = network.pooled(sinks[0]), [[0]]
    if method.chain:
        n = len(reading.tokens) - reading.n_source
        first = reading.first - reading.n_source
        generated = range(first + 1, n)
        if generated:
            names = names or tuple(f"layer {layer + 1}" for layer in range(len(network.links)))
            network, names = network.chained(generated), (*names, "reading what was said")
    return Solvable(network, sinks, names)


def _two_stacks(
    captured: Contributions, matrices: Matrices, residual: float, method: Method
) -> tuple[Network, tuple[str, ...]]:
    parts = {stack: captured.stack(stack) for stack in _STACKS}
    kept = [layer.kept for layer in parts["cross"]] if captured.holds_residual else None
    if kept is not None and method.merge == "single":
        raise InvalidArgumentError(
            f"merge='single' adds up two attentions and one residual, but measure {captured.measure!r} holds a "
            "residual in each: choose merge='sublayers' or another measure"
        )
    network = Network.encoder_decoder(
        *(matrices.drawn(stack) for stack in _STACKS),
        residual=residual,
        calibration=method.calibration,
        visible=[[layer.visible for layer in parts[stack]] for stack in _STACKS],
        kept=kept,
        merge=method.merge,
        keep=method.keep,
        below=method.below,
    )
    names = [f"encoder layer {layer + 1}" for layer in range(len(parts["encoder"]))]
    for layer in range(1, len(parts["decoder"]) + 1):
        names += [f"decoder layer {layer}", f"cross-attention {layer}"]
        if method.merge == "sublayers" and (residual or kept is not None):
            names.append(f"residual of cross-attention {layer}")
    assert len(names) == len(network.links)
    return network, tuple(names)


def receptive_fields(captured: Contributions, reading: Reading, plan: Plan) -> NDArray[np.float64]:
    """How many positions, up to each sink's, attend to each position in the first layer: ``(n_sinks, n_positions)``."""
    fields = np.empty((len(plan.sinks), len(reading.tokens)))
    n_source = reading.n_source if captured.kind == "encoder-decoder" else 0
    causal = captured.kind != "encoder"
    for position in range(len(reading.tokens)):
        mine = captured.stack("encoder" if not causal or position < n_source else "decoder")[0]
        n = mine.matrix.shape[-1]
        counts = None if mine.visible is None else np.asarray(mine.visible.tolist())
        if not causal or position < n_source:
            # Windows of an encoder reach as far ahead as back: a position is seen by as many as it sees.
            fields[:, position] = n if counts is None else max(1, int(counts[position]))
            continue
        at = position - n_source
        seen = _seen_by(at, n, counts)
        for row, sink in enumerate(plan.sinks):
            fields[row, position] = max(1, int(np.count_nonzero(seen[: max(sink) - n_source + 1])))
    return fields


def _seen_by(at: int, n: int, visible: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Which positions of a decoder attend to position `at`; a window reaches back from its own."""
    positions = np.arange(n)
    reach = positions + 1 if visible is None else visible
    return np.asarray((positions >= at) & (positions - reach < at))
