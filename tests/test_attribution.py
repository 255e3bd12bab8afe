"""The result: what it refuses, what it derives, and that files give back exactly what they were given."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import pickle
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr

from attnflow import Attribution
from attnflow.attribution import NONE, SINK, SOURCE, PairFlow, spearman
from attnflow.errors import AttnflowError, FileFormatError, InvalidArgumentError, MissingDependencyError

FIELDS: dict[str, Any] = {
    "tokens": ["<s>", "to", " be", " or", " to"],
    "offsets": [None, (0, 2), (2, 5), (5, 8), (8, 11)],
    "text": "to be or to",
    "players": [1, 2, 3, 4],
    "targets": [4],
    "target_label": "next token",
    "values": [[0.3, 0.1 + 0.2, 0.0, 1e-300]],
    "lower": [[0.3, 0.3, 0.0, 0.0]],
    "upper": [[0.3, 0.1 + 0.2, 0.0, 1e-300]],
    "bottlenecks": [[0, SOURCE, NONE, 2]],
    "kind": "decoder",
    "n_layers": 2,
    "n_nodes": 15,
    "n_edges": 30,
    "definition": "independent maximum flows",
    "prediction": (" be", 0.1),
    "timings": {"capture": 0.25, "kernel": 1e-9},
    "options": {"measure": "alti", "residual": 0.5, "heads": [1, 2], "calibration": None, "start_token": True},
    "verified": True,
    "flows": [PairFlow(1, [0, 0, 1], [1, 2, 4], [1, 1, 2], [0.1, 0.2, 1 / 3], cut=[False, True, False])],
}


def make(**changes: Any) -> Attribution:
    return Attribution(**FIELDS | changes)


# --- What it is -----------------------------------------------------------------------------------------------------


def test_repeated_tokens_keep_their_own_scores() -> None:
    rows = make().rows()
    assert [(row.position, row.token, row.score) for row in rows if row.token.strip() == "to"] == [
        (1, "to", 0.3),
        (4, " to", 1e-300),
    ]


def test_it_is_frozen_and_keeps_copies() -> None:
    values = np.array(FIELDS["values"])
    options = {"residual": 0.5}
    result = make(values=values, options=options)
    values[:] = 9
    options["residual"] = 9.0
    assert result.values[0, 0] == 0.3
    assert result.options == {"residual": 0.5}
    with pytest.raises(ValueError, match="read-only"):
        result.values[0, 0] = 1
    with pytest.raises(TypeError):
        result.options["residual"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        result.text = "other"  # type: ignore[misc]
    assert result.flows is not None
    with pytest.raises(ValueError, match="read-only"):
        result.flows[0].flow[0] = 1


def test_dtypes_are_fixed() -> None:
    result = make(values=np.array(FIELDS["values"], dtype=np.float32), upper=[[1, 1, 1, 1]], lower=[[0, 0, 0, 0]])
    assert result.values.dtype == np.float64
    assert result.bottlenecks.dtype == np.int32
    assert result.players.dtype == np.int64


def test_equal_by_content_and_copyable() -> None:
    result = make()
    assert result == make()
    assert pickle.loads(pickle.dumps(result)) == result == copy.deepcopy(result)
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert again.flows is not None
        for array in (again.values, again.players, again.bottlenecks, again.flows[0].flow, again.flows[0].cut):
            assert array is not None
            assert not array.flags.writeable
        with pytest.raises(TypeError):
            again.options["heads"][0] = 9
    assert result != replace(result, text="to be or too", offsets=result.offsets)
    assert result != replace(result, flows=None)
    assert result != "something else"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tokens": []}, "tokens"),
    ({"tokens": ["a", "b", "c", "d", 5]}, "tokens"),
    ({"text": None}, "text must be a str"),
    ({"target_label": 5}, "target_label must be a str"),
    ({"definition": None}, "definition must be a str"),
    ({"verified": "no"}, "verified must be a bool"),
    ({"prediction": ("a", math.inf)}, "probability of 'a'"),
    ({"predictions": [("a", -0.5)]}, "probability of 'a'"),
    ({"offsets": [None]}, "5 tokens, 1 offsets"),
    ({"offsets": [None, (0, 2), (2, 5), (5, 8), (8, 12)]}, r"offsets\[4\] = \(8, 12\).*11 characters"),
    ({"offsets": [None, (2, 0), (2, 5), (5, 8), (8, 11)]}, r"offsets\[1\]"),
    ({"players": []}, "players"),
    ({"players": [4, 3, 2, 1]}, "ascending"),
    ({"players": [1, 1, 2, 3]}, "ascending"),
    ({"players": [1, 2, 3, 5]}, r"0\.\.4"),
    ({"players": [-1, 2, 3, 4]}, r"0\.\.4"),
    ({"players": [1.5, 2, 3, 4]}, "players"),
    ({"targets": [5]}, r"targets.*0\.\.4"),
    ({"targets": [()]}, "targets"),
    ({"targets": [(3, 1.5)]}, r"targets\[0\] is 1\.5; it must be an integer"),
    ({"targets": [3, 4]}, r"\(2, 4\), got \(1, 4\)"),
    ({"values": [[0.3, 0.3, 0.0]]}, r"values.*\(1, 4\), got \(1, 3\)"),
    ({"values": [[0.3, math.nan, 0.0, 0.0]]}, "values must be finite"),
    ({"upper": [[0.3, math.inf, 0.0, 0.0]]}, "upper must be finite"),
    ({"values": [[0.3, -0.1, 0.0, 0.0]]}, ">= 0"),
    ({"lower": [[0.4, 0.3, 0.0, 0.0]]}, "lower <= values"),
    ({"upper": [[0.2, 0.4, 0.0, 1.0]]}, "lower <= values"),
    ({"values": [["a", "b", "c", "d"]]}, "values"),
    ({"bottlenecks": [[0, -4, 0, 0]]}, "bottlenecks"),
    ({"bottlenecks": [[0.5, 0, 0, 0]]}, "bottlenecks"),
    ({"bottlenecks": [[0, 0, 0]]}, r"\(1, 4\)"),
    ({"kind": "seq2seq"}, "'seq2seq'"),
    ({"n_layers": -1}, "n_layers is -1; it must be an integer >= 0"),
    ({"n_edges": 2.5}, r"n_edges is 2\.5; it must be an integer >= 0"),
    ({"options": {"model": object()}}, "'model'"),
    ({"options": {"residual": math.nan}}, "'residual'"),
    ({"flows": [PairFlow(0, [], [], [], [])]}, "player"),
    ({"flows": [PairFlow(1, [], [], [], [], sink=1)]}, "sink"),
    ({"flows": [PairFlow(1, [0], [5], [1], [0.1])]}, "receiver"),
    ({"flows": [PairFlow(1, [3], [1], [1], [0.1])]}, "layer"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[f"{next(iter(c))}-{i}" for i, (c, _) in enumerate(BAD)])
def test_refuses_what_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "edges",
    [([0], [1], [1, 2], [0.1]), ([0], [1], [1], [-0.1]), ([0], [1], [1], [math.nan]), ([[0]], [[1]], [[1]], [[0.1]])],
)
def test_refuses_edges_that_cannot_be(edges: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="PairFlow"):
        PairFlow(1, *edges)


# --- What it says ---------------------------------------------------------------------------------------------------


def test_scores_have_one_dimension_for_one_sink() -> None:
    assert make().scores.shape == (4,)
    both = {name: FIELDS[name] * 2 for name in ("values", "lower", "upper", "bottlenecks")}
    assert make(targets=[3, (3, 4)], **both).scores.shape == (2, 4)


def test_top_is_stable_and_bounded() -> None:
    result = make(values=[[0.3, 0.3, 0.0, 0.3]], lower=[[0] * 4], upper=[[1] * 4])
    assert [row.position for row in result.top(3)] == [1, 2, 4]
    assert len(result.top(99)) == 4
    assert result.top(0) == []
    with pytest.raises(InvalidArgumentError, match="-1"):
        result.top(-1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda result: result.rows(5), "sink is 5, but the result has 1 sink: 0, or -1"),
        (lambda result: result.rows("x"), "sink is 'x'; it must be an integer"),
        (lambda result: result.rows(True), "sink is True; it must be an integer"),
        (lambda result: result.visible(2), "sink is 2, but the result has 1 sink: 0, or -1"),
        (lambda result: result.top(sink=-2), "sink is -2, but the result has 1 sink: 0, or -1"),
        (lambda result: result.top("x"), "k is 'x'; it must be an integer >= 0"),
        (lambda result: result.top(2.0), "k is 2.0; it must be an integer >= 0"),
        (lambda result: result.top(-1), "k is -1; it must be an integer >= 0"),
        (
            lambda result: result.bottleneck_label(99),
            "player is 99, but the result has 4 players: 0 ... 3, or -4 ... -1",
        ),
        (lambda result: result.bottleneck_label(0, 7), "sink is 7, but the result has 1 sink: 0, or -1"),
    ],
)
def test_what_a_result_does_not_hold_is_named(call: Any, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(said)}$"):
        call(make())


def test_sinks_and_players_count_from_the_end_too() -> None:
    result = make()
    assert result.rows(-1) == result.rows(np.int64(0)) == result.rows()
    assert result.bottleneck_label(-1) == result.bottleneck_label(3)
    assert result.top(np.int8(1), sink=-1) == result.top(1)


def test_bottleneck_labels() -> None:
    result = make(bottlenecks=[[0, 1, 2, SINK]], flows=None)
    assert [result.bottleneck_label(i) for i in range(4)] == ["layer 1", "layer 2", "pooling", "sink"]
    assert [row.bottleneck for row in make().rows()] == ["layer 1", "source", "none", "pooling"]


def test_trivial_fraction_counts_nonzero_scores_only() -> None:
    assert make().trivial_fraction == 1 / 3
    nothing = np.zeros((1, 4))
    assert math.isnan(make(values=nothing, lower=nothing, upper=nothing).trivial_fraction)


def test_position_correlation_sees_only_what_the_target_sees() -> None:
    values = [[0.1, 0.2, 0.3, 0.0]]
    interval = {"lower": [[0] * 4], "upper": [[1] * 4]}
    assert make(values=values, targets=[3], **interval).position_correlation == 1.0
    # In an encoder every position sees every other one, so the last player's zero counts.
    assert make(values=values, targets=[3], kind="encoder", **interval).position_correlation == pytest.approx(-0.2)
    assert math.isnan(make(values=[[0.5] * 4], **interval).position_correlation)
    assert math.isnan(make(values=values, targets=[1], **interval).position_correlation)  # one player left


def test_position_correlation_is_of_either_side_of_an_encoder_decoder() -> None:
    # Every source score exceeds every decoder score, which is no order within either.
    values = [[0.7, 0.8, 0.1, 0.2]]
    result = make(
        values=values,
        lower=values,
        upper=values,
        targets=[4],
        kind="encoder-decoder",
        n_source=3,
        bottlenecks=[[-1] * 4],
    )
    assert result.position_correlation == 1.0
    values = [[0.7, 0.8, 0.2, 0.1]]
    assert replace(result, values=values, lower=values, upper=values).position_correlation == 0.0


def test_bottlenecks_name_links_that_there_are() -> None:
    with pytest.raises(InvalidArgumentError, match="bottlenecks hold link 1, and link_names has 1 entries"):
        make(bottlenecks=[[1, 0, 0, 0]], link_names=("encoder layer 1",))


def test_position_correlation_of_several_sinks_is_their_mean() -> None:
    values = [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.5] * 4]
    result = make(
        values=values,
        lower=np.zeros((3, 4)),
        upper=np.ones((3, 4)),
        targets=[4, 4, 4],
        bottlenecks=np.zeros((3, 4), int),
    )
    assert result.position_correlation == 0.0


@given(
    hnp.arrays(np.float64, st.integers(2, 30), elements=st.sampled_from([0.0, 0.1, 0.2, 1.5, -3.0, 1e-12])), st.data()
)
def test_spearman_agrees_with_scipy(x: np.ndarray, data: st.DataObject) -> None:
    y = data.draw(hnp.arrays(np.float64, x.size, elements=st.floats(-5, 5)))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_of_nothing() -> None:
    assert math.isnan(spearman([], []))
    assert math.isnan(spearman([1], [2]))


# --- What it becomes ------------------------------------------------------------------------------------------------


def test_to_pandas() -> None:
    pytest.importorskip("pandas")
    frame = make().to_pandas()
    assert list(frame["token"]) == ["to", " be", " or", " to"]
    assert list(frame["score"]) == FIELDS["values"][0]
    assert list(frame["start"]) == [0, 2, 5, 8]
    assert list(make(players=[0, 2, 3, 4], flows=None).to_pandas()["start"].isna()) == [True, False, False, False]


def test_to_pandas_tells_apart_what_there_is_to_tell() -> None:
    pytest.importorskip("pandas")
    plain = ["sink", "target", "position", "token", "start", "end", "score", "lower", "upper", "bottleneck"]
    assert list(make().to_pandas()) == plain
    twice = {name: [FIELDS[name][0]] * 2 for name in ("values", "lower", "upper", "bottlenecks")}
    several = make(targets=[3, 4], sink_labels=["a", "b"], predictions=[("a", 0.5), ("b", 0.25)], flows=None, **twice)
    frame = several.to_pandas()
    assert list(frame) == ["sink", "label", "probability", *plain[1:]]
    assert list(frame["label"]) == ["a"] * 4 + ["b"] * 4
    assert list(frame["probability"]) == [0.5] * 4 + [0.25] * 4
    spoken = make(kind="encoder-decoder", n_source=3).to_pandas()
    assert list(spoken) == [*plain[:2], "part", *plain[2:]]
    assert list(spoken["part"]) == ["source", "source", "decoder", "decoder"]
    picture = make(grid=(2, (1, 2))).to_pandas()
    assert list(picture) == [*plain[:3], "row", "column", *plain[3:]]
    assert picture["column"].isna().tolist() == [True, False, False, True]
    assert picture["column"].dropna().tolist() == [0, 1]
    assert make(grid=(1, (4,))).to_pandas()["frame"].tolist() == [0, 1, 2, 3]


def test_a_missing_pandas_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        make().to_pandas()


scores = hnp.arrays(np.float64, (1, 4), elements=st.floats(0, 1e300, allow_subnormal=True))
texts = st.text(max_size=12)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".JSON"])
@given(
    values=scores,
    text=texts,
    tokens=st.lists(texts, min_size=5, max_size=5),
    option=st.floats(allow_nan=False, allow_infinity=False),
)
def test_files_give_back_exactly_what_they_were_given(
    suffix: str,
    values: np.ndarray,
    text: str,
    tokens: list[str],
    option: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    result = make(
        values=values, lower=values, upper=values, text=text, tokens=tokens, offsets=[None] * 5, options={"x": option}
    )
    path = tmp_path_factory.mktemp("files") / f"result{suffix}"
    assert result.save(path) == path
    loaded = Attribution.load(path)
    assert loaded == result
    assert loaded.values.tobytes() == result.values.tobytes()
    assert loaded.text == text
    assert loaded.tokens == tuple(tokens)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_half_a_surrogate_pair_survives(suffix: str, tmp_path: Path) -> None:
    result = make(tokens=["<s>", "\ud83d", "\ude00", "x", "\x00"])
    assert Attribution.load(result.save(tmp_path / f"x{suffix}")) == result


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_flows_survive(suffix: str, tmp_path: Path) -> None:
    empty = PairFlow(2, [], [], [], [])
    loaded = Attribution.load(make(flows=[*FIELDS["flows"], empty]).save(tmp_path / f"x{suffix}"))
    assert loaded.flows is not None
    first, second = loaded.flows
    assert first.flow.tolist() == [0.1, 0.2, 1 / 3]
    assert first.cut is not None
    assert first.cut.tolist() == [False, True, False]
    assert first.layer.dtype == second.layer.dtype == np.int32
    assert second.flow.size == 0
    assert second.cut is None


def test_json_is_strict_and_readable_without_the_library(tmp_path: Path) -> None:
    result = make(values=[[0.5] * 4], lower=[[0] * 4], upper=[[1] * 4], tokens=["<s>", "漢", "b", "c", "d"])
    content = result.save(tmp_path / "x.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads(content, parse_constant=refuse)
    assert record["summary"] == {"position_correlation": None, "trivial_fraction": 0.25}
    assert "漢" in content
    assert len(record.pop("checksum")) == 64
    assert record == result.to_dict()


def test_a_changed_json_file_is_refused(tmp_path: Path) -> None:
    file = make().save(tmp_path / "x.json")
    content = file.read_text(encoding="utf-8")
    changed = content.replace("independent maximum", "independent minimum")
    assert changed != content
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(FileFormatError, match="changed by hand: it is not what its checksum says"):
        Attribution.load(file)
    record = json.loads(changed)
    del record["checksum"]
    file.write_text(json.dumps(record, indent=1), encoding="utf-8")
    assert "minimum" in Attribution.load(file).definition
    file.write_text(json.dumps(json.loads(content), indent=3), encoding="utf-8")  # laid out in another way
    assert Attribution.load(file) == make()


def test_arrays_stay_frozen_and_times_are_no_part_of_a_result() -> None:
    result = make()
    with pytest.raises(ValueError, match="WRITEABLE"):
        result.values.setflags(write=True)
    assert replace(result, timings={"capture": 3.0}) == result
    assert result != "a result"


def test_npz_opens_without_pickle(tmp_path: Path) -> None:
    with np.load(make().save(tmp_path / "x.npz"), allow_pickle=False) as archive:
        assert archive["values"].tolist() == FIELDS["values"]


def test_the_content_decides_what_is_loaded_not_the_name(tmp_path: Path) -> None:
    path = make().save(tmp_path / "x.npz")
    assert Attribution.load(path.rename(tmp_path / "x.json")) == make()


@pytest.mark.parametrize("name", ["x", "x.pkl", "x.html.bak", ".json"])
def test_unknown_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"suffix.*\.html, \.json, \.npz, \.svg"):
        make().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_numbers_holds_one_result(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="holds one result"):
        make().save(tmp_path / "x.json", compare=[make()])
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make().save(tmp_path / "x.json")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        make(text="to be or to ...").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_writes_through_a_link_and_honours_the_umask(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real.json")
    old = os.umask(0o027)
    try:
        make().save(link)
    finally:
        os.umask(old)
    assert link.is_symlink()
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make().save(tmp_path / "nowhere" / "x.json")
    with pytest.raises(FileNotFoundError):
        Attribution.load(tmp_path / "x.json")


def damaged() -> list[tuple[str, Any]]:
    def change(**fields: Any) -> str:
        return json.dumps(make().to_dict() | fields)

    record = make().to_dict()
    del record["values"]
    return [
        ("empty", ""),
        ("text", "hello"),
        ("a list", "[1, 2]"),
        ("nothing", "null"),
        ("other JSON", '{"format": "shap"}'),
        ("NaN", change().replace("0.25", "NaN", 1)),
        ("deep", "[" * 100_000),
        ("binary", b"\xff\xfe\x00"),
        ("later version", change(version=5)),
        ("no version", change(version=None)),
        ("no values", json.dumps(record)),
        ("values of another shape", change(values=[[1.0]])),
        ("text values", change(values="x")),
        ("tokens null", change(tokens=None)),
        ("offsets flat", change(offsets=[1, 2, 3, 4, 5])),
        ("offsets without end", change().replace("[0, 2]", "[0, 1e999]", 1)),
        ("verified in words", change(verified="not at all")),
        ("options a list", change(options=[1])),
        ("flows of something", change(flows=[{"what": 1}])),
        ("prediction of three", change(prediction=[1, 2, 3])),
    ]


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in damaged()])
def test_damaged_json_is_said_to_be(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=r"x\.json: "):
        Attribution.load(path)


def test_damaged_npz_is_said_to_be(tmp_path: Path) -> None:
    path = make().save(tmp_path / "x.npz")
    whole = path.read_bytes()
    for length in range(2, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            Attribution.load(path)
    rng = np.random.default_rng(0)
    for _ in range(200):  # a flipped byte is either noticed or harmless (a time stamp, say); it never gets through
        content = bytearray(whole)
        content[rng.integers(2, len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(content))
        with contextlib.suppress(AttnflowError):
            assert Attribution.load(path) == make()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(FileFormatError, match="damaged"):
        Attribution.load(path)


def test_an_object_array_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = dict(np.load(make().save(tmp_path / "y.npz")))
    np.savez(path, allow_pickle=True, **arrays | {"values": np.array([[Exploding()] * 4], dtype=object)})
    with pytest.raises(FileFormatError):
        Attribution.load(path)


class Exploding:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the file was unpickled",))


# --- Notebooks ------------------------------------------------------------------------------------------------------


def test_a_notebook_gets_both_forms() -> None:
    pytest.importorskip("jinja2")
    bundle = make()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/plain"].startswith("<Attribution of next token: 4 players, 1 sink")


def test_a_notebook_without_jinja2_still_gets_text(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "attnflow.views.html", raising=False)
    import attnflow.views

    monkeypatch.delattr(attnflow.views, "html", raising=False)
    assert set(make()._repr_mimebundle_()) == {"text/plain"}
    assert "attnflow[views]" in capsys.readouterr().err
