"""`nocap demo [run|build-base]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, console, print_json

app = typer.Typer(help="The whole loop with a simulated community; and the recipe of the embedded base model.")


@app.callback(invoke_without_command=True)
def demo(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        run(context)


@app.command()
def run(
    context: typer.Context,
    weeks: Annotated[int, typer.Option("--weeks", min=1, max=8, help="How many simulated weeks.")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulated community.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Eight simulated weeks in <data dir>/demo: chat, votes, retrains, gates, promotions, a poisoning, a rollback."""
    from nocap.demo.run import run_demo

    summary = run_demo(invocation(context).settings, weeks=weeks, seed=seed, console=console(stderr=as_json))
    if as_json:
        print_json(summary)


@app.command("build-base")
def build_base(
    out: Annotated[Path, typer.Option("--out", help="Where the model folder is written.")] = Path("base"),
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps; default the recipe's.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 1,
) -> None:
    """Rebuild the embedded base model from its grammar (about 15 minutes of one core)."""
    from rich.progress import Progress

    from nocap.demo.build_base import DEFAULT_STEPS
    from nocap.demo.build_base import build_base as build

    with Progress(console=console()) as bars:
        task = bars.add_task("training", total=steps or DEFAULT_STEPS)
        report = build(
            out,
            steps=steps or DEFAULT_STEPS,
            seed=seed,
            progress=lambda done, _, loss: bars.update(task, completed=done, description=f"loss {loss:.2f}"),
        )
    typer.echo(
        f"{out}: {report.parameters:,} parameters, {report.bytes / 1e6:.1f} MB, {report.seconds:.0f} s;"
        f" on topic in {report.on_topic_share:.0%} of {report.evaluated_prompts} held-out prompts"
    )
