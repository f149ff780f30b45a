"""What every test may use: databases of both kinds, a keyring, settings in a folder of their own; no network."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from nocap.settings import Settings
from storage.crypto import Keyring
from storage.database import Database
from storage.tables import Identity

LOOPBACK = ("127.", "localhost", "::1")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine can be reached: anything else is an error at once."""

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX and not str(address[0]).startswith(LOOPBACK):
                raise RuntimeError(f"A test tried to reach {address[0]}; tests use no network.")
            return real(self, address)

        return connect

    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name and not name.startswith((*LOOPBACK, "0.0.0.0", "::")):
            raise socket.gaierror(f"A test tried to look up {name}; tests use no network.")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    monkeypatch.setattr(socket.socket, "connect", guard(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NOCAP_") and not name.startswith("NOCAP_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.create(tmp_path_factory.mktemp("keys") / "nocap.key")


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings whose data folder is `tmp_path/data`; arguments override top-level fields."""
    return lambda **overrides: Settings(**({"data_dir": tmp_path / "data"} | overrides))


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring) -> Path:
    file = tmp_path_factory.mktemp("template") / "nocap.db"
    Database.open(f"sqlite:///{file}", keyring, create=True).close()
    return file


@pytest.fixture(scope="session")
def _postgres_url() -> Iterator[URL]:
    """A throw-away PostgreSQL database, dropped at the end."""
    server = make_url(
        os.environ.get("NOCAP_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
    )
    server = server.set(drivername="postgresql+psycopg")
    engine = create_engine(server, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    name = f"nocap_test_{os.getpid()}_{secrets.token_hex(4)}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    except OperationalError as error:
        why = f"no PostgreSQL answers at {server.render_as_string()}: {str(error.orig).splitlines()[0]}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    yield server.set(database=name)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def _postgres_database(_postgres_url: URL, keyring: Keyring) -> Iterator[Database]:
    database = Database.open(_postgres_url.render_as_string(hide_password=False), keyring, create=True)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(tmp_path: Path, _sqlite_template: Path, keyring: Keyring) -> Iterator[Database]:
    """An empty database on SQLite, for tests whose subject is not the database."""
    file = tmp_path / "nocap.db"
    shutil.copy(_sqlite_template, file)
    database = Database.open(f"sqlite:///{file}", keyring)
    yield database
    database.close()


@pytest.fixture
def postgres_database(_postgres_database: Database) -> Iterator[Database]:
    """An empty database on PostgreSQL."""
    yield _postgres_database
    with _postgres_database.write() as session:
        session.connection().execute(text("SET LOCAL session_replication_role = replica"))  # past the ledgers' triggers
        for table in SQLModel.metadata.tables.values():
            if table.name != Identity.__tablename__:
                session.connection().execute(table.delete())


@pytest.fixture
def postgres_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of its own on PostgreSQL."""
    if shutil.which("pg_dump") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("pg_dump is not installed")
    server: URL = request.getfixturevalue("_postgres_url")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"{server.database}_own"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database, of each kind in turn."""
    name = "sqlite_database" if request.param == "sqlite" else "postgres_database"
    found: Database = request.getfixturevalue(name)
    return found
