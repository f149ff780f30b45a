"""The members' slash commands and context menus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bots import messages
from bots.discord.buttons import consent_view, duel_view, erase_view
from bots.discord.replying import Said, answer
from bots.discord.showing import following, log_refused
from bots.turn import Outcome, Turn

if TYPE_CHECKING:
    from bots.discord.bot import NocapClient
    from bots.records import Incoming

Interaction = discord.Interaction
QUOTED_CHARACTERS = 300
Text = app_commands.Range[str, 1, 2000]


def add_member_commands(client: NocapClient) -> None:
    """Adds everything that every member may use."""
    core, tree, reader = client.core, client.tree, client.reader

    @tree.command(description="Ask me something")
    @app_commands.describe(text="What you want to say")
    async def ask(interaction: Interaction, text: Text) -> None:
        await _converse(client, interaction, reader.submitted(interaction, text, core.conversation.clock()))

    @tree.command(description="Two hidden voices answer; you pick the better one")
    @app_commands.describe(text="What they should answer")
    async def duel(interaction: Interaction, text: Text) -> None:
        await interaction.response.defer(thinking=True)
        incoming = reader.submitted(interaction, text, core.conversation.clock())
        drawn = await core.conversation.duel(incoming)
        if isinstance(drawn, Turn):
            await _show(client, interaction, incoming, drawn)
            return
        shown = messages.duel_text(drawn.left, drawn.right)
        await following(interaction).show(shown, duel_view(drawn.duel_id), prefix=_quote(text))

    @tree.command(description="What you may agree to here, and what you have agreed to")
    async def consent(interaction: Interaction) -> None:
        async def overview() -> Said:
            channel = client.settings_channel(interaction)
            member = reader.identity.member(interaction.user.id)
            text, state = await core.commands.consent_overview(member, channel)
            return Said(text, consent_view(channel, state, core.commands.minimum_age))

        await answer(interaction, overview())

    @tree.command(description="What is kept about you and what isn't")
    async def privacy(interaction: Interaction) -> None:
        await answer(interaction, _said(core.commands.privacy()))

    @tree.command(description="What I can do")
    async def help(interaction: Interaction) -> None:
        await answer(interaction, _said(messages.HELP_IN_CHAT))

    @tree.command(description="What I learnt last, and what was refused and why")
    async def whatsnew(interaction: Interaction) -> None:
        await answer(interaction, core.commands.whatsnew(client.settings_channel(interaction)))

    @tree.command(description="Tell this chat's moderators about me")
    @app_commands.describe(reason="What went wrong")
    async def report(interaction: Interaction, reason: app_commands.Range[str, 1, 500]) -> None:
        member = reader.identity.member(interaction.user.id)
        channel = client.settings_channel(interaction)
        await answer(interaction, core.commands.report(member, channel, None, reason))

    mydata = app_commands.Group(name="mydata", description="Everything held about you")

    @mydata.command(description="A file with everything held about you")
    async def export(interaction: Interaction) -> None:
        async def exported() -> Said:
            held = await core.commands.export(reader.identity.member(interaction.user.id))
            return Said(messages.exported("this file"), file=("nocap-mydata.json", held))

        await answer(interaction, exported())

    @mydata.command(description="Erase your texts and votes everywhere, for good")
    async def delete(interaction: Interaction) -> None:
        async def asked() -> Said:
            return Said(messages.ERASE_ASK, erase_view())

        await answer(interaction, asked())

    tree.add_command(mydata)

    @tree.context_menu(name="Ask nocap about this")
    async def ask_about(interaction: Interaction, message: discord.Message) -> None:
        now = core.conversation.clock()
        await _converse(client, interaction, reader.about(interaction, message, messages.ASK_ABOUT, now))

    @tree.context_menu(name="Report to moderators")
    async def report_answer(interaction: Interaction, message: discord.Message) -> None:
        async def reported() -> str:
            reply_id = await core.conversation.reply_of(reader.message_key(message.channel.id, message.id))
            if reply_id is None:
                return messages.UNKNOWN_REPLY
            member = reader.identity.member(interaction.user.id)
            return await core.commands.report(member, client.settings_channel(interaction), reply_id)

        await answer(interaction, reported())


async def _converse(client: NocapClient, interaction: Interaction, incoming: Incoming) -> None:
    await interaction.response.defer(thinking=True)
    await _show(client, interaction, incoming, await client.core.conversation.turn(incoming))


async def _show(client: NocapClient, interaction: Interaction, incoming: Incoming, turn: Turn) -> None:
    """Shows the answer to a command, with the question above it, which Discord itself does not show."""
    display, prefix = following(interaction), _quote(incoming.text)
    try:
        if turn.outcome is Outcome.SILENT:
            await turn.aclose()
            await display.show(messages.CHANNEL_OFF)
            return
        await client.stream(turn, display, prefix=prefix)
        await client.finish(incoming, turn, display, prefix=prefix)
    except discord.HTTPException as error:
        log_refused("command", error)


def _quote(text: str) -> str:
    flat = " ".join(text.split())
    return f"> {flat if len(flat) <= QUOTED_CHARACTERS else f'{flat[: QUOTED_CHARACTERS - 1]}…'}\n"


async def _said(text: str) -> str:
    return text
