"""Which models of the installed transformers `attnflow.capture.attentions` reads, tried on a tiny one of each.

Writes docs/coverage.md and benchmarks/results/coverage.json. Every class runs in an isolated worker: a crash or a hang
is a row of the table. Exits with 1 if any row is silently wrong.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from arguments import at_least_one, is_whole, seconds
from environment import RESULTS, ROOT

TOLERANCE = 1e-6
# A float32 score is rounded in proportion to its size, and the exponential passes that on: beyond this size, which T5
# and others that do not scale their scores reach, the tolerance grows in proportion.
LARGE_SCORE = 5
_LIST = "import json, tiny_models as t; print(json.dumps([[c.module, c.name] for c in t.every_class()]))"
STATUS = ("captured", "WRONG", "refused", "error", "no attention", "not run")
_OTHERS = {"pixel_values", "pixel_values_videos", "input_features", "input_values"}
Row = dict[str, Any]
_KEPT = ("family", "class", "status", "kinds", "path", "error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every class, write the table, and fail if one is silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", action="append", help="only this folder of transformers/models; can be repeated")
    parser.add_argument("--workers", type=at_least_one, default=2, help="default 2")
    parser.add_argument("--timeout", type=seconds, default=60.0, help="seconds a class may take, default 60")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return work()
    started = time.monotonic()
    rows = try_all(options.family, options.workers, options.timeout)
    wrong = [row for row in rows if row["status"] == "WRONG"]
    for row in wrong:
        print(f"WRONG {row['family']} {row['class']}: {row['detail']}")
    for status, count in count_by(rows).items():
        print(f"{status:13} {count}")
    print(f"{time.monotonic() - started:.0f} s")
    if is_whole(parser, options):
        (ROOT / "docs" / "coverage.md").write_text(page(rows))
        RESULTS.mkdir(exist_ok=True)
        lines = ",\n".join(json.dumps({name: row[name] for name in _KEPT}) for row in rows)
        (RESULTS / "coverage.json").write_text(f"[\n{lines}\n]\n")
    else:
        for row in rows:
            print(json.dumps(row))
    return int(bool(wrong))


def count_by(rows: list[Row]) -> dict[str, int]:
    """Status -> number of classes."""
    counts = Counter(row["status"] for row in rows)
    return {status: counts[status] for status in STATUS}


# --- The pool -------------------------------------------------------------------------------------------------------


def try_all(families: list[str] | None, workers: int, timeout: float) -> list[Row]:
    """Rows of all classes, in the order of the modelling files."""
    listed = subprocess.run(
        [sys.executable, "-c", _LIST],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env=_environment(),
    )
    tasks: Queue[tuple[int, str, str]] = Queue()
    chosen = json.loads(listed.stdout)
    for number, (module, name) in enumerate(chosen):
        if not families or module.split(".")[-2] in families:
            tasks.put((number, module, name))
    rows: dict[int, Row] = {}
    threads = [threading.Thread(target=_feed, args=(tasks, rows, timeout)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [rows[number] for number in sorted(rows)]


def _environment() -> dict[str, str]:
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **quiet}


def _feed(tasks: Queue[tuple[int, str, str]], rows: dict[int, Row], timeout: float) -> None:
    """Hand tasks to one worker, and start another when it dies."""
    worker: subprocess.Popen[str] | None = None
    while True:
        try:
            number, module, name = tasks.get_nowait()
        except Empty:
            break
        if not name:
            rows[number] = {
                **_row(module, name),
                "status": "not run",
                "detail": "the modelling file cannot be imported",
            }
            continue
        if worker is None:
            worker = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment(),
            )  # fmt: skip
            assert worker.stdout is not None
            worker.stdout.readline()  # it has loaded torch and transformers: the clock starts now
        assert worker.stdin is not None
        assert worker.stdout is not None
        timer = threading.Timer(timeout, worker.kill)
        timer.start()
        try:
            worker.stdin.write(json.dumps([module, name]) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
        except BrokenPipeError:
            line = ""
        late = not timer.is_alive()
        timer.cancel()
        if line:
            rows[number] = json.loads(line)
        else:
            reason = f"took more than {timeout:g} s" if late else f"the process died with {worker.wait()}"
            rows[number] = {**_row(module, name), "status": "error", "detail": reason}
            worker = None
    if worker is not None and worker.stdin is not None:
        worker.stdin.close()
        worker.wait()


# --- One class, in a worker -----------------------------------------------------------------------------------------


def work() -> int:
    """Answer each line of the standard input, a module and a class, with a row."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        module, name = json.loads(line)
        answers.write(json.dumps(examine(module, name)) + "\n")
        answers.flush()
        gc.collect()
    return 0


def _row(module: str, name: str) -> Row:
    _, _, file = module.rpartition("modeling_")
    return {
        "family": module.split(".")[-2],
        "file": file,
        "class": name,
        "kinds": {},
        "path": "",
        "error": None,
        "checked": "",
        "detail": "",
    }


def examine(module: str, name: str) -> Row:
    """Build one class, capture its attention, and compare it with eager's."""
    from eager_reference import reference
    from tiny_models import ModelClass, brief, fit, prepare, reads

    row = _row(module, name)
    try:
        prepared = prepare(ModelClass(module, name))
        eager = reference(prepared.model, prepared.inputs)
    except Exception as error:
        return {**row, "status": "not run", "detail": brief(error).removeprefix("RuntimeError: ")[:200]}
    first = judge(row, prepared.model, prepared.inputs, eager)
    if "input_ids" in prepared.inputs and _OTHERS & reads(prepared.model) and not _OTHERS & set(prepared.inputs):
        first["detail"] = f"{first['detail']} (run on text alone)".strip()
    if first["status"] != "captured" or "input_ids" not in prepared.inputs:
        return first
    padded = fit(prepared.model, batch=2)
    if isinstance(padded, str) or set(padded[0]) != set(prepared.inputs) | (
        {"decoder_attention_mask"} & set(padded[0])
    ):
        return first
    second = judge(row, prepared.model, padded[0], reference(prepared.model, padded[0]))
    if second["status"] == "captured":
        worst = max(first, second, key=lambda row: float(row["error"]))
        return {**worst, "batch": 2}
    if second["status"] == "WRONG":
        return {**second, "detail": f"two padded texts: {second['detail']}"}
    return {**first, "detail": f"one text only: {second['detail']}"}


def judge(row: Row, model: Any, inputs: dict[str, Any], eager: Any) -> Row:
    """Capture, and say whether it is right."""
    from attnflow.errors import AttnflowError
    from eager_reference import agrees_with, eager_twin
    from tiny_models import brief

    try:
        captured = capture(model, inputs)
    except AttnflowError as error:
        if not eager.has_attention:
            return {**row, "status": "no attention", "detail": ""}
        return {**row, "status": "refused", "detail": re.sub(r"^\w+Error: ", "", brief(error))}
    except Exception as error:
        return {**row, "status": "error", "detail": brief(error)}
    kinds = {kind: len(layers) for kind in ("encoder", "decoder", "cross") if (layers := getattr(captured, kind))}
    row = {**row, "kinds": kinds, "path": captured.path}
    from compare_attention import compare

    worst, checked, fault = compare(captured, eager, inputs)
    limit = TOLERANCE * max(1.0, eager.largest_score / LARGE_SCORE)
    remark = ""
    if (fault or worst > limit) and not agrees_with(model, twin := eager_twin(model), inputs):
        # The capture is of the model as it is, and eager is another: then that one is captured and compared.
        worst, checked, fault = compare(capture(twin, inputs), eager, inputs)
        remark = "(its eager pass is not its sdpa pass; compared as loaded with eager)"
    row = {**row, "error": worst if worst < float("inf") else None, "checked": checked, "detail": fault or remark}
    if not fault and worst > limit:
        row["detail"] = f"off by {worst:.1e}, limit {limit:.1e}"
    return {**row, "status": "captured" if not fault and worst <= limit else "WRONG"}


def capture(model: Any, inputs: dict[str, Any]) -> Any:
    """The function under test."""
    import torch

    import attnflow.capture
    from eager_reference import SEED

    torch.manual_seed(SEED)  # some models leave out patches at random
    return attnflow.capture.attentions(model, **inputs)


# --- The page -------------------------------------------------------------------------------------------------------


def page(rows: list[Row]) -> str:
    """docs/coverage.md."""
    counts = count_by(rows)
    families = {status: len({row["family"] for row in rows if row["status"] == status}) for status in STATUS}
    paths = Counter(row["path"] for row in rows if row["status"] == "captured")
    errors = [row["error"] for row in rows if row["status"] == "captured"]
    largest, above = max(errors, default=0.0), sum(error > TOLERANCE for error in errors)
    marks = {"softmaxes": " s", "applied": " a"}
    table = "\n".join(f"| {status} | {counts[status]} | {families[status]} |" for status in STATUS)
    head = f"""# Which models can be captured

Every modelling file of transformers {version("transformers")} (torch {version("torch")}), tried on tiny random models:
`attnflow.capture.attentions` against the mean over heads of what the same weights return with eager attention and
`output_attentions=True`, for one input and, for texts, for two of which one is padded. Written by
`python benchmarks/coverage.py`, which fails if a row says WRONG.

{len(rows)} classes of {len({row["file"] for row in rows})} modelling files:

| | classes | families |
|---|--:|--:|
{table}

Captured through the interface: {paths["interface"]}, by hooks: {paths["hooks"]}. The limit is {TOLERANCE:g} where no
score is larger than {LARGE_SCORE}, and grows in proportion to the largest, as the rounding of scores does: {above}
classes are above {TOLERANCE:g}, with {largest:.1e} at most. Checked against the softmaxes seen in the eager pass (s)
where the model returns no attention or returns it in another form, and against the weights that were applied to the
values (a) where others are returned. An error is an exception other than `CaptureError`. Not run: no tiny model, or no
input for it, could be made without knowing the model, or it needs a package that is not installed.

| family | class | | captured | path | max error | |
|---|---|---|---|---|--:|---|
"""
    lines = []
    for row in rows:
        kinds = ", ".join(f"{kind} {layers}" for kind, layers in row["kinds"].items())
        error = "" if row["error"] is None else f"{row['error']:.0e}{marks.get(row['checked'], '')}"
        detail = row["detail"].replace("|", "\\|").replace("<", "&lt;")
        cells = (row["family"], row["class"], row["status"], kinds, row["path"], error, detail)
        lines.append("| " + " | ".join(cells) + " |")
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
