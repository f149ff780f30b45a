"""`nocap adapters …`, `nocap promote`, `nocap rollback`, `nocap canary`, `nocap report`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nocap.cli.context import VoiceOption, invocation
from nocap.cli.output import AsJson, print_fields, print_json, print_table
from nocap.cli.output import show as show_cell
from nocap.domain import AdapterName, AdapterStatus, RunId, VoiceName

if TYPE_CHECKING:
    from storage.compliance import Basis
    from storage.registry import PointerMove

app = typer.Typer(help="The adapters that were trained.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="adapters")
    for command in (promote, rollback, canary, report):
        root.command()(command)


@app.command("list")
def list_adapters(context: typer.Context, voice: VoiceOption = None, as_json: AsJson = False) -> None:
    """Every adapter of the voice, newest first."""
    call = invocation(context)
    name = call.voice(voice)
    live = call.actions.status(name)
    rows = call.actions.adapters(name)
    if as_json:
        print_json(rows)
        return
    places = {live.live: "live", live.previous: "previous", live.canary: "canary"}
    print_table(
        ["adapter", "", "status", "created", "run"],
        [(row.name, places.get(row.name, ""), row.status, row.created_at, row.run_id) for row in rows],
    )


@app.command()
def show(context: typer.Context, name: str, as_json: AsJson = False) -> None:
    """One adapter: base, digests, run."""
    row = invocation(context).actions.adapter(AdapterName(name))
    if as_json:
        print_json(row)
    else:
        print_fields(row.model_dump())


@app.command()
def verify(context: typer.Context, name: str, as_json: AsJson = False) -> None:
    """Check every file of an adapter against its manifest, and the manifest against the base."""
    manifest = invocation(context).actions.verify(AdapterName(name))
    if as_json:
        print_json(manifest)
    else:
        typer.echo(f"{name} is intact: {len(manifest.files)} files match their SHA-256, digest {manifest.digest[:16]}…")


@app.command()
def compliance(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="ADAPTER")], as_json: AsJson = False
) -> None:
    """What trained an adapter: rows and members by provenance and basis, and what was revoked or erased since."""
    found, retire_by = invocation(context).actions.compliance(AdapterName(name))
    if as_json:
        print_json(asdict(found) | {"retire_by": retire_by})
        return
    if found.run is None:
        typer.echo(f"{name} was not trained here: nothing is known of its texts.")
        return
    typer.echo(f"{name} ({found.status}): {found.rows} rows of {found.members} members, run {found.run}.")
    print_table(
        ["provenance", "basis", "rows", "members", "revoked since", "erased since", "expired"],
        [
            (
                basis.provenance or "gone",
                _basis(basis),
                basis.rows,
                basis.members,
                f"{basis.revoked_rows} of {basis.revoked_members} members" if basis.revoked_rows else 0,
                basis.erased_rows,
                basis.expired_rows,
            )
            for basis in found.bases
        ],
    )
    if found.retirement_requested_at:
        verb = "retired" if found.status == AdapterStatus.RETIRED else f"to be retired by {show_cell(retire_by)}"
        typer.echo(f"Marked on {show_cell(found.retirement_requested_at)} because of an erasure; {verb}.")
    else:
        typer.echo("Not marked for retirement.")


def _basis(basis: Basis) -> str:
    if basis.provenance is None:
        return "went with the text"
    if basis.purpose is None:
        return "the operator's own words"
    consent = f"consent to {basis.purpose}, privacy text {basis.policy_version}"
    if basis.policy_version is None:
        consent = "NO CONSENT IN THE LEDGER"
    return f"{consent}; permission {basis.permission_reference}" if basis.permission_reference else consent


class ExportFormat(StrEnum):
    PEFT = "peft"
    MERGED = "merged"
    GGUF_LORA = "gguf-lora"


@app.command()
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ADAPTER")],
    output: Annotated[Path, typer.Argument(help="A new folder, or a new file for gguf-lora.")],
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="peft; merged: the base with it taken in; gguf-lora: llama.cpp's."),
    ] = ExportFormat.PEFT,
) -> None:
    """Write an adapter for other tools. An adapter taken out of here does not forget whom nocap forgets."""
    folder = invocation(context).actions.export_adapter(AdapterName(name), output, form.value)
    typer.echo(f"{name} is in {folder}.")


@app.command()
def push(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ADAPTER")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; made private where it is not there yet.")],
) -> None:
    """Put an adapter with its card and bill of materials into a hub repository (HF_TOKEN, HF_ENDPOINT)."""
    url = invocation(context).actions.push_adapter(AdapterName(name), repository)
    typer.echo(f"{name} is at {url}. What is there does not forget whom nocap forgets.")


@app.command()
def pull(
    context: typer.Context,
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    revision: Annotated[str | None, typer.Option("--revision", help="A commit, branch or tag.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch an adapter, check every digest, and register it as a candidate that no gate here has passed."""
    manifest = invocation(context).actions.pull_adapter(repository, revision)
    if as_json:
        print_json(manifest)
    else:
        typer.echo(
            f"{manifest.name} is here, digest {manifest.digest[:16]}…; it is not live. Its gates have not run here:"
            f" `nocap promote {manifest.name} --override` is the only way, and goes into the audit log."
        )


def promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ADAPTER")],
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit log.")],
    override: Annotated[bool, typer.Option("--override", help="Even where the gates did not pass; audited.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an adapter the live one."""
    from nocap.app import live_backend

    call = invocation(context)
    move = call.actions.promote(AdapterName(name), reason, live_backend(call.settings), override=override)
    _say(move, as_json)


def rollback(
    context: typer.Context,
    adapter: Annotated[str | None, typer.Argument(help="Where to; default the previous one.")] = None,
    voice: VoiceOption = None,
    as_json: AsJson = False,
) -> None:
    """Move the pointer back; the very next answer comes from there."""
    from nocap.app import live_backend

    call = invocation(context)
    to = AdapterName(adapter) if adapter else None
    move = call.actions.rollback(call.voice(voice), to, live_backend(call.settings))
    _say(move, as_json)


def canary(
    context: typer.Context,
    adapter: Annotated[str | None, typer.Argument(help="Which one; none ends the trial.")] = None,
    share: Annotated[float, typer.Option("--share", help="Of the channels, between 0 and 1.")] = 0.1,
    voice: VoiceOption = None,
) -> None:
    """Let an adapter that passed its gates answer in a share of the channels; without one, end that."""
    from nocap.app import live_backend

    call = invocation(context)
    if adapter is None:
        call.actions.end_canary(call.voice(voice))
        typer.echo("The live adapter answers everywhere.")
        return
    of_voice = VoiceName(voice) if voice else None
    call.actions.canary(AdapterName(adapter), share, live_backend(call.settings), of_voice)
    typer.echo(f"{adapter} answers in {share:.0%} of the channels.")


def report(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN")],
    opened: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Print where a run's report is, or open it."""
    path = invocation(context).actions.report(RunId(run))
    typer.echo(path)
    if opened:
        typer.launch(str(path))


def _say(move: PointerMove, as_json: bool) -> None:
    if as_json:
        print_json(move)
    else:
        typer.echo(f"{move.voice}: {move.before} → {move.after}")
