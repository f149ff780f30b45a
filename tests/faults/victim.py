"""A process that works on an installation until it is killed, and notes what it begins and what is done.

`python -m tests.faults.victim` forks one such process for every line of JSON it reads, so that nothing is imported
anew; it answers with the child's pid, and again when that has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bots.records import Exchange, Incoming, Records
from nocap.actions import Actions
from nocap.backup import restore_backup, write_backup
from nocap.domain import (
    BASE,
    AdapterName,
    ChannelKey,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    VoiceName,
    Vote,
)
from nocap.importing.common import import_file
from nocap.observability.logs import configure_logging
from nocap.settings import DatabaseSettings, Settings
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.messages import forget_member
from storage.outbox import VoteOutbox
from storage.rotation import rotate
from tests.fakes import backend
from tests.fakes.backend import FakeBackend, says
from tests.faults.nursery import serve

VOICE, CHANNEL = VoiceName("genz"), ChannelKey("flat")
POLICY = Settings.model_fields["policy_version"].default
ADAPTERS = (BASE, AdapterName("genz-v1"), AdapterName("genz-v2"))
START = datetime(2026, 11, 1, tzinfo=UTC)
IMPORTED_ROWS = 25
ANSWER = tuple(f"piece {number} " for number in range(25))
ANSWER_SECONDS = 1.0
WORK = ("chat", "vote", "change_vote", "duel", "import", "promote", "forget", "consent", "backup", "outbox")


class Journal:
    """What was begun and what is done, one line each; a line that was written outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, kind: str, what: str, **values: Any) -> None:
        os.write(self._file, (json.dumps({"kind": kind, "what": what} | values) + "\n").encode())


class Victim:
    """One process's work, in an order drawn by `seed`; names are made of it, so no two processes share one."""

    def __init__(self, settings: Settings, seed: int, journal: Journal) -> None:
        self._settings = settings
        self._database = Database.open(settings.database_url, Keyring.load(settings.key_file))
        self._records = Records(self._database, settings, VOICE)
        self._actions = Actions(self._database, settings, actor="victim", clock=self._now)
        self._random = random.Random(seed)
        self._prefix = f"p{seed}"
        self._start = START + timedelta(hours=seed % 10_000)
        self._numbers = itertools.count()
        self._journal = journal
        self._replies: list[int] = []
        self._votes: list[tuple[int, str]] = []

    def work(self, kinds: tuple[str, ...]) -> None:
        """For ever."""
        self._chat()
        while True:
            kind = self._random.choice(kinds)
            getattr(self, f"_{kind}")()

    def _now(self) -> datetime:
        return self._start + timedelta(seconds=next(self._numbers))

    def _name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def _step(self, what: str, act: Callable[[], Any], **values: Any) -> Any:
        self._journal.note("begin", what, **values)
        result = act()
        self._journal.note("done", what, **values)
        return result

    def _incoming(self, member: str) -> Incoming:
        key = MessageKey(self._name())
        return Incoming("telegram", CHANNEL, MemberKey(member), key, "no cap fr", self._now(), Provenance.TERMINAL)

    def _chat(self) -> None:
        """A member agrees, asks, is answered."""
        member = self._name()
        self._agree(member)
        incoming = self._incoming(member)
        prepared = self._step("message", lambda: self._records.prepare(incoming, self._now()), key=incoming.message_key)
        assert prepared.stored
        exchange = Exchange(incoming, VOICE, Provenance.TERMINAL, True, True, ())
        self._journal.note("begin", "reply", key=incoming.message_key)
        reply = self._records.reply(exchange, BASE, "bet", self._now())
        self._journal.note("done", "reply", key=incoming.message_key, id=reply)
        self._replies.append(reply)

    def _agree(self, member: str) -> None:
        with self._database.write() as session:
            record_consent(session, MemberKey(member), CHANNEL, list(Purpose), True, POLICY, self._now())

    def _vote(self) -> None:
        self._cast(self._random.choice(self._replies), self._name())

    def _change_vote(self) -> None:
        if self._votes:
            self._cast(*self._random.choice(self._votes))

    def _cast(self, reply: int, member: str) -> None:
        vote = self._random.choice(list(Vote))
        act = lambda: self._records.vote(reply, MemberKey(member), vote, self._now())  # noqa: E731
        self._step("vote", act, reply=reply, member=member, vote=vote)
        self._votes.append((reply, member))

    def _outbox(self) -> None:
        """A vote that waited first."""
        reply, member = self._random.choice(self._replies), self._name()
        outbox = VoteOutbox(self._database, self._settings.data_dir)

        def act() -> None:
            outbox._keep("reply", reply, member, Vote.UP, self._now())
            outbox.flush()

        self._step("vote", act, reply=reply, member=member, vote=Vote.UP)

    def _duel(self) -> None:
        incoming = self._incoming(self._name())
        exchange = Exchange(incoming, VOICE, Provenance.TERMINAL, False, False, ())
        duel = self._records.duel(exchange, (BASE, ADAPTERS[1]), ("a", "b"), self._now())
        member = self._name()
        act = lambda: self._records.duel_vote(duel, MemberKey(member), DuelChoice.TIE, self._now())  # noqa: E731
        self._step("duel vote", act, duel=duel, member=member)

    def _import(self) -> None:
        folder = self._settings.data_dir / "imports"
        folder.mkdir(exist_ok=True)
        name = self._name()
        rows = [
            {"id": f"{name}-{n}", "member": "imp", "channel": "c", "sent_at": START.isoformat(), "text": f"w{n}"}
            for n in range(IMPORTED_ROWS)
        ]
        file, consent = folder / f"{name}.jsonl", folder / "consent.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        statement = {"member": "imp", "channel": "*", "purposes": ["store"], "granted": True}
        consent.write_text(json.dumps(statement) + "\n")
        options: dict[str, Any] = {"policy_version": POLICY, "voice": VOICE, "on_error": "stop", "at": self._now()}
        act = lambda: import_file(self._database, file, "jsonl", consent_file=consent, **options)  # noqa: E731
        self._step("import", act, name=name)

    def _promote(self) -> None:
        to = self._random.choice(ADAPTERS)
        act = lambda: self._actions.rollback(VOICE, to, None)  # noqa: E731
        self._step("pointer", act, to=to)

    def _forget(self) -> None:
        member = self._name()
        self._agree(member)
        for _ in range(3):
            self._records.prepare(self._incoming(member), self._now())

        def act() -> None:
            with self._database.write() as session:
                forget_member(session, MemberKey(member), self._now())

        self._step("forget", act, member=member)

    def _consent(self) -> None:
        member = self._name()
        self._agree(member)

        def act() -> None:
            with self._database.write() as session:
                record_consent(session, MemberKey(member), CHANNEL, [Purpose.TRAIN], False, POLICY, self._now())

        self._step("revoke", act, member=member)

    def _backup(self) -> None:
        folder = self._settings.data_dir.parent / "backups"
        self._step("backup", lambda: write_backup(self._settings, self._database, folder, self._now(), keep=2))


def migrate(settings: Settings, journal: Journal) -> None:
    """Makes a database from nothing, again and again."""
    for number in itertools.count():
        url = settings.database_url.replace("nocap.db", f"fresh{number}-{os.getpid()}.db")
        journal.note("begin", "migrate", url=url)
        Database.open(url, Keyring.load(settings.key_file), create=True).close()
        journal.note("done", "migrate", url=url)


def restore_again(settings: Settings, backup: Path, journal: Journal) -> None:
    """Puts the same backup in place, again and again."""
    while True:
        journal.note("begin", "restore")
        restore_backup(settings, backup, replace=True)
        journal.note("done", "restore")


def rotate_again(settings: Settings, journal: Journal) -> None:
    """Encrypts every text under a new key, again and again."""
    while True:
        journal.note("begin", "rotate")
        rotate(settings.database_url, settings.key_file)
        journal.note("done", "rotate")


def fake_backend() -> FakeBackend:
    """One of several replicas that hold the same adapters."""
    fake = FakeBackend(**{name: says(*ANSWER) for name in ADAPTERS})
    fake.pause_seconds = ANSWER_SECONDS / len(ANSWER)
    return fake


async def be_a_replica(journal: Journal) -> None:
    async with backend.serve(fake_backend()) as url:
        journal.note("begin", "replica", url=url)
        await asyncio.Event().wait()


def _child(order: dict[str, Any]) -> None:
    settings = Settings(data_dir=Path(order["data_dir"]), database=DatabaseSettings(url=order["url"]))
    journal = Journal(Path(order["journal"]))
    if order["kinds"] == ["migrate"]:
        migrate(settings, journal)
    elif order["kinds"] == ["rotate"]:
        rotate_again(settings, journal)
    elif order["kinds"] == ["replica"]:
        asyncio.run(be_a_replica(journal))
    elif order["kinds"] == ["restore"]:
        restore_again(settings, Path(order["backup"]), journal)
    else:
        Victim(settings, order["seed"], journal).work(tuple(order["kinds"]))


if __name__ == "__main__":
    configure_logging(logging.ERROR)
    serve(_child)
