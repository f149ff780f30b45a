"""One consistent copy of a running database, and putting it back.

SQLite is copied by `VACUUM INTO`, which leaves out freed pages (what was erased is not in the copy); PostgreSQL by
`pg_dump` on the very snapshot that the digest is taken on. Texts stay as encrypted as they are; the key is not in it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlmodel import Session, SQLModel

from nocap.errors import StorageError
from storage._engine import BUSY_TIMEOUT_SECONDS, build_engine, usable_url
from storage.crypto import Keyring
from storage.database import NEIGHBOURS, VERSION_TABLE, Database
from storage.invariants import digest

_LIBPQ = {"host": "PGHOST", "port": "PGPORT", "username": "PGUSER", "password": "PGPASSWORD", "database": "PGDATABASE"}
_LIBPQ_OPTIONS = {
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "service": "PGSERVICE",
}


def dump(database: Database, file: Path) -> str:
    """Writes a copy of the database as it is now into the new `file`; returns the digest of its rows."""
    if database.url.get_backend_name() == "sqlite":
        return _dump_sqlite(database, file)
    return _dump_postgresql(database, file)


def restore(file: Path, url: str, keyring: Keyring, expected_digest: str | None, *, replace: bool) -> None:
    """Makes the database behind `url` what `dump` wrote into `file`, and brings it to this version's schema.

    A copy of an older schema has no digest to compare with (None). Raises StorageError where a database is there and
    `replace` is off, where another process has it open, or where the copy is not what its digest says;
    KeyMismatchError where it was made under another key.
    """
    target = usable_url(url)
    if target.get_backend_name() == "sqlite":
        _restore_sqlite(file, target, keyring, expected_digest, replace=replace)
    else:
        _restore_postgresql(file, target, keyring, expected_digest, replace=replace)


def digest_of(database: Database) -> str:
    """The digest of the database's rows as they are now."""
    with database.read() as session:
        return digest(session)


def _dump_sqlite(database: Database, file: Path) -> str:
    file.touch(mode=0o600)
    try:
        with closing(sqlite3.connect(str(database.url.database), timeout=BUSY_TIMEOUT_SECONDS)) as source:
            source.execute("VACUUM INTO ?", (str(file),))
    except sqlite3.Error as error:
        raise StorageError(f"The copy {file} cannot be written ({error}); make room there and try again.") from error
    return _opened_digest(file, database.keyring)


def _opened_digest(file: Path, keyring: Keyring) -> str:
    """The digest of the database in `file`. Raises KeyMismatchError or StorageError where it cannot be opened."""
    copy = Database.open(f"sqlite:///{file}", keyring, create=True)
    try:
        return digest_of(copy)
    finally:
        copy.close()


def _restore_sqlite(file: Path, url: URL, keyring: Keyring, expected: str | None, *, replace: bool) -> None:
    target = Path(url.database or "")
    if target.exists() and not replace:
        raise StorageError(f"There is a database at {target}; add `--replace` to put the backup in its place.")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.restoring")
    fresh.unlink(missing_ok=True)
    try:
        fresh.touch(mode=0o600)
        shutil.copyfile(file, fresh)
        _require(_opened_digest(fresh, keyring), expected)
        if target.exists():
            _leave_the_log(target)
        fresh.replace(target)
    finally:
        for leftover in (fresh, *(fresh.with_name(fresh.name + suffix) for suffix in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)


def _leave_the_log(target: Path) -> None:
    """Takes the old file out of WAL mode, which needs it alone: so nobody has it open, and no log is left behind."""
    with closing(sqlite3.connect(target, timeout=0)) as old:
        try:
            old.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            raise StorageError(f"Another process has {target} open; stop nocap and try again.") from error
        except sqlite3.DatabaseError:  # it is damaged: the reason why it is replaced
            for suffix in ("-wal", "-shm"):
                target.with_name(target.name + suffix).unlink(missing_ok=True)


def _dump_postgresql(database: Database, file: Path) -> str:
    file.touch(mode=0o600)
    engine = build_engine(database.url, database.keyring)
    try:
        with engine.connect().execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        ) as connection:
            snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
            options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
            _run(["pg_dump", *options, f"--file={file}"], database.url)
            return digest(Session(connection))
    finally:
        engine.dispose()


def _restore_postgresql(file: Path, url: URL, keyring: Keyring, expected: str | None, *, replace: bool) -> None:
    """One transaction drops what is ours and reads the copy in; another process's connection stops it before."""
    with _alone(url, keyring) as there:
        if there and not replace:
            raise StorageError("There is a nocap database behind `database.url`; add `--replace` to replace it.")
        drops = "".join(f'DROP TABLE IF EXISTS "{table}" CASCADE;\n' for table in there)
        script = file.with_suffix(".sql")
        script.touch(mode=0o600)
        try:
            _run(["pg_restore", "--no-owner", "--no-privileges", f"--file={script}", str(file)], url)
            with script.open("r+", encoding="utf-8") as content:
                dump_sql = content.read()
                content.seek(0)
                content.write(f"{drops}DROP FUNCTION IF EXISTS nocap_refuse() CASCADE;\n{dump_sql}")
            command = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
            _run([*command, f"--file={script}", "--output=/dev/null"], url)
        finally:
            script.unlink(missing_ok=True)
    restored = Database.open(url.render_as_string(hide_password=False), keyring, create=True)
    try:
        _require(digest_of(restored), expected)
    finally:
        restored.close()


@contextmanager
def _alone(url: URL, keyring: Keyring) -> Iterator[list[str]]:
    """Our tables that are there. Raises StorageError where anybody else is connected to the database."""
    engine = build_engine(url, keyring)
    try:
        with engine.connect() as connection:
            others = connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            ).scalar_one()
            if others:
                raise StorageError(f"{others} other connections use the database; stop nocap and try again.")
            there = set(
                connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
            )
    finally:
        engine.dispose()
    yield sorted(there & {*SQLModel.metadata.tables, VERSION_TABLE, *NEIGHBOURS})


def _require(found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise StorageError("The backup's rows are not those that were written into it; take an older backup.")


def _run(command: Sequence[str], url: URL) -> None:
    """Runs one of PostgreSQL's own tools; password and host go by its environment, not its arguments."""
    variables = {name: str(value) for part, name in _LIBPQ.items() if (value := getattr(url, part))}
    query = {key: value for key, value in url.query.items() if isinstance(value, str)}
    variables |= {name: query[key] for key, name in _LIBPQ_OPTIONS.items() if key in query}
    try:
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StorageError(
            f"`{command[0]}` is not installed; install PostgreSQL's client of the server's version or newer."
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise StorageError(f"`{command[0]}` failed: {lines[0]}")
