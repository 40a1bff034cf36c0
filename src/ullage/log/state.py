"""The rules that the parts of a log keep among each other, in one place.

The writer refuses parts that break them, recovery and verification report them. Counters are checked in
the order of the log: an `open` has the next counter, so that there is never a gap, not even after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ullage.log.record import ChunkPart, ClosePart, HeaderPart, OpenPart, Part


class Rule(StrEnum):
    """What a part can break. The values are codes of findings (`docs/formats/log.md`)."""

    HEADER_MISSING = "header-missing"
    HEADER_REPEATED = "header-repeated"
    COUNTER_GAP = "counter-gap"
    COUNTER_REPEATED = "counter-repeated"
    PART_WITHOUT_OPEN = "part-without-open"
    PART_AFTER_CLOSE = "part-after-close"
    CHUNK_UNEXPECTED = "chunk-unexpected"
    CHUNK_ORDER = "chunk-order"
    OUTPUT_MISMATCH = "output-mismatch"
    BYTES_MISMATCH = "bytes-mismatch"


@dataclass(frozen=True)
class Breach:
    """One broken rule, in a sentence."""

    rule: Rule
    sentence: str


@dataclass
class OpenRecord:
    """What must be remembered of a record between its open and its close."""

    stream: bool
    chunks: int = 0
    output_ids: list[int] = field(default_factory=list)
    bytes_announced: int = 0


@dataclass
class LogState:
    """The state of a log after its entries so far; memory grows with records in flight only."""

    header: HeaderPart | None = None
    entries: int = 0
    next_counter: int = 0
    closed: int = 0
    aborted: int = 0
    in_flight: dict[int, OpenRecord] = field(default_factory=dict)

    def check(self, part: Part) -> list[Breach]:
        """The rules that `part` would break as the next entry; the state stays as it is."""
        if isinstance(part, HeaderPart):
            if self.entries:
                return [Breach(Rule.HEADER_REPEATED, "a header stands where only the first entry may be one")]
            return []
        if self.entries == 0:
            return [Breach(Rule.HEADER_MISSING, "the first entry is not a header"), *self._check(part)]
        return self._check(part)

    def accept(self, part: Part) -> None:
        """Take `part` as the next entry. After a breach the state continues as well as it can."""
        self.entries += 1
        if isinstance(part, HeaderPart):
            self.header = self.header or part
        elif isinstance(part, OpenPart):
            self.next_counter = max(self.next_counter, part.counter + 1)
            self.in_flight[part.counter] = OpenRecord(part.stream)
        elif isinstance(part, ChunkPart):
            record = self.in_flight.get(part.counter)
            if record is not None:
                record.chunks = part.index + 1
                record.output_ids.extend(part.output_ids)
                record.bytes_announced += part.bytes
        elif self.in_flight.pop(part.counter, None) is not None:
            self.closed += 1
            self.aborted += part.outcome == "aborted"

    def _check(self, part: OpenPart | ChunkPart | ClosePart) -> list[Breach]:
        if isinstance(part, OpenPart):
            return self._check_open(part)
        record = self.in_flight.get(part.counter)
        if record is not None:
            return _check_chunk(part, record) if isinstance(part, ChunkPart) else _check_close(part, record)
        if part.counter < self.next_counter:
            return [Breach(Rule.PART_AFTER_CLOSE, f"record {part.counter} was closed before")]
        return [Breach(Rule.PART_WITHOUT_OPEN, f"record {part.counter} was never opened")]

    def _check_open(self, part: OpenPart) -> list[Breach]:
        if part.counter < self.next_counter:
            return [Breach(Rule.COUNTER_REPEATED, f"counter {part.counter} is used a second time")]
        breaches = []
        if part.counter > self.next_counter:
            missing = f"counter {part.counter} follows where {self.next_counter} should be"
            breaches.append(Breach(Rule.COUNTER_GAP, missing))
        return breaches


def _check_chunk(part: ChunkPart, record: OpenRecord) -> list[Breach]:
    if not record.stream:
        return [Breach(Rule.CHUNK_UNEXPECTED, f"record {part.counter} is no stream and has a chunk")]
    if part.index != record.chunks:
        sentence = f"record {part.counter} has chunk {part.index} where {record.chunks} should be"
        return [Breach(Rule.CHUNK_ORDER, sentence)]
    return []


def _check_close(part: ClosePart, record: OpenRecord) -> list[Breach]:
    breaches = []
    if record.stream and tuple(record.output_ids) != part.output_ids:
        sentence = f"the output of record {part.counter} is not what its chunks add up to"
        breaches.append(Breach(Rule.OUTPUT_MISMATCH, sentence))
    released = part.bytes_to_client
    if part.outcome == "complete" and released is not None and released < record.bytes_announced:
        sentence = f"record {part.counter} is complete with fewer bytes than its chunks announced"
        breaches.append(Breach(Rule.BYTES_MISMATCH, sentence))
    return breaches
