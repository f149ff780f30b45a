"""Shows a run's stages as progress bars until it is over; the run itself goes on in a process of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nocap.actions import Actions
from nocap.domain import RunId, RunState, Stage
from nocap.errors import RunError
from storage.tables import Run

POLL_SECONDS = 0.3


def read_progress(runs_dir: Path, run_id: RunId) -> dict[str, Any]:
    """The run's own note of how far its stage is: stage, fraction (0 to 1), text; empty before it begins."""
    try:
        value: dict[str, Any] = json.loads((runs_dir / run_id / "progress.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return value


def watch_run(actions: Actions, runs_dir: Path, run_id: RunId, console: Console) -> Run:
    """The run once it is over. Raises RunError where its process died; the message says how to go on."""
    columns = (
        TextColumn("  {task.description:<9}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}
        while True:
            run = actions.run(run_id)
            _show(bars, tasks, run, read_progress(runs_dir, run_id))
            if RunState(run.state).is_over:
                return run
            if not (actions.is_alive(run) or actions.is_waiting(run)):
                raise RunError(
                    f"Run {run_id} was interrupted at {run.stage}; go on with `nocap retrain resume {run_id}`."
                )
            time.sleep(POLL_SECONDS)


def _show(bars: Progress, tasks: dict[str, TaskID], run: Run, progress: dict[str, Any]) -> None:
    if run.stage is None:
        return
    reached = list(Stage).index(Stage(run.stage))
    for stage in list(Stage)[: reached + 1]:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=1.0, text="")
    for stage in list(Stage)[:reached]:
        _finish(bars, tasks[stage])
    current = tasks[run.stage]
    if RunState(run.state).is_over:
        _finish(bars, current)
    elif progress.get("stage") == run.stage:
        bars.update(current, completed=progress.get("fraction", 0.0), text=progress.get("text", ""))


def _finish(bars: Progress, task: TaskID) -> None:
    bars.update(task, completed=1.0)
    bars.stop_task(task)
