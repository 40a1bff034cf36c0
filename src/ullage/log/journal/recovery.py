"""What a writer does with a log that it finds on disk: check it, cut what was never finished.

An entry is acknowledged only after it is durable, and nothing is released before its acknowledgement; so a
torn tail was never released. Nothing is changed on disk before everything has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.entries import ChunkEntry, CloseEntry, Entry, KeyEntry, OpenEntry, RecordEntry, parse_entry
from ullage.log.files import read_limited
from ullage.log.journal.append import Journal, cut_segment, write_again
from ullage.log.journal.preparer import InFlight
from ullage.log.journal.publisher import CHECKPOINT, Publisher
from ullage.log.journal.segments import (
    SEALED_FOLDER,
    End,
    Frame,
    SegmentHead,
    SegmentReader,
    list_segments,
    open_segment,
    segment_path,
    written_later,
)
from ullage.log.keys import TapKeys
from ullage.log.notes.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, NoteVerifier, parse_note
from ullage.log.opened import Output, find_seal, open_parts
from ullage.log.record import ChunkPart, ClosePart, HeaderPart
from ullage.log.sealed.openers import SealKey
from ullage.log.sealed.sealing import RecordSeal, seal_commitment, seed_commitment
from ullage.log.source import DirectorySource, read_tile
from ullage.log.state import LogState
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import TILE_WIDTH, tile_at
from ullage.merkle import leaf_hash


@dataclass(frozen=True)
class Recovery:
    """What opening the log had to mend. `aborted` are counters; `cut_file` keeps the cut bytes."""

    aborted: tuple[int, ...] = ()
    cut_bytes: int = 0
    cut_file: Path | None = None


@dataclass(frozen=True)
class Recovered:
    """A log as it was found, ready to go on; `cut_bytes` were torn, and are kept in `cut_file`."""

    state: LogState
    in_flight: dict[int, InFlight]
    publisher: Publisher
    journal: Journal
    checkpoint: Checkpoint | None
    cut_bytes: int = 0
    cut_file: Path | None = None


def holds_log(directory: Path) -> bool:
    """Whether there is a log in the folder, or the beginning of one."""
    return (directory / CHECKPOINT).exists() or bool((directory / SEALED_FOLDER).is_dir())


def recover(directory: Path, keys: TapKeys) -> Recovered:
    """Check the log in `directory`, which the caller has locked, and cut a torn tail.

    Raises UsageError when there is none or the key is another one, IntegrityError when the journal
    contradicts itself or the last signed checkpoint, OSError when the disk fails.
    """
    note = _read_note(directory)
    # Its signature is checked when the journal has told which key should have signed.
    claimed = parse_checkpoint(parse_note(note)[0]) if note is not None else None
    replay = _Replay(directory, claimed.size if claimed else 0)
    replay.run()
    header = replay.state.header
    if header is None:
        raise UsageError(f"{directory} holds no log: its first entry was never finished. Delete the folder.")
    _check_checkpoint(directory, note, claimed, replay, keys)
    _check_secrets(directory, header, replay, keys)
    in_flight = {
        counter: _in_flight(header.log_id, parts, keys) for counter, parts in sorted(replay.parts.items())
    }
    cut_bytes, cut_file = replay.settle()
    journal = Journal(replay.folder, replay.last_segment, replay.end_offset, replay.state.entries)
    publisher = Publisher(replay.edge, replay.signed_size, replay.entries)
    return Recovered(replay.state, in_flight, publisher, journal, claimed, cut_bytes, cut_file)


def aborted_closes(in_flight: dict[int, InFlight], now: int) -> list[ClosePart]:
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
            output_ids=tuple(record.output.ids),
            released_digest=None,
            time_closed=now,
        )
        for counter, record in sorted(in_flight.items())
    ]


_Parts = list[tuple[int, RecordEntry, Frame]]


@dataclass
class _Replay:
    """Reads the journal from the last segment that begins before the checkpoint's unfinished bundle."""

    directory: Path
    signed_size: int
    state: LogState = field(default_factory=LogState)
    parts: dict[int, _Parts] = field(default_factory=dict)  # of records in flight
    edge: TreeEdge = field(default_factory=TreeEdge)  # up to the unfinished bundle
    entries: list[bytes] = field(default_factory=list)  # after the edge
    handover: KeyEntry | None = None  # the first one after the checkpoint
    end_offset: int = 0
    last_segment: int = 0
    seal_commitment: str = ""
    _batch: int | None = None  # where the last batch begins in the last segment, if no checkpoint covers it
    _broken: bool = False

    @property
    def folder(self) -> Path:
        return self.directory / SEALED_FOLDER

    def run(self) -> None:
        firsts = list_segments(self.folder)
        if not firsts:
            raise UsageError(f"{self.directory} holds no log that can be continued: it has no journal.")
        bundle = self.signed_size // TILE_WIDTH * TILE_WIDTH
        begin = max((first for first in firsts if first <= bundle), default=None)
        if begin is None:
            raise IntegrityError(f"{self.directory} lacks the segment with entry {bundle} of its journal.")
        with open_segment(self.folder, begin) as file:
            head = SegmentReader(file).head
        self._restore(head, [first for first in firsts if head.resume_from <= first < begin])
        for first in firsts[firsts.index(begin) :]:
            if self._broken or first != self.state.entries:
                raise self._damage("is damaged")
            self._read_segment(first)

    def settle(self) -> tuple[int, Path | None]:
        """Cut what is torn, and write the last batch to the disk once more. Raises OSError.

        Its sync may have failed; nothing would have followed it then. Every batch before it was synced.
        """
        path = segment_path(self.folder, self.last_segment)
        kept, file = 0, None
        if self._broken:
            file = self.folder / f"torn-{self.last_segment:020d}-{self.end_offset}"
            kept = cut_segment(path, self.end_offset, file)
        if self._batch is not None:
            write_again(path, self._batch, self.end_offset)
        return kept, file if kept else None

    def _restore(self, head: SegmentHead, earlier: Sequence[int]) -> None:
        """The state before a segment, and the parts of the records in flight there."""
        start = head.first_index
        if start:
            self.state = LogState(head.header, start, head.next_counter, head.closed, head.aborted, head.key)
            source = DirectorySource(self.directory)

            def fetch(level: int, index: int, width: int) -> bytes:
                found = read_tile(source, tile_at(level, index, self.signed_size))
                if found is None:
                    raise IntegrityError(f"{self.directory} lacks a tile that its checkpoint needs.")
                return found[: width * 32]

            self.edge = TreeEdge.load(start, fetch)
        for first in earlier:
            with open_segment(self.folder, first) as file:
                for frame in SegmentReader(file):
                    self._follow(frame, parse_entry(frame.entry))
        for counter, parts in self.parts.items():
            opened = parts[0][1]
            stream = isinstance(opened, OpenEntry) and opened.stream
            self.state.in_flight[counter] = len(parts) - 1 if stream else -1
        if len(self.parts) != head.in_flight:
            raise self._damage("does not hold the records that were in flight")

    def _read_segment(self, first: int) -> None:
        self.last_segment, self._batch = first, None
        signed, bundle = self.signed_size, self.signed_size // TILE_WIDTH * TILE_WIDTH
        with open_segment(self.folder, first) as file:
            reader = SegmentReader(file)
            self.seal_commitment = reader.head.seal_commitment
            self.end_offset = reader.end_offset
            pending: list[bytes] = []
            for frame in reader:
                if frame.index >= signed:
                    if not frame.seal_is_whole():
                        reader.end = End.BROKEN
                        break
                    if frame.place == 0 or self._batch is None:
                        self._batch = frame.offset
                self._take(frame)
                if frame.index < bundle:
                    pending.append(leaf_hash(frame.entry))
                else:
                    self.entries.append(frame.entry)
                self.end_offset = reader.end_offset
            self.edge.append(b"".join(pending))
            self._broken = reader.end is End.BROKEN
            if self._broken and written_later(file, self.end_offset, self.state.entries):
                raise self._damage("is damaged where it had been durable")

    def _take(self, frame: Frame) -> None:
        try:
            entry = parse_entry(frame.entry)
        except MalformedError as error:
            raise IntegrityError(
                f"Entry {frame.index} of {self.directory} is damaged ({error}); the log is left as it is."
            ) from error
        if breach := self.state.check(entry):
            raise IntegrityError(
                f"Entry {frame.index} of {self.directory} breaks the log: {breach.sentence}."
            )
        self.state.accept(entry)
        self._follow(frame, entry)

    def _follow(self, frame: Frame, entry: Entry) -> None:
        """Keep the parts of the records that have no close yet, and the first handover of the key."""
        if isinstance(entry, OpenEntry):
            self.parts[entry.counter] = [(frame.index, entry, frame)]
        elif isinstance(entry, CloseEntry):
            self.parts.pop(entry.counter, None)
        elif isinstance(entry, ChunkEntry):
            if (parts := self.parts.get(entry.counter)) is not None:
                parts.append((frame.index, entry, frame))
        elif isinstance(entry, KeyEntry) and frame.index >= self.signed_size and self.handover is None:
            self.handover = entry

    def _damage(self, what: str) -> IntegrityError:
        path = segment_path(self.folder, self.last_segment)
        return IntegrityError(
            f"{path} {what} (byte {self.end_offset}, entry {self.state.entries}); the log is left as it is."
        )


def _read_note(directory: Path) -> bytes | None:
    path = directory / CHECKPOINT
    return read_limited(path, MAX_NOTE_BYTES) if path.exists() else None


def _check_checkpoint(
    directory: Path, note: bytes | None, claimed: Checkpoint | None, replay: _Replay, keys: TapKeys
) -> None:
    """The checkpoint must be signed by the key of its time, and its root be that of the journal."""
    size = replay.state.entries
    ours = str(keys.log.verifier)
    if replay.state.key not in (None, ours):
        raise UsageError(
            f"The log in {directory} was handed over to the key {replay.state.key}; give that key."
        )
    if note is None or claimed is None:
        if size > 1:
            raise IntegrityError(f"{directory} has {size} entries and no checkpoint; somebody removed it.")
        return
    signer = NoteVerifier.parse(replay.handover.old_key) if replay.handover else keys.log.verifier
    try:
        open_checkpoint(note, signer)
    except IntegrityError as error:
        raise IntegrityError(
            f"The checkpoint of {directory} does not verify with this tap's key: {error}"
        ) from error
    if size < claimed.size:
        raise IntegrityError(
            f"{directory} has {size} entries, but {claimed.size} were signed; its end is missing."
        )
    edge = replay.edge.copy()
    signed = replay.entries[: claimed.size - edge.size]
    edge.append(b"".join([leaf_hash(entry) for entry in signed]))
    if edge.root() != claimed.root:
        raise IntegrityError(
            f"The first {claimed.size} entries of {directory} are not those that were signed."
        )
    if replay.state.header is not None and replay.state.header.log_id != claimed.origin:
        raise IntegrityError(f"The checkpoint of {directory} was signed for another log.")


def _check_secrets(directory: Path, header: HeaderPart, replay: _Replay, keys: TapKeys) -> None:
    if header.seed_commitment not in (None, seed_commitment(keys.seed)):
        raise UsageError(
            f"The log in {directory} commits to another seed.key; give that one, or begin a log."
        )
    if replay.seal_commitment != seal_commitment(keys.seal):
        raise UsageError(
            f"The records in {directory} are sealed with another seal.key; give that one. If a rotation was "
            "interrupted, `ullage log rotate-seal` ends it."
        )


def _in_flight(log_id: str, parts: _Parts, keys: TapKeys) -> InFlight:
    index, entry, frame = parts[0]
    seal = find_seal(log_id, entry.counter, frame.wrapped_key, SealKey(keys.seal))
    if not isinstance(seal, RecordSeal) or not isinstance(entry, OpenEntry):
        raise IntegrityError(f"The key of record {entry.counter}, which has no close, is not there.")
    output = Output(entry.stream)
    for _, part in open_parts(seal, [(index, entry, frame.payload) for index, entry, frame in parts]):
        if isinstance(part, ChunkPart):
            output.take(part)
    return InFlight(seal, index, output)
