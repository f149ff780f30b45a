"""Showing an answer: typing, a message that grows by edits, parts of 2,000 characters, and buttons under the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import discord
import structlog

from bots.splitting import split

LIMIT_CHARACTERS = 2000
TYPING_AFTER_SECONDS = 0.1
"""A quicker answer needs no "is typing", which would be a second request for each."""
TYPING_SECONDS = 8.0
"""Discord shows "is typing" for ten seconds."""
TRIES = 4
NO_MENTIONS = discord.AllowedMentions.none()

Result = TypeVar("Result")
Send = Callable[..., Awaitable[discord.Message]]


class Display:
    """The messages that show one answer; `show` makes them say a text, by as few requests as it takes."""

    def __init__(self, send_first: Send, send_next: Send, shown: discord.Message | None = None) -> None:
        self._send_first = send_first
        self._send_next = send_next
        self.shown: list[discord.Message] = [shown] if shown is not None else []
        self._texts: list[str] = [shown.content] if shown is not None else []

    async def show(self, text: str, view: discord.ui.View | None = None, *, prefix: str = "") -> None:
        """Raises discord.HTTPException where the channel does not let the bot speak."""
        parts = split(prefix + text, LIMIT_CHARACTERS)
        for index, part in enumerate(parts):
            last_view = view if index == len(parts) - 1 else None
            if index >= len(self.shown):
                await self._send(part, last_view)
            elif self._texts[index] != part or last_view is not None:
                await self._edit(index, part, last_view)
        while len(self.shown) > len(parts):
            message = self.shown.pop()
            self._texts.pop()
            await persistently(message.delete)

    async def withdraw(self) -> None:
        """Takes back whatever is shown."""
        for message in self.shown:
            with contextlib.suppress(discord.HTTPException):
                await message.delete()

    async def _send(self, part: str, view: discord.ui.View | None) -> None:
        send = self._send_next if self.shown else self._send_first
        options: dict[str, Any] = {"allowed_mentions": NO_MENTIONS, "suppress_embeds": True}
        if view is not None:
            options["view"] = view
        self.shown.append(await persistently(lambda: send(part, **options)))
        self._texts.append(part)

    async def _edit(self, index: int, part: str, view: discord.ui.View | None) -> None:
        message = self.shown[index]
        await persistently(lambda: message.edit(content=part, view=view, allowed_mentions=NO_MENTIONS))
        self._texts[index] = part


async def persistently(request: Callable[[], Awaitable[Result]]) -> Result:
    """The request's result, however often the server says "too many": discord.py gives up on 429s of a proxy."""
    for attempt in range(TRIES):
        try:
            return await request()
        except discord.HTTPException as error:
            if error.status != 429 or attempt == TRIES - 1:
                raise
            await asyncio.sleep(retry_after_seconds(error, 2.0**attempt))
    raise AssertionError("the last try returns or raises")


def retry_after_seconds(error: discord.HTTPException, otherwise: float) -> float:
    """What the refusal asks for, at most a minute."""
    headers = getattr(error.response, "headers", {})
    try:
        return min(60.0, max(0.05, float(headers.get("Retry-After", otherwise))))
    except ValueError:
        return otherwise


def answering(message: discord.Message, shown: discord.Message | None = None) -> Display:
    """Replies to a member's message, without a ping; plainly where it has gone or may not be replied to."""

    async def reply(text: str, **options: Any) -> discord.Message:
        reference = message.to_reference(fail_if_not_exists=False)
        try:
            return await message.channel.send(text, reference=reference, mention_author=False, **options)
        except discord.HTTPException as error:
            if error.code not in (50035, 160002):  # the reference is what is refused
                raise
            return await message.channel.send(text, **options)

    return Display(reply, message.channel.send, shown)


def following(interaction: discord.Interaction) -> Display:
    """Answers a deferred command."""

    async def first(text: str, **options: Any) -> discord.Message:
        options.pop("suppress_embeds")
        return await interaction.edit_original_response(content=text, **options)

    async def then(text: str, **options: Any) -> discord.Message:
        return await interaction.followup.send(text, wait=True, **options)

    return Display(first, then)


@asynccontextmanager
async def typing(channel: discord.abc.Messageable) -> AsyncIterator[None]:
    """Shows "is typing" while entered; where that is refused, nothing happens."""

    async def keep_typing() -> None:
        await asyncio.sleep(TYPING_AFTER_SECONDS)
        while True:
            with contextlib.suppress(discord.HTTPException, OSError):
                await _type_once(channel)
            await asyncio.sleep(TYPING_SECONDS)

    task = asyncio.create_task(keep_typing())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _type_once(channel: discord.abc.Messageable) -> None:
    """One request, unlike discord.py's context manager, which fails the answer where typing is refused."""
    target = await channel._get_channel()
    await target._state.http.send_typing(target.id)


def log_refused(during: str, error: discord.HTTPException) -> None:
    """What a channel did not let the bot do; members are not to blame, and nobody can be told there."""
    structlog.get_logger("bots.discord").warning("refused", during=during, status=error.status, code=error.code)
