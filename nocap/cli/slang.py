"""`nocap slang list|fading|shifted|approve|block|dismiss`: the glossary and its review queue."""

from __future__ import annotations

from typing import Annotated

import typer

from nocap.cli.context import VoiceOption, invocation
from nocap.cli.output import AsJson, print_json, print_table
from nocap.domain import SlangStatus

app = typer.Typer(help="Fresh slang: what was found, what is approved.", no_args_is_help=True)


@app.command("list")
def list_terms(
    context: typer.Context,
    status: Annotated[SlangStatus | None, typer.Option("--status", help="Only these.")] = None,
    voice: VoiceOption = None,
    as_json: AsJson = False,
) -> None:
    """Terms with their status, freshness and gloss."""
    call = invocation(context)
    rows = call.actions.slang_terms(call.voice(voice), status)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["term", "status", "z", "fresh", "first seen", "last seen", "gloss"],
        [
            (row.term, row.status, f"{row.score:.1f}", f"{row.freshness:.0%}", row.first_seen, row.last_seen, row.gloss)
            for row in rows
        ],
    )


@app.command()
def fading(context: typer.Context, voice: VoiceOption = None, as_json: AsJson = False) -> None:
    """Terms of the glossary that members are giving up."""
    call = invocation(context)
    rows = call.actions.fading_slang(call.voice(voice))
    if as_json:
        print_json(rows)
        return
    header = ["term", "uses a 1,000 messages before", "in the last two weeks"]
    print_table(header, [(row.term, f"{row.before:.1f}", f"{row.now:.1f}") for row in rows])


@app.command()
def shifted(context: typer.Context, voice: VoiceOption = None, as_json: AsJson = False) -> None:
    """Old words that lately stand beside other words than before; for you to read, nothing follows from it."""
    call = invocation(context)
    rows = call.actions.shifted_slang(call.voice(voice))
    if as_json:
        print_json(rows)
        return
    print_table(["word", "z", "new beside it"], [(row.word, f"{row.z:.1f}", ", ".join(row.company)) for row in rows])


@app.command()
def approve(
    context: typer.Context,
    term: str,
    gloss: Annotated[str, typer.Option("--gloss", help="What it means, in your words; never a member's sentence.")],
    voice: VoiceOption = None,
) -> None:
    """Put a term into the glossary; the next answer may already use it."""
    call = invocation(context)
    call.actions.review_slang(call.voice(voice), term, SlangStatus.APPROVED, gloss)
    typer.echo(f"{term} is approved.")


@app.command()
def block(context: typer.Context, term: str, voice: VoiceOption = None) -> None:
    """Keep the bot from ever saying a term; it is not proposed again."""
    call = invocation(context)
    call.actions.review_slang(call.voice(voice), term, SlangStatus.BLOCKED)
    typer.echo(f"{term} is blocked.")


@app.command()
def dismiss(context: typer.Context, term: str, voice: VoiceOption = None) -> None:
    """Take an ordinary word out of the review queue for good; the bot may say it."""
    call = invocation(context)
    call.actions.review_slang(call.voice(voice), term, SlangStatus.DISMISSED)
    typer.echo(f"{term} is dismissed.")
