"""A tiny configuration of any model type, made from its default one: numbers shrink by what their names mean.

Nothing here knows a model, except the small table of overrides. A field is shrunk from its declared default, so that
whatever the configuration derives from it (head sizes, lists of layer types) is derived from the small number.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from tiny_overrides import OVERRIDES

__all__ = ["RUNGS", "VOCABULARY", "find_value", "tiny_config"]

VOCABULARY = 99
LAYERS, HEADS, GROUPS, WIDTH, INNER, HEAD, POSITIONS = 2, 4, 2, 64, 96, 16, 128

# How much is shrunk; a model that cannot be built or run on one rung is tried on the next.
RUNGS = ("all", "depth and width", "depth")

_DEPTH: tuple[tuple[str, int], ...] = (
    (r"(^|_)(n_?)?layers?$|num_(hidden_)?layers|hidden_layers$|^depth$|^n_layers$|encoder_depth$", LAYERS),
    (r"^num_blocks$|num_self_attends_per_block|num_hidden_blocks|num_stages_?blocks", LAYERS),
)
_SIZES: tuple[tuple[str, int], ...] = (
    (r"vocab_size$|vocab_size_per_layer_input$|^num_embeddings$|_vocab$", VOCABULARY),
    (r"vocab_sizes?$", VOCABULARY),
    (
        r"^(max_position_embeddings|n_positions|n_ctx|max_seq_len|max_target_positions|seq_length|block_size)$",
        POSITIONS,
    ),
    (r"^(max_text_positions|max_speech_positions|max_2d_position_embeddings|t2u_max_position_embeddings)$", POSITIONS),
    (r"^max_source_positions$", 32),
    (r"^num_experts$|n_routed_experts$|num_local_experts$|^moe_num_experts$|num_zero_experts", 4),
    (r"num_experts_per_tok|^moe_k$|moe_topk|top_k_experts", 2),
    (r"^(n_group|topk_group)$", 1),
    (r"first_k_dense_replace|moe_layer_start_index", 1),
    (r"num_queries$|num_query_tokens$|num_detection_tokens|num_proposals", 9),
    (r"^image_size$|^resolution$|^img_size$|^input_size$", 32),
    (r"^patch_size$", 8),
    (r"^num_frames$", 2),
    (r"^(sliding_window|attention_window_size|local_attention|sliding_window_size|local_attention_window_len)$", 8),
    (r"^index_topk$", 4),
    (r"^upsample_groups$", 64),
    (r"^mm_tokens_per_image$", 4),
)
_WIDTHS: tuple[tuple[str, int], ...] = (
    (r"key_value_heads$|num_kv_heads$|key_value_attention_heads$|num_query_groups$", GROUPS),
    (r"heads$|(^|_)n_head$|_num_head$|^num_head$", HEADS),
    (r"qk_rope_head_dim$|rotary_dim$", 8),
    (r"head_dim$|^d_kv$|^d_head$|qk_nope_head_dim|attention_head_size|dim_head$", HEAD),
    (r"lora_rank$", 32),
    (
        r"intermediate_size|ffn_dim|_ffn|^d_ff$|^dff$|^dim_ff$|^d_inner$|^n_inner$|dim_feedforward|mlp_dim|ffn_hidden",
        INNER,
    ),
    (r"feedforward_dim|feed_forward_size|linear_units|^hidden_dim$|feed_forward_hidden_size|inner_dim", INNER),
    (r"(^|_)hidden_size$|^d_model$|^dim$|^n_embd$|^emb_dim$|embed_dim$|embedding_size$|hidden_size_", WIDTH),
    (r"projection_dim|proj_dim|project_dim|^width$|output_dim$|hidden_dim$|^d_latents$|embedding_dim$", WIDTH),
    (r"decoder_hidden_size|cross_hidden_size|hidden_sizes?$", WIDTH),
)
_INDEX_LIST = re.compile(r"ind(ex|ic)e?s$|indexes$|_ids$|^extract_layers$|_idx$")
_TOKEN = re.compile(r"(token|codebook|image|audio|video|vision|boi|eoi|boa|eoa|mask|pad|bos|eos)_?\w*_(id|index|ids)$")


def tiny_config(config_class: type[PreTrainedConfig], rung: str = "all") -> PreTrainedConfig:
    """A small configuration of a class, its nested configurations included."""
    return _Shrinker(rung).build(config_class, None)


class _Shrinker:
    """One tiny configuration under construction."""

    def __init__(self, rung: str) -> None:
        self.rung = rung
        self.tokens: dict[int, int] = {}
        self.heads: Any = None

    def build(self, config_class: type[PreTrainedConfig], given: PreTrainedConfig | None) -> PreTrainedConfig:
        """Shrink ``given``, or the defaults of ``config_class``."""
        override = OVERRIDES.get(config_class.model_type, {})
        default = _defaults(config_class)
        example = given if given is not None else default
        stages = list(_value(example, "out_features") or ()) if given is not None else []
        layers = max(_layers(example), len(stages))
        rules = [*_DEPTH, *((*_SIZES, *_WIDTHS) if self.rung == "all" else ())]
        if self.rung == "depth and width":
            rules += [rule for rule in (*_SIZES, *_WIDTHS) if "image_size" not in rule[0] and "patch" not in rule[0]]
        elif self.rung == "depth":
            rules += _SIZES[:3]
        lists = self._has_lists(example)
        self.heads = _value(example, "num_attention_heads")
        keywords: dict[str, Any] = {}
        for field in dataclasses.fields(config_class):
            name = field.name
            if name in override or name.startswith("_"):
                continue
            now = _value(example, name)
            if name in _COMMON:
                if given is not None and name in _ASKED and not _same(_value(default, name), now):
                    keywords[name] = now
                continue
            if isinstance(now, PreTrainedConfig):
                keywords[name] = self.build(type(now), now)
                continue
            raw = _declared(field)
            if given is not None and default is not None and not _same(_value(default, name), now):
                raw = now  # the configuration around it asks for something else than the default
            small = self._shrunk(name, raw, rules, layers, lists)
            if small is not _declared(field):
                keywords[name] = small
        if stages and not {"out_features", "out_indices"} & set(override):
            # As many maps as the model around it asks of its backbone.
            flat = not lists and all(re.fullmatch(r"stage\d+", stage) for stage in stages)
            last = [f"stage{number}" for number in range(layers - len(stages) + 1, layers + 1)]
            keywords["out_features"] = last if flat else stages
        keywords.update(override)
        if self.rung != "depth" and "rope_parameters" not in override:
            _fit_rope(keywords, example)
        return _complete(config_class(**keywords))

    def _shrunk(self, name: str, raw: Any, rules: list[tuple[str, int]], layers: int, lists: bool) -> Any:
        if isinstance(raw, bool) or raw is None or isinstance(raw, str | float | dict):
            return raw
        if _TOKEN.search(name):
            return self._token(raw)
        if isinstance(raw, int):
            for pattern, size in rules:
                if re.search(pattern, name):
                    if (pattern, size) in _WIDTHS and lists:
                        return raw  # a pyramid: its widths and heads grow together
                    if (pattern, size) in _DEPTH:
                        return min(raw, layers)
                    if size == GROUPS and raw == self.heads:
                        return HEADS  # not grouped by default
                    return min(raw, size)
            return raw
        if isinstance(raw, list | tuple) and raw:
            return self._short_list(name, raw, layers)
        return raw

    def _short_list(self, name: str, raw: Any, layers: int) -> Any:
        kind = type(raw)
        if name == "image_size" and self.rung == "all" and len(raw) == 2:
            return kind(min(item, 32) for item in raw)
        if name in ("depths", "depth", "num_blocks", "block_repeats", "num_block_repeats", "layers", "layer_depths"):
            return kind(min(item, 2) if isinstance(item, int) else item for item in raw)
        if name == "block_sizes":
            return kind(1 for _ in raw)
        if _INDEX_LIST.search(name) and all(isinstance(item, int) and not isinstance(item, bool) for item in raw):
            if max(raw) < layers or list(raw) != sorted(set(raw)):
                return raw  # counts, not indices
            kept = [item for item in raw if item < layers - 1]
            return kind([*kept, layers - 1])
        if len(raw) > 8 and layers < len(raw) and name.endswith(("layers", "layer_types", "types", "pattern")):
            return kind(raw[:layers])
        return raw

    def _token(self, raw: Any) -> Any:
        if isinstance(raw, list | tuple):
            return type(raw)(self._token(item) for item in raw)
        if not isinstance(raw, int) or raw < 10:
            return raw
        return self.tokens.setdefault(raw, 10 + len(self.tokens))

    @staticmethod
    def _has_lists(example: Any) -> bool:
        names = ("hidden_sizes", "num_heads", "num_attention_heads", "depths", "embed_dims", "embed_dim", "num_blocks")
        return any(isinstance(_value(example, name), list | tuple) for name in names)


_COMMON = {field.name for field in dataclasses.fields(PreTrainedConfig)}
_ASKED = ("is_decoder", "add_cross_attention", "is_encoder_decoder", "cross_attention_hidden_size")


def _complete(config: Any) -> Any:
    """Fill what some configurations leave to their checkpoints."""
    heads, width = _value(config, "num_attention_heads"), _value(config, "hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads > 0:
        for name, value in (("head_dim", width // heads), ("num_key_value_heads", heads)):
            if _is_none(config, name):
                setattr(config, name, value)
    return config


def _is_none(config: Any, name: str) -> bool:
    try:
        return getattr(config, name, False) is None
    except Exception:  # it differs from layer to layer
        return False


def _declared(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _defaults(config_class: type[PreTrainedConfig]) -> Any:
    try:
        return config_class()
    except Exception:  # some need a nested configuration: the override gives it
        return None


def _value(config: Any, name: str) -> Any:
    """A field, or None: what differs from layer to layer cannot be read off the whole."""
    try:
        return getattr(config, name, None)
    except Exception:
        return None


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:
        return False


def _layers(example: Any) -> int:
    """How many layers show every kind that a hybrid model mixes."""
    best = LAYERS
    for name in ("layer_types", "layers_block_type", "block_types", "mlp_layer_types"):
        kinds = _value(example, name)
        if isinstance(kinds, list | tuple) and kinds and all(isinstance(kind, str) for kind in kinds):
            needed = max(kinds.index(kind) for kind in set(kinds)) + 1
            best = max(best, min(needed, 8))
    return best


def _fit_rope(keywords: dict[str, Any], example: Any) -> None:
    """Scale the sections of a multimodal rotary embedding to the smaller head."""
    rope = _value(example, "rope_parameters")
    if "hidden_size" not in keywords or not hasattr(example, "rope_parameters") or not _mentions_sections(example):
        return
    rope = rope if isinstance(rope, dict) else {}
    if any(isinstance(value, dict) for value in rope.values()):
        return  # one for each type of layer
    head = keywords.get("head_dim") or keywords["hidden_size"] // keywords.get("num_attention_heads", HEADS)
    half = int(head * rope.get("partial_rotary_factor", 1.0)) // 2
    old = rope.get("mrope_section") or [16, 24, 24]
    scaled = [max(1, item * half // sum(old)) for item in old]
    scaled[-1] += half - sum(scaled)
    basic = {"rope_type": "default", "rope_theta": 10000.0}
    keywords["rope_parameters"] = {**basic, **rope, "mrope_section": scaled}


def _mentions_sections(config: Any) -> bool:
    """Whether the modelling file beside a configuration splits its rotary embedding into sections."""
    here = Path(inspect.getfile(type(config)))
    return any("mrope_section" in file.read_text() for file in here.parent.glob("modeling_*.py"))


def find_value(config: Any, *names: str, kinds: tuple[str, ...] = ()) -> Any:
    """The first value that one of these names has in a configuration or in one nested in it."""
    for name in names:
        value = _value(config, name)
        if value is not None and not isinstance(value, PreTrainedConfig):
            return value
    for field, value in vars(config).items():
        if isinstance(value, PreTrainedConfig) and (not kinds or any(kind in field for kind in kinds)):
            found = find_value(value, *names)
            if found is not None:
                return found
    return None
