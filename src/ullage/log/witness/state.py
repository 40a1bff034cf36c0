"""What a witness must never forget: the last checkpoint of each log that it cosigned. And evidence.

A folder: `witness` (a line that binds the folder to the witness's key), `lock`, and for each log a folder,
named by the SHA-256 of its origin, with `checkpoint` (the cosigned note) and `evidence/`. A witness that lost
its state, or got an older copy back, would cosign a fork: so a missing folder is an error, not a beginning.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from ullage.errors import FaultError, IntegrityError, MalformedError, UsageError
from ullage.log.files import read_limited, replace, sync_directory, write_new
from ullage.log.notes.checkpoint import note_origin
from ullage.log.notes.cosignature import WitnessVerifier
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, open_note

MAX_LOGS = 10_000
MAX_EVIDENCE = 100
_LABEL = "ullage-witness-state-v1"
_ORIGIN_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class WitnessState:
    """The state folder, held by one process. Close it, or use it in a `with`."""

    def __init__(self, directory: Path, key: WitnessVerifier, lock: int) -> None:
        self.directory = directory
        self._key = key
        self._lock = lock

    @classmethod
    def create(cls, directory: Path, key: WitnessVerifier) -> Self:
        """Begin with a witness that never cosigned anything. Raises UsageError, FaultError."""
        if (directory / "witness").exists():
            raise UsageError(f"{directory} holds the state of a witness already; start it without --new.")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(directory / "witness", f"{_LABEL} {key}\n".encode(), 0o600)
            sync_directory(directory)
        except OSError as error:
            raise FaultError(f"{directory} cannot take a witness's state: {error.strerror}.") from error
        return cls.open(directory, key)

    @classmethod
    def open(cls, directory: Path, key: WitnessVerifier) -> Self:
        """Continue. Raises UsageError when the folder is another witness's, or nobody's, or in use."""
        if not (directory / "witness").exists():
            raise UsageError(
                f"{directory} does not hold the state of a witness. If this witness never cosigned anything, "
                "begin with --new; if it did, find its state: without it a fork would be cosigned."
            )
        if read_limited(directory / "witness", 1024) != f"{_LABEL} {key}\n".encode():
            raise UsageError(f"{directory} holds the state of a witness with another key.")
        try:
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FaultError(f"{directory} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise UsageError(f"Another witness runs on {directory}; there can be only one.") from error
        return cls(directory, key, lock)

    def latest(self, origin_hash: str) -> bytes | None:
        """The last cosigned note of a log. Raises FaultError when what is there was damaged."""
        if not _ORIGIN_HASH.fullmatch(origin_hash):
            return None
        path = self.directory / origin_hash / "checkpoint"
        if not path.exists():
            return None
        try:
            note = read_limited(path, MAX_NOTE_BYTES)
            open_note(note, [self._key])
            sound = hashlib.sha256(note_origin(note).encode()).hexdigest() == origin_hash
        except (UsageError, IntegrityError, MalformedError) as error:
            raise FaultError(f"The state {path} is damaged, so its log is not cosigned: {error}") from error
        if not sound:
            raise FaultError(f"The state {path} is of another log, so its log is not cosigned.")
        return note

    def put(self, origin_hash: str, note: bytes) -> None:
        """Make `note` the last one, durable on return. Raises FaultError."""
        folder = self.directory / origin_hash
        try:
            if not folder.exists():
                if sum(1 for _ in self.directory.iterdir()) > MAX_LOGS:
                    raise FaultError(f"The witness holds {MAX_LOGS} logs, and takes no more.")
                folder.mkdir(mode=0o700, exist_ok=True)
                sync_directory(self.directory)
            replace(folder / "checkpoint", note, 0o600)
        except OSError as error:
            raise FaultError(f"The state of {folder} cannot be written: {error.strerror}.") from error

    def keep_evidence(self, origin_hash: str, data: bytes) -> None:
        """Keep proof that a log signed two histories. Raises FaultError."""
        self._keep(origin_hash, data, ".equivocation")

    def keep_suspect(self, origin_hash: str, data: bytes) -> None:
        """Keep a request that a log's key signed and that did not prove growth. Raises FaultError."""
        self._keep(origin_hash, data, ".request")

    def _keep(self, origin_hash: str, data: bytes, suffix: str) -> None:
        folder = self.directory / origin_hash / "evidence"
        path = folder / (hashlib.sha256(data).hexdigest() + suffix)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if path.exists() or sum(one.suffix == suffix for one in folder.iterdir()) >= MAX_EVIDENCE:
                return
            replace(path, data, 0o600)
        except OSError as error:
            raise FaultError(f"Evidence cannot be kept in {folder}: {error.strerror}.") from error

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
