"""Button presses: every one is answered, and none trusts the message that it hangs on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from telegram import CallbackQuery, InlineKeyboardMarkup, Message

from bots import messages, staff_messages
from bots.callers import Caller
from bots.incidents import report_incident
from bots.moderation import Target
from bots.telegram import keyboards, sentences
from bots.telegram.addressing import PRIVATE, read_message
from bots.telegram.chats import place_of
from bots.telegram.face import Face
from bots.telegram.requests import if_possible
from nocap.domain import AdapterName, ChannelKey, Purpose
from nocap.errors import InputError, NocapError

TOAST_CHARACTERS = 200
_ALL = {"y": True, "n": False}
Press = Callable[[CallbackQuery, str], Awaitable[str]]


class Presses(Face):
    """Takes callback queries; the first letter of a button's data says which of the methods below is meant."""

    def __post_init__(self) -> None:
        self._retrying: set[tuple[int, int]] = set()
        self._kinds: dict[str, Press] = {
            "v": self._vote,
            "d": self._duel_vote,
            "c": self._consent,
            "e": self._erase,
            "s": self._review_slang,
            "q": self._settle_report,
            "g": self._purge,
            "r": self._rollback,
            "m": self._promote,
            "x": self._cancel,
        }

    async def press(self, query: CallbackQuery) -> None:
        kind, _, rest = (query.data or "").partition(":")
        if kind == "t":
            await self._retry(query)
            return
        try:
            toast = await self._kinds[kind](query, rest)
        except (KeyError, ValueError):
            toast = sentences.BUTTON_IS_OLD
        except NocapError as error:
            toast = messages.refusal(error, report_incident("button", error, self._channel(query)))
        except Exception as error:
            toast = messages.failure(error, report_incident("button", error, self._channel(query)))
        await if_possible(query.answer(_short(toast), show_alert=kind == "d" or len(toast) > 60), "toast")

    async def _vote(self, query: CallbackQuery, rest: str) -> str:
        reply_id, _, code = rest.partition(":")
        vote = keyboards.VOTES[code]
        with suppress(InputError):
            return messages.voted(
                await self.core.conversation.toggle_vote(int(reply_id), self.chats.member(query.from_user), vote)
            )
        return messages.UNKNOWN_REPLY

    async def _duel_vote(self, query: CallbackQuery, rest: str) -> str:
        """Who is who is told to the voter alone: the others still vote blind."""
        duel_id, _, code = rest.partition(":")
        member, choice = self.chats.member(query.from_user), keyboards.CHOICES[code]
        with suppress(InputError):
            reveal = await self.core.conversation.duel_vote(int(duel_id), member, choice)
            return messages.revealed(reveal.left, reveal.right, reveal.choice)
        return messages.UNKNOWN_DUEL

    async def _consent(self, query: CallbackQuery, rest: str) -> str:
        """Recorded first; then the message shows what holds now, with the same buttons."""
        key, answer, *age = rest.split(":")
        commands, channel, member = self.core.commands, ChannelKey(key), self.chats.member(query.from_user)
        if answer in _ALL:
            purposes, granted = list(Purpose), _ALL[answer]
        else:
            purposes = [Purpose(answer)]
            granted = not (await commands.consent_state(member, channel))[purposes[0]]
        confirmed = int(age[0]) if age else None
        said = await commands.record_consent(member, channel, purposes, granted=granted, confirmed_age=confirmed)
        text = sentences.consent_in(await self.chats.label(channel), await commands.consent(member, channel))
        state = await commands.consent_state(member, channel)
        await self._rewrite(query, text, keyboards.consent(channel, state, commands.minimum_age))
        return said

    async def _erase(self, query: CallbackQuery, rest: str) -> str:
        if query.message is None or query.message.chat.type != PRIVATE:
            return sentences.NOT_FOR_YOU
        if rest != "y":
            await self._rewrite(query, messages.NOT_ERASED)
            return messages.NOT_ERASED
        receipt = await self.core.commands.erase(self.chats.member(query.from_user))
        await self._rewrite(query, receipt)
        return receipt

    async def _review_slang(self, query: CallbackQuery, rest: str) -> str:
        code, _, term = rest.partition(":")
        caller, status = await self._caller(query), keyboards.REVIEWS[code]
        return await self.core.moderation.review_slang(caller, self._channel(query), term, status)

    async def _settle_report(self, query: CallbackQuery, rest: str) -> str:
        number, _, code = rest.partition(":")
        caller, channels = await self._chat_owner(query), [self._channel(query)]
        return await self.core.moderation.settle_report(caller, int(number), channels, keyboards.VERDICTS[code])

    async def _purge(self, query: CallbackQuery, rest: str) -> str:
        label = (query.message.chat.title if query.message else None) or "this chat"
        target = Target(self._channel(query), label)
        said = await self.core.moderation.purge(await self._chat_owner(query), target)
        await self._rewrite(query, said)
        return said

    async def _rollback(self, query: CallbackQuery, rest: str) -> str:
        said = await self.core.operations.rollback(await self._caller(query), AdapterName(rest))
        await self._rewrite(query, said)
        return said

    async def _promote(self, query: CallbackQuery, rest: str) -> str:
        said = await self.core.operations.promote(await self._caller(query), AdapterName(rest))
        await self._rewrite(query, said)
        return said

    async def _cancel(self, query: CallbackQuery, rest: str) -> str:
        caller = await self._chat_owner(query)
        if not (caller.is_moderator or caller.is_operator):
            return sentences.NOT_FOR_YOU
        await self._rewrite(query, staff_messages.NOT_DONE)
        return staff_messages.NOT_DONE

    async def _retry(self, query: CallbackQuery) -> None:
        """Answers the prompt again in place of the failure, which replies to it: no text had to be kept."""
        failed = query.message if isinstance(query.message, Message) else None
        prompt = failed.reply_to_message if failed else None
        said = read_message(prompt, self.me) if prompt else None
        if failed is None or prompt is None or said is None or not said.text:
            await if_possible(query.answer(sentences.PROMPT_IS_GONE, show_alert=True), "toast")
            return
        if prompt.from_user != query.from_user:
            await if_possible(query.answer(sentences.NOT_FOR_YOU), "toast")
            return
        await if_possible(query.answer(), "toast")
        if (failed.chat_id, failed.message_id) in self._retrying:
            return
        self._retrying.add((failed.chat_id, failed.message_id))
        try:
            incoming = self.chats.incoming(prompt, said.text, is_for_bot=True)
            await self.answers.answer(incoming, place_of(prompt), into=failed)
        finally:
            self._retrying.discard((failed.chat_id, failed.message_id))

    async def _rewrite(self, query: CallbackQuery, text: str, markup: InlineKeyboardMarkup | None = None) -> None:
        if isinstance(query.message, Message):
            await self.outbox.edit(query.message, text, (), markup)

    async def _caller(self, query: CallbackQuery) -> Caller:
        if query.message is None:
            return Caller(self.core.identity.platform, self.chats.member(query.from_user))
        return await self.chats.caller(query.from_user, query.message.chat)

    async def _chat_owner(self, query: CallbackQuery) -> Caller:
        """As `_caller`; in a private chat the member decides on its settings."""
        caller = await self._caller(query)
        is_private = query.message is not None and query.message.chat.type == PRIVATE
        return Caller(caller.platform, caller.member, caller.is_moderator or is_private, caller.is_operator)

    def _channel(self, query: CallbackQuery) -> ChannelKey:
        return self.chats.channel(query.message.chat.id) if query.message else ChannelKey("")


def _short(text: str) -> str:
    return text if len(text) <= TOAST_CHARACTERS else f"{text[: TOAST_CHARACTERS - 1]}…"
