from __future__ import annotations

import sys
from types import ModuleType

import pytest

from nocap.errors import OverBudget
from nocap.settings import RetrainSettings
from retrain.cost import Budget, Cost, CostMeter, peak_bytes

SETTINGS = RetrainSettings(price_per_hour=0.36, currency="EUR", watts=50.0)


class _Hands:
    """A clock and an energy counter that are set by hand."""

    def __init__(self, joules: float | None) -> None:
        self.seconds = 100.0
        self.joules = joules

    def meter(self, spent: Cost | None = None) -> CostMeter:
        return CostMeter(SETTINGS, spent, seconds=lambda: self.seconds, counter=lambda: self.joules)


def test_without_a_counter_energy_is_watts_times_seconds_and_says_so():
    hands = _Hands(joules=None)
    meter = hands.meter()
    hands.seconds += 200
    cost = meter.read()
    assert (cost.seconds, cost.energy_joules, cost.energy_is_estimate) == (200, 10_000, True)
    assert (cost.money, cost.currency) == (pytest.approx(0.02), "EUR")


def test_with_a_counter_energy_is_what_it_counted():
    hands = _Hands(joules=5_000.0)
    meter = hands.meter()
    hands.seconds, hands.joules = hands.seconds + 10, 5_750.0
    cost = meter.read()
    assert (cost.energy_joules, cost.energy_is_estimate) == (750.0, False)


def test_stages_add_up_and_a_restart_counts_on():
    hands = _Hands(joules=None)
    first = hands.meter()
    first.begin_stage("snapshot")
    hands.seconds += 5
    first.begin_stage("train")
    first.trained(tokens=1_000, examples=40)
    hands.seconds += 20
    saved = Cost.from_json(first.read().as_json())
    second = hands.meter(saved)
    second.begin_stage("train")
    hands.seconds += 7
    second.begin_stage("measure")
    hands.seconds += 1
    cost = second.read()
    assert dict(cost.seconds_by_stage) == {"snapshot": 5, "train": 27, "measure": 1}
    assert (cost.seconds, cost.tokens, cost.examples) == (33, 1_000, 40)
    assert cost.energy_joules == pytest.approx(33 * 50)


def test_peak_memory_is_in_bytes():
    assert 10 * 2**20 < peak_bytes() < 2**40


@pytest.mark.parametrize(
    ("limits", "seconds", "said"),
    [
        ({"budget_minutes": 10}, 601, "10 minutes"),
        ({"budget_money": 1.0}, 3601, r"1\.00 USD"),
        ({"budget_minutes": 10, "budget_money": 1.0}, 7200, r"1\.00 USD .* and 10 minutes"),
    ],
)
@pytest.mark.parametrize("is_estimate", [True, False])
def test_a_run_over_its_budget_is_refused_with_the_figures(limits, seconds, said, is_estimate):
    budget = Budget.of(RetrainSettings(price_per_hour=1.0, **limits))
    with pytest.raises(OverBudget, match=said) as refused:
        budget.check(seconds, is_estimate=is_estimate)
    assert ("would take about" in str(refused.value)) is is_estimate


def test_within_the_budget_or_without_one_nothing_is_said():
    Budget.of(RetrainSettings(price_per_hour=1.0, budget_money=1.0, budget_minutes=60)).check(3600, is_estimate=True)
    Budget.of(RetrainSettings()).check(1e9, is_estimate=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux starts a peak anew")
def test_each_stage_has_a_peak_of_its_own() -> None:
    meter = CostMeter(RetrainSettings(), counter=lambda: None)
    meter.begin_stage("train")
    held = bytearray(200 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    del held
    meter.begin_stage("gates")
    cost = meter.read()
    peaks = dict(cost.peak_bytes_by_stage)
    assert peaks["train"] > peaks["gates"] + 150 * 2**20
    assert cost.peak_bytes == peaks["train"]
    assert Cost.from_json(cost.as_json()) == cost


def test_a_torch_that_another_thread_is_importing_is_no_card_yet(monkeypatch):
    """The heartbeat reads the peak while the run's own thread imports torch for seconds."""
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert peak_bytes() > 0
