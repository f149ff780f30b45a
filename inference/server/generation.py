"""A request to the engine, the handle that a caller holds, and the finished reply."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from nocap.domain import AdapterName, ChatMessage, SamplingOptions
from nocap.errors import InferenceError

FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: an end token or a stop string; `length`: `max_tokens` reached; `cancelled`: the caller went away."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to answer, and as whom; `prompt_token_ids` stands in for `messages` where it is given."""

    adapter: AdapterName
    messages: tuple[ChatMessage, ...] = ()
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    prompt_token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished reply; `token_ids` are all that were drawn, an end token or a stop string's included."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    adapter: AdapterName
    prompt_tokens: int
    reused_tokens: int
    """Of the prompt, those that the prefix cache held."""


Event = str | Completion | InferenceError
"""A piece of text, then either the whole reply or why there is none."""


class Generation:
    """A running request, usable from any thread. Iterating gives the pieces of text, once, if it streams."""

    def __init__(
        self,
        adapter: AdapterName,
        on_cancel: Callable[[], None],
        wants_pieces: bool,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.adapter = adapter
        self._wants_pieces = wants_pieces
        self.cancelled = False
        self._on_cancel = on_cancel
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._emit = on_event or self._events.put
        self._over = threading.Event()
        self._outcome: Completion | InferenceError | None = None

    def __iter__(self) -> Iterator[str]:
        while isinstance(event := self._events.get(), str):
            yield event
        if isinstance(event, InferenceError):
            raise event

    def cancel(self) -> None:
        """Ends the request before its next token; a finished one stays as it is."""
        self.cancelled = True
        self._on_cancel()

    def result(self, timeout_seconds: float | None = None) -> Completion:
        """The whole reply. Raises InferenceError where the request failed, TimeoutError where it is not over yet."""
        if not self._over.wait(timeout_seconds):
            raise TimeoutError(f"no reply within {timeout_seconds} s")
        if isinstance(self._outcome, Completion):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome

    def add_text(self, piece: str) -> None:
        """For the engine: hands a piece to whoever listens for pieces."""
        if piece and self._wants_pieces:
            self._emit(piece)

    def close(self, outcome: Completion | InferenceError) -> None:
        """For the engine: ends the request."""
        self._outcome = outcome
        self._over.set()
        self._emit(outcome)
