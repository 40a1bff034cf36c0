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

    Half of the machine plays the cheater, the other half is the verifier's companion. Prints one table and
    ends with 1 if one that the accounting must catch got away, with 3 if that cannot be told, as when an
    honest agent was accused at the end. Takes about half an hour, with --quick ten minutes.
    """
    from ullage.redteam.work.registry import find
    from ullage.redteam.work.suite import FULL, QUICK, claims_of, run_suite, table

    adversaries = [one for one in find(only or []) if only or not (quick and one.slow)]
    played = run_suite(adversaries, QUICK if quick else FULL, notes(quiet=quiet))
    outcomes = played.outcomes
    if as_json:
        honest = {
            "before": played.honest_before,
            "after": played.honest_after,
            "accused": played.is_honest_accused,
        }
        rows = [outcome.to_dict() for outcome in outcomes]
        claims = to_json(claims_of(outcomes))
        typer.echo(json.dumps({"adversaries": rows, "honest": honest, "claims": claims}))
    else:
        typer.echo("\n".join(table(played)))
    if not all(outcome.is_caught for outcome in outcomes if outcome.must_be_caught):
        raise typer.Exit(ExitCode.FAIL)
    if any(outcome.is_undecided for outcome in outcomes):
        raise typer.Exit(ExitCode.CANNOT_TELL)
