"""What the bot sends into chats: messages, edits, drafts, typing; and what becomes of a chat that refuses them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog
from telegram import Bot, InlineKeyboardMarkup, InputFile, LinkPreviewOptions, Message, MessageEntity, ReplyParameters
from telegram.constants import ChatAction
from telegram.error import BadRequest, ChatMigrated, Forbidden, TelegramError

from bots.telegram.requests import if_possible, is_gone_prompt, is_unchanged, sent_once

TYPING_DELAY_SECONDS = 0.4
TYPING_SECONDS = 4.5
"""Telegram shows it for five."""
BUSY_PER_MINUTE = 8
"""Messages of ours in a group's last minute, of the twenty that Telegram allows, above which nothing is edited."""
CHATS_COUNTED = 2_000
_NO_PREVIEW = LinkPreviewOptions(is_disabled=True)
Migrated = Callable[[int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer goes; `thread_id` is the forum topic, `reply_to` the message that it answers."""

    chat_id: int
    thread_id: int | None = None
    is_private: bool = False
    reply_to: int | None = None


class PromptGone(Exception):
    """The message to be answered was deleted in the meantime."""


class Outbox:
    """`migrated` is told (old, new) when a group turns out to have become a supergroup."""

    def __init__(self, bot: Bot, migrated: Migrated) -> None:
        self._bot = bot
        self._migrated = migrated
        self._sent: OrderedDict[int, deque[float]] = OrderedDict()
        self._has_drafts = True
        self._typing: set[asyncio.Task[None]] = set()

    async def send(
        self,
        place: Place,
        text: str,
        entities: Sequence[MessageEntity] = (),
        markup: InlineKeyboardMarkup | None = None,
    ) -> Message | None:
        """The message; None where the chat no longer takes any. Raises PromptGone and TelegramError."""
        reply = ReplyParameters(place.reply_to) if place.reply_to is not None else None
        try:
            message = await sent_once(
                lambda: self._bot.send_message(
                    place.chat_id,
                    text,
                    entities=entities or None,
                    reply_markup=markup,
                    reply_parameters=reply,
                    message_thread_id=place.thread_id,
                    link_preview_options=_NO_PREVIEW,
                )
            )
        except ChatMigrated as moved:
            await self._migrated(place.chat_id, moved.new_chat_id)
            return await self.send(replace(place, chat_id=moved.new_chat_id, reply_to=None), text, entities, markup)
        except Forbidden as error:
            _log_refusal(error)
            return None
        except BadRequest as error:
            if is_gone_prompt(error):
                raise PromptGone from error
            _log_refusal(error)
            return None
        self._count(place.chat_id)
        return message

    async def edit(
        self,
        message: Message,
        text: str,
        entities: Sequence[MessageEntity] = (),
        markup: InlineKeyboardMarkup | None = None,
    ) -> bool:
        """Whether the message shows this now; False where it was deleted or the chat is closed to us."""
        try:
            await sent_once(
                lambda: self._bot.edit_message_text(
                    text,
                    message.chat_id,
                    message.message_id,
                    entities=entities or None,
                    reply_markup=markup,
                    link_preview_options=_NO_PREVIEW,
                )
            )
        except BadRequest as error:
            return is_unchanged(error)
        except (Forbidden, ChatMigrated) as error:
            _log_refusal(error)
            return False
        self._count(message.chat_id)
        return True

    async def send_file(self, chat_id: int, file: InputFile, caption: str) -> bool:
        """Whether the chat has taken the file."""
        try:
            await sent_once(lambda: self._bot.send_document(chat_id, file, caption=caption))
        except (Forbidden, BadRequest) as error:
            _log_refusal(error)
            return False
        return True

    async def draft(self, place: Place, text: str, entities: Sequence[MessageEntity]) -> bool:
        """Whether the private chat shows the draft; once refused, drafts are not tried again."""
        if self._has_drafts:
            drafting = self._bot.send_message_draft(
                place.chat_id, place.reply_to or 1, text, message_thread_id=place.thread_id, entities=entities or None
            )
            self._has_drafts = bool(await if_possible(drafting, "draft"))
        return self._has_drafts

    @asynccontextmanager
    async def typing(self, place: Place) -> AsyncIterator[None]:
        """The chat shows that the bot types until this ends; a quick answer needs no such thing.

        A request under way is not cut off, which would cost its connection.
        """
        is_over = asyncio.Event()
        task = asyncio.create_task(self._type(place, is_over))
        self._typing.add(task)
        task.add_done_callback(self._typing.discard)
        try:
            yield
        finally:
            is_over.set()

    async def _type(self, place: Place, is_over: asyncio.Event) -> None:
        pause_seconds = TYPING_DELAY_SECONDS
        while not await _happens(is_over, pause_seconds):
            action = self._bot.send_chat_action(place.chat_id, ChatAction.TYPING, message_thread_id=place.thread_id)
            await if_possible(action, "typing")
            pause_seconds = TYPING_SECONDS

    def is_busy(self, place: Place) -> bool:
        """Whether the group has had so many messages of ours in its last minute that edits must wait."""
        sent = self._sent.get(place.chat_id)
        return not place.is_private and sent is not None and _recent(sent) > BUSY_PER_MINUTE

    def _count(self, chat_id: int) -> None:
        if chat_id < 0:
            self._sent.setdefault(chat_id, deque(maxlen=BUSY_PER_MINUTE + 1)).append(time.monotonic())
            self._sent.move_to_end(chat_id)
            if len(self._sent) > CHATS_COUNTED:
                self._sent.popitem(last=False)


def _recent(sent: deque[float]) -> int:
    now = time.monotonic()
    return sum(now - at < 60 for at in sent)


def _log_refusal(error: TelegramError) -> None:
    """A chat that was left, closed, or in which we may not write; never an error of ours, never retried."""
    structlog.get_logger("bots").info("chat refuses", error=type(error).__name__, cause=str(error))


async def _happens(event: asyncio.Event, within_seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), within_seconds)
    except TimeoutError:
        return False
    return True
