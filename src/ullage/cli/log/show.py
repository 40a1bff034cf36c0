"""`ullage log show`: print what a tap recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ullage.errors import UsageError
from ullage.log.entries import CloseEntry, OpenEntry
from ullage.log.opened import SealedRecord
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.terminal import plain_line

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def show(
    directory: Annotated[Path, typer.Argument(help="A log's folder.")],
    counter: Annotated[
        int | None, typer.Argument(metavar="[N]", help="One record; all, a line each, without.")
    ] = None,
    *,
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens the records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print records: what is public, or all with keys. Nothing is verified; `ullage log verify` does that."""
    reader = LogReader.open(directory, opener=load_opener(None, record_keys))
    if reader.opener is None:
        shown = _public(reader)
    else:
        only = None if counter is None else frozenset([counter])
        found = reader.all_records(include_uncovered=True, only=only)
        shown = ((record.counter, _document(record), _line(record)) for record in found)
    if counter is not None:
        for number, document, _ in shown:
            if number == counter:
                typer.echo(json.dumps(document, indent=None if as_json else 1))
                return
        raise UsageError(f"{directory} has no record {counter}.")
    if not as_json:
        header = reader.header
        typer.echo(plain_line(f"{header.log_id}  {header.profile}  {header.dtype}  {header.model_digest}"))
    for _, document, line in shown:
        typer.echo(json.dumps(document) if as_json else plain_line(line))


def _public(reader: LogReader) -> Iterator[tuple[int, dict[str, object], str]]:
    """Counter, JSON and a line for each record, from the public entries alone."""
    open_entries: dict[int, OpenEntry] = {}
    for entry in reader.entries(include_uncovered=True):
        if isinstance(entry, OpenEntry):
            open_entries[entry.counter] = entry
        elif isinstance(entry, CloseEntry) and entry.counter in open_entries:
            yield _public_record(open_entries.pop(entry.counter), entry)
    for counter in sorted(open_entries):
        yield _public_record(open_entries[counter], None)


def _public_record(opened: OpenEntry, closed: CloseEntry | None) -> tuple[int, dict[str, object], str]:
    document: dict[str, object] = {
        "counter": str(opened.counter),
        "prompt_tokens": opened.prompt_tokens,
        "stream": opened.stream,
        "time_received": opened.time_received,
        "outcome": closed.outcome if closed else None,
        "output_tokens": closed.output_tokens if closed else None,
        "time_closed": closed.time_closed if closed else None,
    }
    outcome, output = (closed.outcome, closed.output_tokens) if closed else ("open", 0)
    line = f"{opened.counter:>8}  {outcome:<15}  prompt {opened.prompt_tokens:>6}  output {output:>6}"
    return opened.counter, document, line


def _line(record: Record | SealedRecord) -> str:
    if isinstance(record, SealedRecord):
        return f"{record.counter:>8}  ({record.reason.value})"
    outcome = record.close.outcome if record.close else "open"
    finish = (record.close.finish_reason if record.close else None) or "-"
    lengths = f"prompt {len(record.open.prompt_ids):>6}  output {len(record.output_ids):>6}"
    return (
        f"{record.counter:>8}  {record.open.endpoint:<11}  {outcome:<15}  {finish:<8}  "
        f"{lengths}  seed {record.open.seed}"
    )


def _document(record: Record | SealedRecord) -> dict[str, object]:
    if isinstance(record, SealedRecord):
        return {"counter": str(record.counter), "sealed": record.reason.value}
    return {
        "open": record.open.model_dump(mode="json"),
        "chunks": [chunk.model_dump(mode="json") for chunk in record.chunks],
        "close": record.close.model_dump(mode="json") if record.close else None,
    }
