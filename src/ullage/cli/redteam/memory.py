"""`ullage redteam memory`: cheats against memory proofs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ullage.cli.progress import Quiet, notes


def memory_agent(
    name: Annotated[str, typer.Argument(help="Which cheat; a wrong name lists them.")],
    *,
    folder: Annotated[Path, typer.Option(help="A folder on disk for the cheat's use.")],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT for the verifier; port 0 takes a free one.")
    ] = "127.0.0.1:8400",
    size_mib: Annotated[int, typer.Option(min=1, help="The region that it pretends to fill.")] = 256,
    share: Annotated[float, typer.Option(min=0, max=1, help="How much it keeps for itself.")] = 0.25,
    helper: Annotated[str, typer.Option(help="HOST:PORT of an honest agent that helps it.")] = "",
) -> None:
    """Answer a verifier as a cheat does. docs/memory.md lists them."""
    from ullage.memory.agent.service import bind, serve
    from ullage.redteam.memory.cheat import Setting
    from ullage.redteam.memory.registry import get_cheat

    cheat = get_cheat(name)
    listener = bind(listen)
    serve(cheat.build(Setting(size_mib << 20, share, folder, helper or None)), listener)


def memory(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small regions, few runs: about two minutes.")
    ] = False,
    runs: Annotated[int | None, typer.Option(min=1, help="Runs a cheat and mode.")] = None,
    region_mib: Annotated[int | None, typer.Option(min=16, help="Size of the region.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="A folder on the disk that counts as other store.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="One cheat; may be given again.")] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="stream, rate-gap, chain, spots or hold; may be given again. Default: all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Let every cheat answer erasures and say how often it was caught.

    Prints one table and ends with 1 if a cheat that no assumption allows got a claim above the truth.
    """
    import tempfile

    from ullage.claims import to_json
    from ullage.errors import ExitCode
    from ullage.memory.measure import calibrate
    from ullage.redteam.memory.suite import FULL, QUICK, Size, claims_of, run_suite, table

    base = QUICK if quick else FULL
    size = Size((region_mib << 20) if region_mib else base.region, runs or base.runs)
    calibration = calibrate(64 << 20, store or Path(tempfile.gettempdir()), 2 if quick else 5)
    rows = run_suite(calibration, size, only or (), notes(quiet=quiet), mode or ())
    claims = claims_of(rows)
    if as_json:
        typer.echo(json.dumps({"cheaters": [row.to_dict() for row in rows], "claims": to_json(claims)}))
    else:
        typer.echo("\n".join([*table(rows), *(claim.render() for claim in claims)]))
    if not all(row.is_as_expected for row in rows):
        raise typer.Exit(ExitCode.FAIL)
