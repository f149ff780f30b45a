"""A platform's own ids as pseudonyms: the same ones that imported exports get, so that both meet."""

from __future__ import annotations

from functools import lru_cache

from nocap.domain import ChannelKey, MemberKey, MessageKey
from storage.crypto import Keyring

REMEMBERED_KEYS = 8_192


class Identity:
    """One bot's view of its platform.

    `realm` sets the chats of a second voice apart: a chat has one voice, so two bots in it have two channels.
    """

    def __init__(self, keyring: Keyring, platform: str, realm: str = "") -> None:
        self.platform = platform
        self._keyring = keyring
        self._realm = f"/{realm}" if realm else ""
        self._lasting = lru_cache(maxsize=REMEMBERED_KEYS)(keyring.pseudonym)

    def member(self, user_id: int | str) -> MemberKey:
        return MemberKey(self._lasting("member", self.platform, str(user_id)))

    def channel(self, chat_id: int | str) -> ChannelKey:
        return ChannelKey(self._lasting("channel", self.platform, f"{chat_id}{self._realm}"))

    def message(self, chat_id: int | str, message_id: int | str) -> MessageKey:
        chat = f"{chat_id}{self._realm}"
        return MessageKey(self._keyring.pseudonym("message", self.platform, f"{len(chat)}:{chat}:{message_id}"))
