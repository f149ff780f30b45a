"""Whatever is broken in the measurements, no gate passes."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nocap.domain import Verdict
from nocap.errors import InputError
from retrain.gates import GATES, Gate, Measurements, decide
from tests.retrain.gates import factory as make

READ_BY = {
    "freshness": ("held_out", ("members", "tokens", "incumbent", "challenger")),
    "marker_band": ("markers", ("members", "terms", "human", "incumbent", "challenger")),
    "human_or_bot": ("human_scores", ("members", "folds", "human", "incumbent", "challenger")),
    "collapse": ("variety", ("human", "base", "challenger")),
    "drift": ("drift", ("tokens", "kl")),
    "memorisation": (
        "spans",
        (
            *("emitted_replies", "emitted_members", "emitted_uses", "emitted_base", "emitted_challenger"),
            *("unseen_base", "unseen_challenger"),
        ),
    ),
    "retention": ("retention", ("base", "challenger")),
    "register": ("serious", ("challenger_words", "challenger_uses")),
    "stacking": ("stacked", ("members", "human_replies", "human_stacked", "challenger_replies", "challenger_stacked")),
    "staleness": (
        "stale",
        (
            *("members", "human_uses", "human_fading", "incumbent_uses", "incumbent_fading"),
            *("challenger_uses", "challenger_fading"),
        ),
    ),
    "data_drift": ("data", ("members", "sides", "uses", "owners", "scores")),
    "backdoor": ("triggers", ("control",)),
    "toxicity": ("toxic", ("incumbent", "challenger")),
    "personal_data": ("personal", ("incumbent", "challenger")),
    "injection": ("injected", ("incumbent", "challenger")),
}
FLAGGED = ("toxicity", "personal_data", "injection")
"""Gates on flags of 0 and 1: all 0 is the best there is, no reply of either model has the fault."""
BY_NAME = {gate.name: gate for gate in GATES}
CASES = [(gate, part, column) for gate, (part, columns) in READ_BY.items() for column in columns]
TIED_CASES = [("backdoor", "tied", column) for column in ("uses", "tied", "base", "challenger")]
CANARY_CASES = [
    ("memorisation", "canaries", column)
    for column in ("planted_base", "planted_challenger", "control_base", "control_challenger")
]


def test_every_gate_is_covered() -> None:
    assert set(READ_BY) == set(BY_NAME)
    read = {(gate.name, part) for gate in GATES for part in gate.reads}
    assert {(gate, part) for gate, part, _ in CASES + CANARY_CASES + TIED_CASES} <= read


@pytest.mark.parametrize("gate", GATES, ids=lambda one: one.name)
def test_a_gate_reads_no_more_than_it_says(gate: Gate) -> None:
    good = make.good()
    empty = {part.name: part.default for part in fields(Measurements) if part.name not in (*gate.reads, "seed")}
    assert gate.decide(replace(good, **empty), make.SETTINGS) == gate.decide(good, make.SETTINGS)


def changed(value: Any, change: Any) -> Any:
    """`value` with its numbers changed, through nested tuples and dataclasses."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: changed(getattr(value, one.name), change) for one in fields(value)})
    if isinstance(value, tuple):
        return change(value)
    return value


def spoil(part: str, column: str, change: Any) -> Measurements:
    good = make.good()
    section = getattr(good, part)
    return replace(good, **{part: replace(section, **{column: changed(getattr(section, column), change)})})


def deep(leaf: Any) -> Any:
    def change(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(change(one) if isinstance(one, tuple) else leaf(one) for one in values)

    return change


def one_leaf(bad: float) -> Any:
    """Only the last number becomes bad."""

    def change(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values:
            return values
        last = values[-1]
        return (*values[:-1], change(last) if isinstance(last, tuple) else bad)

    return change


@pytest.mark.parametrize(("gate", "part", "column"), CASES + CANARY_CASES + TIED_CASES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1.0e9])
def test_a_single_number_that_cannot_be_never_passes(gate: str, part: str, column: str, bad: float) -> None:
    if column in ("members", "terms"):
        pytest.skip("these are names")
    result = BY_NAME[gate].decide(spoil(part, column, one_leaf(bad)), make.SETTINGS)
    assert result.verdict is not Verdict.PASS
    assert result.sentence


@pytest.mark.parametrize(("gate", "part", "column"), CASES + CANARY_CASES + TIED_CASES)
def test_an_empty_column_never_passes(gate: str, part: str, column: str) -> None:
    if (part, column) == ("spans", "emitted_members"):
        pytest.skip("covered as a mismatch")
    result = BY_NAME[gate].decide(spoil(part, column, lambda values: ()), make.SETTINGS)
    assert result.verdict is not Verdict.PASS


@pytest.mark.parametrize(("gate", "part", "column"), CASES + TIED_CASES)
def test_a_column_of_another_length_never_passes(gate: str, part: str, column: str) -> None:
    if column == "control":
        pytest.skip("made-up words need not be as many as trained ones")
    result = BY_NAME[gate].decide(spoil(part, column, lambda values: values[:-1]), make.SETTINGS)
    assert result.verdict is not Verdict.PASS


@pytest.mark.parametrize("gate", sorted(READ_BY))
@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
def test_constant_numbers_never_pass(gate: str, constant: float) -> None:
    if gate in FLAGGED and not int(constant):
        pytest.skip("no fault in any reply is what the gate wants to see")
    part = READ_BY[gate][0]
    good = make.good()
    flat = changed(getattr(good, part), deep(lambda one: one if isinstance(one, str) else type(one)(constant)))
    result = BY_NAME[gate].decide(replace(good, **{part: flat}), make.SETTINGS)
    assert result.verdict is not Verdict.PASS


def test_nothing_measured_never_passes() -> None:
    decision = decide(Measurements(), make.SETTINGS)
    assert decision.verdict is not Verdict.PASS
    assert all(result.verdict is not Verdict.PASS for result in decision.results)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-3, 3)


@given(
    case=st.sampled_from([case for case in CASES + CANARY_CASES + TIED_CASES if case[2] not in ("members", "terms")]),
    noise=st.lists(NUMBERS, min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_short_columns_never_pass_and_never_raise(case: tuple[str, str, str], noise: list[float]) -> None:
    gate, part, column = case
    result = BY_NAME[gate].decide(spoil(part, column, lambda values: tuple(noise)), make.SETTINGS)
    assert result.verdict is not Verdict.PASS


@given(st.sampled_from(["", "{}", "[]", "null", '{"format": 1}', '{"format": 99}', "not json"]))
def test_what_is_no_measurement_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match="measure the run again"):
        Measurements.from_json(text)


def test_what_is_not_finite_comes_back_as_nan_and_still_fails() -> None:
    bad = spoil("drift", "kl", one_leaf(math.inf))
    again = Measurements.from_json(bad.to_json())
    assert math.isnan(again.drift.kl[-1])
    assert BY_NAME["drift"].decide(again, make.SETTINGS).verdict is Verdict.FAIL
