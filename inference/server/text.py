"""Token ids to text while they arrive: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex  # type: ignore[import-untyped]

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_GRAPHEME = regex.compile(r"\X")


class TextStream:
    """Decodes one reply. The pieces that `push` and `finish` give, joined, are `text`.

    A piece never ends inside a character, an emoji sequence or a combining sequence (the last grapheme cluster waits
    for what follows it), nor inside what may become a stop string. From a stop string on, nothing is given out.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._token_ids: list[int] = []
        self._window_start = 0
        self._window_read = 0
        self._pending = ""
        self._given: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        return "".join(self._given)

    def push(self, token_id: int) -> str:
        """The text that is certain now; `stopped` tells whether a stop string has ended the reply."""
        self._token_ids.append(token_id)
        self._decode_window(final=False)
        return self._give(self._certain())

    def finish(self) -> str:
        """What was still held back."""
        if self.stopped:
            return ""
        self._decode_window(final=True)
        self._certain()
        return self._give(len(self._pending))

    def _decode_window(self, *, final: bool) -> None:
        """Decodes with the tokens before as context, for sentencepiece drops the space of a first word."""
        before = decode(self._tokenizer, self._token_ids[self._window_start : self._window_read])
        now = decode(self._tokenizer, self._token_ids[self._window_start :])
        if len(now) > len(before) and (final or not now.endswith(_UNFINISHED)):
            self._pending += now[len(before) :]
            self._window_start, self._window_read = self._window_read, len(self._token_ids)

    def _certain(self) -> int:
        """How many characters of the pending text may go out; cuts it where a stop string begins."""
        found = [place for stop in self._stop if (place := self._pending.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._pending = self._pending[: min(found)]
            return len(self._pending)
        clusters = _GRAPHEME.findall(self._pending)
        return min(len(self._pending) - len(clusters[-1]) if clusters else 0, self._possible_stop())

    def _possible_stop(self) -> int:
        """Where a stop string may have begun at the end of the pending text."""
        held = (
            size
            for stop in self._stop
            for size in range(min(len(stop) - 1, len(self._pending)), 0, -1)
            if self._pending.endswith(stop[:size])
        )
        return len(self._pending) - max(held, default=0)

    def _give(self, characters: int) -> str:
        piece, self._pending = self._pending[:characters], self._pending[characters:]
        if piece:
            self._given.append(piece)
        return piece


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of `token_ids` without special tokens."""
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
