"""Which messages are for the bot, and what they say to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from telegram import Chat, Message, MessageEntity, User

PRIVATE = Chat.PRIVATE
GROUPS = (Chat.GROUP, Chat.SUPERGROUP)


class Address(Enum):
    """How a message reaches the bot."""

    COMMAND = auto()
    PRIVATE = auto()
    MENTION = auto()
    REPLY = auto()
    OVERHEARD = auto()
    """Said in a group, to nobody or to somebody else."""


@dataclass(frozen=True, slots=True)
class Addressed:
    address: Address
    text: str
    """Without the mention of the bot, the command and its name."""
    command: str = ""
    """In lower case, without slash and bot name."""
    is_wordless: bool = False
    """A sticker, an image, a voice message: nothing to read."""


def read_message(message: Message, me: User) -> Addressed | None:
    """What the message says to the bot `me`; None where it is nothing that a member wrote to be read.

    That is: other bots, posts in a channel's name, forwards of a linked channel, what was sent through a bot,
    commands to another bot, service messages.
    """
    if not is_members_own(message):
        return None
    said = message.text or message.caption
    if said is None and message.effective_attachment is None:
        return None
    words = said or ""
    is_private = message.chat.type == PRIVATE
    if words.startswith("/") and (command := _command(message, words, me)) is not None:
        return command if command.command else None
    if (mention := _mention(message, me)) is not None:
        return Addressed(Address.MENTION, _without(words, mention), is_wordless=said is None)
    address = Address.PRIVATE if is_private else Address.REPLY if _replies_to(message, me) else Address.OVERHEARD
    return Addressed(address, words.strip(), is_wordless=said is None)


def is_members_own(message: Message) -> bool:
    """Whether a person wrote it, in their own name or as this group's anonymous administrator."""
    if message.via_bot or message.is_automatic_forward or message.forward_origin or message.from_user is None:
        return False
    return not message.from_user.is_bot if message.sender_chat is None else is_anonymous_administrator(message)


def is_anonymous_administrator(message: Message) -> bool:
    """An administrator who writes in the group's name: Telegram vouches for the right, nobody knows who it is."""
    return message.sender_chat is not None and message.sender_chat.id == message.chat.id


def _command(message: Message, words: str, me: User) -> Addressed | None:
    """The command at the start; without a name where it is another bot's; None where there is none."""
    entities = (*message.entities, *message.caption_entities)
    first = next((one for one in entities if one.type == MessageEntity.BOT_COMMAND and one.offset == 0), None)
    if first is None:
        return None
    name, _, whose = words[1 : first.length].partition("@")  # commands are plain ASCII
    if whose and whose.casefold() != (me.username or "").casefold():
        return Addressed(Address.COMMAND, "")
    return Addressed(Address.COMMAND, words[first.length :].strip(), name.casefold())


def _mention(message: Message, me: User) -> str | None:
    """The words that mention the bot."""
    found = message.parse_entities([MessageEntity.MENTION, MessageEntity.TEXT_MENTION])
    found |= message.parse_caption_entities([MessageEntity.MENTION, MessageEntity.TEXT_MENTION])
    for entity, words in found.items():
        is_user = entity.user is not None and entity.user.id == me.id
        if is_user or words.casefold() == f"@{me.username}".casefold():
            return words
    return None


def _without(words: str, mention: str) -> str:
    before, _, after = words.partition(mention)
    return f"{before.rstrip()} {after.lstrip(' ,:')}".strip() if before.strip() else after.lstrip(" ,:\n").strip()


def _replies_to(message: Message, me: User) -> bool:
    """A reply to the bot's message; in a topic, every message refers to the one that opened it, which is none."""
    original = message.reply_to_message
    if original is None or original.forum_topic_created is not None:
        return False
    return original.from_user is not None and original.from_user.id == me.id
