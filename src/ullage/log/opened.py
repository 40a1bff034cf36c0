"""Opened records: parts decrypted, checked against the log, put together. The codes are in `sealed.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ullage.errors import IntegrityError, MalformedError
from ullage.log.entries import ChunkEntry, OpenEntry, RecordEntry, entry_of
from ullage.log.journal.segments import Frame
from ullage.log.record import ChunkPart, ClosePart, OpenPart, Record, RecordPart
from ullage.log.sealed.openers import Opener
from ullage.log.sealed.sealing import FORGOTTEN, CommitmentError, RecordSeal, SealBrokenError


class SealedReason(StrEnum):
    """Why a record cannot be read. The values are codes of findings."""

    UNOPENED = "record-unopened"
    FORGOTTEN = "record-forgotten"
    MISSING = "payload-missing"


class PayloadRule(StrEnum):
    """What an opened part can break. The values are codes of findings."""

    SEAL_BROKEN = "seal-broken"
    COMMITMENT_MISMATCH = "commitment-mismatch"
    PAYLOAD_MALFORMED = "payload-malformed"
    PAYLOAD_MISMATCH = "payload-mismatch"
    OUTPUT_MISMATCH = "output-mismatch"
    BYTES_MISMATCH = "bytes-mismatch"


class OpenedError(IntegrityError):
    """An opened record contradicts itself or the log."""

    def __init__(self, rule: PayloadRule, sentence: str, index: int | None = None) -> None:
        super().__init__(sentence)
        self.rule = rule
        self.index = index


@dataclass(frozen=True)
class SealedRecord:
    """A record that cannot be read here, and why."""

    counter: int
    reason: SealedReason


@dataclass(slots=True)
class Output:
    """What the chunks of a record have released so far, to be held against its close."""

    stream: bool
    ids: list[int] = field(default_factory=list)
    bytes_announced: int = 0

    def take(self, chunk: ChunkPart) -> None:
        self.ids.extend(chunk.output_ids)
        self.bytes_announced += chunk.bytes

    def check(self, close: ClosePart) -> OpenedError | None:
        """What the close contradicts, if anything."""
        if self.stream and tuple(self.ids) != close.output_ids:
            sentence = f"The output of record {close.counter} is not what its chunks add up to."
            return OpenedError(PayloadRule.OUTPUT_MISMATCH, sentence)
        released = close.bytes_to_client
        if close.outcome == "complete" and released is not None and released < self.bytes_announced:
            sentence = f"Record {close.counter} is complete with fewer bytes than its chunks announced."
            return OpenedError(PayloadRule.BYTES_MISMATCH, sentence)
        return None


@dataclass
class SealedParts:
    """The parts of one record as they were read, in order, not yet opened."""

    parts: list[tuple[int, RecordEntry, Frame | None]] = field(default_factory=list)

    def open(self, log_id: str, opener: Opener) -> Record | SealedRecord:
        """The record, every part of it checked. Raises OpenedError."""
        _, first, frame = self.parts[0]
        if any(frame is None for _, _, frame in self.parts) or frame is None:
            return SealedRecord(first.counter, SealedReason.MISSING)
        seal = find_seal(log_id, first.counter, frame.wrapped_key, opener)
        if not isinstance(seal, RecordSeal):
            return SealedRecord(first.counter, seal)
        for index, _, one in self.parts:
            if one is not None and not one.seal_is_whole():
                sentence = f"The journal is damaged at entry {index}: what is sealed there was altered."
                raise OpenedError(PayloadRule.SEAL_BROKEN, sentence, index)
        opened = open_parts(seal, [(index, entry, part.payload) for index, entry, part in self.parts if part])
        record: Record | None = None
        for index, part in opened:
            if isinstance(part, OpenPart):
                record = Record(part)
                output = Output(part.stream)
            elif record is not None and isinstance(part, ChunkPart):
                record.chunks.append(part)
                output.take(part)
            elif record is not None and isinstance(part, ClosePart):
                record.close, record.close_index = part, index
                if broken := output.check(part):
                    broken.index = index
                    raise broken
        if record is None:
            raise OpenedError(
                PayloadRule.PAYLOAD_MISMATCH, f"Record {first.counter} does not begin with an open."
            )
        return record


def find_seal(log_id: str, counter: int, wrapped: bytes, opener: Opener) -> RecordSeal | SealedReason:
    """The seal of a record, or why there is none. Raises OpenedError."""
    if wrapped == FORGOTTEN:
        return SealedReason.FORGOTTEN
    try:
        key = opener.key_of(log_id, counter, wrapped)
    except (SealBrokenError, MalformedError) as error:
        raise OpenedError(PayloadRule.SEAL_BROKEN, str(error)) from error
    return SealedReason.UNOPENED if key is None else RecordSeal(log_id, counter, key)


def open_parts(
    seal: RecordSeal, sealed: Sequence[tuple[int, RecordEntry, bytes]], first: int = 0
) -> list[tuple[int, RecordPart]]:
    """Open (index, entry, payload) of parts of one record in order, the first of them its part `first`.

    Raises OpenedError.
    """
    parts: list[tuple[int, RecordPart]] = []
    for number, (index, entry, payload) in enumerate(sealed, first):
        kind = (
            "open" if isinstance(entry, OpenEntry) else "chunk" if isinstance(entry, ChunkEntry) else "close"
        )
        try:
            part = seal.open(number, kind, entry.commitment, payload)
        except SealBrokenError as error:
            raise OpenedError(PayloadRule.SEAL_BROKEN, str(error), index) from error
        except CommitmentError as error:
            raise OpenedError(PayloadRule.COMMITMENT_MISMATCH, str(error), index) from error
        except MalformedError as error:
            raise OpenedError(PayloadRule.PAYLOAD_MALFORMED, str(error), index) from error
        if entry_of(part, entry.commitment) != entry:
            sentence = f"Part {number} of record {entry.counter} says something else than its public entry."
            raise OpenedError(PayloadRule.PAYLOAD_MISMATCH, sentence, index)
        parts.append((index, part))
    return parts
