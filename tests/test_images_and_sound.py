"""Images and recordings: patches and frames are players, and the result knows where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import (
    LONG,
    VISION,
    build,
    ids,
    image_processor,
    llama,
    matrices,
    sharpened,
    state,
    two_sided,
    visible,
    vit,
    wav2vec2,
    whisper,
)

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

import attnflow  # noqa: E402
from attnflow import Network  # noqa: E402
from attnflow.attribution import Grid  # noqa: E402
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

PATCHES = 9


def pixels(height: int = 12, width: int = 12) -> dict[str, Any]:
    return {"pixel_values": torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(7))}


def dinov2(name: str = "Dinov2Model", **more: Any) -> Any:
    torch.manual_seed(0)
    config = name.replace("Model", "Config").replace("ForImageClassification", "Config")
    return sharpened(getattr(transformers, name)(getattr(transformers, config)(**{**VISION, "mlp_ratio": 1, **more})))


def samples(n: int = 120) -> Any:
    return torch.randn(1, n, generator=torch.Generator().manual_seed(8))


def spectrogram() -> dict[str, Any]:
    return {"input_features": torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(9))}


class Processor:
    """Of sound and text, like Whisper's."""

    def __init__(self) -> None:
        self.tokenizer = two_sided()
        # One second, in 24 pieces.
        self.feature_extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1, hop_length=666)


# --- Images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["alti", "attention", "value_norm"])
@pytest.mark.parametrize("make", [vit, dinov2])
def test_what_the_class_token_drew_on(make: Any, measure: str) -> None:
    model = make()
    result = attnflow.explain(model, None, pixels(), measure=measure)
    assert result.kind == "encoder"
    assert result.target_label == "class token '[CLS]'"
    assert result.targets == ((0,),)
    assert result.players.tolist() == list(range(1, PATCHES + 1))
    assert result.tokens[:3] == ("[CLS]", "patch 0,0", "patch 0,1")
    assert result.tokens[-1] == "patch 2,2"
    assert (result.text, set(result.offsets), result.prediction) == ("", {None}, None)
    captured = contributions(model, pixels(), measure=measure)
    residual = 0.0 if captured.holds_residual else 0.5
    network = Network.encoder(matrices(captured), residual=residual, calibration="excess", visible=visible(captured))
    np.testing.assert_allclose(result.values, network.source_flows(0).values[:, 1:], rtol=1e-12)
    assert result.grid == Grid(1, (3, 3))
    assert np.array_equal(result.on_grid(), result.values[0].reshape(3, 3))


def test_targets_of_an_image() -> None:
    model = vit()
    captured = contributions(model, pixels(), measure="alti")
    network = Network.encoder(matrices(captured), residual=0.0, calibration="excess")
    mean = attnflow.explain(model, None, pixels(), target="mean")
    assert mean.target_label == f"mean over {PATCHES} positions"
    expected = network.pooled(range(1, PATCHES + 1)).source_flows(0).values[:, 1:]
    np.testing.assert_allclose(mean.values, expected, rtol=1e-12)
    patch = attnflow.explain(model, None, pixels(), target=5, sources="all")
    assert patch.target_label == "output at 'patch 1,1'"
    np.testing.assert_allclose(patch.values, network.source_flows(5).values, rtol=1e-12)
    joined = attnflow.explain(model, None, pixels(), target=[-1, 2])
    assert joined.targets == ((9, 2),)
    named, default = (attnflow.explain(model, None, pixels(), target=target) for target in ("cls", None))
    assert np.array_equal(named.values, default.values)


def test_a_grid_has_gaps_where_nobody_plays() -> None:
    result = attnflow.explain(vit(), None, pixels(), sources=[0, 2, 9])
    grid = result.on_grid()
    assert np.isnan(grid).sum() == PATCHES - 2
    assert (grid[0, 1], grid[2, 2]) == (result.values[0, 1], result.values[0, 2])


def test_an_image_that_is_no_square() -> None:
    given = {**pixels(8, 20), "interpolate_pos_encoding": True}
    result = attnflow.explain(vit(), None, given)
    assert result.grid == Grid(1, (2, 5))
    assert result.tokens[-1] == "patch 1,4"
    assert result.on_grid().shape == (2, 5)
    assert attnflow.explain(dinov2(), None, pixels(16, 8)).grid == Grid(1, (4, 2))


def test_registers_are_nobody() -> None:
    if not hasattr(transformers, "Dinov2WithRegistersModel"):
        pytest.skip("this transformers has no DINOv2 with registers")
    model = dinov2("Dinov2WithRegistersModel", num_register_tokens=2)
    result = attnflow.explain(model, None, pixels())
    assert result.grid == Grid(3, (3, 3))
    assert result.tokens[:4] == ("[CLS]", "[REG1]", "[REG2]", "patch 0,0")
    assert result.players.tolist() == list(range(3, 12))


def test_a_token_that_learned_from_a_teacher_is_no_register() -> None:
    torch.manual_seed(0)
    result = attnflow.explain(sharpened(transformers.DeiTModel(transformers.DeiTConfig(**VISION))), None, pixels())
    assert result.tokens[:3] == ("[CLS]", "[DIST]", "patch 0,0")
    assert result.grid == Grid(2, (3, 3))


def vilt() -> tuple[Any, dict[str, Any]]:
    """A text stands in front of them."""
    config = transformers.ViltConfig(**VISION, max_image_length=PATCHES, vocab_size=22)
    return transformers.ViltModel(config), {"input_ids": torch.tensor([[4, 7, 8, 5]]), **pixels()}


def masked() -> tuple[Any, dict[str, Any]]:
    """Patches are shuffled, even where all of them stay."""
    return transformers.ViTMAEModel(transformers.ViTMAEConfig(**VISION, mask_ratio=0.0)), pixels()


@pytest.mark.parametrize("make", [vilt, masked])
def test_where_patches_lie_is_never_guessed(make: Any) -> None:
    torch.manual_seed(0)
    model, given = make()
    result = attnflow.explain(sharpened(model), None, given, measure="attention")
    assert result.grid is None
    assert result.tokens == tuple(f"position {place}" for place in range(len(result.tokens)))


def test_what_stands_behind_the_patches_is_nobody_either() -> None:
    torch.manual_seed(0)
    config = transformers.YolosConfig(**{**VISION, "image_size": [12, 12]}, num_detection_tokens=2)
    result = attnflow.explain(transformers.YolosModel(config).eval(), None, pixels())
    assert result.grid == Grid(1, (3, 3))
    assert result.tokens == ("[CLS]", *(f"patch {i // 3},{i % 3}" for i in range(9)), "[DET1]", "[DET2]")
    assert result.players.tolist() == list(range(1, 10))
    assert np.array_equal(result.on_grid().ravel(), result.values[0])


def test_an_image_that_is_written_down_has_its_grid() -> None:
    options = {"is_decoder": True, "add_cross_attention": True}
    writer = build("BertLMHeadModel", LONG, "BertConfig", **options)
    model = transformers.VisionEncoderDecoderModel(encoder=vit(), decoder=writer)
    model.config.decoder_start_token_id, model.config.pad_token_id = 2, 0
    result = attnflow.explain(model, two_sided(), pixels(), target="the cat")
    assert result.grid == Grid(1, (3, 3))
    assert result.source.tokens[:2] == ("[CLS]", "patch 0,0")


def test_an_image_without_a_class_token_is_averaged() -> None:
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**VISION)
    result = attnflow.explain(sharpened(transformers.SiglipVisionModel(config)), None, pixels(), measure="attention")
    assert result.grid == Grid(0, (3, 3))
    assert result.target_label == f"mean over {PATCHES} positions"
    assert result.players.tolist() == list(range(PATCHES))


def test_arrays_and_pictures_go_through_the_processor() -> None:
    image = pytest.importorskip("PIL.Image")
    model, processor = vit(), image_processor()
    array = np.random.default_rng(3).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    expected = attnflow.explain(model, None, dict(processor(images=array, return_tensors="pt")))
    for given in (array, image.fromarray(array)):
        result = attnflow.explain(model, processor, given)
        assert np.array_equal(result.values, expected.values)
        assert result.grid == Grid(1, (3, 3))


def test_several_images_of_several_sizes() -> None:
    model = dinov2()
    shapes = [(12, 12), (8, 16), (16, 16)]
    together = attnflow.explain(model, None, [pixels(*shape) for shape in shapes])
    for result, shape in zip(together, shapes, strict=True):
        assert result.grid == Grid(1, (shape[0] // 4, shape[1] // 4))
        assert np.array_equal(result.values, attnflow.explain(model, None, pixels(*shape)).values)


@pytest.mark.parametrize("measure", ["attention_gradient", "attention_x_gradient"])
@pytest.mark.parametrize("make", [vit, dinov2])
def test_what_a_class_drew_on(make: Any, measure: str) -> None:
    model = make(make.__name__.replace("vit", "ViT").replace("dino", "Dino") + "ForImageClassification", num_labels=3)
    before = state(model)
    with torch.no_grad():
        highest = int(model(**pixels()).logits[0].argmax())
    scores = {}
    for asked in (None, 0, 1, 2, -1, [2, 0], lambda outputs: outputs.logits[0, 1]):
        result = attnflow.explain(model, None, pixels(), measure=measure, objective=asked)

        def objective(outputs: Any, asked: Any = asked) -> Any:
            if callable(asked):
                return asked(outputs)
            if isinstance(asked, list):
                return outputs.logits[0, asked[0]] - outputs.logits[0, asked[1]]
            return outputs.logits[0, highest if asked is None else asked]

        captured = contributions(model, pixels(), measure=measure, objective=objective)
        network = Network.encoder(matrices(captured), residual=0.5, calibration="excess", visible=visible(captured))
        np.testing.assert_allclose(result.values, network.source_flows(0).values[:, 1:], rtol=1e-12)
        scores[str(asked)] = result.values
    assert np.array_equal(scores["None"], scores[str(highest)])
    assert np.array_equal(scores["-1"], scores["2"])
    assert not np.array_equal(scores["0"], scores["1"])
    assert state(model) == before


def test_a_picture_of_a_result(tmp_path: Any) -> None:
    result = attnflow.explain(vit(), None, pixels())
    for suffix in ("json", "npz"):
        back = attnflow.Attribution.load(result.save(tmp_path / f"x.{suffix}"))
        assert back == result
        assert back.grid == Grid(1, (3, 3))
    result.save(tmp_path / "x.html")


# --- Sound -----------------------------------------------------------------------------------------------------------


def test_frames_of_a_recording() -> None:
    model = wav2vec2()
    result = attnflow.explain(model, None, {"input_values": samples()})
    n = len(result.tokens)
    assert result.kind == "encoder"
    assert result.tokens == tuple(f"frame {i}" for i in range(n))
    assert result.grid == Grid(0, (n,))
    assert result.target_label == f"mean over {n} positions"
    captured = contributions(model, {"input_values": samples()}, measure="alti")
    network = Network.encoder(matrices(captured), residual=0.0, calibration="excess")
    np.testing.assert_allclose(result.values, network.pooled().source_flows(0).values, rtol=1e-12)
    assert np.array_equal(result.on_grid(), result.values[0])
    frame = attnflow.explain(model, None, {"input_values": samples()}, target=3, sources=[1, -1])
    np.testing.assert_allclose(frame.values, network.source_flows(3).values[:, [1, n - 1]], rtol=1e-12)
    assert frame.target_label == "output at 'frame 3'"


def test_a_spectrogram_is_cut_into_patches() -> None:
    torch.manual_seed(0)
    strides = {"patch_size": 4, "frequency_stride": 2, "time_stride": 3}
    size = {key: value for key, value in VISION.items() if key not in ("image_size", "patch_size")}
    config = transformers.ASTConfig(**size, **strides, num_mel_bins=8, max_length=13)
    model = transformers.ASTModel(config).eval()
    result = attnflow.explain(model, None, {"input_values": torch.randn(1, 13, 8)})
    assert result.grid == Grid(2, model.embeddings.get_shape(config))
    assert result.grid.shape == (3, 4)
    assert result.tokens[:4] == ("[CLS]", "[DIST]", "patch 0,0", "patch 0,1")
    assert result.target_label == "class token '[CLS]'"
    assert result.players.tolist() == list(range(2, 14))


def test_samples_go_through_the_processor() -> None:
    model, extractor = wav2vec2(), transformers.Wav2Vec2FeatureExtractor()
    expected = attnflow.explain(
        model, None, {"input_values": extractor(samples()[0].numpy(), sampling_rate=16000).input_values[0][None]}
    )
    result = attnflow.explain(model, extractor, samples()[0].numpy())
    np.testing.assert_allclose(result.values, expected.values, atol=1e-6)
    several = attnflow.explain(model, extractor, [samples(120)[0].numpy(), samples(200)[0].numpy()])
    assert [len(one.tokens) for one in several] == [11, 19]


@pytest.mark.parametrize("target", [0, 3, -1, [2, 5], "mean", None])
def test_gradients_are_of_the_frame_that_is_explained(target: Any) -> None:
    model, given = wav2vec2("Wav2Vec2ForCTC"), {"input_values": samples()}
    result = attnflow.explain(model, None, given, target=target, measure="attention_gradient", objective=7)
    last = max(result.targets[0])
    captured = contributions(model, given, measure="attention_gradient", objective=lambda o: o.logits[0, last, 7])
    network = Network.encoder(matrices(captured), residual=0.5, calibration="excess", visible=visible(captured))
    positions = result.targets[0]
    if target in ("mean", None):
        network, positions = network.pooled(positions), (0,)
    np.testing.assert_allclose(result.values, network.source_flows([list(positions)]).values, rtol=1e-12)


def test_what_was_heard() -> None:
    """The parts of speech to text: sound is read, words are said."""
    model, processor = whisper(), Processor()
    result = attnflow.explain(model, processor, spectrogram(), target="a dog")
    assert result.kind == "encoder-decoder"
    assert result.n_source == 12
    assert result.tokens[12:] == ("</s>", "a", "dog")
    assert result.sink_labels == ("a", "dog", "</s>")
    assert result.text == "a dog"
    assert result.offsets[12:] == (None, (0, 1), (1, 5))
    assert result.grid == Grid(0, (12,))
    captured = contributions(model, {**spectrogram(), "decoder_input_ids": [[3, *ids(["a", "dog"])]]}, measure="alti")
    stacks = ("encoder", "decoder", "cross")
    network = Network.encoder_decoder(
        *(matrices(captured, stack) for stack in stacks),
        residual=0.0,
        calibration="excess",
        visible=[visible(captured, stack) for stack in stacks],
        kept=[layer.kept[0] for layer in captured.stack("cross")],
    )
    expected = network.source_flows([0, 1, 2]).values
    np.testing.assert_allclose(result.values, expected[:, result.players], rtol=1e-12)
    assert np.array_equal(result.on_grid(1), result.source.values[1])
    assert np.array_equal(result.source.on_grid(1), result.on_grid(1))
    assert np.isnan(result.decoder.on_grid()).all()


def test_what_is_heard_is_written_down() -> None:
    model, processor = whisper(), Processor()
    model.generation_config.no_timestamps_token_id = 6
    sound = np.random.default_rng(1).standard_normal(9000).astype(np.float32)
    options = {"max_new_tokens": 3, "min_new_tokens": 3}
    result = attnflow.explain(model, processor, sound, generate=options, measure="attention")
    given = processor.feature_extractor(sound, sampling_rate=16000, return_tensors="pt")
    model_said = [token for token, _ in result.predictions]
    expected = attnflow.explain(model, processor, dict(given), generate=options, measure="attention")
    assert [token for token, _ in expected.predictions] == model_said
    assert np.array_equal(result.values, expected.values)
    assert result.tokens[12] == "</s>"
    assert result.n_source == 12


@pytest.mark.parametrize(
    ("options", "players"),
    [
        ({"steps": 0}, range(12)),
        ({"steps": 0, "sources": [3, 12]}, [3, 12]),
        ({"sources": "source"}, range(12)),
        ({"sources": "all"}, range(15)),
        ({"sources": "decoder", "steps": [2]}, [13, 14]),
        ({"chain": True}, range(12)),
    ],
)
@pytest.mark.parametrize("measure", ["attention", "attention_gradient"])
def test_sources_of_what_was_heard(options: dict[str, Any], players: Any, measure: str) -> None:
    """Frames are counted when the model has run, whatever was asked before."""
    result = attnflow.explain(whisper(), Processor(), spectrogram(), target="a dog", measure=measure, **options)
    assert result.players.tolist() == list(players)


def test_progress_comes_from_images_and_sound() -> None:
    calls: list[Any] = []
    attnflow.explain(vit(), None, pixels(), progress=lambda *step: calls.append(step))
    assert [call for call in calls if call[0] == "capture"] == [("capture", layer, 3) for layer in (1, 2, 3)]


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a cat", {}, "ViTModel reads pixel_values: an image or a recording is needed"),
        (
            np.zeros((12, 12, 3)),
            {},
            "to make them of ndarray its processor is needed.*NoneType",
        ),
        ({}, {}, "empty mapping"),
        ({"pixel_values": torch.zeros(2, 3, 12, 12)}, {}, r"pixel_values of shape \(2, 3, 12, 12\) hold 2.*in a list"),
        ({"sound": torch.zeros(1, 3)}, {}, "ViTModel reads pixel_values, and the mapping holds sound"),
        (pixels(), {"target": "cat"}, "target 'cat' is not in the text"),
        (pixels(), {"target": 10}, r"target is 10, but the input has 10 positions: 0 \.\.\. 9"),
        (pixels(), {"sources": [10]}, r"sources\[0\] is 10, but the input has 10 positions"),
        (pixels(), {"sources": "source"}, "'source'"),
        (pixels(), {"steps": 0}, "steps=0 are of an answer"),
        (pixels(), {"chain": True}, "chain=True"),
        (pixels(), {"generate": True}, "ViTModel answers texts"),
        (pixels(), {"continuation": "cat"}, "ViTModel answers texts"),
        (pixels(), {"measure": "attention_gradient"}, "no logits"),
        ([0.5, 0.25], {}, r"text\[0\]: text must be a str.*0\.5"),
        (None, {}, "text must be a str.*None"),
    ],
)
def test_what_is_no_image_is_refused(text: Any, options: dict[str, Any], message: str) -> None:
    model = vit()
    before = state(model)
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(model, None, text, **options)
    assert state(model) == before


def test_what_is_heard_needs_a_tokenizer_and_no_text() -> None:
    model = whisper()
    with pytest.raises(InvalidArgumentError, match=r"tokenizer must be a tokenizer.*None"):
        attnflow.explain(model, None, spectrogram(), target="a dog")
    with pytest.raises(InvalidArgumentError, match=r"WhisperFor\w+ reads input_features"):
        attnflow.explain(model, Processor(), "the cat", target="a dog")
    with pytest.raises(InvalidArgumentError, match=r"decoder has 41 tokens.*24"):
        attnflow.explain(model, Processor(), spectrogram(), target="dog " * 40)


def test_a_class_is_named_by_its_number() -> None:
    model = vit("ViTForImageClassification", num_labels=3)
    for tokens in (None, image_processor()):
        with pytest.raises(InvalidArgumentError, match="objective 'cat' is text, and there is no tokenizer"):
            attnflow.explain(model, tokens, pixels(), measure="attention_gradient", objective="cat")
    with pytest.raises(InvalidArgumentError, match="objective names 3, and the model's output has 3 logits"):
        attnflow.explain(model, None, pixels(), measure="attention_gradient", objective=3)


def test_layers_of_windows_are_refused() -> None:
    """Swin pools its patches, from layer to layer."""
    torch.manual_seed(0)
    config = transformers.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2])
    model = transformers.SwinModel(transformers.SwinConfig(**{**config.to_dict(), "window_size": 4}))
    with pytest.raises(CaptureError):
        attnflow.explain(model.eval(), None, pixels(16, 16), measure="attention")


def test_a_model_of_images_and_texts_names_the_part_that_sees() -> None:
    words = {key: value for key, value in LONG.items() if key != "max_position_embeddings"}
    sizes = {"text_config": {**words, "vocab_size": 22}, "vision_config": VISION, "projection_dim": 16}
    model = sharpened(transformers.CLIPModel(transformers.CLIPConfig(**sizes)))
    for given in (pixels(), np.zeros((12, 12, 3), dtype=np.uint8)):
        with pytest.raises(InvalidArgumentError, match=r"CLIPModel reads text beside images.*model\.vision_model"):
            attnflow.explain(model, image_processor(), given)
    assert attnflow.explain(model.vision_model, None, pixels()).grid == Grid(1, (3, 3))


def test_words_about_an_image_have_its_grid() -> None:
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 20, "vocab_size": 22}
    words = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, add_cross_attention=True, is_decoder=True))
    model = transformers.VisionEncoderDecoderModel(encoder=vit(), decoder=words)
    model.config.decoder_start_token_id, model.config.pad_token_id = 2, 0
    result = attnflow.explain(sharpened(model), two_sided(), pixels(), target="a dog", measure="attention")
    assert result.grid == Grid(1, (3, 3))
    assert result.tokens[:2] == ("[CLS]", "patch 0,0")
    assert result.source.players.tolist() == list(range(1, PATCHES + 1))
    assert np.array_equal(result.on_grid(1).ravel(), result.source.values[1])


# --- Arrays of token ids ---------------------------------------------------------------------------------------------


def test_token_ids_without_a_tokenizer_have_no_names() -> None:
    given = {"input_ids": [[2, 7, 8, 9]], "attention_mask": [[1, 1, 1, 1]]}
    model = llama()
    result = attnflow.explain(model, None, given)
    assert result.tokens == tuple(f"position {i}" for i in range(4))
    assert result.grid is None
    assert result.players.tolist() == [0, 1, 2, 3]
    layers = matrices(contributions(model, [2, 7, 8, 9], measure="alti"))
    expected = Network.decoder(layers, residual=0.0, calibration="excess").source_flows(-1).values
    assert np.array_equal(result.values, expected)
    for several in (torch.ones(2, 3).long(), [[2, 7, 8], [2, 9, 7]], np.ones((2, 3), dtype=int)):
        with pytest.raises(InvalidArgumentError, match=r"input_ids of shape \(2, 3\) hold 2"):
            attnflow.explain(model, None, {"input_ids": several})
    with pytest.raises(InvalidArgumentError, match="all of one length"):
        attnflow.explain(model, None, {"input_ids": [[2, 7], [8]]})
    assert np.array_equal(attnflow.explain(model, None, {"input_ids": [2, 7, 8, 9]}).values, expected)
    encoder = attnflow.explain(build("BertModel", LONG), None, {"input_ids": torch.tensor([[5, 6, 7]])})
    assert encoder.target_label == "mean over 3 positions"
