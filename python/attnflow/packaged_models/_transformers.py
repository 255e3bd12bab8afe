"""Models and tokenizers of transformers, from folders that it understands and from weights that it would not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FileFormatError


def load_folder(folder: Path, loader: str, name: str) -> Any:
    """The model that a folder of transformers' own format holds, in float32, for inference."""
    import transformers

    model = getattr(transformers, loader).from_pretrained(folder, dtype="float32", local_files_only=True).eval()
    model.config._name_or_path = name  # and not the folder of this machine
    return model


def load_weights(loader: str, config: Any, weights: Mapping[str, Any], name: str) -> Any:
    """A model of `config` with `weights`, by transformers' names for them, in float32, for inference.

    Every parameter has to be given, and nothing else: a model that is random in part would still give answers.
    """
    import transformers

    model, found = getattr(transformers, loader).from_pretrained(
        None, config=config, state_dict=dict(weights), dtype="float32", output_loading_info=True
    )
    wrong = {what: keys for what, keys in found.items() if keys}
    if wrong:
        raise FileFormatError(f"the weights of {name} are not those of the package that is read here: {wrong}")
    model.config._name_or_path = name
    return model.eval()


def word_tokenizer(
    vocabulary: Mapping[str, int], pattern: str, *, unknown: str, around: str | None = None, **settings: Any
) -> Any:
    """A fast tokenizer whose tokens are the matches of a regular expression.

    Parameters
    ----------
    vocabulary
        Token -> id.
    pattern
        What a token looks like; what no token covers is `unknown`.
    around
        What is put around a text, as in ``"<s> $A </s>"``; default: nothing.
    settings
        Of ``PreTrainedTokenizerFast``: names of special tokens, the longest input.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    if around is not None:
        special = [(token, vocabulary[token]) for token in around.split() if not token.startswith("$")]
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, clean_up_tokenization_spaces=False, **settings
    )
