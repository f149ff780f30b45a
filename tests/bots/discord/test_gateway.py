from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import discord
import pytest
from sqlmodel import select

from bots import messages
from bots.discord.bot import run_discord
from bots.limits import RateLimits
from nocap.domain import Vote
from nocap.errors import ConfigurationError
from storage.tables import Channel
from tests.bots.discord.conftest import DiscordWorld
from tests.bots.process import bots_process
from tests.bots.test_operations import end_a_run
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.discord_objects import ADA, BEN, DM, FAR, GENERAL, MOD, THREAD, Fault
from tests.fakes.discord_server import FakeDiscord

POSTS = f"/channels/{GENERAL}/messages"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """discord.py waits for seconds before it connects anew; nothing here depends on how many."""
    monkeypatch.setattr(discord.backoff.ExponentialBackoff, "delay", lambda self: 0.05)


async def test_a_dropped_gateway_is_resumed_and_what_was_missed_is_answered_once(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        await server.say(ADA, "before")
        await server.until(lambda: len(server.posts()) == 1)
        await server.drop()
        await server.say(ADA, "while the line was down")
        await server.until(lambda: server.resumes)
        await server.until(lambda: len(server.posts()) == 2)
        await server.say(ADA, "after")
        await server.until(lambda: len(server.posts()) == 3)
    assert len(server.identifies) == 1
    assert len(here.bot.backend.chats) == 3


async def test_a_message_that_the_gateway_sends_twice_is_answered_once(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        message = await server.say(ADA, "hi")
        for _ in range(3):
            await server.dispatch("MESSAGE_CREATE", message)
        await server.say(ADA, "the last one")
        await server.until(lambda: len(here.bot.backend.chats) >= 2 and len(server.posts()) >= 2)
    assert len(server.posts()) == 2


async def test_an_invalidated_session_is_begun_anew(here: DiscordWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    server = here.server
    async with here.running():
        await server.until(lambda: server.sessions)
        server.invalidates_resumes = True
        await server.drop()
        await server.until(lambda: len(server.identifies) == 2)
        await server.say(ADA, "hello again")
        await server.until(server.posts)


async def test_heartbeats_keep_coming(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        await server.until(lambda: server.heartbeats >= 3)


async def test_a_storm_of_429_and_5xx_loses_nothing_and_doubles_nothing(here: DiscordWorld) -> None:
    server = here.server
    for status in (429, 502, 429):
        body = {"message": "no", "retry_after": 0.1, "global": False}
        headers = {"Retry-After": "0.1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "0.1"}
        server.faults.append(Fault(POSTS, status, body, headers if status == 429 else {}))
    async with here.running():
        for number in range(3):
            await server.say(ADA, f"hi {number}")
        await server.until(lambda: len(server.posts()) == 3, seconds=25)
    assert len(server.posts()) == 3


async def test_a_429_of_a_proxy_that_discord_py_does_not_know_is_waited_out_too(here: DiscordWorld) -> None:
    server = here.server
    server.faults.append(Fault(POSTS, 429, {"message": "slow down"}, {"Via": "", "Retry-After": "0.1"}))
    async with here.running():
        await server.say(ADA, "hi")
        await server.until(server.posts)


async def test_a_refused_token_is_said_in_one_sentence_with_a_next_step(here: DiscordWorld) -> None:
    with pytest.raises(ConfigurationError, match=r"refuses the token.*developer portal"):
        await run_discord(here.core(), "another-token")


async def test_who_asks_too_fast_is_told_once_and_others_are_not_held_up(here: DiscordWorld) -> None:
    server = here.server
    limits = RateLimits(member_per_minute=2, channel_per_minute=1e6, everyone_per_minute=1e6)
    async with here.running(limits):
        for number in range(6):
            await server.say(ADA, f"hi {number}")
        await server.say(101, "me too")
        await server.until(lambda: len(server.posts()) == 4)
    texts = sorted(one["content"] for one in server.posts())
    assert texts[1:] == ["base speaking"] * 3 and texts[0].startswith("Easy")


async def test_the_gateways_address_and_the_shards_of_a_process_can_be_set(here: DiscordWorld) -> None:
    server = here.server
    here.change_discord(
        gateway_url=f"ws://{server.url}/gateway", shards=4, shard_ids=(0, 2), api_base=f"http://{server.url}/api/v10/"
    )
    async with here.running():
        await server.until(lambda: len(server.identifies) == 2, seconds=30)
        await server.say(ADA, "hi")
        await server.until(server.posts)
    assert [one["shard"] for one in server.identifies] == [[0, 4], [2, 4]]


async def test_a_process_without_the_first_shard_registers_no_commands(here: DiscordWorld) -> None:
    server = here.server
    here.change_discord(shards=2, shard_ids=(1,))
    async with here.running():
        await server.until(lambda: server.sessions)
    assert server.identifies[0]["shard"] == [1, 2]
    assert server.commands == []


async def test_processes_with_a_shard_each_answer_for_their_own_servers(here: DiscordWorld) -> None:
    server = here.server
    here.change_discord(shards=2, shard_ids=(0,))
    async with here.running():
        here.change_discord(shard_ids=(1,))
        async with here.running():
            await server.until(lambda: len(server.sessions) == 2)
            for channel in (GENERAL, FAR, DM):
                await server.say(ADA, "hi", channel=channel)
            await server.until(lambda: len(server.posts()) == 3)
            await server.drop()
            await server.until(lambda: len(server.resumes) == 2)
            await server.say(BEN, "hi", channel=FAR)
            await server.until(lambda: len(server.posts(FAR)) == 2)
    assert [len(server.posts(one)) for one in (GENERAL, FAR, DM)] == [1, 2, 1]
    assert len(server.made("PUT", "/applications/.*/commands")) == 1


async def test_an_event_that_cannot_be_read_costs_nothing_but_itself(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        await server.until(lambda: server.sessions)
        await server.dispatch("MESSAGE_CREATE", {"id": "7", "author": None})
        await server.say(ADA, "hi")
        await server.until(server.posts)
    assert len(server.identifies) == 1 and server.resumes == []


async def test_a_compatible_server_that_lacks_what_is_not_needed_is_good_enough(here: DiscordWorld) -> None:
    server = here.server
    server.is_bare = True
    here.allow_message_content()  # without mentions it would not be shown what is said
    here.change_discord(gateway_url=f"ws://{server.url}/gateway")
    async with here.running():
        await server.until(lambda: server.sessions)
        await server.say(ADA, "hi")
        await server.until(server.posts)
        asked = await server.command(ADA, "ask", text="and you?")
        await server.until(lambda: any("base speaking" in text for text in asked.texts))
        up = server.posts()[0]["components"][0]["components"][0]["custom_id"]
        assert (await server.press(BEN, up, server.posts()[0])).texts == [messages.voted(Vote.UP)]


async def test_two_processes_with_a_shard_each_answer_every_message_once(tmp_path: Path) -> None:
    async with FakeDiscord() as server, serve(FakeBackend()) as backend, AsyncExitStack() as processes:
        server.shards = 2
        for shard in (0, 1):
            section = (
                f'[discord]\ntoken = "{server.token}"\napi_base = "http://{server.url}/api/v10"\n'
                f"shards = 2\nshard_ids = [{shard}]\n"
            )
            process = bots_process(tmp_path, backend, section, name=f"shard{shard}")
            await (await processes.enter_async_context(process)).until_ready()
        assert [one["shard"] for one in server.identifies] == [[0, 2], [1, 2]]
        for channel in (GENERAL, FAR, DM):
            await server.say(ADA, "hi", channel=channel)
        await server.until(lambda: len(server.posts()) == 3)
        await server.drop()
        await server.until(lambda: len(server.resumes) == 2, seconds=30)
        await server.say(BEN, "hi", channel=FAR)
        await server.until(lambda: len(server.posts(FAR)) == 2)
        assert [len(server.posts(one)) for one in (GENERAL, FAR, DM)] == [1, 2, 1]
        assert len(server.made("PUT", "/applications/.*/commands")) == 1
        assert server.violations == []


async def test_a_server_that_throws_the_bot_out_costs_nothing_but_its_own_answers(here: DiscordWorld) -> None:
    server = here.server
    here.bot.backend.gate = asyncio.Event()
    async with here.running():
        await server.say(ADA, "hi")
        await server.until(lambda: here.bot.backend.chats)
        await server.kick()
        here.bot.backend.gate.set()
        await server.until(lambda: server.made("POST", f"/channels/{GENERAL}/messages"))
        await server.say(ADA, "hi", channel=DM)
        await server.until(lambda: server.posts(DM))
    assert server.posts(GENERAL) == []
    assert len(server.made("POST", f"/channels/{GENERAL}/messages")) == 1


async def test_a_renamed_channel_is_the_same_channel_under_its_new_name(here: DiscordWorld) -> None:
    server = here.server
    async with here.running():
        await server.command(MOD, "channel mode", mode="always")
        await server.rename(GENERAL, "the-lounge")
        for channel in (THREAD, GENERAL):
            await server.say(ADA, "hi", channel=channel)
            await server.until(lambda channel=channel: server.posts(channel))  # type: ignore[misc]
    with here.bot.database.read() as session:
        (row,) = session.exec(select(Channel)).all()
    assert (row.label, row.mode) == ("#the-lounge", "always")


async def test_the_message_content_intent_is_asked_for_only_where_the_settings_say_so(here: DiscordWorld) -> None:
    server, content = here.server, 1 << 15
    async with here.running():
        pass
    here.allow_message_content()
    async with here.running():
        pass
    assert [bool(one["intents"] & content) for one in server.identifies] == [False, True]


async def test_a_server_that_is_not_on_the_list_is_not_served(here: DiscordWorld) -> None:
    server = here.server
    here.change_discord(servers=(999,))
    async with here.running():
        await server.say(ADA, "hi")
        told = await server.command(ADA, "help")
        await server.say(ADA, "in private", channel=20)
        await server.until(lambda: server.posts(20))
    assert "not set up for this server" in told.texts[0]
    assert server.posts(GENERAL) == []


async def test_operators_are_told_how_a_run_ended(here: DiscordWorld) -> None:
    server = here.server
    here.change_discord(notice_channel=GENERAL)
    run = end_a_run(here.bot)
    async with here.running():
        await server.until(server.posts)
    (notice,) = server.posts()
    assert run in notice["content"] and "FAIL  drift" in notice["content"]


async def test_an_ending_process_lets_an_answer_finish(here: DiscordWorld) -> None:
    server = here.server
    here.bot.backend.gate = asyncio.Event()
    async with here.running():
        await server.say(ADA, "hi")
        await server.until(lambda: here.bot.backend.chats)
        asyncio.get_running_loop().call_later(0.3, here.bot.backend.gate.set)
    assert [one["content"] for one in server.posts()] == ["base speaking"]
