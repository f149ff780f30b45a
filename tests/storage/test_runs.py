from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from nocap.domain import MemberKey, RunId, RunState, Stage, VoiceName
from nocap.errors import RunError
from storage.database import Database
from storage.runs import (
    active_run,
    begin_stage,
    create_run,
    finish_run,
    gate_results,
    get_run,
    heartbeat,
    latest_runs,
    request_cancel,
    set_gate_results,
    set_sources,
    sources,
)
from storage.tables import GateOutcome, Run, RunSource
from tests.storage.community import ANA, BEN, GENZ, NOW

LATER = NOW + timedelta(minutes=5)


def new_run(session: Session, voice: VoiceName = GENZ, minutes: int = 0) -> RunId:
    run = create_run(
        session,
        voice=voice,
        trigger="operator",
        as_of=NOW,
        incumbent="base",
        options={"epochs": 1},
        permission_reference="DISCORD-2026-17",
        at=NOW + timedelta(minutes=minutes),
    )
    return RunId(run.id)


def source(key: str, role: str = "train", member: MemberKey = ANA) -> RunSource:
    return RunSource(run_id="", message_key=key, role=role, member=member)


def outcome(gate: str, verdict: str = "pass") -> GateOutcome:
    return GateOutcome(
        run_id="",
        gate=gate,
        verdict=verdict,
        statistic=0.1,
        lower=0.0,
        upper=0.2,
        threshold="< 0.3",
        evidence=50,
        evidence_needed=40,
        sentence="It holds.",
    )


def test_a_run_goes_from_queued_through_its_stages_to_its_end(database: Database) -> None:
    with database.write() as session:
        run_id = new_run(session)
        run = get_run(session, run_id)
        assert (run.state, run.stage, run.options, run.permission_reference) == (
            "queued",
            None,
            {"epochs": 1},
            "DISCORD-2026-17",
        )
        begin_stage(session, run_id, Stage.SNAPSHOT, 41, NOW)
        begin_stage(session, run_id, Stage.TRAIN, 42, NOW)
        heartbeat(session, run_id, LATER)
    with database.read() as session:
        run = get_run(session, run_id)
        assert (run.state, run.stage, run.pid, run.heartbeat_at) == ("running", "train", 42, LATER)
        assert active_run(session, GENZ) == run
    with database.write() as session:
        finish_run(session, run_id, RunState.PROMOTED, "All gates passed.", LATER, {"seconds": 9.5})
    with database.read() as session:
        run = get_run(session, run_id)
        assert (run.state, run.reason, run.ended_at, run.pid) == ("promoted", "All gates passed.", LATER, None)
        assert run.cost == {"seconds": 9.5}
        assert active_run(session, GENZ) is None


def test_a_voice_has_one_unfinished_run_at_most(database: Database) -> None:
    with database.write() as session:
        first = new_run(session)
        with pytest.raises(RunError, match=f"{first} of genz is queued"):
            new_run(session)
        new_run(session, VoiceName("boomer"))
        finish_run(session, first, RunState.CANCELLED, "by hand", NOW)
        new_run(session)


def test_the_database_itself_refuses_a_second_unfinished_run(database: Database) -> None:
    facts = {"voice": GENZ, "trigger": "schedule", "as_of": NOW, "created_at": NOW, "incumbent": "base"}
    with pytest.raises(IntegrityError), database.write() as session:
        new_run(session)
        session.add(Run(id="other", state="running", **facts))


def test_a_run_that_is_over_stays_over(database: Database) -> None:
    with database.write() as session:
        run_id = new_run(session)
        finish_run(session, run_id, RunState.REFUSED, "A gate failed.", NOW)
        assert finish_run(session, run_id, RunState.REFUSED, "again", LATER).reason == "A gate failed."
        for attempt in (
            lambda: finish_run(session, run_id, RunState.PROMOTED, "", LATER),
            lambda: begin_stage(session, run_id, Stage.PROMOTE, 1, LATER),
            lambda: heartbeat(session, run_id, LATER),
            lambda: request_cancel(session, run_id),
        ):
            with pytest.raises(RunError, match="is over"):
                attempt()
        assert get_run(session, run_id).state == "refused"


def test_a_request_to_cancel_reaches_the_running_process(database: Database) -> None:
    with database.write() as session:
        run_id = new_run(session)
        assert not heartbeat(session, run_id, NOW).cancel_requested
    with database.write() as session:
        request_cancel(session, run_id)
    with database.write() as session:
        assert heartbeat(session, run_id, NOW).cancel_requested


def test_options_changed_in_place_are_kept(database: Database) -> None:
    with database.write() as session:
        run_id = new_run(session)
        made = get_run(session, run_id)
        made.options["digest"] = "abc"
    with database.write() as session:
        loaded = get_run(session, run_id)
        loaded.options["seed"] = 7
    with database.read() as session:
        assert get_run(session, run_id).options == {"epochs": 1, "digest": "abc", "seed": 7}


def test_an_unknown_run_is_named(database: Database) -> None:
    with database.write() as session:
        for attempt in (lambda: get_run(session, "nope"), lambda: set_sources(session, RunId("nope"), [source("k")])):
            with pytest.raises(RunError, match="no run nope"):
                attempt()


def test_the_latest_runs_come_first(database: Database) -> None:
    with database.write() as session:
        ids = []
        for minutes in range(3):
            ids.append(new_run(session, minutes=minutes))
            finish_run(session, ids[-1], RunState.ABSTAINED, "too few", NOW)
        assert [run.id for run in latest_runs(session, GENZ, 2)] == ids[:0:-1]
        assert ids == sorted(ids)


def test_sources_are_replaced_as_a_whole(database: Database) -> None:
    with database.write() as session:
        run_id = new_run(session)
        run = get_run(session, run_id)
        set_sources(session, run_id, [source("gone"), source("k1", member=BEN)])
        assert [row.member for row in sources(session, run_id)] == [ANA, BEN]
        set_sources(session, run_id, [source("k2"), source("k1"), source("k1", "evaluate", BEN)])
        found = [(row.role, row.message_key, row.member) for row in sources(session, run_id)]
        assert found == [("evaluate", "k1", BEN), ("train", "k1", ANA), ("train", "k2", ANA)]
        assert [row.message_key for row in sources(session, run_id, "train")] == ["k1", "k2"]
        set_sources(session, run_id, [])
        assert sources(session, run_id) == []
    assert run.voice == GENZ


def test_gate_results_are_replaced_as_a_whole(database: Database) -> None:
    with database.write() as session:
        run_id = new_run(session)
        set_gate_results(session, run_id, [outcome("freshness", "abstain")])
        set_gate_results(session, run_id, [outcome("freshness"), outcome("collapse", "fail")])
    with database.read() as session:
        assert [(row.gate, row.verdict) for row in gate_results(session, run_id)] == [
            ("collapse", "fail"),
            ("freshness", "pass"),
        ]
