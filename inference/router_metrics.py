"""The router's figures for Prometheus, per adapter: how long answers take, how they end, where they moved to.

They stand in the process's own registry, which `/metrics` of the bots serves.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

FIRST_PIECE = Histogram(
    "nocap_router_first_piece_seconds", "Request to first piece of text.", ["adapter"], buckets=_SECONDS
)
WHOLE_ANSWER = Histogram("nocap_router_answer_seconds", "Request to last piece.", ["adapter"], buckets=_SECONDS)
FAILURES = Counter("nocap_router_failures", "Requests without an answer.", ["adapter", "error"])
MOVED = Counter("nocap_router_moved", "Answers that another replica took up after one failed.", ["adapter"])
