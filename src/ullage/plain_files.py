"""Files that a stranger may have laid down: never waited for, and read up to a limit.

A log, a bundle or a model's folder may hold a pipe in the place of a file, or a link to a device that never
ends, whose size is 0. Every room may import this file.
"""

from __future__ import annotations

import os
import stat
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path

from ullage.errors import MalformedError


def open_plain_file(path: Path, buffer_size: int = DEFAULT_BUFFER_SIZE) -> BufferedReader:
    """The file, or the one that a link leads to, for reading.

    Raises OSError as `open` does, also for a folder, MalformedError for a pipe or a device. What a missing
    file means is for the caller to say.
    """
    return BufferedReader(FileIO(str(path), opener=_open_without_waiting), buffer_size)


def read_plain_file(path: Path, limit: int) -> bytes:
    """The whole file, at most `limit` bytes. Raises as `open_plain_file`, MalformedError for a longer one."""
    with open_plain_file(path) as file:
        data = file.read(limit + 1)  # its size is not asked for: a file may grow meanwhile
    if len(data) > limit:
        raise MalformedError(f"{path} is longer than {limit} bytes, which no file of this kind is.")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    """What `open` calls to open: it adds O_CLOEXEC itself, and refuses a folder."""
    # Without O_NONBLOCK, `open` waits for somebody to write into a pipe.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        return descriptor
    os.close(descriptor)
    raise MalformedError(f"{path} is not a plain file but a pipe or a device: put a file in its place.")
