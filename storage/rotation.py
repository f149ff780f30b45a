"""Rotating the key that texts are encrypted under; it may be interrupted anywhere and begun again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Column, LargeBinary, Table, bindparam, func, select, update
from sqlmodel import SQLModel

from nocap.errors import NotPermitted
from storage.crypto import Keyring
from storage.database import Database
from storage.runs import UNFINISHED
from storage.tables import EncryptedText, Identity, Run

BATCH_ROWS = 500


def rotate(url: str, key_file: Path, progress: Callable[[int], None] = lambda rows: None) -> int:
    """Encrypts every text anew under a new key and destroys the old one; returns how many texts that took.

    Nothing else may have the database open: another process would go on with the old key. Raises NotPermitted while
    a run is in progress. After an interruption call it again: the key file holds both keys until the last text.
    """
    keyring = Keyring.load(key_file)
    opened = Database.open(url, keyring)
    try:
        with opened.read() as session:
            if session.scalars(select(Run.id).where(Run.__table__.c.state.in_(UNFINISHED))).first():  # type: ignore[call-overload,attr-defined]
                raise NotPermitted("A run is in progress; let it end or cancel it, stop `nocap up`, and rotate then.")
    finally:
        opened.close()
    if not keyring.is_rotating:
        keyring = keyring.begin_rotation(key_file)
    database = Database.open(url, keyring)
    try:
        _claim(database)
        done = 0
        for table, column in _encrypted_columns():
            while rows := _encrypt_batch(database, table, column):
                done += rows
                progress(done)
        database.wipe_freed(rewrite=True)
    finally:
        database.close()
    keyring.end_rotation(key_file)
    return done


def _claim(database: Database) -> None:
    """From here on the old key file is refused, so that nobody writes under it again."""
    with database.write() as session:
        session.get_one(Identity, 1).key_check = database.keyring.check_value()


def _encrypted_columns() -> Iterator[tuple[Table, Column[str]]]:
    for table in SQLModel.metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, EncryptedText):
                yield table, column


def _encrypt_batch(database: Database, table: Table, column: Column[str]) -> int:
    """Encrypts some texts that are not under the present key yet; how many there were."""
    (identifier,) = table.primary_key.columns
    prefix = database.keyring.prefix
    stale = func.substr(column, 1, len(prefix), type_=LargeBinary) != bindparam("prefix", prefix, LargeBinary)
    with database.write() as session:
        connection = session.connection()
        rows = connection.execute(select(identifier, column).where(stale).limit(BATCH_ROWS)).all()
        if rows:
            again = (
                update(table)
                .where(identifier == bindparam("row"))
                .values({column.name: bindparam("value", type_=column.type)})
            )
            connection.execute(again, [{"row": row, "value": value} for row, value in rows])
        return len(rows)
