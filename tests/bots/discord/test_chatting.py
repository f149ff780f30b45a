from __future__ import annotations

import asyncio

import pytest
from sqlmodel import select

from bots import messages
from nocap.domain import ChannelKey
from storage.messages import recent_messages
from storage.tables import Channel
from tests.bots.discord.conftest import DiscordWorld
from tests.bots.support import until
from tests.fakes import discord_spec
from tests.fakes.backend import Refuse, says
from tests.fakes.discord_objects import (
    ADA,
    BEN,
    BOT,
    DM,
    GENERAL,
    OTHER_BOT,
    PRIVATE_THREAD,
    RANDOM,
    THREAD,
    Fault,
    buttons,
)

POSTS = f"/channels/{GENERAL}/messages"


def prompt(here: DiscordWorld) -> list[str]:
    """What the model was last asked, without the system's part."""
    return [one["content"] for one in here.bot.backend.chats[-1]["messages"] if one["role"] != "system"]


def test_every_request_is_judged_by_discords_own_description() -> None:
    if not discord_spec.is_here():
        pytest.skip("Discord's API description is not in ../shared/specs")
    assert list(discord_spec.violations("POST", POSTS, {"content": 5}))
    assert list(discord_spec.violations("POST", "/nothing/like/it", {}))
    assert not list(discord_spec.violations("POST", POSTS, {"content": "hi"}))


async def test_a_mention_is_answered_in_reply_with_buttons_and_mentions_nobody(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        asked = await server.say(ADA, "hi there")
        await server.until(server.posts)
    (answer,) = server.posts()
    assert answer["content"] == "base speaking"
    assert answer["message_reference"]["message_id"] == asked["id"]
    assert list(buttons(answer)) == ["👍", "👎", "😬", "🚩"]
    (request,) = server.made("POST", POSTS)
    assert request.body["allowed_mentions"] == {"parse": [], "replied_user": False}
    assert prompt(here) == ["hi there"]


async def test_it_types_while_it_thinks(here: DiscordWorld) -> None:
    server = here.server
    here.bot.backend.gate = asyncio.Event()
    async with here.running():
        await server.say(ADA, "think about it")
        await server.until(lambda: server.made("POST", f"/channels/{GENERAL}/typing"))
        assert server.posts() == []
        here.bot.backend.gate.set()
        await server.until(server.posts)


async def test_only_what_is_for_the_bot_is_answered_and_no_bot_or_webhook_ever(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        await server.say(BEN, "not for you", mention=False)
        await server.say(OTHER_BOT, "a bot calls")
        await server.say(BEN, "a webhook calls", webhook_id="55")
        await server.say(BEN, "a pin", type=6)
        await server.say(ADA, "in private", channel=DM)
        await server.until(lambda: server.posts(DM))
        reply = await server.say(ADA, "and in reply", channel=GENERAL, mention=False, reply_to=server.posts(DM)[0])
        await server.until(lambda: server.posts(GENERAL))
    assert [one["message_reference"]["message_id"] for one in server.posts(GENERAL)] == [reply["id"]]
    assert len(here.bot.backend.chats) == 2


async def test_a_long_answer_grows_by_edits_and_ends_in_parts_with_buttons_under_the_last(here: DiscordWorld) -> None:
    server = here.server
    sentences = [f"This is sentence number {number} of many. " for number in range(120)]

    here.bot.backend.models["base"] = says(*sentences)
    here.bot.backend.pause_seconds = 0.03
    async with here.running():
        await server.say(ADA, "tell me everything")
        await server.until(lambda: server.posts() and buttons(server.posts()[-1]))
        posts = server.posts()
    assert len(posts) == 3
    assert all(len(one["content"]) <= 2000 and one["content"].endswith("many.") for one in posts)
    assert " ".join(one["content"] for one in posts) == "".join(sentences).strip()
    assert [bool(buttons(one)) for one in posts] == [False, False, True]
    edits = server.made("PATCH", rf"{POSTS}/\d+")
    assert edits and edits[0].body["content"].endswith("…")
    times = [one.at for one in [*server.made("POST", POSTS), *edits]]
    assert len(times) < len(sentences) / 4


async def test_threads_have_their_own_talk_and_private_ones_their_own_settings(here: DiscordWorld) -> None:
    server = here.server
    async with here.running() as core:
        for channel, text in ((GENERAL, "in general"), (THREAD, "in the thread"), (PRIVATE_THREAD, "in private")):
            await server.say(ADA, text, channel=channel)
            await server.until(lambda channel=channel: server.posts(channel))  # type: ignore[misc]
            assert prompt(here) == [text]
        await server.say(ADA, "go on", channel=THREAD)
        await server.until(lambda: len(server.posts(THREAD)) == 2)
        assert prompt(here) == ["in the thread", "base speaking", "go on"]
        with here.bot.database.read() as session:
            known = {one.key for one in session.exec(select(Channel))}
        assert known == {core.identity.channel(GENERAL), core.identity.channel(PRIVATE_THREAD)}


async def test_a_reply_to_an_answer_continues_it_and_a_quote_of_others_is_read_but_not_kept(
    here: DiscordWorld,
) -> None:
    server = here.server
    async with here.running():
        await server.say(ADA, "about cats")
        first = (await server.until(server.posts))[0]
        await until(lambda: here.is_posted(first))
        await server.say(ADA, "about dogs")
        await server.until(lambda: len(server.posts()) == 2)
        await server.say(BEN, "why?", mention=False, reply_to=first)
        await server.until(lambda: len(server.posts()) == 3)
        assert prompt(here) == ["about cats", "base speaking", "why?"]
        other = server._message(BEN, "my cat is called Kim", RANDOM)
        await server.say(ADA, "what do you make of it?", channel=RANDOM, reply_to=other)
        await server.until(lambda: server.posts(RANDOM))
        assert prompt(here) == ["my cat is called Kim\nwhat do you make of it?"]
    assert b"Kim" not in here.bot.bytes_on_disk()


async def test_pictures_get_a_short_sensible_answer(here: DiscordWorld) -> None:
    server = here.server
    picture = {"id": "1", "filename": "a.png", "size": 1, "url": "http://x/a.png", "proxy_url": "http://x/a.png"}
    async with here.running():
        await server.say(ADA, "", attachments=[picture])
        await server.until(server.posts)
    assert [one["content"] for one in server.posts()] == [messages.SEES_NO_PICTURES]
    assert here.bot.backend.chats == []


async def test_a_reply_whose_ping_is_off_cannot_be_read_and_is_told_so(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        await server.say(ADA, "hi")
        (first,) = await server.until(server.posts)
        await server.say(ADA, "secretly", mention=False, reply_to=first, pings=False)
        await server.until(lambda: len(server.posts()) == 2)
    assert server.posts()[-1]["content"] == messages.REPLY_WITHOUT_PING
    assert len(here.bot.backend.chats) == 1


async def test_names_stand_for_mentions_and_every_emoji_and_script_passes_through(here: DiscordWorld) -> None:
    server = here.server
    text = "مرحبا <:kek:123> 👩🏽‍🚀🏳️‍🌈 \u202eabc\u202c <@101> <#11> <@&5>"
    async with here.running():
        message = await server.say(ADA, text, mentions=[])
        message["mentions"] = []
        await server.until(server.posts)
    assert prompt(here) == ["مرحبا :kek: 👩🏽‍🚀🏳️‍🌈 \u202eabc\u202c @someone #channel @role"]


async def test_a_mass_mention_is_defused_whatever_the_model_says(here: DiscordWorld) -> None:
    server = here.server
    here.bot.backend.models["base"] = says("hey ", "@everyone ", "and @here ", "<@&123> ", "<@100>")
    async with here.running():
        await server.say(ADA, "say @everyone")
        await server.until(server.posts)
    assert "@everyone" not in server.posts()[0]["content"] and "@here" not in server.posts()[0]["content"]
    assert all(
        one.body["allowed_mentions"]["parse"] == [] for one in server.requests if one.body and "content" in one.body
    )


async def test_a_deleted_prompt_leaves_the_database_and_an_edit_replaces_it(here: DiscordWorld) -> None:
    server, bot = here.server, here.bot

    def texts(core_channel: ChannelKey) -> list[str]:
        with bot.database.read() as session:
            return [row.text for row in recent_messages(session, core_channel, 10)]

    async with here.running() as core:
        channel, member = core.identity.channel(GENERAL), core.identity.member(ADA)
        here.collect_with(channel, member)
        asked = await server.say(ADA, "first wording")
        await server.until(server.posts)
        assert texts(channel) == ["first wording"]
        edited = {**asked, "content": f"<@{BOT}> second wording", "edited_timestamp": asked["timestamp"]}
        await server.dispatch("MESSAGE_UPDATE", edited)
        await until(lambda: texts(channel) == ["second wording"])
        gone = {"id": asked["id"], "channel_id": str(GENERAL), "guild_id": "1"}
        await server.dispatch("MESSAGE_DELETE", gone)
        await until(lambda: texts(channel) == [])
        await server.say(ADA, "still here?")
        await server.until(lambda: len(server.posts()) == 2)
        assert "wording" not in str(prompt(here))


async def test_an_answer_to_a_message_that_is_deleted_meanwhile_is_withdrawn(here: DiscordWorld) -> None:
    server, bot = here.server, here.bot
    bot.backend.models["base"] = says(*["many words come here. "] * 400)
    bot.backend.pause_seconds = 0.02
    async with here.running():
        asked = await server.say(ADA, "go")
        await server.until(server.posts)
        await server.dispatch("MESSAGE_DELETE", {"id": asked["id"], "channel_id": str(GENERAL), "guild_id": "1"})
        await server.until(lambda: not server.posts())
    assert server.made("DELETE", rf"{POSTS}/\d+")


async def test_a_backend_that_is_down_gets_one_honest_line_and_a_button_that_tries_again(here: DiscordWorld) -> None:
    server, bot = here.server, here.bot
    bot.backend.faults.append(Refuse(400, message="broken"))
    async with here.running():
        await server.say(ADA, "hello?")
        (failed,) = await server.until(server.posts)
        assert "incident" in failed["content"] and list(buttons(failed)) == ["Try again"]
        stranger = await server.press(BEN, buttons(failed)["Try again"], failed)
        assert stranger.texts == [messages.RETRY_IS_THEIRS]
        await server.press(ADA, buttons(failed)["Try again"], failed)
        await server.until(lambda: server.posts()[0]["content"] == "base speaking")
    assert list(buttons(server.posts()[0])) == ["👍", "👎", "😬", "🚩"]
    assert len(server.posts()) == 1


async def test_where_it_may_not_speak_it_gives_up_quietly_and_goes_on_elsewhere(here: DiscordWorld) -> None:
    server = here.server
    for _ in range(3):
        server.faults.append(Fault(POSTS, 403, {"code": 50013, "message": "Missing Permissions"}))
        server.faults.append(
            Fault(f"/channels/{GENERAL}/typing", 403, {"code": 50013, "message": "Missing Permissions"})
        )
    async with here.running():
        here.bot.backend.pause_seconds = 0.2
        await server.say(ADA, "hi")
        await server.until(lambda: server.made("POST", POSTS))
        await server.say(ADA, "hi", channel=RANDOM)
        await server.until(lambda: server.posts(RANDOM))
    assert server.posts(GENERAL) == []


async def test_forty_channels_at_once_get_one_answer_each(here: DiscordWorld) -> None:
    server = here.server
    server.extra_channels = [server._channel(200 + number) for number in range(40)]
    async with here.running():
        await asyncio.gather(*(server.say(ADA, f"hi {number}", channel=200 + number) for number in range(40)))
        await server.until(lambda: len(server.posts()) == 40)
    assert {one["channel_id"] for one in server.posts()} == {str(200 + number) for number in range(40)}


async def test_always_answers_everything_it_may_read_and_off_nothing(here: DiscordWorld) -> None:
    from bots.callers import Caller
    from bots.moderation import Change, Target
    from nocap.domain import ChannelMode

    server = here.server
    here.allow_message_content()
    async with here.running() as core:
        moderator = Caller("discord", core.identity.member(BEN), is_moderator=True)
        target = Target(core.identity.channel(GENERAL), "#general")
        await core.moderation.change(moderator, [target], Change(mode=ChannelMode.ALWAYS))
        await server.say(ADA, "nobody in particular", mention=False)
        await server.until(server.posts)
        await core.moderation.change(moderator, [target], Change(mode=ChannelMode.OFF))
        await server.say(ADA, "you there?")
        await server.say(ADA, "over here", channel=RANDOM)
        await server.until(lambda: server.posts(RANDOM))
    assert len(server.posts(GENERAL)) == 1
