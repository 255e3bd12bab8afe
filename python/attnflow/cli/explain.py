"""``attnflow explain``: a model and a text, an image or a recording, from a folder or a hub's cache, to a result."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import attnflow

from ._media import image, recording
from ._models import load
from ._output import add_save, give, require_packages
from ._progress import Progress

__all__ = ["add", "run"]

# Options of attnflow.explain that are passed on where they are given.
_AS_GIVEN = ("continuation", "steps", "sources", "memory_limit", "spill")

# Options that not every attribution has: which ones do.
_FLOWS = ("independent", "shapley", "fair", "barrier")
_ON_NETWORK = (*_FLOWS, "rollout", "widest_path")
_ATTRIBUTIONS = (*_ON_NETWORK, "raw_attention", "mean_attention", "gradient_x_input", "leave_one_out", "random")
_OF_SOME = {
    "residual": _ON_NETWORK,
    "receptive_field": _ON_NETWORK,
    "chain": tuple(name for name in _ON_NETWORK if name != "rollout"),
    "keep": _ON_NETWORK,
    "below": _ON_NETWORK,
    "leave_out": ("leave_one_out",),
    "permutations": ("shapley",),
    "tolerance": ("shapley",),
    "seed": ("shapley", "random"),
}
_SAMPLING = ("permutations", "tolerance", "seed")

# What is neither a word nor a name: positions, or a slip in writing them.
_POSITIONS = re.compile(r"[\d\s,+-]*")


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="explain a prediction of a model",
        description="Explain which tokens of a text a model's prediction, or its answer, drew on; or which patches of "
        "an image, or frames of a recording.",
    )
    parser.add_argument("--model", required=True, metavar="PATH_OR_NAME", help="a folder, or the name of a hub's model")
    parser.add_argument("--gguf-file", metavar="FILE", help="the .gguf file in it, for a model in that format")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--text", help="the text, or - to read it from the standard input")
    given.add_argument("--chat", metavar="TEXT", help="the same, as what a user says to a chat model, which answers")
    given.add_argument("--image", type=Path, metavar="FILE", help="an image, for a vision model (needs pillow)")
    given.add_argument("--audio", type=Path, metavar="FILE.wav", help="a recording, for a speech model")
    parser.add_argument(
        "--target",
        type=_target,
        help="what to explain: a position or several joined (3 or 3,4; -1 is the last), cls (the class token), mean "
        "(over the text's positions), or words of the text, written word:2020 or word:mean where they look like these; "
        "by default the next token of a language model, the class token of an encoder. Of an encoder-decoder, the text "
        "that it is to say, by default what it generates",
    )
    parser.add_argument(
        "--generate",
        type=_tokens,
        metavar="N",
        help="let the model go on for N tokens at most, and explain each (20 where a model has to generate)",
    )
    parser.add_argument("--continuation", metavar="TEXT", help="make a language model go on with this text instead")
    parser.add_argument(
        "--steps", type=_positions, metavar="K[,K...]", help="which tokens of the answer to explain, counted from 0"
    )
    parser.add_argument(
        "--sources",
        type=_sources,
        metavar="WHICH",
        help="whose scores: all (special tokens too), source or decoder (of an encoder-decoder), or positions (3,4)",
    )
    parser.add_argument(
        "--chain",
        action="store_true",
        help="what reached a token of the answer goes on where it is read again: only what was given plays",
    )
    parser.add_argument(
        "--receptive-field", action="store_true", help="divide scores by how many positions attend to each token"
    )
    parser.add_argument(
        "--merge",
        choices=["sublayers", "single"],
        default="sublayers",
        help="a decoder layer behind an encoder as two blocks (default) or as one",
    )
    parser.add_argument(
        "--measure",
        help="contribution measure: alti, attention, attention_gradient, attention_x_gradient, value_norm or "
        "value_norm_residual; by default alti where there is a network, else attention",
    )
    parser.add_argument(
        "--objective",
        action="append",
        metavar="TOKEN",
        help="what gradients are taken of, and what tokens are left out for: this token's logit, by default the "
        "predicted one; given twice, the difference of the two",
    )
    parser.add_argument(
        "--calibration", choices=["excess", "none"], default="excess", help="excess (default), or none: plain flow"
    )
    parser.add_argument(
        "--attribution",
        choices=_ATTRIBUTIONS,
        default="independent",
        help="independent: each player's flow alone (default). shapley, fair, barrier: shares of what all send "
        "together, as Shapley values, as the fair split of one joint flow, or as the centre of all of them. The others "
        "are no flows, but what these are compared with",
    )
    parser.add_argument(
        "--units",
        choices=["tokens", "words", "sentences"],
        default="tokens",
        help="what the players are: tokens (default), words or sentences",
    )
    parser.add_argument(
        "--leave-out",
        choices=["mask", "delete"],
        help="of leave_one_out: put a mask in a token's place (default), or take it out of the text",
    )
    parser.add_argument(
        "--permutations", type=_orders, metavar="N", help="of Shapley values: orders to draw (1000; even)"
    )
    parser.add_argument(
        "--tolerance", type=_tolerance, metavar="T", help="of Shapley values: draw until no standard error is larger"
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="of Shapley values and random: where chance begins")
    parser.add_argument("--residual", type=_share, metavar="R", help="weight of the residual connection, 0 to 1")
    parser.add_argument("--heads", type=_heads, default="mean", help="mean (default), max, min, or one head's number")
    parser.add_argument(
        "--start-token",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="prepend the tokenizer's start token; by default where the tokenizer has one and the text lacks it",
    )
    parser.add_argument(
        "--compare",
        nargs="*",
        choices=_ATTRIBUTIONS,
        metavar="ATTRIBUTION",
        help="show others beside it: attributions as above, or without a name the published method, plain attention "
        "flow",
    )
    parser.add_argument(
        "--keep", type=_edges, metavar="K", help="for long texts: only the K largest capacities of each row"
    )
    parser.add_argument("--below", type=_share, metavar="C", help="for long texts: no capacities below C")
    parser.add_argument(
        "--memory-limit",
        type=_gigabytes,
        metavar="GB",
        help="what captured matrices may take, by default half of it all",
    )
    parser.add_argument("--spill", type=Path, metavar="FOLDER", help="put captured matrices into files there instead")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu (default), cuda, cuda:1, mps, ...")
    parser.add_argument("--threads", type=_threads, metavar="N", help="threads to use; by default one a core")
    add_save(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Load the model, explain, show, and write what was asked for."""
    methods = _methods(arguments)
    subject = _subject(arguments)
    require_packages(arguments.save)
    with Progress() as progress:
        progress.say("loading the model")
        kind = "image" if arguments.image else "audio" if arguments.audio else "text"
        model, tokenizer = load(
            arguments.model, arguments.gguf_file, arguments.threads, kind=kind, device=arguments.device
        )
        import torch  # which loading needed

        options: dict[str, Any] = {
            "target": arguments.target,
            "heads": arguments.heads,
            "start_token": "auto" if arguments.start_token is None else arguments.start_token,
            "threads": arguments.threads,
        }
        for name in _AS_GIVEN:
            if (value := getattr(arguments, name)) is not None:
                options[name] = value
        if arguments.merge != "sublayers":
            options["merge"] = arguments.merge
        if arguments.units != "tokens":
            options["units"] = arguments.units
        options |= _generation(arguments, attnflow.capture.is_encoder_decoder(model))
        # All of them are to explain the same answer, of a model that draws lots as well.
        chance = torch.get_rng_state()
        results = []
        for stage, method in methods:
            torch.set_rng_state(chance)
            step = progress.stage(stage)
            results.append(attnflow.explain(model, tokenizer, subject, progress=step, **method, **options))
    result, *others = results
    give(result, others, arguments.save)


def _methods(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """What is computed, the first and what it is compared with: what each is called meanwhile, and its options."""
    asked: str = arguments.attribution
    others = list(dict.fromkeys(arguments.compare or ()))
    if asked in others:
        raise attnflow.errors.InvalidArgumentError(f"--compare {asked}: this is what is shown already")
    if arguments.chain:
        for name in others:
            if name not in _OF_SOME["chain"]:
                raise attnflow.errors.InvalidArgumentError(f"--chain has no meaning for --compare {name}")
    everyone = [asked, *others]
    asked_for = {name: getattr(arguments, name) for name in _OF_SOME}
    given = {name: value for name, value in asked_for.items() if value is not None and value is not False}
    if arguments.objective:
        given["objective"] = [_token(token) for token in arguments.objective]
    methods: list[tuple[str, dict[str, Any]]] = []
    for attribution in everyone:
        method: dict[str, Any] = {
            "measure": arguments.measure,
            "calibration": None if arguments.calibration == "none" else arguments.calibration,
            "residual": None,
        }
        if attribution != "independent":
            method["attribution"] = attribution
        mine = {name: value for name, value in given.items() if name in _fitting(attribution, everyone, arguments)}
        sampling = {name: mine.pop(name) for name in _SAMPLING if name in mine}
        method |= mine
        if sampling:
            method["sampling"] = sampling
        methods.append((f"explaining by {attribution}" if methods else "explaining", method))
    if arguments.compare is not None and not others:
        shared = ("chain", "receptive_field", "keep", "below")
        published: dict[str, Any] = {name: value for name, value in given.items() if name in shared}
        published |= {"measure": "attention", "calibration": None, "residual": 0.5}
        methods.append(("explaining as published", published))
    return methods


def _fitting(attribution: str, everyone: list[str], arguments: argparse.Namespace) -> list[str]:
    """The options that go to one of several attributions.

    What none of them has goes to the first, and is refused with the library's reason.
    """
    by_gradient = "gradient" in (arguments.measure or "")
    probing = ("gradient_x_input", "leave_one_out")
    able = _OF_SOME | {"objective": tuple(a for a in _ATTRIBUTIONS if a in probing or (by_gradient and a != "random"))}
    first = attribution == everyone[0]
    return [name for name, of in able.items() if attribution in of or (first and not set(of) & set(everyone))]


def _subject(arguments: argparse.Namespace) -> Any:
    """What is to be explained, read before a model is loaded for nothing."""
    if arguments.image:
        return image(arguments.image)
    if arguments.audio:
        return recording(arguments.audio)
    text = _text(arguments.chat if arguments.text is None else arguments.text)
    if not text:
        raise attnflow.errors.InvalidArgumentError("the text is empty: there is nothing to explain")
    return text if arguments.chat is None else [{"role": "user", "content": text}]


def _generation(arguments: argparse.Namespace, two_stacks: bool) -> dict[str, Any]:
    """Whether the model is to answer, and how far."""
    wanted = arguments.generate is not None or arguments.chat is not None
    if arguments.continuation is not None or (two_stacks and arguments.target is not None):
        if arguments.generate is not None:
            raise attnflow.errors.InvalidArgumentError("--generate has no meaning where the answer is given")
        return {}
    return {"generate": {"max_new_tokens": arguments.generate or 20}} if wanted or two_stacks else {}


def _token(value: str) -> int | str:
    return int(value) if value.isdecimal() else value


def _text(text: str) -> str:
    # The line end that a shell's echo adds is not part of what was meant.
    given = text if text != "-" else sys.stdin.read().removesuffix("\n")
    given.encode()  # found out before a model is loaded; main() reports what is not valid text
    return given


# -- what an argument may be: argparse turns the errors into wrong usage ----------------------------------------------


def _target(value: str) -> int | list[int] | str:
    if not _POSITIONS.fullmatch(value):
        return value
    try:
        positions = _positions(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; if it stands in the text, write 'word:{value}'") from None
    return positions[0] if len(positions) == 1 else positions


def _positions(value: str) -> list[int]:
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is neither a position nor several such as 3,4") from None


def _sources(value: str) -> str | list[int]:
    return value if value in ("all", "source", "decoder") else _positions(value)


def _gigabytes(value: str) -> int:
    return int(_positive(value, "number of gigabytes") * 1e9)


def _heads(value: str) -> str | int:
    if value in ("mean", "max", "min"):
        return value
    if value.isdecimal():
        return int(value)
    raise argparse.ArgumentTypeError(f"{value!r} is neither mean, max or min nor the number of a head")


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number from 0 to 1")
    return share


def _threads(value: str) -> int:
    return _count(value, "threads")


def _edges(value: str) -> int:
    return _count(value, "capacities")


def _tokens(value: str) -> int:
    return _count(value, "tokens")


def _orders(value: str) -> int:
    return _count(value, "orders")


def _seed(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is no seed: it must be 0 or more")
    return int(value)


def _tolerance(value: str) -> float:
    return _positive(value, "tolerance")


def _positive(value: str, what: str) -> float:
    try:
        size = float(value)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r} is no {what}: it must be above 0")
    return size


def _count(value: str, of: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of {of}: it must be 1 or more")
    return int(value)
