"""`nocap serve`: the embedded server as a process."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from types import FrameType

import structlog

from inference.credentials import Tokens
from nocap.domain import AdapterName
from nocap.errors import AdapterError, ConfigurationError
from nocap.settings import Settings

log = structlog.get_logger(__name__)

SHUTDOWN_SECONDS = 30


def serve(settings: Settings, tokens: Tokens, *, preload: Sequence[AdapterName] = ()) -> None:
    """Serves the configured base, and the adapters `preload` of the adapters folder, until SIGTERM or Ctrl-C.

    Running replies are finished first, for at most 30 seconds. Raises ModelError where the base cannot be served and
    ConfigurationError where the address is taken;
    an adapter that cannot be loaded is logged and missing: asking for it is a 404, never another voice.
    """
    import uvicorn

    from inference.base_model import BaseModel, load_base
    from inference.server.api import create_app
    from inference.server.engine import Engine

    limits = settings.inference
    listening = _bound_socket(limits.host, limits.port)

    def load() -> BaseModel:
        return load_base(settings.base_path, quantization=settings.served_quantization, device=settings.model.device)

    engine = Engine(
        load(),
        max_batch=limits.max_batch,
        max_queue=limits.max_queue,
        max_adapters=limits.max_adapters,
        max_rank=limits.max_rank,
        trusted_signer=limits.trusted_signer,
        deadline_seconds=limits.deadline_seconds,
        prefix_cache_bytes=limits.prefix_cache_mib * 2**20,
        load_again=load,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            engine.drain()
            super().handle_exit(sig, frame)

    with engine:
        for name in preload:
            try:
                engine.load_adapter(name, settings.adapters_dir / name)
            except AdapterError as error:
                log.error("adapter not loaded", adapter=name, reason=str(error))
        app = create_app(engine, user_token=tokens.user, admin_token=tokens.admin, adapters_dir=settings.adapters_dir)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        log.info(
            "serving", base=settings.model.base, device=engine.base.device, url=f"http://{limits.host}:{limits.port}"
        )
        # uvicorn raises the signal that ended it once more; here it has done its work.
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda number, frame: None)
        Server(config).run(sockets=[listening])


def _bound_socket(host: str, port: int) -> socket.socket:
    """Taken before the model is loaded, so that a second server fails at once; nobody can connect to it yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"The server cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or set `inference.port`."
        ) from error
    return bound
