"""Files that survive a power cut: bounded reads, durable creation, atomic replacement, framed entries."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.record import MAX_ENTRY_BYTES

_LENGTH = struct.Struct(">I")
_READ_BUFFER = 1 << 20
MAX_FRAME_BYTES = _LENGTH.size + MAX_ENTRY_BYTES


def read_limited(path: Path, limit: int) -> bytes:
    """The whole file, at most `limit` bytes. Raises UsageError, MalformedError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise MalformedError(f"{path} is longer than {limit} bytes, which no file of this kind is.")
    return data


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however often the kernel takes only some. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if written == 0:
            raise OSError(errno.EIO, "the file takes no more bytes")
        view = view[written:]


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file that must not exist, durable but for its directory entry. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` in the place of `path`; a reader, or a crash, sees the old or the new. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_fault(what: Path, error: OSError) -> FaultError:
    """The sentence for a disk that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FaultError(
            f"The disk under {what} is full, so nothing more is recorded or released; make room."
        )
    return FaultError(
        f"The disk under {what} failed ({error.strerror}); nothing more is recorded or released."
    )


def frame(entries: Sequence[bytes]) -> bytes:
    """Each entry with its length before it, uint32 big-endian."""
    return b"".join(part for entry in entries for part in (_LENGTH.pack(len(entry)), entry))


class End(StrEnum):
    """How a file of frames ends."""

    CLEAN = "clean"
    TORN = "torn"  # within a frame, or in zeros that a file system added: what an interrupted write leaves
    BROKEN = "broken"  # in a length that no writer of ours wrote


@dataclass
class FrameReader:
    """Reads frames one by one; `end` and `end_offset` say how and where they stopped, once they have."""

    file: BinaryIO
    end: End | None = None
    end_offset: int = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            prefix = self.file.read(_LENGTH.size)
            if len(prefix) < _LENGTH.size:
                self.end = End.TORN if prefix else End.CLEAN
                return
            (length,) = _LENGTH.unpack(prefix)
            if length == 0:
                self.end = End.TORN if self._rest_is_zero() else End.BROKEN
                return
            if length > MAX_ENTRY_BYTES:
                self.end = End.BROKEN
                return
            entry = self.file.read(length)
            if len(entry) < length:
                self.end = End.TORN
                return
            self.end_offset += _LENGTH.size + length
            yield entry

    def _rest_is_zero(self) -> bool:
        while block := self.file.read(_READ_BUFFER):
            if block.strip(b"\0"):
                return False
        return True


def open_entries(path: Path) -> BinaryIO:
    """The file of entries for reading in order. Raises UsageError."""
    try:
        return path.open("rb", buffering=_READ_BUFFER)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
