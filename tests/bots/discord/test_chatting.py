from __future__ import annotations

from tests.bots.discord.conftest import DiscordWorld
from tests.fakes.discord_server import ADA, BOT, GENERAL, buttons


async def test_a_mention_is_answered_in_reply_with_buttons_and_mentions_nobody(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        asked = await server.say(ADA, "hi there")
        await server.until(lambda: server.posts())
    (answer,) = server.posts()
    assert answer["content"] == "base speaking"
    assert answer["message_reference"]["message_id"] == asked["id"]
    assert list(buttons(answer)) == ["👍", "👎", "😬", "🚩"]
    (request,) = server.made("POST", f"/channels/{GENERAL}/messages")
    assert request.body["allowed_mentions"]["parse"] == []
    assert here.bot.backend.chats[-1]["messages"][-1]["content"] == "hi there"
    assert str(BOT) not in str(here.bot.backend.chats[-1]["messages"])
