"""Leases: whoever holds one may do the named work alone, until it runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import delete, update
from sqlmodel import Session, col

from nocap.domain import Clock
from nocap.errors import NotPermitted
from storage._sql import upsert
from storage.database import Database
from storage.tables import Lease


@contextmanager
def lease(database: Database, name: str, owner: str, lease_seconds: float, clock: Clock) -> Iterator[Lease]:
    """Holds the lease inside the block and gives it back at its end.

    Raises NotPermitted while anybody holds it, this owner included. A holder that died loses it when it runs out;
    work that may last longer calls `renew`.
    """
    held = _acquire(database, name, owner, lease_seconds, clock())
    try:
        yield held
    finally:
        with database.write() as session:
            session.execute(delete(Lease).where(col(Lease.name) == name, col(Lease.owner) == owner))


def renew(session: Session, name: str, owner: str, lease_seconds: float, at: datetime) -> None:
    """Makes the lease last `lease_seconds` from `at`. Raises NotPermitted where it was lost."""
    mine = update(Lease).where(col(Lease.name) == name, col(Lease.owner) == owner, col(Lease.expires_at) > at)
    result = session.connection().execute(mine.values(expires_at=at + timedelta(seconds=lease_seconds)))
    if result.rowcount != 1:
        raise NotPermitted(f"The lease {name} of {owner} ran out or was taken over; stop this work and start again.")


def _acquire(database: Database, name: str, owner: str, lease_seconds: float, at: datetime) -> Lease:
    wanted = {"name": name, "owner": owner, "expires_at": at + timedelta(seconds=lease_seconds)}
    with database.write() as session:
        taken = upsert(session, Lease, wanted, key=("name",), where=col(Lease.expires_at) <= at)
        row = session.get_one(Lease, name)
    if not taken:
        raise NotPermitted(f"{name} is held by {row.owner} until {row.expires_at:%Y-%m-%d %H:%M:%S} UTC; wait for it.")
    return row
