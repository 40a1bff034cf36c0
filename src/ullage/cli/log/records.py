"""`ullage log open`, `forget`, `rotate-key`, `rotate-seal`: what only the tap's operator does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ullage.errors import UsageError
from ullage.log.keys import load_seal_key
from ullage.log.reader import LogReader
from ullage.log.sealed.openers import SealKey
from ullage.log.upkeep.forgetting import forget_records
from ullage.log.upkeep.rotation import rotate_log_key, rotate_seal_key

Log = Annotated[Path, typer.Argument(help="A log's folder.")]
Logs = Annotated[list[Path], typer.Argument(help="Folders of all logs of this tap.")]
Counters = Annotated[list[int] | None, typer.Argument(metavar="[N]...", help="Records.", min=0)]
Keys = Annotated[Path, typer.Option(help="The tap's keys.")]


def open_records(
    log: Log,
    counters: Counters = None,
    *,
    keys: Keys,
    out: Annotated[Path, typer.Option(help="New file for the keys of these records.")],
    everything: Annotated[bool, typer.Option("--all", help="All records that were not forgotten.")] = False,
) -> None:
    """Write the keys of some records, for one verifier: whoever has the file can read them and no others."""
    if everything == bool(counters):
        raise UsageError("Say which records: their numbers, or --all.")
    reader = LogReader.open(log, opener=SealKey(load_seal_key(keys)))
    opened = reader.record_keys(None if everything else set(counters or ()))
    opened.write(out)
    typer.echo(f"{len(opened.keys)} record keys: {out}")


def forget(
    log: Log,
    counters: Counters = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Really destroy them.")] = False,
) -> None:
    """Destroy the keys and payloads of records for good; the log verifies as before."""
    if not counters:
        raise UsageError("Say which records to forget, by their numbers.")
    if not yes:
        raise UsageError(f"This destroys {len(set(counters))} records for good; add --yes.")
    forget_records(log, set(counters))
    typer.echo(f"{len(set(counters))} records forgotten")


def rotate_key(logs: Logs, *, keys: Keys) -> None:
    """Hand the tap's logs over to a new signing key; whoever holds the old one can follow."""
    new = rotate_log_key(logs, keys)
    typer.echo(str(new.verifier))


def rotate_seal(logs: Logs, *, keys: Keys) -> None:
    """Wrap all record keys under a new seal key and destroy the old one."""
    typer.echo(f"{rotate_seal_key(logs, keys)} record keys wrapped anew")
