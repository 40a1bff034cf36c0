"""The public part of a log as tables, for analysts who have none of our code (`docs/formats/export.md`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from ullage.errors import FaultError, IntegrityError, UsageError
from ullage.log.entries import (
    ChunkEntry,
    CloseEntry,
    Entry,
    KeyEntry,
    OpenEntry,
    VerdictEntry,
    parse_entry,
)
from ullage.log.findings import LogFindings
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES
from ullage.log.source import LogSource, read_ahead
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import bundles_of, decode_bundle
from ullage.log.verify import CHECKPOINT, verify_log
from ullage.merkle import leaf_hash

LOG_FILE = "log.json"
_ROWS_AT_ONCE = 1 << 16


class Row(TypedDict):
    """One record. Fields are explained in `docs/formats/export.md`."""

    counter: int
    stream: bool
    outcome: str | None
    prompt_tokens: int
    output_tokens: int | None
    chunks: int
    time_received: int
    time_closed: int | None
    open_index: int
    close_index: int | None
    open_commitment: str
    close_commitment: str | None


@dataclass(frozen=True)
class Exported:
    """What was written, and where."""

    path: Path
    records: int
    size: int


def export_log(
    source: LogSource, policy: Policy, directory: Path, form: Literal["parquet", "json"]
) -> Exported:
    """Write `log.json` and `records.parquet` or `records.jsonl` to a new folder.

    Raises IntegrityError for a log that does not verify, UsageError, FaultError.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already and not empty; give --out a new folder.")
    note = source.read(CHECKPOINT, MAX_NOTE_BYTES)
    findings = verify_log(source, policy)
    checkpoint = findings.checkpoint
    if not findings.integrity or checkpoint is None or note is None:
        first = findings.findings[0].sentence if findings.findings else ""
        raise IntegrityError(f"The log does not verify, so it is not exported: {first}")
    table = _Table(source, checkpoint)
    path = directory / ("records.parquet" if form == "parquet" else "records.jsonl")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        count = _write_parquet(path, table) if form == "parquet" else _write_json(path, table)
        document = _document(checkpoint, note, findings, table)
        (directory / LOG_FILE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise FaultError(f"The tables cannot be written to {directory}: {error.strerror}.") from error
    return Exported(path, count, checkpoint.size)


@dataclass
class _Table:
    """The rows in one pass over the entries; memory grows with the records in flight."""

    source: LogSource
    checkpoint: Checkpoint
    keys: list[dict[str, object]] = field(default_factory=list)
    verdicts: list[dict[str, object]] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Records in the order of their closes, then those without one. Raises IntegrityError."""
        in_flight: dict[int, Row] = {}
        for index, entry in self._entries():
            if isinstance(entry, OpenEntry):
                in_flight[entry.counter] = _begun(index, entry)
            elif isinstance(entry, ChunkEntry):
                in_flight[entry.counter]["chunks"] += 1
            elif isinstance(entry, CloseEntry):
                yield _ended(in_flight.pop(entry.counter), index, entry)
            elif isinstance(entry, KeyEntry):
                self.keys.append({"index": index, "old_key": entry.old_key, "new_key": entry.new_key})
            elif isinstance(entry, VerdictEntry):
                self.verdicts.append({"index": index, "digest": entry.digest})
        yield from in_flight.values()

    def _entries(self) -> Iterator[tuple[int, Entry]]:
        edge, bundles = TreeEdge(), list(bundles_of(self.checkpoint.size))
        for bundle, data in zip(bundles, read_ahead(self.source, bundles), strict=True):
            if not isinstance(data, bytes):
                raise _changed()
            entries = decode_bundle(data, bundle.width)
            start = edge.size
            edge.append(b"".join(map(leaf_hash, entries)))
            yield from ((index, parse_entry(entry)) for index, entry in enumerate(entries, start))
        if edge.root() != self.checkpoint.root:
            raise _changed()


def _changed() -> IntegrityError:
    return IntegrityError("The log showed other entries than those that were verified just before.")


def _begun(index: int, entry: OpenEntry) -> Row:
    return Row(
        counter=entry.counter,
        stream=entry.stream,
        outcome=None,
        prompt_tokens=entry.prompt_tokens,
        output_tokens=None,
        chunks=0,
        time_received=entry.time_received,
        time_closed=None,
        open_index=index,
        close_index=None,
        open_commitment=entry.commitment,
        close_commitment=None,
    )


def _ended(row: Row, index: int, entry: CloseEntry) -> Row:
    row["outcome"], row["output_tokens"] = entry.outcome, entry.output_tokens
    row["time_closed"], row["close_index"] = entry.time_closed, index
    row["close_commitment"] = entry.commitment
    return row


def _document(checkpoint: Checkpoint, note: bytes, findings: LogFindings, table: _Table) -> dict[str, object]:
    return {
        "version": 1,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "checkpoint": note.decode(),
        "header": findings.header.model_dump(mode="json") if findings.header else None,
        "verdict": findings.verdict,
        "findings": [
            {"code": one.code, "severity": one.severity.value, "sentence": one.sentence}
            for one in findings.findings
        ],
        "records": findings.opened,
        "closed": findings.closed,
        "aborted": findings.aborted,
        "keys": table.keys,
        "verdicts": table.verdicts,
    }


def _write_json(path: Path, table: _Table) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in table.rows():
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, table: _Table) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow (`pip install 'ullage[audit]'`); --format json does not."
        ) from error
    seconds = pa.timestamp("s", tz="UTC")
    schema: Any = pa.schema(
        [
            pa.field("counter", pa.uint64(), nullable=False),
            pa.field("stream", pa.bool_(), nullable=False),
            pa.field("outcome", pa.string()),
            pa.field("prompt_tokens", pa.uint64(), nullable=False),
            pa.field("output_tokens", pa.uint64()),
            pa.field("chunks", pa.uint64(), nullable=False),
            pa.field("time_received", seconds, nullable=False),
            pa.field("time_closed", seconds),
            pa.field("open_index", pa.uint64(), nullable=False),
            pa.field("close_index", pa.uint64()),
            pa.field("open_commitment", pa.string(), nullable=False),
            pa.field("close_commitment", pa.string()),
        ]
    )
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _groups(table.rows()):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == _ROWS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group
