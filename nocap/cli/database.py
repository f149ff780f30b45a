"""`nocap db …`: upgrade, check, backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, print_findings, print_json

if TYPE_CHECKING:
    from nocap.backup import Backup

app = typer.Typer(help="The database itself.", no_args_is_help=True)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the database to this version's schema; existing rows are kept."""
    from nocap.app import open_database

    open_database(invocation(context).settings, create=True).close()
    typer.echo("The database is at the newest schema.")


@app.command()
def check(
    context: typer.Context,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what killed processes left behind.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what must always be true of the rows and files; exit code 3 where something is not.

    The digest at the end is equal for two databases with the same rows.
    """
    from nocap.check import check_installation, leftovers, remove
    from nocap.domain import utc_now
    from nocap.errors import StorageError
    from nocap.findings import has_problems

    call = invocation(context)
    if clean:
        remove(leftovers(call.settings, call.database))
    report = check_installation(call.settings, call.database, utc_now())
    call.database.close()
    if as_json:
        print_json(report)
    else:
        print_findings(report.findings)
        typer.echo(f"digest  {report.digest}")
    if has_problems(report.findings):
        raise typer.Exit(StorageError.exit_code)


@app.command()
def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where nocap-<moment>.tar is written.")],
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Remove all but this many of the newest backups there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write database, adapters and run records into one file, while everything runs. The key file is not in it."""
    from nocap.backup import write_backup
    from nocap.domain import utc_now

    call = invocation(context)
    written = write_backup(call.settings, call.database, folder, utc_now(), keep=keep)
    call.database.close()
    if as_json:
        print_json(_without_files(written))
        return
    typer.echo(f"{written.file}: {len(written.files)} files, digest {written.digest}")
    typer.echo(f"Texts in it can be read with {call.settings.key_file} alone: keep a copy of that apart from it.")


@app.command()
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file that `nocap db backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Even where there is a database already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in place (stop nocap first); what members revoked or erased since then is done again."""
    from nocap.backup import restore_backup

    settings = invocation(context).settings
    restored = restore_backup(settings, file, replace=replace)
    if as_json:
        print_json({**_without_files(restored.backup), "restored_digest": restored.digest,
                    "decided_again": restored.decided_again})  # fmt: skip
        return
    typer.echo(f"Restored what was there at {restored.backup.created_at}; digest {restored.digest}")
    if restored.decided_again:
        typer.echo(f"{restored.decided_again} consents and erasures since then were done again.")


def _without_files(backup: Backup) -> dict[str, Any]:
    return {name: getattr(backup, name) for name in ("file", "created_at", "dialect", "schema", "digest")} | {
        "files": len(backup.files)
    }
