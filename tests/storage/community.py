"""A small community in a database, for the storage tests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlmodel import Session

from nocap.domain import AdapterName, ChannelKey, MemberKey, MessageKey, Provenance, Purpose, VoiceName
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.feedback import record_reply
from storage.messages import NewMessage, ingest

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICY = "2026-11"
GENZ = VoiceName("genz")
FLAT = ChannelKey("flat")
ANA, BEN = MemberKey("ana"), MemberKey("ben")


def open_channel(session: Session, key: ChannelKey = FLAT, *, collect: bool = True) -> None:
    ensure_channel(session, key, platform="telegram", label=None, voice=GENZ, at=NOW, collect=collect)


def agree(
    session: Session,
    member: MemberKey,
    purposes: Iterable[Purpose] = tuple(Purpose),
    *,
    channel: ChannelKey = FLAT,
    granted: bool = True,
    policy: str = POLICY,
) -> None:
    record_consent(session, member, channel, list(purposes), granted, policy, NOW)


def answer(session: Session, member: MemberKey = ANA, prompt: str | None = None, text: str | None = None) -> int:
    """The id of an answer of the bare base to `member`."""
    return record_reply(
        session,
        channel=FLAT,
        voice=GENZ,
        adapter=AdapterName("base"),
        prompt_member=member,
        prompt_key=None,
        prompt=prompt,
        text=text,
        provenance=Provenance.TERMINAL,
        policy_version=POLICY,
        at=NOW,
    )


def message(
    key: str,
    member: MemberKey = ANA,
    text: str = "no cap",
    *,
    channel: ChannelKey = FLAT,
    provenance: Provenance = Provenance.TELEGRAM_MESSAGE,
    sent_at: datetime = NOW - timedelta(days=7),
    reply_to: str | None = None,
) -> NewMessage:
    answered = MessageKey(reply_to) if reply_to else None
    return NewMessage(MessageKey(key), channel, member, provenance, sent_at, text, answered)


def store(session: Session, *messages: NewMessage) -> None:
    report = ingest(session, messages, policy_version=POLICY, at=NOW)
    assert report.added == len(messages), report
