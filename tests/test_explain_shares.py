"""Explanations whose scores are shares of what all players send: the network's own, on every kind of model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny import TEXT, bart, image_processor, llama, matrices, plain, sharpened, two_sided, visible, vit

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Attribution, Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402

SHARES = ("shapley", "fair", "barrier")
LIGHT: dict[str, Any] = {"measure": "attention", "calibration": None}


def network_of(model: Any, result: Attribution) -> Network:
    captured = contributions(model, plain()("<s> " + TEXT)["input_ids"])
    return Network.decoder(matrices(captured), visible=visible(captured))


@pytest.mark.parametrize("attribution", SHARES)
def test_scores_are_the_networks_shares(attribution: Any) -> None:
    model = sharpened(llama())
    result = attnflow.explain(model, plain(), TEXT, attribution=attribution, **LIGHT)
    network, players = network_of(model, result), result.players.tolist()
    expected = (
        network.shapley_values(players=players)
        if attribution == "shapley"
        else network.joint_flow(rule=attribution, players=players)
    )
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-12)
    assert result.values.sum() == network.source_flows(sources=[players]).values[0, 0]
    assert result.attribution == attribution
    assert result.options["attribution"] == attribution
    assert result.verified
    assert result.standard_errors is None
    assert (result.lower <= result.values).all()
    assert (result.values <= result.upper).all()
    assert set(result.timings) == {"capture", "network", "shares", "picture"}
    alone = attnflow.explain(model, plain(), TEXT, **LIGHT)
    assert alone.values.sum() > result.values.sum()
    assert alone.attribution == "independent"
    assert "attribution" not in alone.options
    assert np.array_equal(alone.bottlenecks, result.bottlenecks)


def test_sampled_shares_say_how_sure_they_are() -> None:
    model = sharpened(llama())
    draw = {"permutations": 200, "seed": 3}
    result = attnflow.explain(model, plain(), TEXT, attribution="shapley", sampling=draw, **LIGHT)
    exact = attnflow.explain(model, plain(), TEXT, attribution="shapley", **LIGHT)
    errors = result.standard_errors
    assert errors is not None
    assert errors.max() > 0
    assert (np.abs(result.values - exact.values) <= 4 * errors + 1e-15).all()
    np.testing.assert_allclose(result.upper - result.values, 2 * errors, atol=1e-15)
    assert "sampled from 200 orders" in result.definition
    assert "(exact)" in exact.definition
    assert result.options["permutations"] == 200
    assert result.options["seed"] == 3
    again = attnflow.explain(model, plain(), TEXT, attribution="shapley", sampling=draw, threads=1, **LIGHT)
    assert np.array_equal(again.values, result.values)


@pytest.mark.parametrize("attribution", SHARES)
def test_answers_have_shares_step_by_step(attribution: Any) -> None:
    for chain in (False, True):
        result = attnflow.explain(
            llama(), plain(), TEXT, continuation=" over the hill", chain=chain, attribution=attribution
        )
        assert result.values.shape[0] == 3
        for step, row in enumerate(result.values):
            assert not row[~result.visible(step)].any()


@pytest.mark.parametrize("attribution", SHARES)
def test_encoder_decoders_share_between_both_sides(attribution: Any) -> None:
    result = attnflow.explain(bart(), two_sided(), TEXT, target="over the hill", attribution=attribution, **LIGHT)
    assert result.source is not None
    assert result.decoder is not None
    together = result.source.values.sum(axis=1) + result.decoder.values.sum(axis=1)
    np.testing.assert_allclose(together, result.values.sum(axis=1))
    assert result.source.attribution == attribution


def test_patches_have_shares() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    result = attnflow.explain(vit(), image_processor(), image, attribution="shapley", sampling={"permutations": 20})
    assert result.on_grid().shape == result.grid.shape  # type: ignore[union-attr]
    source = result.standard_errors
    assert source is not None
    assert source.shape == result.values.shape


def test_shares_survive_files(tmp_path: Any) -> None:
    draw = {"permutations": 20}
    result = attnflow.explain(sharpened(llama()), plain(), TEXT, attribution="shapley", sampling=draw, **LIGHT)
    for name in ("shares.json", "shares.npz"):
        assert Attribution.load(result.save(tmp_path / name)) == result
    record = json.loads((tmp_path / "shares.json").read_text())
    assert record["version"] == 4
    # A file from before there were shares.
    for name in ("attribution", "standard_errors", "members", "checksum"):
        del record[name]
    (tmp_path / "old.json").write_text(json.dumps({**record, "version": 2}))
    old = Attribution.load(tmp_path / "old.json")
    assert old.attribution == "independent"
    assert old.standard_errors is None
    pandas = pytest.importorskip("pandas")
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert result.standard_errors is not None
    assert table["standard_error"].tolist() == result.standard_errors[0].tolist()


def test_shares_are_shown_by_their_name(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    draw = {"permutations": 20}
    result = attnflow.explain(sharpened(llama()), plain(), TEXT, attribution="shapley", sampling=draw, **LIGHT)
    result.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "Shapley values of plain attention flow" in shown
    assert "two standard errors" in shown
    assert "of the players' own flows" in shown
    assert "published" not in shown
    page = result.save(tmp_path / "shares.html").read_text()
    assert "Shapley values of plain attention flow" in page
    assert result.flows is not None
    alone = attnflow.explain(sharpened(llama()), plain(), TEXT, **LIGHT)
    for pair in result.flows:  # the picture is of the player's own flow, and says so
        assert pair.value == pytest.approx(alone.values[0, result.players.tolist().index(pair.source)])
        assert f"its own flow {pair.value:.4g}" in page
