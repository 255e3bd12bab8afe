"""What looking at attention costs: time and peak memory of a capture beside the model's own pass.

Three ways through the same model, one text, one thread: the plain pass with sdpa, `attnflow.capture.attentions`, and
what others do, an eager pass with `output_attentions=True`. Times are the best of rounds in which the three take turns,
in one process; peaks of resident memory, weights included, are of a process of its own for each (Linux: ``VmHWM``). The
captured matrices are part of a capture's peak: they are its result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from arguments import at_least_one
from attnflow import bench
from environment import RESULTS

WAYS = ("sdpa", "capture", "eager")
MODELS = ("SmolLM2", "MiniLM", "GPT-2", "Llama", "T5")
LENGTHS = (256, 512, 1024, 2048, 4096)
# Eager attention keeps all probabilities of all layers: above this it is not tried.
MOST_EAGER_BYTES = 8 << 30
# (n, most that a capture's time may be, as a multiple of sdpa's), and the same of peak memory.
TIME_GOALS = {512: 1.25, 1024: 1.5}
MEMORY_GOALS = {2048: 1.3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and put the rows in the place of those of the same models and lengths in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", nargs="+", type=at_least_one, default=list(LENGTHS))
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "capture.json")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "N", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        model, n, way = options.one
        print(json.dumps(peak(model, int(n), way) if way in WAYS else times(model, int(n), options.rounds)))
        return 0
    rows = {(row["model"], row["n"]): row for row in kept(options.output)}
    record = bench.record()
    print("| model | n | sdpa, s | capture | eager | sdpa, MB | capture | eager |\n|---|--:|--:|--:|--:|--:|--:|--:|")
    for model in options.models:
        for n in options.lengths:
            if not fits(model, n):
                continue
            row = {"model": model, "n": n, "commit": record["commit"], "rounds": options.rounds}
            row["seconds"] = apart(model, n, "times", options.rounds)
            row["peak_bytes"] = {way: apart(model, n, way, 1) for way in row["seconds"]}
            rows[model, n] = row
            print(line(row), flush=True)
            # Row by row: half an hour's work is not lost with the last of it.
            options.output.write_text(json.dumps({**record, "cases": list(rows.values())}, indent=1) + "\n")
    return 0


def kept(file: Path) -> list[dict[str, Any]]:
    """Rows that were measured before."""
    cases: list[dict[str, Any]] = json.loads(file.read_text())["cases"] if file.exists() else []
    return cases


def line(row: dict[str, Any]) -> str:
    """A row of the table: the plain pass, and the others as multiples of it."""

    def ratio(kind: str, way: str) -> str:
        measured = row[kind]
        return f"{measured[way] / measured['sdpa']:.2f} x" if way in measured else "-"

    seconds, peak_bytes = row["seconds"]["sdpa"], row["peak_bytes"]["sdpa"]
    return (
        f"| {row['model']} | {row['n']} | {seconds:.3g} | {ratio('seconds', 'capture')} | {ratio('seconds', 'eager')} "
        f"| {peak_bytes / 1e6:.0f} | {ratio('peak_bytes', 'capture')} | {ratio('peak_bytes', 'eager')} |"
    )


def apart(model: str, n: int, way: str, rounds: int) -> Any:
    """Measured in a process of its own."""
    command = [sys.executable, __file__, "--one", model, str(n), way, "--rounds", str(rounds)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def fits(model: str, n: int) -> bool:
    """Whether a model takes texts of this length."""
    return n <= {"MiniLM": 512}.get(model, 4096)


def load(name: str, n: int) -> tuple[Any, dict[str, Any]]:
    """A model and one text of random tokens."""
    import torch
    import transformers

    from attnflow import packaged_models

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if name == "SmolLM2":
        model = packaged_models.load_smollm2()[0]
    elif name == "MiniLM":
        model = packaged_models.load_minilm()[0]
    elif name == "GPT-2":
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_positions=4096))
    elif name == "Llama":
        size = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 16}
        size |= {"max_position_embeddings": 4096, "vocab_size": 32000}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size))
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config())
    model.eval()
    ids = torch.randint(5, 1000, (1, n), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name == "T5":
        inputs["decoder_input_ids"] = ids[:, : n // 2]
    return model, inputs


def run(model: Any, inputs: dict[str, Any], way: str) -> Any:
    """One pass through the model."""
    import torch

    import attnflow

    if way == "capture":
        return attnflow.capture.attentions(model, **inputs)
    model.set_attn_implementation(way)
    with torch.no_grad():
        result = model(**inputs, use_cache=False, output_attentions=way == "eager")
    model.set_attn_implementation("sdpa")
    return result


def times(name: str, n: int, rounds: int) -> dict[str, float]:
    """Way -> best seconds."""
    model, inputs = load(name, n)
    text = model.config.get_text_config()
    kept = text.num_hidden_layers * text.num_attention_heads * n * n * 4
    best: dict[str, float] = {}
    for _ in range(rounds + 1):
        for way in WAYS:
            if way == "eager" and kept > MOST_EAGER_BYTES:
                continue
            started = perf_counter()
            run(model, inputs, way)
            best[way] = min(best.get(way, float("inf")), perf_counter() - started)
    return best


def peak(name: str, n: int, way: str) -> int:
    """Bytes resident at the highest, in this process, from the first pass on."""
    model, inputs = load(name, n)
    run(model, {key: ids[:, :8] for key, ids in inputs.items()}, way)  # loads what a first call loads
    Path("/proc/self/clear_refs").write_text("5")
    result = run(model, inputs, way)
    status = Path("/proc/self/status").read_text().splitlines()
    del result
    return 1024 * next(int(entry.split()[1]) for entry in status if entry.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main())
