"""Which layers ought to report their attention, and the assertion that each did.

Every way in which a capture can fail - a layer that goes round the interface, a module that reports twice, a linear
attention that never had probabilities - is silent: the matrices that did arrive look perfectly well. So the calls are
counted against the model's own structure.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from attnflow.capture._inputs import require_module, text_configuration
from attnflow.capture._state import hooked, in_this_thread
from attnflow.errors import CaptureError

__all__ = [
    "Called",
    "IncompleteError",
    "Stack",
    "arrange",
    "can_generate",
    "encoder_name",
    "expected_calls",
    "is_called_attention",
    "is_causal",
    "layer_of",
    "listens_at_interface",
    "noticing",
    "refuse_hybrid",
    "uses_interface",
    "verify_none_silent",
]

Stack = Literal["encoder", "decoder", "cross"]

_HYBRID = (
    "Hybrid models have layers without softmax attention, through which no attention flow is defined; if this layer "
    "does have one, build the matrices yourself and pass them to attnflow.Network"
)


def listens_at_interface(module: nn.Module) -> bool:
    """Whether a module asks transformers' attention interface for its attention function.

    Read off the compiled code of its class: decorators are unwrapped, and a patched instance (accelerate's offloading)
    does not hide it.
    """
    forward = inspect.unwrap(type(module).forward)
    code = getattr(forward, "__code__", None)
    return code is not None and "get_interface" in code.co_names


def uses_interface(model: nn.Module) -> bool:
    """Whether any module of the model does."""
    return any(listens_at_interface(module) for module in model.modules())


def places(model: nn.Module, name: str) -> list[tuple[str, int]]:
    """The stacks a module belongs to, innermost first: ``[("model.layers", 3)]`` for ``"model.layers.3.self_attn"``.

    There can be several: ALBERT keeps a list of groups of lists of layers, T5 a list of blocks of lists of sub-blocks.
    """
    parts = name.split(".")
    stacks = ((".".join(parts[:end]), int(parts[end])) for end in range(len(parts) - 1, -1, -1) if parts[end].isdigit())
    return [place for place in stacks if isinstance(model.get_submodule(place[0]), nn.ModuleList | nn.Sequential)]


def layer_of(model: nn.Module, name: str) -> str | None:
    """Name of the innermost layer around a module, or None."""
    found = places(model, name)
    return f"{found[0][0]}.{found[0][1]}" if found else None


def refuse_hybrid(model: nn.Module, name: str) -> None:
    """Raise if the stack around an attention module has a layer without any."""
    stack, _ = places(model, name)[-1]
    for index, layer in enumerate(model.get_submodule(stack).children()):
        if not uses_interface(layer):
            raise CaptureError(f"layer '{stack}.{index}' has no attention that could be captured. {_HYBRID}")


def is_called_attention(module: nn.Module) -> bool:
    """Whether the name of a module's class says that it is an attention."""
    return "attention" in type(module).__name__.lower()


@contextmanager
def noticing(model: nn.Module) -> Iterator[set[str]]:
    """Collects the names of modules that run, are called an attention, and stand in a stack of layers."""
    ran: set[str] = set()

    def note(name: str, *_: object) -> None:
        ran.add(name)

    attentions = [
        (name, module) for name, module in model.named_modules() if is_called_attention(module) and places(model, name)
    ]
    with hooked(module.register_forward_pre_hook(in_this_thread(partial(note, name))) for name, module in attentions):
        yield ran


def verify_none_silent(model: nn.Module, ran: set[str], called: Sequence[Called]) -> None:
    """Assert that each attention that ran is one that reported, a part of one, or around one.

    Where one tower of a model reports and another does not, the layers that did look complete.
    """
    told = [one.name for one in called]
    for name in sorted(ran):
        if not any(f"{one}.".startswith(f"{name}.") or name.startswith(f"{one}.") for one in told):
            raise IncompleteError(
                f"layer {name!r} ({type(model.get_submodule(name)).__name__}) ran and did not report its attention, "
                f"while {len(told)} others did: capture the part that you want to explain, or build the matrices "
                "yourself and pass them to attnflow.Network"
            )


def expected_calls(config: Any) -> int | None:
    """How many layers the configuration promises, or None if it does not say."""
    number = getattr(config, "num_hidden_layers", None)
    if not isinstance(number, int):
        return None
    # ALBERT runs this many layers each time it goes through a group.
    return number * int(getattr(config, "inner_group_num", 1) or 1)


def encoder_name(model: nn.Module) -> str | None:
    """Name of the module that is the encoder of an encoder-decoder model, or None for a model of another kind."""
    config = getattr(model, "config", None)
    getter = getattr(model, "get_encoder", None)
    if getter is None or not getattr(config, "is_encoder_decoder", False):
        return None
    encoder = getter()
    names = {module: name for name, module in model.named_modules()}
    return names.get(encoder) or None  # the model itself is "": it is the encoder of another


def can_generate(model: nn.Module) -> bool:
    """Whether a model says that it generates."""
    return bool(getattr(model, "can_generate", lambda: False)())


def decoder_name(model: nn.Module) -> str | None:
    """Name of the module that is the decoder of an encoder-decoder model, or None."""
    decoder = getattr(model, "get_decoder", lambda: None)()
    names = {module: name for name, module in model.named_modules()}
    return names.get(decoder) or None


class IncompleteError(CaptureError):
    """A layer did not report, or reported where none was expected: another way of capturing may fare better."""


@dataclass(frozen=True)
class Called:
    """An attention that reported: the name of its module, and whether it looked at another sequence."""

    name: str
    cross: bool


def arrange(
    model: nn.Module, config: Any, called: Sequence[Called], alone: Stack, *, encoded: bool = False
) -> tuple[list[str], list[Stack]]:
    """Name each report and the stack it belongs to, having asserted that each layer reported once and in order.

    Parameters
    ----------
    model, config
        The model, and the configuration of its text part.
    called
        The reports, in their order.
    alone
        What a single stack of layers is that attends to nothing but itself.
    encoded
        Whether the model was given its encoder's output, and did not run the encoder.

    Returns
    -------
    names
        One a report. Layers that share a module (ALBERT) are told apart by ``#0``, ``#1``, ...
    stacks
        One a report.

    Raises
    ------
    IncompleteError
        Naming the layer that is missing or reported twice.
    """
    if not called:
        raise IncompleteError(
            f"{type(model).__name__} has no attention to capture: no layer asks transformers' attention interface, and "
            "none returns attention weights. Models without attention (Mamba and other state space models) have no "
            "attention flow; take a transformer, or pass matrices of your own to attnflow.Network"
        )
    encoder = encoder_name(model)
    inside = [encoder is not None and one.name.startswith(f"{encoder}.") for one in called]
    for part, name, reported in (
        ("encoder", encoder, any(inside) or encoded),
        ("decoder", decoder_name(model) if encoder else None, not all(inside)),
    ):
        if name is not None and not reported:
            raise IncompleteError(
                f"{type(model).__name__}: no layer of its {part} {name!r} reported its attention, only "
                f"{len(called)} others did. Its attention may be local or of another kind, of which no matrix is "
                "known: build the matrices yourself and pass them to attnflow.Network"
            )
    if all(inside):
        encoder = None  # nothing but an encoder: how the model calls it does not matter
        inside = [False] * len(called)
    crossing = any(one.cross for one in called)
    tower = _tower(model, called) if encoder is None and not crossing else [False] * len(called)
    stacks: list[Stack] = [
        "cross" if one.cross else "encoder" if within else "decoder" if encoder or crossing or any(tower) else alone
        for one, within in zip(called, (a or b for a, b in zip(inside, tower, strict=True)), strict=True)
    ]
    names = [one.name for one in called]
    layers: dict[Stack, list[int]] = {}
    for stack in dict.fromkeys(stacks):
        members = [index for index, own in enumerate(stacks) if own == stack]
        # The configuration's number of layers is that of the text's stack, where there is one stack of text.
        counted = encoder is None and stack != "cross" and not (any(tower) and stack == "encoder")
        promised = expected_calls(config) if counted else None
        told, layers[stack] = _verify([names[index] for index in members], model, promised)
        for index, name in zip(members, told, strict=True):
            names[index] = name
    if crossing and layers["cross"] != layers.get("decoder"):
        raise IncompleteError(
            f"{type(model).__name__}: layers {layers.get('decoder', [])} of its decoder attend to themselves and "
            f"layers {layers['cross']} to another sequence: each layer must do both for a network to be made of them"
        )
    if encoder is not None and not crossing:
        raise IncompleteError(
            f"{type(model).__name__}: its decoder reported no attention to the encoder's output "
            f"({len(called)} other reports), so that nothing is known of how the two are joined"
        )
    return names, stacks


def _tower(model: nn.Module, called: Sequence[Called]) -> list[bool]:
    """Which reports come from the tower of images or sound that stands before a language model, if one does."""
    language_model = decoder_name(model)
    # Without a head it is known by its name: what CLIP calls its decoder is a tower beside the other.
    if language_model is not None and language_model.rpartition(".")[2] != "language_model":
        language_model = language_model if can_generate(model) else None
    own = [language_model is not None and one.name.startswith(f"{language_model}.") for one in called]
    return [any(own) and not one for one in own]


def _verify(called: Sequence[str], model: nn.Module, expected: int | None) -> tuple[list[str], list[int]]:
    """Names of one stack's layers, told apart, and their indices in it."""
    found = [places(model, name) for name in called]
    # The innermost stack that holds them all.
    common = [stack for stack, _ in found[0] if all(stack in dict(other) for other in found)]
    if not common and len(called) > 1:
        stacks = sorted({other[-1][0] if other else "" for other in found})
        raise IncompleteError(
            f"attention came from several stacks of layers ({', '.join(stacks)}), and which feeds which is unknown: "
            "capture a model with a single stack"
        )
    stack = common[0] if common else ""
    indices = [dict(other).get(stack, 0) for other in found]
    modules = model.get_submodule(stack)
    length = len(modules) if isinstance(modules, nn.ModuleList | nn.Sequential) else 1

    if len(set(called)) < len(called):
        # The same module more than once: right for layers that share their weights, wrong for anything else, and the
        # configuration alone can tell.
        if len(called) != expected:
            repeated = next(name for name in called if called.count(name) > 1)
            promised_text = (
                "does not say how many layers there are" if expected is None else f"promises {expected} layers"
            )
            raise IncompleteError(
                f"layer {repeated!r} reported its attention {called.count(repeated)} times, {len(called)} reports in "
                f"all, and the configuration {promised_text}"
            )
        return [f"{name}#{number}" for number, name in enumerate(called)], list(range(len(called)))

    promised = list(range(length if expected is None else min(length, expected)))
    if indices == promised:
        return list(called), indices
    missing = sorted(set(promised) - set(indices))
    if missing:
        raise IncompleteError(
            f"layer '{stack}.{missing[0]}' did not report its attention ({len(called)} of {len(promised)} layers did). "
            f"{_HYBRID}"
        )
    raise IncompleteError(f"layers of {stack!r} reported in the order {indices}, expected {promised}")


def is_causal(model: nn.Module) -> bool:
    """Whether a model looks like one whose positions see no later ones, judged by what it says of itself.

    A guess for what must be decided before the model runs; what it did is in :attr:`Contributions.kind`.

    Examples
    --------
    >>> from transformers import BertConfig, BertModel
    >>> from attnflow.capture import is_causal
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> is_causal(BertModel(BertConfig(vocab_size=11, **size)))
    False
    """
    require_module(model)
    stated = [getattr(module, "is_causal", None) for module in model.modules()]
    flags = [value for value in stated if isinstance(value, bool)]
    if flags:
        return any(flags)
    config = text_configuration(model)
    return bool(getattr(config, "is_decoder", False)) or type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
