"""`ullage redteam provider`: a difficult or dishonest provider in front of a server."""

from __future__ import annotations

from typing import Annotated

import typer


def provider(
    mode: Annotated[str, typer.Argument(help="Which one; a wrong name lists them.")],
    *,
    upstream: Annotated[list[str], typer.Option(help="URL of the server; `changed` takes two.")],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to serve at; port 0 takes a free one.")
    ] = "127.0.0.1:8000",
) -> None:
    """Stand between a probe and a server: with another template, system prompt or temperature, or with
    troubles that accuse nobody.

    Prints one line, `listening on http://HOST:PORT`, when it is ready.
    """
    from ullage.redteam.provider import create_provider
    from ullage.server import run

    app = create_provider(mode, upstream)
    run.serve(app, *run.parse_address(listen))
