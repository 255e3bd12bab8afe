"""Propositional formulas, and a small encoder-decoder that learns to satisfy them.

A formula is in Polish notation, an operator before what it joins: ``&|ab!c`` is ``((a or b) and not c)``. The answer is
one value for each of a, b and c, in this order, that makes it true; the model is shown the smallest one, read as a
binary number. Half of the assignments at most make a formula true, so that guessing does not go far.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["ANSWERS", "VARIABLES", "Formula", "answered", "holds", "infix", "sample", "trained"]

VARIABLES = "abc"
ANSWERS = tuple("".join(bits) for bits in product("01", repeat=len(VARIABLES)))
LEAVES = 6

BATCH = 64
RATE = 1e-3


class Formula(NamedTuple):
    """A formula, and the smallest assignment that satisfies it."""

    text: str
    answer: str


def sample(rng: random.Random) -> Formula:
    """A formula with every variable in it, true for one assignment at least and for half of them at most."""
    while True:
        text = _tree(rng, rng.randint(len(VARIABLES), LEAVES))
        if set(VARIABLES) <= set(text):
            satisfying = [answer for answer in ANSWERS if holds(text, answer)]
            if 0 < len(satisfying) <= len(ANSWERS) // 2:
                return Formula(text, satisfying[0])


def _tree(rng: random.Random, leaves: int) -> str:
    left = rng.randint(1, leaves - 1) if leaves > 1 else 0
    text = rng.choice("&|") + _tree(rng, left) + _tree(rng, leaves - left) if left else rng.choice(VARIABLES)
    return "!" + text if rng.random() < 0.25 else text


def holds(text: str, answer: str) -> bool:
    """Whether an assignment, one digit a variable, makes the formula true."""
    if len(answer) != len(VARIABLES) or set(answer) - set("01"):
        return False
    value = dict(zip(VARIABLES, (digit == "1" for digit in answer), strict=True))
    stack: list[bool] = []
    for symbol in reversed(text):
        if symbol == "!":
            stack.append(not stack.pop())
        elif symbol in value:
            stack.append(value[symbol])
        else:
            one, other = stack.pop(), stack.pop()
            stack.append((one and other) if symbol == "&" else (one or other))
    (result,) = stack
    return result


def infix(text: str) -> str:
    """The formula as people write it."""
    words = {"&": "and", "|": "or"}
    stack: list[str] = []
    for symbol in reversed(text):
        if symbol == "!":
            stack.append(f"not {stack.pop()}")
        else:
            stack.append(f"({stack.pop()} {words[symbol]} {stack.pop()})" if symbol in words else symbol)
    return stack.pop()


# --- The model -------------------------------------------------------------------------------------------------------


def trained(*, steps: int, seed: int, cache: Path | None, say: Callable[[str], object]) -> tuple[Any, Any]:
    """A BART of 1.4 million parameters, 3 + 3 layers, and its tokenizer: from `cache`, or trained now."""
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = _tokenizer()
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    layers = {
        f"{side}_{what}": size
        for side in ("encoder", "decoder")
        for what, size in (("layers", 3), ("attention_heads", 4), ("ffn_dim", 512))
    }
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        **layers,
        max_position_embeddings=64,
        dropout=0.0,  # no formula comes twice
        init_std=0.08,  # 0.02 is for models a hundred times as large
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
        **special,
    )
    torch.manual_seed(seed)
    model = BartForConditionalGeneration(config)
    model.generation_config.max_new_tokens = len(VARIABLES) + 1
    model.config._name_or_path = "satisfies-formulas"
    recipe = hashlib.sha256(repr((config.to_json_string(), LEAVES, BATCH, RATE, steps, seed)).encode()).hexdigest()[:12]
    file = None if cache is None else cache / f"formulas-{recipe}.pt"
    if file is not None and file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval(), tokenizer
    _train(model, tokenizer, _stream(seed), steps, say)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    return model.eval(), tokenizer


def _tokenizer() -> Any:
    """A token a character, and an end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: id_ for id_, token in enumerate(["<pad>", "<s>", "</s>", *VARIABLES, *"&|!01"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=64
    )


def _stream(seed: int) -> Iterator[Formula]:
    """Formulas to learn from, but for those that :func:`held_out` keeps."""
    rng = random.Random(seed)
    while True:
        formula = sample(rng)
        if not held_out(formula):
            yield formula


def held_out(formula: Formula) -> bool:
    """Whether the model is never trained on it: one formula in ten, by the formula alone."""
    return hashlib.sha256(formula.text.encode()).digest()[0] % 10 == 0


def _train(model: Any, tokenizer: Any, formulas: Iterator[Formula], steps: int, say: Callable[[str], object]) -> None:
    """AdamW on formulas that never end, the rate rising for a tenth of the steps and falling for the rest."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)
    model.train()
    for step in range(1, steps + 1):
        batch = [next(formulas) for _ in range(BATCH)]
        inputs = tokenizer([f.text for f in batch], padding=True, return_tensors="pt")
        answers = tokenizer([f.answer for f in batch], return_tensors="pt")["input_ids"]
        loss = model(**inputs, labels=answers).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            say(f"training: step {step} of {steps}, loss {loss.item():.3f}")


def answered(model: Any, tokenizer: Any, formulas: Sequence[Formula]) -> list[str]:
    """What the model answers to each."""
    answers: list[str] = []
    for start in range(0, len(formulas), 250):
        batch = [formula.text for formula in formulas[start : start + 250]]
        inputs = tokenizer(batch, padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            said = model.generate(**inputs)
        answers += tokenizer.batch_decode(said, skip_special_tokens=True)
    return answers
