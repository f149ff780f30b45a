"""Checkpoints that survive a SIGKILL: one counts only once a marker says that all of it was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retrain.train.rows import Row

MARKER = "complete"


def fingerprint(recipe: Any, base_digest: str, rows: Iterable[Row]) -> str:
    """Names what is trained: a checkpoint of another recipe, base or data set is never resumed from."""
    digest = hashlib.sha256(json.dumps([recipe, base_digest], sort_keys=True, default=str).encode())
    for row in rows:
        digest.update(json.dumps([row.input_ids, row.labels]).encode())
    return digest.hexdigest()[:32]


def mark_complete(checkpoint: Path) -> None:
    """Called when every file of `checkpoint` is written: flushes them to disk, then the marker."""
    for file in checkpoint.rglob("*"):
        flush(file)
    (checkpoint / MARKER).touch()
    flush(checkpoint / MARKER)
    flush(checkpoint)


def latest_complete(folder: Path) -> Path | None:
    """The newest checkpoint that was wholly written; half-written ones are removed."""
    complete: list[Path] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / MARKER).exists():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)  # several processes may look at once
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def flush(path: Path) -> None:
    """Makes a file's contents, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
