"""The scripts of benchmarks/: what they measure, and that they fail when they should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import fresh
import growth
import import_time
import instructions
import plot_peers
import scale
import threads
from attnflow import bench, instances

# --- the baseline of instruction counts -----------------------------------------------------------------------------


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What valgrind would count: 1000 for each of a few networks, unless a test changes it."""
    chosen = dict.fromkeys((case.name for case in bench.select("n=64")), 1000) | {"peaked n=8": 1000}
    monkeypatch.setattr(instructions.shutil, "which", lambda name: name)
    monkeypatch.setattr(instructions, "counted_with", lambda: {"compiler": "c++ 1"})
    monkeypatch.setattr(instructions, "NETWORKS", tuple(chosen))

    def count(instance: bench.Instance, algorithm: str, *, cache: bool, profile: bool) -> instructions.Cost:
        return instructions.Cost(chosen[instance.name], *((20, 10) if cache else ()))

    monkeypatch.setattr(instructions, "count", count)
    return chosen


def run(baseline: Path, *arguments: str) -> int:
    return instructions.main(["--baseline", str(baseline), *arguments])


def complaint(baseline: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run(baseline, *arguments)
    return capsys.readouterr().err


def test_a_count_that_grows_fails_the_check(
    counts: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    assert run(baseline, "--update") == 0
    stored = json.loads(baseline.read_text())
    assert stored["counted_with"] == {"compiler": "c++ 1"}
    assert stored["instructions"] == counts
    assert "cache_misses" not in stored
    assert run(baseline, "--check") == 0
    counts["peaked n=64"] = 1030
    assert run(baseline, "--check") == 0
    capsys.readouterr()
    counts["peaked n=64"] = 1031
    assert run(baseline, "--check", "--only", "n=64") == 1
    shown = capsys.readouterr()
    assert "1.0310 x the baseline's\n" in shown.out
    assert shown.err == "slower than the baseline by more than 3%, or not in it: peaked n=64\n"
    assert run(baseline) == 0  # without --check it is a figure, and no verdict
    counts["peaked n=64"] = 970
    capsys.readouterr()
    assert run(baseline, "--check") == 0
    assert "update" not in capsys.readouterr().out
    counts["peaked n=64"] = 969
    assert run(baseline, "--check") == 0
    assert "0.9690 x the baseline's  faster: update the baseline\n" in capsys.readouterr().out
    assert run(baseline, "--update", "--cache") == 0
    updated = json.loads(baseline.read_text())
    assert updated["instructions"] == {**stored["instructions"], "peaked n=64": 969}
    assert updated["cache_misses"]["peaked n=64"] == {"D1": 20, "LL": 10}
    assert "20 D1 misses          10 LL misses" in capsys.readouterr().out


def test_what_is_not_in_the_baseline_or_counted_otherwise_is_said(
    counts: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    assert "run --update first" in complaint(baseline, capsys, "--check")
    with monkeypatch.context() as patch:
        patch.setattr(instructions, "NETWORKS", ("packed n=64",))
        assert run(baseline, "--update") == 0
    monkeypatch.setattr(instructions, "counted_with", lambda: {"compiler": "c++ 2"})
    capsys.readouterr()
    assert run(baseline, "--check") == 1
    shown = capsys.readouterr()
    assert "the baseline was counted with {'compiler': 'c++ 1'}, this is {'compiler': 'c++ 2'}" in shown.err
    assert shown.out.count("not in the baseline") == len(counts) - 1
    assert "no network has 'n=65' in its name" in complaint(baseline, capsys, "--only", "n=65")
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    assert "valgrind is not installed" in complaint(baseline, capsys, "--check")


def test_a_baseline_is_whole_and_of_one_algorithm(
    counts: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    assert run(baseline, "--update") == 0
    stored = baseline.read_bytes()
    counts["peaked n=8"] = 1
    for purpose in ("--check", "--update"):
        said = complaint(baseline, capsys, purpose, "--algorithm", "push_relabel")
        assert "the baseline is of --algorithm auto: neither --check nor --update goes with push_relabel" in said
    assert "not only 'n=8'" in complaint(baseline, capsys, "--update", "--only", "n=8")
    assert "--ratios goes with --check" in complaint(baseline, capsys, "--ratios")
    assert "invalid choice: 'simplex'" in complaint(baseline, capsys, "--algorithm", "simplex")
    assert baseline.read_bytes() == stored
    capsys.readouterr()
    assert run(baseline, "--algorithm", "push_relabel") == 0
    assert "baseline" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"counted_with": {}, "instructions": [], "times_faster_than_fastest_peer": {}}',
        b'{"counted_with": {}, "instructions": {"peaked n=8": 0}, "times_faster_than_fastest_peer": {}}',
        b'{"counted_with": {}, "instructions": {}, "times_faster_than_fastest_peer": {"peaked n=8": "2"}}',
    ],
)
def test_a_file_that_is_no_baseline_is_said(
    counts: dict[str, int], content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_bytes(content)
    for purpose in ([], ["--check"], ["--update"]):
        assert "baseline.json is no baseline that --update wrote" in complaint(baseline, capsys, *purpose)
    assert baseline.read_bytes() == content


def test_networks_of_models_that_are_not_here_are_left_out(
    counts: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("attnflow.packaged_models.missing", lambda model: f"pip install {model}")
    monkeypatch.setattr(instructions, "NETWORKS", ("peaked n=8", "MiniLM n=128 plain sink=0"))
    said = complaint(baseline, capsys, "--update")
    assert "--update counts all networks; MiniLM n=128 plain sink=0 needs: pip install MiniLM" in said
    assert not baseline.exists()
    with monkeypatch.context() as patch:
        patch.setattr(instructions, "NETWORKS", ("peaked n=8",))
        assert run(baseline, "--update") == 0
    assert run(baseline, "--check") == 0
    assert "left out; it needs: pip install MiniLM" in capsys.readouterr().out
    assert "no network could be counted" in complaint(baseline, capsys, "--check", "--only", "MiniLM n=128")


def test_a_peer_that_comes_closer_fails_the_check(
    counts: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    (peer, *others), _ = bench.peers.find()
    case = {"case": "one layer n=64", "fastest_peer": peer.NAME, "times_faster_than_fastest_peer": 10.0}
    monkeypatch.setattr(instructions, "RESULTS", tmp_path)
    monkeypatch.setattr(instructions, "NETWORKS", ("one layer n=64",))
    assert run(baseline, "--update") == 0
    assert "there is no peers-*.json" in complaint(baseline, capsys, "--check", "--ratios")
    (tmp_path / "peers-2026-01-01.json").write_text(json.dumps({"cases": [case]}))
    assert run(baseline, "--update") == 0
    measured = [2.0, 6.01]

    def compare(instance: bench.Instance, peers: Any, **_: Any) -> dict[str, float]:
        assert (instance.name, peers) == ("one layer n=64", [peer])
        return {"times_faster_than_fastest_peer": measured.pop(0)}

    monkeypatch.setattr(bench, "compare", compare)
    capsys.readouterr()
    assert run(baseline, "--check", "--ratios") == 0
    assert f"6.01 times as fast as {peer.NAME}; the baseline has 10\n" in capsys.readouterr().out
    assert run(baseline, "--check") == 0
    measured += [5.99, 5.98, 5.97]
    assert run(baseline, "--check", "--ratios") == 1
    assert "a ratio to the fastest peer fell below 0.6 of what it was: one layer n=64\n" in capsys.readouterr().err
    monkeypatch.setattr(bench.peers, "find", lambda: (others, {}))
    said = complaint(baseline, capsys, "--check", "--ratios")
    assert f"was fastest in peers-2026-01-01.json and is not installed: {peer.NAME}" in " ".join(said.split())


def test_the_committed_baseline_knows_the_networks(root: Path) -> None:
    assert set(instructions.NETWORKS) <= {case.name for case in bench.CASES}
    stored = json.loads((root / "benchmarks" / "baseline.json").read_text())
    assert set(stored["instructions"]) <= set(instructions.NETWORKS)
    assert stored["counted_with"]["compiler"]


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_counts_a_solve() -> None:
    """Neither what else is in the interpreter nor the tool that counts has a say."""
    (case,) = bench.select("one layer n=8")
    alone = instructions.count(bench.load(case))
    assert 10_000 < alone.instructions < 5_000_000
    assert alone.d1_misses is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instructions, "MEASURE", "kept = [[] for _ in range(500)]\n" + instructions.MEASURE)
        crowded = instructions.count(bench.load(case), cache=True)
    assert crowded.instructions == pytest.approx(alone.instructions, rel=0.02)
    assert crowded.d1_misses is not None
    assert crowded.ll_misses is not None
    assert crowded.ll_misses <= crowded.d1_misses < alone.instructions / 10


# --- growth ---------------------------------------------------------------------------------------------------------


def test_exponents_are_slopes() -> None:
    assert growth.exponent([2, 4, 8], [3 * 2**1.5, 3 * 4**1.5, 3 * 8**1.5]) == pytest.approx(1.5)
    assert growth.exponent([2, 4], [1, 2]) is None
    # How small networks begin has no say: of six points three count, of seven four.
    assert growth.exponent([1, 2, 4, 8, 16, 32], [9, 9, 9, 1, 2, 4]) == pytest.approx(1)
    assert growth.exponent([2, 4, 8, 16], [1, 2, 1.5, 1]) == pytest.approx(-0.5)


def test_a_jump_is_no_exponent() -> None:
    assert growth.exponent([64, 128, 256, 512], [0.0115, 0.0204, 2.67, 2.29]) is None
    assert growth.exponent([2, 4, 8], [1, 2 * 1.8, 4]) == pytest.approx(1)  # two thirds of it are off the line
    assert growth.exponent([2, 4, 8], [1, 2 * 1.9, 4]) is None
    assert growth.in_words("n", 4, None) == "irregular"
    assert growth.in_words("L", 3, -0.04) == "~ L^0.0"
    assert growth.in_words("L", 2, None) == "of too few points"


def test_a_point_over_budget_ends_its_series(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(capacities: Any, sink: int, *, limit: float) -> fresh.Cost:
        n = len(capacities[0])
        assert sink == n - 1
        if n * 0.1 > limit:
            raise TimeoutError
        return fresh.Cost(n * 0.1, n * n)

    monkeypatch.setattr(fresh, "call", call)
    series = growth.Series("a line", "n", (2, 4, 8, 16, 32), lambda n: instances.softmax(1, n, seed=0))
    result = growth.follow(series, budget=1.0)
    assert [point["n"] for point in result["points"]] == [2, 4, 8]
    assert result["skipped"] == [16, 32]
    assert result["exponents"] == pytest.approx({"seconds": 1.0, "solve_bytes": 2.0})
    assert result["summary"] == ("time ~ n^1.0, memory ~ n^2.0; n = 16 took longer than 1 s; larger ones left out: 32")
    nothing = growth.follow(series, budget=0.1)
    assert (
        nothing["summary"] == "time of too few points, memory of too few points; "
        "n = 2 took longer than 0.1 s; larger ones left out: 4, 8, 16, 32"
    )


def test_growth_is_measured_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "LENGTHS", (4, 8, 16))
    monkeypatch.setattr(growth, "DEPTHS", (2, 4, 8))
    monkeypatch.setattr(growth, "RESULTS", tmp_path)
    monkeypatch.setattr(growth, "CHART", tmp_path / "committed.svg")
    monkeypatch.setattr(growth, "POSITIONS", 8)
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("attnflow.packaged_models.missing", lambda model: "pip install it")
    monkeypatch.setattr(fresh, "call", lambda capacities, sink, limit: fresh.Cost(capacities.size, capacities.nbytes))
    output, chart = tmp_path / "growth.json", tmp_path / "growth.svg"
    assert growth.main(["--longest", "4", "--deepest", "3", "--budget", "5"]) == 0  # a quick look
    assert list(tmp_path.iterdir()) == []
    assert growth.main(["--budget", "5", "--output", str(output), "--chart", str(chart)]) == 0
    assert "without SmolLM2: pip install it" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["growth.json", "growth.svg"]
    output.unlink()
    assert growth.main(["--longest", "16"]) == 0  # the default, of this test
    assert (tmp_path / "committed.svg").exists()
    report = json.loads(output.read_text())
    slopes = [(series["name"], round(series["exponents"]["seconds"], 6)) for series in report["series"]]
    assert slopes == [("peaked, 12 layers", 2.0), ("softmax, 12 layers", 2.0), ("softmax, 8 positions", 1.0)]
    shown = " ".join(ElementTree.parse(chart).getroot().itertext())
    assert shown.count("softmax, 8 positions: ~ L^1.0") == 2
    assert "megabytes beside the array" in shown


def test_a_budget_that_no_network_meets_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*_: Any, **__: Any) -> fresh.Cost:
        raise TimeoutError

    monkeypatch.setattr(fresh, "call", call)
    with pytest.raises(SystemExit, match="2"):
        growth.main(["--longest", "64", "--budget", "1e-3", "--output", str(tmp_path / "growth.json")])
    assert "--budget is 0.001: not one network was solved" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says how much memory was used")
def test_one_call_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    cost = fresh.call(instances.softmax(2, 64, seed=0), 63)
    assert 0 < cost.seconds < 10
    assert 0 <= cost.n_bytes < 10_000_000
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TimeoutError, match=r"not done after 0.01 seconds"):
        fresh.call(instances.softmax(2, 64, seed=0), 63, limit=0.01)


# --- threads --------------------------------------------------------------------------------------------------------


def test_threads_are_compared_on_equal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = threads.load("peaked n=64")
    row = threads.speed_up(instance, repeats=1)
    assert row["times_as_fast"] == pytest.approx(row["seconds"][0] / row["seconds"][1])
    solve = bench.Instance.solve

    def differing(self: bench.Instance, *, threads: int) -> Any:
        return solve(self._replace(sink=threads))

    monkeypatch.setattr(bench.Instance, "solve", differing)
    with pytest.raises(SystemExit, match="peaked n=64: values differ between one thread and two"):
        threads.speed_up(instance, repeats=1)


def test_all_pairs_are_counted() -> None:
    row = threads.all_pairs("small", np.asarray(instances.softmax(2, 8, seed=0)))
    assert row["pairs"] == 64
    assert row["seconds"] > 0


def test_a_quick_look_at_threads_replaces_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RESULTS", tmp_path)
    monkeypatch.setattr(threads, "load", lambda name: bench.load(bench.select("one layer n=8")[0]))
    monkeypatch.setattr(threads, "GOAL", 0.0)
    assert threads.main(["--repeats", "1"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert threads.main(["--repeats", "1", "--output", str(tmp_path / "mine.json")]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine.json"]
    assert threads.main([]) == 0
    assert len(json.loads((tmp_path / "threads.json").read_text())["two_threads"]) == 3


# --- scale ----------------------------------------------------------------------------------------------------------


def test_a_quick_look_at_scale_replaces_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"case": "x", "n": 9, "limit_gib": 1, "capacity_bytes": 1, "build_seconds": 1, "sources": 9}
    row |= {"peak_bytes": 2**30, "solve_seconds": 1.0, "mean_interval": 0.0}
    monkeypatch.setattr(scale, "RESULTS", tmp_path)
    monkeypatch.setattr(scale.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=json.dumps(row)))
    assert scale.main(["--only", "4096", "--seconds", "60"]) == 0
    assert "| x | 0.00 | 1.00 |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert scale.main(["--only", "4096", "--output", str(tmp_path / "mine.json")]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine.json"]
    assert scale.main([]) == 0
    assert len(json.loads((tmp_path / "scale.json").read_text())["cases"]) == 2
    row["peak_bytes"] = 2**30 + 1
    assert scale.main(["--only", "4096"]) == 1


def test_a_scale_is_measured() -> None:
    """However little time there is, two runs of sources are solved."""
    measured = scale.measure(scale.Scale(2, 256, None, 1), threads=1, seconds=1e-9)
    assert (measured["sources"], measured["n"]) == (128, 256)
    assert measured["largest_interval"] < 0.01


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "arguments", "complaint"),
    [
        (scale, ["--only", "zzz"], "no case has 'zzz' in its name; there are: 32 x 4096, triangle; 80 x 8192"),
        (scale, ["--threads", "0"], "argument --threads: '0' must be a whole number, 1 or more"),
        (scale, ["--seconds", "nan"], "argument --seconds: 'nan' must be a number of seconds, more than 0"),
        (growth, ["--longest", "8"], "--longest is 8; the smallest network has 64"),
        (growth, ["--deepest", "1"], "--deepest is 1; the smallest network has 2"),
        (growth, ["--budget", "-1"], "argument --budget: '-1' must be a number of seconds, more than 0"),
        (threads, ["--repeats", "0"], "argument --repeats: '0' must be a whole number, 1 or more"),
        (import_time, ["--runs", "-1"], "argument --runs: '-1' must be a whole number, 1 or more"),
    ],
)
def test_wrong_arguments_are_said_before_anything_runs(
    script: Any, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(arguments)
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_help_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot_peers, "CHART", tmp_path / "peers.svg")
    with pytest.raises(SystemExit, match="0"):
        plot_peers.main(["--help"])
    assert "README's chart again" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert plot_peers.main([]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["peers.svg"]


def test_make_takes_the_options_of_the_committed_figures(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    newest = max((root / "benchmarks" / "results").glob("peers-*.json"))
    settings = json.loads(newest.read_text())["settings"]
    assert f"attnflow bench --repeats {settings['repeats']} --seconds {settings['seconds']:g} --output" in makefile
    assert f"growth.py --budget 120 --longest {growth.LENGTHS[-1]}\n" in makefile
    assert "instructions.py --check --ratios\n" in makefile
