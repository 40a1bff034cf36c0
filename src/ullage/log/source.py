"""Where a log's files come from: a folder, or a web server that is not trusted with anything.

A source hands out bytes and believes nothing: whoever reads checks lengths, hashes and signatures. It bounds
what it takes in bytes and in seconds, so that a hostile server or a strange file cannot hold up a verifier.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx

from ullage.deadline import within
from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.tree.tiles import MAX_BUNDLE_BYTES, MAX_TILE_BYTES, Bundle, Tile, cut_bundle
from ullage.plain_files import read_plain_file

_CONNECTIONS = 8
_AHEAD = 16  # of the largest bundles, 270 MB
_ATTEMPTS = 3
_NOT_THERE = frozenset({404, 410})
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class LogSource(Protocol):
    """Reads a log's files by their paths under its prefix, as tlog-tiles has them."""

    @property
    def concurrency(self) -> int:
        """How many reads at once are worth while."""
        ...

    def read(self, path: str, limit: int) -> bytes | None:
        """The file's bytes, at most `limit`; None when it is not there. Raises MalformedError, FaultError."""
        ...


@dataclass(frozen=True)
class DirectorySource:
    """A log's folder on this machine."""

    directory: Path
    concurrency: int = 1

    def __str__(self) -> str:
        return str(self.directory)

    def read(self, path: str, limit: int) -> bytes | None:
        """See `LogSource.read`; anything but a plain file is refused."""
        where = self.directory / path
        try:
            return read_plain_file(where, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            raise MalformedError(f"{where} is not a plain file, as every file of a log is.") from None
        except OSError as error:
            raise FaultError(f"{where} cannot be read: {error.strerror}.") from error


class HttpSource:
    """A log behind an http or https prefix. Redirects are not followed; every request has a deadline."""

    concurrency = _CONNECTIONS

    def __init__(self, prefix: str, timeout_s: float = 30.0) -> None:
        """Raises UsageError unless `prefix` is an http or https URL."""
        try:
            url = httpx.URL(prefix)
        except httpx.InvalidURL as error:
            raise UsageError(f"{prefix!r} is not a URL: {error}.") from error
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise UsageError(f"{prefix!r} is not an http or https URL without a query.")
        self.prefix = prefix.rstrip("/")
        self.timeout_s = timeout_s
        self._client = httpx.Client(
            follow_redirects=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            headers={"Accept-Encoding": "gzip, identity", "User-Agent": "ullage-log-verify/1"},
        )

    def __str__(self) -> str:
        return self.prefix

    def close(self) -> None:
        self._client.close()

    def read(self, path: str, limit: int) -> bytes | None:
        """See `LogSource.read`. A server that stumbles is asked three times."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                late = f"{self.prefix}/{path} took more than {2 * self.timeout_s:g} seconds."
                return within(2 * self.timeout_s, partial(self._get, path, limit), late)
            except (httpx.TransportError, _StumbleError) as error:
                reason = str(error) or type(error).__name__
                if attempt < _ATTEMPTS - 1:
                    time.sleep(0.2 * 4**attempt)
            except httpx.DecodingError as error:
                raise MalformedError(f"{self.prefix}/{path} is not the gzip data that it says.") from error
        raise FaultError(f"{self.prefix}/{path} cannot be fetched: {reason}.")

    def _get(self, path: str, limit: int) -> bytes | None:
        url = f"{self.prefix}/{path}"
        deadline = time.monotonic() + self.timeout_s
        with self._client.stream("GET", url) as response:
            if response.status_code in _NOT_THERE:
                return None
            if response.status_code in _TRY_AGAIN:
                raise _StumbleError(f"the server answers {response.status_code}")
            if response.is_redirect:
                where = response.headers.get("location", "nowhere")[:200]
                raise FaultError(f"{url} redirects to {where!r}, which is not followed; give that prefix.")
            if response.status_code != httpx.codes.OK:
                raise FaultError(f"{url} answers {response.status_code}; is this the prefix of a log?")
            parts: list[bytes] = []
            length = 0
            for part in response.iter_bytes():
                length += len(part)
                if length > limit:
                    raise MalformedError(f"{url} is longer than {limit} bytes, which no such file is.")
                if time.monotonic() > deadline:
                    raise FaultError(f"{url} took more than {self.timeout_s:g} seconds.")
                parts.append(part)
            return b"".join(parts)


class _StumbleError(Exception):
    """An answer after which the same request may succeed."""


def open_source(location: str, timeout_s: float = 30.0) -> LogSource:
    """The source that `location` names: an http(s) URL, or a folder. Raises UsageError."""
    if location.startswith(("http://", "https://")):
        return HttpSource(location, timeout_s)
    if not Path(location).is_dir():
        raise UsageError(f"There is no folder {location}, and it is not an http or https URL.")
    return DirectorySource(Path(location))


def read_tile(source: LogSource, tile: Tile) -> bytes | None:
    """A tile's hashes, `tile.width` of them; a log that dropped a partial tile may have the full one.

    None when neither is there. The length is not checked. Raises MalformedError, FaultError.
    """
    data = source.read(tile.path, MAX_TILE_BYTES)
    if data is None and tile != (full := Tile(tile.level, tile.index)):
        data = source.read(full.path, MAX_TILE_BYTES)
        return None if data is None else data[: tile.width * 32]
    return data


Read = bytes | MalformedError | None  # a file, what is wrong with it, or nothing there


def read_ahead(source: LogSource, addresses: Iterable[Tile | Bundle]) -> Iterator[Read]:
    """The files at `addresses`, in their order, a few of them fetched at once where the source is remote.

    What is wrong with a file comes in its place. Raises FaultError.
    """
    if source.concurrency == 1:
        yield from (_read(source, address) for address in addresses)
        return
    with _pool(source.concurrency) as pool:
        pending: deque[Future[Read]] = deque()
        for address in addresses:
            pending.append(pool.submit(_read, source, address))
            if len(pending) >= _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def _pool(size: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(size, thread_name_prefix="log-source")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _read(source: LogSource, address: Tile | Bundle) -> Read:
    try:
        return read_tile(source, address) if isinstance(address, Tile) else read_bundle(source, address)
    except MalformedError as error:
        return error


def read_bundle(source: LogSource, address: Bundle) -> bytes | None:
    """A bundle's bytes, out of the full one where a partial one was dropped; None when neither is there.

    Raises MalformedError, FaultError.
    """
    data = source.read(address.path, MAX_BUNDLE_BYTES)
    if data is None and address != (full := Bundle(address.index)):
        data = source.read(full.path, MAX_BUNDLE_BYTES)
        return None if data is None else cut_bundle(data, address.width)
    return data
