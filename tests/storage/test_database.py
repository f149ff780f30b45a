import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, StatementError
from sqlmodel import SQLModel, select

from nocap.domain import Vote
from nocap.errors import ConfigurationError, KeyMismatchError, StorageError
from nocap.findings import Level
from storage.crypto import Keyring
from storage.database import Database
from storage.invariants import check_rows
from storage.migrations import HEAD, KNOWN
from storage.tables import Channel, Feedback, Message
from tests.storage.community import ANA, FLAT, GENZ, NOW, agree, answer, message, open_channel, store

STRANGER = Keyring(b"s" * 32)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "nocap.db"


@pytest.fixture
def postgres_schema(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty schema on PostgreSQL."""
    url: URL = request.getfixturevalue("_postgres_url")
    with create_engine(url).begin() as connection:
        connection.execute(text("CREATE SCHEMA fresh"))
    yield url.update_query_dict({"options": "-csearch_path=fresh"}).render_as_string(hide_password=False)
    with create_engine(url).begin() as connection:
        connection.execute(text("DROP SCHEMA fresh CASCADE"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """Where a database may be made, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_file')}"
    url: str = request.getfixturevalue("postgres_schema")
    return url


def change(url: str, *statements: str) -> None:
    with create_engine(url).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_an_empty_place_is_not_opened_unless_asked_to_create(empty_url: str, keyring: Keyring) -> None:
    with pytest.raises(StorageError, match="nocap init"):
        Database.open(empty_url, keyring)
    Database.open(empty_url, keyring, create=True).close()
    database = Database.open(empty_url, keyring)
    with database.write() as session:
        open_channel(session)
    database.close()


def test_creating_twice_keeps_what_is_there(empty_url: str, keyring: Keyring) -> None:
    for _ in range(2):
        database = Database.open(empty_url, keyring, create=True)
        with database.write() as session:
            open_channel(session)
        database.upgrade()
        database.close()


def test_a_database_that_is_not_made_leaves_no_file(sqlite_file: Path, keyring: Keyring) -> None:
    with pytest.raises(StorageError):
        Database.open(f"sqlite:///{sqlite_file}", keyring)
    assert not sqlite_file.parent.exists()


def test_the_sqlite_file_is_private_and_durable(sqlite_file: Path, keyring: Keyring) -> None:
    database = Database.open(f"sqlite:///{sqlite_file}", keyring, create=True)
    assert sqlite_file.stat().st_mode & 0o077 == 0
    pragmas = ("journal_mode", "foreign_keys", "secure_delete", "synchronous", "busy_timeout")
    with database.read() as session:
        found = [session.connection().exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["wal", 1, 1, 1, 30_000]
    database.close()


def test_another_key_is_refused(empty_url: str, keyring: Keyring) -> None:
    Database.open(empty_url, keyring, create=True).close()
    for create in (False, True):
        with pytest.raises(KeyMismatchError, match="key_file"):
            Database.open(empty_url, STRANGER, create=create)
    Database.open(empty_url, keyring).close()


def test_another_programs_database_is_refused_and_stays_as_it_was(
    empty_url: str, keyring: Keyring, sqlite_file: Path
) -> None:
    sqlite_file.parent.mkdir()
    change(empty_url, "CREATE TABLE invoice (id INTEGER)")
    before = sqlite_file.read_bytes() if sqlite_file.exists() else b""
    for create in (False, True):
        with pytest.raises(StorageError, match=r"another program.*invoice"):
            Database.open(empty_url, keyring, create=create)
    assert tables(empty_url) == {"invoice"}
    assert (sqlite_file.read_bytes() if sqlite_file.exists() else b"") == before
    assert not list(sqlite_file.parent.glob("*-wal"))


def test_the_schedulers_table_may_stand_beside_ours(empty_url: str, keyring: Keyring, sqlite_file: Path) -> None:
    sqlite_file.parent.mkdir()
    change(empty_url, "CREATE TABLE apscheduler_jobs (id INTEGER)")
    Database.open(empty_url, keyring, create=True).close()
    Database.open(empty_url, keyring).close()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE alembic_version SET version_num = 'from-the-future'", "from-the-future.*Update nocap"),
        ("DELETE FROM alembic_version", "none.*migrated halfway"),
        ("DROP TABLE gate_result", "lacks the table gate_result.*backup"),
        ("DELETE FROM identity", "key_file"),
    ],
)
def test_a_schema_that_is_not_whole_is_refused(empty_url: str, keyring: Keyring, damage: str, sentence: str) -> None:
    Database.open(empty_url, keyring, create=True).close()
    change(empty_url, damage)
    before = tables(empty_url)
    for create in (False, True):
        with pytest.raises(StorageError, match=sentence):
            Database.open(empty_url, keyring, create=create)
    assert tables(empty_url) == before


def test_an_older_schema_is_not_opened_but_pointed_to_the_upgrade(
    empty_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database.open(empty_url, keyring, create=True).close()
    monkeypatch.setattr("storage.database.HEAD", "9999")
    with pytest.raises(StorageError, match=rf"at schema {HEAD}, this nocap needs 9999; run `nocap db upgrade`"):
        Database.open(empty_url, keyring)


@pytest.mark.parametrize("revision", sorted(KNOWN - {HEAD}))
def test_a_database_of_every_older_schema_is_upgraded_with_its_rows(
    empty_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("storage.database.HEAD", revision)
        old = Database.open(empty_url, keyring, create=True)
        with old.write() as session:
            open_channel(session)
            agree(session, ANA)
            store(session, message("k", text="said in the old days"))
            session.add(Feedback(reply_id=answer(session), member=ANA, vote=Vote.UP, at=NOW))
        old.close()
    with pytest.raises(StorageError, match=f"at schema {revision}, .*`nocap db upgrade`"):
        Database.open(empty_url, keyring)
    with closing(Database.open(empty_url, keyring, create=True)) as database, database.read() as session:
        assert session.exec(select(Message.text)).all() == ["said in the old days"]
        assert session.exec(select(Feedback.vote)).all() == [Vote.UP]
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
        assert [one.sentence for one in check_rows(session) if one.level is Level.PROBLEM] == []


def test_an_upgrade_that_fails_leaves_nothing_behind(
    empty_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the power went out")

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="power"):
        patched.setattr(Database, "_claim", fail)
        Database.open(empty_url, keyring, create=True)
    assert tables(empty_url) == set()
    Database.open(empty_url, keyring, create=True).close()


@pytest.mark.parametrize("bytes_left", [1, 99, 100, 5000, 50_000])
def test_a_truncated_file_is_called_damaged(sqlite_file: Path, keyring: Keyring, bytes_left: int) -> None:
    Database.open(f"sqlite:///{sqlite_file}", keyring, create=True).close()
    content = sqlite_file.read_bytes()
    assert len(content) > bytes_left
    sqlite_file.write_bytes(content[:bytes_left])
    for create in (False, True):
        with pytest.raises(StorageError, match="damaged"):
            Database.open(f"sqlite:///{sqlite_file}", keyring, create=create)
    assert sqlite_file.read_bytes() == content[:bytes_left]


def test_a_file_that_is_no_database_is_refused(sqlite_file: Path, keyring: Keyring) -> None:
    sqlite_file.parent.mkdir()
    sqlite_file.write_text("dear diary, " * 1000)
    with pytest.raises(StorageError, match="no SQLite database"):
        Database.open(f"sqlite:///{sqlite_file}", keyring, create=True)
    assert sqlite_file.read_text() == "dear diary, " * 1000


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", "not a URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://root@localhost/x", "names mysql"),
        ("sqlite+aiosqlite:///x.db", r"names sqlite\+aiosqlite"),
    ],
)
def test_a_url_that_cannot_work_says_what_to_write(keyring: Keyring, url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Database.open(url, keyring, create=True)


def test_a_server_that_does_not_answer_is_named_without_its_password(keyring: Keyring) -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
        Database.open("postgresql://bot:hunter2@127.0.0.1:1/nocap", keyring, create=True)
    assert "hunter2" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, keyring: Keyring) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Database.open(f"sqlite:///{tmp_path}/file/nocap.db", keyring, create=True)


def test_an_error_inside_a_transaction_undoes_it(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as session:
        open_channel(session)
        raise ZeroDivisionError
    with database.read() as session:
        assert session.get(Channel, FLAT) is None


def test_a_reading_session_cannot_write(database: Database) -> None:
    with pytest.raises((StorageError, DBAPIError), match=r"read-?only"), database.read() as session:
        open_channel(session)
    with database.write() as session:
        assert session.get(Channel, FLAT) is None
        open_channel(session)


def test_rows_stay_readable_after_their_session(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        written = session.get_one(Channel, FLAT)
    with database.read() as session:
        read = session.get_one(Channel, FLAT)
    assert written.voice == read.voice == GENZ


def test_moments_come_back_aware_and_in_utc(database: Database) -> None:
    paris = timezone(timedelta(hours=1))
    with database.write() as session:
        session.add(Channel(key="c", platform="x", voice="v", created_at=datetime(2026, 11, 1, 13, tzinfo=paris)))
    with database.read() as session:
        moment = session.get_one(Channel, "c").created_at
    assert (moment.isoformat(), moment.tzinfo) == ("2026-11-01T12:00:00+00:00", UTC)


def test_a_naive_moment_is_refused(database: Database) -> None:
    naive = datetime(2026, 11, 1)
    with pytest.raises(StatementError, match="time zone"), database.write() as session:
        session.add(Channel(key="c", platform="x", voice="v", created_at=naive))


def test_texts_rest_encrypted(sqlite_database: Database, tmp_path: Path) -> None:
    with sqlite_database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1", text="skibidi secret sauce"))
    sqlite_database.close()
    assert b"skibidi" not in (tmp_path / "nocap.db").read_bytes()
    with sqlite_database.read() as session:
        assert session.get_one(Message, 1).text == "skibidi secret sauce"


def test_errors_do_not_show_the_texts_they_are_about(database: Database) -> None:
    row = {"channel": FLAT, "member": ANA, "provenance": "terminal", "sent_at": NOW, "received_at": NOW}
    with pytest.raises(DBAPIError) as caught, database.write() as session:
        session.add(Message(key="k1", text="skibidi", **row))
        session.flush()
        session.add(Message(key="k1", text="skibidi", **row))
    assert "skibidi" not in str(caught.value)
    assert ANA not in str(caught.value)


def test_a_full_disk_is_named_and_changes_nothing(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        open_channel(session)
        agree(session, ANA)
    full = pytest.raises(StorageError, match="no room left")
    with full, sqlite_database.write() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()
        session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        store(session, *(message(f"k{number}", text="x" * 2000) for number in range(100)))
    with sqlite_database.read() as session:
        assert session.get(Message, 1) is None


def test_two_that_create_at_once_agree(empty_url: str, keyring: Keyring) -> None:
    barrier, errors = threading.Barrier(3), []

    def create() -> None:
        barrier.wait()
        try:
            Database.open(empty_url, keyring, create=True).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    Database.open(empty_url, keyring).close()


def test_a_write_ahead_log_left_by_a_killed_process_is_read(
    sqlite_database: Database, tmp_path: Path, keyring: Keyring
) -> None:
    with sqlite_database.write() as session:
        open_channel(session)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("nocap.db*"):
        shutil.copy(file, copy)
    assert (copy / "nocap.db-wal").stat().st_size > 0
    database = Database.open(f"sqlite:///{copy}/nocap.db", keyring)
    with database.read() as session:
        assert session.get(Channel, FLAT) is not None
    database.close()


def test_opening_needs_neither_alembic_nor_torch(sqlite_database: Database, tmp_path: Path, keyring: Keyring) -> None:
    program = (
        "import sys; from storage.crypto import Keyring; from storage.database import Database;"
        f"Database.open('sqlite:///{tmp_path}/nocap.db', Keyring(bytes.fromhex('{keyring._master.hex()}')));"
        "print(sorted({'alembic', 'torch', 'transformers', 'psycopg'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_head_is_what_a_new_database_has(sqlite_database: Database, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "nocap.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_what_a_killed_process_left_half_written_is_undone_when_the_file_is_opened(
    sqlite_file: Path, keyring: Keyring
) -> None:
    """A hot rollback journal, as a kill while the file is made leaves it."""
    sqlite_file.parent.mkdir()
    code = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1'); c.execute('CREATE TABLE a (b)'); c.execute('DROP TABLE a')\n"
        "c.execute('BEGIN'); c.execute('CREATE TABLE t (x)')\n"
        "c.executemany('INSERT INTO t VALUES (?)', [('x' * 3000,)] * 200)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(sqlite_file)], check=False)
    assert sqlite_file.with_name("nocap.db-journal").stat().st_size > 0
    Database.open(f"sqlite:///{sqlite_file}", keyring, create=True).close()
    Database.open(f"sqlite:///{sqlite_file}", keyring).close()
