"""What the two databases spell differently: inserting unless there is a row already, and one lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, text
from sqlmodel import Session, SQLModel

_TEXTS_LOCK = 0x74657874  # "text", for PostgreSQL's advisory lock


def lock_texts(session: Session, *, erasing: bool) -> None:
    """Until this transaction ends, no text is stored while one is being erased.

    Without it a text whose consent was just looked up could be stored right behind its erasure. SQLite lets one
    transaction write at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        kind = "" if erasing else "_shared"
        session.connection().execute(text(f"SELECT pg_advisory_xact_lock{kind}({_TEXTS_LOCK})"))


def insert_missing(session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]], *, key: str) -> int:
    """Inserts the rows whose `key` is not there yet; returns how many those were."""
    if not rows:
        return 0
    statement = _inserting_missing(session.get_bind().dialect.name, table, key)
    return len(session.connection().execute(statement, [dict(row) for row in rows]).all())


def upsert(
    session: Session,
    table: type[SQLModel],
    row: Mapping[str, Any],
    *,
    key: Sequence[str],
    where: ColumnElement[bool] | None = None,
) -> int:
    """Inserts one row, or overwrites the one with the same `key` where it meets `where`; returns the rows changed."""
    statement = _insert(session.get_bind().dialect.name, table).values(**row)
    changed = {name: statement.excluded[name] for name in row if name not in key}
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=changed, where=where)
    return len(session.connection().execute(statement.returning(table.__table__.c[key[0]])).all())  # type: ignore[attr-defined]


@cache
def _inserting_missing(dialect: str, table: type[SQLModel], key: str) -> Any:
    """Built once: every turn of the chat inserts so."""
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=[key]).returning(table.__table__.c[key])  # type: ignore[attr-defined]


def _insert(dialect: str, table: type[SQLModel]) -> Any:
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
