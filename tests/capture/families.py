"""Tiny random models of many families, built in memory: the instances of the capture tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers import AttentionInterface, AttentionMaskInterface  # noqa: E402

VOCABULARY = 61
LENGTH = 23
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 40, "max_position_embeddings": 64}
GROUPED = {**WIDE, "num_key_value_heads": 2}
# A window of 7 over a text of 23 hides most of it.
SLIDING = {"sliding_window": 7}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
ENCODER = {**WIDE, "type_vocab_size": 2}
PAD = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

# name: (model class, configuration class, options). In alphabetical order within the three groups.
DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {**GROUPED, "head_dim": 16}),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**GROUPED, **SLIDING, **ALTERNATING, "head_dim": 16, "attn_logit_softcapping": 2.0},
    ),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, **SLIDING, **ALTERNATING, "head_dim": 16}),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", WIDE),
    "gpt_oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**GROUPED, **SLIDING, **ALTERNATING, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**GROUPED, **SLIDING}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**GROUPED, "num_local_experts": 4}),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", GROUPED),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**SMALL, "ffn_dim": 40, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    ),
    "opt_post_norm": (
        "OPTForCausalLM",
        "OPTConfig",
        {
            **SMALL,
            "ffn_dim": 40,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
            "do_layer_norm_before": False,
        },
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", {**WIDE, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**GROUPED, **PAD}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 16}),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", GROUPED),
}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "albert": ("AlbertModel", "AlbertConfig", {**ENCODER, "embedding_size": 16}),
    "bert": ("BertModel", "BertConfig", ENCODER),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "hidden_dim": 40,
            "n_layers": 3,
            "n_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    "electra": ("ElectraModel", "ElectraConfig", {**ENCODER, "embedding_size": 16}),
    "modernbert": (
        "ModernBertModel",
        "ModernBertConfig",
        {
            **WIDE,
            "pad_token_id": 0,
            "local_attention": 8,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "t5": (
        "T5EncoderModel",
        "T5Config",
        {"vocab_size": VOCABULARY, "d_model": 32, "num_layers": 3, "num_heads": 4, "d_ff": 40, "d_kv": 8},
    ),
    "roberta": ("RobertaModel", "RobertaConfig", {**ENCODER, **PAD}),
}
# Models that do not use the attention interface.
HOOKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    ),
    "deberta_v2": (
        "DebertaV2Model",
        "DebertaV2Config",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    ),
    "falcon": ("FalconForCausalLM", "FalconConfig", {**SMALL, "max_position_embeddings": 64}),
    "falcon_alibi": ("FalconForCausalLM", "FalconConfig", {**SMALL, "alibi": True, "max_position_embeddings": 64}),
    "gptj": (
        "GPTJForCausalLM",
        "GPTJConfig",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "rotary_dim": 8},
    ),
    "openai_gpt": (
        "OpenAIGPTLMHeadModel",
        "OpenAIGPTConfig",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "mpnet": ("MPNetModel", "MPNetConfig", {**WIDE, **PAD}),
}
_SIDES = {
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
}
TWO_SIDED = {**_SIDES, "vocab_size": VOCABULARY, "d_model": 32, "max_position_embeddings": 64, **PAD}
TWO_SIDED["decoder_start_token_id"] = 1
T5_LIKE = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2}
T5_LIKE |= {"num_heads": 4, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
# Three layers on the one side, two on the other.
ENCODER_DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bart": ("BartForConditionalGeneration", "BartConfig", TWO_SIDED),
    "blenderbot": ("BlenderbotForConditionalGeneration", "BlenderbotConfig", TWO_SIDED),
    "fsmt": (
        "FSMTForConditionalGeneration",
        "FSMTConfig",
        {
            **_SIDES,
            "langs": ["en", "de"],
            "src_vocab_size": VOCABULARY,
            "tgt_vocab_size": VOCABULARY,
            "d_model": 32,
            "max_position_embeddings": 64,
        },
    ),
    "m2m_100": ("M2M100ForConditionalGeneration", "M2M100Config", TWO_SIDED),
    "marian": ("MarianMTModel", "MarianConfig", TWO_SIDED),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", TWO_SIDED),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", T5_LIKE),
    "mvp": ("MvpForConditionalGeneration", "MvpConfig", TWO_SIDED),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", TWO_SIDED),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5_LIKE),
    "umt5": ("UMT5ForConditionalGeneration", "UMT5Config", T5_LIKE),
}
TWO_SIDED_HOOKED = {"fsmt", "mvp"}
FAMILIES = {**DECODERS, **ENCODERS, **HOOKED}


def build(family: str, attn_implementation: str | None = None, dtype: Any = None) -> Any:
    """A model with one stack of layers, :func:`sharpened`."""
    return make(*FAMILIES[family], attn_implementation, dtype)


def build_encoder_decoder(family: str, attn_implementation: str | None = None, dtype: Any = None) -> Any:
    """A model with an encoder and a decoder, :func:`sharpened`."""
    return make(*ENCODER_DECODERS[family], attn_implementation, dtype)


def make(
    model_class: str,
    config_class: str,
    options: dict[str, Any],
    attn_implementation: str | None = None,
    dtype: Any = None,
) -> Any:
    """A model of transformers, :func:`sharpened`."""
    config = getattr(transformers, config_class)(**options)
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation
    torch.manual_seed(0)
    return sharpened(getattr(transformers, model_class)(config).eval(), dtype)


def sharpened(model: Any, dtype: Any = None) -> Any:
    """The model with the same random weights at every call, large enough for attention that is not uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(0.25 * noise)
            elif "norm" in name.lower() or ".ln" in name:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(0.2 * noise)
    return model if dtype is None else model.to(dtype)


def matrices(result: Any) -> list[Any]:
    """The (n, n) matrices of the one text that a model with one stack was run on."""
    assert not result.cross
    return [matrix[0] for matrix in (*result.encoder, *result.decoder)]


def eager_attentions(family: str, ids: Any) -> tuple[list[Any], Any]:
    """Attention weights, (H, n, n) a layer, and the output, of the same model run eagerly."""
    model = build(family, "eager")
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
    return [weights[0] for weights in output.attentions], output


@contextmanager
def registered(function: Any, mask: Any, name: str) -> Iterator[str]:
    """An attention function under a name of its own."""
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, mask)
    try:
        yield name
    finally:
        del AttentionInterface._global_mapping[name]
        del AttentionMaskInterface._global_mapping[name]


def implemented(model: Any, name: str) -> Any:
    """The model with an attention implementation that transformers need not have the package for."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = name
    return model
