"""`nocap init`, `nocap status`."""

from __future__ import annotations

import typer

from nocap.cli.context import VoiceOption, invocation
from nocap.cli.output import AsJson, print_fields, print_json, show


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(status)


def init(context: typer.Context) -> None:
    """Write a commented nocap.toml, a key file (0600) and an empty database; keeps what is there."""
    from nocap.app import initialise

    call = invocation(context)
    for line in initialise(call.settings_or_defaults(), call.settings_path):
        typer.echo(line)
    typer.echo("Next: `nocap chat` talks to the bot, `nocap import --help` brings in real chat, `nocap up` runs it.")


def status(context: typer.Context, voice: VoiceOption = None, as_json: AsJson = False) -> None:
    """What is live, since when, the last run and its verdict, the next run, this week's feedback."""
    call = invocation(context)
    state = call.actions.status(call.voice(voice))
    if as_json:
        print_json(state)
        return
    votes = state.feedback_this_week
    last = state.last_run
    print_fields(
        {
            "voice": state.voice,
            "live": f"{state.live} since {show(state.since)} on base {state.base}",
            "previous": state.previous,
            "last run": f"{last['id']} {last['state']}: {last['reason'] or last['stage']}" if last else "none yet",
            "next run": state.next_run if state.next_run else "by operators only",
            "this week": ", ".join(f"{votes[kind]} {kind}" for kind in ("replies", "up", "down", "cringe")),
        }
    )
