"""`nocap gates …`: why a run was refused, its decision again, and where each limit comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nocap.cli.context import Invocation, invocation
from nocap.cli.output import AsJson, print_json, print_table
from nocap.domain import RunId

if TYPE_CHECKING:
    from retrain.gates.audit import Audit
    from retrain.gates.confusion import Confusion, Outcome

app = typer.Typer(help="The gates: why a run was refused, and how often they are wrong.", no_args_is_help=True)

RunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="Default: the newest one.")]
DIFFERENT_EXIT_CODE = 6


@app.command()
def explain(context: typer.Context, run: RunArgument = None, as_json: AsJson = False) -> None:
    """Every gate's figures of one run, why it was refused, and what would have changed that."""
    record, _ = _read(invocation(context), run)
    if as_json:
        print_json(record)
        return
    rows = [
        (
            result["verdict"],
            result["gate"].replace("_", " "),
            check.get("name", ""),
            _figure(check.get("value")),
            f"{_figure(check.get('lower'))} to {_figure(check.get('upper'))}" if check else "",
            _limits(check),
            f"{result['evidence']:,} of {result['evidence_needed']:,}",
        )
        for result in record["results"]
        for check in (result["checks"] or [{}])
    ]
    print_table(["verdict", "gate", "figure", "value", "bounds", "limit", "evidence"], rows)
    typer.echo(record["sentence"])
    for sentence in record.get("would_change", []):
        typer.echo(f"What would change it: {sentence}")
    typer.echo(f"Thresholds {record.get('thresholds_version', 'of an earlier format')}.")


@app.command()
def replay(context: typer.Context, run: RunArgument = None, as_json: AsJson = False) -> None:
    """Decide on a run's numbers again: the same numbers must give the same verdict, bit for bit."""
    from retrain.gates import record as records

    record, folder = _read(invocation(context), run)
    again = records.replay(record, _text(folder / "measurements.json"))
    if as_json:
        print_json(again)
    else:
        typer.echo(again.sentence)
    if not again.is_same:
        raise typer.Exit(DIFFERENT_EXIT_CODE)


@app.command()
def thresholds(as_json: AsJson = False) -> None:
    """Every limit with where it comes from; another value is another version."""
    from retrain.gates import GATES
    from retrain.gates.thresholds import thresholds_of, thresholds_version

    version = thresholds_version(GATES)
    limits = [
        {"gate": gate.name, "threshold": name, "value": float(one), "from": one.why, "source": gate.source}
        for gate in GATES
        for name, one in thresholds_of(gate).items()
    ]
    if as_json:
        print_json({"version": version, "thresholds": limits})
        return
    print_table(["gate", "threshold", "value", "from"], [list(one.values())[:4] for one in limits])
    typer.echo(f"Version {version}. Every gate holds at level `gates.alpha`; see docs/gates.md for each statistic.")


@app.command()
def audit(
    context: typer.Context,
    models: Annotated[
        bool, typer.Option("--models", help="Train saboteurs and judge them, instead of numbers.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="200 simulations a kind, or one seed; else 2,000, or 5.")
    ] = False,
    base: Annotated[Path | None, typer.Option("--base", help="With --models: a model's folder; default: ours.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Keeps what is done, to go on later.")] = None,
    publish: Annotated[Path | None, typer.Option("--publish", help="Also write the result as JSON here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count how often the gates are wrong, on simulated or on really trained adapters; goes on where it stood."""
    target = folder or invocation(context).settings.data_dir / "cache" / "audit"
    if models:
        judged = _audit_models(target, quick, base)
        _tell(judged, publish, as_json, lambda: _print_confusion(judged))
    else:
        counted = _audit_numbers(target, quick)
        _tell(counted, publish, as_json, lambda: _print_rates(counted))


def _tell(found: Audit | Confusion, publish: Path | None, as_json: bool, print_it: Callable[[], None]) -> None:
    """Ends the command: exit 0 only where every bar holds."""
    import json

    if publish:
        publish.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(found.as_json())
    else:
        print_it()
    raise typer.Exit(0 if found.holds else DIFFERENT_EXIT_CODE)


def _audit_numbers(folder: Path, quick: bool) -> Audit:
    from nocap.cli.output import console
    from nocap.domain import utc_now
    from retrain.gates.audit import QUICK_SIMULATIONS, SIMULATIONS, audit

    with console(stderr=True).status("simulating") as status:
        return audit(
            folder,
            QUICK_SIMULATIONS if quick else SIMULATIONS,
            utc_now().date(),
            lambda kind, done, total: status.update(f"{kind} {done}/{total}"),
        )


def _audit_models(folder: Path, quick: bool, base: Path | None) -> Confusion:
    from nocap.demo.gate_audit import SEEDS, ModelAudit
    from nocap.domain import utc_now
    from nocap.settings import EMBEDDED_BASE
    from retrain.gates.confusion import Confusion

    def told(one: Outcome) -> None:
        typer.echo(f"{one.kind}, seed {one.seed}: {', '.join(one.refused_by) or 'promoted'}", err=True)

    outcomes = ModelAudit(folder, str(base or EMBEDDED_BASE), told).run(range(1, 1 + (1 if quick else SEEDS)))
    return Confusion(utc_now().date(), base.name if base else "the embedded base", outcomes)


def _print_rates(found: Audit) -> None:
    for title, rates in (
        ("promoted", [*found.honest, *found.saboteurs, *found.unpreferred, *found.preferred]),
        ("passed by its gate", found.effects),
    ):
        print_table(
            ["kind", "members", "way to the limit", "simulations", title, "at least", "at most", "refused by"],
            [
                (
                    *(one.kind, f"{one.members} x {one.each}", _figure(one.effect), one.simulations),
                    *(f"{one.share:.3f}", f"{one.lower:.3f}", f"{one.upper:.3f}"),
                    ", ".join(f"{gate} {count}" for gate, count in list(one.refused_by.items())[:4]),
                )
                for one in rates
            ],
        )


def _print_confusion(found: Confusion) -> None:
    print_table(
        ["kind", "seeds", "promoted", "must be", *(gate.replace("_", " ") for gate in found.gates)],
        [
            (row.kind, row.seeds, row.promoted, row.must, *(row.refused.get(gate, "") for gate in found.gates))
            for row in found.rows
        ],
    )


def _read(call: Invocation, run: str | None) -> tuple[dict[str, Any], Path]:
    """The decision's record and the folder of the run. Raises RunError where it was not decided."""
    from nocap.errors import RunError
    from retrain.run_folder import read_json

    if run is None:
        newest = call.actions.runs(call.voice(None), limit=1)
        if not newest:
            raise RunError("There is no run yet; start one with `nocap retrain now`.")
        run = newest[0].id
    row = call.actions.run(RunId(run))
    folder = call.settings.runs_dir / row.id
    if not (folder / "gates.json").is_file():
        raise RunError(
            f"The gates have not decided on run {run}, which is {row.state}: {row.reason or 'no reason yet'}"
        )
    return read_json(folder / "gates.json"), folder


def _text(path: Path) -> str:
    from nocap.errors import RunError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} is missing; without its numbers the run cannot be decided on again.") from error


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _limits(check: dict[str, Any]) -> str:
    parts = [f"> {check['at_least']:.4g}"] if check.get("at_least") is not None else []
    parts += [f"< {check['at_most']:.4g}"] if check.get("at_most") is not None else []
    return " and ".join(parts)
