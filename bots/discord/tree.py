"""The command tree: who is served at all, and what a failing command tells its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bots import messages
from bots.discord.replying import Said, answer, failure_of

if TYPE_CHECKING:
    from bots.discord.bot import NocapClient


class CommandTree(app_commands.CommandTree["NocapClient"]):
    async def interaction_check(self, interaction: discord.Interaction[NocapClient], /) -> bool:
        if self.client.serves(interaction.guild_id):
            return True
        await interaction.response.send_message(messages.NOT_SERVED, ephemeral=True)
        return False

    async def on_error(
        self, interaction: discord.Interaction[NocapClient], error: app_commands.AppCommandError, /
    ) -> None:
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        sentence = failure_of(interaction, cause)

        async def told() -> Said:
            return Said(sentence)

        await answer(interaction, told())
