"""Which message of the bot in a chat shows which answer, and which runs were announced where."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col

from nocap.domain import MessageKey
from storage._sql import insert_missing
from storage.tables import Notice, Posted


def record_posted(session: Session, reply_id: int, keys: Iterable[MessageKey]) -> None:
    """The answer stands in these messages; a long one is in several."""
    insert_missing(session, Posted, [{"key": key, "reply_id": reply_id} for key in keys], key="key")


def posted_reply(session: Session, key: MessageKey) -> int | None:
    """The answer that the message shows; None for any other message."""
    row = session.get(Posted, key)
    return row.reply_id if row else None


def claim_notice(session: Session, key: str, at: datetime) -> bool:
    """Whether the caller is the first to announce `key`, and so the one who does."""
    return insert_missing(session, Notice, [{"key": key, "at": at}], key="key") == 1


def release_notice(session: Session, key: str) -> None:
    """It could not be announced after all; somebody may try again."""
    session.execute(delete(Notice).where(col(Notice.key) == key))
