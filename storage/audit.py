"""The audit log: who did what to what; append-only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from storage.tables import AuditEvent


def record_event(
    session: Session, actor: str, action: str, target: str, detail: Mapping[str, Any], at: datetime
) -> None:
    """Appends one line; `detail` is JSON and never holds a member's text."""
    session.add(AuditEvent(actor=actor, action=action, target=target, detail=dict(detail), at=at))
    session.flush()


def events(session: Session, limit: int) -> list[AuditEvent]:
    """The newest lines, newest first."""
    return list(session.exec(select(AuditEvent).order_by(col(AuditEvent.id).desc()).limit(limit)))
