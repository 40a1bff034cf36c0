"""What the records of a log allow on the wire: their closes, opened one by one while the tap writes them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import IntegrityError, UndecidedError
from ullage.log.entries import ChunkEntry, CloseEntry, OpenEntry, parse_entry
from ullage.log.journal.segments import Frame
from ullage.log.notes.signed_note import NoteVerifier
from ullage.log.opened import OpenedError, find_seal, open_parts
from ullage.log.reader import LogReader
from ullage.log.record import ClosePart, HeaderPart
from ullage.log.sealed.openers import Opener
from ullage.log.source import DirectorySource, read_bundle
from ullage.log.tree.tiles import TILE_WIDTH, bundle_at, decode_bundle
from ullage.network.follow import JournalFollower

_SIGNING_SECONDS = 10.0  # the writer signs within two seconds
_LOOK_SECONDS = 0.25


@dataclass
class Budget:
    """What a closed record allows on the wire; exchanges are charged against it."""

    output_ids: tuple[int, ...]
    sent: int
    received: int


@dataclass
class _InFlight:
    """A record without a close so far."""

    wrapped_key: bytes
    parts: int = 1


@dataclass(frozen=True)
class _Closed:
    """A close as it lies in the journal; it is opened when the wire first names its record."""

    wrapped_key: bytes
    number: int  # among the parts of its record
    entry: CloseEntry
    frame: Frame


class RecordBook:
    """Closed records by counter. `poll` reads what is new."""

    def __init__(self, directory: Path, opener: Opener, *, whole: bool = False) -> None:
        """`opener` unseals the records. `whole`: read the log from its beginning, for a recorded capture.

        Raises UsageError, MalformedError, FaultError.
        """
        self._directory = directory
        self._opener = opener
        self._follower = JournalFollower(directory, whole=whole)
        self._in_flight: dict[int, _InFlight] = {}
        self._closed: dict[int, _Closed] = {}
        self._budgets: dict[int, Budget] = {}
        self._used: dict[int, bytes] = {}  # index: SHA-256 of the entry that explained bytes

    @property
    def header(self) -> HeaderPart:
        """What the log declares."""
        return self._follower.header

    def poll(self) -> None:
        """Read the entries that were added. Raises MalformedError, IntegrityError, FaultError."""
        for frame in self._follower.poll():
            entry = parse_entry(frame.entry)
            if isinstance(entry, OpenEntry):
                self._in_flight[entry.counter] = _InFlight(frame.wrapped_key)
            elif isinstance(entry, ChunkEntry) and entry.counter in self._in_flight:
                self._in_flight[entry.counter].parts += 1
            elif isinstance(entry, CloseEntry):
                record = self._in_flight.pop(entry.counter, None)
                if record is None:
                    raise IntegrityError(f"The log closes record {entry.counter}, which it has not opened.")
                self._closed[entry.counter] = _Closed(record.wrapped_key, record.parts, entry, frame)

    def charge(self, counter: int, sent: int, received: int) -> Budget | None:
        """Take an exchange's bytes from its record's budget; None if the record allows no such exchange.

        A retried request has several exchanges: their sum may not exceed what the record says. A record that
        is not opened to us, or is broken, allows nothing.
        """
        if (closed := self._closed.pop(counter, None)) is not None:
            self._open(counter, closed)
        budget = self._budgets.get(counter)
        if budget is None or sent > budget.sent or received > budget.received:
            return None
        budget.sent -= sent
        budget.received -= received
        if not budget.sent and not budget.received:
            del self._budgets[counter]  # spent: a further exchange finds nothing, and stays unexplained
        return budget

    def knows(self, counter: int) -> bool:
        """Whether the record is closed, so that a further look would not change the answer."""
        return counter in self._closed or counter in self._budgets

    def verify(self, key: NoteVerifier) -> str:
        """Check that the log is sound under the tap's key and has every close that explained bytes; its root.

        Without this the journal is believed, which the tap could still change. Waits some seconds for the
        next signature. Raises IntegrityError, UndecidedError when the last closes are not signed in time.
        """
        deadline = time.monotonic() + _SIGNING_SECONDS
        while (reader := LogReader.open(self._directory, key)).checkpoint.size <= max(self._used, default=-1):
            if time.monotonic() > deadline:
                raise UndecidedError(
                    f"Records that explain bytes are not signed in {self._directory} yet; is the tap running?"
                )
            time.sleep(_LOOK_SECONDS)
        findings = reader.verify()
        if not findings.integrity or findings.checkpoint is None:
            raise IntegrityError(
                f"The log in {self._directory} is not sound, so it explains nothing; see `ullage log verify`."
            )
        self._compare(findings.checkpoint.size)
        return f"sha256:{findings.checkpoint.root.hex()}"

    def close(self) -> None:
        """Let go of the journal."""
        self._follower.close()

    def _open(self, counter: int, closed: _Closed) -> None:
        """Make the budget of a record that can be opened."""
        try:
            seal = find_seal(self.header.log_id, counter, closed.wrapped_key, self._opener)
            if isinstance(seal, str):
                return
            part = open_parts(seal, [(closed.frame.index, closed.entry, closed.frame.payload)], closed.number)
        except OpenedError:
            return
        close = part[0][1]
        if isinstance(close, ClosePart):
            self._used[closed.frame.index] = hashlib.sha256(closed.frame.entry).digest()
            self._budgets[counter] = Budget(
                close.output_ids,
                close.bytes_to_upstream or 0,
                close.bytes_from_upstream or 0,
            )

    def _compare(self, size: int) -> None:
        """The published entries must be those of the journal. Raises IntegrityError."""
        source = DirectorySource(self._directory)
        entries: list[bytes] = []
        number = -1
        for index in sorted(self._used):
            if index // TILE_WIDTH != number:
                number = index // TILE_WIDTH
                bundle = bundle_at(number, size)
                entries = decode_bundle(read_bundle(source, bundle) or b"", bundle.width)
            if hashlib.sha256(entries[index % TILE_WIDTH]).digest() != self._used[index]:
                raise IntegrityError(f"Entry {index} of {self._directory} is another one in its journal.")
