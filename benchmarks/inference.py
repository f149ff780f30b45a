"""The embedded engine beside what a user would run instead: models with random weights, everything interleaved.

    python -m benchmarks.inference [--quick] [--json] [--sizes 6M 30M 150M]
    python -m benchmarks.inference --gpu [--json]     a Qwen2.5-7B of random weights, NF4 and bf16 (benchmarks/_gpu.py)

Requests are chat: messages of 8 to 40 tokens, replies of 8 to 96, 32 at a time until 64 are answered; once behind one
system prompt of 120 tokens, as a bot sends them, and once without anything in common (`apart_`). Both have
the same bars; no message is ever sent twice, so that the prefix cache can spare the system prompt alone. On a CPU
throughput is tokens per second of CPU time on one thread, which a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PretrainedConfig

from benchmarks._models import (
    Job,
    answered_by,
    chat_jobs,
    load_endless,
    parameters,
    qwen3,
    write_random_adapter,
    write_random_model,
)
from benchmarks._overhead import router_overhead
from benchmarks._report import Bar, publish
from benchmarks._rivals import (
    System,
    by_engine,
    first_token_seconds_by_engine,
    first_token_seconds_one_at_a_time,
    in_static_batches,
    one_at_a_time,
    transformers_continuous_batching,
)
from inference.base_model import BaseModel
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import BASE, ChatMessage, SamplingOptions

PACKAGES = ("torch", "transformers", "peft")
AT_A_TIME = 32
BARS = {
    "30M_ours_over_one_at_a_time": Bar(7.0, at_most=False),
    "30M_ours_over_static_batches": Bar(1.1, at_most=False),
    "30M_ours_over_transformers_continuous": Bar(1.5, at_most=False),
    "30M_apart_ours_over_one_at_a_time": Bar(7.0, at_most=False),
    "30M_apart_ours_over_static_batches": Bar(1.1, at_most=False),
    "30M_apart_ours_over_transformers_continuous": Bar(1.5, at_most=False),
    "30M_first_token_p95_one_at_a_time_over_ours": Bar(20.0, at_most=False),
    "30M_one_adapter_over_none": Bar(0.85, at_most=False),
    "30M_two_adapters_over_none": Bar(0.75, at_most=False),
    "30M_adapter_load_pause_cpu_ms": Bar(25.0),
    "30M_chat_prefilled_with_cache_over_without": Bar(0.35),
    "30M_answers_unlike_generate": Bar(0.0),
    "30M_apart_answers_unlike_generate": Bar(0.0),
    "router_cpu_ms_p95": Bar(5.0),
}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    requests: int = 64
    rounds: int = 3
    arrivals: int = 40
    turns: int = 10
    longest_reply: int = 96


FULL, QUICK = Scale(), Scale(rounds=1, arrivals=20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the 30M model alone, one round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sizes", nargs="+", choices=("6M", "30M", "150M"))
    parser.add_argument("--gpu", action="store_true", help="Qwen2.5-7B shapes on the GPU of this machine")
    options = parser.parse_args()
    if options.gpu:
        from benchmarks._gpu import publish_gpu

        publish_gpu(quick=options.quick, as_json=options.json)
        return
    torch.set_num_threads(1)
    scale = QUICK if options.quick else FULL
    figures: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        for size in options.sizes or (("30M",) if options.quick else ("6M", "30M", "150M")):
            found = {f"{size}_{name}": figure for name, figure in measure(qwen3(size), scale, Path(folder) / size)}
            print(size, {name: float(f"{figure:.4g}") for name, figure in found.items()}, file=sys.stderr, flush=True)
            figures |= found
        figures |= asyncio.run(router_overhead(Path(folder), 200 if options.quick else 1000))
    bars = {name: bar for name, bar in BARS.items() if name in figures}
    publish("inference", figures, bars, packages=PACKAGES, as_json=options.json)


def measure(config: PretrainedConfig, scale: Scale, folder: Path) -> list[tuple[str, float]]:
    """Every figure of one model on the CPU; the rivals run on a copy of their own."""
    model_folder = write_random_model(config, folder / "model")
    served, plain = load_endless(model_folder), load_endless(model_folder)
    adapters = [write_random_adapter(plain, model_folder, folder / f"genz-v{number}", seed=number) for number in (1, 2)]
    figures = {"parameters": float(parameters(plain.model))}
    with _engine(served, prefix_cache_bytes=2**28) as engine:
        for adapter in adapters:
            engine.load_adapter(adapter.name, adapter)
        figures |= throughput(
            engine, plain, scale, {"one_adapter": ("genz-v1",), "two_adapters": ("genz-v1", "genz-v2")}
        )
        apart = throughput(engine, plain, scale, {}, system_tokens=0)
        figures |= {f"apart_{name}": figure for name, figure in apart.items()}
        figures |= first_tokens(engine, plain, scale)
        figures |= load_pause(engine, adapters[0])
    figures |= growing_chat(served, scale)
    return list(figures.items())


def _engine(base: BaseModel, prefix_cache_bytes: int) -> Engine:
    return Engine(
        base,
        max_batch=AT_A_TIME,
        max_queue=1000,
        max_adapters=2,
        max_rank=8,
        max_length=min(base.max_length, 1024),
        prefix_cache_bytes=prefix_cache_bytes,
    )


def throughput(
    engine: Engine, plain: BaseModel, scale: Scale, adapters: Mapping[str, Sequence[str]], system_tokens: int = 120
) -> dict[str, float]:
    """Tokens per second of CPU time, each system in turn in every round; ratios are medians over the rounds.

    `adapters` says who answers in each further measurement of the engine.
    """

    def jobs(words: int) -> list[Job]:
        length = scale.longest_reply
        return chat_jobs(scale.requests, seed=1, words=words, system_tokens=system_tokens, longest_reply=length)

    ours = by_engine(engine)
    seconds: dict[str, list[float]] = defaultdict(list)
    unlike = 0
    first = jobs(-1)[:1]  # a server has read its system prompt before
    for name in (BASE, *sorted({name for names in adapters.values() for name in names})):
        ours(answered_by(first, name))
    for turn in range(scale.rounds):
        asked = jobs(turn)
        few = asked[:: max(1, len(asked) // 8)]
        answers = _timed("ours", ours, asked, seconds)
        for number, (kind, names) in enumerate(adapters.items(), start=1):
            _timed(kind, ours, answered_by(jobs(turn + 100 * number), *names), seconds)
        _timed("one_at_a_time", one_at_a_time(plain), few, seconds)
        static = _timed("static_batches", in_static_batches(plain, AT_A_TIME), asked, seconds)
        unlike += sum(one != other for one, other in zip(answers, static, strict=True))
        with ExitStack() as stack:
            theirs = stack.enter_context(transformers_continuous_batching(plain, AT_A_TIME))
            theirs(first)
            _timed("transformers_continuous", theirs, asked, seconds)
    figures = {f"{name}_tokens_per_cpu_second": 1 / statistics.median(per_token) for name, per_token in seconds.items()}
    for rival in ("one_at_a_time", "static_batches", "transformers_continuous"):
        figures[f"ours_over_{rival}"] = _median_ratio(seconds[rival], seconds["ours"])
    for kind in adapters:
        figures[f"{kind}_over_none"] = _median_ratio(seconds["ours"], seconds[kind])
    figures["answers_unlike_generate"] = float(unlike)
    return figures


def _timed(name: str, system: System, jobs: Sequence[Job], seconds: Mapping[str, list[float]]) -> list[list[int]]:
    """The answers; the CPU seconds per token are added to the system's."""
    started = time.process_time()
    answers = system(jobs)
    seconds[name].append((time.process_time() - started) / sum(map(len, answers)))
    return answers


def _median_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(slower, faster, strict=True))


def first_tokens(engine: Engine, plain: BaseModel, scale: Scale) -> dict[str, float]:
    """Poisson arrivals at three times what one at a time can answer: seconds to the first token."""
    jobs = chat_jobs(scale.arrivals, seed=2, longest_reply=scale.longest_reply)
    started = time.perf_counter()
    one_at_a_time(plain)(jobs[:4])
    mean_gap = (time.perf_counter() - started) / 4 / 3
    rng, moment, arrivals = random.Random(3), 0.0, []
    for _ in jobs:
        arrivals.append(moment)
        moment += rng.expovariate(1 / mean_gap)
    ours = sorted(first_token_seconds_by_engine(engine, jobs, arrivals))
    theirs = sorted(first_token_seconds_one_at_a_time(plain, jobs, arrivals))
    place = int(0.95 * len(jobs))
    return {
        "arrivals_per_second": 1 / mean_gap,
        "first_token_p95_seconds_ours": ours[place],
        "first_token_p95_seconds_one_at_a_time": theirs[place],
        "first_token_p95_one_at_a_time_over_ours": theirs[place] / ours[place],
    }


def load_pause(engine: Engine, adapter: Path) -> dict[str, float]:
    """CPU milliseconds for which a load keeps the engine's thread from stepping, while it answers others."""
    pauses: list[float] = []
    fill = engine._runner.bank.fill

    def timed(slot: int, weights: object) -> None:
        started = time.thread_time()
        fill(slot, weights)  # type: ignore[arg-type]
        pauses.append(1e3 * (time.thread_time() - started))

    engine._runner.bank.fill = timed  # type: ignore[method-assign]
    running = [engine.submit(GenerationRequest(BASE, (), SamplingOptions(max_tokens=400), (5,))) for _ in range(4)]
    for _ in range(8):
        engine.unload_adapter(adapter.name)
        engine.load_adapter(adapter.name, adapter)
    for generation in running:
        generation.cancel()
    engine._runner.bank.fill = fill  # type: ignore[method-assign]
    return {"adapter_load_pause_cpu_ms": max(pauses)}


def growing_chat(base: BaseModel, scale: Scale) -> dict[str, float]:
    """A conversation turn by turn: prompt tokens read and CPU time, with the prefix cache and without."""
    read, seconds = [], []
    for prefix_cache_bytes in (2**26, 0):
        with _engine(base, prefix_cache_bytes) as engine:
            started = time.process_time()
            read.append(_chat(engine, scale.turns))
            seconds.append(time.process_time() - started)
    return {
        "chat_prefilled_with_cache_over_without": read[0] / read[1],
        "chat_cpu_with_cache_over_without": seconds[0] / seconds[1],
    }


def _chat(engine: Engine, turns: int) -> int:
    """Prompt tokens read over a chat of `turns` messages and greedy replies of 24 tokens."""
    messages = [ChatMessage("system", "You are a bot in this chat. Answer briefly, like a friend would.")]
    read = 0
    for turn in range(turns):
        messages.append(ChatMessage("user", f"and what do you think of number {turn} on that list"))
        wanted = GenerationRequest(BASE, tuple(messages), SamplingOptions(temperature=0.0, max_tokens=24))
        reply = engine.submit(wanted, stream=False).result()
        read += reply.prompt_tokens - reply.reused_tokens
        messages.append(ChatMessage("assistant", reply.text))
    return read


if __name__ == "__main__":
    main()
