"""`nocap retrain now|preview|dataset|status|cancel|resume|work`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nocap.cli.context import Invocation, VoiceOption, invocation
from nocap.cli.output import AsJson, console, print_fields, print_json, print_table, show
from nocap.domain import RunId, RunState
from nocap.errors import RunError

app = typer.Typer(help="Train, gate and promote a new adapter.", no_args_is_help=True)

RunArgument = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: the newest.")]
REFUSED_EXIT_CODE = 8


@app.command()
def now(
    context: typer.Context,
    voice: VoiceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be trained on.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show the stages until the run is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run in a process of its own. With --wait: exit 0 promoted or on trial, 8 refused, 6 failed."""
    if dry_run:
        preview(context, voice, as_json)
        return
    call = invocation(context)
    run_id = call.actions.retrain_now(call.voice(voice))
    if wait:
        raise typer.Exit(_exit_code(_follow(call, run_id, as_json)))
    if as_json:
        print_json({"run": run_id})
    elif call.actions.is_waiting(call.actions.run(run_id)):
        typer.echo(f"Run {run_id} waits for a worker: `nocap retrain work` where torch is installed takes it up.")
    else:
        typer.echo(f"Run {run_id} has started; `nocap retrain status` shows it.")


@app.command()
def preview(context: typer.Context, voice: VoiceOption = None, as_json: AsJson = False) -> None:
    """What a run would train on now, and what is left out, by reason."""
    call = invocation(context)
    plan = call.actions.preview(call.voice(voice))
    if as_json:
        print_json(plan)
        return
    typer.echo(
        f"{plan.train} examples of {plan.train_members} members to train on, {plan.validation} to validate,"
        f" {plan.evaluate} of {plan.evaluate_members} other members to evaluate."
    )
    typer.echo(f"{plan.thumbs} voted answers and {plan.pairs} decided duels to learn from.")
    print_table(["left out because", "rows"], sorted(plan.dropped.items(), key=lambda item: -item[1]))
    print_table(["vote left out because", "votes"], sorted(plan.votes_dropped.items(), key=lambda item: -item[1]))


class DatasetFormat(StrEnum):
    AXOLOTL = "axolotl"
    LLAMA_FACTORY = "llama-factory"


@app.command()
def dataset(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="A new file of JSON lines, readable by you alone.")],
    form: Annotated[DatasetFormat, typer.Option("--format", help="Whose chat format.")] = DatasetFormat.AXOLOTL,
    voice: VoiceOption = None,
) -> None:
    """Write what a run would train on now, eligible rows only, for another trainer; it goes into the audit log."""
    call = invocation(context)
    count = call.actions.export_dataset(call.voice(voice), output, form.value)
    typer.echo(f"{count} examples are in {output}. They are members' texts: delete the file after use.")


@app.command()
def status(context: typer.Context, run: RunArgument = None, voice: VoiceOption = None, as_json: AsJson = False) -> None:
    """One run: its stage, how far it is, and how it ended."""
    from nocap.watch import read_progress

    call = invocation(context)
    row = call.actions.run(_chosen(call, run, voice))
    progress = read_progress(call.settings.runs_dir, RunId(row.id))
    if as_json:
        print_json(row.model_dump(mode="json") | {"progress": progress})
        return
    print_fields(
        {
            "run": row.id,
            "state": row.state,
            "stage": f"{row.stage or 'not begun'} {progress.get('text', '')}".strip(),
            "started": row.created_at,
            "ended": row.ended_at,
            "incumbent": row.incumbent,
            "challenger": row.challenger,
            "reason": row.reason,
            "cost": _cost(row.cost),
        }
    )


@app.command()
def cancel(context: typer.Context, run: RunArgument = None, voice: VoiceOption = None) -> None:
    """Stop a run between two steps; the live adapter stays."""
    call = invocation(context)
    run_id = _chosen(call, run, voice)
    call.actions.cancel(run_id)
    typer.echo(f"Run {run_id} will stop at its next step.")


@app.command()
def resume(
    context: typer.Context,
    run: RunArgument = None,
    voice: VoiceOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the stages until the run is over.")] = False,
) -> None:
    """Go on with an interrupted run at the stage where it stood."""
    call = invocation(context)
    run_id = _chosen(call, run, voice)
    call.actions.resume(run_id)
    typer.echo(f"Run {run_id} goes on.")
    if wait:
        raise typer.Exit(_exit_code(_follow(call, run_id, as_json=False)))


@app.command()
def work(context: typer.Context) -> None:
    """Take up the run that waits or was interrupted, until it is over; exit 0 unless it failed, or if there is none."""
    call = invocation(context)
    waiting = call.actions.waiting_runs()
    if not waiting:
        typer.echo("No run waits.")
        return
    run_id = RunId(waiting[0].id)
    call.actions.resume(run_id)
    if _follow(call, run_id, as_json=False) is RunState.FAILED:
        raise typer.Exit(RunError.exit_code)


def _chosen(call: Invocation, run: str | None, voice: str | None) -> RunId:
    if run:
        return RunId(run)
    newest = call.actions.runs(call.voice(voice), limit=1)
    if not newest:
        raise RunError("There is no run yet; start one with `nocap retrain now`.")
    return RunId(newest[0].id)


def _follow(call: Invocation, run_id: RunId, as_json: bool) -> RunState:
    """Shows the stages until the run is over, then how it ended."""
    from nocap.watch import watch_run

    row = watch_run(call.actions, call.settings.runs_dir, run_id, console(stderr=True))
    if as_json:
        print_json(row)
    else:
        typer.echo(f"{row.state}: {row.reason}")
        typer.echo(f"cost: {_cost(row.cost)}; report: nocap report {run_id}")
    return RunState(row.state)


def _exit_code(state: RunState) -> int:
    if state in (RunState.REFUSED, RunState.ABSTAINED, RunState.NOTHING_TO_LEARN):
        return REFUSED_EXIT_CODE
    return 0 if state in (RunState.PROMOTED, RunState.ON_TRIAL) else 6


def _cost(cost: dict[str, Any]) -> str | None:
    if not cost:
        return None
    estimate = " (estimate)" if cost.get("energy_is_estimate") else ""
    return (
        f"{cost['seconds']:.0f} s, {cost['money']:.4f} {cost['currency']},"
        f" {cost['energy_joules'] / 3.6e6:.4f} kWh{estimate}, peak {cost['peak_bytes'] / 2**30:.1f} GiB,"
        f" {show(cost['examples'])} examples"
    )
