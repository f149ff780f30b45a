"""The supervised training on several cards, in processes that accelerate starts by the operator's config file.

The run's own process stays what it was: it hands plan and examples over a local socket (no text touches the disk),
shows the steps, and ends the others where it is cancelled; where it is killed, they end at their next step.
"""

from __future__ import annotations

import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from tempfile import TemporaryDirectory

from nocap.errors import NocapError, RunError
from retrain.examples import Example
from retrain.train.sft import ProgressReport, SftPlan, TrainingStopped, TrainReport, train_adapter

KEY_VARIABLE = "TRAINING_KEY"
POLL_SECONDS = 0.5
END_SECONDS = 10.0


def train_on_several(
    plan: SftPlan,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    accelerate_config: Path,
    progress: ProgressReport,
    should_stop: Callable[[], bool],
) -> TrainReport:
    """As `train_adapter`, with the batch divided among the processes of `accelerate_config`.

    Raises RunError with the first process's reason, or with its exit code where it told none.
    """
    if not accelerate_config.is_file():
        raise RunError(f"There is no accelerate config {accelerate_config}; write one with `accelerate config`.")
    key = secrets.token_bytes(32)
    with TemporaryDirectory() as folder:
        address = str(Path(folder) / "training")
        with Listener(address, "AF_UNIX", authkey=key) as listener:
            arrived: queue.SimpleQueue[Connection] = queue.SimpleQueue()
            task = plan, tuple(train), tuple(validation)
            threading.Thread(target=_hand_out, args=(listener, task, arrived), daemon=True).start()
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate_config)]
            process = subprocess.Popen(
                [*command, "-m", "retrain.train.several", address],
                env=dict(os.environ) | {KEY_VARIABLE: key.hex()},
                start_new_session=True,
            )
            try:
                return _followed(process, arrived, progress, should_stop)
            finally:
                _end(process)


def _hand_out(listener: Listener, task: object, arrived: queue.SimpleQueue[Connection]) -> None:
    """Gives each process its task as it comes; the first of them is the one that reports."""
    with suppress(OSError, EOFError):  # the listener is closed: the training is over
        while True:
            connection = listener.accept()
            is_first = connection.recv()
            connection.send(task)
            if is_first:
                arrived.put(connection)


def _followed(
    process: subprocess.Popen[bytes],
    arrived: queue.SimpleQueue[Connection],
    progress: ProgressReport,
    should_stop: Callable[[], bool],
) -> TrainReport:
    reports: Connection | None = None
    while True:
        if should_stop():
            raise TrainingStopped("Training was stopped on every process.")
        is_over = process.poll() is not None
        if reports is None:
            with suppress(queue.Empty):
                reports = arrived.get(timeout=POLL_SECONDS)
        elif reports.poll(POLL_SECONDS):
            with suppress(EOFError):
                kind, told = reports.recv()
                if kind == "step":
                    progress(*told)
                    continue
                if kind == "failed":
                    raise RunError(told)
                report: TrainReport = told
                return report
        if is_over:
            raise RunError(
                f"The training's processes ended with status {process.returncode} and no reason; the run's output.log"
                " has their words."
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the launcher with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def main() -> int:
    """One of the processes: takes its task from the run and trains; the first one reports."""
    is_first = os.environ.get("RANK", "0") == "0"
    with Client(sys.argv[1], "AF_UNIX", authkey=bytes.fromhex(os.environ.pop(KEY_VARIABLE))) as run:
        run.send(is_first)
        plan, train, validation = run.recv()

        def progress(step: int, steps: int, loss: float) -> None:
            if is_first:
                run.send(("step", (step, steps, loss)))

        try:
            report = train_adapter(plan, train, validation, progress=progress, should_stop=lambda: False)
        except NocapError as error:
            if is_first:
                run.send(("failed", str(error)))
            return error.exit_code
        if is_first:
            run.send(("report", report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
