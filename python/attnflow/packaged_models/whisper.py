"""Whisper tiny.en, which writes down spoken English: its package holds weights for CTranslate2.

CTranslate2 stacks the matrices that multiply the same input: query, key and value of a self-attention, key and value of
a cross-attention. Whisper's keys have no bias; in the stack it is zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import FileFormatError
from . import _ctranslate2
from ._packages import Progress, package_folder
from ._transformers import load_weights

__all__ = ["load_whisper"]

_END, _START, _START_OF_PREVIOUS, _NO_TIMESTAMPS = 50256, 50257, 50360, 50362
_VOCABULARY = 51864
_POSITIONS = 448

# CTranslate2's name of a part -> transformers'; several where it holds a stack of them.
_PARTS = {
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "embeddings": ("embed_tokens",),
    "position_encodings": ("embed_positions",),
    "layer_norm": ("layer_norm",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "encodings": "weight"}


def load_whisper(*, progress: Progress | None = None) -> tuple[Any, Any]:
    """Whisper tiny.en and its processor, in float32: an encoder of 4 layers on 1500 positions, a decoder of 4.

    The processor's ``feature_extractor`` turns sound, 16,000 numbers a second and 30 seconds at most, into a
    spectrogram; its ``tokenizer`` puts ``<|startoftranscript|><|notimestamps|>`` before a text and ``<|endoftext|>``
    after it.

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.
    FileFormatError
        If the file with the weights is not the one that is known.

    References
    ----------
    A. Radford et al., Robust speech recognition via large-scale weak supervision, ICML, 2023.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> model, processor = packaged_models.load_whisper()  # doctest: +SKIP
    >>> sound = processor(samples, sampling_rate=16000, return_tensors="pt")  # doctest: +SKIP
    >>> processor.batch_decode(model.generate(**sound), skip_special_tokens=True)  # doctest: +SKIP
    [' The quick brown fox jumps over the lazy dog.']
    """
    folder = package_folder("Whisper") / "model"
    if progress is not None:
        progress("loading Whisper tiny.en")
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperProcessor

    about = json.loads((folder / "config.json").read_text())
    config = WhisperConfig(
        vocab_size=_VOCABULARY,
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
        max_source_positions=1500,
        max_target_positions=_POSITIONS,
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        decoder_start_token_id=_START,
        # A model's configuration is no place for what generation does.
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    weights = dict(_renamed(_ctranslate2.read(folder / "model.bin")))
    model = load_weights("WhisperForConditionalGeneration", config, weights, "whisper-tiny.en")
    model.generation_config = GenerationConfig(
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        decoder_start_token_id=_START,
        max_length=_POSITIONS,
        is_multilingual=False,
        return_timestamps=False,
        max_initial_timestamp_index=50,  # one second
        no_timestamps_token_id=_NO_TIMESTAMPS,
        prev_sot_token_id=_START_OF_PREVIOUS,
        alignment_heads=about["alignment_heads"],
        suppress_tokens=about["suppress_ids"],
        begin_suppress_tokens=about["suppress_ids_begin"],
    )
    return model, WhisperProcessor(feature_extractor=WhisperFeatureExtractor(), tokenizer=_tokenizer(folder))


def _tokenizer(folder: Path) -> Any:
    """What ``tokenizer.json`` says, with the time stamps, which stand in ``vocabulary.txt`` alone."""
    from tokenizers import AddedToken
    from transformers import WhisperTokenizer

    vocabulary = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    tokenizer = WhisperTokenizer.from_pretrained(
        folder,
        local_files_only=True,
        pad_token=vocabulary[_END],
        extra_special_tokens=vocabulary[_START : _NO_TIMESTAMPS + 1],  # after the last of which time is counted
        model_max_length=_POSITIONS,
    )
    stamps = vocabulary[_NO_TIMESTAMPS + 1 : _VOCABULARY]
    tokenizer.add_tokens([AddedToken(stamp, normalized=False) for stamp in stamps])
    tokenizer.name_or_path = "whisper-tiny.en"
    return tokenizer


def _renamed(variables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The weights by transformers' names, in float32; without numbers that transformers has in its configuration."""
    import torch

    for name, stored in variables.items():
        side, _, rest = name.partition("/")
        part, _, kind = rest.rpartition("/")
        if kind not in _KINDS or part == "projection":  # which is the embedding once more
            continue
        where = f"model.{side}"
        if part.startswith("layer_") and "/" in part:
            layer, _, part = part.partition("/")
            where += f".layers.{layer.removeprefix('layer_')}"
        if part not in _PARTS:
            raise FileFormatError(f"{name} is no part of the Whisper that is known")
        targets = _PARTS[part]
        for target, tensor in zip(targets, torch.tensor(stored).float().chunk(len(targets)), strict=True):
            if target.endswith("k_proj") and _KINDS[kind] == "bias":
                if tensor.any():
                    raise FileFormatError(f"{name} has a bias for keys, which Whisper has not")
            else:
                yield f"{where}.{target}.{_KINDS[kind]}", tensor.contiguous()
