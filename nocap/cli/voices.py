"""`nocap voices add|list|show`: voices are data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, print_fields, print_json, print_table
from nocap.domain import VoiceName

app = typer.Typer(help="The voices: each with its own prompt, lexicon, adapters and pointer.", no_args_is_help=True)


@app.command()
def add(
    context: typer.Context,
    name: str,
    lexicon: Annotated[Path, typer.Option("--lexicon", help="A text file, one marker term a line; # begins a note.")],
    prompt: Annotated[Path, typer.Option("--prompt", help="A text file: the system prompt; it must not deny the bot.")],
    base: Annotated[
        str | None, typer.Option("--base", help="The base that it is meant for; refused if it is not the served one.")
    ] = None,
) -> None:
    """Add a voice; it speaks with the base model until its first adapter is promoted."""
    call = invocation(context)
    voice = call.actions.add_voice(VoiceName(name), prompt, lexicon, base)
    typer.echo(
        f"{voice.name} is there, with {len(voice.lexicon)} terms; it speaks with the base until its first promotion."
        f" Give it a chat with `nocap import … --voice {voice.name}`, or set a channel's voice."
    )


@app.command("list")
def list_voices(context: typer.Context, as_json: AsJson = False) -> None:
    """Every voice and what is live for it."""
    rows = invocation(context).actions.voices()
    if as_json:
        print_json(rows)
        return
    print_table(
        ["voice", "live", "previous", "terms"],
        [(row["name"], row["live"], row["previous"], len(row["lexicon"])) for row in rows],
    )


@app.command()
def show(context: typer.Context, name: str, as_json: AsJson = False) -> None:
    """One voice: its prompt, its lexicon, what is live."""
    row = invocation(context).actions.voice(VoiceName(name))
    if as_json:
        print_json(row)
    else:
        print_fields(row | {"lexicon": ", ".join(row["lexicon"])})
