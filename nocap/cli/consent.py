"""`nocap consent show|audit`: what members agreed to, one by one and counted."""

from __future__ import annotations

from typing import Annotated

import typer

from nocap.cli.context import invocation
from nocap.cli.output import AsJson, print_json, print_table, show

app = typer.Typer(help="What members agreed to: the ledger.", no_args_is_help=True)


@app.command("show")
def show_member(
    context: typer.Context,
    member: Annotated[
        str, typer.Argument(metavar="MEMBER", help="telegram:ID, discord:ID, import:jsonl:NAME, or the pseudonym.")
    ],
    as_json: AsJson = False,
) -> None:
    """What holds for one member, per chat and purpose."""
    call = invocation(context)
    states = call.actions.consent_of(call.actions.member_key(member))
    if as_json:
        print_json(states)
        return
    if not states:
        typer.echo("The ledger has no line of this member: everything is a no.")
        return
    print_table(
        ["chat", "label", "purpose", "holds", "last answer", "privacy text", "when"],
        [
            (
                row.channel,
                row.label,
                row.purpose,
                "yes" if row.holds else "no",
                "agreed" if row.granted else "refused",
                row.policy_version,
                row.at,
            )
            for row in states
        ],
    )


@app.command()
def audit(context: typer.Context, as_json: AsJson = False) -> None:
    """Counts per chat and purpose, privacy texts agreed to, and who is due to be asked again."""
    result = invocation(context).actions.consent_audit()
    if as_json:
        print_json(result)
        return
    print_table(
        ["chat", "platform", "collects", "purpose", "agreed", "to an older text", "refused"],
        [
            (
                row.channel,
                row.platform,
                "yes" if row.collects else "no",
                row.purpose,
                row.agreed,
                row.outdated,
                row.refused,
            )
            for row in result.purposes
        ],
    )
    versions = ", ".join(f"{version}: {count}" for version, count in result.policy_versions.items())
    typer.echo(
        f"The privacy text is {result.policy_version}. Yeses that stand, by privacy text: {show(versions or None)}."
    )
    for chat in result.due:
        typer.echo(
            f"Due to be asked again in {chat.channel}: {chat.due}, of whom {chat.asked} have been asked already."
        )
