"""How much a capture will hold, said before it begins; and where it may hold it other than in memory."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnflow.capture import _layers
from attnflow.capture._inputs import Inputs, prepare, text_configuration
from attnflow.errors import InvalidArgumentError

__all__ = ["Estimate", "Trimming", "check", "checked_folder", "estimate", "of_inputs", "spilled"]


@dataclass(frozen=True)
class Estimate:
    """What a capture will hold.

    Attributes
    ----------
    shapes : tuple of (int, tuple of int)
        How many layers of which shape ``(batch, n_queries, n_keys)``: an encoder's, a decoder's, those between.
    n_edges : int
        Edges of the networks that they make, one a text: of a decoder's own layers half the entries.
    n_bytes : int
        Bytes of all matrices, float32.
    """

    shapes: tuple[tuple[int, tuple[int, int, int]], ...]
    n_edges: int
    n_bytes: int

    def __str__(self) -> str:
        layers = " and ".join(f"{count} layers of {b} x {q} x {k}" for count, (b, q, k) in self.shapes)
        return f"{size(self.n_bytes)} ({layers}, float32; {self.n_edges:,} edges)"


def estimate(model: nn.Module, inputs: Any) -> Estimate | None:
    """What a capture of these inputs will hold, without running the model.

    Parameters
    ----------
    model, inputs
        As for :func:`attnflow.capture.contributions`.

    Returns
    -------
    Estimate or None
        None where the number of positions shows only when the model runs: of images and sound.

    Raises
    ------
    InvalidArgumentError
        As for :func:`attnflow.capture.contributions`.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from attnflow.capture import estimate
    >>> options = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, **options))
    >>> print(estimate(model, [1] * 1000))
    7.6 MiB (2 layers of 1 x 1000 x 1000, float32; 1,001,000 edges)
    """
    return of_inputs(model, prepare(model, inputs))


def of_inputs(model: nn.Module, inputs: Inputs) -> Estimate | None:
    """The same of inputs that were checked already."""
    read, said = (
        next((one for one in map(inputs.given.get, names) if isinstance(one, Tensor)), None)
        for names in (("input_ids", "inputs_embeds"), ("decoder_input_ids", "decoder_inputs_embeds"))
    )
    if read is None:
        return None
    (batch, n), encoder = read.shape[:2], _layers.encoder_name(model)
    listening = [name for name, module in model.named_modules() if _layers.listens_at_interface(module)]
    stated = _layers.expected_calls(text_configuration(model)) or len(listening)
    shapes: list[tuple[int, tuple[int, int, int]]]
    if encoder is None:
        shapes = [(stated, (batch, n, n))]
        n_edges = stated * batch * (n * (n + 1) // 2 if _layers.is_causal(model) else n * n)
    else:
        inside = sum(name.startswith(f"{encoder}.") for name in listening) or stated
        outside = (len(listening) - inside) // 2 if listening else stated
        m = n if said is None else said.shape[1]  # what is not given, a model makes of what its encoder reads
        shapes = [(inside, (batch, n, n)), (outside, (batch, m, m)), (outside, (batch, m, n))]
        n_edges = batch * (inside * n * n + outside * (m * (m + 1) // 2 + m * n))
    return Estimate(tuple(shapes), n_edges, 4 * sum(count * b * q * k for count, (b, q, k) in shapes))


def check(expected: Estimate | None, limit: int | None) -> None:
    """Refuse a capture whose matrices would not fit.

    Parameters
    ----------
    limit
        In bytes; None is half of the machine's memory.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidArgumentError(f"memory_limit must be a positive number of bytes, got {limit!r}")
    if expected is None:
        return
    most = limit if limit is not None else _half_of_memory()
    if most is not None and expected.n_bytes > most:
        what = f"memory_limit={limit}" if limit is not None else "half of this machine's memory"
        raise InvalidArgumentError(
            f"the captured matrices would take {expected}, and {what} is {size(most)}: shorten the text, keep them in "
            "files with spill='a/folder', or raise memory_limit"
        )


def _half_of_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return None


def size(n_bytes: float) -> str:
    """Bytes in the unit that leaves one to four digits."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while n_bytes >= 1024 and len(units) > 1:
        n_bytes /= 1024
        units.pop(0)
    return f"{n_bytes:.0f} bytes" if units[0] == "bytes" else f"{n_bytes:.1f} {units[0]}"


def checked_folder(folder: Any) -> Path | None:
    """The folder to spill to, if it is one."""
    if folder is None:
        return None
    if not isinstance(folder, str | os.PathLike) or not str(folder) or not Path(folder).is_dir():
        raise InvalidArgumentError(f"spill must be a folder that exists, got {folder!r}")
    try:  # now, and not when the first layer has run
        with tempfile.TemporaryFile(prefix="attnflow-", dir=str(folder)):
            pass
    except OSError as error:
        raise InvalidArgumentError(f"spill must be a folder that can be written to, got {folder!r}: {error}") from None
    return Path(folder)


class Trimming:
    """Gives memory that is free back to the system, now and then.

    A layer's temporaries leave holes between what stays, and glibc keeps holes: of 2,048 tokens through SmolLM2 up to
    160 MB at the end, as chance will have it. Elsewhere nothing is done.
    """

    every = 64 << 20

    def __init__(self) -> None:
        self._since = 0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def after(self, captured_bytes: int) -> None:
        """So much more has been captured."""
        self._since += captured_bytes
        if self._trim is not None and self._since >= self.every:
            self._since = 0
            self._trim(0)


def spilled(matrix: Tensor, folder: Path) -> Tensor:
    """The same matrix in a file, mapped into memory: pages that are not looked at need none.

    The file has no name any more when this returns, so that it is gone with the tensor, however the program ends.
    """
    handle, name = tempfile.mkstemp(prefix="attnflow-", dir=folder)
    try:
        try:
            # Room for all of it: what is written to a map that has none ends the program, without an exception.
            if hasattr(os, "posix_fallocate") and matrix.nbytes:
                os.posix_fallocate(handle, 0, matrix.nbytes)
        except OSError as error:
            raise InvalidArgumentError(
                f"spill={str(folder)!r} has no room for a layer of {size(matrix.nbytes)}: {error}"
            ) from error
        finally:
            os.close(handle)
        mapped = torch.from_file(name, shared=True, size=matrix.numel(), dtype=matrix.dtype).view(matrix.shape)
        mapped.copy_(matrix)
    finally:
        Path(name).unlink()
    return mapped
