"""A pause of the engine on behalf of a retrain that needs the card: lent for a time, so that nobody can keep it."""

from __future__ import annotations

import threading
import time

import structlog

from inference.server.engine import Engine
from nocap.errors import NocapError, NotPermitted

RETRY_SECONDS = 10.0
"""Between two attempts to load the base again; whoever died with the card in use may take a moment to let go of it."""

log = structlog.get_logger(__name__)


class Pauses:
    """Pauses the engine for one owner at a time; where the owner neither renews nor ends it, the engine comes back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changing = threading.Lock()
        self._owner: str | None = None
        self._ends_at = 0.0
        self._over = threading.Event()

    def begin(self, owner: str, lease_seconds: float) -> None:
        """The engine is paused for `owner` and its memory free; asked again, it stays so for `lease_seconds` more.

        Raises NotPermitted where another owner has it paused, InferenceError where it cannot pause.
        """
        if self._owner == owner and self._engine.is_paused:
            self._ends_at = time.monotonic() + lease_seconds
            return
        with self._changing:
            if self._engine.is_paused and self._owner != owner:
                raise NotPermitted(f"The server is paused for {self._owner} already; wait for its end.")
            self._ends_at = time.monotonic() + lease_seconds
            if self._engine.is_paused:
                return
            self._owner = owner
            self._over.clear()
            started = time.monotonic()
            self._engine.pause()
            log.info("paused", owner=owner, seconds=round(time.monotonic() - started, 1))
            self._ends_at = time.monotonic() + lease_seconds
        threading.Thread(target=self._come_back, name="nocap-pause", daemon=True).start()

    def end(self, owner: str) -> None:
        """The engine serves again; nothing happens where it is not paused.

        Raises NotPermitted where another owner has it paused, ModelError where its base cannot be loaded: it goes on
        trying by itself.
        """
        with self._changing:
            if not self._engine.is_paused:
                return
            if self._owner != owner:
                raise NotPermitted(f"The server is paused for {self._owner}, not for {owner}.")
            self._ends_at = 0.0
            self._resume("ended")

    def _come_back(self) -> None:
        """Waits for the lease's end, then tries until the engine serves again."""
        while not self._over.wait(max(0.05, min(1.0, self._ends_at - time.monotonic()))):
            if time.monotonic() < self._ends_at:
                continue
            with self._changing:
                if self._over.is_set():
                    return
                try:
                    self._resume("lease ran out")
                except (NocapError, RuntimeError, OSError) as error:  # torch's lack of memory is a RuntimeError
                    log.error("cannot serve again yet", reason=str(error)[:300])
                    self._ends_at = time.monotonic() + RETRY_SECONDS

    def _resume(self, why: str) -> None:
        started = time.monotonic()
        self._engine.resume()
        self._over.set()
        log.info("serves again", owner=self._owner, why=why, seconds=round(time.monotonic() - started, 1))
        self._owner = None
