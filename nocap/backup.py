"""One file that holds an installation: the database, the adapters and the runs' records; never the key file.

A tar archive (texts are ciphertext and weights do not compress) that ends with `manifest.json`, which lists every
file with its SHA-256. It is written aside and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from sqlmodel import col, select

from inference.adapter_files import file_digest
from nocap.errors import InputError, KeyMismatchError, NocapError, StorageError
from nocap.settings import Settings
from storage.crypto import Keyring
from storage.database import Database
from storage.dump import digest_of, dump, restore
from storage.later_decisions import Decisions, decide_again, decisions
from storage.migrations import HEAD
from storage.runs import UNFINISHED
from storage.tables import Run

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "database"
NAME = re.compile(r"nocap-\d{8}T\d{6}Z\.tar")
STALE_SECONDS = 3600.0
LEFT_OUT = ("checkpoints",)
"""Folders of a run that a resumed run makes again."""


@dataclass(frozen=True)
class Backup:
    """What a backup says of itself."""

    file: str
    created_at: str
    dialect: str
    schema: str
    digest: str
    """Of the database's rows, as `nocap db check` prints it."""
    key_check: str
    """Recognises the key that its texts were encrypted with, and tells nothing about it."""
    files: Mapping[str, str]
    """Path in the archive → SHA-256."""


@dataclass(frozen=True)
class Restored:
    backup: Backup
    digest: str
    decided_again: int
    """Consents and erasures since the backup that were repeated on it."""
    files_kept: int
    """Adapters and run records that lay there already, intact, and stayed."""


def write_backup(settings: Settings, database: Database, folder: Path, at: datetime, *, keep: int | None) -> Backup:
    """Writes `nocap-<moment>.tar` into `folder` while everything runs; then removes all but the newest `keep`.

    Raises StorageError or OSError and leaves nothing half behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"nocap-{at:%Y%m%dT%H%M%SZ}.tar"
    if target.exists():
        raise InputError(f"{target} is there already; wait a second and try again.")
    partial = folder / f".{target.name}.partial"
    _sweep(folder)
    try:
        with TemporaryDirectory(dir=folder, prefix=".dump-") as scratch:
            backup = _write(settings, database, partial, Path(scratch) / DATABASE, target, at)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    if keep is not None:
        for old in sorted(file for file in folder.iterdir() if NAME.fullmatch(file.name))[: -max(1, keep)]:
            old.unlink()
    return backup


def read_backup(file: Path) -> Backup:
    """What `file` says of itself. Raises InputError where it is no backup."""
    try:
        with tarfile.open(file) as archive:
            return _manifest(archive, file)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{file} is not a backup of nocap, or is damaged ({error}); take another one.") from error


def restore_backup(settings: Settings, file: Path, *, replace: bool) -> Restored:
    """Puts the database, the adapters and the runs of `file` in place; nothing changes where a file is not intact.

    What members revoked or erased since then is revoked and erased again, where the database that is replaced can
    still say so. Raises InputError, StorageError or KeyMismatchError.
    """
    backup = read_backup(file)
    if settings.database_url.startswith("sqlite") != (backup.dialect == "sqlite"):
        raise InputError(f"{file} holds a {backup.dialect} database; set `database.url` to one of that kind.")
    keyring = Keyring.load(settings.key_file)
    if keyring.check_value() != backup.key_check:
        raise KeyMismatchError(f"{file} was made under another key; set `database.key_file` to the one of that time.")
    later = _decisions_now(settings, keyring)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.data_dir, prefix=".restoring-") as name:
        scratch = Path(name)
        _extract(file, backup, scratch)
        expected = backup.digest if backup.schema == HEAD else None
        restore(scratch / DATABASE, settings.database_url, keyring, expected, replace=replace)
        kept = sum(_put(scratch / part, settings.data_dir / part) for part in ("adapters", "runs"))
    database = Database.open(settings.database_url, keyring)
    try:
        again = 0
        if later is not None:
            with database.write() as session:
                again = decide_again(session, later)
        return Restored(backup, digest_of(database), again, kept)
    finally:
        database.close()


def _sweep(folder: Path) -> None:
    """Removes what killed backups left; one that is still at work has touched its files within the hour."""
    for left in (*folder.glob(".nocap-*.partial"), *folder.glob(".dump-*")):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _write(settings: Settings, database: Database, partial: Path, copy: Path, target: Path, at: datetime) -> Backup:
    digest, check = dump(database, copy), database.keyring.check_value()
    partial.touch(mode=0o600)
    with partial.open("wb") as output:
        with tarfile.open(fileobj=output, mode="w") as archive:
            files = {name: _add_file(archive, name, path) for name, path in _contents(settings, database, copy)}
            backup = Backup(str(target), at.isoformat(), database.url.get_backend_name(), HEAD, digest, check, files)
            _add_bytes(archive, MANIFEST, json.dumps({"format": FORMAT} | asdict(backup), indent=1).encode())
        output.flush()
        os.fsync(output.fileno())
    return backup


def _contents(settings: Settings, database: Database, copy: Path) -> Iterator[tuple[str, Path]]:
    """The copied database, and the files of the adapters and of the runs that are over, by name in the archive."""
    yield DATABASE, copy
    with database.read() as session:
        in_progress = set(session.exec(select(Run.id).where(col(Run.state).in_(UNFINISHED))))
    for part, folder in (("adapters", settings.adapters_dir), ("runs", settings.runs_dir)):
        for path in sorted(folder.rglob("*")):
            steps = path.relative_to(folder).parts
            left_out = any(step.startswith(".") or step in LEFT_OUT for step in steps) or steps[0] in in_progress
            if path.is_file() and not path.is_symlink() and not left_out:
                yield "/".join((part, *steps)), path


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.sha256.update(content)
        return content


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> str:
    """Adds what the file holds now; returns the SHA-256 of exactly these bytes."""
    with path.open("rb") as file:
        hashing = _Hashing(file)
        archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), hashing)
    return hashing.sha256.hexdigest()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _manifest(archive: tarfile.TarFile, file: Path) -> Backup:
    try:
        content = archive.extractfile(MANIFEST)
        values: dict[str, Any] = json.loads(content.read()) if content is not None else {}
        if values.pop("format") != FORMAT:
            raise ValueError("its format is unknown")
        return Backup(**values | {"file": str(file)})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a whole backup of nocap ({error}); take another one.") from error


def _extract(file: Path, backup: Backup, folder: Path) -> None:
    """Unpacks into `folder`. Raises StorageError at the first file that is missing or not what the manifest says."""
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise StorageError(f"{file} is damaged ({error}); nothing was changed. Take another backup.") from error
    for name, digest in backup.files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            raise StorageError(f"{file} is damaged: {name} is missing or changed; nothing was restored.")


def _put(source: Path, target: Path) -> int:
    """Moves each folder that is not there yet to its place; returns how many lay there already with these files."""
    kept = 0
    for folder in sorted(source.iterdir()) if source.is_dir() else ():
        place = target / folder.name
        if place.exists() and _same(folder, place):
            kept += 1
            continue
        if place.exists():
            place.rename(place.with_name(f".{place.name}.replaced-{os.getpid()}"))
        target.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
    return kept


def _same(folder: Path, place: Path) -> bool:
    """Whether every file of `folder` lies in `place` with the same bytes."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return all((place / name).is_file() and _hash(place / name) == _hash(folder / name) for name in names)


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _decisions_now(settings: Settings, keyring: Keyring) -> Decisions | None:
    """What members decided in the database that is there now; None where it cannot say."""
    with suppress(NocapError):
        database = Database.open(settings.database_url, keyring)
        try:
            with database.read() as session:
                return decisions(session)
        finally:
            database.close()
    return None
