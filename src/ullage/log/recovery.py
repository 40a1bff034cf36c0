"""What a writer does with a log that it finds on disk: check it, cut what was never finished.

An entry is acknowledged only after it is durable, and nothing is released before its acknowledgement; so a
torn tail was never released. The cut bytes are kept beside the log all the same, because a flipped bit in a
length can look like one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import IntegrityError, MalformedError
from ullage.log.checkpoint import Checkpoint, open_checkpoint
from ullage.log.files import (
    MAX_FRAME_BYTES,
    End,
    FrameReader,
    open_entries,
    read_limited,
    sync_directory,
    write_new,
)
from ullage.log.merkle import Frontier, leaf_hash
from ullage.log.record import ClosePart, parse_part
from ullage.log.signed_note import MAX_NOTE_BYTES, NoteVerifier
from ullage.log.state import LogState

ENTRIES, CHECKPOINT, PUBLIC_KEY = "entries", "checkpoint", "log.pub"


@dataclass(frozen=True)
class Recovered:
    """A log as it was found: its state, its tree, its last checkpoint, and what was cut off its end."""

    state: LogState
    frontier: Frontier
    checkpoint: Checkpoint | None = None
    cut_bytes: int = 0
    cut_file: Path | None = None


def recover(directory: Path, descriptor: int, verifier: NoteVerifier) -> Recovered:
    """Check the log in `directory`, whose entries are open (and locked) as `descriptor`, and cut a torn tail.

    Raises IntegrityError when the entries contradict each other or the last signed checkpoint. OSError when
    the disk fails.
    """
    checkpoint = _last_checkpoint(directory, verifier)
    # What an earlier process wrote and never synced must not be counted as durable.
    os.fsync(descriptor)
    state, frontier = LogState(), Frontier()
    root_at_checkpoint = frontier.root() if checkpoint and checkpoint.size == 0 else None
    with open_entries(directory / ENTRIES) as file:
        frames = FrameReader(file)
        for index, entry in enumerate(frames):
            try:
                part = parse_part(entry)
            except MalformedError as error:
                raise IntegrityError(
                    f"Entry {index} of {directory} is damaged ({error}); the log is left as it is. "
                    "`ullage log verify` says more."
                ) from error
            breaches = state.check(part)
            if breaches:
                raise IntegrityError(f"Entry {index} of {directory} breaks the log: {breaches[0].sentence}.")
            state.accept(part)
            frontier.append(leaf_hash(entry))
            if checkpoint and checkpoint.size == frontier.size:
                root_at_checkpoint = frontier.root()
    if frames.end is End.BROKEN:
        raise IntegrityError(
            f"After entry {frontier.size - 1} of {directory} stands a length that was never written; "
            "the log is left as it is."
        )
    _compare(directory, checkpoint, frontier.size, root_at_checkpoint)
    cut, cut_file = _cut(directory, descriptor, frames.end_offset)
    return Recovered(state, frontier, checkpoint, cut, cut_file)


def aborted_closes(state: LogState, now: int) -> list[ClosePart]:
    """The close of every record that was in flight when the writer ended; `now` in nanoseconds since 1970."""
    return [
        ClosePart(
            bytes_from_upstream=None,
            bytes_to_client=None,
            bytes_to_upstream=None,
            counter=counter,
            detail="the recorder ended before this record was closed",
            finish_reason=None,
            outcome="aborted",
            output_ids=tuple(record.output_ids),
            released_digest=None,
            time_closed=now,
        )
        for counter, record in sorted(state.in_flight.items())
    ]


def _last_checkpoint(directory: Path, verifier: NoteVerifier) -> Checkpoint | None:
    path = directory / CHECKPOINT
    if not path.exists():
        return None
    try:
        return open_checkpoint(read_limited(path, MAX_NOTE_BYTES), verifier)
    except IntegrityError as error:
        raise IntegrityError(
            f"The checkpoint of {directory} does not verify with this tap's key: {error}"
        ) from error


def _compare(directory: Path, checkpoint: Checkpoint | None, size: int, root: bytes | None) -> None:
    if checkpoint is None:
        if size > 1:
            raise IntegrityError(f"{directory} has {size} entries and no checkpoint; somebody removed it.")
    elif size < checkpoint.size:
        raise IntegrityError(
            f"{directory} has {size} entries, but {checkpoint.size} were signed; its end is missing."
        )
    elif root != checkpoint.root:
        raise IntegrityError(
            f"The first {checkpoint.size} entries of {directory} are not those that were signed."
        )


def _cut(directory: Path, descriptor: int, offset: int) -> tuple[int, Path | None]:
    size = os.fstat(descriptor).st_size
    if size == offset:
        return 0, None
    kept = directory / f"torn-{offset}"
    with (directory / ENTRIES).open("rb") as file:
        file.seek(offset)
        # No longer than one frame: a longer tail consists of zeros.
        tail = file.read(min(size - offset, MAX_FRAME_BYTES)).rstrip(b"\0")
    if tail and not kept.exists():
        write_new(kept, tail, 0o600)
        sync_directory(directory)
    os.ftruncate(descriptor, offset)
    os.fsync(descriptor)
    return size - offset, kept if tail else None
