"""Files that survive a power cut: bounded reads, durable creation, atomic replacement."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from ullage.errors import FaultError, UllageError, UsageError
from ullage.plain_files import read_plain_file

_OPEN_FILES = 64
_AT_ONCE = 4


def read_limited(path: Path, limit: int) -> bytes:
    """As `read_plain_file`, for a file that has to be there. Raises UsageError, MalformedError."""
    try:
        return read_plain_file(path, limit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however often the kernel takes only some. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if written == 0:
            raise OSError(errno.EIO, "the file takes no more bytes")
        view = view[written:]


def write_all_at(descriptor: int, data: bytes, offset: int) -> None:
    """As `write_all`, to a place in the file. Raises OSError."""
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        more = os.pwrite(descriptor, memoryview(data)[written:], offset + written)
        if more == 0:
            raise OSError(errno.EIO, "the file takes no more bytes")
        written += more


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file that must not exist, durable but for its directory entry. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, mode: int = 0o644, *, within: Path | None = None) -> None:
    """Put `data` in the place of `path`; a reader, or a crash, sees the old or the new. Raises OSError."""
    replace_all([(path, data)], mode, within=within)


def replace_all(
    files: Iterable[tuple[Path, bytes]], mode: int = 0o644, *, within: Path | None = None
) -> None:
    """Put every file in its place, as `replace` does, making folders as needed; durable on return.

    The folder `within` and those above it are never made: if it is gone, that is an error.

    Many files are written before the first is synced, and a few are synced at a time, so that the disk
    writes them together; each is synced before it takes its place. Each folder is synced once, after all
    files are in theirs. Raises OSError.
    """
    changed: dict[Path, None] = {}
    remaining = iter(files)
    while group := list(islice(remaining, _OPEN_FILES)):
        for path, _ in group:
            _make_folder(path.parent, changed, within)
        _replace_group(group, mode)
        changed.update(dict.fromkeys(path.parent for path, _ in group))
    for folder in changed:
        sync_directory(folder)


def _replace_group(files: list[tuple[Path, bytes]], mode: int) -> None:
    with ExitStack() as opened:
        fresh: list[tuple[int, Path, Path]] = []
        for path, data in files:
            beside = path.with_name(path.name + ".new")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            descriptor = os.open(beside, flags, mode)
            opened.callback(os.close, descriptor)
            write_all(descriptor, data)
            fresh.append((descriptor, beside, path))
        synced = _sync_all([descriptor for descriptor, _, _ in fresh])
        for (_, beside, path), _ in zip(fresh, synced, strict=True):
            beside.replace(path)


def _sync_all(descriptors: list[int]) -> Iterator[None]:
    """Sync files and say so one by one, in order. A journaling file system commits those that wait together.

    Measured on ext4: four at a time take a fifth of the time of one after another, and more gain nothing.
    """
    if len(descriptors) <= _AT_ONCE:
        yield from map(os.fsync, descriptors)
        return
    with ThreadPoolExecutor(_AT_ONCE, "ullage-log-sync") as pool:
        try:
            done = pool.map(os.fsync, descriptors)
        except RuntimeError:  # the interpreter is ending and starts no more threads
            done = map(os.fsync, descriptors)
        yield from done


def _make_folder(folder: Path, changed: dict[Path, None], within: Path | None) -> None:
    """Make a folder and those above it; the ones in which a name is new are added to `changed`."""
    if folder in changed or folder == within or folder.is_dir():
        return
    _make_folder(folder.parent, changed, within)
    folder.mkdir(exist_ok=True)
    changed[folder.parent] = None


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
        f"{what} cannot be written ({error.strerror}), so nothing more is recorded or released."
    )


def failure_of(what: Path, error: BaseException) -> FaultError:
    """As `storage_fault`, also for what is none: memory that ran out, an interrupt, a mistake of ours."""
    if isinstance(error, OSError):
        return storage_fault(what, error)
    stopped = f"The writer of {what} was stopped at its work ({type(error).__name__}: {error})"
    return FaultError(f"{stopped}; it opens the log anew.")


def may_pass(error: UllageError) -> bool:
    """Whether an error is of the disk or of this process's means, and not of what the files say."""
    return isinstance(error, FaultError) or isinstance(error.__cause__, OSError)
