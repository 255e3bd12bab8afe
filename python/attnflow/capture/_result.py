"""What a capture returns: the layers of every stack, and one text's part of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from attnflow.capture._layers import Stack
from attnflow.errors import InvalidArgumentError

__all__ = ["Contributions", "Layer"]


@dataclass(frozen=True)
class Layer:
    """One attention of a model, over every text of a batch.

    Attributes
    ----------
    name : str
        Name of the attention module; layers that share one (ALBERT) are told apart by ``#0``, ``#1``, ...
    stack : {"encoder", "decoder", "cross"}
        Whether an encoder or a decoder attends to itself, or a decoder to another sequence.
    matrix : torch.Tensor
        ``(batch, n_queries, n_keys)`` float32, on the model's device: ``[b, j, k]`` is what position j after the layer
        draws from position k before it. Never negative; rows need not sum to 1, and those of padding mean nothing.
    kept : torch.Tensor or None
        ``(batch, n_queries)`` float32: where the measure holds the residual and the keys are another sequence, what
        each position keeps of itself.
    visible : torch.Tensor or None
        ``(batch, n_queries)`` int64: how many keys each position can see, which masks and sliding windows make fewer.
        None for layers caught by hooks: weights do not tell a hidden position from a small one.
    """

    name: str
    stack: Stack
    matrix: Tensor
    kept: Tensor | None
    visible: Tensor | None


@dataclass(frozen=True)
class Contributions:
    """What every layer's positions draw from each other: the result of every capture.

    Attributes
    ----------
    layers : tuple of Layer
        Every attention, in the order of computation.
    measure : str
        Name of the measure.
    holds_residual : bool
        Whether the matrices count what a position keeps of itself, so that a network must add no residual.
    path : {"interface", "hooks", "modules"}
        How they were captured: listening at transformers' attention interface, catching weights that eager modules
        return, or asking the modules that :func:`from_modules` was told of.
    logits : torch.Tensor or None
        float32, as the model returned them: ``(batch, n, vocabulary)`` of a language model; None for a model without a
        head.
    real : mapping of str to torch.Tensor
        For "encoder" and "decoder", where a mask came with the token ids: ``(batch, n)`` bool, False at padding.
    """

    layers: tuple[Layer, ...]
    measure: str
    holds_residual: bool
    path: Literal["interface", "hooks", "modules"]
    logits: Tensor | None
    real: Mapping[Literal["encoder", "decoder"], Tensor] = field(default_factory=dict)

    @property
    def encoder(self) -> list[Tensor]:
        """An encoder's layers, ``(batch, n, n)`` each; empty for a decoder-only model."""
        return self._of("encoder")

    @property
    def decoder(self) -> list[Tensor]:
        """A decoder's self-attention layers, ``(batch, n, n)`` each; empty for an encoder or a vision tower."""
        return self._of("decoder")

    @property
    def cross(self) -> list[Tensor]:
        """A decoder's attention to the encoder's output, ``(batch, n, m)`` a layer; empty where there is none."""
        return self._of("cross")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the attention modules: those of :attr:`encoder`, of :attr:`decoder`, of :attr:`cross`."""
        return tuple(layer.name for stack in ("encoder", "decoder", "cross") for layer in self.stack(stack))

    @property
    def kind(self) -> Literal["encoder", "decoder", "encoder-decoder"]:
        """What kind of model it was, by what it did."""
        if self.stack("cross"):
            return "encoder-decoder"
        return "decoder" if self.stack("decoder") else "encoder"

    def of_text(self, text: int) -> Contributions:
        """One text's part: without its padding, and without the batch's dimension in every tensor.

        Parameters
        ----------
        text
            Its place in the batch.

        Returns
        -------
        Contributions
            Matrices are ``(n_queries, n_keys)``, `kept` and `visible` ``(n_queries,)``, `logits` ``(n, vocabulary)``.

        Examples
        --------
        >>> from transformers import BertConfig, BertModel
        >>> from attnflow.capture import attentions
        >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = BertModel(BertConfig(vocab_size=11, **size))
        >>> batch = attentions(model, input_ids=[[3, 4, 5], [6, 7, 0]], attention_mask=[[1, 1, 1], [1, 1, 0]])
        >>> [tuple(batch.of_text(text).encoder[0].shape) for text in (0, 1)]
        [(3, 3), (2, 2)]
        """
        batch = self.layers[0].matrix.shape[0]
        if not isinstance(text, int) or not 0 <= text < batch:
            raise InvalidArgumentError(f"text is {text!r}: the batch holds texts 0 ... {batch - 1}")
        real = {stack: mask[text] for stack, mask in self.real.items()}

        def part(tensor: Tensor | None, rows: Tensor | None, keys: Tensor | None = None) -> Tensor | None:
            if tensor is None:
                return None
            own = tensor[text]
            own = own if rows is None or len(rows) != len(own) or bool(rows.all()) else own[rows]
            return own if keys is None or len(keys) != own.shape[-1] or bool(keys.all()) else own[:, keys]

        layers = []
        for layer in self.layers:
            rows = real.get("decoder" if layer.stack == "cross" else layer.stack)
            keys = real.get("encoder") if layer.stack == "cross" else rows
            matrix = part(layer.matrix, rows, keys)
            assert matrix is not None
            layers.append(Layer(layer.name, layer.stack, matrix, part(layer.kept, rows), part(layer.visible, rows)))
        own_rows = real.get("encoder" if self.kind == "encoder" else "decoder")
        return replace(self, layers=tuple(layers), logits=part(self.logits, own_rows), real={})

    def stack(self, stack: Stack) -> list[Layer]:
        """The layers of one stack, from the input up."""
        return [layer for layer in self.layers if layer.stack == stack]

    def _of(self, stack: Stack) -> list[Tensor]:
        return [layer.matrix for layer in self.stack(stack)]
