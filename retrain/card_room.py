"""Room for a run on a card that also serves: `retrain.gpu = "pause"`.

The servers lend their card for a time that the run's heartbeat renews, so that they come back by themselves where the
run is killed.
"""

from __future__ import annotations

import threading
import time

from inference.credentials import backend_tokens
from nocap.domain import RunId
from nocap.errors import ConfigurationError, NocapError
from nocap.settings import Settings
from retrain.promote import LiveBackend
from storage.crypto import Keyring

LEASE_SECONDS = 90.0
RENEW_SECONDS = 20.0


class CardRoom:
    """One run's hold on the servers' card; without `retrain.gpu = "pause"` it does nothing."""

    def __init__(self, settings: Settings, keyring: Keyring, run_id: RunId) -> None:
        self._settings = settings
        self._owner = str(run_id)
        tokens = backend_tokens(settings, keyring)
        self._backend = LiveBackend(settings, user_token=tokens.user, admin_token=tokens.admin)
        self._lock = threading.Lock()
        self._renewed_at: float | None = None

    @property
    def _is_wanted(self) -> bool:
        return self._settings.retrain.gpu == "pause"

    def take(self) -> None:
        """The servers have freed the card. Raises ConfigurationError where the backend is one that cannot pause."""
        if not self._is_wanted:
            return
        if (backend := self._settings.inference.backend) != "embedded":
            raise ConfigurationError(
                f"`retrain.gpu` is `pause`, but `inference.backend` is `{backend}`: only the embedded server pauses."
                " Set it to `share`, or train on another card."
            )
        with self._lock:
            self._pause()

    def renew(self) -> None:
        """Keeps the room, where it was taken. Raises NocapError where a server does not give it any more."""
        with self._lock:
            if self._renewed_at is not None and time.monotonic() - self._renewed_at >= RENEW_SECONDS:
                self._pause()

    def give_back(self) -> NocapError | None:
        """The servers serve again, also those that an earlier process of the run has paused.

        Returns what keeps one from it; it goes on trying by itself.
        """
        if not self._is_wanted:
            return None
        with self._lock:
            self._renewed_at = None
            try:
                self._backend.resume(self._owner)
            except NocapError as error:
                return error
            return None

    def _pause(self) -> None:
        self._backend.pause(self._owner, LEASE_SECONDS)
        self._renewed_at = time.monotonic()
