"""Appending to the journal: one write and one `fdatasync` a batch. The format is in `segments.py`.

Space is allotted in steps ahead of the writes, and for small batches filled with zeros as well: a sync is
cheapest where a file neither grows nor gets blocks that were never written (measured on ext4: 1.7 times the
rate). Large batches skip the zeros, which would double what they write.
"""

from __future__ import annotations

import fcntl
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from ullage.errors import UsageError
from ullage.log.files import replace, write_all_at
from ullage.log.journal.segments import (
    SEGMENT_BYTES,
    Prepared,
    SegmentHead,
    encode_batch,
    list_segments,
    segment_path,
)

_FIRST_STEP, _LARGEST_STEP = 256 << 10, 8 << 20
_SMALL_BATCH, _ZEROS = 16 << 10, bytes(1 << 20)
LOCK = "lock"  # in the sealed folder; whoever holds it may write
_BLOCK = 4 << 20


class Journal:
    """The last segment of a journal, open for appending. One user at a time; every method raises OSError."""

    def __init__(self, folder: Path, first_index: int, end: int, next_index: int) -> None:
        """Go on in an existing segment whose frames end at the byte `end`, before entry `next_index`."""
        self.folder = folder
        self.next_index = next_index
        self.last_sync_s = 0.0
        self._firsts = list_segments(folder)
        self._descriptor = _open(segment_path(folder, first_index))
        self._end = end
        self._allotted = os.fstat(self._descriptor).st_size
        self._zeroed = end

    @classmethod
    def begin(cls, folder: Path, head: SegmentHead) -> Journal:
        """Make a segment, durable before this returns, and go on in it."""
        return cls(folder, head.first_index, _write_segment(folder, head), head.first_index)

    @property
    def full(self) -> bool:
        """Whether it is time for the next segment."""
        return self._end >= SEGMENT_BYTES

    def append(self, batch: Sequence[Prepared]) -> None:
        """Make a batch durable. After an OSError nothing more may be appended: open the journal anew."""
        data = encode_batch(self.next_index, batch)
        end = self._end + len(data)
        if end > self._allotted:
            self._allot(len(data))
        if self._zeroed < end <= self._allotted and len(data) <= _SMALL_BATCH:
            zeros = _ZEROS[: self._allotted - self._end]
            write_all_at(self._descriptor, zeros, self._end)
            self._zeroed = self._end + len(zeros)
        write_all_at(self._descriptor, data, self._end)
        began = time.perf_counter()
        os.fdatasync(self._descriptor)
        self.last_sync_s = time.perf_counter() - began
        self._end = end
        self.next_index += len(batch)

    def rotate(self, head: SegmentHead) -> None:
        """Begin the next segment."""
        end = _write_segment(self.folder, head)
        self.close()
        self._descriptor = _open(segment_path(self.folder, head.first_index))
        self._firsts.append(head.first_index)
        self._end = self._allotted = self._zeroed = end

    def segment_of(self, index: int) -> int:
        """First index of the segment that holds an entry, or will."""
        return self._firsts[bisect_right(self._firsts, index) - 1]

    def close(self) -> None:
        """Give back what was allotted and not used."""
        try:
            if self._allotted > self._end:
                os.ftruncate(self._descriptor, self._end)
                os.fsync(self._descriptor)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is; does nothing after `close`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _allot(self, length: int) -> None:
        step = min(max(self._allotted, _FIRST_STEP), _LARGEST_STEP)
        try:
            os.posix_fallocate(self._descriptor, self._allotted, max(step, length))
        except OSError:
            return  # the write itself will say whether there is room
        self._allotted = os.fstat(self._descriptor).st_size


def lock_journal(folder: Path) -> int:
    """Become the one who may write; returns a descriptor to close in the end. Raises UsageError, OSError."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(
            f"Another process writes to the log in {folder.parent}; there can be only one."
        ) from error
    return descriptor


def holds_lock(descriptor: int, folder: Path) -> bool:
    """Whether the lock that was taken is still the one in this folder: False once the folder was moved."""
    try:
        here = (folder / LOCK).stat()
    except OSError:
        return False
    ours = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino)


def cut_segment(path: Path, offset: int, keep_as: Path) -> int:
    """Cut a segment at `offset`; its tail, less the zeros at its end, goes to the file `keep_as`.

    Returns how many bytes were kept. Raises OSError.
    """
    descriptor = _open(path)
    try:
        tail = _read_from(descriptor, offset).rstrip(b"\0")
        if tail:
            replace(keep_as, tail, 0o600)
        os.ftruncate(descriptor, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return len(tail)


def write_again(path: Path, offset: int, end: int) -> None:
    """Write the bytes from `offset` to `end` to their own place and sync them. Raises OSError.

    After a failed sync the kernel takes pages for clean that never reached the disk; another sync alone
    would write nothing.
    """
    descriptor = _open(path)
    try:
        while offset < end:
            block = os.pread(descriptor, min(_BLOCK, end - offset), offset)
            write_all_at(descriptor, block, offset)
            offset += len(block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_segment(folder: Path, head: SegmentHead) -> int:
    data = head.to_bytes()
    replace(segment_path(folder, head.first_index), data, 0o600)
    return len(data)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def _read_from(descriptor: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while block := os.pread(descriptor, _BLOCK, offset):
        parts.append(block)
        offset += len(block)
    return b"".join(parts)
