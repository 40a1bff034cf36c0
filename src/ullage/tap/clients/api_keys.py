"""API keys of clients: random, handed out once, kept as hashes.

The file has a line a client, `NAME sha256:HEX`; `#` begins a comment. A key is 32 random bytes, so that its
plain SHA-256 cannot be searched; it is compared with every line in constant time. The file is read again when
it changes, and a file that cannot be read then lets nobody in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Final

from ullage.errors import UsageError

PREFIX: Final = "ullage-"
_LINE: Final = re.compile(r"([A-Za-z0-9._-]{1,64}) sha256:([0-9a-f]{64})", re.ASCII)
_MAX_BYTES: Final = 1 << 20
_MAX_KEY: Final = 256


def new_key(name: str) -> tuple[str, str]:
    """A key for a client and the line for the file. Raises UsageError for a name that no line can hold."""
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"'{name[:80]}' is no name for a client: up to 64 of A-Z a-z 0-9 . _ -")
    return key, line


class ApiKeys:
    """The clients of one file. Raises UsageError when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: list[tuple[str, bytes]] = []
        self._seen: tuple[int, int, int] | None = None
        self._read()

    def client_of(self, authorization: bytes | None) -> str | None:
        """The name of the client whose `Authorization` header this is; None for anybody else."""
        self._refresh()
        scheme, _, key = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(key[:_MAX_KEY]).digest()
        found: str | None = None
        for name, expected in self._clients:  # all of them, so that time tells nothing
            if hmac.compare_digest(digest, expected):
                found = name
        return found if scheme.lower() == b"bearer" and len(key) <= _MAX_KEY else None

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_size, status.st_ino) != self._seen:
                self._read()
        except (OSError, UsageError):
            self._clients, self._seen = [], None

    def _read(self) -> None:
        try:
            status = self._path.stat()
            if status.st_size > _MAX_BYTES:
                raise UsageError(f"{self._path} has more than {_MAX_BYTES} bytes.")
            text = self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The API keys in {self._path} cannot be read ({error}).") from error
        clients = []
        for number, line in enumerate(text.splitlines(), 1):
            content = line.partition("#")[0].strip()
            match = _LINE.fullmatch(content)
            if content and match is None:
                raise UsageError(f"{self._path}, line {number}: write NAME sha256:HEX, one client a line.")
            if match is not None:
                clients.append((match[1], bytes.fromhex(match[2])))
        if not clients:
            raise UsageError(f"{self._path} names no client, so nobody could use the tap.")
        self._clients = clients
        self._seen = (status.st_mtime_ns, status.st_size, status.st_ino)
