"""The examples run, and say what they promise; what they measure is not tested here."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("jinja2")

import film_snippets  # noqa: E402
from attnflow.packaged_models import Model, missing  # noqa: E402
from film_snippets import Snippet  # noqa: E402


def needs(*models: Model) -> pytest.MarkDecorator:
    commands = [command for model in models if (command := missing(model))]
    return pytest.mark.skipif(bool(commands), reason=" && ".join(commands))


def run(module: Any, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{module.__name__}.py", *arguments])
        threads = torch.get_num_threads()
        try:
            module.main()
        finally:
            torch.set_num_threads(threads)


# --- A kind of model each --------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[Model | None, str]] = {
    "arithmetic": ("MathFormer", "'5': '6' at 0"),
    "molecules": ("ANNalog", "'C': "),
    "reactions": ("RXNMapper", "predicted: 'O', 85"),
    "arrays": (None, "output at 'are': 'are' at 5"),
    "generation": ("SmolLM2", "' Paris': ' is'"),
    "chat": ("SmolLM2", "' planet': ' planet'"),
    "image": ("DINOv2", "16% of the patches are on the disc, and hold 5"),
    "speech": ("Whisper", "the tone is 7% of the recording, and holds 4"),
}


def test_every_kind_is_tested() -> None:
    import kinds

    assert set(kinds.EXAMPLES) == set(KINDS)


@pytest.mark.real_model
@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import kinds

    model, said = KINDS[kind]
    if model is not None and missing(model):
        pytest.skip(str(missing(model)))
    run(kinds, kind, "--folder", str(tmp_path))
    shown = capsys.readouterr()
    assert said in shown.out
    assert shown.err == ""
    assert "<html" in (tmp_path / f"attnflow-{kind}.html").read_text(encoding="utf-8")


def test_an_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    import kinds

    with pytest.raises(SystemExit):
        run(kinds, "poetry")
    assert "there is no poetry; choose from arithmetic, " in capsys.readouterr().err


def test_a_model_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    import kinds

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mathformer" else find(name))
    run(kinds, "arithmetic")
    assert "pip install --no-deps mathformer==" in capsys.readouterr().err


# --- The film snippets -----------------------------------------------------------------------------------------------


def archive(folder: Path, lines: list[str]) -> Path:
    """An archive of the right shape with other sentences."""

    def packed(name: str, content: bytes) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        return file.getvalue()

    path = folder / "snippets.tar.gz"
    path.write_bytes(packed(film_snippets._INNER, packed(film_snippets._TEXTS, "\n".join(lines).encode())))
    return path


def test_snippets_are_read_and_divided_by_what_they_say(tmp_path: Path) -> None:
    lines = [f"{i}\t{(i % 3 - 1) * 1.5}\tSentence number {i}." for i in range(300)]
    file = archive(tmp_path, lines)
    parts = {part: film_snippets.read(file, part) for part in ("training", "development", "held-out")}  # type: ignore[arg-type]
    assert sum(map(len, parts.values())) == 200  # none rated zero
    assert 130 < len(parts["training"]) < 185
    assert parts["training"][0] in (Snippet("Sentence number 0.", False), Snippet("Sentence number 2.", True))
    texts = [{snippet.text for snippet in snippets} for snippets in parts.values()]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert film_snippets.part_of("Two  Words") == film_snippets.part_of("two words ")


def test_an_archive_that_is_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vaderSentiment-3.3.2.tar.gz").write_bytes(b"something else")
    with pytest.raises(film_snippets.Unavailable, match="its checksum is another"):
        film_snippets.download(tmp_path)


def test_what_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_snippets, "_REQUIREMENT", "no-such-package-of-attnflow==1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(film_snippets.Unavailable, match=r"(?s)pip could not fetch it: .*as it lies on PyPI, into"):
        film_snippets.download(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- Faithfulness ----------------------------------------------------------------------------------------------------

TONES = [("a wonderful, moving and funny film {}", True), ("a dull, empty and tiresome mess {}", False)]
SENTENCES = [
    Snippet(text.format(word), tone)
    for word in ["about", "war", "love", "dogs", "ships", "songs"]
    for text, tone in TONES
]


@pytest.mark.real_model
@needs("MiniLM")
def test_faithfulness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import faithfulness

    monkeypatch.setattr(film_snippets, "download", lambda _: tmp_path)
    monkeypatch.setattr(film_snippets, "read", lambda _, part: SENTENCES * (140 if part == "training" else 20))
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{faithfulness.BEGIN}\nold\n{faithfulness.END}\n\nafter\n", encoding="utf-8")
    run(faithfulness, "--quick", "--save", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert capsys.readouterr().out.strip() in text
    for measure in faithfulness.MEASURES:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {measure} | ")]
        assert row.count("±") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]  # nothing is kept of a quick run


@pytest.mark.real_model
@needs("MiniLM")
def test_scores_are_those_of_explain_and_of_leaving_out(tmp_path: Path) -> None:
    import faithfulness
    import sentiment

    model, tokenizer = sentiment.trained(SENTENCES, passes=1, seed=0, cache=tmp_path, say=lambda _: None)
    again, _ = sentiment.trained(
        SENTENCES, passes=1, seed=0, cache=tmp_path, say=lambda _: pytest.fail("trained twice")
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    text = SENTENCES[0].text
    inputs = tokenizer(text, return_tensors="pt")
    drops = faithfulness.left_out(model, inputs)
    ids = inputs["input_ids"][0].tolist()
    said = int(model(**inputs).logits.argmax())
    for token in (0, len(drops) - 1):
        rest = torch.tensor([[*ids[: token + 1], *ids[token + 2 :]]])
        with torch.no_grad():
            difference = (model(**inputs).logits.log_softmax(-1) - model(input_ids=rest).logits.log_softmax(-1))[
                0, said
            ]
        assert drops[token] == pytest.approx(float(difference), abs=1e-5)
    scores, _ = faithfulness.flow_scores(model, tokenizer, text, "attention")
    # A rollout of rows that sum to 1 is a feasible flow.
    assert (scores["attention, rollout"] <= scores["attention, plain flow"] + 1e-6).all()
    assert all(values.shape == drops.shape for values in scores.values())


def test_a_mean_comes_with_its_standard_error() -> None:
    import faithfulness

    assert faithfulness.mean(np.array([0.1, 0.2, 0.3, 0.4])) == "+0.250 ± 0.065"


# --- Blank-out -------------------------------------------------------------------------------------------------------


@pytest.mark.real_model
@needs("MiniLM", "SmolLM2")
def test_blank_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import blank_out

    monkeypatch.setattr(film_snippets, "download", lambda _: tmp_path)
    monkeypatch.setattr(film_snippets, "read", lambda _, part: SENTENCES * (140 if part == "training" else 20))
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{blank_out.BEGIN}\nold\n{blank_out.END}\n\nafter\n", encoding="utf-8")
    run(blank_out, "--quick", "--save", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert capsys.readouterr().out.strip() in text
    for capacities in blank_out.CAPACITIES:
        for method in blank_out.METHODS:
            rows = [line for line in text.splitlines() if line.startswith(f"| {capacities}: {method} | ")]
            # Two models; three yardsticks layer by layer, and then all yardsticks.
            assert [row.count("±") for row in rows] == [6, 6, 6, 7, 7, 7, 7, 7]


@pytest.mark.real_model
@needs("SmolLM2")
def test_blanking_out_is_another_token_and_one_layer_is_its_attention() -> None:
    import blank_out
    from attnflow.packaged_models import load_smollm2

    model, tokenizer = load_smollm2()
    ids = torch.tensor([0, *tokenizer.encode("The keys to the cabinet", add_special_tokens=False)])
    (singular,), (plural,) = (tokenizer.encode(verb, add_special_tokens=False) for verb in blank_out.VERBS)
    text = blank_out.case(
        model,
        ids,
        lambda logits: logits[:, -1, plural] - logits[:, -1, singular],
        0,
        sink=len(ids) - 1,
        players=range(1, len(ids)),
        rng=np.random.default_rng(0),
    )
    changed = ids.clone()
    changed[2] = 0
    with torch.no_grad():
        odds = [model(row[None]).logits[0, -1, [plural, singular]].softmax(-1)[0].item() for row in (ids, changed)]
    assert text.truths[blank_out.BLANK][1] == pytest.approx(odds[0] - odds[1], abs=1e-5)
    assert text.truths[blank_out.BLANK_MEAN].argmax() == 1  # " keys"
    scores = blank_out.layer_scores(text, "published", 1, seed=0)
    row = text.layers["attention"][0][-1, 1:]
    np.testing.assert_allclose(scores[blank_out.RAW], row, rtol=1e-6)
    for method in (blank_out.ROLLOUT, blank_out.FLOW, blank_out.SHAPLEY, blank_out.FAIR):
        np.testing.assert_allclose(scores[method], row / 2 + np.eye(len(row))[-1] / 2, rtol=1e-6)


def test_what_position_explains_is_taken_out() -> None:
    import blank_out

    rng = np.random.default_rng(0)
    truth, scores = rng.random(9), rng.random(9)
    text = blank_out.Case({}, False, 0, range(9), {blank_out.BLANK: truth, blank_out.BLANK_MEAN: truth}, {})
    ranks = np.argsort(np.argsort([truth, scores, np.arange(9)]))
    # The partial correlation from the inverse of the matrix of correlations.
    inverse = np.linalg.inv(np.corrcoef(ranks))
    expected = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    assert blank_out.correlations(scores, text)[blank_out.BLANK + blank_out.HELD] == pytest.approx(expected)
    assert np.isnan(blank_out.correlations(np.arange(9.0), text)[blank_out.BLANK + blank_out.HELD])


def test_shares_that_differ_in_the_last_bit_are_equal() -> None:
    import blank_out

    values = blank_out.shortened(np.array([0.1, np.nextafter(0.1, 1), 1e-12, 2e-12, 0.0]))
    assert len(set(values)) == 4


def test_the_subject_decides_the_verb() -> None:
    import verb_numbers

    drawn = verb_numbers.draw(300, seed=0)
    assert drawn == verb_numbers.draw(300, seed=0)
    assert len({sentence.text for sentence in drawn}) == 300
    singular = {noun[0] for noun in verb_numbers.THINGS + verb_numbers.PEOPLE}
    for sentence in drawn:
        nouns = [
            word for word in sentence.text.split() if any(word in n for n in verb_numbers.THINGS + verb_numbers.PEOPLE)
        ]
        assert nouns[0] == sentence.subject
        assert sentence.plural == (sentence.subject not in singular)
        assert sentence.attracted == ((nouns[1] in singular) == sentence.plural)
    assert 100 < sum(sentence.plural for sentence in drawn) < 200


# --- Reasoning -------------------------------------------------------------------------------------------------------


def test_formulas_are_read_as_they_are_written() -> None:
    import random

    import formulas

    assert formulas.infix("&|ab!c") == "((a or b) and not c)"
    assert [answer for answer in formulas.ANSWERS if formulas.holds("&|ab!c", answer)] == ["010", "100", "110"]
    assert not any(formulas.holds("a", answer) for answer in ("", "01", "0101", "2 1"))
    rng = random.Random(0)
    for formula in (formulas.sample(rng) for _ in range(200)):
        code = compile(formulas.infix(formula.text), "formula", "eval")
        satisfying = [
            answer for answer in formulas.ANSWERS if eval(code, dict(zip("abc", map(int, answer), strict=True)))
        ]
        assert satisfying == [answer for answer in formulas.ANSWERS if formulas.holds(formula.text, answer)]
        assert formula.answer == satisfying[0]
        assert len(satisfying) <= 4


def test_the_share_of_pairs_in_the_right_order() -> None:
    import reasoning

    own = np.array([True, False, True, False])
    assert reasoning.area(np.array([3.0, 1.0, 2.0, 0.0]), own) == 1.0
    assert reasoning.area(np.array([0.0, 1.0, 1.0, 1.0]), own) == 0.25


def test_reasoning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import formulas
    import reasoning

    assert formulas.held_out(reasoning.SHOWN)
    assert reasoning.SHOWN.answer == min(a for a in formulas.ANSWERS if formulas.holds(reasoning.SHOWN.text, a))
    page = tmp_path / "page.html"
    run(reasoning, "--quick", "--page", str(page))
    shown = capsys.readouterr().out
    assert "50 unseen formulas: " in shown
    assert "is (not a and (b or (c and not b)))" in shown
    assert shown.count("the value of c drew most on") == 2
    assert "| substitution | " in shown
    for method in reasoning.METHODS:
        assert f"| {method} | " in shown
    assert "<html" in page.read_text(encoding="utf-8")
