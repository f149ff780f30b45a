from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from nocap.supervisor import Child, supervise

SLEEPER = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(60)"


def wait_for_lines(file: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = file.read_text().split() if file.exists() else []
        if len(lines) >= count:
            return [int(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError(f"{file} has not got {count} lines")


def is_alive(pid: int) -> bool:
    return subprocess.run(["kill", "-0", str(pid)], capture_output=True, check=False).returncode == 0


def test_a_killed_child_starts_again_and_sigterm_stops_all(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    said: list[str] = []
    child = Child("sleeper", [sys.executable, "-c", SLEEPER, str(file)], pause_seconds=0.05)

    def disturb() -> None:
        first = wait_for_lines(file, 1)[0]
        os.kill(first, signal.SIGKILL)
        wait_for_lines(file, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=disturb)
    thread.start()
    supervise([child], said.append, poll_seconds=0.02)
    thread.join()
    assert not any(is_alive(pid) for pid in wait_for_lines(file, 2))
    assert said[0] == "sleeper: started"
    assert said[1].startswith("sleeper: ended with status -9")
    assert said[-1] == "stopped"


def test_with_nothing_to_supervise_it_waits_for_the_signal() -> None:
    begun = time.monotonic()
    thread = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    thread.start()
    supervise([], lambda _: None, poll_seconds=0.02)
    thread.join()
    assert time.monotonic() - begun >= 0.5


def test_a_child_that_keeps_dying_waits_longer_each_time() -> None:
    child = Child("dying", [sys.executable, "-c", "raise SystemExit(1)"])
    pauses = []
    for _ in range(6):
        child.started_at = time.monotonic()
        child.note_death()
        pauses.append(child.pause_seconds)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
