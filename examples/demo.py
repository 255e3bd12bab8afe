"""What did a real language model's prediction draw on? ``make demo`` runs this.

Explains SmolLM2-135M-Instruct's next token by exact maximum flow through its attention, beside the method as it was
published, prints both and writes ``attnflow-demo.html``. The model comes from a pip package: nothing is downloaded from
a model hub.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.status import Status

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import attnflow
from attnflow.packaged_models import load_smollm2

ROOT = Path(__file__).resolve().parents[1]
TEXT = "When Mary and John went to the store, John gave a drink to"
PAGE = ROOT / "attnflow-demo.html"


def main() -> None:
    """Load, explain twice, show, and write the page."""
    parser = argparse.ArgumentParser(description="Explain a prediction of SmolLM2-135M-Instruct.")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="also write the picture of the README")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with console.status("starting") as status:
        started = time.perf_counter()
        say(status, console, "importing torch and transformers")
        hush()
        model, tokenizer = load_smollm2(ROOT / ".cache", progress=lambda what: say(status, console, what))
        loading = time.perf_counter() - started
        say(status, console, "explaining: excess flow on ALTI contributions")
        result = attnflow.explain(model, tokenizer, TEXT, progress=step(status, "excess flow"))
        say(status, console, "explaining: plain attention flow, the published method")
        published = attnflow.explain(
            model,
            tokenizer,
            TEXT,
            measure="attention",
            residual=0.5,
            calibration=None,
            progress=step(status, "plain attention flow"),
        )
    result = replace(result, timings={"loading": loading, **result.timings})
    result.show(compare=[published])
    result.save(PAGE, compare=[published])
    print(f"wrote {PAGE.relative_to(ROOT)}: open it in a browser")
    if arguments.picture is not None:
        # One flow is enough there, and the last word's way up its own column is no sight.
        elsewhere = [pair for pair in result.flows or () if pair.source not in result.targets[0]]
        best = max(elsewhere, key=lambda pair: len({*pair.giver.tolist(), *pair.receiver.tolist()}))
        replace(result, flows=(best,)).save(arguments.picture, compare=[published])


def say(status: Status, console: Console, what: str) -> None:
    """Announce a stage: on a terminal in one line that changes, elsewhere in a line of its own."""
    if console.is_terminal:
        status.update(what)
    else:
        print(f"... {what}", file=sys.stderr, flush=True)


def step(status: Status, method: str) -> Callable[[str, int, int], None]:
    """A callback that shows how far an explanation is."""
    return lambda stage, done, total: status.update(f"{method}: {stage} {done}/{total}")


def hush() -> None:
    """Silence what transformers says while it loads: it is about its own future, and not about this demo."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers")


if __name__ == "__main__":
    main()
