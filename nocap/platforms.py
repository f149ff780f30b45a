"""Each platform's bots in a process of its own, under one supervisor that serves one `/metrics` and one `/readyz`.

One interpreter runs one thread at a time: two platforms in one process share a core and wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from nocap.errors import ConfigurationError
from nocap.observability.server import status_server
from nocap.settings import MetricsSettings
from nocap.supervisor import Child, supervise

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 4.0


def run_platforms(
    platforms: Sequence[str], command: Sequence[str], metrics: MetricsSettings, say: Callable[[str], None]
) -> None:
    """Runs `command --platform NAME` for each platform until SIGTERM or Ctrl-C.

    Their own status ports follow `metrics.bots_port`, on loopback. Raises ConfigurationError where that port is taken
    or every platform's bots were refused for good.
    """
    port = metrics.bots_port
    ports = {} if port is None else {name: port + number for number, name in enumerate(platforms, start=1)}
    children = [
        Child(
            name,
            [*command, "--platform", name],
            environment=os.environ | _status_at(ports.get(name)),
            final_status=ConfigurationError.exit_code,
        )
        for name in platforms
    ]
    status = PlatformStatus(ports)
    registry = CollectorRegistry()
    registry.register(status)
    with status_server(metrics.host, port, status.not_ready, registry=registry):
        supervise(children, say)
    if all(child.is_final for child in children):
        raise ConfigurationError("No bot can go on; the lines above say why, and what to do.")


def _status_at(port: int | None) -> dict[str, str]:
    return {"NOCAP_METRICS__HOST": LOOPBACK, "NOCAP_METRICS__BOTS_PORT": "null" if port is None else str(port)}


class PlatformStatus(Collector):
    """What the platforms' processes say about themselves at their ports on loopback; never raises."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports

    def not_ready(self) -> str | None:
        """Every reason why not, of all processes."""
        causes = []
        for name, port in self._ports.items():
            if (answer := _answer(port, "/readyz")) is None:
                causes.append(f"{name}: its process does not answer")
            elif answer.status_code != 200:
                causes.append(answer.text.strip())
        return "; ".join(causes) or None

    def describe(self) -> list[Metric]:
        """Nothing: so that registering it asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure of every process, each sample labelled with its platform."""
        families: dict[str, Metric] = {}
        for name, port in self._ports.items():
            if (answer := _answer(port, "/metrics")) is None:
                continue
            for family in text_string_to_metric_families(answer.text):
                kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                kept.samples += [
                    sample._replace(labels={"platform": name, **sample.labels}) for sample in family.samples
                ]
        yield from families.values()


def _answer(port: int, path: str) -> httpx.Response | None:
    """What the process with this status port answers; None where it does not."""
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}{path}", timeout=ANSWER_SECONDS)
    except httpx.HTTPError:
        return None
