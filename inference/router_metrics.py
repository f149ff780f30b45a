"""The router's figures for Prometheus, per adapter: how long answers take, how they end, where they moved to."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from nocap.domain import AdapterName

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class RouterMetrics:
    """A registry of its own, so that several routers in a process do not collide."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._first_piece = Histogram(
            "nocap_router_first_piece_seconds",
            "Request to first piece of text.",
            ["adapter"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "nocap_router_answer_seconds", "Request to last piece.", ["adapter"], buckets=_SECONDS, registry=registry
        )
        self._failed = Counter(
            "nocap_router_failures", "Requests without an answer.", ["adapter", "error"], registry=registry
        )
        self._moved = Counter(
            "nocap_router_moved",
            "Answers that another replica took up after one failed.",
            ["adapter"],
            registry=registry,
        )

    def first_piece(self, adapter: AdapterName, seconds: float) -> None:
        self._first_piece.labels(adapter).observe(seconds)

    def finished(self, adapter: AdapterName, seconds: float) -> None:
        self._whole.labels(adapter).observe(seconds)

    def failed(self, adapter: AdapterName, error: Exception) -> None:
        self._failed.labels(adapter, type(error).__name__).inc()

    def moved(self, adapter: AdapterName) -> None:
        self._moved.labels(adapter).inc()

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self._registry)
