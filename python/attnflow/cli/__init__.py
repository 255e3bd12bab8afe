"""The command line, ``attnflow explain``, ``show`` and ``bench``. One file a command: parse, call, print."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import attnflow

from . import bench, explain, show

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 an error, 2 wrong usage, 130 interrupted.

    Errors a user can do something about are one line on the standard error; a traceback means a bug.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.version:
            print(f"attnflow {attnflow.__version__}")
            return 0
        if arguments.command is None:
            parser.print_help(sys.stderr)
            return 2
        arguments.run(arguments)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except SystemExit as request:  # argparse ends with it, after its message, also from inside a command
        return request.code if isinstance(request.code, int) else 2
    except BrokenPipeError:
        # The reader of a pipe, say `head`, has seen enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("attnflow: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (attnflow.AttnflowError, OSError, UnicodeError) as error:
        print(f"attnflow: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnflow",
        description="Which tokens a transformer's prediction drew on, by exact maximum flow through its attention.",
    )
    parser.add_argument("--version", action="store_true", help="say which version this is, and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    explain.add(commands)
    show.add(commands)
    bench.add(commands)
    return parser


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
