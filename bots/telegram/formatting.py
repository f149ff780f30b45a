"""Our plain text as Telegram shows it: code by entities, never by a parse mode that a stray sign could break."""

from __future__ import annotations

import re

from telegram import MessageEntity

from bots.splitting import split, utf16_units

MESSAGE_UNITS = 4096
"""UTF-16 units that one message may hold."""
_CODE = re.compile(
    r"(?:^|(?<=\n))```(?P<language>[\w+#-]{0,20})\n(?P<block>.*?)\n?```(?=\n|$)|`(?P<inline>[^`\n]+)`", re.DOTALL
)


def parts_of(text: str) -> list[tuple[str, list[MessageEntity]]]:
    """`text` in messages that Telegram takes, each with the entities of its code."""
    return [formatted(part) for part in split(text, MESSAGE_UNITS, utf16_units)]


def formatted(text: str) -> tuple[str, list[MessageEntity]]:
    """The text without the backquotes of its code, and entities that say where the code is."""
    plain, entities, end = "", list[MessageEntity](), 0
    for found in _CODE.finditer(text):
        code = found["inline"] or found["block"] or ""
        if not code.strip():
            continue
        plain += text[end : found.start()]
        entities.append(_entity(found, utf16_units(plain), utf16_units(code)))
        plain += code
        end = found.end()
    return plain + text[end:], entities


def _entity(found: re.Match[str], offset: int, length: int) -> MessageEntity:
    if found["inline"]:
        return MessageEntity(MessageEntity.CODE, offset, length)
    return MessageEntity(MessageEntity.PRE, offset, length, language=found["language"] or None)
