"""The engine's figures for Prometheus, by vLLM's names where it has them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inference.server.generation import FinishReason
from nocap.domain import AdapterName

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class EngineMetrics:
    """A registry of its own, so that several engines in a process do not collide."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        by_model = ["model_name"]
        self.running = Gauge("vllm:num_requests_running", "Requests in the batch.", registry=registry)
        self.waiting = Gauge("vllm:num_requests_waiting", "Requests in the queue.", registry=registry)
        self.cache_usage = Gauge("vllm:kv_cache_usage_perc", "Share of the cache's tokens in use.", registry=registry)
        self.loaded = Gauge("vllm:lora_requests_info", "Adapters that are loaded.", by_model, registry=registry)
        self._prompt_tokens = Counter("vllm:prompt_tokens", "Prompt tokens read.", by_model, registry=registry)
        self._generated = Counter("vllm:generation_tokens", "Tokens generated.", by_model, registry=registry)
        self._prefix_queries = Counter(
            "vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", registry=registry
        )
        self._prefix_hits = Counter(
            "vllm:prefix_cache_hits", "Prompt tokens that the prefix cache held.", registry=registry
        )
        self._finished = Counter(
            "vllm:request_success", "Requests finished.", [*by_model, "finished_reason"], registry=registry
        )
        self._failed = Counter("nocap:request_failures", "Requests that failed.", by_model, registry=registry)
        self._first_token = Histogram(
            "vllm:time_to_first_token_seconds",
            "Submission to first token.",
            by_model,
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "vllm:e2e_request_latency_seconds",
            "Submission to last token.",
            by_model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.step = Histogram("nocap:engine_step_seconds", "One turn of the loop.", buckets=_SECONDS, registry=registry)
        self.swap_pause = Histogram(
            "nocap:adapter_swap_pause_seconds",
            "Time that a load or unload keeps the loop from stepping.",
            buckets=_SECONDS,
            registry=registry,
        )

    def first_token(self, adapter: AdapterName, seconds: float) -> None:
        self._first_token.labels(adapter).observe(seconds)

    def prefix(self, prompt_tokens: int, reused_tokens: int) -> None:
        self._prefix_queries.inc(prompt_tokens)
        self._prefix_hits.inc(reused_tokens)

    def finished(
        self, adapter: AdapterName, reason: FinishReason, prompt_tokens: int, generated: int, seconds: float
    ) -> None:
        self._prompt_tokens.labels(adapter).inc(prompt_tokens)
        self._generated.labels(adapter).inc(generated)
        self._finished.labels(adapter, reason).inc()
        self._whole.labels(adapter).observe(seconds)

    def failed(self, adapter: AdapterName) -> None:
        self._failed.labels(adapter).inc()

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self._registry)
