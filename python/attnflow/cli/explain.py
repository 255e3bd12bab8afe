"""``attnflow explain``: a model and a text, from a folder or a model hub's cache, to a result."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

import attnflow

from ._models import load
from ._output import add_save, give, require_packages
from ._progress import Progress

__all__ = ["add", "run"]

# What is neither a word nor a name: positions, or a slip in writing them.
_POSITIONS = re.compile(r"[\d\s,+-]*")


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="explain a prediction of a model",
        description="Explain which tokens of a text a model's prediction drew on.",
    )
    parser.add_argument("--model", required=True, metavar="PATH_OR_NAME", help="a folder, or the name of a hub's model")
    parser.add_argument("--gguf-file", metavar="FILE", help="the .gguf file in it, for a model in that format")
    parser.add_argument("--text", required=True, help="the text, or - to read it from the standard input")
    parser.add_argument(
        "--target",
        type=_target,
        help="what to explain: a position or several joined (3 or 3,4; -1 is the last), cls (the class token), mean "
        "(over the text's positions), or words of the text, written word:2020 or word:mean where they look like these; "
        "by default the next token of a language model, the class token of an encoder",
    )
    parser.add_argument("--measure", default="alti", help="contribution measure: alti (default) or attention")
    parser.add_argument(
        "--calibration", choices=["excess", "none"], default="excess", help="excess (default), or none: plain flow"
    )
    parser.add_argument("--residual", type=_share, metavar="R", help="weight of the residual connection, 0 to 1")
    parser.add_argument("--heads", type=_heads, default="mean", help="mean (default), max, min, or one head's number")
    parser.add_argument(
        "--start-token",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="prepend the tokenizer's start token; by default where the tokenizer has one and the text lacks it",
    )
    parser.add_argument(
        "--compare", action="store_true", help="show the published method, plain attention flow, beside it"
    )
    parser.add_argument("--threads", type=_threads, metavar="N", help="threads to use; by default one a core")
    add_save(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Load the model, explain, show, and write what was asked for."""
    text = _text(arguments.text)
    if not text:
        raise attnflow.errors.InvalidArgumentError("the text is empty: there is nothing to explain")
    require_packages(arguments.save)
    with Progress() as progress:
        progress.say("loading the model")
        model, tokenizer = load(arguments.model, arguments.gguf_file, arguments.threads)
        options: dict[str, Any] = {
            "target": arguments.target,
            "heads": arguments.heads,
            "start_token": "auto" if arguments.start_token is None else arguments.start_token,
            "threads": arguments.threads,
        }
        calibration = None if arguments.calibration == "none" else arguments.calibration
        result = attnflow.explain(
            model,
            tokenizer,
            text,
            measure=arguments.measure,
            calibration=calibration,
            residual=arguments.residual,
            progress=progress.stage("explaining"),
            **options,
        )
        others = []
        if arguments.compare:
            published: dict[str, Any] = {"measure": "attention", "calibration": None, "residual": 0.5}
            step = progress.stage("explaining as published")
            others.append(attnflow.explain(model, tokenizer, text, progress=step, **published, **options))
    give(result, others, arguments.save)


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
        positions = [int(part) for part in value.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{value!r} is neither a position nor several such as 3,4; if it stands in the text, write 'word:{value}'"
        ) from None
    return positions[0] if len(positions) == 1 else positions


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
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of threads: it must be 1 or more")
    return int(value)
