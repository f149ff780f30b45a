"""`nocap bots` as it is started, against a Telegram and a backend on loopback, by nothing but settings."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.bots.process import bots_process
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_objects import buttons

MOST_RESIDENT_BYTES = 150 * 2**20


async def test_the_process_answers_without_torch_in_little_memory_and_ends_when_told(tmp_path: Path) -> None:
    async with FakeTelegram() as telegram, serve(FakeBackend()) as backend:
        telegram.add_bot("7:TEST")
        ada = telegram.person(101, "Ada")
        chat = telegram.private(ada)
        telegram.say(chat, ada, "are you there yet?")
        section = f'[telegram]\ntoken = "7:TEST"\nbase_url = "{telegram.url}"\n'
        async with bots_process(tmp_path, backend, section) as process:
            answer = await telegram.answer_in(chat)
            query = telegram.press(answer, "👍", ada)
            await telegram.answered(query)
            seen = psutil.Process(process.pid)
            assert seen.memory_info().rss < MOST_RESIDENT_BYTES
            assert not [one.path for one in seen.memory_maps() if "torch" in one.path]
    assert "7:TEST" not in process.log
    assert answer["text"] == "base speaking" and buttons(answer)
    assert telegram.violations == []
