"""Following the sealed journal of a log while a tap writes it, segment after segment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ullage.errors import FaultError, IntegrityError, UsageError
from ullage.log.journal.segments import SEALED_FOLDER, Frame, SegmentReader, list_segments, segment_path
from ullage.log.record import HeaderPart


class JournalFollower:
    """Frames of a journal in order; `poll` gives those that are new and whole."""

    def __init__(self, directory: Path, *, whole: bool) -> None:
        """Follow the log in `directory`: all of it, or from the oldest record in flight in its last segment.

        Raises UsageError, MalformedError, FaultError.
        """
        self._folder = directory / SEALED_FOLDER
        firsts = list_segments(self._folder)
        if not firsts:
            raise UsageError(f"{directory} is not a log with a journal: {self._folder} has no segment.")
        self._open(firsts[-1])
        start = firsts[0] if whole else self._reader.head.resume_from
        if start != firsts[-1]:
            self._file.close()
            self._open(start)

    @property
    def header(self) -> HeaderPart:
        """What the log declares."""
        return self._reader.head.header

    def poll(self) -> Iterator[Frame]:
        """What has come since the last call. Raises IntegrityError, FaultError."""
        try:
            yield from self._reader.appended()
            while (following := segment_path(self._folder, self._reader.next_index)).exists():
                if self._reader.head.first_index == self._reader.next_index:
                    return  # the segment in hand, still empty
                # It is begun when this one is complete, so a last look finds what is left.
                yield from self._reader.appended()
                self._file.close()
                self._open(int(following.stem))
                yield from self._reader.appended()
        except OSError as error:
            raise FaultError(f"The journal in {self._folder} cannot be read: {error.strerror}.") from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _open(self, first: int) -> None:
        path = segment_path(self._folder, first)
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
        self._reader = SegmentReader(self._file)
        if self._reader.head.first_index != first:
            raise IntegrityError(f"{path} has the head of another segment.")
