"""`nocap doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, print_findings, print_json


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    context: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask Discord and Telegram.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything this installation stands on and say what to do; exit code 2 where something is wrong."""
    from nocap.doctor import examine
    from nocap.errors import ConfigurationError
    from nocap.findings import has_problems

    findings = examine(invocation(context).settings, offline=offline)
    if as_json:
        print_json({"findings": findings, "healthy": not has_problems(findings)})
    else:
        print_findings(findings)
    if has_problems(findings):
        raise typer.Exit(ConfigurationError.exit_code)
