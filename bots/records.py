"""What a turn reads from the database and writes to it: synchronous, called off the event loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy
import structlog
from sqlmodel import col, select

from bots.memory import Remembered
from nocap.domain import (
    AdapterName,
    ChannelKey,
    ChannelMode,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    VoiceName,
    Vote,
)
from nocap.errors import ConfigurationError, StorageError, VoteWaits
from nocap.settings import Settings
from storage.channels import ensure_channel
from storage.database import Database
from storage.feedback import record_duel, record_reply
from storage.messages import NewMessage, ingest, recent_messages
from storage.outbox import VoteOutbox
from storage.slang import GlossaryEntry, glossary
from storage.tables import Channel, ConsentEvent, Duel, Reply, Voice

KNOWN_CHANNELS = 10_000
"""Channels whose last settings are remembered for when the database is away."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A member's message as a platform hands it over; everything that names somebody is a pseudonym already."""

    platform: str
    channel: ChannelKey
    member: MemberKey
    message_key: MessageKey
    text: str
    sent_at: datetime
    provenance: Provenance
    reply_to: MessageKey | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the channel's settings and the member's consent make of a turn."""

    voice: VoiceName
    mode: ChannelMode
    duels: bool
    system_prompt: str
    glossary: Sequence[GlossaryEntry]
    stored: bool
    """Whether the member's message is in the database now."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message and how its answer may be kept."""

    incoming: Incoming
    voice: VoiceName
    provenance: Provenance
    may_write_prompt: bool
    may_write_answer: bool

    @property
    def asked(self) -> Remembered:
        """The message as context for later turns."""
        one = self.incoming
        return Remembered("user", one.text, one.member, one.message_key, one.provenance, self.may_write_prompt)

    def answered(self, text: str) -> Remembered:
        """The answer as context for later turns."""
        one = self.incoming
        return Remembered("assistant", text, one.member, one.message_key, self.provenance, self.may_write_answer)


def exchange_of(incoming: Incoming, prepared: Prepared, context: Sequence[Remembered]) -> Exchange:
    """An answer may repeat what it has seen: it is written only where all of that was, and is as restricted."""
    saw_discord = any(one.provenance is Provenance.DISCORD_MESSAGE for one in context)
    return Exchange(
        incoming=incoming,
        voice=prepared.voice,
        provenance=Provenance.DISCORD_MESSAGE if saw_discord else incoming.provenance,
        may_write_prompt=prepared.stored,
        may_write_answer=prepared.stored and all(one.stored for one in context),
    )


# Built once: every turn needs it, and building a statement takes ten times as long as running it.
_CHANNEL_AND_VOICE = (
    sqlalchemy.select(  # type: ignore[call-overload]
        Channel.voice,
        Channel.mode,
        Channel.collect,
        Channel.duels,
        Voice.system_prompt,
        sqlalchemy.exists()
        .where(
            col(ConsentEvent.member) == sqlalchemy.bindparam("member"),
            col(ConsentEvent.channel) == col(Channel.key),
            col(ConsentEvent.purpose) == Purpose.STORE.value,
            col(ConsentEvent.granted),
        )
        .label("ever_agreed"),
    )
    .outerjoin(Voice, col(Voice.name) == col(Channel.voice))
    .where(col(Channel.key) == sqlalchemy.bindparam("key"))
)


class Records:
    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._votes = VoteOutbox(database, settings.data_dir)
        self._last: OrderedDict[ChannelKey, Prepared] = OrderedDict()

    def prepare(self, incoming: Incoming, at: datetime) -> Prepared:
        """Looks up what the turn needs and stores the member's message where channel and member allow it.

        While the database is away, a known channel is answered by its last known settings, and nothing is stored.
        """
        try:
            prepared = self._prepare(incoming, at)
        except StorageError as error:
            if incoming.channel not in self._last:
                raise
            log.warning("channel from memory", channel=incoming.channel, reason=str(error))
            return replace(self._last[incoming.channel], stored=False)
        self._last[incoming.channel] = prepared
        self._last.move_to_end(incoming.channel)
        if len(self._last) > KNOWN_CHANNELS:
            self._last.popitem(last=False)
        return prepared

    def _prepare(self, incoming: Incoming, at: datetime) -> Prepared:
        found = self._look_up(incoming, at)
        if found is None:
            self._meet(incoming, at)
            found = self._look_up(incoming, at)
        assert found is not None, "a channel that was just made is there"
        prepared, is_worth_trying = found
        return replace(prepared, stored=True) if is_worth_trying and self._store(incoming, at) else prepared

    def earlier(self, channel: ChannelKey, turns: int) -> list[Remembered]:
        """The end of the channel's stored talk: consenting members' messages that were answered, and the answers.

        Nothing while the database is away.
        """
        try:
            return self._earlier(channel, turns)
        except StorageError as error:
            log.warning("no earlier talk", channel=channel, reason=str(error))
            return []

    def _earlier(self, channel: ChannelKey, turns: int) -> list[Remembered]:
        with self._database.read() as session:
            messages = recent_messages(session, channel, turns)
            keys = [message.key for message in messages]
            answers = session.exec(select(Reply).where(col(Reply.prompt_key).in_(keys), col(Reply.text).is_not(None)))
            by_prompt = {reply.prompt_key: reply for reply in answers}
        said: list[Remembered] = []
        for row in messages:
            if answer := by_prompt.get(row.key):
                member, key = MemberKey(row.member), MessageKey(row.key)
                source, answer_source = Provenance(row.provenance), Provenance(answer.provenance)
                said.append(Remembered("user", row.text, member, key, source, stored=True))
                said.append(Remembered("assistant", answer.text or "", member, key, answer_source, stored=True))
        return said

    def reply(self, exchange: Exchange, adapter: AdapterName, text: str, at: datetime) -> int:
        """The id of the new reply, by which it is voted on."""
        incoming = exchange.incoming
        with self._database.write() as session:
            return record_reply(
                session,
                channel=incoming.channel,
                voice=exchange.voice,
                adapter=adapter,
                prompt_member=incoming.member,
                prompt_key=incoming.message_key,
                prompt=incoming.text if exchange.may_write_prompt else None,
                text=text if exchange.may_write_answer else None,
                provenance=exchange.provenance,
                policy_version=self._settings.policy_version,
                at=at,
            )

    def duel(
        self, exchange: Exchange, adapters: tuple[AdapterName, AdapterName], texts: tuple[str, str], at: datetime
    ) -> int:
        """The id of the new duel; adapters and texts are left, right."""
        incoming, write = exchange.incoming, exchange.may_write_answer
        with self._database.write() as session:
            return record_duel(
                session,
                channel=incoming.channel,
                voice=exchange.voice,
                prompt_member=incoming.member,
                prompt_key=incoming.message_key,
                prompt=incoming.text if exchange.may_write_prompt else None,
                left_adapter=adapters[0],
                right_adapter=adapters[1],
                left_text=texts[0] if write else None,
                right_text=texts[1] if write else None,
                provenance=exchange.provenance,
                policy_version=self._settings.policy_version,
                at=at,
            )

    def vote(self, reply_id: int, member: MemberKey, vote: Vote | None, at: datetime) -> None:
        """Sets the vote, or keeps it on disk until the database is back."""
        self._votes.cast(reply_id, member, vote, at)

    def duel_vote(self, duel_id: int, member: MemberKey, choice: DuelChoice, at: datetime) -> Duel:
        """The duel, which may be revealed now. Raises VoteWaits where the vote is kept but nothing can be looked up."""
        if not self._votes.cast_in_duel(duel_id, member, choice, at):
            raise VoteWaits("The database is away; the vote is kept and counted when it is back.")
        with self._database.read() as session:
            return session.get_one(Duel, duel_id)

    def write_waiting_votes(self) -> bool:
        """Whether no vote waits for the database any more."""
        return self._votes.flush()

    def _look_up(self, incoming: Incoming, at: datetime) -> tuple[Prepared, bool] | None:
        """The turn's settings and whether storing is worth trying (`ingest` decides); None for a new channel."""
        with self._database.read() as session:
            keys = {"key": incoming.channel, "member": incoming.member}
            row = session.connection().execute(_CHANNEL_AND_VOICE, keys).first()
            if row is None:
                return None
            if row.system_prompt is None:
                raise ConfigurationError(f"There is no voice `{row.voice}`; make it with `nocap init`.")
            voice, mode = VoiceName(row.voice), ChannelMode(row.mode)
            words = glossary(session, voice, at) if self._settings.chat.glossary_tokens else []
        prepared = Prepared(voice, mode, row.duels, row.system_prompt, words, stored=False)
        return prepared, row.collect and row.ever_agreed and mode is not ChannelMode.OFF

    def _meet(self, incoming: Incoming, at: datetime) -> None:
        with self._database.write() as session:
            ensure_channel(
                session,
                incoming.channel,
                platform=incoming.platform,
                label=None,
                voice=VoiceName(self._settings.voice),
                at=at,
            )

    def _store(self, incoming: Incoming, at: datetime) -> bool:
        message = NewMessage(
            key=incoming.message_key,
            channel=incoming.channel,
            member=incoming.member,
            provenance=incoming.provenance,
            sent_at=incoming.sent_at,
            text=incoming.text,
            reply_to=incoming.reply_to,
        )
        with self._database.write() as session:
            report = ingest(session, [message], policy_version=self._settings.policy_version, at=at)
        return report.added + report.duplicates > 0
