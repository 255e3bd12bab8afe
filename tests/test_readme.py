"""README keeps its word: its Python runs, its commands exist, its links and pictures lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import attnflow

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")
PACKAGED_AS = "HuggingFaceTB/SmolLM2-135M-Instruct"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def packaged(smollm2: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that README names comes from its package, since no hub is reachable in a test."""
    import transformers

    for loader, thing in zip(("AutoModelForCausalLM", "AutoTokenizer"), smollm2, strict=True):

        def load(name: str, thing: Any = thing) -> Any:
            assert name == PACKAGED_AS
            return thing

        monkeypatch.setattr(getattr(transformers, loader), "from_pretrained", load)


@pytest.mark.real_model
@pytest.mark.usefixtures("packaged")
def test_the_python_on_models_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = [block for block in blocks("README.md", "python") if "explain(" in block]
    assert len(first.splitlines()) <= 8
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(first, namespace)
    assert namespace["result"].prediction is not None
    assert "Mary" in capsys.readouterr().out
    assert "Mary" in (tmp_path / "mary.html").read_text(encoding="utf-8")
    for code in others:
        exec(code, namespace)
    assert len(namespace["captured"].decoder) == 30


@pytest.mark.parametrize("code", [block for block in blocks("README.md", "python") if "explain(" not in block])
def test_the_python_on_arrays_runs(code: str) -> None:
    # Every line that is only shown must be a value somebody would look at.
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert namespace["flows"].values.shape == (1, 6)
    assert namespace["flows"].bottlenecks.shape == (1, 6)
    assert namespace["attnflow"] is attnflow


def test_the_first_screen_has_two_commands_a_picture_and_a_chart() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert re.findall(r"^make (\S+)", first_screen, re.MULTILINE) == ["demo", "test"]
    assert re.findall(r"!\[[^]]+\]\((\S+)\)", first_screen) == ["docs/images/demo.svg", "docs/images/peers.svg"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_named_commands_and_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"\bmake (?:[A-Z]+=\S+ )?([a-z-]+)", " ".join(blocks(page, "sh") + re.findall("`[^`]+`", text))
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for file in re.findall(r"\b((?:benchmarks|tests|examples|docs)/[\w/]+\.\w+)", text):
        assert (ROOT / file).exists(), file


def test_the_command_line_of_readme_is_understood() -> None:
    commands = [
        line for block in blocks("README.md", "sh") for line in block.splitlines() if line.startswith("attnflow ")
    ]
    assert commands
    for command in commands:
        name = command.split()[1]
        shown = subprocess.run(
            [sys.executable, "-c", "from attnflow.cli import main; raise SystemExit(main())", name, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for option in re.findall(r"(?<= )--[a-z-]+", command):
            assert option in shown, f"{option} of: {command}"
