"""The data-drift figure as a reason to retrain, on a database: the same talk stays below it, other talk crosses it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nocap.domain import BASE, MemberKey, MessageKey, Provenance, Purpose, RunState
from retrain.dataset import held_out_member, take_snapshot
from retrain.talk_drift import PAUSE, talk_drift, talk_has_drifted
from storage import runs
from storage.consent import record_consent
from storage.messages import NewMessage, ingest
from tests.retrain.job_world import AS_OF, CHANNEL, GENZ, LONG_AGO, MOODS, THINGS, build_settings, settle

MEMBERS = [MemberKey(f"d{i}") for i in range(80) if not held_out_member(MemberKey(f"d{i}"))][:24]
LATER = AS_OF + timedelta(weeks=4)
FOOD = ("soup", "bread", "onion", "noodle", "curry", "salad", "butter", "toast", "beans", "plum", "cheese", "rice")


@pytest.fixture
def world(tmp_path, sqlite_database):
    """A community whose last promoted run learnt what was said in October."""
    settings = build_settings(tmp_path, tmp_path, after_drift=0.4, evaluation_days=1)
    settle(sqlite_database)
    with sqlite_database.write() as session:
        for member in MEMBERS:
            record_consent(session, member, CHANNEL, list(Purpose), True, "2026-11", LONG_AGO)
    _talk(sqlite_database, "then", THINGS, AS_OF - timedelta(days=20))
    with sqlite_database.write() as session:
        run = runs.create_run(
            session, voice=GENZ, trigger="operator", as_of=AS_OF, incumbent=BASE, options={},
            permission_reference=None, at=AS_OF,
        )  # fmt: skip
        take_snapshot(session, run, settings, sqlite_database.keyring)
        runs.finish_run(session, run.id, RunState.PROMOTED, "for the test", AS_OF, {})
    return settings, sqlite_database


def _talk(database, name, things, since) -> None:
    rows = []
    for number in range(400):
        thing, mood = things[(number * 7) % len(things)], MOODS[(number * 5) % len(MOODS)]
        text = f"{name}{number} the {thing} and the {things[(number * 3 + 1) % len(things)]} are {mood} again"
        at, member = since + timedelta(minutes=30 * number), MEMBERS[number % len(MEMBERS)]
        answers = MessageKey(f"{name}{number - 1}") if number else None
        rows.append(NewMessage(MessageKey(f"{name}{number}"), CHANNEL, member, Provenance.DONATION, at, text, answers))
    with database.write() as session:
        ingest(session, rows, policy_version="2026-11", at=since + timedelta(days=9))


def test_the_same_talk_in_new_words_stays_below_the_limit_and_another_subject_crosses_it(world):
    settings, database = world
    assert talk_drift(database, settings, GENZ, AS_OF).shares == (), "nothing new was said, so nothing is compared"
    _talk(database, "now", THINGS, LATER - timedelta(days=20))
    same = talk_drift(database, settings, GENZ, LATER)
    assert same.shares and same.largest < 0.4
    assert not talk_has_drifted(database, settings, GENZ, LATER)


def test_another_subject_crosses_it_but_not_within_a_week_of_any_run(world):
    settings, database = world
    _talk(database, "now", FOOD, LATER - timedelta(days=20))
    assert talk_drift(database, settings, GENZ, LATER).largest > 0.4
    assert talk_has_drifted(database, settings, GENZ, LATER)
    off = build_settings(settings.data_dir, settings.data_dir)
    assert not talk_has_drifted(database, off, GENZ, LATER), "only where it is asked for"
    with database.write() as session:
        run = runs.create_run(
            session, voice=GENZ, trigger="schedule", as_of=LATER, incumbent=BASE, options={},
            permission_reference=None, at=LATER,
        )  # fmt: skip
        runs.finish_run(session, run.id, RunState.REFUSED, "for the test", LATER, {})
    assert not talk_has_drifted(database, settings, GENZ, LATER + PAUSE - timedelta(hours=1))
    assert talk_has_drifted(database, settings, GENZ, LATER + PAUSE)
