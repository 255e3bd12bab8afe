"""``attnflow show FILE``: a saved result, as text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import attnflow

from ._output import add_save, give, require_packages

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "show", help="show a saved result", description="Show a result that was saved as .json or .npz."
    )
    parser.add_argument("file", type=Path, help="a .json or .npz file")
    parser.add_argument(
        "--compare", type=Path, action="append", default=[], metavar="FILE", help="a second result, shown beside it"
    )
    add_save(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Load, show, and write what was asked for."""
    require_packages(arguments.save)
    result = attnflow.Attribution.load(arguments.file)
    others = [attnflow.Attribution.load(path) for path in arguments.compare]
    give(result, others, arguments.save)
