from __future__ import annotations

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from nocap.errors import ConfigurationError
from nocap.observability.server import status_server

HOST = "127.0.0.1"


def test_figures_health_and_readiness_are_served() -> None:
    registry = CollectorRegistry()
    Counter("nocap_things", "Things.", registry=registry).inc()
    reasons: list[str | None] = [None]
    with status_server(HOST, 0, lambda: reasons[0], registry=registry) as port:
        url = f"http://{HOST}:{port}"
        families = {one.name: one for one in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)}
        assert families["nocap_things"].samples[0].value == 1
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200
        reasons[0] = "the database is away"
        answer = httpx.get(f"{url}/readyz")
        assert (answer.status_code, answer.text) == (503, "the database is away\n")
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/nothing").status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_a_taken_port_is_one_sentence_and_no_port_serves_nothing() -> None:
    with (
        status_server(HOST, 0, lambda: None) as port,
        pytest.raises(ConfigurationError, match="metrics"),
        status_server(HOST, port, lambda: None),
    ):
        pass
    with status_server(HOST, None, lambda: None) as nothing:
        assert nothing is None
