"""Moderators' and operators' slash commands, and the glossary's, part of which is the moderators'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import discord
from discord import app_commands

from bots import staff_messages
from bots.discord.buttons import confirm_view, purge_view, reports_view, slang_view
from bots.discord.reading import may_moderate
from bots.discord.replying import Said, answer
from bots.moderation import Change, Target
from nocap.domain import ChannelMode, RunId, SlangStatus, VoiceName
from nocap.errors import InputError, NotPermitted

if TYPE_CHECKING:
    from bots.callers import Caller
    from bots.discord.bot import NocapClient

Interaction = discord.Interaction
Where = (
    discord.TextChannel
    | discord.ForumChannel
    | discord.CategoryChannel
    | discord.Thread
    | discord.VoiceChannel
    | discord.StageChannel
)
WHERE = "A channel, or a category for all its channels; this channel if left out"
OnOff = Literal["on", "off"]


def add_staff_commands(client: NocapClient) -> None:
    """Adds what moderators and operators may use; Discord hides it from others, and the core asks again."""
    client.tree.add_command(_channel_group(client))
    client.tree.add_command(_slang_group(client))
    client.tree.add_command(_operator_group(client))
    _add_reports(client)


def _channel_group(client: NocapClient) -> app_commands.Group:
    group = app_commands.Group(
        name="channel",
        description="What I do in a channel (moderators)",
        default_permissions=discord.Permissions(manage_channels=True),
    )
    moderation = client.core.moderation

    async def change(interaction: Interaction, where: Where | None, what: Change) -> None:
        async def changed() -> str:
            caller, targets = _targets(client, interaction, where)
            return await moderation.change(caller, targets, what)

        await answer(interaction, changed())

    @group.command(description="Answer here when addressed")
    @app_commands.describe(where=WHERE)
    async def enable(interaction: Interaction, where: Where | None = None) -> None:
        await change(interaction, where, Change(mode=ChannelMode.MENTION))

    @group.command(description="Say nothing here")
    @app_commands.describe(where=WHERE)
    async def disable(interaction: Interaction, where: Where | None = None) -> None:
        await change(interaction, where, Change(mode=ChannelMode.OFF))

    @group.command(description="When to answer here")
    @app_commands.describe(mode="When addressed, to everything, or never", where=WHERE)
    async def mode(
        interaction: Interaction, mode: Literal["mention", "always", "off"], where: Where | None = None
    ) -> None:
        await change(interaction, where, Change(mode=ChannelMode(mode)))

    @group.command(description="Whether messages of members who said yes may be stored here")
    @app_commands.describe(collect="Members still have to agree one by one", where=WHERE)
    async def collect(interaction: Interaction, collect: OnOff, where: Where | None = None) -> None:
        await change(interaction, where, Change(collect=collect == "on"))

    @group.command(description="Whether /duel works here")
    @app_commands.describe(duels="On or off", where=WHERE)
    async def duels(interaction: Interaction, duels: OnOff, where: Where | None = None) -> None:
        await change(interaction, where, Change(duels=duels == "on"))

    @group.command(description="Which voice to speak in here")
    @app_commands.describe(voice="Its name", where=WHERE)
    async def voice(interaction: Interaction, voice: str, where: Where | None = None) -> None:
        await change(interaction, where, Change(voice=VoiceName(voice)))

    @voice.autocomplete("voice")
    async def voices(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        names = await moderation.voices()
        return [app_commands.Choice(name=name, value=name) for name in names if current in name][:25]

    @group.command(description="What I do here")
    @app_commands.describe(where=WHERE)
    async def status(interaction: Interaction, where: Where | None = None) -> None:
        async def told() -> str:
            caller, targets = _targets(client, interaction, where)
            return await moderation.status(caller, targets)

        await answer(interaction, told())

    @group.command(description="Erase everything stored from a channel, for good")
    @app_commands.describe(where=WHERE)
    async def purge(interaction: Interaction, where: Where | None = None) -> None:
        async def asked() -> Said:
            caller, targets = _targets(client, interaction, where)
            if len(targets) != 1:
                raise InputError("Purging is one channel at a time; name a channel, not a category.")
            del caller  # the press asks for it again
            channel_id = where.id if where is not None else _here(interaction).id
            return Said(staff_messages.PURGE_ASK.format(label=targets[0].label), purge_view(channel_id))

        await answer(interaction, asked())

    return group


def _slang_group(client: NocapClient) -> app_commands.Group:
    group = app_commands.Group(name="slang", description="This community's words")
    commands, moderation, reader = client.core.commands, client.core.moderation, client.reader

    @group.command(description="What a word means here, since when, and how fresh it is")
    @app_commands.describe(word="The word")
    async def term(interaction: Interaction, word: app_commands.Range[str, 1, 80]) -> None:
        await answer(interaction, commands.slang(client.settings_channel(interaction), word))

    @group.command(description="The freshest words")
    async def trending(interaction: Interaction) -> None:
        await answer(interaction, commands.slang(client.settings_channel(interaction)))

    async def review(interaction: Interaction, word: str, status: SlangStatus, gloss: str | None = None) -> None:
        caller, channel = reader.caller(interaction), client.settings_channel(interaction)
        await answer(interaction, moderation.review_slang(caller, channel, word, status, gloss))

    @group.command(description="Moderators: let me use a word")
    @app_commands.describe(word="The word", meaning="What it means, in a few words")
    async def approve(interaction: Interaction, word: str, meaning: str | None = None) -> None:
        await review(interaction, word, SlangStatus.APPROVED, meaning)

    @group.command(description="Moderators: never let me say a word")
    @app_commands.describe(word="The word")
    async def block(interaction: Interaction, word: str) -> None:
        await review(interaction, word, SlangStatus.BLOCKED)

    @group.command(description="Moderators: a word that is no slang; I may say it")
    @app_commands.describe(word="The word")
    async def dismiss(interaction: Interaction, word: str) -> None:
        await review(interaction, word, SlangStatus.DISMISSED)

    @group.command(description="Moderators: words that wait for review")
    async def queue(interaction: Interaction) -> None:
        async def waiting() -> Said:
            channel = client.settings_channel(interaction)
            text, names = await moderation.slang_queue(reader.caller(interaction), channel)
            return Said(text, slang_view(names))

        await answer(interaction, waiting())

    return group


def _add_reports(client: NocapClient) -> None:
    @client.tree.command(description="What members have reported (moderators)")
    @app_commands.default_permissions(manage_channels=True)
    @app_commands.guild_only()
    async def reports(interaction: Interaction) -> None:
        async def queue() -> Said:
            caller = client.reader.caller(interaction)
            text, ids = await client.core.moderation.reports(caller, client.moderated_keys(interaction))
            return Said(text, reports_view(ids))

        await answer(interaction, queue())


def _operator_group(client: NocapClient) -> app_commands.Group:
    group = app_commands.Group(
        name="nocap",
        description="The bot's operators only",
        default_permissions=discord.Permissions(manage_guild=True),
    )
    retrain = app_commands.Group(name="retrain", description="Retrains", parent=group)
    operations = client.core.operations

    async def told(interaction: Interaction, work: Callable[[Caller], Awaitable[Said | str]]) -> None:
        await answer(interaction, work(client.reader.caller(interaction)))

    @group.command(description="What is live and how it is doing")
    async def status(interaction: Interaction) -> None:
        await told(interaction, operations.status)

    @retrain.command(description="Start a retrain now")
    async def now(interaction: Interaction) -> None:
        await told(interaction, operations.retrain_now)

    @group.command(description="The latest retrains")
    async def runs(interaction: Interaction) -> None:
        await told(interaction, operations.runs)

    @group.command(description="What the gates said of a run")
    @app_commands.describe(run="Its id, from /nocap runs")
    async def gates(interaction: Interaction, run: str) -> None:
        async def table(caller: Caller) -> str:
            return f"```\n{await operations.gates(caller, RunId(run))}\n```"

        await told(interaction, table)

    @group.command(description="The voice's adapters")
    async def adapters(interaction: Interaction) -> None:
        await told(interaction, operations.adapters)

    @group.command(description="Go back to an earlier adapter; asks first")
    @app_commands.describe(adapter="Its name; the one before if left out")
    async def rollback(interaction: Interaction, adapter: str | None = None) -> None:
        async def proposed(caller: Caller) -> Said:
            proposal = await operations.propose_rollback(caller, adapter)
            return Said(proposal.question, confirm_view("rollback", proposal.name, "Roll back"))

        await told(interaction, proposed)

    @group.command(description="Put an adapter live that passed its gates; asks first")
    @app_commands.describe(adapter="Its name")
    async def promote(interaction: Interaction, adapter: str) -> None:
        async def proposed(caller: Caller) -> Said:
            proposal = await operations.propose_promotion(caller, adapter)
            return Said(proposal.question, confirm_view("promote", proposal.name, "Promote"))

        await told(interaction, proposed)

    return group


def _targets(client: NocapClient, interaction: Interaction, where: Where | None) -> tuple[Caller, list[Target]]:
    """The chosen channels in which the caller moderates. Raises NotPermitted where that is none of them."""
    caller = client.reader.caller(interaction, rules_own_chat=True)
    if where is None:
        return caller, [client.reader.target(_here(interaction))]
    if not isinstance(interaction.user, discord.Member):
        raise InputError("Channels can be named in a server only.")
    chosen: list[discord.abc.GuildChannel | discord.Thread] = [where]
    if isinstance(where, discord.CategoryChannel):
        chosen = [one for one in where.channels if not isinstance(one, discord.CategoryChannel)]
    user = interaction.user
    allowed = [one for one in chosen if may_moderate(one.permissions_for(user))]
    if chosen and not allowed and not caller.is_operator:
        raise NotPermitted(f"You need Manage Channels in #{where.name} for that.")
    return caller, [client.reader.target(one) for one in (chosen if caller.is_operator else allowed)]


def _here(interaction: Interaction) -> discord.interactions.InteractionChannel:
    if interaction.channel is None:
        raise InputError("I can't see this channel; name another one.")
    return interaction.channel
