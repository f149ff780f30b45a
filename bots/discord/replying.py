"""Interactions answered in time: at once where it is quick, deferred before Discord's three seconds are over."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import discord

from bots import messages
from bots.discord.showing import LIMIT_CHARACTERS, NO_MENTIONS, log_refused, persistently
from bots.incidents import report_incident
from bots.splitting import split
from nocap.domain import ChannelKey
from nocap.errors import NocapError

PATIENCE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answers, for its caller's eyes only."""

    text: str
    view: discord.ui.View | None = None
    file: tuple[str, str] | None = None
    """Name and text of a file."""


async def answer(interaction: discord.Interaction, work: Awaitable[Said | str], *, replaces: bool = False) -> None:
    """Does the work and tells the caller, in private; a failure is told in one sentence.

    `replaces` puts the answer where the pressed button was.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    try:
        if not done and not interaction.response.is_done():
            await interaction.response.defer(ephemeral=True, thinking=not replaces)
        said = await _outcome(interaction, task)
        await _tell(interaction, said, replaces)
    except discord.HTTPException as error:
        log_refused("answer", error)


async def _outcome(interaction: discord.Interaction, task: asyncio.Future[Said | str]) -> Said:
    try:
        said = await task
    except Exception as error:
        return Said(failure_of(interaction, error))
    return said if isinstance(said, Said) else Said(said)


def failure_of(interaction: discord.Interaction, error: Exception) -> str:
    """The sentence for whoever asked; unforeseen causes go to the log, under an id."""
    incident = report_incident("command", error, ChannelKey(""))
    return messages.refusal(error, incident) if isinstance(error, NocapError) else messages.failure(error, incident)


async def _tell(interaction: discord.Interaction, said: Said, replaces: bool) -> None:
    first, *rest = split(said.text, LIMIT_CHARACTERS) or ["-"]
    options: dict[str, Any] = {"allowed_mentions": NO_MENTIONS}
    if said.file is not None:
        name, content = said.file
        options["file"] = discord.File(io.BytesIO(content.encode()), filename=name)
    if said.view is not None:
        options["view"] = said.view
    response = interaction.response
    if replaces and not response.is_done():
        await response.edit_message(content=first, view=said.view, allowed_mentions=NO_MENTIONS)
    elif replaces:
        await interaction.edit_original_response(content=first, view=said.view, allowed_mentions=NO_MENTIONS)
    elif not response.is_done():
        await response.send_message(first, ephemeral=True, **options)
    else:
        await interaction.followup.send(first, ephemeral=True, **options)
    for part in rest:
        await persistently(
            lambda part=part: interaction.followup.send(part, ephemeral=True, allowed_mentions=NO_MENTIONS)  # type: ignore[misc]
        )
