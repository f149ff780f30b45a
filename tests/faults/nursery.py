"""A process that forks victims, so that each begins with everything imported and dies alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Nursery:
    """`module` is run as a program that calls `serve`."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def begin(self, order: dict[str, Any]) -> int:
        """The pid of a new victim that follows the order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._said())

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        said = self._said()
        assert said == "killed", f"it must work until it is killed, and said {said!r}"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve(child: Callable[[dict[str, Any]], None]) -> None:
    """In the nursery: forks a child for every order and tells its pid and how it ended. The child should not end."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                child(json.loads(line))
            except BaseException as error:
                print(f"victim: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print("killed" if os.WIFSIGNALED(status) else "failed", flush=True)
