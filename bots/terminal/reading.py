"""Lines from standard input without blocking the event loop, from a terminal or a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import Protocol

CHUNK_BYTES = 65_536


class ReadLine(Protocol):
    async def __call__(self, prompt: str) -> str | None:
        """The next line without its end; None after the last."""
        ...


class StandardInput:
    """Reads each line in a daemon thread, so that neither waiting nor leaving is held up by a silent input.

    At a terminal the line can be edited and earlier ones of this session come back by the arrow keys; they are
    never written to a file. From a pipe no prompt is printed.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)
        self._buffer = b""

    async def __call__(self, prompt: str) -> str | None:
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str | None] = loop.create_future()
        mode = self._terminal_mode()
        threading.Thread(target=self._deliver, args=(loop, line, prompt), daemon=True).start()
        try:
            return await line
        except asyncio.CancelledError:
            self._restore(mode)
            raise

    def _deliver(self, loop: asyncio.AbstractEventLoop, line: asyncio.Future[str | None], prompt: str) -> None:
        text = self._ask(prompt) if self._is_terminal else self._next_line()
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None if line.done() else line.set_result(text))

    def _ask(self, prompt: str) -> str | None:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        try:
            return input(prompt)
        except (EOFError, OSError):
            return None

    def _next_line(self) -> str | None:
        """By `os.read`: a thread that still waits inside a buffered reader would hang the interpreter's exit."""
        while b"\n" not in self._buffer:
            chunk = os.read(self._descriptor, CHUNK_BYTES)
            if not chunk:
                rest, self._buffer = self._buffer, b""
                return _decoded(rest) if rest else None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return _decoded(line)

    def _terminal_mode(self) -> list[object] | None:
        if not self._is_terminal:
            return None
        import termios

        return list(termios.tcgetattr(self._descriptor))

    def _restore(self, mode: list[object] | None) -> None:
        """The line editor was left in the middle of a line and has changed how the terminal echoes."""
        if mode is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)  # type: ignore[arg-type]


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", errors="replace")
