"""A short example for each kind of model: what to call, what comes back, and a page to look at.

    python examples/kinds.py                      # all of them: a minute or two
    python examples/kinds.py arithmetic molecules # some of them
    python examples/kinds.py --folder pages       # where the pages go; by default the current folder

Each function below stands for itself, and is short enough to be copied. The models are trained ones that come from pip
packages; one that is not installed is named with the command that installs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import transformers

import attnflow
from attnflow import Attribution, packaged_models
from attnflow.errors import MissingDependencyError


def generation() -> Attribution:
    """A language model goes on with a text: what each new token drew on."""
    model, tokenizer = packaged_models.load_smollm2()
    result: Attribution = attnflow.explain(model, tokenizer, "The capital of France is", generate={"max_new_tokens": 4})
    tell(result)
    return result


def chat() -> Attribution:
    """A language model answers in a conversation; chained, so that only the conversation plays."""
    model, tokenizer = packaged_models.load_smollm2()
    conversation = [{"role": "user", "content": "Name the largest planet."}]
    result: Attribution = attnflow.explain(model, tokenizer, conversation, generate={"max_new_tokens": 6}, chain=True)
    tell(result)
    return result


def molecules() -> Attribution:
    """An encoder-decoder translates, here paracetamol into a molecule like it; what of the source each step drew on."""
    model, tokenizer = packaged_models.load_annalog()
    result: Attribution = attnflow.explain(model, tokenizer, "CC(=O)Nc1ccc(O)cc1", sources="source", chain=True)
    tell(result)
    return result


def reactions() -> Attribution:
    """A masked language model fills in an atom of a reaction's product: which atoms it was found by."""
    model, tokenizer = packaged_models.load_rxnmapper()
    result: Attribution = attnflow.explain(model, tokenizer, "CCO.BrCC>>CC[MASK]CC", target="[MASK]")
    assert result.prediction is not None
    print(f"predicted: {result.prediction[0]!r}, {result.prediction[1]:.1%}")
    tell(result)
    return result


def arithmetic() -> Attribution:
    """A language model small enough to read: the two digits of a sum, each with what it drew on."""
    model, tokenizer = packaged_models.load_mathformer("add")
    result: Attribution = attnflow.explain(model, tokenizer, "6+9=", generate={"max_new_tokens": 2})
    tell(result)
    return result


def image() -> Attribution:
    """A vision transformer looks at a red disc on grey: which patches its summary of the image drew on."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (224, 224), (128, 128, 128))
    ImageDraw.Draw(picture).ellipse((28, 112, 112, 196), fill=(200, 30, 30))
    model, processor = packaged_models.load_dinov2()
    result: Attribution = attnflow.explain(model, processor, picture)
    scores = result.on_grid()
    disc = np.asarray(picture.resize((256, 256)).crop((16, 16, 240, 240)).resize(scores.shape[::-1]))[..., 1] < 100
    print(f"{disc.mean():.0%} of the patches are on the disc, and hold {scores[disc].sum() / scores.sum():.0%} of it")
    tell(result)
    return result


def speech() -> Attribution:
    """Whisper listens to a tone of two seconds: which of its 1,500 moments the first words drew on."""
    time = np.arange(2 * 16000) / 16000
    sound = (0.5 * np.sin(2 * np.pi * (200 * time + 150 * time * time))).astype(np.float32)
    model, processor = packaged_models.load_whisper()
    result: Attribution = attnflow.explain(
        model, processor, sound, measure="attention", sources="source", steps=[0, 1], generate={"max_new_tokens": 4}
    )
    scores = result.on_grid()
    print(f"the tone is {100 / 1500:.0%} of the recording, and holds {scores[:100].sum() / scores.sum():.0%} of step 1")
    tell(result)
    return result


def arrays() -> Attribution:
    """Attention from anywhere, as numpy arrays: no model, no torch. The result is put together by hand."""
    words = ["the", "keys", "to", "the", "cabinet", "are"]
    attention = np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=(4, 6))  # 4 layers; rows sum to 1
    network = attnflow.Network.encoder(attention, residual=0.5, calibration="excess")
    flows = network.source_flows(sinks=[5], bottlenecks=True, check=True)
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    result = Attribution(
        tokens=tuple(words),
        offsets=tuple((int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)),
        text=" ".join(words),
        players=np.arange(6),
        targets=((5,),),
        target_label="output at 'are'",
        values=flows.values,
        lower=flows.lower,
        upper=flows.upper,
        bottlenecks=np.asarray(flows.bottlenecks),
        kind="encoder",
        n_layers=4,
        n_nodes=network.n_nodes,
        n_edges=network.n_edges,
        definition="independent maximum flows through random attention, as excess over an even spread",
        verified=True,
    )
    tell(result)
    return result


EXAMPLES: dict[str, Callable[[], Attribution]] = {
    example.__name__: example for example in (arithmetic, molecules, reactions, generation, chat, image, speech, arrays)
}


def tell(result: Attribution) -> None:
    """The three highest scores of each thing that was explained."""
    labels = result.sink_labels or (result.target_label,)
    for sink, label in enumerate(labels):
        drawn_on = [row for row in result.top(3, sink) if row.score > 0]
        best = ", ".join(f"{row.token!r} at {row.position} ({row.score:.3f})" for row in drawn_on) or "nothing"
        print(f"{label!r}: {best}" if result.sink_labels else f"{label}: {best}")


def main() -> None:
    """Run the examples that are named, or all, and save a page of each."""
    parser = argparse.ArgumentParser(description="A short example for each kind of model.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(EXAMPLES)}; by default all")
    parser.add_argument("--folder", type=Path, default=Path(), help="where pages are written")
    options = parser.parse_args()
    unknown = set(options.kinds) - set(EXAMPLES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(EXAMPLES)}")
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    options.folder.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds or EXAMPLES:
        print(f"== {kind}: {EXAMPLES[kind].__doc__}")
        try:
            result = EXAMPLES[kind]()
        except MissingDependencyError as error:
            print(error, file=sys.stderr)
            continue
        print(f"wrote {result.save(options.folder / f'attnflow-{kind}.html')}\n")


if __name__ == "__main__":
    main()
