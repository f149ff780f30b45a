"""The rows that are being answered, by slot: decoding rows first, then those whose prompt is still being read."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference.server.cache import SlotCache
from inference.server.generation import Generation
from inference.server.sampler import Draw
from inference.server.text import TextStream
from nocap.domain import AdapterName, SamplingOptions


@dataclass(slots=True, eq=False)
class Row:
    """One request in the engine."""

    generation: Generation
    adapter: AdapterName
    adapter_slot: int | None
    prompt: tuple[int, ...]
    sampling: SamplingOptions
    draw: Draw
    stream: TextStream | None
    """Set where text is wanted while it arrives or stop strings are to be found."""
    submitted: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    """On the monotonic clock; a reply that is not over by then is given up."""
    generated: list[int] = field(default_factory=list)
    prompt_read: int = 0
    prompt_reused: int = 0
    """Of the prompt, what the prefix cache spared."""
    last_token_at: float = 0.0

    @property
    def cache_extent(self) -> int:
        """Keys and values that may be in use: the prompt's that were read, and one per generated token."""
        return self.prompt_read + len(self.generated)


class Batch:
    """Keeps decoding rows in slots 0 to `decoding`, so that they attend together without copying the cache."""

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self.rows: list[Row] = []
        self.decoding = 0

    @property
    def decoding_rows(self) -> Sequence[Row]:
        return self.rows[: self.decoding]

    @property
    def reading_rows(self) -> Sequence[Row]:
        """Those whose prompt is not wholly in the cache, longest waiting first."""
        return self.rows[self.decoding :]

    def slot_of(self, row: Row) -> int:
        return self.rows.index(row)

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def start_decoding(self, row: Row) -> None:
        """Moves a row whose prompt is read next to the decoding ones."""
        slot, target = self.slot_of(row), self.decoding
        if slot != target:
            other = self.rows[target]
            self._cache.swap(slot, target, max(row.cache_extent, other.cache_extent))
            self.rows[slot], self.rows[target] = other, row
        self.decoding += 1

    def remove(self, row: Row, *, clear: bool = False) -> None:
        """Frees a row's slot and closes the gap; `clear` wipes what it leaves in the cache."""
        slot = self.slot_of(row)
        if clear:
            self._cache.clear(slot)
        if slot < self.decoding:
            self.decoding -= 1
            self._fill_gap(slot, self.decoding)
            slot = self.decoding
        for source in range(slot + 1, len(self.rows)):
            self._fill_gap(source - 1, source)
        self.rows.pop()

    def _fill_gap(self, gap: int, source: int) -> None:
        if gap != source:
            if self.rows[source].cache_extent:
                self._cache.move(source, gap, self.rows[source].cache_extent)
            self.rows[gap] = self.rows[source]
