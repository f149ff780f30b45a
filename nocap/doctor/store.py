"""The key file and the database."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy import text

from nocap.domain import utc_now
from nocap.errors import NocapError
from nocap.findings import Finding, ok, problem, warning
from nocap.settings import Settings
from storage.crypto import Keyring
from storage.database import Database
from storage.migrations import HEAD

CLOCK_DIFFERENCE_SECONDS = 2.0
"""Leases and the order of votes from several machines stand on their clocks."""
OLDEST_VERSION = 13
"""The oldest PostgreSQL major version that still gets fixes when this was written; the tests run on 15."""


def check_key(settings: Settings) -> Iterator[Finding]:
    try:
        Keyring.load(settings.key_file)
    except NocapError as error:
        yield problem("key", str(error), "bring the right key file back; never make a new one for an old database")
        return
    yield ok("key", f"{settings.key_file} is there and private.")
    if settings.key_file.parent == settings.data_dir and settings.database_url.startswith("sqlite"):
        yield warning(
            "key",
            "The key lies beside the database, so whoever copies the folder can read every text.",
            "on a server, move it to a place of its own and set `database.key_file`",
        )


def check_database(settings: Settings) -> Iterator[Finding]:
    try:
        database = Database.open(settings.database_url, Keyring.load(settings.key_file))
    except NocapError as error:
        yield problem("database", str(error), "do what the sentence says; a backup is put back by `nocap db restore`")
        return
    try:
        yield ok("database", f"It opens with this key and is at schema {HEAD}.")
        yield from _writes(database)
        yield from _server(database)
    finally:
        database.close()


def _writes(database: Database) -> Iterator[Finding]:
    try:
        with database.write() as session:
            session.connection().execute(text("UPDATE lease SET owner = owner WHERE name = 'nocap-doctor'"))
    except NocapError as error:
        yield problem("database", f"It cannot be written: {error}", "mend the permissions, the disk or the lock")
    else:
        yield ok("database", "It can be written.")


def _server(database: Database) -> Iterator[Finding]:
    """PostgreSQL's version, its clock against ours, and its room for connections."""
    if database.url.get_backend_name() != "postgresql":
        return
    begun = time.monotonic()
    with database.read() as session:
        connection = session.connection()
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        limit = int(connection.execute(text("SHOW max_connections")).scalar_one())
        used = connection.execute(text("SELECT count(*) FROM pg_stat_activity")).scalar_one()
    away = abs((theirs - utc_now()).total_seconds()) - (time.monotonic() - begun)
    if version < OLDEST_VERSION * 10_000:
        yield problem(
            "database", f"PostgreSQL {version // 10_000} is too old.", f"update it to {OLDEST_VERSION} or newer"
        )
    if away > CLOCK_DIFFERENCE_SECONDS:
        yield problem(
            "clock", f"This machine's clock is {away:.0f} s off the database's.", "let both follow one NTP server"
        )
    else:
        yield ok("clock", "This machine's clock agrees with the database's.")
    if used > 0.8 * limit:
        yield warning(
            "database",
            f"{used} of {limit} connections are in use.",
            "raise `max_connections`, or put PgBouncer in front (transaction pooling works)",
        )
