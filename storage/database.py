"""Opening a database (SQLite file or PostgreSQL) and running transactions on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy import inspect as inspect_schema
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session, SQLModel

from nocap.domain import utc_now
from nocap.errors import KeyMismatchError, StorageError
from storage._engine import BUSY_TIMEOUT_SECONDS, build_engine, probe_engine, read_only_options, usable_url
from storage.crypto import Keyring
from storage.migrations import HEAD, KNOWN
from storage.tables import Identity

SQLITE_HEADER_BYTES = 100
CHECKPOINT_ATTEMPTS = 3
"""Each waits for readers as long as any writer does (`BUSY_TIMEOUT_SECONDS`)."""
VERSION_TABLE = "alembic_version"
# Tables that others may keep beside ours: APScheduler's job store.
NEIGHBOURS = frozenset({"apscheduler_jobs"})
_UPGRADE_LOCK = 0x6E6F636170  # "nocap", for PostgreSQL's advisory lock


class Database:
    """One database under one keyring; safe to share between threads, each session for one thread."""

    def __init__(self, url: URL, keyring: Keyring) -> None:
        self.keyring = keyring
        self.url = url
        self._engine = build_engine(url, keyring)
        self._readers = self._engine.execution_options(**read_only_options(url))

    @classmethod
    def open(cls, url: str, keyring: Keyring, *, create: bool = False) -> Database:
        """The database behind `url` at the newest schema; `create` makes or upgrades it first.

        Raises StorageError where it is missing, behind, damaged or another program's, KeyMismatchError where it
        was made with another key, and ConfigurationError for a URL that nocap cannot use. Nothing is written then.
        """
        database = cls(usable_url(url), keyring)
        try:
            revision = database._probe()
            if revision != HEAD:
                if not create:
                    raise StorageError(database._behind(revision))
                database.upgrade()
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that cannot write; what it returns stays readable afterwards."""
        with self._translated(), Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back on any error."""
        with self._translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def why_away(self) -> str | None:
        """One sentence where it does not answer at the moment; None where it does."""
        try:
            with self.read() as session:
                session.connection().execute(select(1))
        except StorageError as error:
            return str(error)
        return None

    def upgrade(self) -> None:
        """Brings the schema to the newest revision in one transaction; does nothing where it is there already."""
        if self._file is not None:
            self._create_file(self._file)
        engine = build_engine(self.url, self.keyring, foreign_keys=False)
        try:
            with self._translated(), engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
                if self._revision(connection) != HEAD:
                    _migrate(connection)
                    self._claim(connection)
        finally:
            engine.dispose()

    def wipe_freed(self, *, rewrite: bool = False) -> None:
        """Makes sure that no erased row is left in what the database freed; `rewrite` copies all tables anew.

        SQLite overwrites what is deleted (`secure_delete`); the write-ahead log, which still holds the old pages, is
        emptied here. PostgreSQL marks erased rows for reuse, and only `rewrite` (VACUUM FULL, which locks each
        table) removes their bytes.
        """
        if self._file is None:
            autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            with self._translated(), autocommit.connect() as connection:
                connection.exec_driver_sql("VACUUM (FULL)" if rewrite else "VACUUM")
            return
        with self._translated(), closing(self._engine.raw_connection()) as raw:
            sqlite: Any = raw.driver_connection
            if rewrite:
                sqlite.execute("VACUUM")
            for _ in range(CHECKPOINT_ATTEMPTS):
                is_busy, *_ = sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not is_busy:
                    return
        raise StorageError(
            f"{self._where} is being read all the time, so its write-ahead log could not be emptied; what was erased is"
            " gone from the tables, and from the log after `nocap retention apply`."
        )

    def close(self) -> None:
        self._engine.dispose()

    @property
    def _file(self) -> Path | None:
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    @property
    def _where(self) -> str:
        """How messages name this database, without its password."""
        return str(self._file or self.url.render_as_string(hide_password=True))

    def _probe(self) -> str | None:
        """The revision found (None: empty or missing), looked at without writing anything; checks the key."""
        engine: Engine = self._readers
        if self._file is not None:
            if not self._file.exists():
                return None
            if 0 < self._file.stat().st_size < SQLITE_HEADER_BYTES:  # SQLite itself takes such a stub for empty
                raise StorageError(_sentence(self._where, ["file is not a database"]))
            engine = probe_engine(self._file)
        with self._translated(), engine.connect() as connection:
            return self._revision(connection)

    def _revision(self, connection: Connection) -> str | None:
        tables = set(inspect_schema(connection).get_table_names())
        if VERSION_TABLE not in tables:
            if tables - NEIGHBOURS:
                raise StorageError(
                    f"{self._where} holds tables of another program ({', '.join(sorted(tables)[:3])}, …); give nocap"
                    " a database of its own (`database.url`)."
                )
            return None
        revisions = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalars().all()
        if len(revisions) != 1 or revisions[0] not in KNOWN:
            raise StorageError(
                f"{self._where} is at schema {', '.join(revisions) or 'none'}, which this nocap (schema {HEAD}) does"
                " not know: it belongs to a newer nocap, to another program, or was migrated halfway. Update nocap,"
                " or restore the database from a backup."
            )
        missing = sorted(set(SQLModel.metadata.tables) - tables) if revisions[0] == HEAD else []
        if missing:
            raise StorageError(
                f"{self._where} is at schema {HEAD} but lacks the table {missing[0]}: it was migrated halfway or"
                " damaged. Restore it from a backup."
            )
        self._check_key(connection)
        return str(revisions[0])

    def _check_key(self, connection: Connection) -> None:
        expected = connection.execute(select(Identity.__table__.c.key_check)).scalar_one_or_none()  # type: ignore[attr-defined]
        if not self.keyring.accepts(expected):
            raise KeyMismatchError(
                f"The key file does not belong to {self._where}; set `database.key_file` to the one that it was made"
                " with (nocap never replaces a key)."
            )

    def _claim(self, connection: Connection) -> None:
        if connection.execute(select(Identity.id)).first() is None:  # type: ignore[call-overload]
            connection.execute(
                insert(Identity).values(id=1, key_check=self.keyring.check_value(), created_at=utc_now())
            )

    def _behind(self, revision: str | None) -> str:
        if revision is None:
            return f"There is no nocap database at {self._where}; make one with `nocap init`."
        return f"{self._where} is at schema {revision}, this nocap needs {HEAD}; run `nocap db upgrade`."

    def _create_file(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
        except OSError as error:
            raise StorageError(f"The database {file} cannot be written: {error.strerror or error}.") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, ProgrammingError, DataError):
            raise
        except PoolTimeoutError as error:
            raise StorageError(f"Every connection to {self._where} is in use; run fewer jobs at once.") from error
        except DatabaseError as error:
            raise StorageError(_sentence(self._where, str(error.orig).strip().splitlines())) from error


def _sentence(where: str, lines: list[str]) -> str:
    cause = lines[0] if lines else "no reason given"
    if "disk is full" in cause or "No space left" in cause:
        return f"There is no room left on the disk of {where}; the step at hand was undone. Free some and try again."
    if "is locked" in cause:
        return f"{where} is busy: another process kept it locked for {BUSY_TIMEOUT_SECONDS} s. Try again."
    if "malformed" in cause or "not a database" in cause:
        return f"{where} is damaged or is no SQLite database ({cause}); restore it from a backup."
    return f"{where} cannot be used: {cause}. Check `database.url` and that the database answers, then try again."


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
    if connection.dialect.name == "sqlite":
        orphan = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if orphan is not None:
            raise StorageError(f"The upgrade was undone: a row of {orphan[0]} would point to nothing in {orphan[2]}.")
