"""The engine as its callers see it, from any thread: requests in, replies out, adapters loaded and unloaded."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
from nocap.errors import InputError, PromptTooLong

DEFAULT_MAX_LENGTH = 4096


class Engine:
    """Serves `base` and up to `max_adapters` LoRA adapters of it to many callers at once.

    `max_batch` requests are decoded together and `max_queue` more may wait. `max_length` bounds prompt and reply
    together, in tokens; None means the base's own limit, at most 4,096. `prefix_cache_bytes` bounds the memory for
    prompts read before. A reply that is not over after `deadline_seconds` is given up. Used as a context, it starts
    and stops.
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
    ) -> None:
        self.base = base
        self.max_length = min(max_length or DEFAULT_MAX_LENGTH, base.max_length)
        self.metrics = EngineMetrics()
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_rank = max_rank
        self._prefix_cache_bytes = prefix_cache_bytes
        self._deadline_seconds = deadline_seconds
        self._lock = threading.Condition()
        self._render_lock = threading.Lock()
        self._registry = AdapterRegistry(max_adapters, self._lock, trusted_signer)
        self._started: tuple[ModelRunner, Loop] | None = None

    def start(self) -> None:
        """Prepares the model and starts the loop. Raises ModelError where this base cannot be served."""
        assert self._started is None, "an engine is started once"
        runner = ModelRunner(
            self.base,
            slots=self._max_batch,
            max_length=self.max_length,
            adapters=self._registry.slots,
            max_rank=self._max_rank,
        )
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
        self._loop.drain()

    @property
    def is_alive(self) -> bool:
        return self._started is not None and self._loop.is_alive

    @property
    def is_ready(self) -> bool:
        return self._started is not None and self._loop.is_ready

    @property
    def _loop(self) -> Loop:
        assert self._started is not None, "start the engine first"
        return self._started[1]

    @property
    def _runner(self) -> ModelRunner:
        assert self._started is not None, "start the engine first"
        return self._started[0]

    def adapters(self) -> list[LoadedAdapter]:
        """Those that can be asked for now, by name."""
        return self._registry.ready()

    def load_adapter(self, name: str, folder: Path) -> LoadedAdapter:
        """The adapter, once requests can ask for it; its files are read and verified on the caller's thread.

        The same name with the same digest changes nothing. Raises AdapterConflict where the name stands for another
        digest, is being unloaded, or all slots are taken; AdapterError where the adapter is corrupt or does not fit.
        """
        bank = self._runner.bank
        with self._registry.loading(name, folder, self.base.digest) as entry:
            if entry.is_new:
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
        option out of range), UnknownAdapter, BackendBusy (queue full) or BackendUnavailable (draining).
        """
        return self._loop.enqueue(self._row(request, stream, on_event), bounded=True)

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
            generation=Generation(request.adapter, self._loop.note_cancellation, stream, on_event),
            adapter=request.adapter,
            adapter_slot=None,
            prompt=prompt,
            sampling=sampling,
            draw=Draw.of(sampling),
            deadline=time.monotonic() + self._deadline_seconds,
            stream=TextStream(self.base.tokenizer, sampling.stop) if stream or sampling.stop else None,
        )

    def _check_prompt(self, prompt: Sequence[int], max_tokens: int) -> None:
        vocabulary = self.base.model.get_input_embeddings().weight.shape[0]
        if not prompt:
            raise InputError("The prompt is empty; send at least one message.")
        if not all(0 <= token < vocabulary for token in prompt):
            raise InputError(f"A prompt token lies outside the vocabulary of {vocabulary} tokens.")
        if len(prompt) + max_tokens > self.max_length:
            raise PromptTooLong(
                f"The prompt has {len(prompt)} tokens and the reply may have {max_tokens}, together more than the "
                f"maximum context length of {self.max_length}; shorten the conversation or lower max_tokens."
            )
