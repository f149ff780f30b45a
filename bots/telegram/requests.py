"""How requests go out: within Telegram's limits, again where that is safe, and what a refusal means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import structlog
from telegram.error import BadRequest, NetworkError, RetryAfter, TelegramError, TimedOut
from telegram.ext import AIORateLimiter

Result = TypeVar("Result")
Callback = Callable[..., Coroutine[Any, Any, Any]]

RETRY_PAUSES_SECONDS = (0.5, 2.0, 8.0)
FLOOD_RETRIES = 5
FLOOD_MARGIN_SECONDS = 0.1
PER_MINUTE_AND_GROUP = 20.0
# Counted against the limits; reads, typing and drafts are not messages.
_COUNTED = ("send", "edit", "copy", "forward")
_FREE = ("sendChatAction", "sendMessageDraft")


class MessageLimiter(AIORateLimiter):
    """PTB's limiter, for what Telegram counts: else a typing indicator would use up a group's twenty messages.

    A chat that Telegram tells to wait holds back nobody else; PTB's own retries would stop every chat.
    """

    def __init__(self, per_second: float, per_minute_and_group: float = PER_MINUTE_AND_GROUP) -> None:
        super().__init__(overall_max_rate=per_second, group_max_rate=per_minute_and_group)
        self._waiting: dict[object, float] = {}
        """Until when (monotonic) each chat with a flood limit may not be sent to."""

    async def process_request(
        self,
        callback: Callback,
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: int | None,
    ) -> Any:
        if endpoint in _FREE or not endpoint.startswith(_COUNTED):
            return await callback(*args, **kwargs)
        chat_id = data.get("chat_id")
        group = chat_id if isinstance(chat_id, int) and chat_id < 0 else False
        for attempt in range(FLOOD_RETRIES + 1):
            await self._wait_for(chat_id)
            try:
                return await self._run_request(
                    chat=True, group=group, allow_paid_broadcast=False, callback=callback, args=args, kwargs=kwargs
                )
            except RetryAfter as flood:
                if attempt == FLOOD_RETRIES:
                    raise
                self._hold(chat_id, flood._retry_after.total_seconds() + FLOOD_MARGIN_SECONDS)
        raise AssertionError("the last try returns or raises")

    def _hold(self, chat: object, seconds: float) -> None:
        now = time.monotonic()
        self._waiting = {one: until for one, until in self._waiting.items() if until > now} | {chat: now + seconds}

    async def _wait_for(self, chat: object) -> None:
        await asyncio.sleep(self._waiting.get(chat, 0.0) - time.monotonic())


async def sent_once(request: Callable[[], Awaitable[Result]]) -> Result:
    """The request's result; tried again only where Telegram has surely not carried it out.

    A message whose answer was lost on the way may stand in the chat already, and none may stand there twice.
    """
    for pause_seconds in RETRY_PAUSES_SECONDS:
        try:
            return await request()
        except NetworkError as error:
            if not _never_arrived(error):
                raise
        await asyncio.sleep(pause_seconds)
    return await request()


async def if_possible(request: Awaitable[Result], what: str) -> Result | None:
    """The result, or None and a line in the log: for what is good to have and never worth an answer."""
    try:
        return await request
    except TelegramError as error:
        structlog.get_logger("bots").info("telegram refused", what=what, error=type(error).__name__, cause=str(error))
        return None


def _never_arrived(error: NetworkError) -> bool:
    if isinstance(error.__cause__, aiohttp.ClientError):
        return isinstance(error.__cause__, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return not isinstance(error, BadRequest | TimedOut)  # an answer of 5xx


def is_gone_prompt(error: BadRequest) -> bool:
    """The message that was to be replied to is not there any more."""
    return "replied not found" in error.message.lower()


def is_unchanged(error: BadRequest) -> bool:
    return "not modified" in error.message.lower()
