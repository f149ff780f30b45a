"""The demo's own installation of the product, and how the simulated community's messages reach it."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import count, groupby
from pathlib import Path

from nocap.app import initialise, open_database
from nocap.demo.community import CHANNELS, Community, Role, SimulatedMessage, retrain_moment
from nocap.demo.slang_life import FIRST_WEEK
from nocap.domain import ChannelKey, MemberKey, MessageKey, Provenance, Purpose, VoiceName
from nocap.errors import ConfigurationError
from nocap.settings import (
    ChatSettings,
    DatabaseSettings,
    GateSettings,
    InferenceSettings,
    ModelSettings,
    RetrainSettings,
    Settings,
)
from retrain.dataset import held_out_member
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.messages import NewMessage, ingest

PLATFORM = "demo"
FIRST_MOMENT = retrain_moment(FIRST_WEEK) - timedelta(days=7)
MARKER_FILE = ".nocap-demo"
"""Says that the folder is a demo's and may be replaced by the next one."""

RECIPE = RetrainSettings(
    schedule="0 4 * * 1",
    rank=16,
    alpha=32,
    max_examples=2000,
    learning_rate=4e-3,
    epochs=1.0,
    batch_examples=8,
    max_length=512,
)
"""What the tiny base needs: a far higher learning rate and far smaller batches than a 7B model."""
CHAT = ChatSettings(
    context_turns=0,
    glossary_tokens=0,
    max_reply_tokens=40,
    turns_per_minute=10_000,
    channel_turns_per_minute=10_000,
    total_turns_per_minute=10_000,
)
"""A million parameters can follow neither a longer talk nor a glossary; and the simulated members talk at once."""


GATES = GateSettings(min_replies=600)
"""The simulated members write evenly and much alike, so 600 replies tell what 1,000 of real ones would; every other
figure is the default."""


class World:
    """Database, keys and settings of one demo."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.voice = VoiceName(settings.voice)
        self.keyring = Keyring.load(settings.key_file)
        self.database = open_database(settings)

    def member(self, name: str) -> MemberKey:
        return MemberKey(self.keyring.pseudonym("member", PLATFORM, name))

    def channel(self, name: str) -> ChannelKey:
        return ChannelKey(self.keyring.pseudonym("channel", PLATFORM, name))

    def message(self, name: str) -> MessageKey:
        return MessageKey(self.keyring.pseudonym("message", PLATFORM, name))

    def found(self, community: Community, at: datetime) -> None:
        """Opens the channels, which collect, and writes the members' consent to the ledger."""
        policy = self.settings.policy_version
        with self.database.write() as session:
            for name in CHANNELS:
                channel = self.channel(name)
                ensure_channel(session, channel, platform=PLATFORM, label=name, voice=self.voice, at=at, collect=True)
                for member in community.members:
                    if member.role is not Role.NEVER_CONSENTS:
                        record_consent(session, self.member(member.name), channel, list(Purpose), True, policy, at)

    def store(self, messages: Iterable[SimulatedMessage]) -> Iterator[int]:
        """Hands the messages, in order of time, to the product's ingestion day by day; yields how many each held."""
        for _, day in groupby(messages, key=lambda message: message.sent_at.date()):
            batch = [self._new_message(message) for message in day]
            with self.database.write() as session:
                ingest(
                    session,
                    batch,
                    policy_version=self.settings.policy_version,
                    at=batch[-1].sent_at,
                    drop_on_doubt=self.settings.privacy.drop_on_doubt,
                )
            yield len(batch)

    def _new_message(self, message: SimulatedMessage) -> NewMessage:
        return NewMessage(
            key=self.message(message.id),
            channel=self.channel(message.channel),
            member=self.member(message.member),
            provenance=Provenance.DONATION,
            sent_at=message.sent_at,
            text=message.text,
            reply_to=self.message(message.reply_to) if message.reply_to else None,
        )


def prepare(settings: Settings, community: Community, seed: int) -> World:
    """A fresh installation in `<data dir>/demo`; an earlier demo there is replaced.

    Raises ConfigurationError where the folder holds something that is not a demo's.
    """
    folder = settings.data_dir / "demo"
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARKER_FILE).exists():
            raise ConfigurationError(f"{folder} holds something that is no demo's; move it away or use --data-dir.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER_FILE).touch()
    demo = demo_settings(folder, settings.model.base)
    Keyring.create(demo.key_file, _master(community, seed))
    initialise(demo, folder / "nocap.toml", clock=lambda: FIRST_MOMENT)
    world = World(demo)
    world.found(community, FIRST_MOMENT)
    return world


def demo_settings(folder: Path, base: str) -> Settings:
    port = _free_port()
    return Settings(
        data_dir=folder,
        database=DatabaseSettings(url=f"sqlite:///{folder / 'nocap.db'}", key_file=folder / "nocap.key"),
        model=ModelSettings(base=base),
        inference=InferenceSettings(urls=(f"http://127.0.0.1:{port}",), port=port),
        chat=CHAT,
        retrain=RECIPE,
        gates=GATES,
    )


def _master(community: Community, seed: int) -> bytes:
    """A key under which everyone with a part to play is a member whom runs train on, so that the demo repeats."""
    players = [member.name for member in community.members if member.role not in (Role.MEMBER, Role.NEVER_CONSENTS)]
    for attempt in count():
        master = hashlib.sha256(f"nocap demo {seed} {attempt}".encode()).digest()
        keyring = Keyring(master)
        if not any(held_out_member(MemberKey(keyring.pseudonym("member", PLATFORM, name))) for name in players):
            return master
    raise AssertionError("count() never ends")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
