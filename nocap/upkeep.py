"""What the scheduler does by itself besides retrains: promises about members' data that have a date."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from nocap.actions import Actions
from nocap.domain import Clock, VoiceName, utc_now
from nocap.errors import NocapError, NotPermitted
from nocap.settings import Settings
from retrain.promote import Backend
from retrain.retire import Retired, retire_due
from storage.database import Database
from storage.leases import lease
from storage.retention import Expired, expire

LEASE = "upkeep"
LEASE_SECONDS = 600.0
ACTOR = "scheduler"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Upkeep:
    expired: Expired
    retired: list[Retired]


def keep_up(
    database: Database, settings: Settings, backend: Callable[[], Backend | None], *, clock: Clock = utc_now
) -> Upkeep:
    """Deletes what is too old and retires what learnt from erased texts. May be repeated at any time.

    Raises NotPermitted while another process does it.
    """
    actions = Actions(database, settings, actor=ACTOR, clock=clock)

    def retrain(voice: VoiceName) -> None:
        actions.retrain_now(voice, trigger="erasure")

    owner = f"{socket.gethostname()}:{os.getpid()}"
    with lease(database, LEASE, owner, LEASE_SECONDS, clock):
        expired = expire(database, settings, clock())
        retired = retire_due(database, settings, retrain, backend, actor=ACTOR, at=clock())
    return Upkeep(expired, retired)


def keep_up_or_log(database: Database, settings: Settings, backend: Callable[[], Backend | None]) -> None:
    """`keep_up` for a loop that must go on: what went wrong is logged and tried again next time."""
    try:
        done = keep_up(database, settings, backend)
    except NotPermitted as error:
        log.info("upkeep is another process's", reason=str(error))
    except (NocapError, OSError) as error:
        log.error("upkeep failed", reason=str(error))
    else:
        if done.expired.total or done.retired:
            log.info("upkeep", expired=done.expired.total, voices=[one.voice for one in done.retired])
