"""`ullage redteam subliminal`: what travels in plain numbers, and what verification makes of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ullage.cli.progress import Quiet, notes
from ullage.redteam.subliminal.part import Part


def subliminal(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Small runs: about a minute or two.")] = False,
    part: Annotated[
        Part, typer.Option(help="Digits from noise, a trait in numbers and its audit, or both.")
    ] = Part.ALL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure what a student learns from answers that do not speak of it, and what verification leaves.

    Ends with 1 if the alarm misses a teacher that steers openly, or if an enforced transcript depends on
    the server.
    """
    from ullage.claims import to_json
    from ullage.errors import ExitCode
    from ullage.redteam.subliminal.run import FULL, QUICK, run

    found = run(part, QUICK if quick else FULL, notes(quiet=quiet))
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "claims": to_json(found.claims())}))
    else:
        typer.echo("\n".join(found.lines()))
    if not found.holds:
        raise typer.Exit(ExitCode.FAIL)
