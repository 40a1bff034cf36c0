"""`ullage agent`: the prover's side of erasure and residency."""

from __future__ import annotations

from typing import Annotated

import typer


def agent(
    *,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT for the verifier; port 0 takes a free one.")
    ] = "127.0.0.1:8400",
    machine: Annotated[
        str, typer.Option(help="What is to be erased: 'group' (the memory control group) or 'host'.")
    ] = "group",
    limit_mib: Annotated[int | None, typer.Option(min=1, help="Map at most this much.")] = None,
    reserve_mib: Annotated[int | None, typer.Option(min=0, help="Leave this much to the system.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use. Default: all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before taking the host's memory.")] = False,
) -> None:
    """Let a verifier fill this machine's memory and ask for it.

    Prints `listening on HOST:PORT` when it is ready, and serves one verifier after the other until it is
    interrupted. What it maps is locked into memory and is given back when it ends.
    """
    from ullage.memory.agent.service import Settings, run

    size = None if limit_mib is None else limit_mib << 20
    reserve = None if reserve_mib is None else reserve_mib << 20
    if machine == "host" and size is None and not yes:
        typer.confirm(
            "This takes nearly all memory of the host away from everything else. Go on?", abort=True
        )
    run(Settings(listen, machine, size, reserve, threads))
