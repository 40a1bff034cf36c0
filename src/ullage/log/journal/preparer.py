"""From parts to what the journal keeps: rules checked, commitments made, payloads sealed. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ullage.errors import UsageError
from ullage.log.entries import MAX_ENTRY_BYTES, Entry, KeyEntry, VerdictEntry, encode_entry, entry_of
from ullage.log.journal.segments import Prepared, SegmentHead
from ullage.log.opened import Output
from ullage.log.record import ChunkPart, ClosePart, OpenPart, Part, RecordPart
from ullage.log.sealed.sealing import MAX_PAYLOAD_BYTES, KeyWrap, RecordSeal, seal_commitment
from ullage.log.state import LogState

_T = TypeVar("_T")


@dataclass(slots=True)
class InFlight:
    """A record without a close: its seal, the index of its open, and what it has released."""

    seal: RecordSeal
    opened_at: int
    output: Output

    def copy(self) -> InFlight:
        return replace(self, output=replace(self.output, ids=self.output.ids.copy()))


class Preparer:
    """Takes parts in the order of the log. What it refuses leaves no trace. One user at a time."""

    def __init__(self, state: LogState, in_flight: dict[int, InFlight], log_id: str, seal_key: bytes) -> None:
        self.state = state
        self.in_flight = in_flight
        self._log_id = log_id
        self._wrap = KeyWrap(log_id, seal_key)
        self._seal_commitment = seal_commitment(seal_key)

    def prepare(self, parts: Sequence[Part | KeyEntry | VerdictEntry]) -> list[Prepared]:
        """All of the parts next to each other, or none. Raises UsageError for one that breaks a rule."""
        if len(parts) == 1:
            return [self._take(parts[0], self.state, self.in_flight)]
        counters = {part.counter for part in parts if isinstance(part, RecordPart)}
        state = replace(
            self.state,
            in_flight={one: self.state.in_flight[one] for one in counters if one in self.state.in_flight},
        )
        in_flight = {one: self.in_flight[one].copy() for one in counters if one in self.in_flight}
        prepared = [self._take(part, state, in_flight) for part in parts]
        _put_back(self.state.in_flight, state.in_flight, counters)
        _put_back(self.in_flight, in_flight, counters)
        self.state = replace(state, in_flight=self.state.in_flight)
        return prepared

    def head(self, resume_from: int) -> SegmentHead:
        """The head of a segment that begins after what was prepared so far."""
        state = self.state
        if state.header is None:
            raise UsageError("The log has no header yet.")
        return SegmentHead(
            aborted=state.aborted,
            closed=state.closed,
            first_index=state.entries,
            header=state.header,
            in_flight=len(self.in_flight),
            key=state.key,
            next_counter=state.next_counter,
            resume_from=resume_from,
            seal_commitment=self._seal_commitment,
        )

    def oldest_in_flight(self) -> int:
        """Index of the first open without a close; the next entry's if there is none."""
        return min((record.opened_at for record in self.in_flight.values()), default=self.state.entries)

    def _take(
        self, part: Part | KeyEntry | VerdictEntry, state: LogState, in_flight: dict[int, InFlight]
    ) -> Prepared:
        if breach := state.check(part):
            raise UsageError(f"The log refuses a part: {breach.sentence}.")
        if isinstance(part, RecordPart):
            prepared = self._seal(part, state, in_flight)
        else:
            prepared = Prepared(_encoded(part))
        state.accept(part)
        return prepared

    def _seal(self, part: RecordPart, state: LogState, in_flight: dict[int, InFlight]) -> Prepared:
        if isinstance(part, OpenPart):
            seal = RecordSeal.fresh(self._log_id, part.counter)
            prepared = _sealed(seal, 0, part, self._wrap.wrap(part.counter, seal.key))
            in_flight[part.counter] = InFlight(seal, state.entries, Output(part.stream))
            return prepared
        record = in_flight[part.counter]
        if isinstance(part, ClosePart) and (broken := record.output.check(part)):
            raise UsageError(f"The log refuses a part: {broken}")
        prepared = _sealed(record.seal, state.part_number(part), part)
        if isinstance(part, ChunkPart):
            record.output.take(part)
        else:
            del in_flight[part.counter]
        return prepared


def _sealed(seal: RecordSeal, number: int, part: RecordPart, wrapped_key: bytes = b"") -> Prepared:
    sealed = seal.seal(number, part, wrapped_key)
    if len(sealed.payload) > MAX_PAYLOAD_BYTES:
        raise UsageError(f"A part of a record has at most {MAX_PAYLOAD_BYTES} bytes.")
    return Prepared(_encoded(entry_of(part, sealed.commitment)), wrapped_key, sealed.payload)


def _encoded(entry: Entry) -> bytes:
    data = encode_entry(entry)
    if len(data) > MAX_ENTRY_BYTES:
        raise UsageError(f"An entry of the log has at most {MAX_ENTRY_BYTES} bytes.")
    return data


def _put_back(mine: dict[int, _T], theirs: dict[int, _T], counters: set[int]) -> None:
    for counter in counters:
        if counter in theirs:
            mine[counter] = theirs[counter]
        else:
            mine.pop(counter, None)
