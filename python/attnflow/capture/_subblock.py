"""Residual, projection and norm around an attention, recognised from what a layer did and proved by numbers.

No architecture is known by name here. While a layer runs, the inputs and outputs of its modules are taped; when it is
done, the module that read the heads' output is its projection, and the arithmetic between the projection's output
``o``, the layer's input ``x`` and its output ``z`` says how the sub-block is built:

=============  ==================================================  ==========================
sequential     z = (x + o) + m           m: some module's output   Llama, GPT-2, Qwen, Gemma
parallel       z = x + o + m             the same equation         GPT-NeoX, Phi
alone          z = x + o                                           T5
sandwich       z = (x + N(o)) + m        N: a norm that read o     Gemma 2 and 3, OLMo 2
                                         or a scale of channels    DINOv2, BEiT
post-norm      z = M(N(x + o) + m)       N: a norm that read x+o   BERT and its kin
=============  ==================================================  ==========================

A decoder layer that attends to another sequence too has two such sub-blocks, one after the other: z = x + o1 + o2 + m,
each ``o`` possibly through a norm of its own, or a post-norm after each.

An equation that holds at every position and channel to rounding error is taken as proof; when none holds, the layer
is refused. So a residual multiplier, a gate or a norm of an unknown kind is an error and never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnflow.capture._attention import ValuedAttention, tolerance
from attnflow.capture._layers import layer_of
from attnflow.capture._state import hooked, in_this_thread
from attnflow.errors import CaptureError

__all__ = ["BatchedSubBlock", "SubBlock", "Tape", "first_tensor", "resolve", "taping"]


@dataclass
class Entry:
    """What one module of a layer read and wrote (its first tensors)."""

    module: nn.Module
    read: Tensor
    wrote: Tensor
    version: int
    """That of what it wrote, when it wrote it: something may be added to it in place."""

    def as_written(self) -> Entry:
        """The entry, with what the module wrote computed again where it was changed since."""
        if _version(self.wrote) == self.version:
            return self
        try:
            again = first_tensor(self.module(self.read))
        except (TypeError, ValueError, RuntimeError):
            return self
        return self if again is None or again.shape != self.wrote.shape else replace(self, wrote=again)


@dataclass
class Tape:
    """One run of one layer."""

    layer: nn.Module
    read: Tensor | None = None
    wrote: Tensor | None = None
    entries: list[Entry] = field(default_factory=list)
    attentions: list[Sequence[ValuedAttention]] = field(default_factory=list)  # of each text, in the order of calls


@dataclass(frozen=True)
class Norm:
    """A norm at the inputs it saw: ``norm(v)[i] = gain[i] * (v[i] - centre * mean(v[i])) * weight + bias``."""

    weight: Tensor  # (d,)
    gain: Tensor  # (n, 1)
    centre: bool

    def columns(self, vectors: Tensor) -> Tensor:
        """The part of the linear map that is the same at every position, of ``(..., d)`` vectors."""
        if self.centre:
            vectors = vectors - vectors.mean(dim=-1, keepdim=True)
        return vectors * self.weight


@dataclass(frozen=True)
class SubBlock:
    """An attention sub-block as a linear map of its heads' values and its residual, for one text.

    With p the probabilities, ``y_i = gain_i * sum_j sum_h p[h, i, j] * heads(j)[h] + residual_i`` up to biases.

    residual
        ``(n_queries, d)``: what position i keeps of itself.
    gain
        ``(n_queries, 1)``, or None where the attention part is not rescaled position by position.
    projection
        ``(H, e, d)``: from a head's value to the residual stream, through the part of a norm that is the same at every
        position.
    plain
        ``(H, e, d)``: the same without any norm, the weights of the output projection.
    """

    residual: Tensor
    gain: Tensor | None
    projection: Tensor
    plain: Tensor
    attention: ValuedAttention

    def written(self, start: int, stop: int) -> Tensor:
        """``(H, stop - start, d)``: what each head would write of each of these keys, before any norm."""
        return torch.matmul(self._values(start, stop), self.plain)

    def _values(self, start: int, stop: int) -> Tensor:
        return self.attention.value[:, start:stop].repeat_interleave(self.attention.groups, dim=0)

    def heads(self, start: int, stop: int) -> Tensor:
        """``(H, stop - start, d)``: what each head would write of each of these keys."""
        return torch.matmul(self._values(start, stop), self.projection)

    def mixed(self, probabilities: Tensor) -> Tensor:
        """``(rows, d)``: the attention part of the output for a block of queries, before ``gain``."""
        return torch.einsum("hre,hed->rd", self.attention.mix(probabilities), self.projection)


@dataclass(frozen=True)
class BatchedSubBlock:
    """The sub-block of every text of a batch, their positions one below the other."""

    residual: Tensor  # (batch * n_queries, d)
    gain: Tensor | None  # (batch * n_queries, 1)
    projection: Tensor
    plain: Tensor
    attentions: Sequence[ValuedAttention]

    def of_text(self, text: int) -> SubBlock:
        """One text's."""
        n = self.attentions[text].n_queries
        rows = slice(text * n, (text + 1) * n)
        gain = None if self.gain is None else self.gain[rows]
        return SubBlock(self.residual[rows], gain, self.projection, self.plain, self.attentions[text])


@contextmanager
def taping(model: nn.Module, attentions: Iterable[str], done: Callable[[str, Tape], None]) -> Iterator[dict[str, Tape]]:
    """Tape every layer around one of these attentions, and call ``done(layer_name, tape)`` when it has run.

    Yields the tapes that are running, by the name of their layer.
    """
    running: dict[str, Tape] = {}
    layers = {layer_of(model, name) for name in attentions}

    def begin(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            running[name] = Tape(layer, first_tensor((*args, *kwargs.values())))

        return hook

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            read, wrote = first_tensor((*args, *kwargs.values())), first_tensor(output)
            if name in running and read is not None and wrote is not None:
                running[name].entries.append(Entry(module, read, wrote, _version(wrote)))

        return hook

    def end(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, ___: Any, output: Any) -> None:
            tape = running.pop(name)
            tape.wrote = first_tensor(output)
            done(name, tape)

        return hook

    def registered() -> Iterator[RemovableHandle]:
        for name in sorted(filter(None, layers)):
            layer = model.get_submodule(name)
            yield layer.register_forward_pre_hook(in_this_thread(begin(name)), with_kwargs=True)
            for inner in layer.modules():
                if inner is not layer:
                    yield inner.register_forward_hook(in_this_thread(note(name)), with_kwargs=True)
            yield layer.register_forward_hook(in_this_thread(end(name)), with_kwargs=True)

    with hooked(registered()):
        yield running


def resolve(layer: str, tape: Tape) -> list[BatchedSubBlock]:
    """Recognise the sub-blocks of a layer that has run, one an attention, and prove them.

    Raises
    ------
    CaptureError
        If no known structure explains the layer's numbers; the layer is named.
    """
    first = tape.attentions[0][0]
    n = first.n_queries * len(tape.attentions[0])
    reasons = _Reasons()
    if len(tape.attentions) > 2:
        reasons.say(f"it computed {len(tape.attentions)} attentions in one run")
    elif all(attentions[0].n_queries == first.n_queries for attentions in tape.attentions):
        readers = [list(_readers(tape, attentions)) for attentions in tape.attentions]
        # What a module that reads the heads makes inside is part of the attention: an adapter is no feed-forward.
        inside = {module for entries in readers for entry in entries for module in entry.module.modules()}
        for projected in product(
            *(_projections(*one, n, reasons) for one in zip(readers, tape.attentions, strict=True))
        ):
            d = projected[0].wrote.shape[-1]
            if any(one.wrote.shape[-1] != d for one in projected):
                continue  # an adapter's first half reads the heads' output as well
            if tape.read is None or tape.wrote is None or tape.read.numel() != n * d or tape.wrote.numel() != n * d:
                shapes = [None if t is None else tuple(t.shape) for t in (tape.read, tape.wrote)]
                reasons.say(f"it reads {shapes[0]} and writes {shapes[1]}: not one residual stream")
                continue
            x, z = (t.reshape(n, d).to(first.dtype) for t in (tape.read, tape.wrote))
            entries = [
                (entry.module, entry.read.reshape(n, -1).to(first.dtype), entry.wrote.reshape(n, d).to(first.dtype))
                for entry in map(Entry.as_written, tape.entries)
                if entry.wrote.numel() == n * d and entry.wrote.shape[-1] == d and entry.read.numel() % n == 0
            ]
            # Under autocast a float32 stream adds up what was rounded to half precision.
            coarsest = max((tape.wrote.dtype, first.model_dtype), key=lambda dtype: torch.finfo(dtype).eps)
            rest = [[wrote] for module, _, wrote in entries if module not in inside]
            own = [p.detach().to(x) for p in tape.layer.parameters(recurse=False) if p.shape == (d,) and not p.is_meta]
            scales = [Norm(vector, torch.ones_like(x[:, :1]), False) for vector in own]
            found = _structure(x, [one.wrote for one in projected], z, entries, rest, scales, _Equality(coarsest))
            if found is not None:
                return [
                    _sub_block(part, one.matrix, attentions)
                    for part, one, attentions in zip(found, projected, tape.attentions, strict=True)
                ]
            reasons.say("its output is not the sum of its input, its attention and its feed-forward in any known way")
    raise CaptureError(
        f"layer {layer!r}: this measure cannot follow its architecture: {reasons.last}. Use measure='attention'"
    )


class _Reasons:
    """Why a layer was not recognised: the last obstacle, which is the one that was met furthest on."""

    def __init__(self) -> None:
        self.last = "no module read the heads' output as it was"

    def say(self, reason: str) -> None:
        self.last = reason


@dataclass(frozen=True)
class _Projected:
    """An output projection that was found: its matrix (H, e, d), and what it wrote, (batch * n, d)."""

    matrix: Tensor
    wrote: Tensor


@dataclass(frozen=True)
class _Part:
    """One attention's place in a layer: the stream before it (n, d), and the norm that stands behind it, if any."""

    stream: Tensor
    norm: Norm | None
    post: bool  # whether the norm is of the sum with the stream


def _sub_block(part: _Part, projection: Tensor, attentions: Sequence[ValuedAttention]) -> BatchedSubBlock:
    residual, gain, through = part.stream, None, projection
    if part.norm is not None:
        through = part.norm.columns(projection)
        if part.post:
            # A norm over the whole sum scales every T_i(x_j) of a row alike, which cancels in the contributions.
            residual = part.norm.columns(residual)
        else:
            gain = part.norm.gain
    return BatchedSubBlock(residual, gain, through, projection, attentions)


def _projections(
    readers: Sequence[Entry], attentions: Sequence[ValuedAttention], n: int, reasons: _Reasons
) -> list[_Projected]:
    """The modules that may be an attention's output projection, innermost first."""
    found = []
    for entry in readers:
        d = entry.wrote.shape[-1]
        if entry.wrote.numel() != n * d:
            continue
        wrote = entry.wrote.reshape(n, d).to(attentions[0].dtype)
        matrix = _linear_part(entry.module, attentions[0], d)
        if matrix is None or not _is_linear_output(attentions, matrix, entry.module, wrote):
            reasons.say(f"its output projection {type(entry.module).__name__} is not linear in the heads' output")
            continue
        found.append(_Projected(matrix, wrote))
    return found


class _Equality:
    """Equality of two (n, d) tensors up to the rounding of the model's precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.relative = dtype, tolerance(dtype)
        # One half of eps for each of a few additions. Norms round to float32 inside, also in float64 models.
        self.rounding = max(2 * torch.finfo(dtype).eps, 8 * torch.finfo(torch.float32).eps)

    def __call__(self, got: Tensor, part: Tensor, *terms: Tensor) -> bool:
        """Whether ``got == part + sum(terms)``, judged on the scale of ``part``.

        Residual streams hold channels thousands of times larger than what a sub-block adds. Judged on the scale of
        the sum, anything would be equal; so the other terms only earn the rounding error of one addition.
        """
        error = got - part
        slack = self.relative * part.abs().amax(dim=-1, keepdim=True) + self.rounding * (got.abs() + part.abs())
        for term in terms:
            error = error - term
            slack = slack + self.rounding * term.abs()
        return bool((error.abs() <= slack).all())


def _structure(
    x: Tensor,
    written: Sequence[Tensor],
    z: Tensor,
    entries: list[tuple[nn.Module, Tensor, Tensor]],
    rest: list[list[Tensor]],
    scales: list[Norm],
    equal: _Equality,
) -> list[_Part] | None:
    """The line of the table above that holds: a part for each attention, whose projection has `written` it.

    `rest` is what may be ``m``, and `entries` what may be a norm; `scales` of channels are the layer's own.
    """
    # Sums, each attention as it was written or through a norm of its own.
    ways: list[list[tuple[Tensor, Norm | None]]] = [[(o, None)] for o in written]
    for normed in (False, True):
        if normed:
            for way, o in zip(ways, written, strict=True):
                way.extend(_normed(o, entries, equal))
                way.extend((scale.columns(o), scale) for scale in scales)
        for parts in product(*ways):
            if normed and all(norm is None for _, norm in parts):
                continue
            added = [wrote for wrote, _ in parts]
            if any(_is_sum(z, x, added, m, equal) for m in (*rest, [])):
                before = [x + sum(added[:index]) if index else x for index in range(len(added))]
                return [_Part(stream, norm, post=False) for stream, (_, norm) in zip(before, parts, strict=True)]

    # A norm after each sum.
    stream, chain = x, []
    for o in written:
        step = next(_post_norms(stream, o, entries, equal), None)
        if step is None:
            return None
        norm, after = step
        chain.append(_Part(stream, norm, post=True))
        stream = after
    for _, last, wrote in entries:
        if last.shape == z.shape and equal(wrote, z) and any(equal(last, stream, *m) for m in rest):
            return chain
    return None


def _is_sum(z: Tensor, x: Tensor, added: Sequence[Tensor], rest: Sequence[Tensor], equal: _Equality) -> bool:
    """Whether ``z == x + sum(added) + sum(rest)``, on the scale of each of `added`."""
    return all(equal(z, part, x, *(other for other in added if other is not part), *rest) for part in added)


def _normed(
    o: Tensor, entries: list[tuple[nn.Module, Tensor, Tensor]], equal: _Equality
) -> Iterator[tuple[Tensor, Norm | None]]:
    """What norms made of an attention's output."""
    for module, read, wrote in entries:
        if read.shape == o.shape and equal(read, o):
            norm = _norm(module, read, wrote, equal)
            if norm is not None:
                yield wrote, norm


def _post_norms(
    stream: Tensor, o: Tensor, entries: list[tuple[nn.Module, Tensor, Tensor]], equal: _Equality
) -> Iterator[tuple[Norm, Tensor]]:
    """Norms of the sum of an attention's output and the stream, and what they wrote."""
    for module, read, wrote in entries:
        if read.shape == o.shape and equal(read, o, stream):
            norm = _norm(module, read, wrote, equal)
            if norm is not None:
                yield norm, wrote


def _norm(module: nn.Module, read: Tensor, wrote: Tensor, equal: _Equality) -> Norm | None:
    """A layer norm, a root-mean-square norm or a scale of channels in linear form, if that is what the module did."""
    d, unit = read.shape[-1], torch.ones_like(read[0])
    names = ("eps", "variance_epsilon", "epsilon")
    eps = next((float(e) for e in (getattr(module, name, None) for name in names) if isinstance(e, float)), 0.0)
    vectors = [parameter for parameter in module.parameters(recurse=False) if parameter.shape == (d,)]
    if any(vector.is_meta for vector in vectors):
        asked = _asked(module, d, read.device, equal.dtype)
        if asked is None:
            return None
        answer, bias = (vector.to(unit) for vector in asked)
        scales, factors = [answer], [answer * (1 + eps) ** 0.5]
    else:
        scales = [vector.detach().to(unit) for vector in vectors]
        own: list[Any] = [getattr(module, name, None) for name in ("weight", "bias")]
        weight, bias = (default if v is None else v for v, default in zip(own, (unit, 0 * unit), strict=True))
        if not isinstance(weight, Tensor) or weight.shape != (d,):
            return None
        weight, bias = weight.to(unit), bias.to(unit)
        factors = [weight, 1 + weight]  # Gemma keeps its weights around zero
    for vector in scales:
        scale = Norm(vector, torch.ones_like(read[:, :1]), False)
        if equal(wrote, scale.columns(read)):
            return scale
    for centre in (True, False):
        centred = read - read.mean(dim=-1, keepdim=True) if centre else read
        gain = torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
        for factor in factors:
            norm = Norm(factor, gain, centre)
            if equal(wrote, gain * norm.columns(read) + bias):
                return norm
    return None


def _asked(module: nn.Module, d: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """What a norm whose weights are offloaded makes of each channel, and what it adds: read off its answers.

    It is asked for zero, and for a row of mean zero and mean square one, which a norm leaves as it is.
    """
    row = torch.ones(d, device=device)
    row[::2] = -1
    row -= row.mean()
    row /= row.square().mean().sqrt()
    try:
        added, answer = module(torch.stack([torch.zeros_like(row), row])[None].to(dtype))[0].to(row.dtype)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    return ((answer - added) / row, added) if added.shape == row.shape else None


def _readers(tape: Tape, attentions: Sequence[ValuedAttention]) -> Iterator[Entry]:
    """Entries that read the heads' output unchanged, innermost first.

    Recognised by the memory it lies in, or, where a copy was made, by its numbers.
    """
    first = attentions[0].output
    for entry in tape.entries:
        if entry.read.numel() != first.numel() * len(attentions):
            continue
        texts = entry.read.reshape(len(attentions), -1)
        if entry.read.data_ptr() == first.data_ptr() or (
            entry.read.device == first.device
            and all(torch.equal(text, a.output.reshape(-1)) for text, a in zip(texts, attentions, strict=True))
        ):
            yield entry


def _linear_part(module: nn.Module, attention: ValuedAttention, d: int) -> Tensor | None:
    """``(H, e, d)``: the matrix of a projection, one head at a time.

    Plain weights are read. Anything else (quantised, adapted, offloaded) is asked: the module's answers to unit
    inputs, minus its answer to zero.
    """
    heads, e = attention.n_heads, attention.value.shape[-1]
    weight = getattr(module, "weight", None)
    matrix: Tensor | None = None
    if isinstance(weight, Tensor) and not weight.is_meta and weight.dtype.is_floating_point:
        if type(module) is nn.Linear:
            matrix = weight.T
        elif type(module).__name__ == "Conv1D" and weight.shape == (heads * e, d):
            matrix = weight
    if matrix is None:
        try:
            zero = torch.zeros(1, 1, heads * e, dtype=attention.model_dtype, device=attention.device)
            units = torch.eye(heads * e, dtype=attention.model_dtype, device=attention.device)[None]
            matrix = (module(units).to(attention.dtype) - module(zero).to(attention.dtype))[0]
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return None
    if matrix.shape != (heads * e, d):
        return None
    return matrix.to(device=attention.device, dtype=attention.dtype).reshape(heads, e, d)


def _is_linear_output(attentions: Sequence[ValuedAttention], projection: Tensor, module: nn.Module, o: Tensor) -> bool:
    """Whether the projection's output is this matrix times its input, plus one constant row (its bias)."""
    flat = torch.cat([a.output.reshape(a.n_queries, -1).to(a.dtype) for a in attentions])
    with torch.autocast(o.device.type, enabled=False):  # the user's own is for the model
        rest = o - torch.matmul(flat, projection.reshape(flat.shape[1], -1))
    bias = getattr(module, "bias", None)
    constant = bias.to(rest.dtype) if isinstance(bias, Tensor) and not bias.is_meta else rest.mean(dim=0)
    scale = o.abs().amax(dim=-1, keepdim=True) + torch.finfo(o.dtype).tiny
    # Quantised modules compute in less than the model's precision, some round what they read to eight bits as well.
    weight = getattr(module, "weight", None)
    quantised = isinstance(weight, Tensor) and not weight.dtype.is_floating_point
    limit = tolerance(torch.bfloat16 if quantised else attentions[0].model_dtype)
    return bool(((rest - constant).abs() <= limit * scale).all())


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place, where that is counted."""
    return 0 if tensor.is_inference() else tensor._version


def first_tensor(values: Any) -> Tensor | None:
    """The first floating point tensor among the arguments or results of a module."""
    if isinstance(values, Tensor):
        return values if values.dtype.is_floating_point else None
    if isinstance(values, tuple | list):
        for value in values:
            if isinstance(value, Tensor) and value.dtype.is_floating_point:
                return value
    return None
