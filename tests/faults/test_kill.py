"""The quick form: a few dozen kills; `python -m benchmarks.faults` has the long one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kill import Killer
from tests.faults.kill_retrain import KILLS_A_RUN, RetrainKiller

KILLS = 6
MOST_REPLICAS = 20
"""Four kills in five fall into an answer."""


@pytest.fixture(params=["sqlite", "postgresql"])
def killer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Killer]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_database_url")
    one = Killer(tmp_path, url, seed=1)
    yield one
    one.close()


def test_nothing_is_lost_doubled_or_half_done_by_a_kill_at_any_moment(killer: Killer) -> None:
    for _ in range(KILLS):
        killer.kill_and_judge()
    assert killer.verdict.wrong == [], killer.verdict
    assert sum(killer.verdict.done.values()) > KILLS


def test_a_killed_key_rotation_loses_no_text_and_goes_on(killer: Killer) -> None:
    killer.kill_and_judge(("chat",))
    for _ in range(3):
        killer.kill_a_rotation()
    assert killer.verdict.wrong == [], killer.verdict


def test_a_replica_killed_in_the_middle_of_answers_costs_none_of_them(killer: Killer) -> None:
    while not killer.verdict.in_flight["answer of a replica"] and killer.verdict.points < MOST_REPLICAS:
        killer.kill_a_replica()
    assert killer.verdict.wrong == [], killer.verdict
    assert killer.verdict.in_flight["answer of a replica"], "no kill fell into an answer"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_retrain_killed_in_every_stage_goes_on_to_one_live_adapter(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = None if kind == "sqlite" else request.getfixturevalue("postgres_database_url")
    killer = RetrainKiller(tmp_path, url, seed=1)
    for _ in range(2 * KILLS_A_RUN):
        killer.kill()
    killer.close()
    assert killer.verdict.wrong == [], killer.verdict
    assert killer.verdict.done["retrain"] >= 1


def test_a_killed_migration_or_restoration_leaves_a_database_that_opens(tmp_path: Path) -> None:
    killer = Killer(tmp_path, None, seed=2)
    killer.kill_and_judge(("chat", "vote"))
    backup = killer.back_up(tmp_path / "backups")
    for _ in range(3):
        killer.kill_a_migration()
        killer.kill_a_restoration(backup)
    killer.close()
    assert killer.verdict.wrong == [], killer.verdict
