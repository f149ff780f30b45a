"""A real SQLite database, the real client and router over the fake backend, and a clock of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bots.commands import Commands
from bots.conversation import Conversation
from bots.limits import RateLimits
from bots.records import Incoming
from bots.turn import Turn
from inference.client import BackendClient
from inference.responder import RoutedResponder
from inference.router import Replica, Router
from nocap.domain import (
    AdapterName,
    AdapterStatus,
    ChannelKey,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    VoiceName,
)
from nocap.settings import Settings
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.registry import deployment, ensure_voice, move_pointer, register_adapter
from storage.tables import Adapter, Deployment
from tests.fakes.backend import FakeBackend

VOICE = VoiceName("genz")
PROMPT = "You are a bot of this community."
CHANNEL = ChannelKey("c" * 32)
ADA, BEN = MemberKey("a" * 32), MemberKey("b" * 32)
START = datetime(2026, 11, 22, 12, tzinfo=UTC)


class PlainKeyring(Keyring):
    """Writes texts readably, so that a search through the database's bytes can find what was stored."""

    def encrypt(self, text: str) -> bytes:
        return b"plain:" + text.encode()

    def decrypt(self, data: bytes) -> str:
        return data.removeprefix(b"plain:").decode()


class World:
    """One bot: `say` and `ask` are what a platform would do."""

    def __init__(self, folder: Path, database: Database, settings: Settings, limits: RateLimits | None) -> None:
        self.folder = folder
        self.database = database
        self.settings = settings
        self.backend = FakeBackend()
        self.now = START
        self.limits = limits
        self._messages = 0
        self.restart()

    def restart(self) -> None:
        """A new process over the same database and backend."""
        client = BackendClient("http://fake", timeout_seconds=5, transport=self.backend.transport())
        self.responder = RoutedResponder(Router(self._deployment), [Replica(client)], str)
        limits = self.limits or RateLimits(member_per_minute=1e6, channel_per_minute=1e6, everyone_per_minute=1e6)
        self.conversation = Conversation(
            self.database, self.responder, self.settings, self.clock, limits=limits, seed=1
        )
        self.commands = Commands(self.database, self.settings, self.clock, self.conversation.memory)

    def set_privacy(self, **changes: object) -> None:
        """A new process under other `privacy` settings."""
        privacy = self.settings.privacy.model_copy(update=changes)
        self.settings = self.settings.model_copy(update={"privacy": privacy})
        self.restart()

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def incoming(self, text: str, member: MemberKey = ADA, **changes: object) -> Incoming:
        self._messages += 1
        values: dict[str, object] = {
            "platform": "terminal",
            "channel": CHANNEL,
            "member": member,
            "message_key": MessageKey(f"{self._messages:032x}"),
            "text": text,
            "sent_at": self.clock(),
            "provenance": Provenance.TERMINAL,
        }
        return Incoming(**(values | changes))  # type: ignore[arg-type]

    async def ask(self, text: str, member: MemberKey = ADA, **changes: object) -> Turn:
        turn = await self.conversation.turn(self.incoming(text, member, **changes))
        async for _ in turn:
            pass
        return turn

    def collect(self, collect: bool = True) -> None:
        with self.database.write() as session:
            ensure_channel(
                session, CHANNEL, platform="terminal", label=None, voice=VOICE, at=self.clock(), collect=collect
            )

    def consent(self, member: MemberKey, *purposes: Purpose, granted: bool = True) -> None:
        with self.database.write() as session:
            chosen = purposes or (Purpose.STORE,)
            record_consent(session, member, CHANNEL, chosen, granted, self.settings.policy_version, self.clock())

    def promote(self, name: str, *pieces: str) -> None:
        """An adapter that is registered, loaded and live, and says `pieces`."""
        adapter = AdapterName(name)
        with self.database.write() as session:
            register_adapter(
                session,
                Adapter(
                    name=name,
                    voice=VOICE,
                    base="base",
                    base_digest="0" * 64,
                    digest=name,
                    status=AdapterStatus.PASSED,
                    created_at=self.clock(),
                ),
            )
            move_pointer(session, VOICE, adapter, actor="test", reason="test", at=self.clock())
        if pieces:
            self.backend.models[name] = lambda messages: list(pieces)

    def bytes_on_disk(self) -> bytes:
        """Everything that the database's files hold, write-ahead log included."""
        if self.database.url.get_backend_name() != "sqlite":
            pytest.skip("looks into SQLite's files")
        return b"".join(file.read_bytes() for file in sorted(self.folder.glob("nocap.db*")))

    def _deployment(self, voice: VoiceName) -> Deployment:
        with self.database.read() as session:
            return deployment(session, voice)


@contextmanager
def world(
    folder: Path,
    *,
    limits: RateLimits | None = None,
    plain: bool = True,
    discord: dict[str, object] | None = None,
    bots: dict[str, object] | None = None,
    **chat: object,
) -> Iterator[World]:
    settings = Settings(data_dir=folder, chat=chat, discord=discord or {}, bots=bots or {})  # type: ignore[arg-type]
    keyring = (PlainKeyring if plain else Keyring)(bytes(32))
    (folder / "nocap.db").write_bytes(_empty_database())
    database = Database.open(settings.database_url, keyring)
    try:
        yield World(folder, database, settings, limits)
    finally:
        database.close()


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Waits for what no request tells of, such as the database."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to pass"
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _empty_database() -> bytes:
    """A migrated database with the voice in it, made once, since migrating takes longer than most tests."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "nocap.db"
        database = Database.open(f"sqlite:///{file}", Keyring(bytes(32)), create=True)
        with database.write() as session:
            ensure_voice(session, VOICE, PROMPT, ["fr"], START)
        database.close()
        return file.read_bytes()
