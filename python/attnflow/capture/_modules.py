"""Any torch module at all: its attention modules named by the caller, their weights read as they run.

Where a model does not speak transformers' language, nobody can tell its attention modules from others, nor what their
weights are; so both are told, and what is told is checked: every module reports as often as it was named, with rows
that are probabilities. ``torch.nn.MultiheadAttention`` is recognised, and made to compute its weights even where the
layer around it asks for none or would go round it altogether.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnflow.capture import _state
from attnflow.capture._attention import GivenAttention, tolerance
from attnflow.capture._layers import Stack
from attnflow.capture._result import Contributions, Layer
from attnflow.capture._run import Progress, verify_shapes
from attnflow.capture.measures._raw import RawAttention
from attnflow.errors import CaptureError, InvalidArgumentError

__all__ = ["from_modules"]

Names = str | re.Pattern[str] | Sequence[str] | Callable[[str, nn.Module], object]
Weights = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Tensor]

_STACKS = ("encoder", "decoder", "cross")


def from_modules(
    model: nn.Module,
    names: Names,
    inputs: Any,
    *,
    weights: Weights | None = None,
    heads: str | int | Sequence[float] = "mean",
    stack: Stack | Mapping[str, Stack] | None = None,
    progress: Progress | None = None,
) -> Contributions:
    r"""Run any torch module once and return the attention of the modules that are named, their heads reduced to one.

    The model runs in evaluation mode, without gradients, and is left exactly as it was found, also after an error.

    Parameters
    ----------
    model : torch.nn.Module
        Any, on any device; transformers need not know it.
    names : sequence of str, str, re.Pattern, or callable
        Its attention modules, as ``model.named_modules()`` calls them: a list of them all; a regular expression that
        matches their whole names; or a function of name and module that is true of them. In a list, a module that runs
        several times is named as often. Layers come out in the order in which the modules run.
    inputs
        What the model is run on, as it wants it and where it wants it: a mapping of keyword arguments, a tuple of
        positional ones, or the only argument; or a function that runs it, ``inputs(model)``.
    weights : callable, optional
        ``weights(module, args, kwargs, output)``, called after each of the modules with what it read and returned,
        gives its attention: probabilities ``(batch, heads, queries, keys)``, or ``(batch, queries, keys)`` where there
        are no heads or they are reduced. None: ``torch.nn.MultiheadAttention`` is asked for its weights, and of any
        other module the one tensor of probabilities, of such a shape, that it returns or is among what it returns.
    heads : {"mean", "max", "min"}, int or sequence of float
        How the heads are reduced: by name, to one head, or with a weight a head.
    stack : {"encoder", "decoder", "cross"}, or mapping of str to these, optional
        What the modules belong to, all of them or by name; keys are names or regular expressions that match whole
        names. None: they are one stack, a decoder if no position of any layer draws from a later one, else an encoder.
    progress : callable, optional
        ``progress(done, total)`` is called after every module. An exception raised in it ends the capture.

    Returns
    -------
    Contributions
        ``path`` is "modules"; ``visible`` of its layers is None, for weights do not tell. What is padding is not known
        either: run texts of different lengths one by one.

    Raises
    ------
    InvalidArgumentError
        `model` is no module; `names` names a module that is not there, or none; `stack` leaves one out; an option is
        none of those above.
    CaptureError
        A module did not run, or not as often as it was named; its weights were not recognised, or are no
        probabilities; queries attend to other keys and `stack` does not say so; positions change from layer to layer.
        The message names the module.

    Notes
    -----
    While the model runs, ``torch.nn.MultiheadAttention`` is called with ``need_weights=True`` and
    ``average_attn_weights=False``; its callers get what they asked for. PyTorch's fast path, on which
    ``torch.nn.TransformerEncoderLayer`` does not call its attention at all, is off.

    A module that uses ``scaled_dot_product_attention`` has no weights to return: give `weights` that computes them from
    what the module read, or make it compute its softmax itself (timm: ``fused_attn=False``, and name ``attn_drop``).

    Examples
    --------
    >>> import torch
    >>> import attnflow
    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> model = torch.nn.TransformerEncoder(layer, 3)
    >>> result = attnflow.capture.from_modules(model, r"layers\.\d+\.self_attn", torch.randn(1, 5, 8))
    >>> result.kind, result.layer_names[0], [tuple(matrix.shape) for matrix in result.encoder]
    ('encoder', 'layers.0.self_attn', [(1, 5, 5), (1, 5, 5), (1, 5, 5)])
    >>> attnflow.Network.encoder(result.encoder, residual=0.5).n_layers
    3
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch module, got {type(model).__name__}")
    if weights is not None and not callable(weights):
        raise InvalidArgumentError(f"weights must be a function of (module, args, kwargs, output), got {weights!r}")
    if progress is not None and not callable(progress):
        raise InvalidArgumentError(f"progress must be a function of (done, total), got {progress!r}")
    measure = RawAttention(heads)
    wanted = _chosen(model, names)
    stacks = _stacks(stack, [name for of_module in wanted.values() for name in of_module])
    run = _Run(wanted, weights, measure, progress)
    with _state.evaluation(model), _forced(wanted), run.listening():
        outputs = _forward(model, inputs)
    layers = run.layers(stacks)
    logits = getattr(outputs, "logits", None)
    return Contributions(
        layers=layers,
        measure=measure.name,
        holds_residual=measure.holds_residual,
        path="modules",
        logits=logits.detach().float() if isinstance(logits, Tensor) else None,
    )


def _forward(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return inputs(model) if callable(inputs) else model(inputs)


# ---- what is asked for -----------------------------------------------------------------------------------------------


def _chosen(model: nn.Module, names: Any) -> dict[nn.Module, list[str]]:
    """The modules to look at, each with a name for every time that it is to run."""
    if isinstance(names, (str, re.Pattern)):
        matches = _pattern(names, "names").fullmatch
        found = {module: [name] for name, module in model.named_modules() if matches(name)}
        what = f"names={getattr(names, 'pattern', names)!r} matches"
    elif callable(names):
        found = {module: [name] for name, module in model.named_modules() if names(name, module)}
        what = "names, a function, is true of"
    else:
        found, what = _listed(model, names), "names, a sequence, holds"
    if not found:
        known = [name for name, _ in model.named_modules() if name]
        shown = f"{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" or "no modules inside"
        raise InvalidArgumentError(f"{what} no module of {type(model).__name__}, which has {shown}")
    return found


def _listed(model: nn.Module, names: Any) -> dict[nn.Module, list[str]]:
    known = dict(model.named_modules(remove_duplicate=False))
    found: dict[nn.Module, list[str]] = {}
    try:
        given = list(names)
    except TypeError:
        raise InvalidArgumentError(
            f"names must be a sequence of modules' names, a regular expression or a function, got {names!r}"
        ) from None
    for index, name in enumerate(given):
        if not isinstance(name, str) or name not in known:
            close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
            hint = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise InvalidArgumentError(f"names[{index}] is {name!r}, no module of {type(model).__name__}{hint}")
        found.setdefault(known[name], []).append(name)
    for called in found.values():
        if len(called) > 1:
            called[:] = [f"{name}#{index}" for index, name in enumerate(called)]
    return found


def _stacks(given: Any, names: Sequence[str]) -> dict[str, Stack] | None:
    """The stack of every name, or None where the matrices are to tell."""
    if given is None:
        return None
    rule = 'stack must be "encoder", "decoder" or "cross", or a mapping of modules\' names to these'
    if isinstance(given, str) and given in _STACKS:
        return dict.fromkeys(names, given)  # type: ignore[arg-type]
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{rule}, got {given!r}")
    for key, stack in given.items():
        if not isinstance(key, str) or stack not in _STACKS:
            raise InvalidArgumentError(f"{rule}: it holds {key!r}: {stack!r}")
    patterns = {key: _pattern(key, "a key of stack") for key in given}
    made: dict[str, Stack] = {}
    for name in names:
        plain = _plain(name)
        own = [plain] if plain in given else [key for key, pattern in patterns.items() if pattern.fullmatch(plain)]
        said = {given[key] for key in own}
        if len(said) != 1:
            held = f"matches {' and '.join(map(repr, own))}, which differ" if own else "is in none of its keys"
            raise InvalidArgumentError(f"stack does not say what {plain!r} belongs to: it {held}")
        made[name] = said.pop()
    return made


def _plain(name: str) -> str:
    """Without what tells the runs of one module apart."""
    return re.sub(r"#\d+$", "", name)


def _pattern(given: str | re.Pattern[str], what: str) -> re.Pattern[str]:
    try:
        return re.compile(given)
    except re.error as error:
        raise InvalidArgumentError(f"{what} is {given!r}, no regular expression: {error}") from None


# ---- the run ---------------------------------------------------------------------------------------------------------


class _Run:
    """What the modules reported so far."""

    def __init__(
        self,
        wanted: dict[nn.Module, list[str]],
        weights: Weights | None,
        measure: RawAttention,
        progress: Progress | None,
    ) -> None:
        self.wanted, self.weights, self.measure, self.progress = wanted, weights, measure, progress
        self.total = sum(map(len, wanted.values()))
        self.ran: Counter[nn.Module] = Counter()
        self.reports: list[tuple[str, Tensor]] = []
        self.crossing: list[str] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have every module report after it has run."""
        here = _state.in_this_thread(self._hook)
        # After hooks of others, which may change what the module hands on; but before what _forced undoes.
        first = {module: _gives_weights(module) for module in self.wanted}
        with _state.hooked(
            module.register_forward_hook(here, with_kwargs=True, prepend=first[module]) for module in self.wanted
        ):
            yield

    def _hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        names, turn = self.wanted[module], self.ran[module]
        if turn < len(names):  # else said at the end, when it is known how often
            self._report(names[turn], module, args, kwargs, output)
        self.ran[module] += 1

    def _report(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.weights is None:
            given = _recognised(name, module, output)
        else:
            given = self.weights(module, args, kwargs, output)
        attention = _checked(name, given)
        if _gives_weights(module) and not _same_sequence(module, args, kwargs):
            self.crossing.append(name)
        block_bytes = 1 << 20 if attention.device.type == "cpu" else 1 << 26
        texts = [self.measure.matrix(GivenAttention(name, one, block_bytes), None) for one in attention]
        self.reports.append((name, torch.stack(texts)))
        if self.progress is not None:
            self.progress(len(self.reports), self.total)

    def layers(self, stacks: dict[str, Stack] | None) -> tuple[Layer, ...]:
        """The reports, found to be complete and of one batch, each in its stack."""
        for module, names in self.wanted.items():
            plain, times = _plain(names[0]), self.ran[module]
            if times == 0:
                raise CaptureError(
                    f"module {plain!r} was named, but did not run: this model does not use it on these inputs, or what"
                    " contains it goes round it"
                )
            if times != len(names):
                raise CaptureError(
                    f"module {plain!r} ran {times} times, and {len(names)} were expected: where layers share a module,"
                    " list it in names once for each time"
                )
        batch = self.reports[0][1].shape[0]
        for name, matrix in self.reports:
            if matrix.shape[0] != batch:
                raise CaptureError(
                    f"layer {name!r} has attention of {matrix.shape[0]} texts, {self.reports[0][0]!r} of {batch}: the"
                    " first axis of weights must be the batch"
                )
        found = stacks if stacks is not None else self._alone()
        layers = tuple(Layer(name, found[name], matrix, None, None) for name, matrix in self.reports)
        verify_shapes(layers)
        return layers

    def _alone(self) -> dict[str, Stack]:
        """All in one stack: a decoder if no position of any layer draws from a later one."""
        for name, matrix in self.reports:
            queries, keys = matrix.shape[1:]
            if queries != keys or name in self.crossing:
                raise CaptureError(
                    f"layer {name!r}: {queries} positions attend to {keys} of another sequence: say which modules"
                    ' belong to which stack, such as stack={"encoder.*": "encoder", "decoder.*self_attn": "decoder",'
                    ' "decoder.*multihead_attn": "cross"}'
                )
        ahead = any(bool(torch.triu(matrix, diagonal=1).any()) for _, matrix in self.reports)
        return {name: "encoder" if ahead else "decoder" for name, _ in self.reports}


# ---- torch.nn.MultiheadAttention -------------------------------------------------------------------------------------


def _gives_weights(module: nn.Module) -> bool:
    """Whether it is called as torch.nn.MultiheadAttention is."""
    if not isinstance(module, nn.MultiheadAttention):
        return False
    return {"need_weights", "average_attn_weights"} <= inspect.signature(module.forward).parameters.keys()


@contextmanager
def _forced(modules: Mapping[nn.Module, object]) -> Iterator[None]:
    """Have PyTorch's own attention compute its weights, head by head, while its callers get what they asked for."""
    asked: dict[nn.Module, tuple[bool, bool]] = {}

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = _bound(module, args, kwargs)
        asked[module] = bool(call["need_weights"]), bool(call["average_attn_weights"])
        return (), {**call, "need_weights": True, "average_attn_weights": False}

    def after(module: nn.Module, _: Any, output: Any) -> Any:
        need, average = asked.pop(module)
        result, weights = output
        return result, (weights.mean(dim=-3) if average else weights) if need else None

    def registered() -> Iterator[RemovableHandle]:
        for module in filter(_gives_weights, modules):
            yield module.register_forward_pre_hook(_state.in_this_thread(before), with_kwargs=True)
            yield module.register_forward_hook(_state.in_this_thread(after), prepend=True)

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with _state.hooked(registered()):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _bound(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, defaults included."""
    call = inspect.signature(module.forward).bind(*args, **kwargs)
    call.apply_defaults()
    return dict(call.arguments)


def _same_sequence(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether its keys are its queries: two sequences may well be of one length."""
    call = _bound(module, args, kwargs)
    query, key = call["query"], call["key"]
    return query is key or (query.shape == key.shape and torch.equal(query, key))


# ---- weights ---------------------------------------------------------------------------------------------------------


def _recognised(name: str, module: nn.Module, output: Any) -> Tensor:
    """The attention weights in what a module returned."""
    if _gives_weights(module):
        given: Tensor = output[1]
        return given if given.ndim == 4 else given[None]  # of one text, without a batch
    entries = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else [output]
    )
    tensors = [entry for entry in entries if isinstance(entry, Tensor)]
    found = [tensor for tensor in tensors if tensor.ndim in (3, 4) and _fault(tensor) is None and bool(tensor.any())]
    if len(found) == 1:
        return found[0]
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "none"
    raise CaptureError(
        f"layer {name!r}: {type(module).__name__} returned tensors of shapes {shapes}, of which {len(found)} are"
        " probabilities (batch, heads, queries, keys) or (batch, queries, keys): give weights, a function of (module,"
        " args, kwargs, output) that returns them, or name the module inside whose output they are"
    )


def _checked(name: str, weights: Any) -> Tensor:
    """As ``(batch, heads, queries, keys)``, found to be probabilities."""
    if not isinstance(weights, Tensor):
        raise CaptureError(f"layer {name!r}: its weights are {type(weights).__name__}, and must be a tensor")
    if weights.ndim not in (3, 4):
        raise CaptureError(
            f"layer {name!r}: its weights have shape {tuple(weights.shape)}, and must be (batch, heads, queries, keys)"
            " or (batch, queries, keys)"
        )
    fault = _fault(weights)
    if fault is not None:
        raise CaptureError(
            f"layer {name!r}: its weights, of shape {tuple(weights.shape)}, {fault}: every row must hold probabilities,"
            " none negative, that sum to 1 at most"
        )
    found: Tensor = weights.detach()
    return found if found.ndim == 4 else found[:, None]


def _fault(weights: Tensor) -> str | None:
    """What keeps its rows from being probabilities."""
    if weights.numel() == 0:
        return "are empty"
    if not weights.dtype.is_floating_point:
        return f"are {weights.dtype}"
    low = float(weights.min())
    if low != low:
        return "hold NaN (a position whose keys are all masked?)"
    if low < 0:
        return f"hold {low:g}"
    largest = float(weights.sum(dim=-1, dtype=torch.promote_types(weights.dtype, torch.float32)).max())
    return None if largest <= 1 + tolerance(weights.dtype) else f"have a row that sums to {largest:g}"
