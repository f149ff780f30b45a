"""Kills a working process by SIGKILL at a random moment, again and again, and judges what it left.

After each kill: every invariant of `nocap db check`; everything that was reported as done is there exactly once;
what was begun and not reported is there whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, func, select

from bots.conversation import Conversation
from bots.limits import RateLimits
from bots.records import Incoming
from inference.adapter_files import write_manifest
from inference.client import BackendClient
from inference.responder import RoutedResponder
from inference.router import Replica, Router
from inference.router_metrics import MOVED
from nocap.backup import read_backup, write_backup
from nocap.check import check_installation
from nocap.domain import AdapterStatus, MemberKey, MessageKey, Provenance, Purpose
from nocap.findings import Level
from nocap.settings import DatabaseSettings, Settings
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.dump import digest_of
from storage.pointers import LivePointers
from storage.registry import deployment, ensure_voice, register_adapter
from storage.rotation import rotate
from storage.tables import Adapter, ConsentEvent, DuelVote, Feedback, Message, Reply
from tests.faults.nursery import Nursery
from tests.faults.victim import (
    ADAPTERS,
    ANSWER,
    ANSWER_SECONDS,
    CHANNEL,
    IMPORTED_ROWS,
    POLICY,
    START,
    VOICE,
    WORK,
    fake_backend,
)

ASKING = 8
MOST_LINES, LONGEST_WAIT_SECONDS = 24, 0.03
"""A victim notes so many lines, two a step, and lives a moment longer, so that the kill falls into a step."""


@dataclass
class Verdict:
    """Over all kills; everything but `points` and `done` should be empty or zero."""

    points: int = 0
    done: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    """What the kills fell into."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.halves, *self.problems]


class Killer:
    """An installation and the process that keeps forking its victims."""

    def __init__(self, folder: Path, url: str | None, seed: int) -> None:
        self.settings = Settings(data_dir=folder / "data", database=DatabaseSettings(url=url))
        self.verdict = Verdict()
        self._random = random.Random(seed)
        self._seeds = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))
        self._journal = folder / "journal.jsonl"
        self._pointer = {ADAPTERS[0]}
        _install(self.settings)
        self._nursery = Nursery("tests.faults.victim")

    def close(self) -> None:
        self._nursery.close()

    def kill(self, kinds: tuple[str, ...] = WORK, backup: Path | None = None) -> list[dict[str, Any]]:
        """Lets one process do a random number of steps; returns what it noted."""
        pid = self._begin(kinds, backup)
        lines = self._random.randint(1, MOST_LINES)
        until(lambda: self._journal.exists() and self._journal.read_bytes().count(b"\n") >= lines)
        time.sleep(self._random.uniform(0, LONGEST_WAIT_SECONDS))
        self._kill(pid)
        return self._notes()

    def _begin(self, kinds: tuple[str, ...], backup: Path | None = None) -> int:
        """The pid of a new victim."""
        self._journal.unlink(missing_ok=True)
        order = {
            "data_dir": str(self.settings.data_dir),
            "url": self.settings.database.url,
            "journal": str(self._journal),
            "seed": next(self._seeds),
            "kinds": kinds,
            "backup": str(backup),
        }
        return self._nursery.begin(order)

    def _kill(self, pid: int) -> None:
        self._nursery.kill(pid)
        self.verdict.points += 1

    def _notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._journal.read_text().splitlines()]

    def kill_and_judge(self, kinds: tuple[str, ...] = WORK) -> None:
        notes = self.kill(kinds)
        done = [note for note in notes if note["kind"] == "done"]
        begun = _in_flight(notes)
        self.verdict.done += Counter(note["what"] for note in done)
        self.verdict.in_flight[begun["what"] if begun else "between two steps"] += 1
        with self._opened() as database:
            with database.read() as session:
                self._judge(session, done, begun)
            self._check(database)

    def kill_a_migration(self) -> None:
        notes = self.kill(("migrate",))
        self.verdict.in_flight["migrate"] += 1
        for url in {note["url"] for note in notes}:
            database = Database.open(url, Keyring.load(self.settings.key_file), create=True)
            with database.read() as session:
                session.exec(select(func.count()).select_from(Message)).one()
            database.close()
            for file in self.settings.data_dir.glob(f"{Path(url.removeprefix('sqlite:///')).name}*"):
                file.unlink()

    def kill_a_restoration(self, backup: Path) -> None:
        """Either the database before or the one of the backup is there, which hold the same."""
        self.kill(("restore",), backup)
        self.verdict.in_flight["restore"] += 1
        with self._opened() as database:
            if digest_of(database) != read_backup(backup).digest:
                self.verdict.halves.append("a restoration")

    def kill_a_rotation(self) -> None:
        """Every text can be read at once, by the key file as it is; the same command goes on to the end."""
        before = self._texts()
        notes = self.kill(("rotate",))
        self.verdict.in_flight["key rotation" if _in_flight(notes) else "between two steps"] += 1
        after_kill = self._texts()
        rotate(self.settings.database_url, self.settings.key_file)
        for texts in (after_kill, self._texts()):
            self.verdict.lost += [f"the text of {key}" for key in before if texts.get(key) != before[key]]
        if Keyring.load(self.settings.key_file).is_rotating:
            self.verdict.halves.append("a key rotation")
        with self._opened() as database:
            self._check(database)

    def _texts(self) -> dict[str, str]:
        with self._opened() as database, database.read() as session:
            return dict(session.exec(select(Message.key, Message.text)).all())

    def kill_a_replica(self) -> None:
        """One of two dies while members ask: each is answered once and in whole, and it is recorded once."""
        pid = self._begin(("replica",))
        until(lambda: self._journal.exists() and self._journal.read_bytes().endswith(b"\n"))
        (note,) = self._notes()
        with self._opened() as database:
            members = [f"asker{self.verdict.points}-{number}" for number in range(ASKING)]
            with database.write() as session:
                for member in members:
                    record_consent(session, MemberKey(member), CHANNEL, list(Purpose), True, POLICY, START)
            texts, moved = asyncio.run(self._ask(database, members, note["url"], pid))
            self.verdict.in_flight["answer of a replica" if moved else "between two steps"] += 1
            self.verdict.done["answer"] += len(texts)
            self.verdict.halves += [f"an answer: {text!r}" for text in texts if text.split() != "".join(ANSWER).split()]
            with database.read() as session:
                for member in members:
                    self._expect(f"question of {member}", _count(session, Message, col(Message.key) == f"q-{member}"))
                    self._expect(f"reply to {member}", _count(session, Reply, col(Reply.prompt_key) == f"q-{member}"))
            self._check(database)

    async def _ask(self, database: Database, members: list[str], url: str, pid: int) -> tuple[list[str], bool]:
        """What each is told, and whether an answer went on at the replica that lives."""
        living = fake_backend()
        other = BackendClient("http://other", timeout_seconds=30, transport=living.transport())
        replicas = [Replica(BackendClient(url, timeout_seconds=30)), Replica(other)]
        async with RoutedResponder(Router(LivePointers(database).read), replicas, str) as responder:
            limits = RateLimits(member_per_minute=1e6, channel_per_minute=1e6, everyone_per_minute=1e6)
            conversation = Conversation(database, responder, self.settings, lambda: START, limits=limits)

            async def ask(member: str) -> str:
                key = MessageKey(f"q-{member}")
                turn = await conversation.turn(
                    Incoming("telegram", CHANNEL, MemberKey(member), key, "no cap?", START, Provenance.TERMINAL)
                )
                return "".join([piece async for piece in turn])

            moved = _moved()
            asked = [asyncio.create_task(ask(member)) for member in members]
            await living.was_asked.wait()  # so is the other, to which half of the questions go
            await asyncio.sleep(self._random.uniform(0, ANSWER_SECONDS))
            self._kill(pid)
            texts = await asyncio.gather(*asked)
            return texts, _moved() > moved

    def back_up(self, folder: Path) -> Path:
        with self._opened() as database:
            return Path(write_backup(self.settings, database, folder, START, keep=None).file)

    @contextmanager
    def _opened(self) -> Iterator[Database]:
        database = Database.open(self.settings.database_url, Keyring.load(self.settings.key_file))
        try:
            yield database
        finally:
            database.close()

    def _check(self, database: Database) -> None:
        report = check_installation(self.settings, database, START)
        self.verdict.problems += [one.sentence for one in report.findings if one.level is Level.PROBLEM]

    def _judge(self, session: Session, done: list[dict[str, Any]], begun: dict[str, Any] | None) -> None:
        votes = {(n["reply"], n["member"]): n["vote"] for n in done if n["what"] == "vote"}
        for (reply, member), vote in votes.items():
            found = session.exec(
                select(Feedback.vote).where(Feedback.reply_id == reply, Feedback.member == member)
            ).all()
            allowed = {vote, begun["vote"]} if begun and begun.get("member") == member else {vote}
            self._expect(f"vote of {member}", len(found), wrong=bool(found) and found[0] not in allowed)
        for note in done:
            if note["what"] == "message":
                self._expect(note["key"], _count(session, Message, col(Message.key) == note["key"]))
            elif note["what"] == "reply":
                self._expect(f"reply {note['id']}", _count(session, Reply, col(Reply.prompt_key) == note["key"]))
            elif note["what"] == "duel vote":
                self._expect(
                    f"duel vote {note['duel']}", _count(session, DuelVote, col(DuelVote.member) == note["member"])
                )
            elif note["what"] == "forget" and _count(session, Message, col(Message.member) == note["member"]):
                self.verdict.halves.append(f"{note['member']} was forgotten and is there")
            elif note["what"] == "revoke":
                lines = (col(ConsentEvent.member) == note["member"], col(ConsentEvent.granted).is_(False))
                self._expect(f"revocation of {note['member']}", _count(session, ConsentEvent, *lines))
        self._judge_pointer(session, done, begun)
        self._judge_imports(session)
        if (
            begun
            and begun["what"] == "forget"
            and _count(session, Message, col(Message.member) == begun["member"]) not in (0, 3)
        ):
            self.verdict.halves.append(f"half of {begun['member']} is forgotten")

    def _judge_pointer(self, session: Session, done: list[dict[str, Any]], begun: dict[str, Any] | None) -> None:
        moves = [note["to"] for note in done if note["what"] == "pointer"]
        allowed = {moves[-1]} if moves else set(self._pointer)
        if begun and begun["what"] == "pointer":
            allowed.add(begun["to"])
        current = deployment(session, VOICE).current
        if current not in allowed:
            self.verdict.lost.append(f"the pointer is at {current}, not {allowed}")
        self._pointer = {current}

    def _judge_imports(self, session: Session) -> None:
        """A file is there whole or not at all."""
        imported = _count(session, Message, col(Message.provenance) == "donation")
        if imported % IMPORTED_ROWS:
            self.verdict.halves.append(f"{imported} imported rows are no whole number of files")

    def _expect(self, what: str, count: int, *, wrong: bool = False) -> None:
        if count == 0 or wrong:
            self.verdict.lost.append(what)
        elif count > 1:
            self.verdict.doubled.append(what)


def _in_flight(notes: list[dict[str, Any]]) -> dict[str, Any] | None:
    return notes[-1] if notes and notes[-1]["kind"] == "begin" else None


def _moved() -> float:
    """How many answers went on at another replica so far, whichever adapter the pointer was at."""
    samples = [sample for metric in MOVED.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name == "nocap_router_moved_total")


def _count(session: Session, table: Any, *conditions: Any) -> int:
    return session.exec(select(func.count()).select_from(table).where(*conditions)).one()


def _install(settings: Settings) -> None:
    settings.data_dir.mkdir(parents=True)
    database = Database.open(settings.database_url, Keyring.create(settings.key_file), create=True)
    with database.write() as session:
        ensure_voice(session, VOICE, "prompt", ["no cap"], START)
        ensure_channel(session, CHANNEL, platform="telegram", label=None, voice=VOICE, at=START, collect=True)
        for name in ADAPTERS[1:]:
            folder = settings.adapters_dir / name
            folder.mkdir(parents=True)
            (folder / "adapter_config.json").write_text("{}")
            (folder / "adapter_model.safetensors").write_bytes(name.encode())
            digest = write_manifest(folder, name=name, base_digest="b" * 64, rank=8)
            register_adapter(
                session,
                Adapter(name=name, voice=VOICE, base="embedded", base_digest="b" * 64, digest=digest,
                        status=AdapterStatus.PASSED, created_at=START),
            )  # fmt: skip
    database.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "the process never began"
        time.sleep(0.002)
