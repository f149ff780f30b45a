"""Which adapter name stands for which slot. A name never changes its meaning while the process lives.

absent ──loading──▶ ready ──unloading──▶ (name gone, requests finish, slot cleared) absent
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from inference.adapter_files import AdapterManifest, adapter_name, verify_adapter
from inference.signing import require_signature
from nocap.domain import BASE, AdapterName
from nocap.errors import AdapterError, UnknownAdapter


class AdapterConflict(AdapterError):
    """The adapter is sound, but this server's state does not allow the change now."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    name: AdapterName
    digest: str
    rank: int
    folder: Path
    slot: int


@dataclass(frozen=True, slots=True)
class Loading:
    adapter: LoadedAdapter
    manifest: AdapterManifest
    is_new: bool


@dataclass(slots=True)
class _Entry:
    adapter: LoadedAdapter
    requests: int = field(default=0)


class AdapterRegistry:
    """Shared by callers and the engine's thread, under the engine's lock."""

    def __init__(self, slots: int, lock: threading.Condition, trusted_signer: str | None = None) -> None:
        self._trusted_signer = trusted_signer
        self.slots = slots
        self._lock = lock
        self._changing = threading.Lock()
        self._ready: dict[str, _Entry] = {}
        self._leaving: dict[str, _Entry] = {}
        self._digests: dict[str, str] = {}

    def ready(self) -> list[LoadedAdapter]:
        with self._lock:
            return sorted((entry.adapter for entry in self._ready.values()), key=lambda adapter: adapter.name)

    def acquire(self, name: AdapterName) -> int | None:
        """The slot that a new request reads (None: the base), held until `release`. Raises UnknownAdapter."""
        if name == BASE:
            return None
        with self._lock:
            entry = self._ready.get(name)
            if entry is None:
                raise UnknownAdapter(f"No adapter `{name[:80]}` is loaded here; load it first, or ask for `{BASE}`.")
            entry.requests += 1
            return entry.adapter.slot

    def release(self, name: AdapterName) -> None:
        if name == BASE:
            return
        with self._lock:
            entry = self._leaving.get(name) or self._ready[name]
            entry.requests -= 1
            self._lock.notify_all()

    @contextmanager
    def loading(self, name: str, folder: Path, base_digest: str) -> Iterator[Loading]:
        """Verifies the files and reserves a slot; the name is ready once the block ends without an error."""
        name = adapter_name(name)
        with self._changing:
            if self._trusted_signer is not None:
                require_signature(folder, self._trusted_signer)
            manifest = verify_adapter(folder, base_digest=base_digest)
            if manifest.name != name:
                raise AdapterError(f"The folder for `{name}` holds the adapter `{manifest.name}`; ask for that name.")
            if known := self._same_digest(manifest):
                yield Loading(known, manifest, is_new=False)
                return
            adapter = LoadedAdapter(manifest.name, manifest.digest, manifest.rank, folder, self._free_slot(name))
            yield Loading(adapter, manifest, is_new=True)
            with self._lock:
                self._digests[name] = manifest.digest
                self._ready[name] = _Entry(adapter)

    @contextmanager
    def unloading(self, name: str) -> Iterator[LoadedAdapter]:
        """Takes the name away and waits for its requests; the slot is free once the block ends."""
        with self._lock:
            entry = self._ready.pop(name, None)
            if entry is None:
                raise UnknownAdapter(f"No adapter `{name[:80]}` is loaded here, so there is nothing to unload.")
            self._leaving[name] = entry
            while entry.requests:
                self._lock.wait()
        try:
            yield entry.adapter
        finally:
            with self._lock:
                del self._leaving[name]

    def _same_digest(self, manifest: AdapterManifest) -> LoadedAdapter | None:
        with self._lock:
            if manifest.name in self._leaving:
                raise AdapterConflict(f"Adapter {manifest.name} is being unloaded; try again when that is done.")
            if self._digests.get(manifest.name, manifest.digest) != manifest.digest:
                raise AdapterConflict(
                    f"The name {manifest.name} stands for another adapter here (digest "
                    f"{self._digests[manifest.name][:12]}, this one is {manifest.digest[:12]}); give the new one its "
                    "own name."
                )
            entry = self._ready.get(manifest.name)
            return entry.adapter if entry else None

    def _free_slot(self, name: str) -> int:
        with self._lock:
            entries = [*self._ready.values(), *self._leaving.values()]
            free = set(range(self.slots)) - {entry.adapter.slot for entry in entries}
            if not free:
                names = ", ".join(sorted(entry.adapter.name for entry in entries))
                raise AdapterConflict(f"No slot is free for {name} ({self.slots} hold {names}); unload one first.")
            return min(free)
