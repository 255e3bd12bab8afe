"""What a command gives out: what could fail in the end is found out before it starts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import attnflow

__all__ = ["add_save", "give", "require_packages", "writable"]

_SUFFIXES = (".html", ".json", ".npz", ".svg")
_HOLD_SEVERAL = (".html", ".svg")


def add_save(parser: argparse.ArgumentParser) -> None:
    """Describe ``--save`` to argparse."""
    parser.add_argument(
        "--save",
        type=writable(*_SUFFIXES),
        action="append",
        default=[],
        metavar="FILE",
        help="write .html, .svg, .json or .npz; may be repeated (.json and .npz hold the first result alone)",
    )


def require_packages(paths: Sequence[Path]) -> None:
    """Refuse to start what could not be shown or saved for want of a package."""
    pages = [("jinja2", f"--save {path}") for path in paths if path.suffix.lower() == ".html"]
    for package, purpose in [("rich", "showing a result in a terminal"), *pages]:
        if find_spec(package) is None:
            raise attnflow.errors.MissingDependencyError(f"{purpose} needs {package}: pip install 'attnflow[views]'")


def give(result: attnflow.Attribution, others: Sequence[attnflow.Attribution], paths: Sequence[Path]) -> None:
    """Show a result with others beside it, and write it to files."""
    result.show(compare=others)
    for path in paths:
        several = path.suffix.lower() in _HOLD_SEVERAL
        result.save(path, compare=others if several else ())
        alone = "" if several or not others else ", the first result: such a file holds one"
        print(f"wrote {path}{alone}", file=sys.stderr)


def writable(*suffixes: str) -> Callable[[str], Path]:
    """What reads an argument as a file of some kinds that can be written, as far as can be told beforehand."""

    def file(value: str) -> Path:
        path = Path(value)
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(
                f"{value!r} must end in {'one of ' * (len(suffixes) > 1)}{', '.join(suffixes)}"
            )
        target = Path(os.path.realpath(path))  # of a link: what would be written
        if target.is_symlink():
            raise argparse.ArgumentTypeError(f"{value!r} is a link to itself")
        if not target.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{value!r} is in a folder that is not there")
        if not os.access(target.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"{value!r} is in a folder that cannot be written to")
        if target.is_dir():
            raise argparse.ArgumentTypeError(f"{value!r} is a folder")
        return path

    return file
