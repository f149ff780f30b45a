"""`nocap import jsonl|telegram|discord FILE`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from nocap.cli.context import VoiceOption, invocation
from nocap.cli.output import AsJson, print_json

app = typer.Typer(help="Bring in real chat; only what its authors consented to is stored.", no_args_is_help=True)

SHOWN_BAD_ROWS = 20


class OnError(StrEnum):
    SKIP = "skip"
    STOP = "stop"


Format = Literal["jsonl", "telegram", "discord"]
File = Annotated[Path, typer.Argument(exists=True, readable=True, help="The file to read.")]
ConsentFile = Annotated[
    Path | None, typer.Option("--consent", exists=True, help="JSONL: member, channel, purposes, granted.")
]
OnErrorOption = Annotated[OnError, typer.Option("--on-error", help="Skip bad rows, or stop with nothing written.")]


def _add_command(kind: Format, what: str) -> None:
    @app.command(kind, help=what)
    def command(
        context: typer.Context,
        file: File,
        consent: ConsentFile = None,
        on_error: OnErrorOption = OnError.SKIP,
        voice: VoiceOption = None,
        as_json: AsJson = False,
    ) -> None:
        _import(context, file, kind, consent, on_error, voice, as_json)


_add_command("jsonl", "One JSON object a line: id, member, channel, sent_at, text, reply_to.")
_add_command("telegram", "A Telegram Desktop JSON export (result.json).")
_add_command("discord", "A Discord data package, zip or folder: the member's own download.")


def _import(
    context: typer.Context,
    file: Path,
    kind: Format,
    consent: Path | None,
    on_error: OnError,
    voice: str | None,
    as_json: bool,
) -> None:
    from nocap.domain import utc_now
    from nocap.importing.common import import_file

    call = invocation(context)
    report = import_file(
        call.database,
        file,
        kind,
        policy_version=call.settings.policy_version,
        voice=call.voice(voice),
        on_error=on_error.value,
        consent_file=consent,
        at=utc_now(),
        drop_on_doubt=call.settings.privacy.drop_on_doubt,
    )
    if as_json:
        print_json(report)
        return
    counts = {
        "already there": report.duplicates,
        "without their author's consent": report.not_consented,
        "in channels that do not collect": report.not_collecting,
        "erased before": report.tombstoned,
        "empty": report.empty,
        "dropped because a word may be a name": report.doubtful,
        "bad": report.bad_rows,
    }
    typer.echo(f"{report.rows} rows read, {report.added} added.")
    for reason, count in counts.items():
        if count:
            typer.echo(f"  {count} {reason}")
    for row in report.bad[:SHOWN_BAD_ROWS]:
        typer.echo(f"  {row.place}: {row.reason}")
    if report.bad_rows > SHOWN_BAD_ROWS:
        typer.echo(f"  … and {report.bad_rows - SHOWN_BAD_ROWS} more (`--json` lists them)")
