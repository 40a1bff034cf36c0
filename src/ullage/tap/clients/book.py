"""What each client received today, in a file beside the log's journal, so that a restart forgets no budget.

The log names no clients, and a record says nothing of whose it is. So the book has a line for every charge,
under a name that only the tap's seed key gives and that is another one every day: whoever reads the file
learns how many bytes some client had, and neither who it is nor what else it asked. A day's book replaces
that of the day before. Nothing is synced: a cut of the power loses the last charges, as it does answers in
flight, and what all clients had together is in the log.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import Counter
from pathlib import Path
from typing import Final

from ullage.errors import MalformedError
from ullage.log.files import read_limited, write_all
from ullage.log.journal.segments import CLIENT_BYTES
from ullage.tap.tell import tell_operator

_CONTEXT: Final = b"ullage/client-of-day/v1\n"
_MAX_BYTES: Final = 1 << 30
_NAME_LENGTH: Final = 32


class ClientBook:
    """The charges of one day; `restore` or `turn` comes first. `path` need not be there yet."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._key = key
        self._day = -1
        self._descriptor: int | None = None
        self._unwritten = b""
        self._told = False  # that the file cannot be written

    def restore(self, day: int) -> Counter[str]:
        """Go on with a day's book; bytes by name that it has. Raises UsageError, MalformedError."""
        found = self._read(day) if self._path.exists() else Counter[str]()
        self._begin(day, b"".join(_line(name, size) for name, size in found.items()))
        return found

    def turn(self, day: int) -> None:
        """Begin the book of another day."""
        self._begin(day, b"")

    def name(self, client: str) -> str:
        """What the client is called on this day."""
        said = _CONTEXT + b"%d\n" % self._day + client.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, said, hashlib.sha256).hex()[:_NAME_LENGTH]

    def add(self, name: str, size: int) -> None:
        """Bytes released to a client of that name. What cannot be written now is written with the next."""
        self._write(_line(name, size))

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._unwritten = None, b""

    def _begin(self, day: int, lines: bytes) -> None:
        self.close()
        self._day = day
        self._write(b"day %d\n" % day + lines)

    def _write(self, data: bytes) -> None:
        """Nothing is raised: a request that is at its end cannot be refused any more."""
        self._unwritten += data
        try:
            if self._descriptor is None:
                self._descriptor = self._fresh()
            else:
                self._append(self._descriptor)
        except OSError as error:
            if not self._told:
                tell_operator(f"{self._path} cannot be written: {error.strerror}")
            self._told = True
        else:
            self._unwritten, self._told = b"", False

    def _append(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, self._unwritten)
        except OSError:
            os.ftruncate(descriptor, size)  # no half line before the one that is written again
            raise

    def _fresh(self) -> int:
        """A file with what is to be written, in the place of the one before. Raises OSError."""
        fresh = self._path.with_name(f"{CLIENT_BYTES}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        try:
            write_all(descriptor, self._unwritten)
            fresh.replace(self._path)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _read(self, day: int) -> Counter[str]:
        head, *lines = read_limited(self._path, _MAX_BYTES).split(b"\n")
        used = Counter[str]()
        if head != b"day %d" % day:
            return used
        for number, line in enumerate(lines[:-1], 2):  # the last has no end: nothing, or torn by a crash
            name, _, size = line.partition(b" ")
            if len(name) != _NAME_LENGTH or not name.isalnum() or not size.isdigit() or len(size) > 18:
                raise MalformedError(
                    f"Line {number} of {self._path} is no charge; remove the file to begin all clients anew."
                )
            used[name.decode("ascii")] += int(size)
        return used


def _line(name: str, size: int) -> bytes:
    return b"%s %d\n" % (name.encode("ascii"), size)
