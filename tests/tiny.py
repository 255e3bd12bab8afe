"""Tiny models and tokenizers of whole words, made in memory: what the tests of ``attnflow.explain`` share."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "run", "fast", "over", "hill", ",", "."]
SPECIAL = ["[PAD]", "[UNK]", "<s>", "</s>", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
TEXT = "the cat sat on the mat and saw a dog"
N = len(TEXT.split())

SIZE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
LONG = {**SIZE, "max_position_embeddings": 32}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
TWO_SIDED = {
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **ENDS,
    "d_model": 16,
    "max_position_embeddings": 32,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": None,
}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 3}
VISION = {**SIZE, "image_size": 12, "patch_size": 4}


def tokenizer(template: str | None = None, **special: Any) -> Any:
    """A fast tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is not None:
        names = [name for name in template.split() if name != "$A"]
        words.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, VOCABULARY[name]) for name in names]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special)


def plain(**special: Any) -> Any:
    """A decoder's: has a bos, adds nothing."""
    return tokenizer(bos_token="<s>", eos_token="</s>", **special)


def bert_like() -> Any:
    """An encoder's: puts a class token first and a separator last."""
    return tokenizer("[CLS] $A [SEP]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def two_sided() -> Any:
    """An encoder-decoder's: a text ends with an end, and nothing is put before it."""
    return tokenizer("$A </s>", bos_token="<s>", eos_token="</s>", pad_token="[PAD]")


def sharpened(model: Any, scale: float = 0.4) -> Any:
    """Weights large enough for attention to differ from place to place, the same at every call."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.ndim > 1:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def build(name: str, options: dict[str, Any], config: str | None = None, **more: Any) -> Any:
    """A model of transformers over :data:`VOCABULARY`, by the name of its class."""
    torch.manual_seed(0)
    family = name.removesuffix("ForCausalLM").removesuffix("Model").removesuffix("ForMaskedLM")
    family = family.removesuffix("ForTokenClassification").removesuffix("LMHead")
    made = getattr(transformers, config or f"{family}Config")(vocab_size=len(VOCABULARY), **{**options, **more})
    return sharpened(getattr(transformers, name)(made))


def llama(**more: Any) -> Any:
    """A decoder of three layers."""
    return build("LlamaForCausalLM", {**LONG, **ENDS, "num_key_value_heads": 2}, **more)


def bart(**more: Any) -> Any:
    """An encoder-decoder of two layers each."""
    return build("BartForConditionalGeneration", TWO_SIDED, "BartConfig", **more)


def t5(**more: Any) -> Any:
    """An encoder-decoder of two layers each, with relative positions."""
    return build("T5ForConditionalGeneration", {**T5, "decoder_start_token_id": 0}, "T5Config", **more)


def vit(name: str = "ViTModel", **more: Any) -> Any:
    """A vision transformer of three by three patches behind a class token."""
    torch.manual_seed(0)
    return sharpened(getattr(transformers, name)(transformers.ViTConfig(**{**VISION, **more})))


def whisper(**more: Any) -> Any:
    """Speech to words: twelve positions of sound."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        **{**TWO_SIDED, "num_mel_bins": 8, "max_source_positions": 12, "max_target_positions": 24, **more},
        vocab_size=len(VOCABULARY),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return sharpened(transformers.WhisperForConditionalGeneration(config))


def wav2vec2(name: str = "Wav2Vec2Model", **more: Any) -> Any:
    """Eleven frames of 120 samples."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ears = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    places = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 22}
    return sharpened(getattr(transformers, name)(transformers.Wav2Vec2Config(**{**size, **ears, **places, **more})))


def image_processor() -> Any:
    """Images of twelve by twelve pixels, resized by pillow."""
    name = "ViTImageProcessorPil" if hasattr(transformers, "ViTImageProcessorPil") else "ViTImageProcessor"
    return getattr(transformers, name)(size={"height": 12, "width": 12})


def ids(tokens: Any) -> list[int]:
    """Token ids of words."""
    return [VOCABULARY[token] for token in tokens]


def matrices(captured: Any, stack: str | None = None) -> list[Any]:
    """The matrices of one text, of one stack or of the only one."""
    return [layer.matrix[0] for layer in captured.layers if stack in (None, layer.stack)]


def visible(captured: Any, stack: str | None = None) -> list[Any]:
    """How many keys each position of one text sees, a layer an entry."""
    layers = [layer for layer in captured.layers if stack in (None, layer.stack)]
    return [None if layer.visible is None else layer.visible[0] for layer in layers]


def state(model: Any) -> list[Any]:
    """What must be the same of a model after it was explained: modes, hooks, weights and what asks for gradients."""
    from transformers import AttentionInterface

    modules = [
        (name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for name, m in model.named_modules()
    ]
    weights = [(p.requires_grad, p.grad is None, p._version) for p in model.parameters()]
    generation = getattr(model, "generation_config", None)
    return [
        modules,
        weights,
        model.config.to_dict(),
        None if generation is None else generation.to_dict(),
        AttentionInterface.__dict__["get_interface"],
        torch.is_grad_enabled(),
    ]
