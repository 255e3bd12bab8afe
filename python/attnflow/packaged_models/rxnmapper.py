"""RXNMapper, which has read a million chemical reactions with some of their tokens masked.

One of its heads was found to point from each atom of a product to the atom of the reactants that it came from, without
having been taught to: an outside truth for what a model draws on.
"""

from __future__ import annotations

from typing import Any

from ._packages import Progress, package_folder
from ._transformers import load_weights, word_tokenizer

__all__ = ["load_rxnmapper"]

# A token of reaction SMILES here: an atom in brackets, a ring bond of two digits, the arrow, a halogen of two letters,
# or one character.
_TOKEN = r"\[[^\]]+\]|%[0-9]{2}|>>|Br|Cl|."


def load_rxnmapper(*, progress: Progress | None = None) -> tuple[Any, Any]:
    """RXNMapper and its tokenizer of reaction SMILES, in float32: an ALBERT, one layer's weights used 12 times.

    A text is ``reactants>>product``, of 510 tokens at most; ``[CLS]`` and ``[SEP]`` are put around it. The head that
    maps atoms is number 5 of layer 10, both counted from 0.

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.

    References
    ----------
    P. Schwaller et al., Extraction of organic chemistry grammar from unsupervised learning of chemical reactions,
    Science Advances 7 (15), 2021.

    Examples
    --------
    Ethanol and ethyl bromide give what, for the oxygen?

    >>> from attnflow import packaged_models
    >>> model, tokenizer = packaged_models.load_rxnmapper()  # doctest: +SKIP
    >>> reaction = tokenizer("CCO.BrCC>>CC[MASK]CC", return_tensors="pt")  # doctest: +SKIP
    >>> hidden = reaction["input_ids"][0] == tokenizer.mask_token_id  # doctest: +SKIP
    >>> tokenizer.decode(model(**reaction).logits[0, hidden].argmax(dim=-1))  # doctest: +SKIP
    'O'
    """
    folder = package_folder("RXNMapper") / "models" / "transformers" / "albert_heads_8_uspto_all_1310k"
    if progress is not None:
        progress("loading RXNMapper")
    import torch
    from transformers import AlbertConfig

    vocabulary = {token: id_ for id_, token in enumerate((folder / "vocab.txt").read_text().splitlines())}
    config = AlbertConfig.from_json_file(folder / "config.json")
    config.bos_token_id, config.eos_token_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
    stored = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    # The pooler belongs to a task that the model does not have.
    weights = {name: tensor for name, tensor in stored.items() if not name.startswith("albert.pooler.")}
    tokenizer = word_tokenizer(
        vocabulary,
        _TOKEN,
        unknown="[UNK]",
        around="[CLS] $A [SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=config.max_position_embeddings,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    return load_weights("AlbertForMaskedLM", config, weights, "RXNMapper"), tokenizer
