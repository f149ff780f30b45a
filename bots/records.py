"""What a turn reads from the database and writes to it: synchronous, called off the event loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
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
from storage.channels import ensure_channel, get_channel
from storage.database import Database
from storage.feedback import cast_vote, present_vote, record_duel, record_reply
from storage.messages import NewMessage, delete_message, edit_message, ingest, recent_messages
from storage.outbox import VoteOutbox
from storage.posted import posted_reply, record_posted
from storage.slang import GlossaryEntry, blocked_terms, glossary
from storage.tables import Channel, ConsentEvent, Duel, Message, Reply, Voice

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
    thread: ChannelKey | None = None
    """A thread or forum topic: talk of its own under the channel's settings and consents."""
    quoted: Sequence[Remembered] = ()
    """What the platform says the message replies to, for where we do not remember it; oldest first."""
    label: str | None = None
    """The channel's name, for its moderators' lists."""

    @property
    def place(self) -> ChannelKey:
        """Where the talk is remembered."""
        return self.thread or self.channel


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the channel's settings and the member's consent make of a turn."""

    voice: VoiceName
    mode: ChannelMode
    duels: bool
    system_prompt: str
    glossary: Sequence[GlossaryEntry]
    blocked: Sequence[str]
    """Terms that a moderator has blocked: never said."""
    stored: bool
    """Whether the member's message is in the database now."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A channel as it is in the database; `may_store` says whether storing is worth trying (`ingest` decides)."""

    prepared: Prepared
    may_store: bool
    label: str | None


@dataclass(frozen=True, slots=True)
class Listening:
    """What a channel does with messages that are not for the bot."""

    mode: ChannelMode
    collects: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message and how its answer may be kept."""

    incoming: Incoming
    voice: VoiceName
    provenance: Provenance
    may_write_prompt: bool
    may_write_answer: bool
    blocked: Sequence[str]

    @property
    def asked(self) -> Remembered:
        """The message as context for later turns."""
        one = self.incoming
        return Remembered(
            "user", one.text, one.member, one.message_key, one.provenance, self.may_write_prompt, one.reply_to
        )

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
        blocked=prepared.blocked,
    )


# Built once: every turn needs it, and building a statement takes ten times as long as running it.
_CHANNEL_AND_VOICE = (
    sqlalchemy.select(  # type: ignore[call-overload]
        Channel.voice,
        Channel.mode,
        Channel.collect,
        Channel.duels,
        Channel.label,
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


_KNOWN = sqlalchemy.select(
    sqlalchemy.exists().where(col(Message.key) == sqlalchemy.bindparam("key"))
    | sqlalchemy.exists().where(col(Reply.prompt_key) == sqlalchemy.bindparam("key"))
    | sqlalchemy.exists().where(col(Duel.prompt_key) == sqlalchemy.bindparam("key"))
)

_ANSWERED = sqlalchemy.select(
    sqlalchemy.exists().where(col(Reply.prompt_key) == sqlalchemy.bindparam("key"))
    | sqlalchemy.exists().where(col(Duel.prompt_key) == sqlalchemy.bindparam("key"))
)


class Records:
    def __init__(self, database: Database, settings: Settings, voice: VoiceName) -> None:
        self._database = database
        self._settings = settings
        self._voice = voice
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
        if found is None or found.label != (incoming.label or found.label):
            self._meet(incoming, at)
            found = self._look_up(incoming, at)
        assert found is not None, "a channel that was just made is there"
        is_stored = found.may_store and self._store(incoming, at)
        return replace(found.prepared, stored=True) if is_stored else found.prepared

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

    def overhear(self, incoming: Incoming, at: datetime) -> bool:
        """Stores a message that is not for the bot where its channel collects and its author agreed."""
        found = self._look_up(incoming, at)
        return found is not None and found.may_store and self._store(incoming, at)

    def answered_by(self, posted: MessageKey) -> list[Remembered]:
        """The stored exchange whose answer the bot's message `posted` shows; [] where there is none."""
        with self._database.read() as session:
            reply_id = posted_reply(session, posted)
            row = session.get(Reply, reply_id) if reply_id is not None else None
            if row is None or row.prompt is None or row.text is None:
                return []
        member, source = MemberKey(row.prompt_member), Provenance(row.provenance)
        key = MessageKey(row.prompt_key) if row.prompt_key else None
        return [
            Remembered("user", row.prompt, member, key, source, stored=True),
            Remembered("assistant", row.text, member, key, source, stored=True, posted=(posted,)),
        ]

    def reply_of(self, posted: MessageKey) -> int | None:
        """The id of the answer that the bot's message shows."""
        with self._database.read() as session:
            return posted_reply(session, posted)

    def is_answered(self, key: MessageKey) -> bool:
        """Whether the message has been answered or fought over, by this process or an earlier one."""
        with self._database.read() as session:
            return bool(session.connection().execute(_ANSWERED, {"key": key}).scalar())

    def posted(self, reply_id: int, keys: Sequence[MessageKey]) -> None:
        with self._database.write() as session:
            record_posted(session, reply_id, keys)

    def delete(self, key: MessageKey, at: datetime) -> bool:
        """Erases the message and the texts of its answers, where any of them is here."""
        if not self._is_known(key):
            return False
        with self._database.write() as session:
            return delete_message(session, key, at)

    def edit(self, key: MessageKey, text: str, at: datetime) -> bool:
        if not self._is_known(key):
            return False
        with self._database.write() as session:
            return edit_message(session, key, text, at, drop_on_doubt=self._settings.privacy.drop_on_doubt)

    def _is_known(self, key: MessageKey) -> bool:
        with self._database.read() as session:
            return bool(session.connection().execute(_KNOWN, {"key": key}).scalar())

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

    def toggle_vote(self, reply_id: int, member: MemberKey, vote: Vote, at: datetime) -> Vote | None:
        """The member's vote afterwards: the new one, or none where it was this one already.

        While the database is away nobody knows what it was: the press sets it.
        """
        with suppress(StorageError):
            if not self._votes.waiting():
                with self._database.write() as session:
                    after = None if present_vote(session, reply_id, member) is vote else vote
                    cast_vote(session, reply_id, member, after, at)
                    return after
        self._votes.cast(reply_id, member, vote, at)
        return vote

    def withdraw_vote(self, reply_id: int, member: MemberKey, vote: Vote, at: datetime) -> None:
        """Takes the vote back where it is still this one; unseen while the database is away."""
        with suppress(StorageError):
            if not self._votes.waiting():
                with self._database.write() as session:
                    if present_vote(session, reply_id, member) in (vote, None):  # none yet where it waits elsewhere
                        cast_vote(session, reply_id, member, None, at)
                    return
        self._votes.cast(reply_id, member, None, at)

    def listening(self, channel: ChannelKey) -> Listening:
        """From memory while the database is away; nothing is collected then."""
        try:
            with self._database.read() as session:
                row = get_channel(session, channel)
        except StorageError:
            last = self._last.get(channel)
            return Listening(last.mode if last else ChannelMode.MENTION, collects=False)
        return Listening(ChannelMode(row.mode), row.collect) if row else Listening(ChannelMode.MENTION, collects=False)

    def duel_vote(self, duel_id: int, member: MemberKey, choice: DuelChoice, at: datetime) -> Duel:
        """The duel, which may be revealed now. Raises VoteWaits where the vote is kept but nothing can be looked up."""
        if not self._votes.cast_in_duel(duel_id, member, choice, at):
            raise VoteWaits("The database is away; the vote is kept and counted when it is back.")
        with self._database.read() as session:
            return session.get_one(Duel, duel_id)

    def _look_up(self, incoming: Incoming, at: datetime) -> _Found | None:
        """None for a new channel."""
        with self._database.read() as session:
            keys = {"key": incoming.channel, "member": incoming.member}
            row = session.connection().execute(_CHANNEL_AND_VOICE, keys).first()
            if row is None:
                return None
            if row.system_prompt is None:
                raise ConfigurationError(f"There is no voice `{row.voice}`; make it with `nocap init`.")
            voice, mode = VoiceName(row.voice), ChannelMode(row.mode)
            words = glossary(session, voice, at) if self._settings.chat.glossary_tokens else []
            blocked = blocked_terms(session, voice)
        prepared = Prepared(voice, mode, row.duels, row.system_prompt, words, blocked, stored=False)
        return _Found(prepared, row.collect and row.ever_agreed and mode is not ChannelMode.OFF, row.label)

    def _meet(self, incoming: Incoming, at: datetime) -> None:
        """The channel is known afterwards, by the name that it has now."""
        with self._database.write() as session:
            channel = ensure_channel(
                session,
                incoming.channel,
                platform=incoming.platform,
                label=incoming.label,
                voice=self._voice,
                at=at,
            )
            channel.label = incoming.label or channel.label

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
            report = ingest(
                session,
                [message],
                policy_version=self._settings.policy_version,
                at=at,
                drop_on_doubt=self._settings.privacy.drop_on_doubt,
            )
        return report.added + report.duplicates > 0
