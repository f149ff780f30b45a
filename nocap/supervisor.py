"""Keeps child processes alive: restarts what died, stops all of them on SIGTERM or SIGINT, and none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""A child that lived this long starts again at once, with the shortest pause next time."""
STOP_SECONDS = 15.0
SUPERVISOR = "NOCAP_SUPERVISOR"
"""Names the supervisor's process id to its children."""
WATCH_SECONDS = 0.5


@dataclass
class Child:
    """One supervised process and when it may start again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = None
    """None means this process's own."""
    final_status: int | None = None
    """The exit status after which it is not started again."""
    is_final: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    start_at: float = 0.0

    def start(self) -> None:
        environment = os.environ if self.environment is None else self.environment
        self.process = subprocess.Popen(self.command, env={**environment, SUPERVISOR: str(os.getpid())})
        self.started_at = time.monotonic()

    def note_death(self) -> None:
        lived = time.monotonic() - self.started_at
        self.pause_seconds = (
            FIRST_PAUSE_SECONDS if lived > SETTLED_SECONDS else min(self.pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        )
        self.start_at = time.monotonic() + self.pause_seconds
        self.process = None


def supervise(children: Sequence[Child], say: Callable[[str], None], *, poll_seconds: float = 0.2) -> None:
    """Runs the children until SIGTERM or SIGINT, then stops them, the last started first; returns when all ended.

    It also returns once every child there is has ended with its final status.
    """
    with stopped_by_signal() as stopping:
        try:
            while not (stopping.is_set() or (children and all(child.is_final for child in children))):
                for child in children:
                    _look_after(child, say)
                stopping.wait(poll_seconds)
        finally:
            _stop(children, say)


def end_with_supervisor() -> None:
    """In a supervised process: it gets a SIGTERM once its supervisor is gone, killed or not, so that the next one does
    not start a second bot with the same token. What it starts itself is not bound by that."""
    if (supervisor := os.environ.pop(SUPERVISOR, None)) is None:
        return

    def watch() -> None:
        while os.getppid() == int(supervisor):
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


@contextmanager
def stopped_by_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _look_after(child: Child, say: Callable[[str], None]) -> None:
    if child.is_final:
        return
    if child.process is None:
        if time.monotonic() >= child.start_at:
            child.start()
            say(f"{child.name}: started")
    elif (status := child.process.poll()) is None:
        return
    elif status == child.final_status:
        child.is_final = True
        say(f"{child.name}: ended with status {status}, does not start again")
    else:
        child.note_death()
        say(f"{child.name}: ended with status {status}, starts again in {child.pause_seconds:.0f} s")


def _stop(children: Sequence[Child], say: Callable[[str], None]) -> None:
    running = [child for child in reversed(children) if child.process is not None and child.process.poll() is None]
    for child in running:
        child.process.terminate()  # type: ignore[union-attr]
    deadline = time.monotonic() + STOP_SECONDS
    for child in running:
        try:
            child.process.wait(timeout=max(0.1, deadline - time.monotonic()))  # type: ignore[union-attr]
        except subprocess.TimeoutExpired:
            child.process.kill()  # type: ignore[union-attr]
            child.process.wait()  # type: ignore[union-attr]
    say("stopped")
