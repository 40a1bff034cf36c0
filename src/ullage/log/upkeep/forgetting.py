"""Forgetting records: their keys are overwritten where they lie, then what the keys would have opened."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import UsageError
from ullage.log.entries import CloseEntry, OpenEntry, RecordEntry, parse_entry
from ullage.log.files import read_limited, storage_fault, write_all_at
from ullage.log.journal.publisher import CHECKPOINT
from ullage.log.journal.segments import (
    SEALED_FOLDER,
    Frame,
    SegmentReader,
    list_segments,
    open_segment,
    segment_path,
)
from ullage.log.notes.checkpoint import parse_checkpoint
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, parse_note


@dataclass(frozen=True)
class _Place:
    """Bytes of a segment."""

    path: Path
    offset: int
    length: int


def forget_records(directory: Path, counters: Collection[int]) -> None:
    """Destroy the keys and the payloads of records that a checkpoint covers; forgetting again does no harm.

    A writer may be at work meanwhile. Raises UsageError for a record that is not there or not closed under
    the checkpoint, before anything is destroyed; FaultError when the disk fails.
    """
    wanted = frozenset(counters)
    folder = directory / SEALED_FOLDER
    size = _signed_size(directory)
    keys: list[_Place] = []
    payloads: list[_Place] = []
    opened, closed = set(), set()
    for path, frame in _frames(folder):
        entry = parse_entry(frame.entry)
        if not isinstance(entry, RecordEntry) or entry.counter not in wanted or frame.index >= size:
            continue
        payload_offset = frame.key_offset + len(frame.wrapped_key)
        payloads.append(_Place(path, payload_offset, len(frame.payload)))
        if isinstance(entry, OpenEntry):
            opened.add(entry.counter)
            keys.append(_Place(path, frame.key_offset, len(frame.wrapped_key)))
        elif isinstance(entry, CloseEntry):
            closed.add(entry.counter)
    if missing := sorted(wanted - (opened & closed)):
        raise UsageError(
            f"Record {missing[0]} has no close in the journal that the checkpoint covers, so it cannot be "
            "forgotten yet. Nothing was changed."
        )
    try:
        _overwrite(keys)
        _overwrite(payloads)
        for torn in folder.glob("torn-*"):
            torn.unlink()
    except OSError as error:
        raise storage_fault(directory, error) from error


def _frames(folder: Path) -> Iterator[tuple[Path, Frame]]:
    for first in list_segments(folder):
        with open_segment(folder, first) as file:
            for frame in SegmentReader(file):
                yield segment_path(folder, first), frame


def _signed_size(directory: Path) -> int:
    note = read_limited(directory / CHECKPOINT, MAX_NOTE_BYTES)
    return parse_checkpoint(parse_note(note)[0]).size


def _overwrite(places: list[_Place]) -> None:
    """Zeros in every place, durable on return. Raises OSError."""
    for path in {place.path: None for place in places}:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for place in places:
                if place.path == path:
                    write_all_at(descriptor, bytes(place.length), place.offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
