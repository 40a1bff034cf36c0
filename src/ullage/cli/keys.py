"""`ullage keys`: folders of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ullage.log.keys import Role, create_keys


def init(
    directory: Annotated[Path, typer.Argument(help="Folder for the keys; made if it is not there.")],
    role: Annotated[Role, typer.Option(help="Whose keys to make.")] = Role.ALL,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the signing keys, a URL without its scheme by custom; random by default."),
    ] = None,
) -> None:
    """Create a directory of keys.

    The tap's: log.key, seed.key, seal.key. The verifier's: verdict.key, selection.key. Hand out the .pub
    files and nothing else. Existing keys are never overwritten.
    """
    for file in create_keys(directory, role, name):
        secret = "" if file.suffix == ".pub" else "   secret, mode 0600"
        typer.echo(f"{file}{secret}")


def client(
    name: Annotated[str, typer.Argument(help="The client's name: letters, digits, dot, underscore, hyphen.")],
    *,
    file: Annotated[Path, typer.Option(help="File of clients for `ullage tap --api-keys`; it is added to.")],
) -> None:
    """Make an API key for a client of a tap.

    The key is printed once and stored nowhere; the file gets its hash. A tap that runs takes it up at once.
    """
    from ullage.errors import UsageError
    from ullage.tap.clients.api_keys import new_key

    key, line = new_key(name)
    try:
        with file.open("a", encoding="utf-8") as clients:
            clients.write(line + "\n")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
    typer.echo(key)
