"""Pictures of a result: terminal, HTML, SVG, and the files it is stored in.

Each view is a pure function of one or more :class:`~attnflow.attribution.Attribution` and returns a string; only
:func:`show` prints. What needs rich or jinja2 is imported when it is used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..attribution import Attribution

__all__ = ["show"]


def show(*results: Attribution, file: TextIO | None = None, limit: int | None = 60) -> None:
    """Show results where the reader is: a page in a notebook, text in a terminal, plain text in a pipe."""
    if file is None and (display := _notebook()) is not None:
        from . import html

        display({"text/html": html.fragment(*results), "text/plain": repr(results[0])}, raw=True)
        return
    from . import terminal  # says what to install if rich is missing
    from rich.console import Console  # isort: skip

    file = sys.stdout if file is None else file
    console = Console(file=file)  # knows about terminals, NO_COLOR, COLUMNS and the like
    system: Any = None if console.no_color or not console.is_terminal else console.color_system
    text = terminal.render(
        *results, width=console.width, colours="truecolor" if system == "windows" else system, limit=limit
    )
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), end="", file=file)


def _notebook() -> Any:
    """IPython's display function if this is a notebook, else None. Nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):  # no kernel: IPython in a terminal
        return None
    from importlib import import_module

    return import_module("IPython.display").display
