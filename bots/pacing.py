"""A streaming answer as the few snapshots that a chat platform lets one edit."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable


async def snapshots(
    pieces: AsyncIterable[str], every_seconds: float, monotonic: Callable[[], float] = time.monotonic
) -> AsyncGenerator[str, None]:
    """The text so far, at most once in `every_seconds`, and not the whole: that is for the caller to show.

    The first snapshot comes after one interval, so a quick answer is shown once and never edited.
    """
    said = shown = ""
    last = monotonic()
    async for piece in pieces:
        said += piece
        now = monotonic()
        if now - last >= every_seconds and said.strip() and said != shown:
            yield said
            shown, last = said, monotonic()
