from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from nocap.domain import BASE, AdapterName, AdapterStatus, RunId, RunState, VoiceName
from nocap.errors import AdapterError, InputError, NotPermitted
from storage import runs
from storage.audit import events
from storage.database import Database
from storage.registry import (
    PointerMove,
    adapters,
    deployed_adapters,
    deployment,
    ensure_voice,
    get_adapter,
    move_pointer,
    next_adapter_name,
    register_adapter,
    set_adapter_status,
)
from storage.tables import Adapter
from tests.storage.community import GENZ, NOW

V1, V2 = AdapterName("genz-v1"), AdapterName("genz-v2")


def adapter(name: str, **changes: Any) -> Adapter:
    facts = {"voice": "genz", "base": "tiny", "base_digest": "b", "digest": name, "status": "passed", "created_at": NOW}
    return Adapter(name=name, **(facts | changes))


def move(session: Session, to: AdapterName, reason: str = "better", voice: VoiceName = GENZ) -> PointerMove:
    return move_pointer(session, voice, to, actor="op", reason=reason, at=NOW)


@pytest.fixture
def voices(database: Database) -> Database:
    with database.write() as session:
        ensure_voice(session, GENZ, "You are a bot.", ["no cap"], NOW)
        for name in ("genz-v1", "genz-v2"):
            register_adapter(session, adapter(name))
    return database


def test_a_new_voice_is_served_by_the_base(voices: Database) -> None:
    with voices.write() as session:
        assert deployment(session, GENZ).current == BASE
        move(session, V1)
        kept = ensure_voice(session, GENZ, "Another prompt.", [], NOW + timedelta(days=1))
        assert (kept.system_prompt, kept.lexicon) == ("You are a bot.", ["no cap"])
        assert deployment(session, GENZ).current == V1


@pytest.mark.parametrize("name", ["", "Gen Z", "../up", "-x", "a" * 49, "b/c"])
def test_a_voice_name_that_no_path_can_hold_is_refused(database: Database, name: str) -> None:
    with database.write() as session, pytest.raises(InputError, match="cannot be named"):
        ensure_voice(session, VoiceName(name), "", [], NOW)


def test_the_pointer_moves_and_is_audited(voices: Database) -> None:
    with voices.write() as session:
        assert move(session, V1) == PointerMove(GENZ, BASE, V1)
        assert move(session, V2, "gates passed") == PointerMove(GENZ, V1, V2)
    with voices.read() as session:
        live = deployment(session, GENZ)
        assert (live.current, live.previous, live.revision, live.since) == (V2, V1, 2, NOW)
        event = events(session, 1)[0]
    assert (event.actor, event.action, event.target) == ("op", "move_pointer", "genz")
    assert event.detail == {"before": V1, "after": V2, "reason": "gates passed", "revision": 2}


def test_a_move_to_what_is_live_changes_nothing(voices: Database) -> None:
    with voices.write() as session:
        move(session, V1)
        assert move(session, V1) == PointerMove(GENZ, V1, V1)
        live = deployment(session, GENZ)
        assert (live.previous, live.revision, len(events(session, 9))) == (BASE, 1, 1)


def test_a_move_that_fails_later_on_is_undone_with_its_audit_line(voices: Database) -> None:
    with pytest.raises(ZeroDivisionError), voices.write() as session:
        move(session, V1)
        raise ZeroDivisionError
    with voices.read() as session:
        assert (deployment(session, GENZ).current, events(session, 9)) == (BASE, [])


def test_deployed_are_the_live_the_previous_and_the_canary_of_every_voice(voices: Database) -> None:
    with voices.write() as session:
        ensure_voice(session, VoiceName("boomer"), "", [], NOW)
        assert deployed_adapters(session) == []
        for name in ("genz-v3", "genz-v4"):
            register_adapter(session, adapter(name))
        for name in ("genz-v4", "genz-v2", "genz-v1"):
            move(session, AdapterName(name))
        live = deployment(session, GENZ)
        live.canary, live.canary_share = "genz-v3", 0.1
        session.flush()
        assert deployed_adapters(session) == ["genz-v1", "genz-v2", "genz-v3"]


def test_a_move_ends_the_canary(voices: Database) -> None:
    with voices.write() as session:
        live = deployment(session, GENZ)
        live.canary, live.canary_share = V2, 0.1
        session.flush()
        move(session, V1)
        assert (live.canary, live.canary_share) == (None, 0.0)


def test_unknown_retired_and_other_voices_adapters_do_not_go_live(voices: Database) -> None:
    with voices.write() as session:
        ensure_voice(session, VoiceName("boomer"), "", [], NOW)
        set_adapter_status(session, V1, AdapterStatus.RETIRED)
        for name, sentence in (
            (V1, "retired"),
            (AdapterName("genz-v9"), "has no adapter"),
            (AdapterName(""), "no adapter"),
        ):
            with pytest.raises(NotPermitted, match=sentence):
                move(session, name)
        with pytest.raises(NotPermitted, match="boomer has no adapter genz-v2"):
            move(session, V2, voice=VoiceName("boomer"))
        with pytest.raises(InputError, match="no voice nobody"):
            move(session, V2, voice=VoiceName("nobody"))
        assert deployment(session, GENZ).current == BASE


def test_an_adapter_is_registered_once_and_its_name_never_reused(voices: Database) -> None:
    with voices.write() as session:
        assert register_adapter(session, adapter("genz-v1")).name == V1
        with pytest.raises(NotPermitted, match="never reused"):
            register_adapter(session, adapter("genz-v1", digest="other"))


@pytest.mark.parametrize(
    "name", ["base", "genz", "genz-v0", "genz-v01", "boomer-v1", "genz-v1/..", "GENZ-v1", "genz-v"]
)
def test_an_adapters_name_is_its_voices_and_a_number(voices: Database, name: str) -> None:
    with voices.write() as session, pytest.raises(InputError, match="cannot be named"):
        register_adapter(session, adapter(name))


def test_the_next_name_is_above_every_number_ever_given(voices: Database) -> None:
    with voices.write() as session:
        assert next_adapter_name(session, GENZ) == "genz-v3"
        assert next_adapter_name(session, VoiceName("boomer")) == "boomer-v1"
        register_adapter(session, adapter("genz-v10"))
        assert next_adapter_name(session, GENZ) == "genz-v11"
        run = runs.create_run(
            session,
            voice=GENZ,
            trigger="operator",
            as_of=NOW,
            incumbent="base",
            options={},
            permission_reference=None,
            at=NOW,
        )
        run.challenger = "genz-v11"
        runs.finish_run(session, RunId(run.id), RunState.FAILED, "disk full", NOW)
        assert next_adapter_name(session, GENZ) == "genz-v12"
        assert [row.name for row in adapters(session, GENZ)] == ["genz-v1", "genz-v2", "genz-v10"]


def test_an_adapters_status_may_change_and_nothing_else(voices: Database) -> None:
    with voices.write() as session:
        set_adapter_status(session, V1, AdapterStatus.REFUSED)
        assert get_adapter(session, V1).status == AdapterStatus.REFUSED
    for statement in (update(Adapter).values(digest="other"), delete(Adapter)):
        with pytest.raises(IntegrityError, match=r"immutable|never reused"), voices.write() as session:
            session.execute(statement)


def test_an_unknown_adapter_is_named(voices: Database) -> None:
    with voices.read() as session, pytest.raises(AdapterError, match="no adapter genz-v9"):
        get_adapter(session, AdapterName("genz-v9"))
