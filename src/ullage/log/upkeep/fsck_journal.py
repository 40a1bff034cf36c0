"""The journal, segment by segment: heads, frames, seals, and what lies behind damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ullage.errors import MalformedError
from ullage.log.entries import OpenEntry, RecordEntry, parse_entry
from ullage.log.journal.segments import (
    SEALED_FOLDER,
    End,
    Frame,
    SegmentReader,
    list_segments,
    open_segment,
    segment_path,
    written_later,
)
from ullage.log.state import LogState
from ullage.log.upkeep.trouble import Grade, Trouble

_MAX_NAMED = 50


def check_journal(folder: Path, signed: int, *, in_use: bool) -> tuple[list[Trouble], int]:
    """What is wrong with the journal of a log with so many signed entries, and how many entries it has."""
    check = _Journal(folder, signed, in_use)
    check.run()
    return check.troubles, check.entries


def whole_frames(folder: Path) -> Iterator[Frame]:
    """Every frame that can be read, in order, whatever is damaged between. Raises UsageError."""
    for first in list_segments(folder):
        with open_segment(folder, first) as file:
            try:
                reader = SegmentReader(file)
            except MalformedError:
                continue
            if reader.head.first_index == first:
                yield from reader


@dataclass
class _Journal:
    folder: Path
    signed: int
    in_use: bool
    troubles: list[Trouble] = field(default_factory=list)
    entries: int = 0
    _forgotten: set[int] = field(default_factory=set)
    _state: LogState | None = field(default_factory=LogState)  # None: unknown, behind damage
    _named: int = 0

    def run(self) -> None:
        firsts = list_segments(self.folder)
        if not firsts:
            self._add("journal-missing", Grade.DAMAGE, None, "The journal has no segments.")
            return
        if firsts[0]:
            sentence = f"The entries 0 to {firsts[0] - 1} are in no segment."
            self._add("segment-missing", Grade.DAMAGE, firsts[0], sentence)
            self._state = None
        expected = firsts[0]
        for number, first in enumerate(firsts):
            if first > expected:
                sentence = f"The entries {expected} to {first - 1} cannot be read from the journal."
                self._add("entries-lost", Grade.DAMAGE, first, sentence)
                self._state = None
            expected = self._segment(first, last=number == len(firsts) - 1)
        if self.entries < self.signed <= expected:
            return
        if expected < self.signed:
            sentence = f"The journal ends at entry {expected}; {self.signed} were signed."
            self._add("entries-lost", Grade.DAMAGE, firsts[-1], sentence)
        elif expected > self.signed and not self.in_use:
            sentence = (
                f"{expected - self.signed} entries after the checkpoint are durable and not signed yet; "
                "the tap signs them when it starts."
            )
            self._add("not-covered", Grade.NOTE, firsts[-1], sentence)

    def _segment(self, first: int, *, last: bool) -> int:
        """Check one segment; returns the index after its last whole frame."""
        with open_segment(self.folder, first) as file:
            try:
                reader = SegmentReader(file)
            except MalformedError:
                self._add(
                    "head-damaged", Grade.DAMAGE, first, "The head is damaged: no frame can be trusted."
                )
                return first
            if reader.head.first_index != first:
                self._add("head-damaged", Grade.DAMAGE, first, "The head is that of another segment.")
                return first
            if self._state is not None:
                self._compare(first, reader)
            for frame in reader:
                self._frame(first, frame)
            if reader.end is End.BROKEN:
                durable = not last or written_later(file, reader.end_offset, reader.next_index)
                self._broken(first, reader, durable=durable or reader.next_index < self.signed)
            return reader.next_index

    def _frame(self, first: int, frame: Frame) -> None:
        self.entries += 1
        try:
            entry = parse_entry(frame.entry)
        except MalformedError as error:
            self._add_named("entry-malformed", first, f"Entry {frame.index} is malformed: {error}")
            self._state = None
            return
        if self._state is not None:
            if breach := self._state.check(entry):
                self._add_named("rule-broken", first, f"Entry {frame.index}: {breach.sentence}.")
            self._state.accept(entry)
        if isinstance(entry, OpenEntry) and frame.forgotten:
            self._forgotten.add(entry.counter)
        if not frame.seal_is_whole() and isinstance(entry, RecordEntry):
            if entry.counter in self._forgotten:
                return
            sentence = (
                f"What is sealed at entry {frame.index} was altered: record {entry.counter} cannot be opened "
                "any more. The log verifies as before; a copy of the segment from a backup has it."
            )
            self._add_named("seal-damaged", first, sentence)

    def _compare(self, first: int, reader: SegmentReader) -> None:
        state, head = self._state, reader.head
        if state is None or state.header is None:
            return
        found = (head.header, head.next_counter, head.closed, head.aborted, head.in_flight)
        true = (state.header, state.next_counter, state.closed, state.aborted, len(state.in_flight))
        if found != true:
            sentence = "The head does not say what the segments before it add up to."
            self._add("head-mismatch", Grade.DAMAGE, first, sentence)

    def _broken(self, first: int, reader: SegmentReader, *, durable: bool) -> None:
        where = f"byte {reader.end_offset}, entry {reader.next_index}"
        if durable:
            sentence = (
                f"A frame is damaged ({where}) that had been durable; what follows in this segment cannot be "
                "read. A tap refuses such a log. Put the segment back from a backup."
            )
            self._add("frame-damaged", Grade.DAMAGE, first, sentence)
        elif not self.in_use:
            sentence = (
                f"The last batch was never finished ({where}), as a crash leaves it; nothing in it was "
                "acknowledged. The tap cuts it off when it starts, and keeps the bytes."
            )
            self._add("torn", Grade.NOTE, first, sentence)

    def _add_named(self, code: str, first: int, sentence: str) -> None:
        self._named += 1
        if self._named <= _MAX_NAMED:
            self._add(code, Grade.DAMAGE, first, sentence)
        elif self._named == _MAX_NAMED + 1:
            self._add("more", Grade.DAMAGE, None, "Further damage to single entries is left out.")

    def _add(self, code: str, grade: Grade, first: int | None, sentence: str) -> None:
        name = SEALED_FOLDER if first is None else f"{SEALED_FOLDER}/{segment_path(self.folder, first).name}"
        self.troubles.append(Trouble(code, grade, name, sentence))
