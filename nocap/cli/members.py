"""`nocap members export|forget`: what is held about one member, and its erasure."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, print_json, show

app = typer.Typer(help="A member's right to see and to erase what is held about them.", no_args_is_help=True)

Member = Annotated[
    str, typer.Argument(metavar="MEMBER", help="telegram:ID, discord:ID, import:jsonl:NAME, or the pseudonym.")
]


@app.command()
def export(
    context: typer.Context,
    member: Member,
    output: Annotated[
        Path | None, typer.Option("--output", help="A new file (mode 0600); default standard output.")
    ] = None,
) -> None:
    """Everything held about the member, decrypted, as JSON."""
    from nocap.errors import InputError

    call = invocation(context)
    content = json.dumps(call.actions.export(call.actions.member_key(member)), ensure_ascii=False, indent=2) + "\n"
    if output is None:
        typer.echo(content, nl=False)
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InputError(f"{output} exists already; name another file.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    typer.echo(f"Written to {output}; hand it to the member and delete it.")


@app.command()
def forget(
    context: typer.Context,
    member: Member,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase the member everywhere, for good, and have the adapters that learnt from them retired."""
    call = invocation(context)
    key = call.actions.member_key(member)
    if not yes:
        typer.confirm("All texts and votes of this member go, for good. Erase them?", abort=True, err=True)
    receipt = call.actions.forget(key)
    if as_json:
        print_json(asdict(receipt))
        return
    typer.echo(
        f"Erased: {receipt.messages} messages, {receipt.feedback} votes, the texts of {receipt.replies} answers and"
        f" {receipt.duels} duels, their words in {receipt.quotes} other texts; {receipt.files} files of runs cleaned."
    )
    if receipt.adapters:
        typer.echo(f"Learnt from them, retired by {show(receipt.retire_by)}: {', '.join(receipt.adapters)}.")
        typer.echo("The scheduler does it; `nocap retrain now` does it sooner.")
