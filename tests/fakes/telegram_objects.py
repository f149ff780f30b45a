"""Who and what there is on Telegram: people, chats, bots, calls, and the faults of the line."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
NOW = 1_795_000_000


@dataclass(frozen=True)
class Call:
    """A request as it came."""

    method: str
    params: Json
    token: str
    at: float

    @property
    def text(self) -> str:
        return str(self.params.get("text", ""))


@dataclass(frozen=True)
class Fault:
    """The next request of its method is answered so instead."""

    status: int
    description: str = "no"
    retry_after: int | None = None
    migrate_to: int | None = None
    is_lost: bool = False
    """It is carried out, and the connection breaks before the answer."""
    chat_id: int | None = None
    """Only where the request is for this chat."""


@dataclass
class Person:
    id: int
    first_name: str
    username: str | None = None
    is_bot: bool = False

    @property
    def as_json(self) -> Json:
        named = {"username": self.username} if self.username else {}
        return {"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name, **named}


@dataclass
class Chat:
    id: int
    type: str
    title: str | None = None
    is_forum: bool = False
    members: dict[int, str] = field(default_factory=dict)
    """User id to status: creator, administrator, member, left, kicked."""
    messages: dict[int, Json] = field(default_factory=dict)
    """What stands in the chat now, by message id."""
    migrated_to: int | None = None

    @property
    def as_json(self) -> Json:
        named = {"title": self.title} if self.title is not None else {}
        return {"id": self.id, "type": self.type, **named, **({"is_forum": True} if self.is_forum else {})}


class FakeBot:
    """One token's account: its updates that nobody has fetched, and its webhook."""

    def __init__(self, person: Person, *, reads_all: bool) -> None:
        self.person = person
        self.reads_all = reads_all
        self.pending: deque[Json] = deque()
        self.allowed: list[str] | None = None
        self.arrived = asyncio.Event()
        self.webhook: str | None = None
        self.secret: str | None = None
        self.blocked_by: set[int] = set()
        self.started_by: set[int] = set()


def buttons(message: Json) -> list[Json]:
    return [one for row in message.get("reply_markup", {}).get("inline_keyboard", []) for one in row]


def button(message: Json, label: str) -> Json:
    return next(one for one in buttons(message) if label in one["text"])


def member_json(person: Person, status: str) -> Json:
    member: Json = {"user": person.as_json, "status": status}
    if status == "administrator":
        rights = ("can_be_edited", "is_anonymous", "can_manage_chat", "can_delete_messages", "can_manage_video_chats")
        more = ("can_restrict_members", "can_promote_members", "can_change_info", "can_invite_users")
        member |= dict.fromkeys((*rights, *more, "can_post_stories", "can_edit_stories", "can_delete_stories"), True)
    if status == "creator":
        member["is_anonymous"] = False
    if status == "kicked":
        member["until_date"] = 0
    return member
