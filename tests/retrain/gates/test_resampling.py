"""The intervals keep their level, and whole members are resampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nocap.domain import Verdict
from nocap.settings import GateSettings
from retrain.gates.freshness import Freshness
from retrain.gates.resampling import (
    Interval,
    Unmeasurable,
    checked,
    cluster_weights,
    difference,
    interval,
    ratio_of_sums,
    sums_by,
)
from tests.retrain.gates import factory as make


def test_sums_are_per_key_in_order_of_appearance() -> None:
    sums = sums_by(["b", "a", "b"], np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0]))
    assert sums.tolist() == [[4.0, 2.0], [2.0, 1.0]]


def test_every_resample_draws_as_many_clusters_as_there_are() -> None:
    weights = cluster_weights(7, 50, seed=1)
    assert weights.shape == (50, 7)
    assert (weights.sum(1) == 7).all()


def test_a_ratios_bounds_enclose_it_and_widen_with_confidence() -> None:
    rng = np.random.default_rng(0)
    numerator, denominator = rng.normal(1, 0.5, 40), rng.uniform(5, 10, 40)
    loose = ratio_of_sums(numerator, denominator, 1000, 0.2, seed=1)
    strict = ratio_of_sums(numerator, denominator, 1000, 0.01, seed=1)
    assert strict.lower < loose.lower < loose.value < loose.upper < strict.upper
    assert loose.value == pytest.approx(numerator.sum() / denominator.sum(), rel=1e-9)


@pytest.mark.parametrize("values", [np.ones(40), np.zeros(40)])
def test_constant_clusters_have_no_interval(values: np.ndarray) -> None:
    with pytest.raises(Unmeasurable, match="constant"):
        ratio_of_sums(values, np.ones(40), 200, 0.05, seed=1)
    with pytest.raises(Unmeasurable, match="constant"):
        interval(1.0, values, 40, 0.05)


def test_few_clusters_widen_a_percentile_interval() -> None:
    draws = np.random.default_rng(0).normal(0, 1, 20_000)
    few, many = interval(0.0, draws, 5, 0.05), interval(0.0, draws, 5000, 0.05)
    assert few.upper > many.upper > 1.6


def test_a_difference_of_two_estimates_keeps_their_level() -> None:
    """At the level of its parts: one in twenty; adding the bounds up would be one in a hundred."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(3.0, 0.4, 4000), rng.normal(2.0, 0.3, 4000)
    found = [
        difference(Interval(a, a - 1.645 * 0.4, a + 1.645 * 0.4), Interval(b, b - 1.645 * 0.3, b + 1.645 * 0.3))
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    assert 0.04 < np.mean([one.upper < 1.0 for one in found]) < 0.06
    assert 0.04 < np.mean([one.lower > 1.0 for one in found]) < 0.06


def test_values_outside_their_range_are_named() -> None:
    with pytest.raises(Unmeasurable, match="losses runs from -1 to 2, outside 0 to 100"):
        checked("losses", [-1.0, 2.0], low=0, high=100)
    with pytest.raises(Unmeasurable, match="losses has 2 entries where 3 were expected"):
        checked("losses", [1.0, 2.0], low=0, high=100, like="abc")


def test_an_adapter_that_is_no_fresher_is_let_through_about_one_time_in_twenty() -> None:
    settings = GateSettings(resamples=200)
    measured = [make.Measurements(held_out=make.held_out(gain=0.0, seed=seed), seed=seed) for seed in range(200)]
    passed = sum(Freshness().decide(one, settings).verdict is Verdict.PASS for one in measured)
    assert 1 <= passed <= 22  # 10 expected; outside by chance less than one time in a thousand


def test_one_member_who_wrote_nearly_everything_is_too_little_evidence() -> None:
    spread = make.held_out(gain=0.1, seed=3)
    members = tuple("one" if index >= 39 else f"m{index}" for index in range(len(spread.members)))
    result = Freshness().decide(make.spoiled(held_out=replace(spread, members=members)), make.SETTINGS)
    assert result.verdict is Verdict.ABSTAIN
    assert "worth 1 who write evenly; needs 20" in result.sentence
