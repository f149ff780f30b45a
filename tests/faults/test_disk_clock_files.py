"""A full disk, a clock that jumps, files written by half: one sentence each, and nothing lost."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from nocap.app import initialise, open_database
from nocap.check import check_installation, leftovers, remove
from nocap.domain import AdapterName, Provenance, Vote, utc_now
from nocap.errors import NotPermitted, StorageError
from nocap.findings import Level
from nocap.settings import Settings
from storage.database import Database
from storage.feedback import cast_vote, record_reply
from storage.leases import lease
from storage.outbox import VoteOutbox
from storage.tables import Feedback
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store

LIMIT_BYTES = 200_000


@pytest.fixture
def installed(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "data")
    initialise(settings, tmp_path / "nocap.toml")
    return settings


def levels(settings: Settings) -> set[Level]:
    database = open_database(settings)
    try:
        return {finding.level for finding in check_installation(settings, database, utc_now()).findings}
    finally:
        database.close()


def limited(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that may write no file beyond the limit, as on a disk that is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))

    command = [sys.executable, "-m", "nocap.cli", "--settings", str(folder / "nocap.toml"), *words]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)


def test_a_backup_that_does_not_fit_is_one_sentence_and_leaves_nothing(installed: Settings, tmp_path: Path) -> None:
    ended = limited("db", "backup", str(tmp_path / "backups"), folder=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.startswith("nocap: ") and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert list((tmp_path / "backups").iterdir()) == []
    assert levels(installed) == {Level.OK}


def test_an_import_that_does_not_fit_is_one_sentence_and_leaves_a_sound_database(
    installed: Settings, tmp_path: Path
) -> None:
    row = '{{"id": "{0}", "member": "ana", "channel": "c", "sent_at": "2026-11-01T10:00:00+00:00", "text": "{1}"}}\n'
    (tmp_path / "chat.jsonl").write_text("".join(row.format(n, "word " * 200) for n in range(3000)))
    (tmp_path / "consent.jsonl").write_text(
        '{"member": "ana", "channel": "*", "purposes": ["store"], "granted": true}\n'
    )
    words = ("import", "jsonl", str(tmp_path / "chat.jsonl"), "--consent", str(tmp_path / "consent.jsonl"))
    ended = limited(*words, folder=tmp_path)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert levels(installed) == {Level.OK}


def test_a_vote_waits_where_the_database_has_no_room(sqlite_database: Database, tmp_path: Path) -> None:
    with sqlite_database.write() as session:
        open_channel(session)
        reply = record_reply(
            session, channel=FLAT, voice=GENZ, adapter=AdapterName("base"), prompt_member=ANA, prompt_key=None,
            prompt=None, text=None, provenance=Provenance.TERMINAL, policy_version=POLICY, at=NOW,
        )  # fmt: skip
    outbox = VoteOutbox(sqlite_database, tmp_path / "elsewhere")
    with sqlite_database.write() as blocking:
        blocking.connection()
        writes = Database.write
        try:
            Database.write = _no_room  # type: ignore[method-assign]
            assert not outbox.cast(reply, BEN, Vote.UP, NOW)
        finally:
            Database.write = writes  # type: ignore[method-assign]
    assert outbox.flush()
    with sqlite_database.read() as session:
        assert session.exec(select(Feedback.vote)).all() == ["up"]


def _no_room(self: Database) -> object:
    raise StorageError("There is no room left on the disk.")


@pytest.mark.parametrize("jump", [timedelta(days=-1), timedelta(days=1)], ids=["back", "forward"])
def test_a_clock_that_jumps_loses_no_vote_and_no_message(database: Database, jump: timedelta) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        reply = record_reply(
            session, channel=FLAT, voice=GENZ, adapter=AdapterName("base"), prompt_member=ANA, prompt_key=None,
            prompt=None, text=None, provenance=Provenance.TERMINAL, policy_version=POLICY, at=NOW,
        )  # fmt: skip
        cast_vote(session, reply, BEN, Vote.UP, NOW)
        cast_vote(session, reply, BEN, Vote.DOWN, NOW + jump)
        store(session, message("k1", sent_at=NOW + jump))
        agree(session, ANA, granted=False)
    with database.read() as session:
        assert session.exec(select(Feedback.vote)).one() == "down"


def test_a_clock_that_jumps_forward_frees_a_lease_and_back_keeps_it_a_while(database: Database) -> None:
    now = [NOW]
    with lease(database, "scheduler", "one", 30, lambda: now[0]):
        now[0] = NOW - timedelta(minutes=5)
        with pytest.raises(NotPermitted), lease(database, "scheduler", "two", 30, lambda: now[0]):
            pytest.fail("two hold it")
        now[0] = NOW + timedelta(days=1)
        with lease(database, "scheduler", "two", 30, lambda: now[0]):
            pass


def test_halves_of_files_and_folders_are_found_and_removed_and_nothing_else(installed: Settings) -> None:
    half = installed.adapters_dir / "genz-v1"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")
    (installed.data_dir / ".restoring-abc").mkdir()
    (installed.data_dir / "notes.txt").write_text("mine")
    database = open_database(installed)
    found = leftovers(installed, database)
    assert found == sorted([half, installed.data_dir / ".restoring-abc"])
    remove(found)
    assert leftovers(installed, database) == []
    database.close()
    assert (installed.data_dir / "notes.txt").exists()
