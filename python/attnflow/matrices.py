"""Contribution matrices, numpy arrays or torch tensors: checks, head reduction, residual mixing, calibration.

Arrays of other libraries become one of these two, layer by layer, without a copy where they lie on the host. Everything
is computed where the tensors are, and each layer is carried to the host once, as one (n, n) matrix, before the next one
is asked for: of a generator's layers, one lives at a time. torch is never imported here: it is looked up among the
modules the user has already loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ._positions import as_position, integer, is_many, items
from .errors import InvalidArgumentError, InvalidCapacityError
from .storage import entries, place, whole

__all__ = [
    "Heads",
    "PerLayer",
    "capacities",
    "carried",
    "check_entries",
    "check_options",
    "excess",
    "floating",
    "host",
    "layer_name",
    "looks_ahead",
    "mixed",
    "real",
    "reduced",
    "seen_by",
]

Array = NDArray[Any]
Heads = Literal["mean", "max", "min"] | int | Sequence[float]


def capacities(
    contributions: Any,
    residual: float,
    heads: Heads,
    calibration: str | None,
    visible: Any,
    *,
    causal: bool,
    part: str = "",
    batch: Any = None,
) -> Iterator[Array]:
    """The capacities of each layer, (n, n) on the host, by the rules of :meth:`Network.encoder` and `decoder`.

    Layers are drawn one at a time, each when it is asked for: nothing here holds on to the one before. `part` is what
    errors call the stack, where a model has several.
    """
    return carried(_computed(contributions, residual, heads, calibration, visible, causal, part, batch))


def _computed(
    contributions: Any,
    residual: float,
    heads: Heads,
    calibration: str | None,
    visible: Any,
    causal: bool,
    part: str,
    batch: Any,
) -> Iterator[Any]:
    """The same where the contributions lie."""
    check_options(residual, calibration)
    seen = PerLayer(visible, "visible", part)
    index = 0
    for matrix in reduced(contributions, heads, part, causal=causal, batch=batch):
        name = layer_name(part, index)
        n = matrix.shape[0]
        counts = seen_by(seen, index, np.arange(1, n + 1) if causal else np.full(n, n))
        if residual:
            matrix = mixed(floating(matrix, name), 1 - float(residual), residual)
        if calibration:
            (matrix,) = excess([floating(matrix, name)], counts)
        yield matrix
        del matrix
        index += 1
    seen.check_length(index)


def carried(computed: Iterator[Any]) -> Iterator[Array]:
    """Each matrix on the host. From a GPU it comes through pinned memory while the next one is computed there."""
    under_way: Callable[[], Array] | None = None
    for matrix in computed:
        started = _transfer(matrix)
        if started is None:
            yield host(matrix)
        else:
            if under_way is not None:
                yield under_way()
            under_way = started
        del matrix
    if under_way is not None:
        yield under_way()


def _transfer(matrix: Any) -> Callable[[], Array] | None:
    """Begin to copy a matrix from a GPU, on a stream of its own; returns what waits for it and hands it over.

    None for a matrix that is on the host already, or on a device without such streams.
    """
    torch = _torch_of(matrix)
    if torch is None or not matrix.is_cuda:
        return None
    wide = matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix
    pinned = torch.empty(wide.shape, dtype=wide.dtype, pin_memory=True)
    with torch.cuda.device(wide.device):
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            pinned.copy_(wide, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(beside)
        wide.record_stream(beside)

    def finish() -> Array:
        arrived.synchronize()
        return host(pinned)

    return finish


def check_options(residual: Any, calibration: Any) -> None:
    """Raise where one of them is none of the choices."""
    if isinstance(residual, (bool, np.bool_)) or not isinstance(residual, (int, float, np.floating, np.integer)):
        raise InvalidArgumentError(f"residual={residual!r}: a number from 0 to 1 is needed")
    if not 0 <= residual <= 1:
        raise InvalidArgumentError(f"residual={residual!r} is outside 0..1, r in C = (1 - r) A + r I")
    if calibration is not None and not (isinstance(calibration, str) and calibration == "excess"):
        raise InvalidArgumentError(f'calibration={calibration!r} is unknown: choose None or "excess"')


class PerLayer:
    """A sequence of one entry a layer, or None; how many layers there are is known when the last one is drawn."""

    def __init__(self, given: Any, name: str, part: str = "", entry: str = "None or counts") -> None:
        self.name = f"{name}[{part!r}]" if part else name
        rule = f"a sequence of one entry a layer, {entry}"
        self._entries = None if given is None else items(given, self.name, rule)

    def __getitem__(self, index: int) -> Any:
        """None everywhere, where there is no sequence."""
        if self._entries is None:
            return None
        if index >= len(self._entries):
            self._refuse(f"{index + 1} or more")
        return self._entries[index]

    def check_length(self, n_layers: int) -> None:
        """Raise where entries are left over."""
        if self._entries is not None and len(self._entries) != n_layers:
            self._refuse(str(n_layers))

    def _refuse(self, needed: str) -> NoReturn:
        held = len(self._entries or [])
        raise InvalidArgumentError(f"{self.name} has {held} entries; one a layer is needed: {needed}")


def seen_by(visible: PerLayer, index: int, default: Array) -> Array:
    """How many positions each position of a layer sees, (n,): as many as `default` says, or fewer."""
    given, n = visible[index], len(default)
    if given is None:
        return default
    name = f"{visible.name}[{index}]"
    counts = host(real(given, name))
    if counts.shape != (n,) or counts.dtype.kind not in "iu":
        raise InvalidArgumentError(f"{name} has shape {counts.shape} and dtype {counts.dtype}: {n} integers are needed")
    wrong = np.flatnonzero((counts < 1) | (counts > default))
    if wrong.size:
        j = int(wrong[0])
        raise InvalidArgumentError(
            f"{name} says that position {j} sees {counts[j]} positions: it sees 1 to {default[j]}"
        )
    return counts.astype(np.int64)  # sums of narrow integers would wrap around


def reduced(
    contributions: Any,
    heads: Heads,
    part: str = "",
    *,
    shape: tuple[int, int] | None = None,
    causal: bool = False,
    batch: Any = None,
) -> Iterator[Any]:
    """One checked matrix a layer, where it lies, its heads reduced: square, or of the `shape` that is asked for.

    Where layers have an axis of texts, it is of text `batch`, or of the only one where that is None.
    """
    reduce = _head_reduction(heads)
    for name, array in _layers(contributions, part, shape, batch):
        check_entries(array, name, ("head", "receiver", "giver")[-array.ndim :])
        with np.errstate(over="ignore"):  # refused below, by name
            matrix = reduce(array, name)
        if array.ndim == 3:
            check_entries(matrix, f"{name}, its heads reduced,", ("receiver", "giver"))
        if causal:
            _check_causal(matrix, name)
        del array
        yield matrix
        del matrix


def layer_name(part: str, index: int) -> str:
    """What errors call a layer."""
    return f"{part} layer {index}" if part else f"layer {index}"


# ---- arrays: each function has one branch for numpy and one for torch ----------------------------------------------


def _torch_of(array: Any) -> Any:
    """The torch module if this is a tensor, else None. torch is never imported: a tensor proves that the user did."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, getattr(torch, "Tensor", ())) else None


def real(given: Any, name: str) -> Any:
    """As an ndarray or a detached tensor of a real dtype."""
    if _torch_of(given) is None:
        given = _read(whole(given, name), name)
    torch = _torch_of(given)
    if torch is not None:
        tensor = given.detach()
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "a meta tensor, without entries" if tensor.is_meta else f"of layout {tensor.layout}"
            raise InvalidCapacityError(f"{name} is {kind}: a dense tensor is needed")
        floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if tensor.dtype not in (*floats, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
            raise InvalidCapacityError(_dtype_message(name, tensor.dtype))
        return tensor
    if given is None or isinstance(given, (str, bytes, dict, set, frozenset)):
        raise InvalidCapacityError(f"{name} is {given!r}: an array of real numbers is needed")
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InvalidCapacityError(f"{name} is {type(given).__name__}, not an array of real numbers: {error}") from None
    if array.dtype.name == "bfloat16":  # JAX's, and what else ml_dtypes adds to numpy without making it a number
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise InvalidCapacityError(_dtype_message(name, array.dtype))
    return array


def _is_foreign(given: Any) -> bool:
    """Whether it is an array of a library other than numpy and torch, which says how to read it."""
    return (
        not isinstance(given, (np.ndarray, type))
        and _torch_of(given) is None
        and (hasattr(given, "__array__") or hasattr(given, "__dlpack__"))
    )


def _read(given: Any, name: str) -> Any:
    """A foreign array as numpy's, or as torch's where numpy cannot hold it; a list of tensors as one; else as it is."""
    torch = sys.modules.get("torch")
    if isinstance(given, (list, tuple)) and given and all(_torch_of(entry) is not None for entry in given):
        try:
            return _torch_of(given[0]).stack([entry.detach() for entry in given])
        except (RuntimeError, TypeError) as error:
            raise InvalidCapacityError(
                f"{name} is a {type(given).__name__} of tensors, not one array: {error}"
            ) from None
    if not _is_foreign(given):
        return given
    readers: list[Callable[[Any], Any]] = [np.asarray] if hasattr(given, "__array__") else []
    if hasattr(given, "__dlpack__"):  # CuPy's on a GPU, or of a dtype numpy lacks: torch, if it is there, takes both
        readers += [np.from_dlpack, *([torch.from_dlpack] if torch is not None else [])]
    reasons = []
    for reader in readers:
        try:
            return reader(given)
        except Exception as error:  # whatever a library raises: RuntimeError, BufferError, its own
            reasons.append(str(error))
    raise InvalidCapacityError(
        f"{name} is {type(given).__module__}.{type(given).__qualname__}, which does not become an array of numpy"
        f"{' or torch' if torch is not None else ''}: {'; '.join(reasons)}. Convert it first"
    )


def _dtype_message(name: str, dtype: Any) -> str:
    return f"{name} has dtype {dtype}: capacities must be real numbers of 64 bits at most, floating or integer"


def _layers(
    contributions: Any, part: str, shape: tuple[int, int] | None, batch: Any = None
) -> Iterator[tuple[str, Any]]:
    """A name and one (n, n) or (H, n, n) array a layer, all of the same n, or an error that says what is wrong.

    Where a `shape` is given, (m, n) or (H, m, n) of that.
    """
    of, a = part or "contributions", "m, n" if shape else "n, n"
    form = f"(L, {a}), (L, H, {a}), (L, B, H, {a}) or an iterable of ({a}), (H, {a}) or (B, H, {a}) arrays"
    named = callable(getattr(contributions, "keys", None))
    foreign = _is_foreign(contributions)
    if (
        contributions is None
        or isinstance(contributions, (str, bytes, type))
        or named
        or callable(getattr(contributions, "tocsr", None))  # of scipy, and one layer
        or not (foreign or isinstance(contributions, Iterable))
    ):
        hint = "; attnflow.adapters finds the layers in what a model or a cache returns" if named else ""
        raise InvalidCapacityError(f"{of} must be {form}, not {type(contributions).__name__}{hint}")
    sliced = isinstance(contributions, Iterable) and hasattr(contributions, "shape")
    if foreign and not sliced:  # else it is read a layer at a time, from a device or a file
        contributions = real(contributions, of)
    held = tuple(contributions.shape) if sliced or foreign else ()
    if sliced or foreign:
        if len(held) not in (3, 4, 5):
            raise InvalidCapacityError(f"{of} of shape {held}: {form} is needed; one layer has L = 1")
        contributions = contributions if foreign else real(contributions, of)
    index, n = 0, 0
    for given in contributions:  # not enumerate(), which would keep a layer while the next one is drawn
        name = layer_name(part, index)
        array = _layer(given, name, a, batch)
        _check_shape(array, name, shape, n)
        del given
        n = array.shape[-1]
        yield name, array
        del array
        index += 1
    if index == 0:
        raise InvalidCapacityError(f"{of}{f' of shape {held}' if held else ''} hold no layer: at least one is needed")


def _layer(given: Any, name: str, axes: str, batch: Any) -> Any:
    """With two axes, or three where heads come first."""
    array = real(given, name)
    held = tuple(array.shape)
    if array.ndim not in (2, 3, 4):
        raise InvalidCapacityError(f"{name} has shape {held}: ({axes}), (H, {axes}) or (B, H, {axes}) is needed")
    if array.ndim == 4 and batch is not None and held[0]:
        return array[as_position(batch, "batch", held[0], f"{name} of shape {held}", "text")]
    if batch is not None:
        raise InvalidArgumentError(
            f"batch={batch!r} names a text, but {name} of shape {held} has no batch: (B, H, {axes}) is needed"
        )
    if array.ndim == 4 and held[0] != 1:
        choices = f"batch=0 to batch={held[0] - 1}" if held[0] else "there is none in it"
        raise InvalidCapacityError(
            f"{name} has shape {held}, a batch of {held[0]} texts: a network is of one text; choose it: {choices}"
        )
    return array[0] if array.ndim == 4 else array


def _check_shape(array: Any, name: str, shape: tuple[int, int] | None, n: int) -> None:
    """Raise where it is not of the `shape`, or not square, or not of `n` positions (0: layer 0 itself)."""
    held = tuple(array.shape)
    if shape is None and held[-1] != held[-2]:
        raise InvalidCapacityError(f"{name} has shape {held}: receivers and givers are the same n positions")
    if 0 in held:
        raise InvalidCapacityError(f"{name} has shape {held}: it is empty")
    if shape is None and n not in (0, held[-1]):
        raise InvalidCapacityError(f"{name} has shape {held}, but layer 0 has {n} positions: all need the same")
    if shape is not None and held[-2:] != shape:
        raise InvalidCapacityError(
            f"{name} has shape {held}: a row for each of {shape[0]} receivers, a column for each of {shape[1]} givers"
            " is needed"
        )


def check_entries(array: Any, name: str, axes: tuple[str, ...], *, unbounded: bool = False) -> None:
    """Raise at the first entry that is NaN, negative or (unless allowed) infinite. One pass where all is well."""
    values: Any = entries(array)
    torch = _torch_of(values)
    if torch is not None:
        if values.numel() == 0:
            return
        low, high = torch.stack(torch.aminmax(values)).tolist()
    else:
        if values.size == 0:
            return
        low, high = values.min(), values.max()
    if low >= 0 and (unbounded or high < np.inf):
        return
    values = host(values)
    refused = ~(values >= 0) | (np.isinf(values) & (not unbounded))
    first = int(np.argmax(refused))
    where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, place(array, first), strict=True))
    rule = "non-negative (inf is unbounded)" if unbounded else "finite and non-negative"
    raise InvalidCapacityError(
        f"{name} holds {values.flat[first]} at {where}: entries must be {rule}; its shape is {tuple(array.shape)}"
    )


def _check_causal(matrix: Any, name: str) -> None:
    """Raise where a position draws from a later one."""
    torch = _torch_of(matrix)
    if torch is not None:
        above = torch.triu(matrix, diagonal=1)
        if not bool(above.any()):
            return
        receiver, giver = (int(index) for index in above.nonzero()[0])
    else:
        for receiver in range(len(matrix) - 1):
            later = matrix[receiver, receiver + 1 :]
            if later.any():
                giver = receiver + 1 + int(np.argmax(later != 0))
                break
        else:
            return
    raise InvalidCapacityError(
        f"{name} holds {float(matrix[receiver, giver])} at receiver {receiver}, giver {giver}: no position of a decoder"
        f" draws from a later one; its shape is {tuple(matrix.shape)}. Network.encoder is for models that do"
    )


def looks_ahead(given: Any, name: str) -> bool:
    """Whether any position draws from a later one, in any head of any text."""
    array = real(given, name)
    if array.ndim < 2:
        raise InvalidCapacityError(
            f"{name} has shape {tuple(array.shape)}: (n, n) or (H, n, n) or (B, H, n, n) is needed"
        )
    torch = _torch_of(array)
    return bool((np.triu(array, 1) if torch is None else torch.triu(array, diagonal=1)).any())


def floating(array: Any, name: str) -> Any:
    """float64 stays, other floats become float32, integers float64 where that is exact."""
    torch = _torch_of(array)
    if torch is not None:
        integers = not array.dtype.is_floating_point
        target = torch.float64 if integers or array.dtype == torch.float64 else torch.float32
        largest = int(array.max()) if array.dtype == torch.int64 else 0
    else:
        integers = array.dtype.kind in "iu"
        target = np.float64 if integers or array.dtype.itemsize == 8 else np.float32
        largest = int(array.max()) if integers and array.dtype.itemsize == 8 else 0
    if largest > 2**53:
        raise InvalidCapacityError(
            f"{name} holds the integer {largest}: above 2^53 it has no exact float64 to compute with;"
            f" its shape is {tuple(array.shape)}"
        )
    return array.to(target) if torch is not None else array.astype(target, copy=False)


def _head_reduction(heads: Any) -> Callable[[Any, str], Any]:
    """The function (H, n, n) -> (n, n) that `heads` names, or an error; (n, n) passes where that makes sense."""
    if isinstance(heads, str):
        if heads not in ("mean", "max", "min"):
            raise InvalidArgumentError(f'heads={heads!r} is unknown: choose "mean", "max", "min", a head, or weights')
        return lambda array, name: array if array.ndim == 2 else _reduce(array, heads, name)
    if not is_many(heads):
        return lambda array, name: _one_head(array, integer(heads, "heads"), name)
    try:
        weights = [float(weight) for weight in heads]
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"heads={heads!r}: one weight a head is needed") from None
    for head, weight in enumerate(weights):
        if not 0 <= weight < np.inf:
            raise InvalidArgumentError(f"heads: the weight of head {head} is {weight}: it must be finite, 0 or more")
    return lambda array, name: _weighted(array, weights, name)


def _reduce(array: Any, how: str, name: str) -> Any:
    if how == "mean":
        if array.shape[0] == 1:
            return array[0]
        narrow = array.dtype.itemsize < 4
        if _torch_of(array) is not None:
            if not array.dtype.is_floating_point:
                return floating(array, name).mean(dim=0)
            return array.mean(dim=0, dtype=_torch_of(array).float32 if narrow else None)
        if array.dtype.kind in "iu":
            return floating(array, name).mean(axis=0)
        return array.mean(axis=0, dtype=np.float32 if narrow else None)
    if _torch_of(array) is not None:
        return array.amax(dim=0) if how == "max" else array.amin(dim=0)
    return array.max(axis=0) if how == "max" else array.min(axis=0)


def _one_head(array: Any, head: int, name: str) -> Any:
    if array.ndim == 2:
        raise InvalidArgumentError(f"heads={head} names a head, but {name} of shape {tuple(array.shape)} has no heads")
    n_heads = array.shape[0]
    if not -n_heads <= head < n_heads:
        raise InvalidArgumentError(
            f"heads={head} is out of range: {name} of shape {tuple(array.shape)} has {n_heads} heads"
        )
    return array[head]


def _weighted(array: Any, weights: list[float], name: str) -> Any:
    if array.ndim == 2 or array.shape[0] != len(weights):
        held = "no heads" if array.ndim == 2 else f"{array.shape[0]} heads"
        raise InvalidArgumentError(
            f"heads holds {len(weights)} weights, but {name} of shape {tuple(array.shape)} has {held}"
        )
    total = floating(array[0], name) * weights[0]
    for head in range(1, len(weights)):
        total += floating(array[head], name) * weights[head]
    return total


def mixed(matrix: Any, weight: float, residual: float) -> Any:
    """``weight A + residual I``, in new memory."""
    made = matrix * float(weight)
    if _torch_of(made) is not None:
        made.diagonal().add_(float(residual))
    else:
        places = np.arange(len(made))
        made[places, places] += made.dtype.type(residual)
    return made


def excess(parts: Sequence[Any], givers: Array) -> list[Any]:
    """max(C - N, 0), N the row's sum spread evenly over its `givers` many givers, in new memory.

    A row may lie in several parts, matrices of the same rows. Sums and quotients are taken in float64, so that an even
    row leaves exactly nothing behind.
    """
    places = {(_torch_of(part), str(getattr(part, "device", "cpu"))) for part in parts}
    if len(places) > 1:
        parts = [host(part) for part in parts]
    torch = _torch_of(parts[0])
    if torch is not None:
        device = parts[0].device
        wide = torch.float32 if device.type == "mps" else torch.float64
        rows = sum(part.sum(dim=1, keepdim=True, dtype=wide) for part in parts)
        even = rows / torch.tensor(givers, device=device, dtype=wide)[:, None]
        return [(part - even.to(part.dtype)).clamp_(min=0) for part in parts]
    rows = sum(part.sum(axis=1, keepdims=True, dtype=np.float64) for part in parts)
    even = rows / givers[:, None]
    beyond = [part - even.astype(part.dtype) for part in parts]
    return [np.maximum(part, 0, out=part) for part in beyond]


def host(array: Any) -> Array:
    """The read-only ndarray of a layer: a view where it already is one, one transfer where it is on a device."""
    torch = _torch_of(array)
    if torch is not None:
        array = (array.float() if array.dtype in (torch.float16, torch.bfloat16) else array).numpy(force=True)
    elif array.dtype.kind == "f" and array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    view: Array = array.view()
    view.flags.writeable = False
    return view
