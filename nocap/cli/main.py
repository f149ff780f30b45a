"""`nocap …`: the root command, its global options and what an error prints.

Exit codes: 0 done; 2 wrong usage, settings or input; 3 database; 4 model or adapter; 5 inference backend;
6 retrain run; 7 not permitted; 130 interrupted; 1 anything unforeseen. Commands import what they need
when they run, so that `nocap --help` stays quick.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from nocap.cli import (
    adapters,
    consent,
    database,
    demo,
    doctor,
    gates,
    importing,
    keys,
    members,
    retention,
    retrain,
    serving,
    setup,
    slang,
    voices,
)
from nocap.cli.context import Invocation
from nocap.errors import NocapError

LOGGING_COMMANDS = ("serve", "bots", "schedule")
"""Long-running processes tell what they do; the others only what went wrong."""

app = typer.Typer(
    name="nocap",
    help="A chat bot that speaks in its community's own voice and keeps up with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
setup.register(app)
doctor.register(app)
serving.register(app)
adapters.register(app)
app.add_typer(importing.app, name="import")
app.add_typer(retrain.app, name="retrain")
app.add_typer(slang.app, name="slang")
app.add_typer(consent.app, name="consent")
app.add_typer(members.app, name="members")
app.add_typer(keys.app, name="keys")
app.add_typer(retention.app, name="retention")
app.add_typer(gates.app, name="gates")
app.add_typer(database.app, name="db")
app.add_typer(voices.app, name="voices")
app.add_typer(demo.app, name="demo")


@app.callback()
def root(
    context: typer.Context,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="The settings file; default nocap.toml of this folder, if any.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Overrides data_dir of the settings.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Overrides model.base: embedded, a folder or a hub name.")
    ] = None,
) -> None:
    context.obj = Invocation(settings, data_dir, base)
    from nocap.observability.logs import configure_logging
    from nocap.supervisor import end_with_supervisor

    end_with_supervisor()
    command = context.invoked_subcommand or "nocap"
    configure_logging(logging.INFO if command in LOGGING_COMMANDS else logging.WARNING, process=command)


def main() -> None:
    """The entry point: runs the command and turns an error into one sentence and an exit code."""
    try:
        app()
    except NocapError as error:
        print(f"nocap: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(
            f"nocap: {error.strerror or error}: {error.filename or ''}. Free the space or mend the path.",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
