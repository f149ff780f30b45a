"""Ctrl-C that ends what is being done, not the program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Interrupted(Exception):
    """Ctrl-C ended the work."""


class Interrupts:
    """While entered, Ctrl-C cancels the work that `run` waits for, and nothing else."""

    def __init__(self) -> None:
        self._running: asyncio.Future[Any] | None = None
        self._is_handling = False

    def __enter__(self) -> Interrupts:
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.interrupt)
            self._is_handling = True
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # not the main thread, or a platform without signal handlers on its loop
        return self

    def __exit__(self, *failure: object) -> None:
        if self._is_handling:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    async def run(self, work: Awaitable[Result]) -> Result:
        """The work's result; raises Interrupted where Ctrl-C ended it."""
        task = asyncio.ensure_future(work)
        self._running = task
        try:
            await asyncio.wait({task})
        finally:
            self._running = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise Interrupted
        return task.result()

    def interrupt(self) -> None:
        if self._running is not None:
            self._running.cancel()
