"""What members read on Telegram alone; all else stands in `bots.messages` and `bots.staff_messages`."""

from __future__ import annotations

HELP = """\
I'm a bot that speaks this community's slang; I get things wrong, so don't rely on me.
Mention me, reply to me or write to me in private and I answer. Under each answer: 👍, 👎 or cringe; the same button \
again takes the vote back.
/ask TEXT: ask me
/duel TEXT: two hidden voices answer, you pick
/slang TERM: what it means; /slang trending: what's new
/consent: what you may agree to, and what you have agreed to
/mydata export: everything held about you; /mydata delete erases it
/forget as a reply to your own message: I forget that one
/report as a reply to an answer: tell this chat's moderators
/whatsnew: what I learnt last
/privacy: what is kept and what isn't"""

MODERATOR_HELP = """\
For this chat's administrators:
/channel status, enable, disable
/channel mode mention, always or off
/channel collect on or off, /channel duels on or off
/channel voice NAME, /channel purge
/slang queue, /slang approve TERM: MEANING, /slang dismiss TERM (no slang), /slang block TERM (never said)
/reports"""

OPERATOR_HELP = "/nocap status, retrain now, runs, gates RUN, adapters, rollback [ADAPTER], promote ADAPTER"

WELCOME_GROUP = """\
Hi all, I'm a bot: a language model, not a person. Mention me or reply to me and I answer; /help says the rest.
Nothing that you write is stored unless you say so yourself (/consent) and this chat's administrators switch \
collecting on; /privacy has all of it."""

DESCRIPTION = """\
I'm a bot: a language model that picks up how its community talks, not a person. Nothing that you write is stored \
unless you say so: /consent and /privacy tell you what and why."""
SHORT_DESCRIPTION = "A bot that speaks its community's slang. Not a person. /privacy says what is kept."

MYDATA_USAGE = "Either /mydata export or /mydata delete."
ASK_USAGE = "Say what you want to know: /ask TEXT."
CHANNEL_USAGE = MODERATOR_HELP
REPLY_TO_FORGET = "Reply with /forget to the message of yours that I should forget."
NOT_YOURS = "Only your own messages are yours to take back."
FORGOTTEN = "Forgotten, and my answer to it too. (Telegram tells bots nothing of deleted messages, so this is the way.)"
EXPORT_CAPTION = "Everything held about you, your own texts too, so look after it."
NOT_FOR_YOU = "That button is not for you."
PROMPT_IS_GONE = "I can't see what you asked any more. Ask again, please."
BUTTON_IS_OLD = "That button is from an older version of me. Ask again, please."
IN_PRIVATE = "That's between you and me: I've written to you in private."
OPEN_PRIVATE = "That's between you and me. Open our private chat, please:"
OPEN_LABEL = "open our private chat"
PRIVACY_MODE = (
    "Mind: Telegram's privacy mode is on for me, so I only see commands, mentions and replies here. Make me an"
    " administrator, or have my owner switch it off at @BotFather (/setprivacy) and add me again."
)


def consent_in(label: str | None, overview: str) -> str:
    return f"About “{label}”:\n{overview}" if label else overview


def privacy_mode_warning(username: str | None) -> str:
    return f"privacy mode is on for @{username}: in groups it only sees commands, mentions and replies"
