"""`ullage log note-verdict`: a verdict's digest goes into the log that it judges."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ullage.cli.log.source import Json
from ullage.errors import UsageError
from ullage.log.keys import load_tap_keys, load_verifier
from ullage.log.source import DirectorySource
from ullage.log.store import LogReader
from ullage.log.tree.prover import fetch_from
from ullage.log.tree.tile_tree import TileTree
from ullage.log.verdicts import digest_of, note_verdicts, read_envelope


def note_verdict(
    log: Annotated[Path, typer.Argument(help="A log's folder; its tap must not be running.")],
    verdicts: Annotated[
        list[Path], typer.Argument(metavar="FILE|BUNDLE...", help="Signed verdicts, or bundles of `audit`.")
    ],
    *,
    keys: Annotated[Path, typer.Option(help="The tap's keys.")],
    verdict_key: Annotated[Path, typer.Option(help="The verifier's public key (verdict.pub).")],
    as_json: Json = False,
) -> None:
    """Note verdicts in the log that they judge, by their digests: a later one cannot make them vanish.

    A verdict that is there already is not noted twice. `ullage log verify --verdict FILE` asks whether a
    verdict is noted.
    """
    from ullage.audit.bundle.envelope import Statement, unseal

    tap, verifier = load_tap_keys(keys), load_verifier(verdict_key)
    reader = LogReader.open(log, tap.log.verifier)
    envelopes = [read_envelope(path) for path in verdicts]
    statements: list[Statement] = [unseal(envelope, verifier) for envelope in envelopes]
    for path, statement in zip(verdicts, statements, strict=True):
        if statement.predicate.declaration.log_id != reader.header.log_id:
            raise UsageError(f"{path} judges another log: {statement.predicate.declaration.log_id}.")
        roots = [one.digest["sha256"] for one in statement.subject if one.name == "log"]
        if not _was_signed(reader, statement.predicate.sample.tree_size, roots):
            sys.stderr.write(f"{path} judges a state that this log never had; it is noted all the same.\n")
    noted = note_verdicts(log, tap, [digest_of(envelope) for envelope in envelopes])
    if as_json:
        documents = [
            {"entry": one.entry, "digest": one.digest, "new": one.new, "verdict": statement.predicate.verdict}
            for one, statement in zip(noted, statements, strict=True)
        ]
        typer.echo(json.dumps(documents, indent=1))
        return
    for one, statement in zip(noted, statements, strict=True):
        how = "noted in" if one.new else "was noted before, in"
        typer.echo(f"{statement.predicate.verdict}: {one.digest} {how} entry {one.entry}")


def _was_signed(reader: LogReader, size: int, roots: list[str]) -> bool:
    """Whether the log's first `size` entries have that root."""
    if not 0 < size <= reader.checkpoint.size:
        return False
    tree = TileTree(reader.checkpoint.size, fetch_from(DirectorySource(reader.directory)))
    return roots == [tree.root(size).hex()]
