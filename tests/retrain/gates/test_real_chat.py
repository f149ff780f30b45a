"""The benchmark on real chat: every row of the file is imported, and what tells two adapters apart is counted right."""

from __future__ import annotations

import io
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.gates_on_real_chat import FORUM, LAST_YEAR, NOW, OTHER_FORUM, THEN, forum, settings_for, telling_gates
from nocap.domain import Verdict
from nocap.text.scrub import scrub
from retrain.gates.result import Check, GateResult


def _chat() -> list[dict[str, Any]]:
    """Two forums in three months: openings, which answer nothing, with one answer each."""
    numbers, rows = count(), []
    for name in (FORUM, OTHER_FORUM):
        for ends in (LAST_YEAR, THEN, NOW):
            for number in range(60):
                created = (ends - timedelta(days=20) + timedelta(minutes=number)).replace(tzinfo=None)
                opening, answer = f"row{next(numbers)}", f"row{next(numbers)}"
                words = f"about lesson {opening} in the {name} library"
                shared = {"subreddit": name, "created": created}
                rows.append({"id": opening, "parent_id": None, "user": f"asks {number}", "text": words} | shared)
                rows.append({"id": answer, "parent_id": opening, "user": f"tells {number}", "text": words} | shared)
    return rows


def test_answers_to_openings_are_learnt_from_and_every_side_has_as_many(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(_chat()).to_parquet(tmp_path / "chat.parquet")
    told = io.StringIO()
    material = forum(
        settings_for(tmp_path, tmp_path / "base"), tmp_path / "chat.parquet", Console(file=told, width=200)
    )
    assert told.getvalue().count("120 rows, 120 added, 0 bad") == 4
    sides = {"now": material.now, "then": material.then, "old": material.old, "elsewhere": material.elsewhere}
    assert len({len(side) for side in sides.values()}) == 1
    assert len(material.now) >= 10
    held_out = {one.member for one in material.evaluate}
    assert held_out
    for side in sides.values():
        assert held_out.isdisjoint(one.member for one in side)
    assert {f"in the {OTHER_FORUM} library" in scrub(one.reply) for one in material.elsewhere} == {True}
    assert max(one.sent_at for one in material.old) < LAST_YEAR < min(one.sent_at for one in material.now)


def _result(gate: str, *checks: Check) -> GateResult:
    return GateResult(gate, Verdict.PASS, None, None, None, "", 0, 0, "", checks)


def test_a_gate_tells_apart_what_lies_beyond_the_honest_bounds_on_its_bad_side() -> None:
    def low(value: float) -> Check:
        return Check("loss", value, value - 1, value + 1, None, 0.0, True)

    def high(value: float) -> Check:
        return Check("rate", value, value - 1, value + 1, 0.5, None, True)

    honest = [_result("freshness", low(-5)), _result("marker_band", high(5)), _result("stacking", low(0))]
    worse = [_result("freshness", low(-3.9)), _result("marker_band", high(3.9)), _result("stacking")]
    better = [_result("freshness", low(-9)), _result("marker_band", high(9)), _result("stacking", low(0.9))]
    assert telling_gates(honest, worse) == ["freshness", "marker_band"]
    assert telling_gates(honest, better) == []


def test_a_figure_without_bounds_tells_only_where_it_alone_does_not_pass() -> None:
    def count(value: float) -> Check:
        return Check("spans", value, value, value, None, 5.0, value < 5)

    assert telling_gates([_result("memorisation", count(1))], [_result("memorisation", count(4))]) == []
    assert telling_gates([_result("memorisation", count(1))], [_result("memorisation", count(5))]) == ["memorisation"]
