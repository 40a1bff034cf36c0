"""How a tap knows that its meter is awake: a file that the meter counts up in, and the tap looks at.

Both stand on the tap's side of the cable, so that the file is trusted as the meter is. Only a change counts:
a meter that was killed, stopped, or that is blind on its link leaves the file as it is.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ullage.errors import UsageError

BEAT_SECONDS: Final = 0.1
_NUMBER: Final = struct.Struct("!Q")


class SignOfLife:
    """The meter's end."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError when the file cannot be written."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
            # A meter that follows another one must not begin with a number that was there before.
            self._number = _read(self._descriptor) or 0
        except OSError as error:
            raise UsageError(f"The sign of life {path} cannot be written: {error.strerror}.") from error
        self._due = 0.0

    def beat(self, now: float) -> None:
        """Count up, if it is time again. Errors of the disk are silence, which is what they mean."""
        if now < self._due:
            return
        self._due = now + BEAT_SECONDS
        self._number = (self._number + 1) % (1 << 64)
        try:
            os.pwrite(self._descriptor, _NUMBER.pack(self._number), 0)
        except OSError:
            return

    def close(self) -> None:
        """Let go of the file; what is in it grows old."""
        os.close(self._descriptor)


class LifeWatch:
    """The tap's end: whether the file has changed in the last `patience` seconds, by our own clock."""

    def __init__(self, path: Path, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._patience = patience
        self._clock = clock
        self._number: int | None = self._read()
        self._changed: float | None = None

    def alive(self) -> bool:
        """Look once more. Before the first change nobody is known to be there."""
        now, number = self._clock(), self._read()
        if number is not None and number != self._number:
            self._changed = now
        self._number = number
        return self._changed is not None and now - self._changed <= self._patience

    def _read(self) -> int | None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            return _read(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> int | None:
    data = os.pread(descriptor, _NUMBER.size, 0)
    return _NUMBER.unpack(data)[0] if len(data) == _NUMBER.size else None
