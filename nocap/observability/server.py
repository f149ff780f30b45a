"""`/metrics`, `/healthz` and `/readyz` of a process that has no web server of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from nocap.errors import ConfigurationError

NotReady = Callable[[], str | None]
"""Why the process cannot do its work at the moment; None where it can."""


@contextmanager
def status_server(
    host: str, port: int | None, not_ready: NotReady, *, registry: CollectorRegistry = REGISTRY
) -> Iterator[int | None]:
    """Serves within the block and yields the port (0 takes a free one); nothing is served where it is None.

    Raises ConfigurationError where the address is taken.
    """
    if port is None:
        yield None
        return
    try:
        server = ThreadingHTTPServer((host, port), _handler(not_ready, registry))
    except OSError as error:
        raise ConfigurationError(
            f"The figures cannot be served on {host}:{port} ({error.strerror}); change the `metrics` settings."
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(not_ready: NotReady, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path == "/healthz":
                self._send(200, b"ok\n")
            elif path == "/readyz":
                reason = not_ready()
                self._send(503 if reason else 200, f"{reason or 'ready'}\n".encode())
            else:
                self._send(404, b"There are /metrics, /healthz and /readyz.\n")

        def _send(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line."""

    return Handler
