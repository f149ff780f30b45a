"""`nocap retention preview|apply`: what is older than the settings allow."""

from __future__ import annotations

from dataclasses import asdict

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, print_json, print_table

app = typer.Typer(help="Data that is older than `[retention]` allows; the scheduler deletes it.", no_args_is_help=True)


@app.command()
def preview(context: typer.Context, as_json: AsJson = False) -> None:
    """Count what would go now; nothing is written."""
    _run(context, as_json, dry_run=True)


@app.command()
def apply(context: typer.Context, as_json: AsJson = False) -> None:
    """Delete it now, and rewrite the database so that no freed byte of it is left."""
    _run(context, as_json, dry_run=False)


def _run(context: typer.Context, as_json: bool, *, dry_run: bool) -> None:
    from nocap.domain import utc_now
    from storage.retention import expire

    call = invocation(context)
    expired = asdict(expire(call.database, call.settings, utc_now(), dry_run=dry_run))
    if not dry_run:
        call.database.wipe_freed(rewrite=True)
    if as_json:
        print_json(expired)
    else:
        title = "would go now" if dry_run else "deleted"
        print_table(["kind", title], [(kind.replace("_", " "), count) for kind, count in expired.items()])
