"""Reading a log: its checkpoint, its parts in order, its records, and proofs about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self

from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.checkpoint import Checkpoint, open_checkpoint
from ullage.log.files import FrameReader, open_entries, read_limited
from ullage.log.findings import Finding, LogFindings, Severity
from ullage.log.keys import load_verifier
from ullage.log.merkle import inclusion_proof, leaf_hash, tree_root
from ullage.log.proof import InclusionProof
from ullage.log.record import ChunkPart, HeaderPart, OpenPart, Part, Record, parse_part
from ullage.log.recovery import CHECKPOINT, ENTRIES, PUBLIC_KEY
from ullage.log.signed_note import MAX_NOTE_BYTES, NoteVerifier
from ullage.log.verify import verify_entries

SELF_VOUCHED = (
    "The key was found beside the log, so the log vouches for itself; give the tap's key with --key."
)


@dataclass(frozen=True)
class LogReader:
    """A log on disk, read once for its checkpoint: entries that a writer adds later are not in `covered`."""

    directory: Path
    key: NoteVerifier | None  # None: the key beside the log
    checkpoint_note: bytes | None

    @classmethod
    def open(cls, directory: Path, key: NoteVerifier | None = None) -> Self:
        """Open a folder. Whether it is a sound log is for `verify` to say. Raises UsageError."""
        if not directory.is_dir():
            raise UsageError(f"There is no folder {directory}.")
        path = directory / CHECKPOINT
        try:
            note = read_limited(path, MAX_NOTE_BYTES) if path.exists() else None
        except MalformedError:
            note = b""  # too long for a checkpoint: no signature, and `verify` says so
        return cls(directory, key, note)

    @property
    def self_vouched(self) -> bool:
        return self.key is None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The signed checkpoint, its signature verified. Raises IntegrityError, UsageError."""
        if self.checkpoint_note is None:
            raise IntegrityError(f"{self.directory} has no checkpoint, so nothing in it is signed.")
        key = self.key or load_verifier(self.directory / PUBLIC_KEY)
        return open_checkpoint(self.checkpoint_note, key)

    def verify(self) -> LogFindings:
        """Check everything; never raises for what is in the folder, only when the disk cannot be read."""
        problems: list[Finding] = []
        if self.self_vouched:
            problems.append(Finding("key-from-log", Severity.NOTE, SELF_VOUCHED))
        path = self.directory / ENTRIES
        if not path.is_file():
            sentence = f"{self.directory} is not a log: it has no file '{ENTRIES}'."
            return _nothing((*problems, Finding("not-a-log", Severity.FAIL, sentence)), self.self_vouched)
        checkpoint = None
        if self.checkpoint_note is None:
            sentence = "The log has no checkpoint: nothing in it is signed."
            problems.append(Finding("no-checkpoint", Severity.FAIL, sentence))
        else:
            try:
                checkpoint = self.checkpoint
            except (IntegrityError, UsageError) as error:
                problems.append(
                    Finding("bad-signature", Severity.FAIL, f"The checkpoint cannot be trusted: {error}")
                )
        return verify_entries(path, checkpoint, problems, self_vouched=self.self_vouched)

    @cached_property
    def header(self) -> HeaderPart:
        """What the log declares. Raises MalformedError, UsageError."""
        for part in self.entries(include_uncovered=True):
            if isinstance(part, HeaderPart):
                return part
            break
        raise MalformedError(f"{self.directory} is not a log: its first entry is not a header.")

    def entries(self, *, include_uncovered: bool = False) -> Iterator[Part]:
        """The parts in order, those that the checkpoint covers unless told otherwise.

        Raises MalformedError at an entry that is not a part, IntegrityError when covered ones are missing.
        """
        return map(parse_part, self._frames(include_uncovered))

    def records(self, *, include_uncovered: bool = False) -> Iterator[Record]:
        """Records in the order of their closes, then those without one in the order of their counters.

        Parts without an open are skipped: `verify` reports them. Raises as `entries`.
        """
        in_flight: dict[int, Record] = {}
        for index, part in enumerate(self.entries(include_uncovered=include_uncovered)):
            if isinstance(part, HeaderPart):
                continue
            if isinstance(part, OpenPart):
                in_flight[part.counter] = Record(part)
            elif (record := in_flight.get(part.counter)) is not None:
                if isinstance(part, ChunkPart):
                    record.chunks.append(part)
                else:
                    record.close, record.close_index = part, index
                    yield in_flight.pop(part.counter)
        yield from (in_flight[counter] for counter in sorted(in_flight))

    def record(self, counter: int, *, include_uncovered: bool = False) -> Record:
        """The record with that counter. Raises UsageError when there is none."""
        for record in self.records(include_uncovered=include_uncovered):
            if record.counter == counter:
                return record
        raise UsageError(f"{self.directory} has no record {counter}.")

    def prove(self, index: int) -> InclusionProof:
        """Proof that entry `index` is under the checkpoint. Raises UsageError, IntegrityError."""
        checkpoint = self.checkpoint
        if not 0 <= index < checkpoint.size:
            raise UsageError(
                f"Entry {index} is not among the {checkpoint.size} entries that the checkpoint covers."
            )
        leaves, chosen = [], b""
        for position, entry in enumerate(self._frames(False)):
            leaves.append(leaf_hash(entry))
            if position == index:
                chosen = entry
        if tree_root(leaves) != checkpoint.root:
            raise IntegrityError(
                "The entries are not those that the checkpoint signs; there is nothing to prove."
            )
        return InclusionProof(index, chosen, inclusion_proof(leaves, index), self.checkpoint_note or b"")

    def prove_record(self, counter: int) -> InclusionProof:
        """Proof of the entry that closed a record. Raises UsageError, IntegrityError."""
        record = self.record(counter)
        if record.close_index is None:
            raise UsageError(
                f"Record {counter} has no close under the checkpoint yet, so it cannot be proved."
            )
        return self.prove(record.close_index)

    def _frames(self, include_uncovered: bool) -> Iterator[bytes]:
        size = None if include_uncovered else self.checkpoint.size
        count = 0
        with open_entries(self.directory / ENTRIES) as file:
            for entry in islice(FrameReader(file), size):
                count += 1
                yield entry
        if size is not None and count < size:
            raise IntegrityError(
                f"{self.directory} has {count} entries and {size} were signed: the log was cut."
            )


def _nothing(findings: tuple[Finding, ...], self_vouched: bool) -> LogFindings:
    return LogFindings(findings, None, None, 0, 0, 0, 0, 0, self_vouched, None, None)
