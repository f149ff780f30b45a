"""`nocap serve`, `nocap bots`, `nocap chat`, `nocap schedule`, `nocap up`: the long-running faces."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from nocap.cli.context import VoiceOption, invocation
from nocap.cli.output import console

SWITCH_SECONDS = 0.0005
"""How long a bot's event loop may keep the interpreter from a turn's database thread; Python's own default is 5 ms."""


def register(app: typer.Typer) -> None:
    for command in (chat, up, serve, bots, schedule):
        app.command()(command)


def chat(context: typer.Context, voice: VoiceOption = None) -> None:
    """Talk to the bot in the terminal, with the adapter that is live now."""
    import asyncio
    from getpass import getuser

    from bots.terminal.chat import chat_in_terminal
    from nocap.app import open_conversation, running_server

    call = invocation(context)
    settings, database = call.settings, call.database

    async def talk() -> None:
        async with open_conversation(settings, database) as conversation:
            await chat_in_terminal(conversation, user=getuser(), voice=call.voice(voice), console=console())

    with running_server(settings, call.command()):
        asyncio.run(talk())


def serve(context: typer.Context) -> None:
    """Serve the base model and its adapters over HTTP (OpenAI's chat completions, vLLM's LoRA endpoints)."""
    from inference.credentials import backend_tokens
    from inference.server.main import serve as run_server
    from nocap.app import deployed_adapters

    call = invocation(context)
    tokens = backend_tokens(call.settings, call.database.keyring)
    run_server(call.settings, tokens, preload=deployed_adapters(call.database))


def bots(
    context: typer.Context,
    platform: Annotated[
        Literal["discord", "telegram"] | None,
        typer.Option("--platform", help="Only discord or telegram; default all, in a process each."),
    ] = None,
) -> None:
    """Run the Discord and Telegram bots that have a token, until SIGTERM or Ctrl-C."""
    import asyncio

    from nocap.app import BotHealth, bot_platforms, run_bots, until_signal
    from nocap.observability.server import status_server
    from nocap.platforms import run_platforms

    call = invocation(context)
    metrics = call.settings.metrics
    platforms = [name for name in bot_platforms(call.settings) if platform in (None, name)]
    if len(platforms) > 1:
        call.database.close()  # opened all the same: what is wrong with it is said once, at the start
        run_platforms(platforms, [*call.command(), "bots"], metrics, _say_on_stderr)
        return
    sys.setswitchinterval(SWITCH_SECONDS)
    health = BotHealth(call.settings, call.database)
    with status_server(metrics.host, metrics.bots_port, health.not_ready):
        asyncio.run(until_signal(run_bots(call.settings, call.database, platforms, health=health)))


def schedule(context: typer.Context) -> None:
    """Start retrains when they are due and resume interrupted ones, until SIGTERM; of several, one works."""
    from prometheus_client import REGISTRY

    from nocap.observability.server import status_server
    from nocap.observability.state import StateCollector
    from nocap.scheduler import Scheduler
    from nocap.supervisor import stopped_by_signal

    call = invocation(context)
    metrics = call.settings.metrics
    REGISTRY.register(StateCollector(call.database, call.settings))
    with stopped_by_signal() as stopping:
        scheduler = Scheduler(call.settings, call.database, stopping)
        with status_server(metrics.host, metrics.schedule_port, scheduler.not_ready):
            scheduler.run()


def up(context: typer.Context) -> None:
    """Run everything that is configured under one supervisor, until SIGTERM or Ctrl-C."""
    from nocap.app import bot_platforms, starts_runs
    from nocap.supervisor import Child, supervise

    call = invocation(context)
    call.database.close()
    wanted = ["serve"] if call.settings.inference.backend == "embedded" else []
    wanted += ["bots"] if bot_platforms(call.settings) else []
    wanted += ["schedule"] if starts_runs(call.settings) else []
    children = [Child(name, [*call.command(), name]) for name in wanted]
    supervise(children, _say_on_stderr)


def _say_on_stderr(line: str) -> None:
    console(stderr=True).print(line, markup=False)
