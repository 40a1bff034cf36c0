"""Reading a log's folder: what strangers can check, and the records in it for whoever can open them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.entries import CloseEntry, Entry, OpenEntry, RecordEntry, parse_entry
from ullage.log.files import read_limited
from ullage.log.findings import Finding, FindingList, LogFindings, Severity
from ullage.log.journal.publisher import CHECKPOINT, PUBLIC_KEY
from ullage.log.journal.segments import SEALED_FOLDER, Frame, read_frames
from ullage.log.keys import read_verifier
from ullage.log.notes.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, NoteVerifier, parse_note
from ullage.log.opened import OpenedError, SealedParts, SealedReason, SealedRecord, find_seal
from ullage.log.record import HeaderPart, Record
from ullage.log.sealed.openers import Opener, RecordKeys
from ullage.log.sealed.sealing import RecordSeal
from ullage.log.source import DirectorySource, read_bundle
from ullage.log.tree.proof import InclusionProof
from ullage.log.tree.prover import Prover
from ullage.log.tree.tiles import bundles_of, decode_bundle
from ullage.log.verify import SELF_VOUCHED, verify_log

__all__ = ["SELF_VOUCHED", "LogReader"]

Progress = Callable[[str, int, int], None]
"""Called with a stage, what is done of it, and how much there is; 0: not known."""
_Part = tuple[int, Entry, Frame | None]
_TOLD_EVERY = 100
_SEALED = {
    SealedReason.UNOPENED: "were not opened to this reader",
    SealedReason.FORGOTTEN: "were forgotten",
    SealedReason.MISSING: "are not in the journal",
}


@dataclass
class Stage:
    """One stage of a long check, counted a step at a time; told at every hundredth step."""

    name: str
    total: int
    progress: Progress
    done: int = 0

    def step(self) -> None:
        """One more is about to be done."""
        if self.done % _TOLD_EVERY == 0:
            self.progress(self.name, self.done, self.total)
        self.done += 1


@dataclass(frozen=True)
class LogReader:
    """A log on disk, read once for its checkpoint: entries that a writer adds later are not in `covered`."""

    directory: Path
    key: NoteVerifier | None  # None: the key beside the log
    checkpoint_note: bytes | None
    opener: Opener | None = None

    @classmethod
    def open(cls, directory: Path, key: NoteVerifier | None = None, opener: Opener | None = None) -> Self:
        """Open a folder. Whether it is a sound log is for `verify` to say. Raises UsageError.

        `opener` reads the sealed records; without one only the public entries can be read.
        """
        if not directory.is_dir():
            what = (
                f"{directory} is a file, and a log is a folder"
                if directory.exists()
                else f"There is no folder {directory}"
            )
            raise UsageError(f"{what}; give the one that a tap was given with --log.")
        path = directory / CHECKPOINT
        try:
            note = read_limited(path, MAX_NOTE_BYTES) if path.exists() else None
        except MalformedError:
            note = b""  # too long for a checkpoint: no signature, and `verify` says so
        return cls(directory, key, note, opener)

    @property
    def self_vouched(self) -> bool:
        """Whether no key was given, so that the log vouches for itself."""
        return self.key is None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The signed checkpoint, its signature verified. Raises IntegrityError, UsageError.

        If the log was handed over to a later key than ours, the whole log is checked to find that key.
        """
        if self.checkpoint_note is None:
            raise IntegrityError(f"{self.directory} has no checkpoint, so nothing in it is signed.")
        try:
            return open_checkpoint(self.checkpoint_note, self._key)
        except IntegrityError:
            found = verify_log(DirectorySource(self.directory), Policy.of_key(self._key)).checkpoint
            if found is None:
                raise
            return found

    def verify(self, progress: Progress = lambda stage, done, total: None) -> LogFindings:
        """Check everything, opened records included; only what the disk refuses to give raises."""
        if not any((self.directory / name).exists() for name in (CHECKPOINT, "tile", SEALED_FOLDER)):
            sentence = f"{self.directory} is not a log: it has neither a checkpoint nor tiles."
            return self._nothing(Finding("not-a-log", Severity.FAIL, sentence))
        try:
            policy = Policy.of_key(self._key)
        except (UsageError, MalformedError) as error:
            sentence = f"The checkpoint cannot be trusted: {error}"
            return self._nothing(Finding("bad-signature", Severity.FAIL, sentence))
        found = verify_log(
            DirectorySource(self.directory),
            policy,
            self_vouched=self.self_vouched,
            progress=lambda *step: progress("verifying the log", *step),
        )
        if not found.covered:
            return found
        report = FindingList(list(found.findings))
        later = self._later_entries(found.covered)
        if later:
            report.conclude(
                "not-covered",
                f"{later} entries after the last checkpoint are not covered by a signature yet.",
                Severity.UNSURE,
                found.covered,
            )
        unread = 0
        if self.opener is not None and found.integrity and found.header is not None:
            opening = Stage("opening records", found.opened, progress)
            unread = self._check_records(found.header.log_id, self.opener, report, opening)
        return dataclasses.replace(found, findings=report.all(), entries=found.entries + later, unread=unread)

    @cached_property
    def header(self) -> HeaderPart:
        """What the log declares. Raises MalformedError, UsageError."""
        first = next(self._published(self._claimed_size), None)
        if first is None:
            first = next((frame.entry for frame in self._frames(0)), b"")
        entry = parse_entry(first)
        if isinstance(entry, HeaderPart):
            return entry
        raise MalformedError(f"{self.directory} is not a log: its first entry is not a header.")

    def entries(self, *, include_uncovered: bool = False) -> Iterator[Entry]:
        """The public entries in order, those that the checkpoint covers unless told otherwise.

        Raises MalformedError at one that is malformed, IntegrityError when covered ones are missing.
        """
        return (entry for _, entry, _ in self._parts(include_uncovered=include_uncovered))

    def records(self, *, include_uncovered: bool = False) -> Iterator[Record]:
        """The records that can be read, in the order of their closes, then those without one by counter.

        Those that were forgotten or not opened are left out: `all_records` and `verify` tell of them. Parts
        without an open are skipped: `verify` reports them. Raises UsageError without an opener, OpenedError
        for a record that is not the one committed to, else as `entries`.
        """
        found = self.all_records(include_uncovered=include_uncovered)
        return (record for record in found if isinstance(record, Record))

    def all_records(
        self, *, include_uncovered: bool = False, only: frozenset[int] | None = None
    ) -> Iterator[Record | SealedRecord]:
        """As `records`, with a `SealedRecord` for each that cannot be read; `only` names the wanted ones."""
        if self.opener is None:
            raise UsageError(
                f"The records in {self.directory} are sealed: give the tap's keys (--keys DIR with seal.key) "
                "or keys of records that `ullage log open` has written (--record-keys FILE)."
            )
        log_id, opener = self.header.log_id, self.opener
        sealed = self._sealed_records(include_uncovered, only)
        return (parts.open(log_id, opener) for parts in sealed)

    def record(self, counter: int, *, include_uncovered: bool = False) -> Record:
        """The record with that counter. Raises UsageError when there is none, or it cannot be read."""
        found = self.all_records(include_uncovered=include_uncovered, only=frozenset([counter]))
        for record in found:
            if isinstance(record, Record):
                return record
            raise UsageError(f"Record {counter} cannot be read ({record.reason.value}).")
        raise UsageError(f"{self.directory} has no record {counter}.")

    def record_keys(self, counters: Collection[int] | None) -> RecordKeys:
        """The keys of these records, of all that were not forgotten for None, to hand to one verifier.

        Raises UsageError without an opener or when one of the records cannot be opened, OpenedError.
        """
        if self.opener is None:
            raise UsageError("Keys of records come from the tap's seal key: give --keys.")
        log_id = self.header.log_id
        keys: dict[int, bytes] = {}
        for frame in self._frames(0):
            entry = parse_entry(frame.entry)
            if isinstance(entry, OpenEntry) and (counters is None or entry.counter in counters):
                seal = find_seal(log_id, entry.counter, frame.wrapped_key, self.opener)
                if isinstance(seal, RecordSeal):
                    keys[entry.counter] = seal.key
                elif counters is not None:
                    raise UsageError(f"Record {entry.counter} cannot be opened ({seal.value}).")
        if missing := sorted(set(counters or ()) - keys.keys()):
            raise UsageError(f"{self.directory} has no record {missing[0]}.")
        return RecordKeys(log_id, keys)

    def prove(self, index: int) -> InclusionProof:
        """Proof that entry `index` is under the checkpoint. Raises UsageError, IntegrityError."""
        return self._prover.entry(index)

    def prove_record(self, counter: int) -> InclusionProof:
        """Proof of the entry that closed a record. Raises UsageError, IntegrityError."""
        return self._prover.record(counter)

    @cached_property
    def _key(self) -> NoteVerifier:
        return self.key or read_verifier(self.directory / PUBLIC_KEY)

    @cached_property
    def _prover(self) -> Prover:
        return Prover(DirectorySource(self.directory), self.checkpoint, self.checkpoint_note or b"")

    def _check_records(self, log_id: str, opener: Opener, report: FindingList, opening: Stage) -> int:
        """Open every record; returns how many could not be read."""
        sealed: Counter[SealedReason] = Counter()
        try:
            for parts in self._sealed_records(False, None):
                opening.step()
                try:
                    record = parts.open(log_id, opener)
                except OpenedError as error:
                    report.add(error.rule.value, str(error), index=error.index)
                else:
                    if isinstance(record, SealedRecord):
                        sealed[record.reason] += 1
        except IntegrityError as error:
            report.conclude("journal-damaged", str(error))
        for reason, count in sorted(sealed.items()):
            report.conclude(reason.value, f"{count} records {_SEALED[reason]}.", Severity.NOTE)
        return sealed.total()

    def _sealed_records(self, include_uncovered: bool, only: frozenset[int] | None) -> Iterator[SealedParts]:
        in_flight: dict[int, SealedParts] = {}
        for index, entry, frame in self._parts(include_uncovered=include_uncovered):
            if not isinstance(entry, RecordEntry) or (only is not None and entry.counter not in only):
                continue
            if isinstance(entry, OpenEntry):
                in_flight[entry.counter] = SealedParts()
            if (record := in_flight.get(entry.counter)) is not None:
                record.parts.append((index, entry, frame))
                if isinstance(entry, CloseEntry):
                    yield in_flight.pop(entry.counter)
        yield from (in_flight[counter] for counter in sorted(in_flight))

    def _parts(self, *, include_uncovered: bool) -> Iterator[_Part]:
        """Every entry with its index and its frame in the journal, where there is one."""
        frames = self._frames(0)
        frame = next(frames, None)
        size = self._claimed_size if include_uncovered else self.checkpoint.size
        for index, data in enumerate(self._published(size)):
            while frame is not None and frame.index < index:
                frame = next(frames, None)
            mine = frame if frame is not None and frame.index == index else None
            if mine is not None and mine.entry != data:
                raise IntegrityError(f"Entry {index} of {self.directory} is another one in its journal.")
            yield index, parse_entry(data), mine
        while include_uncovered and frame is not None:
            if frame.index >= size:
                yield frame.index, parse_entry(frame.entry), frame
            frame = next(frames, None)

    def _published(self, size: int) -> Iterator[bytes]:
        source = DirectorySource(self.directory)
        for bundle in bundles_of(size):
            data = read_bundle(source, bundle)
            if data is None:
                raise IntegrityError(
                    f"{self.directory} lacks the entry bundle {bundle.path}, which was signed; it was cut."
                )
            yield from decode_bundle(data, bundle.width)

    def _frames(self, start: int) -> Iterator[Frame]:
        folder = self.directory / SEALED_FOLDER
        return read_frames(folder, start) if folder.is_dir() else iter(())

    def _later_entries(self, size: int) -> int:
        try:
            return sum(1 for _ in self._frames(size))
        except (UsageError, IntegrityError):
            return 0  # a journal that this reader may not read, or that opening records will complain about

    def _nothing(self, finding: Finding) -> LogFindings:
        return LogFindings((finding,), None, None, 0, 0, 0, 0, 0, self.self_vouched, None, None)

    @property
    def _claimed_size(self) -> int:
        """How many entries the checkpoint names, whoever signed it."""
        if self.checkpoint_note is None:
            return 0
        return parse_checkpoint(parse_note(self.checkpoint_note)[0]).size
