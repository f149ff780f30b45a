"""A turn shown in a chat: previewed while it streams, split where it is long, with its buttons below."""

from __future__ import annotations

from contextlib import aclosing

from telegram import InlineKeyboardMarkup, Message

from bots import messages
from bots.conversation import Conversation
from bots.duels import DuelTurn
from bots.identity import Identity
from bots.pacing import snapshots
from bots.records import Incoming
from bots.telegram import keyboards
from bots.telegram.formatting import parts_of
from bots.telegram.outbox import Outbox, Place, PromptGone
from bots.turn import Outcome, Turn

GROUP_EDIT_SECONDS = 3.0
MOST_EDITS = 6


class Answers:
    """Gives the answers of one bot."""

    def __init__(self, conversation: Conversation, outbox: Outbox, identity: Identity) -> None:
        self._conversation = conversation
        self._outbox = outbox
        self._identity = identity

    async def answer(self, incoming: Incoming, place: Place, into: Message | None = None) -> None:
        """The turn's answer in the chat, in place of the message `into` where one is given."""
        async with self._outbox.typing(place):
            turn = await self._conversation.turn(incoming)
            await self._show(turn, incoming, place, into)

    async def duel(self, incoming: Incoming, place: Place) -> None:
        """Both answers with the buttons to choose between them, or the sentence that says why there are none."""
        async with self._outbox.typing(place):
            duel = await self._conversation.duel(incoming)
            if isinstance(duel, Turn):
                await self._show(duel, incoming, place, None)
                return
        await self._finish(_side_by_side(duel), keyboards.duel(duel.duel_id), incoming, place, None)

    async def _show(self, turn: Turn, incoming: Incoming, place: Place, into: Message | None) -> None:
        preview = _Preview(self._outbox, place, into)
        try:
            async with aclosing(turn):
                every = self._conversation.settings.bots.edit_seconds
                async for text in snapshots(turn, every if place.is_private else max(every, GROUP_EDIT_SECONDS)):
                    await preview.show(text)
        except PromptGone:
            await self._conversation.deleted(incoming.message_key)
            return
        posted = await self._finish(turn.text, _buttons(turn), incoming, place, preview.message)
        await self._conversation.posted(
            incoming, turn, [self._identity.message(one.chat_id, one.message_id) for one in posted]
        )

    async def _finish(
        self,
        text: str,
        markup: InlineKeyboardMarkup | None,
        incoming: Incoming,
        place: Place,
        into: Message | None,
    ) -> list[Message]:
        """The messages that show the whole text, the buttons under the last; fewer where the chat refuses them."""
        shown: list[Message] = []
        parts = parts_of(text)
        for number, (part, entities) in enumerate(parts):
            below = markup if number == len(parts) - 1 else None
            if number == 0 and into is not None:
                message = into if await self._outbox.edit(into, part, entities, below) else None
            else:
                try:
                    message = await self._outbox.send(place if number == 0 else _after(place), part, entities, below)
                except PromptGone:
                    await self._conversation.deleted(incoming.message_key)
                    return shown
            if message is None:
                return shown
            shown.append(message)
        return shown


class _Preview:
    """What of an answer is shown before it is whole: a draft in private, else a message with a few edits."""

    def __init__(self, outbox: Outbox, place: Place, into: Message | None) -> None:
        self.message = into
        self._outbox = outbox
        self._place = place
        self._edits = 0

    async def show(self, text: str) -> None:
        """Raises PromptGone."""
        if len(parts := parts_of(text)) != 1 or self._edits >= MOST_EDITS or self._outbox.is_busy(self._place):
            return
        part, entities = parts[0]
        may_draft = self._place.is_private and self.message is None
        if may_draft and await self._outbox.draft(self._place, part, entities):
            return
        self._edits += 1
        if self.message is None:
            self.message = await self._outbox.send(self._place, part, entities)
            self._edits = self._edits if self.message else MOST_EDITS
        elif not await self._outbox.edit(self.message, part, entities):
            self._edits = MOST_EDITS


def _buttons(turn: Turn) -> InlineKeyboardMarkup | None:
    if turn.outcome is Outcome.FAILED:
        return keyboards.retry()
    return keyboards.votes(turn.reply_id) if turn.reply_id is not None else None


def _side_by_side(duel: DuelTurn) -> str:
    return f"👈 left:\n{duel.left}\n\n👉 right:\n{duel.right}\n\n{messages.DUEL_ASK}"


def _after(place: Place) -> Place:
    """Where the later parts of an answer go: right behind the first."""
    return Place(place.chat_id, place.thread_id, place.is_private)
