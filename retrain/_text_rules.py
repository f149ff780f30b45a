"""Rules that judge one example by its own words; the first that fires names the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from nocap.text.scrub import PLACEHOLDERS
from nocap.text.tokens import EMOJI
from retrain._toxicity import is_toxic
from retrain.examples import DropReason, Example

MAX_REPLY_CHARACTERS = 600
"""About what `chat.max_reply_tokens` can say; a longer one would teach answers that serving cuts off."""
MAX_CONTEXT_CHARACTERS = 4_000
"""About `retrain.max_length` tokens."""
MAX_REPEATED_TOKEN = 8
"""One word this often, and for most of the reply, is spam; "no no no no" is not."""
MIN_WORDY_CHARACTERS = 20
MIN_WORDY_SHARE = 0.4

_COMMAND = re.compile(r"\s*[/!][a-zA-Z]\w")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_EMOJI = re.compile(EMOJI)
_WORDY = re.compile(r"[^\W_]|\s")
_STRETCH = re.compile(r"(.)\1{29}")
_ADVERTISEMENT = re.compile(
    r"\b(?:subscribe to (?:my|our)|(?:join|check out) (?:my|our) (?:server|discord|channel|stream|shop|store)"
    r"|(?:dm|pm|message) me for|promo ?codes?|discount code|free (?:nitro|robux|v-?bucks|crypto|bitcoin)"
    r"|(?:click|tap) (?:the|this|my) link|link in (?:my )?bio|onlyfans|make \$?\d+ (?:a|per) (?:day|week|hour)"
    r"|this action was performed automatically|i am a bot|beep boop)\b",
    re.IGNORECASE,
)
_LINK = "[link]"
_OTHER_PLACEHOLDERS = re.compile("|".join(re.escape(found) for found in sorted(PLACEHOLDERS) if found != _LINK))


def is_too_long(example: Example) -> bool:
    context = sum(len(message.content) for message in example.messages)
    return len(example.reply) > MAX_REPLY_CHARACTERS or context > MAX_CONTEXT_CHARACTERS


def is_too_short(example: Example) -> bool:
    """Not one word or emoji; "k" and "L" are replies."""
    return not (_LETTER_OR_DIGIT.search(example.reply) or _EMOJI.search(example.reply))


def is_emoji_only(example: Example) -> bool:
    return not _LETTER_OR_DIGIT.search(_EMOJI.sub("", example.reply))


def is_command(example: Example) -> bool:
    """The reply, or what it answers, speaks to a bot."""
    return bool(_COMMAND.match(example.reply) or _COMMAND.match(example.prompt))


def has_personal_data(example: Example) -> bool:
    """The scrubber found something in the reply; a bot that has learnt such a reply says "[phone]"."""
    return "[" in example.reply and bool(_OTHER_PLACEHOLDERS.search(example.reply))


def is_link_or_spam(example: Example) -> bool:
    reply = example.reply
    return (
        _LINK in reply
        or _STRETCH.search(reply) is not None
        or _ADVERTISEMENT.search(reply) is not None
        or _is_repetitive(reply)
        or _is_mostly_signs(reply)
    )


def _is_repetitive(reply: str) -> bool:
    tokens = reply.casefold().split()
    if len(tokens) <= MAX_REPEATED_TOKEN:
        return False
    uses = max(Counter(tokens).values())
    return uses > MAX_REPEATED_TOKEN and uses * 2 > len(tokens)


def _is_mostly_signs(reply: str) -> bool:
    """ASCII art, walls of emoji and the like."""
    if len(reply) < MIN_WORDY_CHARACTERS:
        return False
    return len(_WORDY.findall(reply)) < MIN_WORDY_SHARE * len(reply)


def has_toxic_reply(example: Example) -> bool:
    """Only the reply is judged: answering a rough message well is worth learning."""
    return is_toxic(example.reply)


TEXT_RULES: tuple[tuple[DropReason, Callable[[Example], bool]], ...] = (
    (DropReason.TOO_LONG, is_too_long),
    (DropReason.TOO_SHORT, is_too_short),
    (DropReason.EMOJI_ONLY, is_emoji_only),
    (DropReason.COMMAND, is_command),
    (DropReason.PERSONAL_DATA, has_personal_data),
    (DropReason.LINK_OR_SPAM, is_link_or_spam),
    (DropReason.TOXIC, has_toxic_reply),
)


def text_fault(example: Example) -> DropReason | None:
    """Why the words of `example` alone keep it out, if they do."""
    return next((reason for reason, fires in TEXT_RULES if fires(example)), None)
