"""`ullage redteam work`: cheating agents against the accounting of compute."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ullage.claims import to_json
from ullage.cli.progress import Quiet, notes
from ullage.errors import ExitCode


def work(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Short windows, and no small tenants.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="One adversary; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Let every cheater play against the accounting of compute, as processes of its own.

    Prints one table and ends with 1 if one that the accounting must catch got away. The machine has to be
    quiet: whatever else runs on it looks like a tenant.
    """
    from ullage.redteam.work.registry import find
    from ullage.redteam.work.suite import FULL, QUICK, claims_of, run_suite, table

    adversaries = [one for one in find(only or []) if only or not (quick and one.slow)]
    outcomes = run_suite(adversaries, QUICK if quick else FULL, notes(quiet=quiet))
    if as_json:
        rows = [outcome.to_dict() for outcome in outcomes]
        typer.echo(json.dumps({"adversaries": rows, "claims": to_json(claims_of(outcomes))}))
    else:
        typer.echo("\n".join(table(outcomes)))
    if not all(outcome.is_caught for outcome in outcomes if outcome.must_be_caught):
        raise typer.Exit(ExitCode.FAIL)
