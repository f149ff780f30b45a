"""What a user would run instead of our engine: `generate` one by one or in static batches, and transformers' own
continuous batching. Each takes jobs and gives the tokens of every reply."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.generation.streamers import BaseStreamer

from benchmarks._models import Job
from inference.base_model import BaseModel
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import SamplingOptions

Answers = list[list[int]]
System = Callable[[Sequence[Job]], Answers]


def request_of(job: Job) -> GenerationRequest:
    sampling = SamplingOptions(temperature=0.0, top_p=1.0, max_tokens=job.max_tokens)
    return GenerationRequest(job.adapter, sampling=sampling, prompt_token_ids=job.prompt)


def by_engine(engine: Engine) -> System:
    def answer(jobs: Sequence[Job]) -> Answers:
        return [list(reply.token_ids) for reply in engine.generate_all([request_of(job) for job in jobs])]

    return answer


def one_at_a_time(base: BaseModel) -> System:
    return lambda jobs: [generate(base, [job])[0] for job in jobs]


def in_static_batches(base: BaseModel, size: int) -> System:
    """Batches in the order of arrival; each takes as long as its longest reply."""

    def answer(jobs: Sequence[Job]) -> Answers:
        batches = (jobs[start : start + size] for start in range(0, len(jobs), size))
        return [reply for batch in batches for reply in generate(base, batch)]

    return answer


def generate(base: BaseModel, jobs: Sequence[Job], streamer: BaseStreamer | None = None) -> Answers:
    """One greedy call of transformers' `generate`, prompts padded on the left."""
    width = max(len(job.prompt) for job in jobs)
    ids_BT = torch.tensor([[0] * (width - len(job.prompt)) + list(job.prompt) for job in jobs])
    mask_BT = torch.tensor([[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in jobs])
    out_BT = base.model.generate(
        input_ids=ids_BT.to(base.model.device),
        attention_mask=mask_BT.to(base.model.device),
        max_new_tokens=max(job.max_tokens for job in jobs),
        do_sample=False,
        pad_token_id=0,
        streamer=streamer,
    )
    return [out_BT[row, width : width + job.max_tokens].tolist() for row, job in enumerate(jobs)]


@contextmanager
def transformers_continuous_batching(base: BaseModel, size: int) -> Iterator[System]:
    """transformers' `ContinuousBatchingManager` with room for `size` requests at a time."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    attention = base.model.config._attn_implementation
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=96)
    limits = ContinuousBatchingConfig(
        page_size=32, num_blocks=size * 12, max_batch_tokens=512, max_requests_per_batch=size
    )
    with base.model.continuous_batching_context_manager(greedy, continuous_batching_config=limits) as manager:

        def answer(jobs: Sequence[Job]) -> Answers:
            names = [manager.add_request(list(job.prompt), max_new_tokens=job.max_tokens) for job in jobs]
            replies: dict[Any, list[int]] = {}
            while len(replies) < len(names):
                result = manager.get_result(timeout=60)
                if result is None or result.error is not None:
                    raise RuntimeError(f"transformers' continuous batching gave up: {result and result.error}")
                replies[result.request_id] = list(result.generated_tokens)
            return [replies[name] for name in names]

        yield answer
    base.model.set_attn_implementation(attention)


class _FirstToken(BaseStreamer):  # type: ignore[misc]
    """Notes when the first token after the prompt comes."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = 0.0

    def put(self, value: Any) -> None:
        self.calls += 1
        if self.calls == 2:
            self.at = time.perf_counter()

    def end(self) -> None:
        pass


def first_token_seconds_one_at_a_time(base: BaseModel, jobs: Sequence[Job], arrivals: Sequence[float]) -> list[float]:
    """How long each request waits for its first token where a server answers them one after the other."""
    waiting: queue.Queue[tuple[float, Job]] = queue.Queue()
    seconds: list[float] = []

    def serve() -> None:
        with torch.inference_mode():
            for _ in jobs:
                submitted, job = waiting.get()
                first = _FirstToken()
                generate(base, [job], first)
                seconds.append(first.at - submitted)

    server = threading.Thread(target=serve)
    server.start()
    for moment, job in _as_they_arrive(jobs, arrivals):
        waiting.put((moment, job))
    server.join()
    return seconds


def first_token_seconds_by_engine(engine: Engine, jobs: Sequence[Job], arrivals: Sequence[float]) -> list[float]:
    first: dict[int, float] = {}
    submitted: dict[int, float] = {}
    running = []
    for number, (moment, job) in enumerate(_as_they_arrive(jobs, arrivals)):
        submitted[number] = moment

        def note(_: object, number: int = number) -> None:
            first.setdefault(number, time.perf_counter())

        running.append(engine.submit(request_of(job), on_event=note))
    for generation in running:
        generation.result()
    return [first[number] - submitted[number] for number in submitted]


def _as_they_arrive(jobs: Sequence[Job], arrivals: Sequence[float]) -> Iterator[tuple[float, Job]]:
    start = time.perf_counter()
    for after, job in zip(arrivals, jobs, strict=True):
        time.sleep(max(0.0, start + after - time.perf_counter()))
        yield start + after, job
