"""`nocap chat` as a process of its own, over a fake backend that hangs in the middle of "hang"."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from rich.console import Console

from bots.terminal.chat import chat_in_terminal
from nocap.observability.logs import configure_logging
from tests.bots.support import VOICE, world
from tests.fakes.backend import Hang


async def main(folder: Path) -> None:
    with world(folder) as bot:

        def answer(prompt: list[dict[str, str]]) -> list[str]:
            if prompt[-1]["content"] == "hang":
                return ["thinking ", "very ", "hard "] * 5
            return [f"you said {prompt[-1]['content']}"]

        bot.backend.models["base"] = answer
        handle = bot.backend._chat

        def chat(body: dict[str, object]) -> object:
            if "hang" in str(body["messages"][-1]):  # type: ignore[index]
                bot.backend.faults.append(Hang(after=9))
            return handle(body)

        bot.backend._chat = chat  # type: ignore[assignment,method-assign]
        await chat_in_terminal(bot.conversation, user="someone", voice=VOICE, console=Console())


if __name__ == "__main__":
    configure_logging(logging.WARNING, process="chat")
    asyncio.run(main(Path(sys.argv[1])))
