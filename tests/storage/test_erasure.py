"""Forgetting a member, judged by what is left: rows, files and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select

from nocap.domain import MessageKey, RunId, RunState, SlangStatus
from nocap.settings import Settings
from storage import registry, runs, slang
from storage._quotes import Quotes
from storage.database import Database
from storage.erasure import export, forget
from storage.slang import TermFinding, WeeklyUse, week_of
from storage.tables import Adapter, Message, Reply, RunSource
from tests.storage.community import ANA, BEN, GENZ, NOW, agree, answer, message, open_channel, store

SAID = NOW - timedelta(days=7)


@pytest.fixture
def community(database: Database) -> Database:
    with database.write() as session:
        registry.ensure_voice(session, GENZ, "Be a bot.", ["no cap"], NOW)
        open_channel(session)
        agree(session, ANA)
        agree(session, BEN)
    return database


def answered(database: Database, prompt: str, said: str) -> int:
    with database.write() as session:
        return answer(session, BEN, prompt, said)


def trained(database: Database, folder: Path, *, state: RunState = RunState.REFUSED) -> RunId:
    """A run that learnt from Ana's k1 and Ben's k2, with the files it leaves."""
    with database.write() as session:
        run = runs.create_run(
            session,
            voice=GENZ,
            trigger="test",
            as_of=NOW,
            incumbent="base",
            options={},
            permission_reference=None,
            at=NOW,
        )
        run.challenger = "genz-v1"
        rows = [("k1", ANA), ("k2", BEN)]
        runs.set_sources(
            session,
            RunId(run.id),
            [RunSource(run_id=run.id, message_key=key, role="train", member=member) for key, member in rows],
        )
        adapter = Adapter(
            name="genz-v1",
            voice=GENZ,
            run_id=run.id,
            base="b",
            base_digest="b",
            digest="d",
            status="passed",
            created_at=NOW,
        )
        registry.register_adapter(session, adapter)
        if state.is_over:
            runs.finish_run(session, RunId(run.id), state, "over", NOW)
    place = folder / run.id
    (place / "checkpoints").mkdir(parents=True)
    for name in ("samples.json", "golden.json", "report.html", "gates.json"):
        (place / name).write_text("{}")
    examples = [{"role": "train", "rows": [key], "digest": key} for key, _ in rows]
    (place / "snapshot.json").write_text(json.dumps({"digest": "x", "dropped": {}, "examples": examples}))
    return RunId(run.id)


def test_what_others_and_the_bot_repeated_of_a_forgotten_member_goes_too(
    community: Database, settings: Callable[..., Settings]
) -> None:
    with community.write() as session:
        store(
            session,
            message("k1", ANA, "my grandmother hides candy under the third stair"),
            message("k2", BEN, "> my grandmother hides candy under the third stair\nlol same"),
            message("k3", BEN, "> Grandmother hides candy under the third stair"),
            message("k4", BEN, "> what about dinner\nsoup"),
        )
    parrot = answered(community, "where is it", "she hides candy under the third stair i heard, grandmother does")
    innocent = answered(community, "what is for dinner", "soup again")
    receipt = forget(community, settings(), ANA, NOW)
    assert (receipt.messages, receipt.quotes) == (1, 3)
    with community.read() as session:
        left = {row.key: row.text for row in session.exec(select(Message))}
        assert left == {"k2": "lol same", "k4": "> what about dinner\nsoup"}
        assert session.get_one(Reply, parrot).text is None
        assert session.get_one(Reply, innocent).text == "soup again"


def test_a_word_that_only_they_wrote_marks_a_quote_and_a_common_one_does_not() -> None:
    quotes = Quotes(["supercalifragi is definitely it"], words_of_others={"definitely"})
    assert quotes.found_in("he said Supercalifragi!")
    assert not quotes.found_in("definitely not")


def test_runs_lose_what_may_repeat_erased_rows_and_their_adapters_get_a_deadline(
    community: Database, settings: Callable[..., Settings]
) -> None:
    configured = settings()
    with community.write() as session:
        store(session, message("k1", ANA), message("k2", BEN))
    run_id = trained(community, configured.runs_dir)
    (configured.data_dir / "cache" / "measure").mkdir(parents=True)
    receipt = forget(community, configured, ANA, NOW)
    folder = configured.runs_dir / run_id
    assert sorted(path.name for path in folder.iterdir()) == ["gates.json", "snapshot.json"]
    assert [entry["rows"] for entry in json.loads((folder / "snapshot.json").read_text())["examples"]] == [["k2"]]
    assert not (configured.data_dir / "cache").exists()
    assert receipt.adapters == ["genz-v1"]
    assert receipt.retire_by == NOW + timedelta(days=14)
    with community.read() as session:
        assert [row.adapter for row in registry.retirements(session, GENZ)] == ["genz-v1"]
    again = forget(community, configured, ANA, NOW + timedelta(days=3))
    assert (again.files, again.retire_by) == (0, receipt.retire_by), "asking again neither fails nor moves the deadline"


def test_a_run_under_way_keeps_its_snapshot_so_that_it_notices(
    community: Database, settings: Callable[..., Settings]
) -> None:
    configured = settings()
    run_id = trained(community, configured.runs_dir, state=RunState.RUNNING)
    forget(community, configured, ANA, NOW)
    assert len(json.loads((configured.runs_dir / run_id / "snapshot.json").read_text())["examples"]) == 2


def test_slang_counts_lose_the_members_uses_and_fall_away_below_five(
    community: Database, settings: Callable[..., Settings]
) -> None:
    week = week_of(SAID)
    with community.write() as session:
        for term, members in (("rizz", 5), ("sigma", 6), ("mid", 5)):
            weekly = [WeeklyUse(week, 10, members, 100)]
            slang.upsert_candidates(session, GENZ, [TermFinding(term, 4.0, SAID, SAID, 1.0, None, weekly)])
        slang.set_status(session, GENZ, "mid", SlangStatus.APPROVED, actor="mod", at=NOW)
        store(session, message("k1", ANA, "rizz rizz sigma mid", sent_at=SAID))
    forget(community, settings(), ANA, NOW)
    with community.read() as session:
        assert [row.term for row in slang.terms(session, GENZ)] == ["mid", "sigma"]
        (sigma,) = slang.weekly_counts(session, GENZ, "sigma")
        assert (sigma.members, sigma.uses, sigma.messages) == (5, 9, 99)
        assert slang.weekly_counts(session, GENZ, "mid") == []


@pytest.mark.parametrize("by", ["forget", "wipe"])
def test_no_byte_of_an_erased_text_is_left_in_database_or_log(
    sqlite_database: Database, settings: Callable[..., Settings], tmp_path: Path, by: str
) -> None:
    """The ciphertexts themselves are looked for: a copy of them and the key would bring the text back."""
    with sqlite_database.write() as session:
        registry.ensure_voice(session, GENZ, "Be a bot.", [], NOW)
        open_channel(session)
        agree(session, ANA)
        store(session, *(message(f"k{number}", ANA, f"a long story number {number} " * 9) for number in range(200)))
    with sqlite_database.read() as session:
        secrets = list(session.connection().execute(text("SELECT text FROM message")).scalars())
    with sqlite_database.write() as session:
        assert any(secret in file.read_bytes() for file in tmp_path.glob("nocap.db*") for secret in secrets)
    forget(sqlite_database, settings(), ANA, NOW)
    if by == "wipe":
        sqlite_database.wipe_freed(rewrite=True)
    for file in tmp_path.glob("nocap.db*"):
        content = file.read_bytes()
        assert not any(secret in content for secret in secrets), file.name


def test_what_is_exported_is_all_that_is_held(community: Database, settings: Callable[..., Settings]) -> None:
    with community.write() as session:
        store(session, message("k1", ANA, "slay"))
    assert export(community, ANA)["messages"][0]["text"] == "slay"
    forget(community, settings(), ANA, NOW)
    held = export(community, ANA)
    assert {name: rows for name, rows in held.items() if rows and name != "consent"} == {"member": ANA}
    assert not any(line["granted"] for line in held["consent"][-4:]), "the ledger stays, as proof"
    assert MessageKey("k1") not in json.dumps(held)
