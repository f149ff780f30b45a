"""The running context of each channel: in memory, bounded, and never written from here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from nocap.domain import ChannelKey, ChatMessage, MemberKey, MessageKey, Provenance

CHANNELS = 2_000
"""Channels remembered at most; the one that was silent longest is dropped first."""
MESSAGE_CHARACTERS = 2_000
MEMBER_SHARE = 2 / 3
"""Of a channel's memory that one member's exchanges may fill while others take part."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A member's message or the bot's answer to it; `member` is whose exchange it is."""

    role: Literal["user", "assistant"]
    text: str
    member: MemberKey
    key: MessageKey | None
    """Of the member's message."""
    provenance: Provenance
    stored: bool
    """Whether it may be written; an answer that saw something that may not be is itself never written."""
    reply_to: MessageKey | None = None
    """What the member's message replied to."""
    posted: tuple[MessageKey, ...] = ()
    """The platform's messages that show this answer."""

    @property
    def as_turn(self) -> ChatMessage:
        return ChatMessage(self.role, self.text)


class ContextMemory:
    """Remembers the last `turns` messages of each channel."""

    def __init__(self, turns: int, channels: int = CHANNELS) -> None:
        self._turns = turns
        self._most_channels = channels
        self._channels: OrderedDict[ChannelKey, list[Remembered]] = OrderedDict()

    def knows(self, channel: ChannelKey) -> bool:
        return channel in self._channels

    def recall(self, channel: ChannelKey) -> tuple[Remembered, ...]:
        """What was said, oldest first."""
        return tuple(self._channels.get(channel, ()))

    def remember(self, channel: ChannelKey, said: Iterable[Remembered]) -> None:
        """Adds what was said just now; texts too long to be context are left out."""
        kept = [*self.recall(channel), *(one for one in said if len(one.text) <= MESSAGE_CHARACTERS)]
        self._channels[channel] = self._bounded(kept)
        self._channels.move_to_end(channel)
        while len(self._channels) > self._most_channels:
            self._channels.popitem(last=False)

    def chain(self, channel: ChannelKey, reply_to: MessageKey) -> tuple[Remembered, ...]:
        """The exchanges that lead to the message `reply_to`, oldest first; none where it is not remembered."""
        said = self.recall(channel)
        found: list[Remembered] = []
        target: MessageKey | None = reply_to
        while target is not None:
            exchange = _exchange_with(said, target)
            if not exchange or exchange[0] in found:
                break
            found[:0] = exchange
            target = exchange[0].reply_to
        return tuple(found)

    def posted(self, channel: ChannelKey, key: MessageKey, posted: tuple[MessageKey, ...]) -> None:
        """The answer to the member's message `key` stands in these messages."""
        if channel in self._channels:
            self._channels[channel] = [
                replace(one, posted=posted) if one.role == "assistant" and one.key == key else one
                for one in self._channels[channel]
            ]

    def forget_message(self, key: MessageKey) -> None:
        """Drops the member's message and the answer to it, wherever it was said."""
        for channel, said in self._channels.items():
            if any(one.key == key for one in said):
                self._channels[channel] = [one for one in said if one.key != key]

    def forget_channel(self, channel: ChannelKey) -> None:
        """Drops all that was said there; nothing older comes back from the database by itself."""
        if channel in self._channels:
            self._channels[channel] = []

    def forget_member(self, member: MemberKey, channel: ChannelKey | None = None) -> None:
        """Drops the member's exchanges, everywhere or in one channel."""
        for key in [channel] if channel is not None else list(self._channels):
            if key in self._channels:
                self._channels[key] = [one for one in self._channels[key] if one.member != member]

    def _bounded(self, said: list[Remembered]) -> list[Remembered]:
        if said and len({one.member for one in said}) > 1:
            newest = said[-1].member
            most = max(2, int(self._turns * MEMBER_SHARE))
            own = [index for index, one in enumerate(said) if one.member == newest]
            surplus = set(own[: max(0, len(own) - most)])
            said = [one for index, one in enumerate(said) if index not in surplus]
        return said[max(0, len(said) - self._turns) :]


def _exchange_with(said: tuple[Remembered, ...], target: MessageKey) -> list[Remembered]:
    """The member's message and the answer of which one is the message `target`."""
    keys = {one.key for one in said if one.key == target or target in one.posted}
    return [one for one in said if one.key in keys]
