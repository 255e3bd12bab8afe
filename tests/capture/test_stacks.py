"""Models with more than one stack of layers: encoders with decoders, towers of images before language models."""

from __future__ import annotations

from typing import Any

import pytest
from families import (
    ENCODER_DECODERS,
    GROUPED,
    TWO_SIDED_HOOKED,
    VOCABULARY,
    build_encoder_decoder,
    make,
    sharpened,
)

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from attnflow.capture import attentions, contributions  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402
from tiny_models import ModelClass, prepare  # noqa: E402

SOURCE, TARGET = 11, 7
# T5's scores are large, and rounding with them.
TOLERANCE = {"t5": 1e-5, "mt5": 1e-5, "umt5": 1e-5}
INTERFACE = sorted(set(ENCODER_DECODERS) - TWO_SIDED_HOOKED)


def texts(padding: bool = True) -> dict[str, Any]:
    """Two pairs of texts; the second is shorter on either side."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(5, VOCABULARY, (2, SOURCE), generator=generator)
    target = torch.randint(5, VOCABULARY, (2, TARGET), generator=generator)
    masks = torch.ones_like(source), torch.ones_like(target)
    if padding:
        masks[0][1, 8:] = 0
        masks[1][1, 5:] = 0
        source[1, 8:] = 0
        target[1, 5:] = 0
    return {
        "input_ids": source,
        "attention_mask": masks[0],
        "decoder_input_ids": target,
        "decoder_attention_mask": masks[1],
    }


def eager(model: Any, inputs: dict[str, Any]) -> list[list[Any]]:
    """Means over heads of what the model returns of its encoder, its decoder and between them."""
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, use_cache=False)
    stacks = (output.encoder_attentions, output.decoder_attentions, output.cross_attentions)
    return [[weights.mean(dim=1) for weights in stack] for stack in stacks]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_equals_the_mean_of_the_eager_weights(family: str, implementation: str) -> None:
    if implementation == "sdpa" and family in TWO_SIDED_HOOKED:
        pytest.skip("no sdpa for this family")
    inputs = texts()
    expected = eager(build_encoder_decoder(family, "eager"), inputs)
    result = attentions(build_encoder_decoder(family, implementation), **inputs)
    assert result.path == ("hooks" if family in TWO_SIDED_HOOKED else "interface")
    assert result.kind == "encoder-decoder"
    assert [len(stack) for stack in (result.encoder, result.decoder, result.cross)] == [3, 2, 2]
    own, other = (inputs[name].bool() for name in ("attention_mask", "decoder_attention_mask"))
    for got, wanted, real in zip(
        (result.encoder, result.decoder, result.cross), expected, (own, other, other), strict=True
    ):
        for one, weights in zip(got, wanted, strict=True):
            assert one.dtype == torch.float32
            assert one.shape == weights.shape
            assert weights[0].amax(dim=-1).mean() > 1.1 / weights.shape[-1]  # there is something to get wrong
            assert (one - weights)[real].abs().max() <= TOLERANCE.get(family, 1e-6)
    names = result.layer_names
    assert len(set(names)) == 7
    assert ["encoder." in name for name in names] == [True] * 3 + [False] * 4


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_a_padded_batch_equals_its_texts_one_at_a_time(family: str) -> None:
    model, inputs = build_encoder_decoder(family), texts()
    batch = attentions(model, **inputs)
    for text in (0, 1):
        alone = {
            name: inputs[name][text : text + 1][:, inputs[mask][text].bool()]
            for name, mask in (("input_ids", "attention_mask"), ("decoder_input_ids", "decoder_attention_mask"))
        }
        expected = attentions(model, **alone, attention_mask=torch.ones_like(alone["input_ids"]))
        for one, other in zip(batch.of_text(text).layers, expected.layers, strict=True):
            assert (one.name, one.stack) == (other.name, other.stack)
            assert one.matrix.shape == other.matrix.shape[1:]
            assert (one.matrix - other.matrix[0]).abs().max() <= TOLERANCE.get(family, 1e-6)
            if one.visible is not None:
                assert torch.equal(one.visible, other.visible[0])


def test_a_decoder_sees_all_of_the_source_and_none_of_its_padding() -> None:
    result = attentions(build_encoder_decoder("bart"), **texts())
    for layer in result.stack("cross"):
        assert layer.visible.tolist() == [[SOURCE] * TARGET, [8] * TARGET]
        assert torch.count_nonzero(layer.matrix[1, :, 8:]) == 0
    for layer in result.stack("decoder"):
        assert torch.count_nonzero(torch.triu(layer.matrix, diagonal=1)) == 0


def test_an_encoder_and_a_decoder_joined_by_hand() -> None:
    size = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40}
    encoder = transformers.BertConfig(**size, num_hidden_layers=3)
    decoder = transformers.BertConfig(**size, num_hidden_layers=2, is_decoder=True, add_cross_attention=True)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = sharpened(transformers.EncoderDecoderModel(config).eval())
    inputs = texts(padding=False)
    model.set_attn_implementation("eager")
    expected = eager(model, inputs)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        result = attentions(model, **inputs)
        for got, wanted in zip((result.encoder, result.decoder, result.cross), expected, strict=True):
            assert max(float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True)) <= 1e-6
    # The decoder alone, with an encoder's output from elsewhere.
    states = torch.randn(1, 5, 32)
    alone = attentions(model.decoder, input_ids=[[4, 5, 6]], encoder_hidden_states=states)
    assert alone.kind == "encoder-decoder"
    assert [tuple(layer.shape) for layer in (*alone.encoder, *alone.decoder, *alone.cross)] == [(1, 3, 3)] * 2 + [
        (1, 3, 5)
    ] * 2


def test_an_encoders_output_that_was_computed_before() -> None:
    model, inputs = build_encoder_decoder("t5"), texts(padding=False)
    whole = attentions(model, **inputs)
    with torch.no_grad():
        states = model.get_encoder()(input_ids=inputs["input_ids"])
    del inputs["input_ids"], inputs["attention_mask"]
    part = attentions(model, encoder_outputs=states, **inputs)
    assert part.encoder == []
    assert part.kind == "encoder-decoder"
    for got, expected in zip(part.cross, whole.cross, strict=True):
        assert (got - expected).abs().max() <= 1e-6


def test_an_answer_far_longer_than_its_source() -> None:
    # More than one step of rows lies behind the last key.
    model, target = build_encoder_decoder("t5"), [[3] * 600]
    with torch.no_grad():
        states = model.get_encoder()(input_ids=torch.tensor([[4, 5, 6]]))
    part = attentions(model, encoder_outputs=states, decoder_input_ids=target)
    assert part.kind == "encoder-decoder"
    assert [tuple(layer.shape) for layer in part.cross] == [(1, 600, 3)] * len(part.cross)
    whole = attentions(model, input_ids=[[4, 5, 6]], decoder_input_ids=target)
    for got, expected in zip(part.cross, whole.cross, strict=True):
        assert (got - expected).abs().max() <= 1e-6


def test_positions_pooled_far_below_their_queries_are_refused() -> None:
    options = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 2], "image_size": 128}
    model = transformers.PvtModel(transformers.PvtConfig(**options)).eval()
    with pytest.raises(CaptureError, match=r"1024 positions attend to 16.*positions change from layer to layer"):
        attentions(model, pixel_values=torch.zeros(1, 3, 128, 128))


def test_an_encoder_alone() -> None:
    model, inputs = build_encoder_decoder("bart"), texts()
    whole = attentions(model, **inputs)
    alone = attentions(model.get_encoder(), input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    assert alone.kind == "encoder"
    for got, expected in zip(alone.encoder, whole.encoder, strict=True):
        assert torch.equal(got, expected)


def test_a_target_is_asked_for() -> None:
    with pytest.raises(InvalidArgumentError, match=r"T5ForConditionalGeneration.*decoder_input_ids.*get_encoder"):
        attentions(build_encoder_decoder("t5"), input_ids=[[4, 5]])
    with pytest.raises(InvalidArgumentError, match=rf"decoder_input_ids must be in 0..{VOCABULARY - 1}, got 99"):
        attentions(build_encoder_decoder("t5"), input_ids=[[4, 5]], decoder_input_ids=[[99]])
    with pytest.raises(InvalidArgumentError, match=r"decoder_attention_mask.*\(1, 1\).*\(1, 2\)"):
        attentions(
            build_encoder_decoder("t5"),
            input_ids=[[4, 5]],
            decoder_input_ids=[[4, 5]],
            decoder_attention_mask=[[1]],
        )


def test_an_encoder_whose_attention_is_local_is_refused() -> None:
    """Its decoder alone reports, and would look like a complete answer."""
    options = {**ENCODER_DECODERS["t5"][2], "local_radius": 3}
    model = make("LongT5ForConditionalGeneration", "LongT5Config", options)
    with pytest.raises(CaptureError, match=r"LongT5.*no layer of its encoder 'encoder' reported"):
        attentions(model, **texts())


def test_an_attention_of_several_kinds_at_once_is_refused() -> None:
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 40,
    }
    model = make("ProphetNetForConditionalGeneration", "ProphetNetConfig", options)
    with pytest.raises(CaptureError, match="do not match"):
        attentions(model, **texts(padding=False))


# --- ALTI across -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", INTERFACE)
def test_alti_of_every_stack(family: str) -> None:
    inputs = texts(padding=False)
    result = contributions(build_encoder_decoder(family), inputs, measure="alti")
    exact = contributions(build_encoder_decoder(family, dtype=torch.float64), inputs, measure="alti")
    for layer, expected in zip(result.layers, exact.layers, strict=True):
        total = layer.matrix.sum(dim=-1)
        assert (layer.kept is not None) == (layer.stack == "cross")
        if layer.kept is not None:
            assert 0.01 < layer.kept.mean() < 0.99
            assert (layer.kept - expected.kept).abs().max() <= 1e-4
            total = total + layer.kept
        assert (total - 1).abs().max() <= 1e-5
        assert (layer.matrix - expected.matrix).abs().max() <= 1e-4


@pytest.mark.parametrize("family", ["bart", "m2m_100", "t5"])
def test_alti_across_equals_the_oracle(family: str) -> None:
    """Loops over positions, from the definition: what enters the residual stream by each key, and by itself."""
    model = build_encoder_decoder(family, "eager", dtype=torch.float64)
    inputs = texts(padding=False)
    got = contributions(model, inputs, measure="alti").stack("cross")[1]
    if family == "t5":
        sub = model.decoder.block[1].layer[1]
        attention, norm, post = sub.EncDecAttention, sub.layer_norm, False
        value, output, bias = attention.v, attention.o.weight.T, torch.zeros(32, dtype=torch.float64)
    else:
        layer = model.model.decoder.layers[1]
        attention, norm, post = layer.encoder_attn, layer.encoder_attn_layer_norm, family == "bart"
        value, output, bias = attention.v_proj, attention.out_proj.weight.T, attention.out_proj.bias
    seen: dict[str, Any] = {}
    handles = [
        attention.register_forward_pre_hook(
            lambda _, a, k: seen.update(x=(a or [k["hidden_states"]])[0]), with_kwargs=True
        ),
        norm.register_forward_pre_hook(lambda _, a: seen.update(before=a[0])),
    ]
    with torch.no_grad():
        run = model(**inputs, output_attentions=True, use_cache=False)
        for handle in handles:
            handle.remove()
        weights, states = run.cross_attentions[1], run.encoder_last_hidden_state
        stream = seen["x"] if post else seen["before"]
        values = value(states).view(2, SOURCE, 4, 8)
        written = output.reshape(4, 8, 32)
        for text in (0, 1):
            for i in range(TARGET):
                parts = [
                    sum(weights[text, h, i, j] * values[text, j, h] @ written[h] for h in range(4))
                    for j in range(SOURCE)
                ]
                parts.append(stream[text, i])
                if post:
                    whole = sum(parts) + bias
                    deviation = torch.sqrt(whole.var(unbiased=False) + norm.eps)
                    parts = [(part - part.mean()) / deviation * norm.weight for part in parts]
                y = sum(parts)
                shares = torch.stack([(y.abs().sum() - (y - part).abs().sum()).clamp(min=0) for part in parts])
                shares = shares / shares.sum()
                assert (got.matrix[text, i] - shares[:-1]).abs().max() <= 1e-5
                assert abs(got.kept[text, i] - shares[-1]) <= 1e-5


# --- images and sound ------------------------------------------------------------------------------------------------

VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [
        ("ViTModel", "ViTConfig"),
        ("DeiTModel", "DeiTConfig"),
        ("Dinov2Model", "Dinov2Config"),
        ("CLIPVisionModel", "CLIPVisionConfig"),
        ("BeitModel", "BeitConfig"),
    ],
)
def test_images(model_class: str, config_class: str) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        weights = make(model_class, config_class, VISION, "eager")(pixels, output_attentions=True).attentions
    result = attentions(make(model_class, config_class, VISION), pixel_values=pixels.numpy())
    assert result.kind == "encoder"
    assert result.logits is None
    for got, expected in zip(result.encoder, weights, strict=True):
        assert got.shape[0] == 2
        assert (got - expected.mean(dim=1)).abs().max() <= 1e-6


def test_sound() -> None:
    options = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "conv_dim": (16, 16),
        "conv_kernel": (8, 4),
        "conv_stride": (5, 2),
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    }
    sound = torch.randn(2, 400, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        weights = make("Wav2Vec2Model", "Wav2Vec2Config", options, "eager")(sound, output_attentions=True).attentions
    result = attentions(make("Wav2Vec2Model", "Wav2Vec2Config", options), input_values=sound)
    for got, expected in zip(result.encoder, weights, strict=True):
        assert got.shape == (2, 38, 38)
        assert (got - expected.mean(dim=1)).abs().max() <= 1e-6


def test_speech_to_text() -> None:
    options = {
        **{name: value for name, value in ENCODER_DECODERS["bart"][2].items() if name != "max_position_embeddings"},
        "max_source_positions": 20,
        "max_target_positions": 20,
        "num_mel_bins": 8,
    }
    features = torch.randn(1, 8, 40, generator=torch.Generator().manual_seed(3))
    inputs = {"input_features": features, "decoder_input_ids": torch.tensor([[1, 4, 5]])}
    name = "WhisperForConditionalGeneration", "WhisperConfig", options
    expected = eager(make(*name, "eager"), inputs)
    result = attentions(make(*name), **inputs)
    for got, wanted in zip((result.encoder, result.decoder, result.cross), expected, strict=True):
        assert max(float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True)) <= 1e-6


def test_a_language_model_that_sees() -> None:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**GROUPED),
        image_token_index=VOCABULARY - 1,
        vision_feature_layer=-1,
    )
    model = sharpened(transformers.LlavaForConditionalGeneration(config).eval())
    ids = torch.tensor([[1, 2, *[VOCABULARY - 1] * 16, 3, 4]])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    result = attentions(model, input_ids=ids, pixel_values=pixels)
    assert [tuple(layer.shape) for layer in result.encoder] == [(1, 17, 17)] * 3
    assert [tuple(layer.shape) for layer in result.decoder] == [(1, 20, 20)] * 3
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions
    for got, expected in zip(result.decoder, weights, strict=True):
        assert (got - expected.mean(dim=1)).abs().max() <= 1e-6
    padded = torch.cat([ids, ids]), torch.ones(2, 20).long()
    padded[0][1, 19], padded[1][1, 19] = 0, 0
    both = attentions(model, input_ids=padded[0], attention_mask=padded[1], pixel_values=pixels.repeat(2, 1, 1, 1))
    shorter = both.of_text(1)
    assert (shorter.encoder[0].shape, shorter.decoder[0].shape) == ((17, 17), (19, 19))
    assert (shorter.decoder[2] - result.decoder[2][0, :19, :19]).abs().max() <= 1e-6
    words = attentions(model, input_ids=[[1, 2, 3]])
    assert (len(words.encoder), len(words.decoder)) == (0, 3)
    headless = attentions(model.model, input_ids=ids, pixel_values=pixels)
    for one, other in zip(headless.encoder + headless.decoder, result.encoder + result.decoder, strict=True):
        assert (one - other).abs().max() <= 1e-6


def test_two_towers_side_by_side_are_refused() -> None:
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        vision_config=VISION,
    )
    with pytest.raises(CaptureError, match="several stacks of layers"):
        attentions(
            transformers.CLIPModel(config).eval(),
            input_ids=[[1, 2, VOCABULARY - 1]],
            pixel_values=torch.zeros(1, 3, 32, 32),
        )


def test_a_tower_that_keeps_its_attention_to_itself_is_not_passed_over() -> None:
    text = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    sound = {"patch_embeds_hidden_size": 24, "hidden_size": 192, "num_mel_bins": 64, "spec_size": 256}
    config = transformers.ClapConfig(
        text_config={**text, "num_attention_heads": 4}, audio_config={**sound, "depths": [1] * 4}, projection_dim=16
    )
    model = transformers.ClapModel(config).eval()
    with pytest.raises(CaptureError, match=r"layer 'audio_model.*\(ClapAudio\w*\) ran and did not report"):
        attentions(model, input_ids=[[1, 2, 3]], input_features=torch.zeros(1, 1, 256, 64))
    assert len(attentions(model.text_model, input_ids=[[1, 2, 3]]).encoder) == 2
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_windows_are_refused() -> None:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    with pytest.raises(CaptureError):
        attentions(transformers.SwinModel(config).eval(), pixel_values=torch.zeros(1, 3, 32, 32))


def test_stacks_over_different_positions_are_refused() -> None:
    """Bytes, patches of them, and bytes again; the longest is not the first."""
    prepared = prepare(ModelClass("transformers.models.blt.modeling_blt", "BltForCausalLM"))
    with pytest.raises(CaptureError, match="several stacks of layers"):
        attentions(prepared.model, **prepared.inputs)
