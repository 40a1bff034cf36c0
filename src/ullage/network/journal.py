"""The wire journal: what the tap says of its connections to the server, for the meter to compare.

Specified in `docs/formats/wire-journal.md`. The tap counts and hashes the bytes that its sockets sent and
received; the meter reassembles the same bytes from the cable on its own and accepts them only if they agree.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.files import storage_fault
from ullage.log.record import Digest, Name, Natural, first_problem

MAX_LINE_BYTES = 4096
_READ_BYTES = 1 << 20
_Port = Annotated[int, Field(ge=1, le=65535)]
_Host = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HeaderEntry(_Entry):
    """The first line."""

    created: Natural
    entry: Literal["header"] = "header"
    log_id: Name
    version: Literal[1] = 1


class OpenEntry(_Entry):
    """A connection to the server was established."""

    connection: Natural
    entry: Literal["open"] = "open"
    local: tuple[_Host, _Port]
    remote: tuple[_Host, _Port]
    time: Natural


class Totals(_Entry):
    """All bytes of one direction of a connection so far."""

    bytes: Natural
    digest: Digest


class ExchangeEntry(_Entry):
    """Everything on this connection since the last such entry belongs to one record."""

    connection: Natural
    counter: Natural
    entry: Literal["exchange"] = "exchange"
    received: Totals
    sent: Totals
    time: Natural


class CloseEntry(_Entry):
    """The connection ended, on whichever side."""

    connection: Natural
    entry: Literal["close"] = "close"
    time: Natural


Entry = HeaderEntry | OpenEntry | ExchangeEntry | CloseEntry
_ADAPTER: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="entry")])


def encode(entry: Entry) -> bytes:
    """The line of an entry, its newline included."""
    return rfc8785.dumps(entry.model_dump(mode="json")) + b"\n"


def decode(line: bytes) -> Entry:
    """Read one line without its newline. Raises MalformedError unless it is exactly what `encode` writes."""
    if len(line) > MAX_LINE_BYTES:
        raise MalformedError(f"A line of a wire journal has at most {MAX_LINE_BYTES} bytes.")
    try:
        entry = _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise MalformedError(
            f"The line is not an entry of a wire journal: {first_problem(error)}."
        ) from error
    if encode(entry) != line + b"\n":
        raise MalformedError("The entry is not written in canonical JSON (RFC 8785).")
    return entry


class WireJournal:
    """Appends to a journal. One process writes; safe to use from many threads.

    Nothing is synced to disk before an answer leaves: a lost entry makes bytes unexplained, never the
    reverse. A line of which a full disk took only the beginning is ended before the next one.
    """

    def __init__(self, path: Path, log_id: str) -> None:
        """Begin a journal in a new file. Raises UsageError, FaultError."""
        self._path = path
        self._lock = threading.Lock()
        self._next = 0
        self._owed = b""  # the end of a line whose beginning is in the file
        try:
            self._descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640
            )
        except FileExistsError as error:
            raise UsageError(
                f"{path} exists already; every start of a tap has a wire journal of its own."
            ) from error
        except OSError as error:
            raise UsageError(f"The wire journal {path} cannot be made: {error.strerror}.") from error
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._append(HeaderEntry(created=time.time_ns(), log_id=log_id))

    def connect(self, local: tuple[str, int], remote: tuple[str, int]) -> JournaledConnection:
        """Enter a connection once it is established. Raises FaultError."""
        with self._lock:
            number = self._next
            self._next += 1
        self._append(OpenEntry(connection=number, local=local, remote=remote, time=time.time_ns()))
        return JournaledConnection(self, number)

    def close(self) -> None:
        """Let go of the file. What comes later is a fault, and no line in a file that has its number then."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, entry: Entry) -> None:
        try:
            with self._lock:
                self._owed = self._written(self._owed)
                self._owed = self._written(encode(entry))
        except OSError as error:
            raise storage_fault(self._path, error) from error

    def _written(self, line: bytes) -> bytes:
        """Write a line or the end of one; what is left of one that was begun is owed. Raises OSError."""
        left = line
        try:
            while left:  # a plain file takes a byte at least, or fails
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self._owed = left if self._owed or left != line else b""
            raise
        return left


@dataclass
class _Running:
    total: int = 0
    state: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.total += len(data)
        self.state.update(data)

    def totals(self) -> Totals:
        return Totals(bytes=self.total, digest="sha256:" + self.state.hexdigest())


class JournaledConnection:
    """Counts and hashes what one connection carries. For one task at a time."""

    def __init__(self, journal: WireJournal, number: int) -> None:
        """Not for callers: `WireJournal.connect` makes them."""
        self._journal = journal
        self._number = number
        self._sent = _Running()
        self._received = _Running()

    def sent(self, data: bytes) -> None:
        """Add bytes that were handed to the socket."""
        self._sent.add(data)

    def received(self, data: bytes) -> None:
        """Add bytes that were read from the socket."""
        self._received.add(data)

    def exchanged(self, counter: int) -> None:
        """Say that all bytes since the last call belong to the record `counter`. Raises FaultError."""
        self._journal._append(
            ExchangeEntry(
                connection=self._number,
                counter=counter,
                received=self._received.totals(),
                sent=self._sent.totals(),
                time=time.time_ns(),
            )
        )

    def closed(self) -> None:
        """Say that the connection has ended. Raises FaultError."""
        self._journal._append(CloseEntry(connection=self._number, time=time.time_ns()))


class JournalReader:
    """Follows a journal while it is written: `poll` gives the entries that are new and whole."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError."""
        self._path = path
        self._rest = b""
        self._begun = False
        self.digest = hashlib.sha256()
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise UsageError(f"The wire journal {path} cannot be read: {error.strerror}.") from error

    def poll(self) -> list[Entry]:
        """Raises MalformedError for a line that no writer of ours wrote, FaultError when the disk fails."""
        entries: list[Entry] = []
        while True:
            try:
                data = self._file.read(_READ_BYTES)
            except OSError as error:
                raise FaultError(
                    f"The wire journal {self._path} cannot be read: {error.strerror}."
                ) from error
            if not data:
                return entries
            self.digest.update(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > MAX_LINE_BYTES:
                raise MalformedError(f"A line of {self._path} has no end; a wire journal has short lines.")
            entries += [self._check_order(decode(line)) for line in lines]

    def close(self) -> None:
        self._file.close()

    def _check_order(self, entry: Entry) -> Entry:
        if isinstance(entry, HeaderEntry) is self._begun:
            raise MalformedError(f"{self._path} does not begin with one header; it is no wire journal.")
        self._begun = True
        return entry
