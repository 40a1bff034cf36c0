"""`ullage replay`: reproduce one answer from its record."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.cli.progress import meter
from ullage.errors import ExitCode
from ullage.terminal import plain

if TYPE_CHECKING:
    from ullage.audit.replay import Replay


def replay(
    log: Annotated[Path, typer.Argument(help="A log's folder.")],
    record: Annotated[int, typer.Argument(metavar="N", help="The record's number.", min=0)],
    *,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model; the built-in one without.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The tap's public key (log.pub), from a source that you trust.")
    ] = None,
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens the records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Reproduce one answer with the reference's own sampling, and say where it differs.

    Ends with 0 if the reference says what was delivered, 1 if it does not.
    """
    from ullage.audit.replay import replay as reproduce
    from ullage.log.keys import load_verifier
    from ullage.log.reader import SELF_VOUCHED
    from ullage.log.sealed.openers import load_opener
    from ullage.model.builtin import builtin_path

    verifier = load_verifier(key) if key else None
    opener = load_opener(None, record_keys)
    if verifier is None and not quiet:
        typer.echo(f"note: {SELF_VOUCHED}", err=True)
    with meter(quiet=quiet) as progress:
        result = reproduce(
            log,
            record,
            model or builtin_path(),
            key=verifier,
            opener=opener,
            progress=lambda done: progress("decoding", done, 0),
        )
    same = result.first_difference is None
    if as_json:
        typer.echo(json.dumps({"claims": [], "identical": same, **asdict(result)}, indent=1))
    else:
        typer.echo(text(result))
    raise typer.Exit(int(ExitCode.PASS if same else ExitCode.FAIL))


def text(result: Replay) -> str:
    """The result for a terminal."""
    given, said = result.delivered, result.reference
    delivered, reference = plain(given.text), plain(said.text)
    place = result.first_difference
    if place is None:
        return f"{delivered}\n\nidentical: the reference says the same {len(given.ids)} tokens"
    left = str(given.ids[place]) if place < len(given.ids) else "the end"
    right = str(said.ids[place]) if place < len(said.ids) else "the end"
    return (
        f"delivered:\n{delivered}\n\nreference:\n{reference}\n\n"
        f"different from output token {place} on: {left} was delivered, the reference has {right}"
    )
