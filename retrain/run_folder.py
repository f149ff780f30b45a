"""A run's folder `runs/<id>/`: its configuration, progress, log and results. No member's text ever lands in it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import structlog
from pydantic import ValidationError

from nocap.domain import Clock, Stage
from nocap.errors import RunError
from nocap.settings import Settings
from retrain.cost import Cost

CONFIG_FILE = "config.json"
PROGRESS_FILE = "progress.json"
LOG_FILE = "log.jsonl"
OUTPUT_FILE = "output.log"
COST_FILE = "cost.json"
TRAIN_FILE = "train.json"
MEASUREMENTS_FILE = "measurements.json"
SAMPLES_FILE = "samples.json"
GATES_FILE = "gates.json"
CHECKPOINTS = "checkpoints"
STEPS = "steps"
"""The adapter after each kind of training, until the last one is registered."""

FROZEN_SECTIONS = ("model", "chat", "retrain", "preferences", "gates", "policy_version")
"""What a resumed run keeps from its start; where the database and the server are may change meanwhile."""
SECRETS = {"NOCAP_DATABASE__URL", "NOCAP_INFERENCE__USER_TOKEN", "NOCAP_INFERENCE__ADMIN_TOKEN"}
PROGRESS_INTERVAL_SECONDS = 0.2


def write_file(path: Path, content: str) -> None:
    """Replaces `path` at once, so that a reader or a killed run never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Raises RunError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is missing or damaged ({type(error).__name__}); start another run.") from error


def write_config(folder: Path, settings: Settings) -> Path:
    """The run's settings without secrets; a resumed run keeps the frozen sections that it began with."""
    values = settings.model_dump(
        mode="json",
        exclude={
            "database": {"url"},
            "inference": {"user_token", "admin_token"},
            "discord": {"token"},
            "telegram": {"token"},
        },
    )
    values["data_dir"] = str(settings.data_dir.resolve())
    values["database"]["key_file"] = str(settings.key_file.resolve())
    if Path(settings.model.base).is_dir():
        values["model"]["base"] = str(Path(settings.model.base).resolve())
    path = folder / CONFIG_FILE
    if path.exists():
        values |= {section: value for section, value in read_json(path).items() if section in FROZEN_SECTIONS}
    write_file(path, json.dumps(values, indent=1))
    return path


def read_config(path: Path) -> Settings:
    """The settings in `path`, with secrets from the environment. Raises RunError for a file that is none."""
    try:
        return Settings(**read_json(path))
    except (ValidationError, TypeError) as error:
        raise RunError(f"{path} holds no run's settings; start another run.") from error


def secrets_environment(settings: Settings) -> dict[str, str]:
    """The secrets that a run needs, as environment variables for its process; nothing of them is written."""
    inference = settings.inference
    values = {
        "NOCAP_DATABASE__URL": settings.database_url,
        "NOCAP_INFERENCE__USER_TOKEN": inference.user_token and inference.user_token.get_secret_value(),
        "NOCAP_INFERENCE__ADMIN_TOKEN": inference.admin_token and inference.admin_token.get_secret_value(),
    }
    return {name: value for name, value in values.items() if value}


def open_log(folder: Path, clock: Clock) -> tuple[structlog.typing.FilteringBoundLogger, IO[str]]:
    """A logger that appends JSON lines to the run's log, and the file to close at the end."""
    file = (folder / LOG_FILE).open("a", encoding="utf-8", buffering=1)

    def stamp(_logger: Any, _name: str, event: Any) -> Any:
        return {"at": clock().isoformat(timespec="milliseconds"), **event}

    logger = structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=[structlog.processors.add_log_level, stamp, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        run=folder.name,
    )
    return logger, file


class ProgressFile:
    """`progress.json` for whoever watches: the stage, how much of it is done (0 to 1), and a few words."""

    def __init__(self, folder: Path, clock: Clock, seconds: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / PROGRESS_FILE
        self._clock = clock
        self._seconds = seconds
        self._written: tuple[Stage, float] | None = None

    def write(self, stage: Stage, fraction: float, text: str, **figures: Any) -> None:
        """Written at most five times a second within a stage."""
        now = self._seconds()
        if self._written and self._written[0] is stage and now - self._written[1] < PROGRESS_INTERVAL_SECONDS:
            return
        self._written = stage, now
        values = {"stage": stage, "fraction": round(fraction, 4), "text": text, "at": _moment(self._clock()), **figures}
        write_file(self._path, json.dumps(values))


def read_cost(folder: Path) -> Cost:
    """What earlier processes of the run spent."""
    path = folder / COST_FILE
    return Cost.from_json(read_json(path)) if path.exists() else Cost()


def write_cost(folder: Path, cost: Cost) -> None:
    write_file(folder / COST_FILE, json.dumps(cost.as_json()))


def as_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, default=str)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
