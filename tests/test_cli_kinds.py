"""The command line on each kind of model, from folders of tiny ones: what is answered, said, seen and heard."""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")
from test_cli import one_error
from tiny import LONG, TEXT, VISION, N, bart, image_processor, llama, plain, two_sided, vit, wav2vec2

import attnflow
from attnflow import Attribution
from attnflow.cli import main
from attnflow.packaged_models import load_whisper, missing

TEMPLATE = "{% for message in messages %}{{ bos_token }} {{ message['content'] }} {% endfor %}"


def saved(folder: Path, *parts: Any) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def decoder(tmp_path: Path) -> str:
    return saved(tmp_path / "decoder", llama(), plain(chat_template=TEMPLATE))


@pytest.fixture
def translator(tmp_path: Path) -> str:
    return saved(tmp_path / "translator", bart(), two_sided())


def explained(tmp_path: Path, *arguments: str) -> Attribution:
    """What the command wrote into a file."""
    path = tmp_path / "result.json"
    assert main(["explain", *arguments, "--save", str(path)]) == 0
    return Attribution.load(path)


def test_a_language_model_goes_on(decoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = explained(tmp_path, "--model", decoder, "--text", TEXT, "--continuation", " over the hill", "--chain")
    assert result.sink_labels == ("over", "the", "hill")
    assert result.values.shape == (3, N)  # chained: only what was given plays
    assert result.text == f"{TEXT} over the"  # what was read: nothing follows the last
    assert "hill" in capsys.readouterr().out
    free = explained(tmp_path, "--model", decoder, "--text", TEXT, "--generate", "2", "--receptive-field")
    assert 1 <= free.values.shape[0] <= 2
    assert free.values.shape[1] > N - 1
    assert free.options["receptive_field"] is True


def test_a_chat_model_answers(decoder: str, tmp_path: Path) -> None:
    result = explained(tmp_path, "--model", decoder, "--chat", "the cat sat", "--generate", "3")
    assert result.tokens[:4] == ("<s>", "the", "cat", "sat")
    assert 1 <= result.values.shape[0] <= 3


def test_both_methods_explain_the_same_answer(tmp_path: Path) -> None:
    """Also of a model that draws lots."""
    model = llama()
    model.generation_config.do_sample = True
    drawing = saved(tmp_path / "model", model, plain())
    result = explained(tmp_path, "--model", drawing, "--text", TEXT, "--generate", "12", "--compare")
    assert len(result.targets) > 1


def test_an_encoder_decoder_is_told_what_to_say_or_says_it(translator: str, tmp_path: Path) -> None:
    given = ["--model", translator, "--text", "the cat sat"]
    result = explained(tmp_path, *given, "--target", "a dog", "--merge", "single", "--measure", "attention")
    assert (result.kind, result.n_source) == ("encoder-decoder", 4)
    assert result.sink_labels == ("a", "dog", "</s>")
    assert result.options["merge"] == "single"
    assert explained(tmp_path, *given, "--generate", "2").values.shape[0] <= 2
    assert explained(tmp_path, *given).kind == "encoder-decoder"


def test_some_steps_of_some_tokens(decoder: str, tmp_path: Path) -> None:
    given = ["--model", decoder, "--text", TEXT, "--continuation", " over the hill"]
    result = explained(tmp_path, *given, "--steps", "0,2", "--sources", "1,3", "--keep", "6", "--memory-limit", "0.5")
    assert (result.sink_labels, result.players.tolist()) == (("over", "hill"), [1, 3])
    assert result.options["keep"] == 6
    spilled = explained(
        tmp_path, *given, "--steps", "0", "--sources", "all", "--below", "0.1", "--spill", str(tmp_path)
    )
    assert (spilled.players.size, spilled.options["below"]) == (N + 2, 0.1)  # what was said, too


def test_a_limit_that_is_too_low_and_a_device_that_is_not_there(
    decoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--model", decoder, "--text", TEXT, "--memory-limit", "0.0000001"]) == 1
    assert "memory_limit" in one_error(capsys)
    assert main(["explain", "--model", decoder, "--text", TEXT, "--device", "toaster"]) == 1
    assert one_error(capsys).startswith("attnflow: error: --device toaster: ")


def test_gradients_of_a_token_or_of_a_difference(decoder: str, tmp_path: Path) -> None:
    given = ["--model", decoder, "--text", TEXT, "--measure", "attention_x_gradient"]
    one = explained(tmp_path, *given, "--objective", "cat")
    two = explained(tmp_path, *given, "--objective", "cat", "--objective", "dog")
    assert one.options["measure"] == two.options["measure"] == "attention_x_gradient"
    assert not np.array_equal(one.values, two.values)


def test_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "x.png")
    model = saved(tmp_path / "eyes", vit(), image_processor())
    result = explained(tmp_path, "--model", model, "--image", str(tmp_path / "x.png"))
    assert result.on_grid().shape == (3, 3)
    (tmp_path / "no.png").write_text("no image")
    capsys.readouterr()
    assert main(["explain", "--model", model, "--image", str(tmp_path / "no.png")]) == 1
    assert one_error(capsys) == f"attnflow: error: --image {tmp_path / 'no.png'}: is no image that can be read"
    assert main(["explain", "--model", model, "--image", str(tmp_path / "gone.png")]) == 1
    assert one_error(capsys).endswith("gone.png: No such file or directory")


def write_sound(path: Path, *, rate: int = 16000, width: int = 2, samples: int = 120) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.random.default_rng(0).integers(0, 255, samples * width, dtype=np.uint8).tobytes())
    return str(path)


def test_an_image_for_a_model_of_images_and_texts(tmp_path: Path) -> None:
    """Its vision tower, with the weights that it has."""
    transformers = pytest.importorskip("transformers")
    picture = pytest.importorskip("PIL.Image").new("RGB", (12, 12), (200, 30, 30))
    picture.save(tmp_path / "x.png")
    words = {key: value for key, value in LONG.items() if key != "max_position_embeddings"}
    sizes = {"text_config": {**words, "vocab_size": 22}, "vision_config": VISION, "projection_dim": 16}
    both, processor = transformers.CLIPModel(transformers.CLIPConfig(**sizes)).eval(), image_processor()
    model = saved(tmp_path / "model", both, processor)
    result = explained(tmp_path, "--model", model, "--image", str(tmp_path / "x.png"))
    expected = attnflow.explain(both.vision_model, processor, picture)
    assert result.tokens == expected.tokens
    assert np.allclose(result.values, expected.values, atol=1e-6)


def test_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import transformers

    model = saved(tmp_path / "ears", wav2vec2(), transformers.Wav2Vec2FeatureExtractor())
    result = explained(tmp_path, "--model", model, "--audio", write_sound(tmp_path / "x.wav"))
    assert result.on_grid().shape == (11,)
    capsys.readouterr()
    for wrong, said in (
        ({"rate": 8000}, "has 16 bits and 8000 samples a second; 16 bits and 16000 are needed"),
        ({"width": 1}, "has 8 bits and 16000 samples a second; 16 bits and 16000 are needed"),
        ({"samples": 0}, "holds no samples"),
    ):
        path = write_sound(tmp_path / "wrong.wav", **wrong)
        assert main(["explain", "--model", model, "--audio", path]) == 1
        assert one_error(capsys) == f"attnflow: error: --audio {path}: {said}"
    (tmp_path / "no.wav").write_bytes(b"RIFF")
    assert main(["explain", "--model", model, "--audio", str(tmp_path / "no.wav")]) == 1
    assert "no.wav: is no WAV file that can be read" in one_error(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--text", "a", "--chat", "b"],
        ["--text", "a", "--image", "x.png"],
        ["--text", "a", "--generate", "0"],
        ["--text", "a", "--generate", "many"],
        ["--text", "a", "--merge", "both"],
        ["--text", "a", "--steps", "first"],
        ["--text", "a", "--sources", "some"],
        ["--text", "a", "--keep", "0"],
        ["--text", "a", "--below", "2"],
        ["--text", "a", "--memory-limit", "much"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", "m", *arguments]) == 2
    assert "usage: attnflow" in capsys.readouterr().err


def test_what_contradicts_itself(decoder: str, translator: str, capsys: pytest.CaptureFixture[str]) -> None:
    twice = "attnflow: error: --generate has no meaning where the answer is given"
    assert main(["explain", "--model", translator, "--text", "a", "--target", "dog", "--generate", "3"]) == 1
    assert one_error(capsys) == twice
    assert main(["explain", "--model", decoder, "--text", "a", "--continuation", "dog", "--generate", "3"]) == 1
    assert one_error(capsys) == twice
    assert main(["explain", "--model", translator, "--text", "a", "--continuation", "dog"]) == 1
    assert "continuation" in one_error(capsys)
    assert main(["explain", "--model", decoder, "--text", "a", "--measure", "magic"]) == 1
    assert "'magic'" in one_error(capsys)


def test_pillow_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["explain", "--model", "m", "--image", str(tmp_path / "x.png")]) == 1
    assert one_error(capsys) == "attnflow: error: reading an image needs pillow: pip install pillow"


@pytest.mark.real_model
def test_whisper_from_a_folder(tmp_path: Path) -> None:
    if command := missing("Whisper"):
        pytest.skip(command)
    model = saved(tmp_path / "whisper", *load_whisper())
    sound = write_sound(tmp_path / "x.wav", samples=16000)
    result = explained(tmp_path, "--model", model, "--audio", sound, "--generate", "2", "--measure", "attention")
    assert result.kind == "encoder-decoder"
    assert result.on_grid(0).shape == (1500,)


def test_shares_of_a_joint_flow(decoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", decoder, "--text", TEXT, "--attribution"]
    drawn = ["--permutations", "20", "--seed", "1"]
    result = explained(tmp_path, *asked, "shapley", *drawn)
    assert result.attribution == "shapley"
    assert result.options["permutations"] == 20
    assert "Shapley values of excess ALTI flow" in capsys.readouterr().out
    assert explained(tmp_path, *asked, "fair").attribution == "fair"
    for wrong in (["--permutations", "0"], ["--tolerance", "-1"], ["--seed", "x"]):
        assert main(["explain", *asked, "shapley", *wrong]) == 2
    assert main(["explain", *asked, "fair", *drawn]) == 1
    assert "is of attribution='shapley', and it is 'fair'" in capsys.readouterr().err


def test_what_flows_are_compared_with(decoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    asked = ["--model", decoder, "--text", TEXT, "--save", str(page), "--compare"]
    others = [
        "rollout",
        "widest_path",
        "raw_attention",
        "mean_attention",
        "gradient_x_input",
        "leave_one_out",
        "random",
    ]
    result = explained(tmp_path, *asked, *others)
    assert result.attribution == "independent"
    assert result.options["measure"] == "alti"
    shown = capsys.readouterr().out
    for name in ("Excess ALTI flow", "Rollout on excess ALTI", "Raw attention, last layer", "Leave-one-out", "Random"):
        assert name in shown
        assert name in page.read_text(encoding="utf-8")
    assert "; what is no flow has nothing to certify" in shown
    # The published method beside what is no flow, and words beside words.
    result = explained(tmp_path, *asked, "--attribution", "leave_one_out", "--leave-out", "delete", "--units", "words")
    assert (result.attribution, result.options["leave_out"], result.options["units"]) == (
        "leave_one_out", "delete", "words",
    )  # fmt: skip
    assert result.members is not None
    assert "Plain attention flow  the published method" in capsys.readouterr().out


def test_options_that_an_attribution_lacks(decoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, said in (
        (["--leave-out", "delete"], "leave_out='delete' is of attribution='leave_one_out'"),
        (["--attribution", "leave_one_out", "--residual", "0.5"], "residual=0.5 is of a network"),
        (["--attribution", "rollout", "--chain"], "chain=True has no meaning for attribution='rollout'"),
        (["--attribution", "rollout", "--keep", "2"], "needs all edges"),
        (["--attribution", "rollout", "--seed", "1"], "leave it out"),
        (["--compare", "rollout", "--objective", "dog"], "objective has no meaning for measure 'alti'"),
    ):
        assert main(["explain", "--model", decoder, "--text", TEXT, *wrong]) == 1
        assert said in one_error(capsys)
