"""`nocap bots` as it is started: processes of their own, against platforms and a backend on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from bots.identity import Identity
from nocap.app import BotHealth, bot_platforms, configured_bots, initialise, run_bots
from nocap.domain import VoiceName
from nocap.errors import ConfigurationError
from nocap.settings import DiscordSettings, InferenceSettings, Settings, TelegramSettings, load_settings
from storage.crypto import Keyring
from storage.registry import ensure_voice
from tests.bots.support import START, free_port, until, world
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.discord_objects import ADA, GENERAL, OTHER_BOT, buttons
from tests.fakes.discord_server import FakeDiscord
from tests.fakes.telegram import FakeTelegram

MOST_RESIDENT_BYTES = 150 * 2**20


async def test_the_process_answers_without_torch_in_little_memory_and_ends_when_told(tmp_path: Path) -> None:
    port = free_port()
    async with FakeDiscord() as server, serve(FakeBackend()) as backend:
        file = installation(tmp_path, port, of_discord(server), f'[inference]\nurls = ["{backend}"]')
        async with bots_process(file) as process:
            await server.until(lambda: server.sessions, seconds=60)
            for number in range(5):
                await server.say(ADA, f"hi {number}")
                await server.until(lambda number=number: len(server.posts()) == number + 1)  # type: ignore[misc]
            await server.press(ADA, buttons(server.posts()[0])["👍"], server.posts()[0])
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                assert (await http.get("/healthz")).status_code == 200
                for _ in range(100):  # discord.py counts as ready two seconds after its last server came
                    if (ready := await http.get("/readyz")).status_code == 200:
                        break
                    await asyncio.sleep(0.2)
                assert (ready.status_code, ready.text) == (200, "ready\n")
                figures = (await http.get("/metrics")).text
            assert 'nocap_router_answer_seconds_count{adapter="base"} 5.0' in figures
            assert 'nocap_router_first_piece_seconds_count{adapter="base"} 5.0' in figures
            seen = psutil.Process(process.pid)
            assert seen.memory_info().rss < MOST_RESIDENT_BYTES
            assert not [one.path for one in seen.memory_maps() if "torch" in one.path]
        errors = await process.stderr.read()
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors
    assert server.violations == []
    assert {one["channel_id"] for one in server.posts()} == {str(GENERAL)}


async def test_each_platform_has_a_process_and_one_that_dies_or_is_refused_leaves_the_other_alone(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with FakeDiscord() as discord, FakeTelegram() as telegram, serve(FakeBackend()) as backend:
        telegram.add_bot("7:TEST")
        ada = telegram.person(101, "Ada")
        chat = telegram.private(ada)
        sections = of_discord(discord), of_telegram(telegram), f'[inference]\nurls = ["{backend}"]'
        file = installation(tmp_path, port, *sections)
        async with bots_process(file) as process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await discord.until(lambda: discord.sessions, seconds=60)
            await discord.say(ADA, "hi")
            telegram.say(chat, ada, "hi")
            await discord.until(discord.posts)
            await telegram.answer_in(chat)
            await until_says(http, 200, "ready")
            figures = (await http.get("/metrics")).text
            for platform in ("discord", "telegram"):
                assert f'nocap_router_answer_seconds_count{{adapter="base",platform="{platform}"}} 1.0' in figures

            telegrams, discords = processes(process.pid, "telegram"), processes(process.pid, "discord")
            assert len(telegrams) == len(discords) == 1
            telegrams[0].kill()
            await until_says(http, 503, "telegram: its process does not answer")
            await discord.say(ADA, "still there?")
            await discord.until(lambda: len(discord.posts()) == 2)
            telegram.say(chat, ada, "and you?")
            await telegram.answer_in(chat, 2)
            assert processes(process.pid, "discord") == discords

            discord.token = "another"
            discords[0].kill()
            said = await asyncio.wait_for(process.stderr.readuntil(b"discord: ended with status 2"), 60)
            telegram.say(chat, ada, "and now?")
            await telegram.answer_in(chat, 3)
        said += await process.stderr.read()
    assert process.returncode == 0, said.decode()
    assert b"Traceback" not in said
    assert said.count(b"does not start again") == 1


def installation(folder: Path, port: int, *sections: str) -> Path:
    """A settings file with these sections, and what `nocap init` makes for it."""
    file = folder / "nocap.toml"
    file.write_text("\n".join([f"[metrics]\nbots_port = {port}", *sections]), encoding="utf-8")
    initialise(load_settings(file), file)
    return file


def of_discord(server: FakeDiscord) -> str:
    return f'[discord]\ntoken = "{server.token}"\napi_base = "http://{server.url}/api/v10"'


def of_telegram(server: FakeTelegram) -> str:
    return f'[telegram]\ntoken = "7:TEST"\nbase_url = "{server.url}"'


@asynccontextmanager
async def bots_process(settings: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`nocap bots`, ended by SIGTERM."""
    command = [sys.executable, "-m", "nocap.cli", "--settings", str(settings), "bots"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


def processes(parent: int, platform: str) -> list[psutil.Process]:
    return [one for one in psutil.Process(parent).children() if one.cmdline()[-1:] == [platform]]


async def until_says(http: httpx.AsyncClient, status: int, words: str) -> None:
    """Until `/readyz` has this status and says this."""
    for _ in range(600):
        answer = await http.get("/readyz", timeout=30)
        if answer.status_code == status and words in answer.text:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{answer.status_code} {answer.text!r}, not {status} {words!r}")


async def test_where_every_platform_is_refused_the_command_ends_with_the_next_step(tmp_path: Path) -> None:
    async with FakeDiscord() as discord, FakeTelegram() as telegram:
        file = installation(tmp_path, free_port(), of_discord(discord), of_telegram(telegram))
        discord.token = "another"
        async with bots_process(file) as process:
            errors = await asyncio.wait_for(process.stderr.read(), 60)
            await process.wait()  # a signal to one that just ended would take its status away
    assert process.returncode == 2, errors.decode()
    assert b"nocap: No bot can go on; the lines above say why" in errors


async def test_no_bot_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    async with FakeDiscord() as discord, FakeTelegram() as telegram:
        telegram.add_bot("7:TEST")
        file = installation(tmp_path, free_port(), of_discord(discord), of_telegram(telegram))
        async with bots_process(file) as process:
            await discord.until(lambda: discord.sessions, seconds=60)
            children = psutil.Process(process.pid).children()
            process.kill()
            await process.wait()
            _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
    assert len(children) == 2 and alive == []


async def test_two_voices_live_in_one_process_and_one_that_is_refused_leaves_them_alone(tmp_path: Path) -> None:
    async with FakeDiscord() as server:
        server.more_bots["token-2"] = OTHER_BOT
        section = {
            "token": server.token,
            "voices": {"boomer": "token-2", "other": "wrong-token"},
            "api_base": f"http://{server.url}/api/v10",
        }
        with world(tmp_path, discord=section) as bot:
            assert [(one.platform, one.voice) for one in configured_bots(bot.settings, ["discord"])] == [
                ("discord", "genz"),
                ("discord", "boomer"),
                ("discord", "other"),
            ]
            Keyring.create(bot.settings.key_file, bytes(32))
            with bot.database.write() as session:
                ensure_voice(session, VoiceName("boomer"), "You are a boomer.", [], START)
            async with serve(bot.backend) as backend:
                settings = bot.settings.model_copy(update={"inference": InferenceSettings(urls=(backend,))})
                task = asyncio.create_task(run_bots(settings, bot.database, ["discord"]))
                with capture_logs() as lines:
                    await server.until(lambda: len(server.sessions) == 2)
                    await server.say(ADA, "anybody there?")
                    await server.until(server.posts)
                    await server.say(ADA, "and you?", bot=OTHER_BOT)
                    await server.until(lambda: server.posts(bot=OTHER_BOT))
                    await until(lambda: any((one["event"], one.get("voice")) == ("refused", "other") for one in lines))
                assert not task.done()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            systems = [chat["messages"][0]["content"] for chat in bot.backend.chats]
            assert len(server.posts()) == len(server.posts(bot=OTHER_BOT)) == 1
            assert len(systems) == 2 and systems[1].startswith("You are a boomer.") and systems[0] != systems[1]


async def test_bots_are_ready_only_while_platform_database_and_backend_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeDiscord() as server, serve(FakeBackend()) as backend:
        with world(tmp_path, discord={"token": server.token, "api_base": f"http://{server.url}/api/v10"}) as bot:
            Keyring.create(bot.settings.key_file, bytes(32))
            settings = bot.settings.model_copy(update={"inference": InferenceSettings(urls=(backend,))})
            health = BotHealth(settings, bot.database)

            async def says(cause: str) -> None:
                for _ in range(600):
                    if cause in (seen := await asyncio.to_thread(health.not_ready) or "ready"):
                        return
                    await asyncio.sleep(0.05)
                raise AssertionError(f"{seen!r}, not {cause!r}")

            await says("no bot has started yet")
            task = asyncio.create_task(run_bots(settings, bot.database, ["discord"], health=health))
            await says("ready")
            with monkeypatch.context() as away:
                away.setattr(bot.database, "why_away", lambda: "The database is away.")
                await says("The database is away.")
            with monkeypatch.context() as gone:
                gone.setattr(health, "_settings", bot.settings)
                await says("no inference replica answers at http://127.0.0.1:8651")
            await says("ready")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await says("discord genz: not connected")


async def test_an_address_where_nothing_answers_is_told(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for settings in (
        Settings(data_dir=tmp_path, discord=DiscordSettings(token=SecretStr("x"), api_base=nowhere)),
        Settings(data_dir=tmp_path, telegram=TelegramSettings(token=SecretStr("7:TEST"), base_url=nowhere)),
    ):
        cause = await cause_of_failure(tmp_path, settings)
        assert cause.startswith("the platform cannot be reached; check the network and `discord.api_base`")


async def test_a_wrong_address_is_told_by_what_answers_there(tmp_path: Path) -> None:
    async with FakeDiscord() as server:
        section = DiscordSettings(token=SecretStr(server.token), api_base=f"http://{server.url}/api/v10/elsewhere")
        cause = await cause_of_failure(tmp_path, Settings(data_dir=tmp_path, discord=section))
    assert cause.startswith("the platform answers 404; check the network and `discord.api_base`")


async def cause_of_failure(folder: Path, settings: Settings) -> str:
    """What the log gives as the reason why the bot failed."""
    with world(folder) as bot, capture_logs() as lines:
        if not settings.key_file.exists():
            Keyring.create(settings.key_file, bytes(32))
        task = asyncio.create_task(run_bots(settings, bot.database, bot_platforms(settings)))
        await until(lambda: any(one["event"] == "failed" for one in lines))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return next(str(one["cause"]) for one in lines if one["event"] == "failed")


async def test_no_bot_at_all_is_said_with_the_next_step(tmp_path: Path) -> None:
    with world(tmp_path) as bot, pytest.raises(ConfigurationError, match=r"discord\.token"):
        await run_bots(bot.settings, bot.database, bot_platforms(bot.settings))


def test_a_second_voice_has_chats_of_its_own() -> None:
    keyring = Keyring(bytes(32))
    first, second = Identity(keyring, "discord"), Identity(keyring, "discord", "other")
    assert first.member(5) == second.member(5)
    assert first.channel(10) != second.channel(10)
    assert first.message(10, 7) != second.message(10, 7)
