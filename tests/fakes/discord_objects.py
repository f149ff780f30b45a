"""What Discord's API and gateway speak of: users, servers, channels, messages, and what a test looks at afterwards."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

BOT, GUILD, GENERAL, RANDOM, CATEGORY, THREAD, PRIVATE_THREAD, DM = 1000, 1, 10, 11, 12, 13, 14, 20
FAR_GUILD, FAR = 1 << 22, 30
"""A second server, which belongs to the next shard, and its one channel."""
ADA, BEN, MOD, OPERATOR, OTHER_BOT = 100, 101, 102, 103, 104
ALL_PERMISSIONS, MEMBER_PERMISSIONS = "8", "104324673"
MANAGE_CHANNELS = str(int(MEMBER_PERMISSIONS) | 1 << 4)
EPOCH_MILLISECONDS = 1420070400000


@dataclass
class Seen:
    """A request that was made."""

    method: str
    path: str
    body: Any
    at: float
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Fault:
    """The next request to a path that matches is answered so."""

    path: str
    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass
class Session:
    """A gateway session; `sent` is kept for a resume."""

    id: str
    intents: int
    shard: tuple[int, int]
    socket: web.WebSocketResponse | None
    deflate: Any
    bot: int = BOT
    sequence: int = 0
    sent: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Interaction:
    """What became of one interaction."""

    id: str
    token: str
    channel_id: int
    created: float
    callback: dict[str, Any] | None = None
    answered_after: float | None = None
    message: dict[str, Any] | None = None
    followups: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """Every text that was shown, the first one as it stands now."""
        first = [self.message["content"]] if self.message else []
        return first + [one["content"] for one in self.followups]


class Objects:
    """The JSON of everything in one server and beside it."""

    def __init__(self) -> None:
        self.permissions: dict[int, str] = {MOD: MANAGE_CHANNELS}
        self.extra_channels: list[dict[str, Any]] = []
        self.names = {GENERAL: "general", RANDOM: "random", CATEGORY: "category"}
        self._ids = itertools.count((int(datetime.now(UTC).timestamp() * 1000) - EPOCH_MILLISECONDS) << 22, 1)

    def _roles(self) -> dict[int, int]:
        """A role of its own for everyone with special permissions: role id and holder."""
        return {9000 + user: user for user in self.permissions}

    def _guild(self, guild: int) -> dict[str, Any]:
        channels = [self._channel(one) for one in (GENERAL, RANDOM, CATEGORY)] + self.extra_channels
        roles = [role_json(guild, MEMBER_PERMISSIONS)]
        roles += [role_json(role, self.permissions[user]) for role, user in self._roles().items()]
        return {
            "id": str(guild),
            "name": "Guild",
            "owner_id": "1",
            "roles": roles,
            "emojis": [],
            "features": [],
            "channels": channels if guild == GUILD else [self._channel(FAR)],
            "threads": [self._channel(THREAD), self._channel(PRIVATE_THREAD)] if guild == GUILD else [],
            "members": [],
            "member_count": 5,
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "mfa_level": 0,
            "premium_tier": 0,
            "preferred_locale": "en-US",
            "nsfw_level": 0,
            "system_channel_flags": 0,
            "afk_timeout": 60,
            "large": False,
            "unavailable": False,
            "joined_at": now_iso(),
            "voice_states": [],
            "presences": [],
            "stickers": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }

    def _channel(self, channel: int) -> dict[str, Any]:
        if channel == DM:
            return {"id": str(DM), "type": 1, "recipients": [user_json(ADA)], "last_message_id": None, "flags": 0}
        base = {
            "id": str(channel),
            "guild_id": guild_of(channel),
            "name": self.names.get(channel, f"channel-{channel}"),
        }
        base |= {"flags": 0, "position": 0, "permission_overwrites": []}
        if channel == CATEGORY:
            return {**base, "type": 4}
        if channel in (THREAD, PRIVATE_THREAD):
            metadata = {
                "archived": False,
                "auto_archive_duration": 60,
                "archive_timestamp": now_iso(),
                "locked": False,
            }
            kind = 11 if channel == THREAD else 12
            counts = {"message_count": 0, "member_count": 1, "total_message_sent": 0, "rate_limit_per_user": 0}
            more = {"parent_id": str(GENERAL), "owner_id": str(ADA), "thread_metadata": metadata, **counts}
            return {**base, "type": kind, **more}
        return {
            **base,
            "type": 0,
            "parent_id": str(CATEGORY) if channel == RANDOM else None,
            "nsfw": False,
        }

    def _message(self, author: int, content: str, channel: int, **fields: Any) -> dict[str, Any]:
        message = {
            "id": self._id(),
            "channel_id": str(channel),
            "author": user_json(author),
            "content": content,
            "timestamp": now_iso(),
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "pinned": False,
            "type": 0,
            "flags": 0,
            "components": [],
            **fields,
        }
        if channel != DM:
            message |= {"guild_id": guild_of(channel), "member": member_json(author)}
        return message

    def _application(self) -> dict[str, Any]:
        return {
            "id": str(BOT),
            "name": "nocap",
            "icon": None,
            "description": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0",
            "flags": 1 << 19,
            "owner": user_json(OPERATOR),
            "team": None,
            "summary": "",
        }

    def _registered(self, command: dict[str, Any], index: int) -> dict[str, Any]:
        filled = {"id": str(5000 + index), "application_id": str(BOT), "version": "1", "description": ""}
        return {**filled, "dm_permission": True, "default_member_permissions": None, "nsfw": False, **command}

    def _id(self) -> str:
        return str(next(self._ids))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def guild_of(channel: int) -> str:
    return str(FAR_GUILD if channel == FAR else GUILD)


def belongs(data: dict[str, Any], session: Session) -> bool:
    """Whether an event is the session's to hear: private ones go to the first shard."""
    number, count = session.shard
    return (int(data.get("guild_id") or 0) >> 22) % count == number


def buttons(message: dict[str, Any]) -> dict[str, str]:
    """The message's buttons: label or emoji, and custom id."""
    found = [item for row in message.get("components", []) for item in row["components"]]
    return {one.get("label") or one["emoji"]["name"]: one["custom_id"] for one in found}


def user_json(user: int) -> dict[str, Any]:
    name = {BOT: "nocap", ADA: "ada", BEN: "ben", MOD: "mod", OPERATOR: "operator"}.get(user, "somebody")
    is_bot = user in (BOT, OTHER_BOT)
    return {"id": str(user), "username": name, "discriminator": "0", "global_name": name, "avatar": None, "bot": is_bot}


def member_json(user: int) -> dict[str, Any]:
    joined = {"joined_at": now_iso(), "premium_since": None, "deaf": False, "mute": False, "flags": 0}
    return {"user": user_json(user), "nick": None, "avatar": None, "roles": [], "pending": False, **joined}


def role_json(role: int, permissions: str) -> dict[str, Any]:
    look = {"color": 0, "hoist": False, "position": 0, "managed": False, "mentionable": False, "flags": 0}
    colors = {"primary_color": 0, "secondary_color": None, "tertiary_color": None}
    return {"id": str(role), "name": "role", "permissions": permissions, "colors": colors, **look}


def now_iso() -> str:
    return datetime.now(UTC).isoformat()
