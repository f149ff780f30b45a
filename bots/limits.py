"""Rate limits: token buckets per member, per channel and for everyone together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from nocap.domain import ChannelKey, MemberKey
from nocap.settings import ChatSettings

TRACKED_BUCKETS = 10_000
"""Buckets held at most; beyond it the full ones, which limit nobody, are dropped."""


class Limit(StrEnum):
    MEMBER = "member"
    CHANNEL = "channel"
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True)
class Limited:
    """Why a turn has to wait, and how long."""

    by: Limit
    wait_seconds: float
    was_told: bool
    """Whether the member heard so already and has not been let through since."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    told: bool = False


class RateLimits:
    """Lets through so many turns a minute, with a burst of the same size, by an injected monotonic clock."""

    def __init__(
        self,
        *,
        member_per_minute: float,
        channel_per_minute: float,
        everyone_per_minute: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = {
            Limit.MEMBER: member_per_minute,
            Limit.CHANNEL: channel_per_minute,
            Limit.EVERYONE: everyone_per_minute,
        }
        self._monotonic = monotonic
        self._buckets: dict[tuple[Limit, str], _Bucket] = {}

    @classmethod
    def of(cls, chat: ChatSettings, monotonic: Callable[[], float] = time.monotonic) -> RateLimits:
        return cls(
            member_per_minute=chat.turns_per_minute,
            channel_per_minute=chat.channel_turns_per_minute,
            everyone_per_minute=chat.total_turns_per_minute,
            monotonic=monotonic,
        )

    @classmethod
    def per_member(
        cls, most: float, *, per_seconds: float = 60.0, monotonic: Callable[[], float] = time.monotonic
    ) -> RateLimits:
        """`most` in `per_seconds`, for what costs nobody else anything, such as votes."""
        unlimited = 1e9
        return cls(
            member_per_minute=most,
            channel_per_minute=unlimited,
            everyone_per_minute=unlimited,
            monotonic=lambda: monotonic() * 60.0 / per_seconds,
        )

    def take(self, member: MemberKey, channel: ChannelKey, turns: int = 1) -> Limited | None:
        """None, and the turns are counted; or who has to wait, and nothing is counted."""
        now = self._monotonic()
        keys = [(Limit.EVERYONE, ""), (Limit.CHANNEL, str(channel)), (Limit.MEMBER, str(member))]
        buckets = [(key, self._refilled(key, now)) for key in keys]
        waits = {key[0]: (turns - one.tokens) * 60 / self._per_minute[key[0]] for key, one in buckets}
        by = max(waits, key=lambda limit: waits[limit])
        refused = waits[by] > 0
        for key, bucket in buckets:
            bucket.tokens -= 0 if refused else turns
            self._buckets[key] = bucket
        self._forget_full_ones(now)
        own = buckets[-1][1]
        was_told, own.told = own.told, refused
        return Limited(by, waits[by], was_told) if refused else None

    def _refilled(self, key: tuple[Limit, str], now: float) -> _Bucket:
        size = self._per_minute[key[0]]
        old = self._buckets.get(key)
        if old is None:
            return _Bucket(size, now)
        return _Bucket(min(size, old.tokens + (now - old.at) * size / 60), now, old.told)

    def _forget_full_ones(self, now: float) -> None:
        if len(self._buckets) > TRACKED_BUCKETS:
            fresh = {key: self._refilled(key, now) for key in self._buckets}
            kept = {key: one for key, one in fresh.items() if one.tokens < self._per_minute[key[0]]}
            self._buckets = dict(list(kept.items())[-TRACKED_BUCKETS // 2 :])
