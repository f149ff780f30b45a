"""What moderators decide: each channel's settings, the glossary's review queue, reports, and purging a channel."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta

from sqlmodel import Session

from bots import staff_messages
from bots.callers import Caller, Right
from bots.desk import Desk
from nocap.domain import ChannelKey, ChannelMode, SlangStatus, VoiceName
from nocap.errors import InputError
from storage.audit import record_event
from storage.bursts import VoteBurst, vote_bursts
from storage.channels import ensure_channel, get_channel, set_channel
from storage.messages import ChannelPurge, purge_channel
from storage.registry import voice_names
from storage.reports import OpenReport, open_reports, settle_report
from storage.slang import FadingTerm, fading, set_status, terms
from storage.tables import Channel, SlangTerm

QUEUE_LENGTH = 10
MAX_GLOSS_CHARACTERS = 120
BURSTS_SHOWN = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Target:
    """A channel as its platform knows it."""

    key: ChannelKey
    label: str


@dataclass(frozen=True, slots=True)
class Change:
    """New settings for channels; None keeps what is there."""

    mode: ChannelMode | None = None
    collect: bool | None = None
    duels: bool | None = None
    voice: VoiceName | None = None

    def as_detail(self) -> dict[str, object]:
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) is not None}


class Moderation(Desk):
    """Every method raises NotPermitted for a caller who is no moderator of the chat; every change is audited."""

    async def change(self, caller: Caller, targets: Sequence[Target], change: Change) -> str:
        """Changes the settings of all targets in one transaction; they hold from the next message on."""
        caller.insist(Right.MODERATOR)
        if not targets:
            raise InputError("There is no channel in that choice; name a channel or a category with text channels.")
        rows = await asyncio.to_thread(self._change, caller, targets, change)
        if change.voice is not None:
            for target in targets:
                self._memory.forget_channel(target.key)
        return staff_messages.channels_changed(rows, targets, change.as_detail())

    async def status(self, caller: Caller, targets: Sequence[Target]) -> str:
        caller.insist(Right.MODERATOR)
        rows = await asyncio.to_thread(self._read, targets)
        return staff_messages.channel_status(rows, targets)

    async def voices(self) -> list[str]:
        """The voices a channel can be given."""
        return await asyncio.to_thread(self._voices)

    async def slang_queue(self, caller: Caller, channel: ChannelKey) -> tuple[str, list[str]]:
        """The terms that wait for a moderator, as text with those that fade, and by name."""
        caller.insist(Right.MODERATOR)
        waiting, fading_terms = await asyncio.to_thread(self._queue, channel)
        return staff_messages.slang_queue(waiting[:QUEUE_LENGTH], len(waiting), fading_terms), [
            one.term for one in waiting[:QUEUE_LENGTH]
        ]

    async def review_slang(
        self, caller: Caller, channel: ChannelKey, term: str, status: SlangStatus, gloss: str | None = None
    ) -> str:
        """Approves, blocks or dismisses a term. Raises InputError for an unknown one."""
        caller.insist(Right.MODERATOR)
        gloss = " ".join(gloss.split()) if gloss is not None else None
        if gloss is not None and len(gloss) > MAX_GLOSS_CHARACTERS:
            raise InputError(f"A meaning has at most {MAX_GLOSS_CHARACTERS} characters; that one has {len(gloss)}.")
        return await asyncio.to_thread(self._review, caller, channel, term.strip(), status, gloss)

    async def reports(self, caller: Caller, channels: Collection[ChannelKey]) -> tuple[str, list[int]]:
        """The open reports of `channels`, as text and one id each; and what votes of the last days look arranged."""
        caller.insist(Right.MODERATOR)
        entries, bursts = await asyncio.to_thread(self._reports, channels)
        return staff_messages.report_queue(entries, bursts), [one.ids[0] for one in entries]

    async def settle_report(
        self, caller: Caller, report_id: int, channels: Collection[ChannelKey], verdict: str
    ) -> str:
        """Closes the report and those on the same answer. Raises InputError where it is not open in `channels`."""
        caller.insist(Right.MODERATOR)
        await asyncio.to_thread(self._settle, caller, report_id, channels, verdict)
        return staff_messages.report_settled(report_id, verdict)

    async def purge(self, caller: Caller, target: Target) -> str:
        """Erases every stored text of the channel."""
        caller.insist(Right.MODERATOR)
        self._memory.forget_channel(target.key)
        purged = await asyncio.to_thread(self._purge, caller, target)
        self._memory.forget_channel(target.key)
        return staff_messages.purged(target.label, purged)

    def _change(self, caller: Caller, targets: Sequence[Target], change: Change) -> list[Channel]:
        detail, at = change.as_detail(), self._clock()
        with self._database.write() as session:
            if change.voice is not None and change.voice not in (known := voice_names(session)):
                raise InputError(f"There is no voice “{change.voice}”; there is {', '.join(known)}.")
            for target in targets:
                row = self._ensured(session, caller, target)
                row.label = target.label
                set_channel(session, target.key, **detail)  # type: ignore[arg-type]
                record_event(session, caller.actor, "set_channel", target.key, detail, at)
            return [session.get_one(Channel, target.key) for target in targets]

    def _read(self, targets: Sequence[Target]) -> list[Channel]:
        with self._database.read() as session:
            return [get_channel(session, target.key) or self._fresh(target) for target in targets]

    def _voices(self) -> list[str]:
        with self._database.read() as session:
            return [str(name) for name in voice_names(session)]

    def _queue(self, channel: ChannelKey) -> tuple[list[SlangTerm], list[FadingTerm]]:
        with self._database.read() as session:
            voice = self._voice_of(session, channel)
            return terms(session, voice, SlangStatus.CANDIDATE), fading(session, voice)

    def _review(self, caller: Caller, channel: ChannelKey, term: str, status: SlangStatus, gloss: str | None) -> str:
        with self._database.write() as session:
            voice = self._voice_of(session, channel)
            row = set_status(session, voice, term, status, gloss, actor=caller.actor, at=self._clock())
            return staff_messages.slang_reviewed(row)

    def _reports(self, channels: Collection[ChannelKey]) -> tuple[list[OpenReport], list[VoteBurst]]:
        since = self._clock() - BURSTS_SHOWN
        with self._database.read() as session:
            return open_reports(session, channels, QUEUE_LENGTH), vote_bursts(session, channels, since)[:QUEUE_LENGTH]

    def _settle(self, caller: Caller, report_id: int, channels: Collection[ChannelKey], verdict: str) -> None:
        with self._database.write() as session:
            settle_report(session, report_id, channels, actor=caller.actor, verdict=verdict, at=self._clock())

    def _purge(self, caller: Caller, target: Target) -> ChannelPurge:
        at = self._clock()
        with self._database.write() as session:
            purged = purge_channel(session, target.key, at)
            detail = {"messages": purged.messages, "replies": purged.replies, "duels": purged.duels}
            record_event(session, caller.actor, "purge_channel", target.key, detail, at)
            return purged

    def _ensured(self, session: Session, caller: Caller, target: Target) -> Channel:
        return ensure_channel(
            session, target.key, platform=caller.platform, label=target.label, voice=self._voice, at=self._clock()
        )

    def _fresh(self, target: Target) -> Channel:
        """What a channel that nobody has spoken in yet will be."""
        return Channel(key=target.key, platform="", label=target.label, voice=self._voice, created_at=self._clock())
