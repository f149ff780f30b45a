"""Discord and Telegram: whether the token is right and the bot may see what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from nocap.domain import utc_now
from nocap.findings import Finding, ok, problem, warning
from nocap.settings import Settings

DISCORD_API = "https://discord.com/api/v10"
TELEGRAM_API = "https://api.telegram.org"
MESSAGE_CONTENT = (1 << 18) | (1 << 19)
"""GATEWAY_MESSAGE_CONTENT and its form for bots in under 100 servers, in an application's flags."""

CLOCK_DIFFERENCE_SECONDS = 5.0
"""Answers name their second, and may be on their way for some."""


def check_discord(settings: Settings, http: httpx.Client) -> Iterator[Finding]:
    """Asks Discord who the token's application is and which intents it has."""
    if settings.discord.token is None:
        yield ok("discord", "No token is set: there is no Discord bot here.")
        return
    token = settings.discord.token.get_secret_value()
    answer = http.get(f"{DISCORD_API}/applications/@me", headers={"Authorization": f"Bot {token}"})
    if answer.status_code == 401:
        yield problem("discord", "Discord refuses the token.", "reset it in the developer portal under Bot → Token")
        return
    answer.raise_for_status()
    yield from _clock("Discord", answer)
    application = answer.json()
    yield ok("discord", f"The token is that of {application.get('name', 'an application')}.")
    if application.get("flags", 0) & MESSAGE_CONTENT:
        yield ok("discord", "It has the Message Content intent.")
    else:
        yield warning(
            "discord",
            "It lacks the Message Content intent: it sees mentions, replies to it and private messages only.",
            "that is enough for most servers; channels in mode `always` need the intent (developer portal → Bot)",
        )
    if not settings.discord.training_permission_reference:
        yield ok("discord", "Discord messages are never trained on: `discord.training_permission_reference` is unset.")


def check_telegram(settings: Settings, http: httpx.Client) -> Iterator[Finding]:
    """Asks Telegram who the bot is and whether privacy mode hides the groups' messages from it."""
    if settings.telegram.token is None:
        yield ok("telegram", "No token is set: there is no Telegram bot here.")
        return
    token = settings.telegram.token.get_secret_value()
    try:
        answer = http.get(f"{TELEGRAM_API}/bot{token}/getMe")
    except httpx.HTTPError as error:  # its message holds the address, and that the token
        yield problem("telegram", f"Telegram cannot be reached ({type(error).__name__}).", "look at the network")
        return
    if answer.status_code in (401, 404):
        yield problem("telegram", "Telegram refuses the token.", "ask @BotFather for it: /mybots → API Token")
        return
    if not answer.is_success:
        yield problem("telegram", f"Telegram answers {answer.status_code}.", "try again in a minute")
        return
    yield from _clock("Telegram", answer)
    bot = answer.json()["result"]
    yield ok("telegram", f"The token is that of @{bot['username']}.")
    if not bot.get("can_join_groups"):
        yield warning("telegram", "It cannot be added to groups.", "@BotFather: /setjoingroups → Enable")
    if bot.get("can_read_all_group_messages"):
        yield ok("telegram", "Privacy mode is off: it sees every message of its groups.")
    else:
        yield warning(
            "telegram",
            "Privacy mode is on: in groups it sees commands, mentions and replies to it only.",
            "that is enough for mode `mention`; for `always`, @BotFather: /setprivacy → Disable, then add it anew",
        )


def _clock(platform: str, answer: httpx.Response) -> Iterator[Finding]:
    """This machine's clock against the platform's, where the answer tells it."""
    try:
        away = abs((parsedate_to_datetime(answer.headers["Date"]) - utc_now()).total_seconds())
    except (KeyError, ValueError, TypeError):  # none, no date, or one without a zone
        return
    if away > CLOCK_DIFFERENCE_SECONDS:
        yield problem("clock", f"This machine's clock is {away:.0f} s off {platform}'s.", "let it follow an NTP server")
    else:
        yield ok("clock", f"This machine's clock agrees with {platform}'s.")
