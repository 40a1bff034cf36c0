"""`ullage log fsck`, `export`: a log's files, for its operator and for analysts."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ullage.cli.log.source import Json, Key, PolicyFile, choose_policy, log_source
from ullage.log.keys import load_verifier
from ullage.log.upkeep.fsck import Diagnosis, check_log, repair_log
from ullage.terminal import plain_line


class Format(StrEnum):
    """How the records are written."""

    PARQUET = "parquet"
    JSON = "json"


def fsck(
    directory: Annotated[Path, typer.Argument(help="A log's folder, as the tap has it.")],
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; the tap must be stopped.")
    ] = False,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Say which files of a log are damaged, torn, missing or strange, and what to do about each.

    Ends with 0 if nothing is wrong (any more), else with 1. Tiles and entry bundles can be made again from
    the journal; the journal and the checkpoint are never changed.
    """
    verifier = load_verifier(key) if key is not None else None
    before = None
    if repair:
        before, found = repair_log(directory, verifier)
    else:
        found = check_log(directory, verifier)
    if as_json:
        document = _diagnosis(found) | {"repaired": None if before is None else _repaired(before, found)}
        typer.echo(json.dumps(document, indent=1))
    else:
        for path in _repaired(before, found) if before is not None else []:
            typer.echo(f"repaired: {path}")
        for trouble in found.troubles:
            typer.echo(plain_line(f"{trouble.grade.value}: {trouble.path}: {trouble.sentence}"))
        typer.echo(f"{found.state.value}: {found.entries} entries in the journal, {found.signed} signed")
    raise typer.Exit(int(found.exit_code))


def _repaired(before: Diagnosis, after: Diagnosis) -> list[str]:
    left = {(trouble.code, trouble.path) for trouble in after.troubles}
    return [one.path for one in before.troubles if (one.code, one.path) not in left]


def _diagnosis(found: Diagnosis) -> dict[str, object]:
    troubles = [
        {"code": one.code, "grade": one.grade.value, "path": one.path, "sentence": one.sentence}
        for one in found.troubles
    ]
    return {
        "state": found.state.value,
        "entries": found.entries,
        "signed": found.signed,
        "troubles": troubles,
    }


def export(
    location: Annotated[str, typer.Argument(metavar="URL|DIR", help="A log's URL or folder.")],
    *,
    out: Annotated[Path, typer.Option(help="New folder for the tables.")],
    form: Annotated[Format, typer.Option("--format", help="How the records are written.")] = Format.PARQUET,
    key: Key = None,
    policy: PolicyFile = None,
) -> None:
    """Write the public part of a log as tables: one row a record, and what the log declares.

    Only a log that verifies is exported. Nothing sealed is read. The schema is in docs/formats/export.md.
    """
    from ullage.log.export import export_log

    source = log_source(location)
    exported = export_log(source, choose_policy(key, policy, source), out, form.value)
    typer.echo(f"{exported.records} records of {exported.size} signed entries: {exported.path}")
