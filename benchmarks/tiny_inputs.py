"""Inputs for a tiny model, read off the signature of its forward: several guesses, the richest first."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch

from tiny_configs import find_value

__all__ = ["LENGTH", "candidates", "with_placeholders"]

LENGTH = 13
TARGET_LENGTH = 9
Inputs = dict[str, Any]


def candidates(model: Any, batch: int = 1) -> Iterator[Inputs]:
    """Yield inputs to try, from everything the model reads down to what it cannot do without."""
    maker = _Maker(model, batch)
    seen: list[list[tuple[str, Any]]] = []
    for inputs in maker.guesses():
        kept = {name: value for name, value in inputs.items() if value is not None and name in maker.parameters}
        signature = [(name, getattr(value, "shape", value)) for name, value in sorted(kept.items())]
        if kept and signature not in seen:
            seen.append(signature)
            yield kept


def with_placeholders(model: Any, inputs: Inputs, message: str) -> Inputs | None:
    """The same inputs with as many image (video, audio) tokens as an error message asks for, or None."""
    numbers = [int(number) for number in re.findall(r"(?:features:?|and features) \(?(\d+)", message)]
    if not numbers or "input_ids" not in inputs:
        return None
    kind = next((kind for kind in ("video", "audio", "image") if kind in message.lower()), "image")
    names = (f"{kind}_token_id", f"{kind}_token_index", "image_token_id", "image_token_index", "audio_token_id")
    token = find_value(model.config, *names)
    count = numbers[-1]
    width = find_value(model.config, "hidden_size") or 1
    if count > 512:
        count //= width
    batch, length = inputs["input_ids"].shape
    count //= batch
    if token is None or not 0 < count <= 512 or int((inputs["input_ids"] == token).sum()) == count * batch:
        return None
    clean = inputs["input_ids"].clone()
    clean[clean == token] = 5
    ids = torch.cat([clean[:, :2], torch.full((batch, count), token), clean[:, 2:]], dim=1)
    changed = {**inputs, "input_ids": ids}
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        changed["mm_token_type_ids"] = (ids == token).long() * (2 if kind == "video" else 1)
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        changed["token_type_ids"] = torch.zeros_like(ids)
    for name, value in inputs.items():
        if name in ("attention_mask",) and isinstance(value, torch.Tensor) and value.shape == (batch, length):
            changed[name] = torch.cat([value[:, :2], torch.ones(batch, count, dtype=torch.int64), value[:, 2:]], dim=1)
    return changed


class _Maker:
    """Numbers and tensors for one model."""

    def __init__(self, model: Any, batch: int) -> None:
        self.config, self.batch = model.config, batch
        self.parameters = inspect.signature(model.forward).parameters
        self.required = {
            name
            for name, parameter in self.parameters.items()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        }
        self.main = getattr(model, "main_input_name", "input_ids")
        self.generator = torch.Generator().manual_seed(3)

    # --- Pieces -----------------------------------------------------------------------------------------------------

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator)

    def ids(self, length: int) -> torch.Tensor:
        size = find_value(self.config, "vocab_size", kinds=("text", "encoder"))
        size = min(size, 99) if isinstance(size, int) and size > 2 else 99
        return torch.randint(size // 2, size, (self.batch, length), generator=self.generator)

    def mask(self, length: int) -> torch.Tensor:
        mask = torch.ones(self.batch, length, dtype=torch.int64)
        if self.batch > 1:
            mask[1, length - 3 :] = 0
        return mask

    def boxes(self, length: int) -> torch.Tensor:
        corners = torch.randint(0, 50, (self.batch, length, 2), generator=self.generator)
        return torch.cat([corners, corners + torch.randint(1, 50, corners.shape, generator=self.generator)], dim=-1)

    def image_sizes(self) -> list[tuple[int, int]]:
        """Height and width to try: what the configuration says first."""
        size = find_value(self.config, "image_size", "img_size", "input_size", "resolution", kinds=("vision", "image"))
        if size is None:
            size = find_value(self.config, "image_size")
        sizes = []
        if isinstance(size, int):
            sizes.append((size, size))
        elif isinstance(size, list | tuple) and len(size) >= 2:
            sizes.append((int(size[0]), int(size[1])))
        elif isinstance(size, dict) and "height" in size:
            sizes.append((size["height"], size["width"]))
        return [*sizes, *(pair for pair in ((32, 32), (64, 64), (224, 224)) if pair not in sizes)]

    def images(self, size: tuple[int, int], frames: int | None = None) -> torch.Tensor:
        names = ("num_channels", "in_channels", "in_chans", "image_channels")
        channels = find_value(self.config, *names)
        channels = channels if isinstance(channels, int) and channels <= 16 else 3
        shape = (channels, *size) if frames is None else (frames, channels, *size)
        return self.normal(*shape)

    # --- Modalities -------------------------------------------------------------------------------------------------

    def text(self) -> Inputs:
        found: Inputs = {"input_ids": self.ids(LENGTH), "attention_mask": self.mask(LENGTH)}
        if self.batch > 1:
            found["decoder_attention_mask"] = self.mask(TARGET_LENGTH)
        if "bbox" in self.parameters:
            box = self.boxes(LENGTH)
            wide = find_value(self.config, "dim_bbox") == 8
            found["bbox"] = torch.cat([box, box], dim=-1).float() / 100 if wide else box
        found["decoder_input_ids"] = self.ids(TARGET_LENGTH)
        return found

    def visual(self) -> Iterator[Inputs]:
        name = "pixel_values_videos" if "pixel_values_videos" in self.required else "pixel_values"
        if name not in self.parameters:
            return
        if "image_grid_thw" in self.parameters or "grid_thw" in self.parameters:
            yield self.packed()
        frames = find_value(self.config, "num_frames", "frames_per_clip", "max_num_frames")
        for size in self.image_sizes():
            extra = {
                "pixel_mask": torch.ones(self.batch, *size, dtype=torch.int64),
                "pixel_attention_mask": torch.ones(self.batch, 1, *size, dtype=torch.int64),
            }
            sizes = torch.tensor([list(size)] * self.batch)
            if isinstance(frames, int) and frames > 0:
                yield {name: self.images(size, frames), **extra}
            yield {name: self.images(size), **extra}
            yield {name: self.images(size), **extra, "image_sizes": sizes, "target_sizes": sizes}
            yield {name: self.images(size, 1), **extra}
            yield {name: self.images(size, 2), **extra}
            yield {name: self.images(size, 1), **extra, "image_sizes": sizes}
            image = self.images(size)
            yield {name: torch.stack([image, image], dim=1)[:, None], **extra}

    def packed(self) -> Inputs:
        """Flattened patches and their grid, as the Qwen2-VL family reads them."""
        patch = find_value(self.config, "patch_size", kinds=("vision", "vit", "image")) or 14
        time = find_value(self.config, "temporal_patch_size", kinds=("vision",)) or 1
        channels = find_value(self.config, "in_channels", "in_chans", "num_channels", kinds=("vision",)) or 3
        side = 4
        patches = torch.randn(self.batch * side * side, channels * time * patch * patch, generator=self.generator)
        grid = torch.tensor([[1, side, side]] * self.batch)
        return {"pixel_values": patches, "image_grid_thw": grid, "grid_thw": grid}

    def audible(self) -> Iterator[Inputs]:
        names = (
            "num_chroma",
            "num_mel_bins",
            "feature_size",
            "input_feat_per_channel",
            "input_feat_size",
            "n_mels",
            "mel_dim",
        )
        width = find_value(self.config, *names, "feature_projection_input_dim", "input_dim", "num_features") or 80
        frames = 2 * (find_value(self.config, "max_source_positions") or 32)
        lengths = list(dict.fromkeys((min(frames, 3000), 64, 100, 400)))
        for wide, length in ((wide, length) for wide in dict.fromkeys((width, 128, 80)) for length in lengths):
            if "input_features" in self.parameters:
                ones = torch.ones(self.batch, length, dtype=torch.int64)
                masks = {"input_features_mask": ones, "feature_attention_mask": ones, "padding_mask": ones.bool()}
                yield {"input_features": self.normal(wide, length), **masks}
                yield {"input_features": self.normal(length, wide), **masks}
                yield {"input_features": self.normal(length, wide), **masks, "attention_mask": ones}
                yield {
                    "input_features": self.normal(1, length, wide),
                    "is_longer": torch.tensor([[False]] * self.batch),
                }
        for name in ("input_values", "audio_values", "audio_codes", "codes", "spectrogram", "waveform"):
            if name in self.parameters and name != "audio_codes":
                yield {name: self.normal(4000)}
                yield {name: self.normal(1, 4000)}
                yield {name: self.normal(1, 24000)}
                length = find_value(self.config, "max_length") or 64
                yield {name: self.normal(int(length), int(width))}
                yield {name: torch.randint(1, 90, (self.batch, 12), generator=self.generator)}
                codes = find_value(self.config, "num_codebooks", "n_codebooks", "num_quantizers") or 4
                yield {name: torch.randint(1, 90, (self.batch, 12, codes), generator=self.generator)}
                yield {name: torch.randint(1, 90, (self.batch, codes, 12), generator=self.generator)}

    def temporal(self) -> Iterator[Inputs]:
        """A time series with its features."""
        if "past_values" not in self.parameters:
            return
        context = find_value(self.config, "context_length") or 64
        lags = find_value(self.config, "lags_sequence") or (0,)
        channels = find_value(self.config, "num_input_channels", "input_size") or 1
        ahead = find_value(self.config, "prediction_length") or 4
        for past in (context + max(lags), context, 64, 128):
            for shape in ((past,), (past, channels)):
                values = self.normal(*shape)
                yield {
                    "past_values": values,
                    "past_time_features": self.normal(past, find_value(self.config, "num_time_features") or 1),
                    "past_observed_mask": torch.ones_like(values),
                    "future_values": self.normal(ahead, *shape[1:]),
                    "future_time_features": self.normal(ahead, find_value(self.config, "num_time_features") or 1),
                    "past_values_padding": torch.zeros(self.batch, past),
                    "freq": torch.zeros(self.batch, 1, dtype=torch.int64),
                }

    def generic(self) -> Inputs:
        """What is required and belongs to no modality."""
        width = find_value(self.config, "hidden_size", "d_model", "embed_dim") or 64
        found: Inputs = {}
        for name in self.required:
            if name.endswith(("hidden_states", "inputs_embeds", "features", "embeds", "latents")):
                found[name] = self.normal(LENGTH, int(width) if isinstance(width, int) else 64)
            elif name.endswith("_ids"):
                found[name] = self.ids(LENGTH)
            elif name.endswith("mask"):
                found[name] = self.mask(LENGTH)
        return found

    # --- All together -----------------------------------------------------------------------------------------------

    def guesses(self) -> Iterator[Inputs]:
        text = self.text() if {"input_ids", "decoder_input_ids", "inputs_embeds"} & set(self.parameters) else {}
        reads_text = "input_ids" in self.parameters
        generic = self.generic() if not text or self.required - {"self"} else {}
        target = {name: value for name, value in text.items() if name.startswith("decoder_")}
        for visual in self.visual():
            extra = {"mm_token_type_ids": None}
            yield {**generic, **text, **visual, **extra}
            if not reads_text or self.main.startswith("pixel"):
                yield {**generic, **visual, **target}
        for audible in self.audible():
            if self.main in audible or self.main not in ("input_ids",):
                yield {**generic, **target, **audible}
            yield {**generic, **text, **audible}
        for temporal in self.temporal():
            yield {**generic, **temporal}
            yield {name: value for name, value in temporal.items() if not name.startswith("future")}
        for special in self.special():
            yield {**generic, **text, **special}
            yield {**generic, **target, **special}
        if text:
            yield {**generic, **text}
            yield {**generic, **{name: value for name, value in text.items() if "mask" not in name}}
        if generic:
            yield generic
        names = ("num_codebooks", "n_codebooks", "num_quantizers")
        codebooks = find_value(self.config, *names, kinds=("decoder",)) or find_value(self.config, *names)
        if reads_text and isinstance(codebooks, int) and codebooks:
            for shape in ((LENGTH, codebooks), (codebooks, LENGTH), (LENGTH, codebooks + 1)):
                codes = torch.randint(1, 60, (self.batch, *shape), generator=self.generator)
                yield {"input_ids": codes}
            flat = torch.randint(1, 60, (self.batch * codebooks, LENGTH), generator=self.generator)
            yield {"input_ids": flat}
            yield {"input_ids": self.ids(LENGTH), "decoder_input_ids": flat, "attention_mask": self.mask(LENGTH)}

    def special(self) -> Iterator[Inputs]:
        """What only a few families read."""
        config, one = self.config, torch.ones(self.batch, 1, dtype=torch.int64)
        if "grid_thw" in self.required or "image_grid_thw" in self.required:
            packed = self.packed()
            merge = torch.tensor([find_value(config, "spatial_merge_size", "merge_size") or 1] * self.batch)
            yield {"hidden_states": packed["pixel_values"], **packed, "merge_sizes": merge}
        if "states" in self.parameters:
            steps = 5
            yield {
                "states": self.normal(steps, config.state_dim),
                "actions": self.normal(steps, config.act_dim),
                "rewards": self.normal(steps, 1),
                "returns_to_go": self.normal(steps, 1),
                "timesteps": torch.arange(steps)[None].repeat(self.batch, 1),
                "attention_mask": one.repeat(1, steps),
            }
        if "spatial_shapes" in self.parameters:
            patch = find_value(config, "patch_size", kinds=("vision",))
            yield {
                "pixel_values": self.normal(16, 3 * patch * patch),
                "pixel_attention_mask": one.repeat(1, 16),
                "spatial_shapes": torch.tensor([[4, 4]] * self.batch),
            }
        if "visual_feats" in self.parameters:
            yield {"visual_feats": self.normal(5, config.visual_feat_dim), "visual_pos": self.normal(5, 4)}
        if "flattened_patches" in self.parameters:
            width = find_value(config, "patch_embed_hidden_size", kinds=("vision",)) or 64
            size = find_value(config, "patch_size", kinds=("vision",)) or 16
            patches = self.normal(10, 2 + 3 * size * size if width else 2)
            patches[..., :2] = torch.arange(10)[:, None] % 4
            yield {"flattened_patches": patches, "attention_mask": one.repeat(1, 10)}
        if "task_inputs" in self.parameters:
            for size in self.image_sizes():
                yield {"pixel_values": self.images(size), "task_inputs": self.ids(config.task_seq_len)}
        if "image_attention_mask" in self.parameters:
            for size in self.image_sizes():
                image = self.images(size)[:, None]
                yield {"pixel_values": image, "image_attention_mask": one.repeat(1, LENGTH)[..., None]}
        if "image_embeds_position_mask" in self.parameters:
            position = torch.zeros(self.batch, LENGTH, dtype=torch.int64)
            position[:, 1 : 1 + find_value(config, "latent_query_num")] = 1
            for size in self.image_sizes():
                yield {"pixel_values": self.images(size), "image_embeds_position_mask": position}
        if "qformer_input_ids" in self.parameters:
            for size in self.image_sizes():
                prompt = {"qformer_input_ids": self.ids(6), "qformer_attention_mask": one.repeat(1, 6)}
                yield {"pixel_values": self.images(size), **prompt}
                yield {"pixel_values": self.images(size, 2), **prompt}
        if "inputs" in self.parameters:
            yield {"inputs": self.normal(LENGTH, find_value(config, "d_model", "hidden_size") or 64)}
        if "inputs_embeds" in self.parameters and "decoder_input_ids" in self.parameters:
            yield {"inputs_embeds": self.normal(LENGTH, find_value(config, "hidden_size") or 64), "input_ids": None}
        if "decoder_input_values" in self.parameters:
            speaker = {"speaker_embeddings": self.normal(find_value(config, "speaker_embedding_dim") or 512)}
            yield {"decoder_input_values": self.normal(8, find_value(config, "num_mel_bins") or 80), **speaker}
        if "prompt_masks" in self.parameters:
            height, width = self.image_sizes()[0]
            names = ("pixel_values", "prompt_pixel_values", "prompt_masks")
            yield {name: self.images((height // 2, width)) for name in names}
        if "query_embeds" in self.required:
            yield {"query_embeds": self.normal(4, 64), "encoder_hidden_states": self.normal(17, 64)}
