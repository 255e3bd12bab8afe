"""The layers of each stack of a model, and the network of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InvalidArgumentError
from ..matrices import Heads, looks_ahead
from ..network import Network

__all__ = ["Stacks", "arranged", "layers_of"]


@dataclass(frozen=True, eq=False, repr=False)
class Stacks:
    """Attention of a model, layer by layer: what the adapters return. The arrays are those that were handed on.

    Attributes
    ----------
    encoder, decoder, cross : tuple of arrays
        Self-attention of an encoder, of a causal decoder, and the decoder's attention to the encoder; (B, H, n, n) or
        (H, n, n) a layer, (m, n) at the end of those of `cross`. Empty where the model has none.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow import adapters
    >>> attention = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 1, 3, 4))  # 2 layers, 1 text, 3 heads
    >>> stacks = adapters.from_transformers({"attentions": tuple(attention)})
    >>> stacks
    Stacks(encoder=2 layers)
    >>> stacks.network(residual=0.5)
    Network(sizes=(4, 4, 4), n_layers=2, n_edges=32)
    """

    encoder: tuple[Any, ...] = ()
    decoder: tuple[Any, ...] = ()
    cross: tuple[Any, ...] = ()

    @property
    def kind(self) -> Literal["encoder", "decoder", "encoder-decoder"]:
        """Which network they make."""
        if self.cross:
            return "encoder-decoder"
        return "decoder" if self.decoder else "encoder"

    def network(
        self,
        *,
        residual: float = 0.5,
        heads: Heads = "mean",
        calibration: Literal["excess"] | None = None,
        batch: int | None = None,
        **options: Any,
    ) -> Network:
        """The network of these layers, by the constructor that fits.

        Parameters
        ----------
        residual, heads, calibration, batch, **options
            As for :meth:`Network.encoder`, :meth:`Network.decoder` or :meth:`Network.encoder_decoder`. `batch` names
            the text, where there are several; its padding counts as positions like all others, so run texts of
            different lengths one by one.

        Returns
        -------
        Network

        Raises
        ------
        InvalidCapacityError, InvalidArgumentError
            As for that constructor.
        """
        given = {"residual": residual, "heads": heads, "calibration": calibration, "batch": batch, **options}
        if self.cross:
            return Network.encoder_decoder(self.encoder, self.decoder, self.cross, **given)
        return Network.decoder(self.decoder, **given) if self.decoder else Network.encoder(self.encoder, **given)

    def __repr__(self) -> str:
        held = [f"{part}={len(layers)} layers" for part in _PARTS if (layers := getattr(self, part))]
        return f"Stacks({', '.join(held)})"


_PARTS = ("encoder", "decoder", "cross")


def arranged(
    *,
    encoder: Sequence[Any] = (),
    decoder: Sequence[Any] = (),
    cross: Sequence[Any] = (),
    alone: Sequence[Any] = (),
    stack: Any = None,
    name: str,
) -> Stacks:
    """As stacks that make a network, or an error that says what is missing.

    `alone` are layers that nobody has told apart: those of `stack`, of a decoder beside others, or else of a decoder
    if no position of any layer draws from a later one. `name` is what errors call the object they were found in.
    """
    if stack not in (None, "encoder", "decoder"):
        raise InvalidArgumentError(f'stack={stack!r} is unknown: choose None, "encoder" or "decoder"')
    if alone and (encoder or cross) and not decoder:
        decoder, alone = alone, ()
    held = {"encoder": encoder, "decoder": decoder, "cross": cross, "undivided": alone}
    parts = [part for part, layers in held.items() if layers]
    if stack is not None and parts != ["undivided"]:
        raise InvalidArgumentError(
            f"stack={stack!r} beside {name}, which says itself what it holds: {', '.join(parts)}"
        )
    if parts == ["undivided"]:
        if stack is None:
            ahead = any(looks_ahead(layer, f"layer {index} of {name}") for index, layer in enumerate(alone))
            stack = "encoder" if ahead else "decoder"
        return Stacks(**{stack: tuple(alone)})
    if parts not in (["encoder"], ["decoder"], ["encoder", "decoder", "cross"]):
        raise InvalidArgumentError(
            f"{name} holds attention of {' and '.join(parts)}: a network is of an encoder, of a decoder, or of an"
            " encoder, a decoder and the cross-attention between them"
        )
    return Stacks(tuple(encoder), tuple(decoder), tuple(cross))


def layers_of(layers: Any, name: str, hint: str) -> list[Any]:
    """One entry a layer, none of them missing; `hint` says how to come by one."""
    found = list(layers)
    for index, layer in enumerate(found):
        if layer is None:
            raise InvalidArgumentError(f"layer {index} of {name} is None, not attention weights: {hint}")
    return found
