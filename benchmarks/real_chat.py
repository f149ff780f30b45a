"""Three retrains over successive quarters of real, dated chat that nobody here wrote.

`python -m benchmarks.real_chat --base MODEL_FOLDER --data FILE.parquet [--folder DIR] [--json]`. The file has the
columns id, parent_id, subreddit, user, created, text; it is turned into the import format, with a consent side file
that lets every author store, train and evaluate (a measurement on public research data, not a deployment).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks._report import publish
from nocap.actions import Actions
from nocap.app import initialise, open_database
from nocap.domain import Purpose, VoiceName
from nocap.importing.common import import_file
from nocap.settings import ModelSettings, RetrainSettings, Settings
from nocap.watch import watch_run
from storage.database import Database

if TYPE_CHECKING:
    from pandas import DataFrame

FIRST_DAY = datetime(2021, 1, 1, tzinfo=UTC)
QUARTER_ENDS = tuple(datetime(2021, month, 1, tzinfo=UTC) for month in (4, 7, 10))
RECIPE = RetrainSettings(
    window_days=90,
    evaluation_days=90,
    quarantine_hours=0.0,
    rank=16,
    alpha=32,
    learning_rate=3e-3,
    epochs=3.0,
    batch_examples=8,
    max_examples=3000,
    max_length=512,
)


@dataclass(frozen=True)
class Quarter:
    """One retrain's outcome."""

    as_of: datetime
    state: str
    reason: str
    gates: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    cost: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="keep everything here instead of in a temporary folder")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        quarters = play(folder, arguments.base.resolve(), arguments.data, Console(stderr=True))
    figures = {}
    for number, quarter in enumerate(quarters, start=1):
        for gate in quarter.gates:
            if gate["statistic"] is not None:
                figures[f"quarter_{number}_{gate['gate']}"] = gate["statistic"]
        figures[f"quarter_{number}_seconds"] = quarter.cost["seconds"]
        if not arguments.as_json:
            _tell(quarter)
    publish("real_chat", figures, {}, packages=("torch", "transformers", "trl"), as_json=arguments.as_json)


def play(folder: Path, base: Path, data: Path, console: Console) -> list[Quarter]:
    """Imports the chat, then retrains at the end of each quarter."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(data_dir=folder / "data", model=ModelSettings(base=str(base)), retrain=RECIPE)
    initialise(settings, folder / "nocap.toml", clock=lambda: datetime(2020, 1, 1, tzinfo=UTC))
    database = open_database(settings)
    chat, quarters = read_chat(data), []
    for begins, ends in pairwise((FIRST_DAY, *QUARTER_ENDS)):
        import_chat(
            database, settings, VoiceName(settings.voice), sent_between(chat, begins, ends), folder, ends, console
        )
        quarters.append(_retrain(settings, database, ends, console))
    database.close()
    return quarters


def read_chat(data: Path) -> DataFrame:
    """All rows, oldest first."""
    import pandas as pd

    return pd.read_parquet(data).sort_values("created")


def sent_between(chat: DataFrame, begins: datetime, ends: datetime) -> DataFrame:
    since, until = (moment.astimezone(UTC).replace(tzinfo=None) for moment in (begins, ends))
    return chat[(chat.created >= since) & (chat.created < until)]


def import_chat(
    database: Database,
    settings: Settings,
    voice: VoiceName,
    chat: DataFrame,
    folder: Path,
    at: datetime,
    console: Console,
) -> None:
    """Has the product import the rows into the voice's channels, as if at that moment; `folder` keeps the files."""
    rows, consent = folder / f"chat-{voice}-{at:%Y-%m}.jsonl", folder / f"consent-{voice}-{at:%Y-%m}.jsonl"
    rows.write_text("".join(map(_row, chat.itertuples())), encoding="utf-8")
    consent.write_text("".join(map(_statement, sorted(set(chat.user)))), encoding="utf-8")
    report = import_file(
        database, rows, "jsonl", policy_version=settings.policy_version, voice=voice, consent_file=consent, at=at
    )
    console.print(f"{at:%Y-%m-%d}: {report.rows} rows, {report.added} added, {report.bad_rows} bad")


def _row(row: Any) -> str:
    value = {
        "id": row.id,
        "member": row.user,
        "channel": row.subreddit,
        "sent_at": row.created.isoformat() + "+00:00",
        "text": row.text,
        "reply_to": row.parent_id if isinstance(row.parent_id, str) else None,  # an opening's is not a number
    }
    return json.dumps(value) + "\n"


def _statement(member: str) -> str:
    return json.dumps({"member": member, "channel": "*", "purposes": list(Purpose), "granted": True}) + "\n"


def _retrain(settings: Settings, database: Database, as_of: datetime, console: Console) -> Quarter:
    voice = VoiceName(settings.voice)
    actions = Actions(database, settings, actor="benchmark", clock=lambda: as_of)
    run = watch_run(actions, settings.runs_dir, actions.retrain_now(voice, trigger="benchmark"), console)
    folder = settings.runs_dir / run.id

    def read(name: str) -> Any:
        file = folder / name
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    gates = read("gates.json").get("results", [])
    return Quarter(as_of, run.state, run.reason or "", gates, read("samples.json"), run.cost)


def _tell(quarter: Quarter) -> None:
    print(f"\n{quarter.as_of:%Y-%m-%d}: {quarter.state}. {quarter.reason}")
    for gate in quarter.gates:
        print(f"  {gate['verdict']:<8}{gate['gate']:<16}{gate['sentence']}")


if __name__ == "__main__":
    main()
