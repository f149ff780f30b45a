"""A retrain as a process of its own: `python -m retrain.job RUN_ID --settings FILE`.

The run's state is its row in the database, its stages are idempotent, and one lease lets no two runs train at once.
A process that dies leaves a run that `start_job` takes up again at the stage where it stood.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from nocap.domain import Clock, RunId, RunState, Stage, utc_now
from nocap.errors import NocapError, NothingToLearn, NotPermitted, RunError
from nocap.settings import Settings
from retrain.run_folder import OUTPUT_FILE, read_config, secrets_environment, write_config
from storage import leases, runs
from storage.crypto import Keyring
from storage.database import Database
from storage.tables import Lease, Run

if TYPE_CHECKING:
    from retrain.stages import StageContext

LEASE = "retrain"
LEASE_SECONDS = 120.0
"""Far above a heartbeat's interval: a busy machine must not lose its run."""
HEARTBEAT_SECONDS = 3.0
STARTING_SECONDS = 120.0
"""A process that has not reported by then is taken for dead."""
MAX_SNAPSHOTS = 5
HOST_OPTION = "host"
WAITS_OPTION = "waits_for_worker"
PROCESS_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""No telemetry; and compute threads that wait asleep: spinning ones made a shared CPU six to twenty times slower."""


def start_job(run_id: RunId, settings: Settings, *, clock: Clock = utc_now) -> subprocess.Popen[bytes]:
    """Starts the run's process in a session of its own, so that it outlives the caller; also to resume a run.

    `clock` may be simulated: the process keeps its distance from the real time.
    """
    folder = settings.runs_dir / run_id
    config = write_config(folder, settings)
    offset = (clock() - utc_now()).total_seconds()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NOCAP_")}
    command = [sys.executable, "-m", "retrain.job", run_id, "--settings", str(config)]
    with (folder / OUTPUT_FILE).open("ab") as output:
        return subprocess.Popen(
            [*command, "--clock-offset-seconds", f"{offset if abs(offset) > 1 else 0:.3f}"],
            env=PROCESS_ENVIRONMENT | inherited | secrets_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def can_train() -> bool:
    """Whether what training needs is installed here."""
    return all(find_spec(name) is not None for name in ("torch", "trl"))


def is_waiting(run: Run) -> bool:
    """Whether the run was asked for where runs are left to a worker, and none has taken it up yet."""
    return not RunState(run.state).is_over and run.pid is None and bool(run.options.get(WAITS_OPTION))


def is_running(run: Run, now: datetime) -> bool:
    """Whether a process works on the run; an unfinished run without one waits or was interrupted: it can be resumed."""
    if RunState(run.state).is_over or is_waiting(run):
        return False
    if run.pid is None:
        return abs(now - (run.heartbeat_at or run.created_at)) < timedelta(seconds=STARTING_SECONDS)
    if run.options.get(HOST_OPTION) == socket.gethostname():
        return _is_job(run.pid, run.id)
    return run.heartbeat_at is not None and abs(now - run.heartbeat_at) < timedelta(seconds=LEASE_SECONDS)


def run_job(run_id: RunId, settings: Settings, clock: Clock = utc_now) -> RunState:
    """Works on the run until it is over, and returns how it ended.

    Raises NotPermitted where the lease was lost to another process: the run is left to that one.
    """
    from retrain.stages import StageContext

    write_config(settings.runs_dir / run_id, settings)
    database = Database.open(settings.database_url, Keyring.load(settings.key_file))
    try:
        with StageContext(run_id, settings, database, clock) as context:
            return _work(context)
    finally:
        database.close()


def main(arguments: list[str] | None = None) -> int:
    """Runs one job; the exit code is the error's, or 0 where the run ended as it should."""
    parser = argparse.ArgumentParser(prog="python -m retrain.job", description="Works on one retrain until it is over.")
    parser.add_argument("run_id")
    parser.add_argument("--settings", type=Path, required=True, help="the run's config.json")
    parser.add_argument("--clock-offset-seconds", type=float, default=0.0, help="what a simulated clock is ahead")
    options = parser.parse_args(arguments)
    offset = timedelta(seconds=options.clock_offset_seconds)
    try:
        state = run_job(RunId(options.run_id), read_config(options.settings), lambda: utc_now() + offset)
    except NocapError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return RunError.exit_code if state is RunState.FAILED else 0


def _work(context: StageContext) -> RunState:
    """Stage after stage, until one says how the run ends."""
    from retrain import stages

    owner = f"{context.run_id}@{socket.gethostname()}:{os.getpid()}"
    try:
        with _lease(context, owner), _heartbeat(context, owner):
            try:
                state, reason = _run_stages(context)
            finally:
                if context.lost is None:
                    context.room.give_back()
    except stages.LeaseLost:
        raise
    except stages.RunCancelled:
        state, reason = RunState.CANCELLED, "An operator cancelled it; the live adapter stays."
    except NothingToLearn as error:
        state, reason = RunState.NOTHING_TO_LEARN, str(error)
    except NocapError as error:
        state, reason = RunState.FAILED, str(error)
    except OSError as error:
        cause = error.strerror or type(error).__name__
        state, reason = RunState.FAILED, f"{error.filename or 'A file'} cannot be used: {cause}. Mend that, try again."
    except Exception as error:
        # Its message could hold a text, so only the place is told.
        context.log.error("unforeseen", error=type(error).__name__, frames=traceback.format_tb(error.__traceback__))
        state, reason = RunState.FAILED, f"An unforeseen {type(error).__name__}; the run's log.jsonl says where."
    return stages.finish(context, state, reason)


def _run_stages(context: StageContext) -> tuple[RunState, str]:
    from retrain import stages

    run = context.run()
    if RunState(run.state).is_over:
        return RunState(run.state), run.reason or ""
    order = list(Stage)
    position = order.index(Stage(run.stage)) if run.stage else 0
    snapshots = 1
    while True:
        context.begin(order[position])
        context.make_room(order[position])
        try:
            outcome = stages.WORK[order[position]](context)
        except stages.StaleSnapshot as stale:
            if snapshots == MAX_SNAPSHOTS:
                raise RunError(f"Rows were erased in each of {snapshots} attempts; start another run.") from stale
            context.log.warning("snapshot is stale, starting over", reason=str(stale))
            stages.discard_training(context)
            snapshots, position = snapshots + 1, 0
            continue
        if outcome is not None:
            return outcome
        position += 1


@contextmanager
def _lease(context: StageContext, owner: str) -> Iterator[None]:
    """Waits until no other run works, then holds the one lease; a waiting run shows that it lives."""
    with ExitStack() as stack:
        while not _claim(context):
            _free_of_dead_holder(context.database)
            try:
                stack.enter_context(leases.lease(context.database, LEASE, owner, LEASE_SECONDS, context.clock))
                break
            except NotPermitted as error:
                context.log.info("waiting", reason=str(error))
                time.sleep(HEARTBEAT_SECONDS / 3)
        yield


def _claim(context: StageContext) -> bool:
    """Says whose process works on the run; True where it is over and nothing is left to do."""
    with context.database.write() as session:
        run = runs.get_run(session, context.run_id)
        if RunState(run.state).is_over:
            return True
        run.pid, run.heartbeat_at = os.getpid(), context.clock()
        run.options = {**run.options, HOST_OPTION: socket.gethostname()}
        cancelled = run.cancel_requested
    context.raise_if(cancelled)
    return False


def _free_of_dead_holder(database: Database) -> None:
    """Takes the lease from a process of this machine that no longer lives, instead of waiting for it to run out."""
    with database.write() as session:
        held = session.get(Lease, LEASE)
        if held is None:
            return
        run_id, _, place = held.owner.partition("@")
        host, _, pid = place.rpartition(":")
        if host == socket.gethostname() and not _is_job(int(pid), run_id):
            session.delete(held)


@contextmanager
def _heartbeat(context: StageContext, owner: str) -> Iterator[None]:
    """Within it the run's row and lease are kept alive, and an operator's wish to cancel is seen."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(HEARTBEAT_SECONDS):
            try:
                with context.database.write() as session:
                    leases.renew(session, LEASE, owner, LEASE_SECONDS, context.clock())
                    context.cancelled |= runs.heartbeat(session, context.run_id, context.clock()).cancel_requested
                context.save_cost()
                _renew_room(context)
            except NotPermitted as error:
                context.lost = str(error)
            except (NocapError, OSError) as error:
                context.log.warning("no heartbeat", reason=str(error))
            except Exception as error:  # a thread that dies would cost the run its lease; the message may hold a text
                context.log.error("no heartbeat", error=type(error).__name__)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _renew_room(context: StageContext) -> None:
    """Apart from the run's own lease: a server that does not answer must not cost it the run."""
    try:
        context.room.renew()
    except NocapError as error:
        context.log.warning("the servers may serve again on the run's card", reason=str(error))


def _is_job(pid: int, run_id: str) -> bool:
    """Whether process `pid` of this machine lives and works on the run."""
    if pid == os.getpid():
        return True
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and run_id in process.cmdline()
    return False


if __name__ == "__main__":
    sys.exit(main())
