"""A turn as a platform sees it: pieces of text to show, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from enum import StrEnum

from inference.responder import ReplyStream
from nocap.domain import AdapterName


class Outcome(StrEnum):
    """How a turn ended; only an answered one has a reply that can be voted on."""

    OPEN = "open"
    ANSWERED = "answered"
    NOTICE = "notice"
    """A friendly sentence instead of an answer: too fast, nothing to read, nothing to say."""
    SILENT = "silent"
    """Nothing is to be said: the channel is switched off, or the member was told already."""
    FAILED = "failed"


class Turn:
    """An answer: iterate its pieces once. `text`, `reply_id` and `outcome` are final after the end."""

    def __init__(self, adapter: AdapterName | None = None) -> None:
        self.adapter = adapter
        self.outcome = Outcome.OPEN
        self.reply_id: int | None = None
        self.incident: str | None = None
        self.text = ""
        self._pieces: AsyncGenerator[str, None] | None = None
        self._stream: ReplyStream | None = None

    @classmethod
    def saying(cls, sentence: str, outcome: Outcome, incident: str | None = None) -> Turn:
        """A turn that says one sentence of our own, or nothing."""
        turn = cls()
        turn.outcome, turn.incident = outcome, incident
        return turn.streaming(_once(sentence))

    def streaming(self, pieces: AsyncGenerator[str, None], stream: ReplyStream | None = None) -> Turn:
        """This turn, with what it will say and the answer behind it, which ends with the turn."""
        self._pieces, self._stream = pieces, stream
        return self

    async def __aiter__(self) -> AsyncIterator[str]:
        assert self._pieces is not None, "a turn is given its pieces before it is handed out"
        async for piece in self._pieces:
            self.text += piece
            yield piece

    async def aclose(self) -> None:
        """Ends the answer early; nothing of it is recorded."""
        if self._pieces is not None:
            await self._pieces.aclose()
        if self._stream is not None:
            await self._stream.aclose()


async def _once(sentence: str) -> AsyncGenerator[str, None]:
    if sentence:
        yield sentence
