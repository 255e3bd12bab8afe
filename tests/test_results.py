"""What can be done with results: parts, sums and differences, and solving them once more."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny import TEXT, bart, llama, plain, two_sided

pytest.importorskip("torch")
import attnflow
from attnflow import Attribution
from attnflow.errors import CertificateError, InvalidArgumentError

STEPS = {"target": "over the hill and run"}


@pytest.fixture(scope="module")
def one() -> Attribution:
    result: Attribution = attnflow.explain(llama(), plain(), TEXT)
    return result


@pytest.fixture(scope="module")
def several() -> Attribution:
    result: Attribution = attnflow.explain(bart(), two_sided(), TEXT, **STEPS)
    return result


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "rows", "columns"),
    [
        (0, [0], slice(None)),
        (-1, [-1], slice(None)),
        (slice(1, 3), [1, 2], slice(None)),
        ([2, 0], [2, 0], slice(None)),
        ((slice(None), slice(0, 4)), slice(None), [0, 1, 2, 3]),
        ((1, [5, 2]), [1], [2, 5]),  # in the order of the text
        ((np.array([0, 3]), np.arange(15) % 2 == 0), [0, 3], [0, 2, 4, 6, 8, 10, 12, 14]),
    ],
)
def test_parts(several: Attribution, key: Any, rows: Any, columns: Any) -> None:
    assert several.values.shape == (6, 15)
    part = several[key]
    for name, array in several.arrays().items():
        assert np.array_equal(getattr(part, name), array[rows][:, columns])
    assert part.players.tolist() == several.players[columns].tolist()
    assert part.targets == tuple(np.array(several.targets)[rows].tolist()) or part.targets == tuple(
        several.targets[row] for row in np.arange(6)[rows]
    )
    assert part.sink_labels == tuple(np.array(several.sink_labels)[rows])
    assert part.options["steps"] == tuple(np.arange(6)[rows])
    assert part.tokens == several.tokens
    part.check()


def test_parts_of_parts(several: Attribution) -> None:
    assert several[1:][1:, 3:][0, -2] == several[2, 13]
    assert several[:] == several
    assert several[0, 1, 2] == several[:3]  # three sinks
    assert np.array_equal(np.asarray(several), several.values)
    assert len(several) == 6
    assert [row.sink_labels for row in several] == [(label,) for label in several.sink_labels or ()]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (6, "6 is out of range: there are 6 sinks"),
        ((0, 15), "15 is out of range: there are 15 players"),
        ("over", "'over' is no index of 6 sinks"),
        (1.0, r"1\.0 is no index"),
        (True, "True is no index"),
        (None, "None is no index"),
        ([0, 0], r"\[0, 0\] picks one of the 6 sinks twice"),
        (slice(3, 3), "picks none of the 6 sinks"),
        ([], "no index|picks none"),
        ((0, np.zeros(15, dtype=bool)), "picks none of the 15 players"),
        ((0, np.ones(12, dtype=bool)), "no index of 15 players"),
        ([[0]], "no index"),
        ([0.5], "no index"),
    ],
)
def test_no_such_part(several: Attribution, key: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        several[key]


def test_a_part_of_shares_is_of_the_same_game() -> None:
    whole = attnflow.explain(llama(), plain(), TEXT, attribution="shapley")
    part = whole[:, 2:5]
    assert np.array_equal(part.values, whole.values[:, 2:5])
    part.check()
    assert part.evidence.columns == (2, 3, 4)  # type: ignore[union-attr]


# --- sums and differences -------------------------------------------------------------------------------------------


def test_a_difference(one: Attribution) -> None:
    plainly = attnflow.explain(llama(), plain(), TEXT, calibration=None)
    difference = one - plainly
    assert np.array_equal(difference.values, one.values - plainly.values)
    assert np.array_equal(difference.lower, one.lower - plainly.upper)
    assert np.array_equal(difference.upper, one.upper - plainly.lower)
    assert (difference.values < 0).any()
    assert difference.attribution == "combination"
    assert difference.is_signed
    assert not difference.is_flow
    assert one.is_flow
    assert difference.options["combination"] == "Excess ALTI flow − Plain ALTI flow"
    assert "calibration" not in difference.options
    assert difference.options["measure"] == "alti"
    assert difference.definition == f"({one.definition}) − ({plainly.definition})"
    assert difference.flows is None
    assert difference.verified
    worst = difference.top(1)[0]
    assert abs(worst.score) == np.abs(difference.values).max()
    with pytest.raises(InvalidArgumentError, match="no network to check this result by: it is combination"):
        difference.check()


def test_sums_and_multiples(one: Attribution) -> None:
    np.testing.assert_allclose(((one + one) / 2).values, one.values)
    assert np.array_equal((2 * one).values, (one * 2.0).values)
    assert np.array_equal((-one).upper, -one.lower)
    assert (one - one).values.any() == False  # noqa: E712
    mean = (one + 3 * one) / 4
    np.testing.assert_allclose(mean.values, one.values)
    assert mean.options["combination"] == "0.25 × (Excess ALTI flow + (3 × Excess ALTI flow))"


def test_standard_errors_add_up_at_most() -> None:
    drawn = {"attribution": "shapley", "sampling": {"permutations": 20}}
    first = attnflow.explain(llama(), plain(), TEXT, **drawn)
    other = attnflow.explain(llama(), plain(), TEXT, attribution="shapley", sampling={"permutations": 20, "seed": 1})
    exact = attnflow.explain(llama(), plain(), TEXT, attribution="shapley")
    assert np.array_equal((first - other).standard_errors, first.standard_errors + other.standard_errors)
    assert np.array_equal((exact - other).standard_errors, other.standard_errors)
    assert np.array_equal((-2 * other).standard_errors, 2 * other.standard_errors)
    assert (exact - exact).standard_errors is None
    shared = (first - other).options
    assert "seed" not in shared
    assert shared["permutations"] == 20


@pytest.mark.parametrize("other", [3, "a", None, np.ones((1, 10))])
def test_only_results_are_added(one: Attribution, other: Any) -> None:
    with pytest.raises((TypeError, InvalidArgumentError)):
        one + other
    with pytest.raises((TypeError, InvalidArgumentError)):
        one - other


def test_only_alike_results_and_numbers(one: Attribution, several: Attribution) -> None:
    with pytest.raises(InvalidArgumentError, match="over the same tokens and players only"):
        one - several
    with pytest.raises(InvalidArgumentError, match="over the same tokens and players only"):
        one - one[:, :3]
    with pytest.raises(InvalidArgumentError, match="over the same sinks only"):
        several - several[:2]
    for factor in ("2", None, float("nan"), float("inf"), True, [1]):
        with pytest.raises(InvalidArgumentError, match="the factor of a result is"):
            one * factor
    for divisor, message in ((0, "cannot be divided by 0"), ("2", "the divisor of a result is"), (1j, "divisor")):
        with pytest.raises(InvalidArgumentError, match=message):
            one / divisor  # type: ignore[operator]
    with pytest.raises(InvalidArgumentError, match="factor"):
        one * one  # type: ignore[operator]


def test_combinations_survive_files_and_pickles(one: Attribution, tmp_path: Any) -> None:
    difference = one - 2 * one
    for name in ("x.json", "x.npz"):
        assert Attribution.load(difference.save(tmp_path / name)) == difference
    for result in (one, difference):
        assert pickle.loads(pickle.dumps(result)) == result
        assert copy.deepcopy(result) == result
    pickle.loads(pickle.dumps(one)).check()
    assert difference.to_pandas()["score"].tolist() == difference.values[0].tolist()


def test_negative_scores_are_of_some_kinds_alone(one: Attribution) -> None:
    negative = {name: -getattr(one, name) for name in ("values", "lower", "upper")}
    with pytest.raises(InvalidArgumentError, match="values must be finite and >= 0 everywhere"):
        replace(one, **negative)
    assert replace(one, **negative, attribution="gradient_x_input").values.min() < 0


# --- checking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribution", ["independent", "shapley", "fair", "barrier", "rollout", "widest_path"])
@pytest.mark.parametrize("field", [False, True])
def test_a_changed_result_fails_its_check(attribution: Any, field: bool) -> None:
    result = attnflow.explain(llama(), plain(), TEXT, attribution=attribution, check=False, receptive_field=field)
    result.check()
    values = np.array(result.values)
    values[0, 4] = np.nextafter(values[0, 4], 2)
    wrong = replace(result, values=values, upper=np.maximum(values, result.upper), lower=result.lower)
    with pytest.raises(CertificateError, match=r"(values|upper)\[0, 4\] is .* solving the network again gives"):
        wrong.check()


def test_changed_flows_fail_their_check(one: Attribution) -> None:
    assert one.flows
    first = one.flows[0]
    more = replace(first, flow=first.flow * 3)
    with pytest.raises(CertificateError, match=r"the flow from position \d+: edge \d+ -> \d+ of layer \d+ carries"):
        replace(one, flows=(more,)).check()
    less = np.array(first.flow)
    less[-1] /= 2
    with pytest.raises(CertificateError, match="is not conserved"):
        replace(one, flows=(replace(first, flow=less),)).check()
    cut = np.zeros_like(first.cut)
    with pytest.raises(CertificateError, match=r"and its cut has capacity 0\.0"):
        replace(one, flows=(replace(first, cut=cut),)).check()
    elsewhere = replace(first, giver=first.giver[::-1])
    with pytest.raises(CertificateError):
        replace(one, flows=(elsewhere,)).check()


def test_bottlenecks_and_paths_of_a_score(one: Attribution, several: Attribution) -> None:
    for player in range(one.players.size):
        cut = one.bottleneck(player)
        assert cut.value == one.values[0, player]
        assert sum(path.flow for path in one.paths(player)) == pytest.approx(cut.value)
    part = several[2:, 3:]
    assert part.bottleneck(4, 1).value == several.values[3, 7]
    words = one.merge([(0, 11)])
    assert words.bottleneck(0).value == words.values[0, 0]
    assert len(one.paths(int(one.values[0].argmax()), most=1)) == 1
    with pytest.raises(InvalidArgumentError, match="player is 10, but the result has 10 players"):
        one.bottleneck(10)
    with pytest.raises(InvalidArgumentError, match="sink is 6, but the result has 6 sinks"):
        several.paths(0, 6)
    with pytest.raises(InvalidArgumentError, match="no network to check this result by"):
        (one - one).bottleneck()


def test_gradients_of_each_step_have_a_network_each() -> None:
    result = attnflow.explain(llama(), plain(), TEXT, continuation=" over the hill", measure="attention_x_gradient")
    assert len(result.evidence.solved) == 3  # type: ignore[union-attr]
    result.check()
    result[1:, :4].check()


def test_no_evidence_nothing_to_check(one: Attribution, tmp_path: Any) -> None:
    stored = Attribution.load(one.save(tmp_path / "x.npz"))
    with pytest.raises(InvalidArgumentError, match="no network to check this result by: it is of a file"):
        stored.check()
