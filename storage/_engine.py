"""Engines: how each of the two databases is connected to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from nocap.errors import ConfigurationError
from storage.crypto import Keyring

BUSY_TIMEOUT_SECONDS = 30
LIBPQ_TIMEOUTS = {
    "connect_timeout": 3,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that fell silent is noticed within 10 s, not after the kernel's two hours; the last is milliseconds."""


def usable_url(text: str) -> URL:
    """The URL of a database that nocap works on; raises ConfigurationError for any other."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            "`database.url` is not a URL; write it like `sqlite:///data/nocap.db` or"
            " `postgresql+psycopg://user:password@host/name`."
        ) from error
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite":
        raise ConfigurationError(
            f"`database.url` names {url.drivername}; nocap works on sqlite and postgresql+psycopg."
        )
    if url.database in (None, "", ":memory:"):
        raise ConfigurationError("`database.url` names a database in memory, which forgets all; name a file.")
    return url


def read_only_options(url: URL) -> dict[str, Any]:
    """The execution options under which transactions on the engine cannot write."""
    return {"postgresql_readonly": True} if url.get_backend_name() == "postgresql" else {"sqlite_read_only": True}


def build_engine(url: URL, keyring: Keyring, *, foreign_keys: bool = True) -> Engine:
    """An engine whose column types encrypt with `keyring`; it connects when first used."""
    sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=8,
        max_overflow=24,
        pool_pre_ping=not sqlite,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS} if sqlite else LIBPQ_TIMEOUTS,
    )
    engine.dialect.nocap_keyring = keyring  # type: ignore[attr-defined]
    if sqlite:
        _tune_sqlite(engine, foreign_keys)
    return engine


def _tune_sqlite(engine: Engine, foreign_keys: bool) -> None:
    """Write-ahead log, and transactions that we begin ourselves (the driver's own start too late).

    `synchronous=NORMAL` loses nothing when a process is killed; a power cut may take the last commits but never
    damages the file (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        connection.execute("PRAGMA secure_delete = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver itself, where nothing can fail: through SQLAlchemy each of these costs a fifth of a short read.
        driver: Any = connection.connection.driver_connection
        read_only = connection.get_execution_options().get("sqlite_read_only", False)
        driver.execute(f"PRAGMA query_only = {int(read_only)}")
        if read_only:
            driver.execute("BEGIN")
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def probe_engine(file: Path) -> Engine:
    """An engine that looks at a SQLite file without ever writing to it.

    What a killed process left half written is undone first: a reader alone could not see past it.
    """
    return create_engine("sqlite://", creator=lambda: _probe(file), poolclass=NullPool, hide_parameters=True)


def _probe(file: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(file.resolve()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS)
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            return connection  # the first query says what is wrong
        connection.close()
        with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_SECONDS)) as writing:
            writing.execute("PRAGMA schema_version").fetchone()
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS)
    except sqlite3.DatabaseError:
        pass  # the first query says what is wrong
    return connection
