"""Every button: what it does is written in its custom id, so it works after a restart and weeks later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import discord

from bots import messages, staff_messages
from bots.discord.replying import Said, answer
from nocap.domain import AdapterName, ChannelKey, DuelChoice, Purpose, SlangStatus, Vote
from nocap.errors import InputError, NotPermitted

if TYPE_CHECKING:
    from bots.discord.bot import NocapClient

VOTE_FACES: Mapping[Vote, str] = {Vote.UP: "👍", Vote.DOWN: "👎", Vote.CRINGE: "😬"}
DUEL_LABELS: Mapping[DuelChoice, str] = {
    DuelChoice.LEFT: "Left",
    DuelChoice.RIGHT: "Right",
    DuelChoice.TIE: "Tie",
    DuelChoice.BOTH_BAD: "Both bad",
}
Style = discord.ButtonStyle
MOST_IN_VIEW = 25
"""Five rows of five buttons."""


class _Button(discord.ui.DynamicItem[discord.ui.Button[Any]], template="nocap:never"):
    """A button whose custom id is `nocap:<kind>:<argument>:…`."""

    kind: ClassVar[str]

    def __init__(self, *arguments: str, label: str | None = None, emoji: str | None = None, **look: Any) -> None:
        self.arguments = arguments
        custom_id = ":".join(("nocap", self.kind, *arguments))
        super().__init__(discord.ui.Button(label=label, emoji=emoji, custom_id=custom_id, **look))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        return cls(*(group for group in match.groups() if group is not None), label="-")

    async def callback(self, interaction: discord.Interaction) -> None:
        raise NotImplementedError

    @staticmethod
    def client(interaction: discord.Interaction) -> NocapClient:
        from bots.discord.bot import NocapClient

        assert isinstance(interaction.client, NocapClient)
        return interaction.client


class VoteButton(_Button, template=r"nocap:v:(up|down|cringe):([0-9]+)"):
    kind = "v"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._vote(interaction))

    async def _vote(self, interaction: discord.Interaction) -> Said:
        client = self.client(interaction)
        member = client.reader.identity.member(interaction.user.id)
        try:
            after = await client.core.conversation.toggle_vote(int(self.arguments[1]), member, Vote(self.arguments[0]))
        except InputError:
            return Said(messages.UNKNOWN_REPLY)
        said = messages.voted(after)
        channel = client.settings_channel(interaction)
        if after is None or (ask := await client.core.commands.ask_consent(member, channel)) is None:
            return Said(said)
        state = await client.core.commands.consent_state(member, channel)
        return Said(f"{said}\n\n{ask}", consent_view(channel, state, client.core.commands.minimum_age))


class DuelButton(_Button, template=r"nocap:d:(left|right|tie|both_bad):([0-9]+)"):
    kind = "d"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._vote(interaction))

    async def _vote(self, interaction: discord.Interaction) -> str:
        client = self.client(interaction)
        member = client.reader.identity.member(interaction.user.id)
        try:
            reveal = await client.core.conversation.duel_vote(
                int(self.arguments[1]), member, DuelChoice(self.arguments[0])
            )
        except InputError:
            return messages.UNKNOWN_DUEL
        return messages.revealed(reveal.left, reveal.right, reveal.choice)


class RetryButton(_Button, template=r"nocap:r:([0-9]+)"):
    """Asks the message with this id again; only its author may."""

    kind = "r"

    async def callback(self, interaction: discord.Interaction) -> None:
        client = self.client(interaction)
        try:
            prompt = await self._prompt(interaction)
        except (InputError, NotPermitted) as error:
            await interaction.response.send_message(str(error), ephemeral=True)
            return
        await interaction.response.defer()
        await client.answer(prompt, shown=interaction.message, is_again=True)

    async def _prompt(self, interaction: discord.Interaction) -> discord.Message:
        try:
            assert isinstance(interaction.channel, discord.abc.Messageable)
            prompt = await interaction.channel.fetch_message(int(self.arguments[0]))
        except discord.HTTPException as error:
            raise InputError(messages.RETRY_IS_GONE) from error
        if prompt.author.id != interaction.user.id:
            raise NotPermitted(messages.RETRY_IS_THEIRS)
        return prompt


class ReportButton(_Button, template=r"nocap:p:([0-9]+)"):
    kind = "p"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._report(interaction))

    async def _report(self, interaction: discord.Interaction) -> str:
        client = self.client(interaction)
        member = client.reader.identity.member(interaction.user.id)
        channel = client.settings_channel(interaction)
        return await client.core.commands.report(member, channel, int(self.arguments[0]))


class ConsentButton(
    _Button,
    template=r"nocap:c:(grant|revoke):(all|store|train|evaluate|feedback):([0-9a-f]{32})(?::([0-9]{1,3}))?",
):
    """Sets what the presser agrees to in the channel that the button was made for; perhaps saying how old they are."""

    kind = "c"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._decide(interaction), replaces=True)

    async def _decide(self, interaction: discord.Interaction) -> Said:
        client = self.client(interaction)
        member = client.reader.identity.member(interaction.user.id)
        verb, purpose, channel = self.arguments[0], self.arguments[1], ChannelKey(self.arguments[2])
        purposes = list(Purpose) if purpose == "all" else [Purpose(purpose)]
        age = int(self.arguments[3]) if len(self.arguments) > 3 else None
        commands = client.core.commands
        text = await commands.record_consent(member, channel, purposes, granted=verb == "grant", confirmed_age=age)
        return Said(text, consent_view(channel, await commands.consent_state(member, channel), commands.minimum_age))


class EraseButton(_Button, template=r"nocap:x:(mydata|keep)"):
    kind = "x"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._erase(interaction), replaces=True)

    async def _erase(self, interaction: discord.Interaction) -> str:
        client = self.client(interaction)
        if self.arguments[0] == "keep":
            return messages.NOT_ERASED
        return await client.core.commands.erase(client.reader.identity.member(interaction.user.id))


class PurgeButton(_Button, template=r"nocap:z:([0-9]+)"):
    """Purges the channel with this Discord id; the presser's rights there are asked again."""

    kind = "z"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._purge(interaction), replaces=True)

    async def _purge(self, interaction: discord.Interaction) -> str:
        client = self.client(interaction)
        target, caller = client.moderated(interaction, int(self.arguments[0]))
        return await client.core.moderation.purge(caller, target)


class SlangButton(_Button, template=r"nocap:s:(approved|blocked|dismissed):(.{1,60})"):
    kind = "s"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._review(interaction), replaces=True)

    async def _review(self, interaction: discord.Interaction) -> Said:
        client = self.client(interaction)
        caller, channel = client.reader.caller(interaction), client.settings_channel(interaction)
        moderation, status = client.core.moderation, SlangStatus(self.arguments[0])
        done = await moderation.review_slang(caller, channel, self.arguments[1], status)
        text, waiting = await moderation.slang_queue(caller, channel)
        return Said(f"{done}\n{text}", slang_view(waiting))


class SettleButton(_Button, template=r"nocap:t:([0-9]+)"):
    kind = "t"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._settle(interaction), replaces=True)

    async def _settle(self, interaction: discord.Interaction) -> Said:
        client = self.client(interaction)
        caller, channels = client.reader.caller(interaction), client.moderated_keys(interaction)
        done = await client.core.moderation.settle_report(caller, int(self.arguments[0]), channels, "closed")
        text, ids = await client.core.moderation.reports(caller, channels)
        return Said(f"{done}\n{text}", reports_view(ids))


class OperatorButton(_Button, template=r"nocap:o:(rollback|promote|nothing):([a-z0-9_-]{1,64})"):
    kind = "o"

    async def callback(self, interaction: discord.Interaction) -> None:
        await answer(interaction, self._act(interaction), replaces=True)

    async def _act(self, interaction: discord.Interaction) -> str:
        client = self.client(interaction)
        caller, name = client.reader.caller(interaction), AdapterName(self.arguments[1])
        if self.arguments[0] == "rollback":
            return await client.core.operations.rollback(caller, name)
        if self.arguments[0] == "promote":
            return await client.core.operations.promote(caller, name)
        return staff_messages.NOT_DONE


ALL_BUTTONS = (
    VoteButton,
    DuelButton,
    RetryButton,
    ReportButton,
    ConsentButton,
    EraseButton,
    PurgeButton,
    SlangButton,
    SettleButton,
    OperatorButton,
)


def vote_view(reply_id: int) -> discord.ui.View:
    votes = [VoteButton(vote, str(reply_id), emoji=face, style=Style.secondary) for vote, face in VOTE_FACES.items()]
    return _view(*votes, ReportButton(str(reply_id), emoji="🚩", style=Style.secondary))


def duel_view(duel_id: int) -> discord.ui.View:
    return _view(*(DuelButton(choice, str(duel_id), label=label) for choice, label in DUEL_LABELS.items()))


def retry_view(message_id: int) -> discord.ui.View:
    return _view(RetryButton(str(message_id), label="Try again", style=Style.primary))


def consent_view(channel: ChannelKey, state: Mapping[Purpose, bool], minimum_age: int | None = None) -> discord.ui.View:
    """All at once, and each purpose by itself; what needs `store` waits for it. A yes says the minimum age too."""
    age = () if minimum_age is None else (str(minimum_age),)
    all_of_it = "Yes to all" if minimum_age is None else f"{messages.age_sentence(minimum_age)} to all"
    mark = "" if minimum_age is None else f" ({minimum_age}+)"
    buttons = [
        ConsentButton("grant", "all", channel, *age, label=all_of_it, style=Style.success),
        ConsentButton("revoke", "all", channel, label="No to all", style=Style.danger),
    ]
    for purpose, is_given in state.items():
        verb = "revoke" if is_given else "grant"
        needs_store = purpose is not Purpose.STORE and not state[Purpose.STORE] and not is_given
        buttons.append(
            ConsentButton(
                verb,
                purpose,
                channel,
                *(() if is_given else age),
                label=f"✓ {purpose}" if is_given else f"✗ {purpose}{mark}",
                style=Style.success if is_given else Style.secondary,
                disabled=needs_store,
                row=1,
            )
        )
    return _view(*buttons)


def erase_view() -> discord.ui.View:
    return _view(
        EraseButton("mydata", label="Erase everything", style=Style.danger),
        EraseButton("keep", label="Keep it", style=Style.secondary),
    )


def purge_view(channel_id: int) -> discord.ui.View:
    return _view(
        PurgeButton(str(channel_id), label="Erase it all", style=Style.danger),
        OperatorButton("nothing", "-", label="Keep it", style=Style.secondary),
    )


def slang_view(waiting: list[str]) -> discord.ui.View | None:
    """Buttons for the first terms that fit into a custom id; the rest goes by command."""
    buttons: list[_Button] = []
    for row, term in enumerate([term for term in waiting if len(term) <= 60][:5]):
        buttons.append(SlangButton("approved", term, label=f"Approve {term}"[:80], style=Style.success, row=row))
        buttons.append(SlangButton("dismissed", term, label=f"No slang: {term}"[:80], style=Style.secondary, row=row))
        buttons.append(SlangButton("blocked", term, label=f"Block {term}"[:80], style=Style.danger, row=row))
    return _view(*buttons) if buttons else None


def reports_view(ids: list[int]) -> discord.ui.View | None:
    buttons = [SettleButton(str(one), label=f"Close #{one}") for one in ids[:MOST_IN_VIEW]]
    return _view(*buttons) if buttons else None


def confirm_view(action: str, name: AdapterName, label: str) -> discord.ui.View:
    return _view(
        OperatorButton(action, name, label=label, style=Style.danger),
        OperatorButton("nothing", "-", label="Leave it", style=Style.secondary),
    )


def _view(*buttons: _Button) -> discord.ui.View:
    """discord.py need not remember it: presses are recognised by their custom ids."""
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    view.stop()
    return view
