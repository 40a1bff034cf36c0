"""Who may read sealed records: the holder of the seal key, or of the keys of single records."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.files import read_limited, sync_directory, write_new
from ullage.log.keys import load_seal_key
from ullage.log.record import Name, first_problem
from ullage.log.sealed.sealing import KeyWrap

MAX_RECORD_KEYS_BYTES = 256 << 20
_COUNTER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Opener(Protocol):
    """Finds the keys of records."""

    def key_of(self, log_id: str, counter: int, wrapped: bytes) -> bytes | None:
        """The key of a record; None if it was not handed over. Raises SealBrokenError."""
        ...


@dataclass
class SealKey:
    """The tap's own `seal.key`: it opens every record that was not forgotten."""

    secret: bytes = field(repr=False)
    _wrap: tuple[str, KeyWrap] | None = field(default=None, repr=False)

    def key_of(self, log_id: str, counter: int, wrapped: bytes) -> bytes | None:
        """See `Opener.key_of`."""
        if self._wrap is None or self._wrap[0] != log_id:
            self._wrap = (log_id, KeyWrap(log_id, self.secret))
        return self._wrap[1].unwrap(counter, wrapped)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keys: dict[str, Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]] = Field(repr=False)
    log_id: Name
    version: Literal[1] = 1


@dataclass(frozen=True)
class RecordKeys:
    """Keys of single records of one log, by their counters: what `ullage log open` hands over."""

    log_id: str
    keys: Mapping[int, bytes] = field(repr=False)

    def key_of(self, log_id: str, counter: int, wrapped: bytes) -> bytes | None:
        """See `Opener.key_of`."""
        return self.keys.get(counter) if log_id == self.log_id else None

    def write(self, path: Path) -> None:
        """Write the file, mode 0600; it must not exist. Raises UsageError, FaultError."""
        keys = {str(counter): self.keys[counter].hex() for counter in self.keys}
        # RFC 8785 orders by name, and decimal digits are in the order of their code units.
        data = _File(keys=dict(sorted(keys.items())), log_id=self.log_id).model_dump_json().encode()
        try:
            write_new(path, data, 0o600)
            sync_directory(path.parent)
        except FileExistsError as error:
            raise UsageError(
                f"{path} is there already; keys are never overwritten: choose another --out."
            ) from error
        except OSError as error:
            raise FaultError(f"The keys cannot be written to {path}: {error.strerror}.") from error

    @classmethod
    def load(cls, path: Path) -> RecordKeys:
        """Read such a file. Raises UsageError, MalformedError, whose messages never hold a key."""
        try:
            found = cls.parse(read_limited(path, MAX_RECORD_KEYS_BYTES), str(path))
        except MalformedError as error:
            raise MalformedError(f"{error} It has to be a file that `ullage log open` wrote.") from error
        if os.stat(path).st_mode & 0o077:
            raise UsageError(f"The keys in {path} can be read by others; `chmod 600 {path}`.")
        return found

    @classmethod
    def parse(cls, data: bytes, name: str = "The file") -> RecordKeys:
        """Read the bytes of such a file, which messages call `name`. Raises MalformedError."""
        try:
            found = _File.model_validate_json(data)
        except ValidationError as error:
            raise MalformedError(f"{name} does not hold keys of records: {first_problem(error)}.") from error
        if not all(_COUNTER.fullmatch(counter) for counter in found.keys):
            raise MalformedError(f"{name} names a record by something that is not a counter.")
        return cls(found.log_id, {int(counter): bytes.fromhex(key) for counter, key in found.keys.items()})


def load_opener(keys: Path | None, record_keys: Path | None = None) -> Opener | None:
    """What the options `--keys DIR` and `--record-keys PATH` open records with; None if neither does.

    `record_keys` is a file that `ullage log open` wrote, or a folder with `seal.key`. The folder `keys` need
    not hold `seal.key`: the verifier's does not. Raises UsageError, MalformedError.
    """
    if record_keys is not None:
        return SealKey(load_seal_key(record_keys)) if record_keys.is_dir() else RecordKeys.load(record_keys)
    if keys is not None and (keys / "seal.key").exists():
        return SealKey(load_seal_key(keys))
    return None
