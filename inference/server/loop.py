"""The in-flight loop: one thread owns the model, and requests enter and leave the batch between its steps.

    callers ──enqueue──▶ waiting ──▶ batch (reading prompts | decoding) ──▶ Generation
    callers ──between_steps──▶ commands (fill or clear an adapter slot)

The queue and the adapters' names are shared under one lock; everything else here belongs to the loop's thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import structlog
import torch

from inference.base_model import BaseModel
from inference.server.batch import Batch, Row
from inference.server.generation import Completion, FinishReason, Generation
from inference.server.metrics import EngineMetrics
from inference.server.prefixes import PrefixCache
from inference.server.registry import AdapterRegistry
from inference.server.runner import ModelRunner
from inference.server.sampler import choose_tokens
from inference.server.text import decode
from nocap.domain import AdapterName
from nocap.errors import BackendBusy, BackendUnavailable, InferenceError

PREFILL_TOKENS_PER_STEP = 256
"""Prompt tokens read in one step, so that running streams do not stall."""

FINISH_POLL_SECONDS = 0.05
"""Between two looks at whether the last reply is over."""

log = structlog.get_logger(__name__)


class Loop:
    """Answers the rows that are enqueued, until it is stopped."""

    def __init__(
        self,
        base: BaseModel,
        runner: ModelRunner,
        registry: AdapterRegistry,
        metrics: EngineMetrics,
        lock: threading.Condition,
        *,
        max_queue: int,
        prefix_cache_bytes: int,
    ) -> None:
        self._base = base
        self._runner = runner
        self._registry = registry
        self._metrics = metrics
        self._lock = lock
        self._max_queue = max_queue
        self._batch = Batch(runner.cache)
        self._prefixes = PrefixCache(runner.cache, prefix_cache_bytes)
        self._row_limit = runner.cache.slots
        self._waiting: deque[Row] = deque()
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._cancellations = False
        self._draining = False
        self._stopping = False
        self._mean_seconds = 1.0
        self._thread = threading.Thread(target=self._run, name="nocap-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fails what is still running and returns when the thread has ended."""
        with self._lock:
            self._draining = self._stopping = True
            self._lock.notify_all()
        self._thread.join()

    def drain(self) -> None:
        """Refuses new requests from now on; those accepted are answered."""
        with self._lock:
            self._draining = True

    def finish(self) -> None:
        """Refuses new requests, answers those accepted, and returns when the thread has ended."""
        self.drain()
        with self._lock:
            while self.is_alive and (self._waiting or self._batch.rows):
                self._lock.wait(FINISH_POLL_SECONDS)
        self.stop()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        return self.is_alive and not self._draining

    def enqueue(self, row: Row, *, bounded: bool) -> Generation:
        """The row's handle, once it waits for its turn. Raises BackendUnavailable, BackendBusy or UnknownAdapter."""
        with self._lock:
            if self._draining or not self.is_alive:
                raise BackendUnavailable("This server is shutting down; ask another one, or this one in a minute.")
            if bounded and len(self._waiting) >= self._max_queue:
                turns = (len(self._waiting) + len(self._batch.rows)) / self._runner.cache.slots
                seconds = min(max(1.0, round(turns * self._mean_seconds)), 60.0)
                raise BackendBusy(f"{len(self._waiting)} requests are waiting already; try again.", seconds)
            row.adapter_slot = self._registry.acquire(row.adapter)
            self._waiting.append(row)
            self._lock.notify_all()
        return row.generation

    def forget_prefixes(self, adapter: AdapterName) -> None:
        """For `between_steps`: drops what was computed with an adapter that is gone."""
        self._prefixes.drop(adapter)

    def note_cancellation(self) -> None:
        """Makes the loop look for cancelled generations before its next step."""
        with self._lock:
            self._cancellations = True
            self._lock.notify_all()

    def between_steps(self, change: Callable[[], Any]) -> None:
        """Runs `change` on the engine's thread and returns when it is done."""
        future: Future[Any] = Future()
        with self._lock:
            if not self.is_alive or self._stopping:
                raise BackendUnavailable("This server is shutting down; nothing was changed.")
            self._commands.append((change, future))
            self._lock.notify_all()
        future.result()

    # From here on: the loop's own thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._next_turn():
                    started = time.perf_counter()
                    self._turn()
                    self._observe()
                    self._metrics.step.observe(time.perf_counter() - started)
        except BaseException:
            log.exception("engine died")
            raise
        finally:
            self._close_everything()

    def _next_turn(self) -> bool:
        """Waits for work, runs commands, lets requests in. False when the engine is to stop."""
        with self._lock:
            while not (self._stopping or self._commands or self._waiting or self._batch.rows):
                self._lock.wait()
            commands = list(self._commands)
            self._commands.clear()
            if self._stopping:
                self._commands.extend(commands)
                return False
            cancellations, self._cancellations = self._cancellations, False
            dropped = self._drop_from_queue()
            admitted = self._admit()
        for change, future in commands:
            self._apply(change, future)
        for row in dropped:
            self._close(row, self._completion(row, "cancelled") if row.generation.cancelled else _too_late())
        for row in admitted:
            self._reuse_prefix(row)
        for row in [row for row in self._batch.rows if row.deadline < time.monotonic()]:
            self._fail(row, _too_late())
        if cancellations:
            for row in [row for row in self._batch.rows if row.generation.cancelled]:
                self._finish(row, "cancelled")
        return True

    def _admit(self) -> list[Row]:
        """Lets waiting requests into the batch; fewer than it holds for a while after memory ran out."""
        room = max(0, self._row_limit - len(self._batch.rows))
        admitted = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        for row in admitted:
            self._batch.add(row)
        return admitted

    def _reuse_prefix(self, row: Row) -> None:
        try:
            row.prompt_read = row.prompt_reused = self._prefixes.restore(
                row.adapter, row.prompt, self._batch.slot_of(row)
            )
        except Exception as error:
            log.error("a prefix could not be reused", adapter=row.adapter, error=repr(error))
        self._metrics.prefix(len(row.prompt), row.prompt_reused)

    def _keep_prefix(self, row: Row) -> None:
        """What the row's slot holds is kept: its logits were finite, so its keys and values are."""
        if row.prompt_read < len(row.prompt) or not row.generated:
            return
        try:
            tokens = [*row.prompt, *row.generated[:-1]]
            self._prefixes.keep(row.adapter, tokens, self._batch.slot_of(row))
        except Exception as error:
            log.error("a prefix could not be kept", adapter=row.adapter, error=repr(error))

    def _drop_from_queue(self) -> list[Row]:
        now = time.monotonic()
        dropped = [row for row in self._waiting if row.generation.cancelled or row.deadline < now]
        for row in dropped:
            self._waiting.remove(row)
        return dropped

    def _apply(self, change: Callable[[], Any], future: Future[Any]) -> None:
        started = time.perf_counter()
        try:
            future.set_result(change())
        except Exception as error:
            future.set_exception(error)
        self._metrics.swap_pause.observe(time.perf_counter() - started)

    def _observe(self) -> None:
        self._metrics.running.set(len(self._batch.rows))
        self._metrics.waiting.set(len(self._waiting))
        used = sum(row.cache_extent for row in self._batch.rows)
        self._metrics.cache_usage.set(used / (self._runner.cache.slots * self._runner.cache.max_length))

    def _turn(self) -> None:
        """One forward: the next token of every decoding row, and the next pieces of prompts."""
        rows = list(self._batch.decoding_rows)
        pieces: list[Sequence[int]] = [row.generated[-1:] for row in rows]
        starts = [row.prompt_read + len(row.generated) - 1 for row in rows]
        room = PREFILL_TOKENS_PER_STEP
        for row in self._batch.reading_rows:
            piece = row.prompt[row.prompt_read : row.prompt_read + room]
            rows.append(row)
            pieces.append(piece)
            starts.append(row.prompt_read)
            room -= len(piece)
            if not room:
                break
        if rows:
            self._forward(0, rows, pieces, starts)

    def _forward(
        self, first_slot: int, rows: list[Row], pieces: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> None:
        """A step for rows in neighbouring slots. Where it fails, halves are tried, so that only a bad row fails."""
        outcomes = self._attempt(first_slot, rows, pieces, starts)
        # First the books, then the consequences: a row that leaves makes others move, by what their books say.
        for row, piece in zip(rows, pieces, strict=True):
            row.prompt_read = min(row.prompt_read + len(piece), len(row.prompt))
        for row, outcome in zip(rows, outcomes, strict=True):
            try:
                if isinstance(outcome, InferenceError):
                    self._fail(row, outcome)
                elif row.prompt_read == len(row.prompt):
                    self._accept(row, outcome)
            except Exception as error:
                log.exception("a reply could not be put together", adapter=row.adapter)
                if row in self._batch.rows:
                    self._fail(row, _unexpected(error))

    def _attempt(
        self, first_slot: int, rows: list[Row], pieces: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> list[int | InferenceError]:
        try:
            logits_BV = self._runner.logits(first_slot, pieces, starts, [row.adapter_slot for row in rows])
        except Exception as error:
            if _is_out_of_memory(error):
                self._shed_load(len(rows))
            if len(rows) == 1:
                log.error("a request failed in the model", adapter=rows[0].adapter, error=repr(error))
                return [_unexpected(error)]
            half = len(rows) // 2
            return [
                *self._attempt(first_slot, rows[:half], pieces[:half], starts[:half]),
                *self._attempt(first_slot + half, rows[half:], pieces[half:], starts[half:]),
            ]
        try:
            tokens = choose_tokens(logits_BV, [row.draw for row in rows])
        except Exception as error:
            log.error("a step failed in the sampler", rows=len(rows), error=repr(error))
            return [_unexpected(error) for _ in rows]
        return [_NOT_FINITE if token is None else token for token in tokens]

    def _shed_load(self, rows: int) -> None:
        """Half as many requests at a time from now on; each that finishes gives one place back."""
        log.error("out of memory", rows=rows)
        self._row_limit = max(1, min(self._row_limit, rows // 2))
        if self._runner.cache.device.type == "cuda":
            torch.cuda.empty_cache()

    def _accept(self, row: Row, token: int) -> None:
        now = time.monotonic()
        is_first = not row.generated
        row.generated.append(token)
        if is_first:
            self._keep_prefix(row)
            self._batch.start_decoding(row)
            self._metrics.first_token(row.adapter, now - row.submitted)
        if token in self._base.stop_token_ids:
            self._finish(row, "stop")
            return
        if row.stream is not None:
            row.generation.add_text(row.stream.push(token))
            if row.stream.stopped:
                self._finish(row, "stop")
                return
        if len(row.generated) >= row.sampling.max_tokens:
            self._finish(row, "length")

    def _finish(self, row: Row, reason: FinishReason) -> None:
        self._keep_prefix(row)
        self._batch.remove(row)
        self._row_limit = min(self._row_limit + 1, self._runner.cache.slots)
        if row.stream is not None:
            row.generation.add_text(row.stream.finish())
        seconds = time.monotonic() - row.submitted
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        self._metrics.finished(row.adapter, reason, len(row.prompt), len(row.generated), seconds)
        self._close(row, self._completion(row, reason))

    def _fail(self, row: Row, error: InferenceError) -> None:
        self._batch.remove(row, clear=True)
        self._metrics.failed(row.adapter)
        self._close(row, error)

    def _completion(self, row: Row, reason: FinishReason) -> Completion:
        text = row.stream.text if row.stream is not None else decode(self._base.tokenizer, row.generated)
        return Completion(text, tuple(row.generated), reason, row.adapter, len(row.prompt), row.prompt_reused)

    def _close(self, row: Row, outcome: Completion | InferenceError) -> None:
        self._registry.release(row.adapter)
        row.generation.close(outcome)

    def _close_everything(self) -> None:
        error = BackendUnavailable("This server shut down before the reply was finished; ask again.")
        with self._lock:
            self._draining = self._stopping = True
            rows, commands = [*self._batch.rows, *self._waiting], list(self._commands)
            self._waiting.clear()
            self._commands.clear()
        for row in rows:
            self._close(row, error)
        for _, future in commands:
            future.set_exception(BackendUnavailable("This server is shutting down; nothing was changed."))


_NOT_FINITE = InferenceError("The model gave numbers that are not finite for this request; report the adapter.")


def _too_late() -> InferenceError:
    return BackendUnavailable("The reply was not finished within `inference.deadline_seconds`; ask for a shorter one.")


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA's error has a class; the CPU allocator's is a RuntimeError like any other."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _unexpected(error: Exception) -> InferenceError:
    if _is_out_of_memory(error):
        return BackendBusy("This server is out of memory for this request; try again shortly.", 1.0)
    return InferenceError(f"The model failed on this request ({type(error).__name__}); try again, or read the log.")
