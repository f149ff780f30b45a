"""The engine as its callers see it, from any thread: requests in, replies out, adapters loaded and unloaded."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import torch

from inference.adapter_files import read_manifest
from inference.base_model import BaseModel
from inference.prompt import render
from inference.server.batch import Row
from inference.server.generation import Completion, Event, Generation, GenerationRequest
from inference.server.loop import Loop
from inference.server.metrics import EngineMetrics
from inference.server.registry import AdapterRegistry, LoadedAdapter
from inference.server.runner import ModelRunner
from inference.server.sampler import Draw, check_sampling
from inference.server.text import TextStream
from nocap.errors import (
    AdapterError,
    BackendPaused,
    BackendUnavailable,
    InferenceError,
    InputError,
    ModelError,
    PromptTooLong,
)

DEFAULT_MAX_LENGTH = 4096
PAUSED_RETRY_SECONDS = 15.0
"""When whoever is refused because of a pause may ask again."""

log = structlog.get_logger(__name__)


class Engine:
    """Serves `base` and up to `max_adapters` LoRA adapters of it to many callers at once.

    `max_batch` requests are decoded together and `max_queue` more may wait. `max_length` bounds prompt and reply
    together, in tokens; None means the base's own limit, at most 4,096. `prefix_cache_bytes` bounds the memory for
    prompts read before. A reply that is not over after `deadline_seconds` is given up. `load_again` brings the base
    back after a pause; without it the engine cannot pause. Used as a context, it starts and stops.
    """

    def __init__(
        self,
        base: BaseModel,
        *,
        max_batch: int,
        max_queue: int,
        max_adapters: int,
        max_rank: int,
        max_length: int | None = None,
        trusted_signer: str | None = None,
        prefix_cache_bytes: int = 0,
        deadline_seconds: float = math.inf,
        load_again: Callable[[], BaseModel] | None = None,
    ) -> None:
        self.base = base
        self.max_length = min(max_length or DEFAULT_MAX_LENGTH, base.max_length)
        self.metrics = EngineMetrics()
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_rank = max_rank
        self._prefix_cache_bytes = prefix_cache_bytes
        self._deadline_seconds = deadline_seconds
        self._load_again = load_again
        self._vocabulary = int(base.model.get_input_embeddings().weight.shape[0])
        self._paused = False
        self._lock = threading.Condition()
        self._render_lock = threading.Lock()
        self._registry = AdapterRegistry(max_adapters, self._lock, trusted_signer)
        self._started: tuple[ModelRunner, Loop] | None = None

    def start(self) -> None:
        """Prepares the model and starts the loop. Raises ModelError where this base cannot be served."""
        assert self._started is None, "an engine is started once"
        self._run_loop(self._new_runner())

    def _new_runner(self) -> ModelRunner:
        return ModelRunner(
            self.base,
            slots=self._max_batch,
            max_length=self.max_length,
            adapters=self._registry.slots,
            max_rank=self._max_rank,
        )

    def _run_loop(self, runner: ModelRunner) -> None:
        loop = Loop(
            self.base,
            runner,
            self._registry,
            self.metrics,
            self._lock,
            max_queue=self._max_queue,
            prefix_cache_bytes=self._prefix_cache_bytes,
        )
        self._started = runner, loop
        loop.start()

    def stop(self) -> None:
        """Fails what is still running, ends the loop and gives the base model back as it was."""
        if self._started is not None:
            runner, loop = self._started
            loop.stop()
            runner.close()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def drain(self) -> None:
        """Refuses new requests from now on; those accepted are answered."""
        if self._started is not None:
            self._loop.drain()

    def pause(self) -> None:
        """Answers what was accepted, then frees the memory of base, adapters and cache; `resume` brings them back.

        Meanwhile requests are refused with BackendPaused. Not to be called by two threads at once, nor beside `resume`.
        """
        if self._load_again is None:
            raise InferenceError("This server cannot load its base again, so it does not pause.")
        if self._paused:
            return
        runner, loop = self._runner, self._loop
        self._paused = True
        loop.finish()
        runner.close()
        self._started = None
        self.base = replace(self.base, model=None)
        del runner, loop
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def resume(self) -> None:
        """Loads the base and the adapters again; an adapter whose files are no longer what they were is missing.

        Raises ModelError, and stays paused, where the base cannot be loaded or is another one now.
        """
        if not self._paused:
            return
        assert self._load_again is not None, "only an engine that can load its base again is paused"
        base = self._load_again()
        if base.digest != self.base.digest:
            raise ModelError(f"The files of {base.name} have changed since the server started; start it anew.")
        self.base = base
        runner = self._new_runner()
        for adapter in self._registry.ready():
            try:
                manifest = read_manifest(adapter.folder)
                if manifest.digest != adapter.digest:
                    raise AdapterError(f"The files of adapter {adapter.name} have changed.")
                runner.bank.fill(adapter.slot, runner.bank.read(adapter.folder, manifest))
            except (AdapterError, OSError) as error:
                log.error("adapter not loaded again", adapter=adapter.name, reason=str(error))
                self.metrics.loaded.remove(adapter.name)
                with self._registry.unloading(adapter.name):
                    pass
        self._run_loop(runner)
        self._paused = False

    @property
    def is_paused(self) -> bool:
        return self._paused

    @property
    def is_alive(self) -> bool:
        return self._paused or (self._started is not None and self._loop.is_alive)

    @property
    def is_ready(self) -> bool:
        return self._started is not None and self._loop.is_ready

    @property
    def _loop(self) -> Loop:
        return self._running()[1]

    @property
    def _runner(self) -> ModelRunner:
        return self._running()[0]

    def _running(self) -> tuple[ModelRunner, Loop]:
        started = self._started
        if started is None and self._paused:
            raise _paused()
        assert started is not None, "start the engine first"
        return started

    def adapters(self) -> list[LoadedAdapter]:
        """Those that can be asked for now, by name."""
        return self._registry.ready()

    def load_adapter(self, name: str, folder: Path) -> LoadedAdapter:
        """The adapter, once requests can ask for it; its files are read and verified on the caller's thread.

        The same name with the same digest changes nothing, also during a pause. Raises AdapterConflict where the name
        stands for another digest, is being unloaded, or all slots are taken; AdapterError where the adapter is corrupt
        or does not fit.
        """
        with self._registry.loading(name, folder, self.base.digest) as entry:
            if entry.is_new:
                bank = self._runner.bank
                weights = bank.read(folder, entry.manifest)
                self._loop.between_steps(lambda: bank.fill(entry.adapter.slot, weights))
                self.metrics.loaded.labels(name).set(1)
        return entry.adapter

    def unload_adapter(self, name: str) -> None:
        """Takes the name away at once, waits for the requests that have it, and frees the slot.

        Raises UnknownAdapter where no such adapter is loaded.
        """
        bank, loop = self._runner.bank, self._loop

        def forget() -> None:
            bank.clear(adapter.slot)
            loop.forget_prefixes(adapter.name)

        with self._registry.unloading(name) as adapter:
            self.metrics.loaded.remove(name)
            loop.between_steps(forget)

    def submit(
        self,
        request: GenerationRequest,
        *,
        stream: bool = True,
        on_event: Callable[[Event], None] | None = None,
    ) -> Generation:
        """The running request. With `stream` its text arrives while it is generated.

        `on_event`, called on the engine's thread, replaces iteration. Raises PromptTooLong, InputError (an
        option out of range), UnknownAdapter, BackendBusy (queue full), BackendPaused or BackendUnavailable (draining).
        """
        try:
            return self._loop.enqueue(self._row(request, stream, on_event), bounded=True)
        except BackendUnavailable:
            if self._paused:
                raise _paused() from None
            raise

    def generate_all(
        self, requests: Sequence[GenerationRequest], progress: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """The replies in the order of `requests`, however many; `progress` gets the count of those that are done.

        The first failure is raised and ends the others.
        """
        running: list[Generation] = []
        try:
            for request in requests:
                running.append(self._loop.enqueue(self._row(request, False, None), bounded=False))
            replies = []
            for done, generation in enumerate(running, start=1):
                replies.append(generation.result())
                if progress is not None:
                    progress(done)
            return replies
        except BaseException:
            for generation in running:
                generation.cancel()
            raise

    def prompt_token_ids(self, request: GenerationRequest) -> tuple[int, ...]:
        """The request's prompt as the model reads it."""
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        with self._render_lock:
            return tuple(render(self.base.tokenizer, request.messages, add_generation_prompt=True))

    def _row(self, request: GenerationRequest, stream: bool, on_event: Callable[[Event], None] | None) -> Row:
        sampling = request.sampling
        check_sampling(sampling)
        prompt = self.prompt_token_ids(request)
        self._check_prompt(prompt, sampling.max_tokens)
        return Row(
            generation=Generation(request.adapter, self._note_cancellation, stream, on_event),
            adapter=request.adapter,
            adapter_slot=None,
            prompt=prompt,
            sampling=sampling,
            draw=Draw.of(sampling),
            deadline=time.monotonic() + self._deadline_seconds,
            stream=TextStream(self.base.tokenizer, sampling.stop) if stream or sampling.stop else None,
        )

    def _note_cancellation(self) -> None:
        """Goes by the engine, so that a handle that somebody keeps does not keep a paused engine's model."""
        if self._started is not None:
            self._started[1].note_cancellation()

    def _check_prompt(self, prompt: Sequence[int], max_tokens: int) -> None:
        if not prompt:
            raise InputError("The prompt is empty; send at least one message.")
        if not all(0 <= token < self._vocabulary for token in prompt):
            raise InputError(f"A prompt token lies outside the vocabulary of {self._vocabulary} tokens.")
        if len(prompt) + max_tokens > self.max_length:
            raise PromptTooLong(
                f"The prompt has {len(prompt)} tokens and the reply may have {max_tokens}, together more than the "
                f"maximum context length of {self.max_length}; shorten the conversation or lower max_tokens."
            )


def _paused() -> BackendPaused:
    return BackendPaused(
        "This server has made room for a retrain and comes back after it; ask again.", PAUSED_RETRY_SECONDS
    )
