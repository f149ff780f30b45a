"""`benchmarks.inference --gpu`: a Qwen2.5-7B of random weights and real shapes, at 1, 8, 32 and 64 requests.

Beside every rate stands `generate` in the same run, and the physical limit: the bytes of weights that a step reads over
the copy bandwidth measured here. The same code runs tiny on a CPU in the tests; what only a GPU reaches are the three
functions at the end, `_synchronize`, `_reset_memory` and `_memory_gib`, beyond their first line.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PretrainedConfig

from benchmarks._models import (
    Job,
    answered_by,
    chat_jobs,
    load_endless,
    qwen2_7b,
    write_random_adapter,
    write_random_model,
)
from benchmarks._report import publish
from benchmarks._rivals import System, by_engine, first_token_seconds_by_engine, in_static_batches
from inference.base_model import BaseModel, Device, Quantization
from inference.server.engine import Engine
from nocap.errors import ConfigurationError

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def publish_gpu(*, quick: bool, as_json: bool) -> None:
    """Raises ConfigurationError where torch sees no GPU."""
    if not torch.cuda.is_available():
        raise ConfigurationError("torch sees no GPU here; run `python -m benchmarks.inference` for the CPU's figures.")
    counts, rounds = ((1, 32), 1) if quick else ((1, 8, 32, 64), 3)
    with TemporaryDirectory() as folder:
        figures = measure(qwen2_7b(), "cuda", counts, rounds, Path(folder))
    print(f"on {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}") if not as_json else None
    publish("inference --gpu", figures, {}, packages=PACKAGES, as_json=as_json)


def measure(
    config: PretrainedConfig,
    device: Device,
    counts: Sequence[int],
    rounds: int,
    folder: Path,
    *,
    longest_reply: int = 96,
) -> dict[str, float]:
    """Figures by quantisation and number of requests at a time; the weights are drawn, written and loaded once each."""
    model_folder = write_random_model(config, folder / "model", device)
    figures = {"copy_gib_per_second": copy_bandwidth(device) / 2**30}
    quantizations: tuple[Quantization, ...] = ("none", "nf4")
    for quantization in quantizations:
        base = load_endless(model_folder, quantization, device)
        adapters = folder / quantization
        for number in (1, 2):
            write_random_adapter(base, model_folder, adapters / f"genz-v{number}", seed=number)
        found = _of_one_base(base, adapters, counts, rounds, longest_reply, figures["copy_gib_per_second"])
        label = "nf4" if quantization == "nf4" else "bf16"
        figures |= {f"{label}_{name}": figure for name, figure in found.items()}
        del base
        _reset_memory(device)
    return figures


def _of_one_base(
    base: BaseModel, adapters: Path, counts: Sequence[int], rounds: int, longest_reply: int, copy_gib: float
) -> dict[str, float]:
    weights_gib = weight_bytes(base) / 2**30
    figures = {"weights_gib": weights_gib, "step_ms_at_least": 1e3 * weights_gib / copy_gib}
    for count in counts:
        jobs = chat_jobs(2 * count, seed=count, longest_reply=longest_reply)
        _reset_memory(base.device)
        static: list[float] = []
        rates: dict[str, list[float]] = {"ours": [], "one_adapter": [], "two_adapters": []}
        for _ in range(rounds):
            static.append(_tokens_per_second(in_static_batches(base, count), jobs, base.device))
            # The engine wraps the model's layers while it runs, so each round starts one anew.
            with Engine(
                base,
                max_batch=count,
                max_queue=4 * count,
                max_adapters=2,
                max_rank=8,
                max_length=min(base.max_length, 512),
                prefix_cache_bytes=2**28,
            ) as engine:
                for adapter in sorted(adapters.iterdir()):
                    engine.load_adapter(adapter.name, adapter)
                by_engine(engine)(jobs[:1])
                rates["ours"].append(_tokens_per_second(by_engine(engine), jobs, base.device))
                for name, names in (("one_adapter", ("genz-v1",)), ("two_adapters", ("genz-v1", "genz-v2"))):
                    asked = answered_by(jobs, *names)
                    rates[name].append(_tokens_per_second(by_engine(engine), asked, base.device))
                first = sorted(first_token_seconds_by_engine(engine, jobs, [0.0] * len(jobs)))
        ours = statistics.median(rates["ours"])
        figures |= {
            f"{count}_ours_tokens_per_second": ours,
            f"{count}_generate_tokens_per_second": statistics.median(static),
            f"{count}_ours_over_generate": ours / statistics.median(static),
            f"{count}_one_adapter_over_none": statistics.median(rates["one_adapter"]) / ours,
            f"{count}_two_adapters_over_none": statistics.median(rates["two_adapters"]) / ours,
            f"{count}_first_token_p50_seconds": first[len(first) // 2],
            f"{count}_first_token_p95_seconds": first[int(0.95 * len(first))],
            f"{count}_share_of_physical_limit": ours / count * weights_gib / copy_gib,
            f"{count}_memory_gib": _memory_gib(base.device),
        }
    return figures


def _tokens_per_second(system: System, jobs: Sequence[Job], device: str) -> float:
    _synchronize(device)
    started = time.perf_counter()
    answers = system(jobs)
    _synchronize(device)
    return sum(map(len, answers)) / (time.perf_counter() - started)


def weight_bytes(base: BaseModel) -> int:
    """Bytes that one decode step reads of the weights: all but an embedding table that is not also the head."""
    embedding = base.model.get_input_embeddings().weight
    head = base.model.get_output_embeddings().weight
    stored = sum(weight.numel() * weight.element_size() for weight in base.model.parameters())
    return stored - (0 if head is embedding else embedding.numel() * embedding.element_size())


def copy_bandwidth(device: str, size: int = 2**28) -> float:
    """Bytes read per second by large copies, the best of five; a copy reads and writes each byte once."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        _synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        best = max(best, 2 * size / (time.perf_counter() - started))
    return best


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _reset_memory(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory_gib(device: str) -> float:
    """The most that was allocated since the last reset; 0 on a CPU, where torch does not count."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
