"""``attnflow show FILE``: a saved result, as text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import attnflow

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
    parser.add_argument(
        "--save", type=Path, action="append", default=[], metavar="FILE", help="also write .html, .svg, .json or .npz"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Load, show, and write what was asked for."""
    result = attnflow.Attribution.load(arguments.file)
    others = [attnflow.Attribution.load(path) for path in arguments.compare]
    result.show(compare=others)
    for path in arguments.save:
        result.save(path, compare=others if path.suffix.lower() in (".html", ".svg") else ())
