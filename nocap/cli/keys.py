"""`nocap keys rotate|signing`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nocap.cli.context import invocation

app = typer.Typer(help="The key that texts are encrypted under, and the one that adapters are signed with.")


@app.command()
def rotate(context: typer.Context) -> None:
    """Encrypt every text under a new key and destroy the old one. Stop every other nocap process first."""
    from storage.rotation import rotate as rotate_key

    settings = invocation(context).settings
    count = rotate_key(settings.database_url, settings.key_file)
    typer.echo(
        f"{count} texts are under a new key in {settings.key_file}; back that file up apart from the database, delete"
        " older copies of both, and restart nocap: the tokens derived from the key are new too."
    )


@app.command()
def signing(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Where to write the private key (mode 0600).")],
) -> None:
    """Make an Ed25519 key to sign adapters with, and print what servers are to trust."""
    from inference.signing import create_signing_key

    signer = create_signing_key(path)
    typer.echo(f'Trainers: inference.signing_key_file = "{path}"')
    typer.echo(f'Servers:  inference.trusted_signer = "{signer}"')
