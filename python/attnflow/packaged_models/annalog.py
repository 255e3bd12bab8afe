"""ANNalog, which rewrites a molecule into one that medicinal chemistry would try next.

An encoder-decoder of PyTorch's own layers, 3 + 3 of them. Its architecture is Marian's with learned positions and
separate vocabularies, so that its weights load as a ``MarianMTModel`` once they have Marian's names.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from ..errors import FileFormatError
from ._packages import Progress, package_folder
from ._transformers import load_weights, word_tokenizer

__all__ = ["load_annalog"]

# A token of SMILES here: an atom in brackets, a ring bond of two digits, a halogen of two letters, or one character.
_TOKEN = r"\[[^\]]*\]|%[0-9]{2}|Br|Cl|."
_POSITIONS = 102

# The package's name of a part -> Marian's.
_PARTS = {
    "tok_embedding": "embed_tokens",
    "pos_embedding": "embed_positions",
    "self_attention": "self_attn",
    "encoder_attention": "encoder_attn",
    "enc_attn_layer_norm": "encoder_attn_layer_norm",
    "ff_layer_norm": "final_layer_norm",
    "fc_q": "q_proj",
    "fc_k": "k_proj",
    "fc_v": "v_proj",
    "fc_o": "out_proj",
    "fc_1": "fc1",
    "fc_2": "fc2",
}


def load_annalog(*, progress: Progress | None = None) -> tuple[Any, Any]:
    """ANNalog and its tokenizer, in float32: a Marian of 3 + 3 layers from SMILES to SMILES.

    A text gets ``<sos>`` and ``<eos>`` around it, which is what the encoder was trained with. The decoder starts from
    ``<sos>``, and a molecule has 100 tokens at most.

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.
    FileFormatError
        If the package's vocabulary holds more than names and numbers.

    References
    ----------
    W. Dai et al., ANNalog: generation of medicinal-chemistry-relevant analogues, ChemRxiv, 2025
    (10.26434/chemrxiv-2025-9c1v6).

    Examples
    --------
    Paracetamol, and its methyl ether:

    >>> from attnflow import packaged_models
    >>> model, tokenizer = packaged_models.load_annalog()  # doctest: +SKIP
    >>> molecule = tokenizer("CC(=O)Nc1ccc(O)cc1", return_tensors="pt")  # doctest: +SKIP
    >>> tokenizer.decode(model.generate(**molecule)[0], skip_special_tokens=True)  # doctest: +SKIP
    'CC(=O)Nc1ccc(OC)cc1'
    """
    folder = package_folder("ANNalog") / "ckpt_and_vocab"
    if progress is not None:
        progress("loading ANNalog")
    import torch
    from transformers import MarianConfig

    vocabulary = _vocabulary(folder / "stereo_experiment_vocab_ttf.pkl")
    config = MarianConfig(
        vocab_size=len(vocabulary),
        decoder_vocab_size=len(vocabulary),
        share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
        static_position_embeddings=False,
        max_position_embeddings=_POSITIONS,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=vocabulary["<sos>"],
        eos_token_id=vocabulary["<eos>"],
        decoder_start_token_id=vocabulary["<sos>"],
        forced_eos_token_id=None,
    )
    weights = torch.load(folder / "Lev_extended.pt", map_location="cpu", weights_only=True)
    model = load_weights("MarianMTModel", config, dict(_renamed(*item) for item in weights.items()), "ANNalog")
    model.generation_config.max_length = _POSITIONS
    tokenizer = word_tokenizer(
        vocabulary,
        _TOKEN,
        unknown="<unk>",
        around="<sos> $A <eos>",
        bos_token="<sos>",
        eos_token="<eos>",
        pad_token="<pad>",
        model_max_length=_POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )
    return model, tokenizer


def _renamed(name: str, tensor: Any) -> tuple[str, Any]:
    if name == "decoder.fc_out.weight":
        return "lm_head.weight", tensor
    if name == "decoder.fc_out.bias":
        return "final_logits_bias", tensor[None]
    parts = [_PARTS.get(part, part) for part in name.split(".") if part != "positionwise_feedforward"]
    return ".".join(["model", *parts]), tensor


class _PlainUnpickler(pickle.Unpickler):
    """Reads what pickle builds without looking anything up: dicts, lists, strings, numbers. A lookup could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _vocabulary(file: Path) -> dict[str, int]:
    """Token -> id, out of a pickled ``{"itos": list, "stoi": dict}``."""
    try:
        content = _PlainUnpickler(io.BytesIO(file.read_bytes())).load()
        tokens: list[str] = content["itos"]
        vocabulary = {token: id_ for id_, token in enumerate(tokens)}
        if not all(isinstance(token, str) for token in tokens) or content["stoi"] != vocabulary:
            raise ValueError("its two directions contradict each other")
    except Exception as error:
        raise FileFormatError(f"{file.name} is not a vocabulary of plain names and numbers: {error}") from error
    return vocabulary
