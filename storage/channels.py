"""Chats and their settings."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, select

from nocap.domain import ChannelKey, ChannelMode, VoiceName
from nocap.errors import InputError
from storage._sql import insert_missing
from storage.audit import record_event
from storage.tables import Channel, MovedChannel


def ensure_channel(
    session: Session,
    key: ChannelKey,
    *,
    platform: str,
    label: str | None,
    voice: VoiceName,
    at: datetime,
    collect: bool = False,
) -> Channel:
    """The channel, made with these values where there is none; an existing one keeps its own."""
    channel = get_channel(session, key)
    if channel is not None:
        return channel
    row = Channel(key=key, platform=platform, label=label, voice=voice, collect=collect, created_at=at)
    insert_missing(session, Channel, [row.model_dump()], key="key")
    return session.get_one(Channel, key)


def get_channel(session: Session, key: ChannelKey) -> Channel | None:
    return session.get(Channel, key)


def set_channel(
    session: Session,
    key: ChannelKey,
    *,
    mode: ChannelMode | None = None,
    collect: bool | None = None,
    duels: bool | None = None,
    voice: VoiceName | None = None,
) -> Channel:
    """The channel with the given settings changed. Raises InputError where it is unknown."""
    channel = get_channel(session, key)
    if channel is None:
        raise InputError(f"There is no channel {key}; it becomes known with its first message to the bot.")
    changes = {"mode": mode, "collect": collect, "duels": duels, "voice": voice}
    for name, value in changes.items():
        if value is not None:
            setattr(channel, name, value)
    session.flush()
    return channel


def move_channel(session: Session, old: ChannelKey, new: ChannelKey, at: datetime) -> bool:
    """The chat has the key `new` on its platform from now on, and stays the channel `old`; False if it was known."""
    channel = moved_channels(session).get(old, old)
    if insert_missing(session, MovedChannel, [{"key": new, "channel": channel}], key="key") == 0:
        return False
    record_event(session, "platform", "move_channel", channel, {"key": new}, at)
    return True


def moved_channels(session: Session) -> dict[ChannelKey, ChannelKey]:
    """The channel that each moved chat's present key stands for."""
    return {ChannelKey(row.key): ChannelKey(row.channel) for row in session.exec(select(MovedChannel))}
