"""`nocap doctor`: looks at everything that an installation stands on, and says what to do about each finding.

Nothing is changed, and no member's text is read. A check that fails to look is a problem, never a silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import httpx

from nocap.doctor import backend, machine, platforms, store
from nocap.errors import NocapError
from nocap.findings import Finding, problem
from nocap.settings import Settings

TIMEOUT_SECONDS = 10.0

Check = Callable[[], Iterable[Finding]]


def examine(
    settings: Settings, *, offline: bool = False, transport: httpx.BaseTransport | None = None
) -> list[Finding]:
    """Every finding; `offline` leaves out what asks Discord and Telegram."""
    with httpx.Client(timeout=TIMEOUT_SECONDS, transport=transport) as http:
        checks: list[tuple[str, Check]] = [
            ("settings", partial(machine.check_settings, settings)),
            ("packages", partial(machine.check_packages, settings)),
            ("disk", partial(machine.check_disk, settings)),
            ("key", partial(store.check_key, settings)),
            ("database", partial(store.check_database, settings)),
            ("base model", partial(machine.check_base, settings)),
            ("gpu", partial(machine.check_gpu, settings)),
            ("inference", partial(backend.check_backend, settings, http)),
        ]
        if not offline:
            checks += [
                ("discord", partial(platforms.check_discord, settings, http)),
                ("telegram", partial(platforms.check_telegram, settings, http)),
            ]
        return [finding for subject, check in checks for finding in _looked(subject, check)]


def _looked(subject: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except (NocapError, OSError, httpx.HTTPError) as error:
        remedy = "mend that and run `nocap doctor` again"
        return [problem(subject, f"It cannot be looked at: {str(error) or type(error).__name__}", remedy)]
