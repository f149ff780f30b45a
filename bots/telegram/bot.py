"""One Telegram bot: the real python-telegram-bot, driven by us, from its token to its last answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import structlog
from telegram import (
    BotCommand,
    BotCommandScopeAllChatAdministrators,
    CallbackQuery,
    ChatMember,
    ChatMemberUpdated,
    Message,
    Update,
    User,
)
from telegram.constants import UpdateType
from telegram.error import InvalidToken, TelegramError
from telegram.ext import Application, ApplicationBuilder, TypeHandler

from bots import messages
from bots.core import BotCore
from bots.incidents import report_incident
from bots.telegram import sentences
from bots.telegram.addressing import PRIVATE, Address, Addressed, read_message
from bots.telegram.answers import Answers
from bots.telegram.chats import Chats
from bots.telegram.inbox import Inbox
from bots.telegram.members import MemberCommands, Request
from bots.telegram.outbox import Outbox, Place
from bots.telegram.presses import Presses
from bots.telegram.requests import MessageLimiter, if_possible
from bots.telegram.staff import StaffCommands
from bots.telegram.transport import AiohttpRequest, PollingRequest
from nocap.errors import ConfigurationError, NocapError

UPDATES = (
    UpdateType.MESSAGE,
    UpdateType.EDITED_MESSAGE,
    UpdateType.CALLBACK_QUERY,
    UpdateType.MESSAGE_REACTION,
    UpdateType.MY_CHAT_MEMBER,
)
CONCURRENT_UPDATES = 256
CONNECTIONS = 64
POLL_SECONDS = 30
STOP_SECONDS = 10.0
"""Below the supervisor's patience (nocap/supervisor.py)."""
COMMANDS = {
    "ask": "ask me something",
    "duel": "two hidden voices answer, you pick",
    "slang": "what a term means, or what's trending",
    "consent": "what you may agree to, and what you have agreed to",
    "mydata": "export or delete everything held about you",
    "forget": "as a reply: forget that message of mine",
    "report": "as a reply: report an answer",
    "whatsnew": "what I learnt last",
    "privacy": "what is kept and what isn't",
    "help": "what I can do",
}
STAFF_COMMANDS = {
    "channel": "when I answer here, and what I may collect",
    "reports": "the open reports",
    "settings": "how I am set up here",
}

_Application = Application[Any, Any, Any, Any, Any, Any]
log = structlog.get_logger("bots")


async def run_telegram(core: BotCore, token: str, limiter: MessageLimiter | None = None) -> None:
    """Runs the bot until cancelled; what was fetched by then is still answered.

    Raises ConfigurationError for a token or a webhook address that Telegram refuses.
    """
    async with running(core, token, limiter):
        await asyncio.Event().wait()


@asynccontextmanager
async def running(core: BotCore, token: str, limiter: MessageLimiter | None = None) -> AsyncIterator[TelegramBot]:
    """The bot at work. Updates that come in while nothing runs wait at Telegram, for up to a day."""
    base = core.settings.telegram.base_url.rstrip("/").removesuffix("/bot")
    requests = AiohttpRequest(CONNECTIONS, read_seconds=20.0)
    updates = PollingRequest(1, read_seconds=POLL_SECONDS + 15.0)
    application = (
        ApplicationBuilder()
        .token(token)
        .base_url(f"{base}/bot")
        .base_file_url(f"{base}/file/bot")
        .rate_limiter(limiter or MessageLimiter(core.settings.telegram.messages_per_second))
        .request(requests)
        .get_updates_request(updates)
        .concurrent_updates(CONCURRENT_UPDATES)
        .job_queue(None)
        .build()
    )
    bot = TelegramBot(core, application)
    try:
        try:
            await application.initialize()
        except InvalidToken as error:
            raise ConfigurationError(
                f"{base} refuses the token of the Telegram bot for {core.voice}; ask @BotFather for the right one and"
                " put it into `telegram.token`."
            ) from error
        await bot.prepare()
        await application.start()
        try:
            await bot.listen(token)
            core.connection.is_up = lambda: bot.is_called or updates.has_answered_within(2 * POLL_SECONDS)
            yield bot
        finally:
            await bot.stop()
            await _finish(application)
    finally:
        await application.shutdown()
        for request in (requests, updates):  # one that never learnt who it is leaves them open
            await request.shutdown()


async def _finish(application: _Application) -> None:
    """Waits for what was fetched to be answered, but not for ever."""
    try:
        await asyncio.wait_for(application.stop(), STOP_SECONDS)
    except TimeoutError:
        log.warning("telegram", note=f"some answers were not ready {STOP_SECONDS:.0f} s after the stop")


class TelegramBot:
    """What happens with each update. Made by `running`."""

    def __init__(self, core: BotCore, application: _Application) -> None:
        self._core = core
        self._application = application
        self._tasks: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """After the bot has learnt who it is."""
        core, bot = self._core, self._application.bot
        self._chats = Chats(bot, core)
        await self._chats.load()
        self._outbox = Outbox(bot, self._chats.migrated)
        answers = Answers(core.conversation, self._outbox, core.identity)
        parts = core, self._chats, answers, self._outbox, self.me
        self._inbox = Inbox(*parts)
        self._members = MemberCommands(*parts)
        staff = StaffCommands(core, self._chats, self._members.say, self._sees_all)
        self._commands = self._members.handlers | staff.handlers
        self._presses = Presses(*parts)
        self._application.add_handler(TypeHandler(Update, self._update))

    @property
    def me(self) -> User:
        user: User = self._application.bot.bot
        return user

    @property
    def is_called(self) -> bool:
        """Whether Telegram calls the webhook that was agreed with it."""
        updater = self._application.updater
        return self._core.settings.telegram.webhook_url is not None and updater is not None and updater.running

    async def listen(self, token: str) -> None:
        """By long polling, or by the webhook that the settings name."""
        if not self.me.can_read_all_group_messages:
            log.warning("telegram", note=sentences.privacy_mode_warning(self.me.username))
        updater = self._application.updater
        assert updater is not None, "the builder makes one"
        settings = self._core.settings.telegram
        if settings.webhook_url is None:
            await updater.start_polling(timeout=POLL_SECONDS, bootstrap_retries=-1, allowed_updates=list(UPDATES))
        else:
            await self._listen_to_webhook(settings.webhook_url)
        self._tasks.append(asyncio.create_task(self._introduce()))
        if settings.notice_chat is not None:
            notices = self._core.notices(self._chats.channel(settings.notice_chat))
            watching = notices.watch(self._announce, self._core.settings.bots.notice_poll_seconds)
            self._tasks.append(asyncio.create_task(watching))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        updater = self._application.updater
        if updater is not None and updater.running:
            await updater.stop()

    async def _listen_to_webhook(self, url: str) -> None:
        """Each further voice listens one port higher, and is called below the first one's path by its name."""
        settings, updater = self._core.settings.telegram, self._application.updater
        assert updater is not None, "the builder makes one"
        voices = list(dict.fromkeys([self._core.settings.voice, *settings.voices]))
        number = voices.index(self._core.voice)
        url, port = (f"{url}/{self._core.voice}" if number else url), settings.webhook_port + number
        secret = settings.webhook_secret
        keyring = self._core.conversation.database.keyring
        try:
            await updater.start_webhook(
                listen=settings.webhook_host,
                port=port,
                url_path=urlsplit(url).path.strip("/"),
                webhook_url=url,
                secret_token=secret.get_secret_value() if secret else keyring.derived_token("telegram webhook"),
                allowed_updates=list(UPDATES),
            )
        except (TelegramError, OSError) as error:
            raise ConfigurationError(
                f"The webhook {url} cannot be used: {error}. It must be a public https address that leads to"
                f" {settings.webhook_host}:{port}; or remove `telegram.webhook_url` to poll instead."
            ) from error

    async def _introduce(self) -> None:
        """The profile says that this is a bot, and which commands there are; servers may lack any of it."""
        bot = self._application.bot
        for_all = [BotCommand(name, text) for name, text in COMMANDS.items()]
        for_staff = [*for_all, *(BotCommand(name, text) for name, text in STAFF_COMMANDS.items())]
        await if_possible(bot.set_my_commands(for_all), "commands")
        await if_possible(
            bot.set_my_commands(for_staff, scope=BotCommandScopeAllChatAdministrators()), "administrators' commands"
        )
        await if_possible(bot.set_my_description(sentences.DESCRIPTION), "description")
        await if_possible(bot.set_my_short_description(sentences.SHORT_DESCRIPTION), "short description")

    async def _announce(self, text: str) -> None:
        chat_id = self._core.settings.telegram.notice_chat
        assert chat_id is not None, "only watched where there is one"
        lead, _, table = text.partition("\n")
        said = f"{lead}\n```\n{table}\n```" if table else lead
        await self._members.write(Place(chat_id, is_private=chat_id > 0), said)

    async def _sees_all(self, chat_id: int) -> bool:
        if self.me.can_read_all_group_messages or chat_id > 0:
            return True
        member = await if_possible(self._application.bot.get_chat_member(chat_id, self.me.id), "own rights")
        return member is not None and member.status == ChatMember.ADMINISTRATOR

    async def _update(self, update: Update, context: object) -> None:
        """Whatever comes, once; a failure costs this update alone."""
        if not self._inbox.is_new(update.update_id):
            return
        try:
            if update.message:
                await self._message(update.message)
            elif update.edited_message and self._chats.serves(update.edited_message.chat):
                await self._inbox.edited(update.edited_message)
            elif update.callback_query:
                await self._press(update.callback_query)
            elif update.message_reaction and self._chats.serves(update.message_reaction.chat):
                await self._inbox.reaction(update.message_reaction)
            elif update.my_chat_member:
                await self._membership(update.my_chat_member)
        except Exception as error:
            chat = update.effective_chat
            report_incident("update", error, self._chats.channel(chat.id if chat else 0))

    async def _message(self, message: Message) -> None:
        if message.migrate_to_chat_id:
            await self._chats.migrated(message.chat.id, message.migrate_to_chat_id)
        elif message.migrate_from_chat_id:
            await self._chats.migrated(message.migrate_from_chat_id, message.chat.id)
        elif self._chats.serves(message.chat) and (said := read_message(message, self.me)) is not None:
            if said.address is Address.COMMAND:
                await self._command(message, said)
            else:
                await self._inbox.message(message, said)

    async def _command(self, message: Message, said: Addressed) -> None:
        handler = self._commands.get(said.command)
        if handler is None:
            if message.chat.type == PRIVATE:
                await self._members.say(message, messages.UNKNOWN_COMMAND)
            return
        assert message.from_user is not None, "read_message lets nothing else through"
        channel = self._chats.channel(message.chat.id)
        try:
            await handler(Request(message, message.from_user, said.text))
        except NocapError as error:
            await self._members.say(message, messages.refusal(error, report_incident(said.command, error, channel)))
        except TelegramError:
            raise
        except Exception as error:
            await self._members.say(message, messages.failure(error, report_incident(said.command, error, channel)))

    async def _press(self, query: CallbackQuery) -> None:
        await self._presses.press(query)

    async def _membership(self, change: ChatMemberUpdated) -> None:
        """Greets a group that has added the bot; being thrown out needs nothing."""
        absent = (ChatMember.LEFT, ChatMember.BANNED)
        was_absent, is_absent = change.old_chat_member.status in absent, change.new_chat_member.status in absent
        log.info(
            "telegram membership", status=change.new_chat_member.status, channel=self._chats.channel(change.chat.id)
        )
        if was_absent and not is_absent and change.chat.type != PRIVATE and self._chats.serves(change.chat):
            await self._outbox.send(Place(change.chat.id), sentences.WELCOME_GROUP)
