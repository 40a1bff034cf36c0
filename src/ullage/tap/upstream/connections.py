"""HTTP/1.1 towards the server behind the tap: a pool of keep-alive connections, limits on size and time.

Our own, because a general client costs ten times as much a request (`ullage.tap.upstream.exchange`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from ullage.errors import FaultError, UsageError
from ullage.network.journal import WireJournal
from ullage.tap.failures import ConnectionBrokenError, Failure, LogUnavailableError, UpstreamError
from ullage.tap.upstream.cap import LinkCap
from ullage.tap.upstream.exchange import Connection, Exchange, Response, Traffic

_MAX_IDLE = 512
_CAPPED_BUFFER = 8192

__all__ = ["Address", "Response", "Timeouts", "Traffic", "Upstream"]


@dataclass(frozen=True)
class Timeouts:
    """Seconds that an upstream may take."""

    connect: float = 5.0
    first_byte: float = 120.0
    between: float = 60.0
    total: float = 600.0


@dataclass(frozen=True)
class Address:
    """Where the upstream listens; `base` is the path before `/v1`."""

    host: str
    port: int
    base: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `http://HOST:PORT`, with or without a trailing `/v1`. Raises UsageError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"'{url}' is not an address; write http://HOST:PORT.") from error
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
        base = parts.path.rstrip("/").removesuffix("/v1")
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain or not _printable(url):
            raise UsageError(f"'{url}' is not an address of a server; write http://HOST:PORT.")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), base, tls)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _printable(url: str) -> bool:
    return url.isascii() and all(" " < character < "\x7f" for character in url)


class Upstream:
    """The server behind the tap. One instance for all requests of an event loop."""

    def __init__(
        self,
        address: Address,
        timeouts: Timeouts,
        cap: LinkCap | None = None,
        journal: WireJournal | None = None,
    ) -> None:
        """`journal`: the wire journal, in which every byte on these connections is accounted for."""
        self.timeouts = timeouts
        self.cap = cap
        self.journal = journal
        self._address = address
        self._idle: deque[Connection] = deque()
        self._tls = ssl.create_default_context() if address.tls else None

    def post(
        self, path: str, body: bytes, traffic: Traffic, *, stream: bool
    ) -> contextlib.AbstractAsyncContextManager[Response]:
        """POST a JSON body. The first byte of a stream must come in `first_byte` seconds; a whole answer
        takes as long as its last token, so that only `total`, which the caller keeps, limits it.
        Raises UpstreamError.
        """
        head = (
            f"POST {self._address.base}{path} HTTP/1.1\r\nHost: {self._address.authority}\r\n"
            "Content-Type: application/json\r\n"
            f"Accept: {'text/event-stream' if stream else 'application/json'}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode("ascii")
        patience = self.timeouts.first_byte if stream else None
        return _Asked(self, head, body, traffic, patience)

    def get(self, path: str, traffic: Traffic) -> contextlib.AbstractAsyncContextManager[Response]:
        """GET a JSON body. Raises UpstreamError."""
        head = (
            f"GET {self._address.base}{path} HTTP/1.1\r\nHost: {self._address.authority}\r\n"
            "Accept: application/json\r\n\r\n"
        ).encode("ascii")
        return _Asked(self, head, b"", traffic, self.timeouts.first_byte)

    async def _ask(self, asked: _Asked) -> Response:
        """Send a request and wait for the response's head; `asked` says on which connection."""
        if self._reuse(asked):
            try:
                return await asked.send()
            except ConnectionBrokenError:
                # A server may close an idle connection while we write to it; that is no answer.
                if asked.exchange is None or not asked.exchange.untouched:
                    raise
                asked.drop()
        asked.use(await self._connect(), self)
        return await asked.send()

    def _give_back(self, asked: _Asked) -> None:
        """The response has been read: keep the connection if it can carry another."""
        connection, exchange = asked.connection, asked.exchange
        if connection is None or exchange is None:
            return
        asked.account()
        accounted = self.journal is None or asked.traffic.counter is not None
        if exchange.reusable and accounted and len(self._idle) < _MAX_IDLE:
            connection.exchange = None
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Drop the idle connections and let go of the wire journal.

        Raises FaultError, once all is closed, when the journal could not take that a connection has ended.
        """
        with contextlib.ExitStack() as stack:
            if self.journal is not None:
                stack.callback(self.journal.close)  # the last, since the connections write into it
            while self._idle:
                stack.callback(self._idle.pop().close)

    def _reuse(self, asked: _Asked) -> bool:
        """Put a request on an idle connection, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost and not connection.transport.is_closing():
                asked.use(connection, self)
                return True
            connection.close()
        return False

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeouts.connect):
                _, connection = await loop.create_connection(
                    Connection, self._address.host, self._address.port, ssl=self._tls
                )
        except TimeoutError as error:
            raise UpstreamError(Failure.UPSTREAM_UNREACHABLE, "no connection in time") from error
        except (OSError, ssl.SSLError) as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # that is no fault of the server's
                raise FaultError(
                    "The tap may open no more files: raise its limit (LimitNOFILE), or lower --max-active."
                ) from error
            raise UpstreamError(Failure.UPSTREAM_UNREACHABLE, "no connection") from error
        if self.journal is not None:
            local, remote = (connection.transport.get_extra_info(name) for name in ("sockname", "peername"))
            try:
                connection.journal = self.journal.connect(local[:2], remote[:2])
            except FaultError:
                connection.close()
                raise
        elif self.cap is not None:
            _shorten_queue(connection)  # not on a metered link, where windows must not tell anything
        return connection


class _Asked(contextlib.AbstractAsyncContextManager[Response]):
    """A request on its way: the response inside the context, the connection given back after it.

    A class, since a generator as context costs a tenth of the exchange.
    """

    def __init__(
        self, upstream: Upstream, head: bytes, body: bytes, traffic: Traffic, patience: float | None
    ) -> None:
        self.traffic = traffic
        self.connection: Connection | None = None
        self.exchange: Exchange | None = None
        self._upstream = upstream
        self._head, self._body, self._patience = head, body, patience

    async def __aenter__(self) -> Response:
        try:
            return await self._upstream._ask(self)
        except BaseException as error:
            self._fail(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
            return
        try:
            self._upstream._give_back(self)
        except FaultError as fault:
            self._fail(fault)

    def use(self, connection: Connection, upstream: Upstream) -> None:
        """Go over this connection."""
        self.connection = connection
        self.exchange = Exchange(connection, self.traffic, upstream.timeouts.between, upstream.cap)

    async def send(self) -> Response:
        """Send, and wait for the response's head. Raises UpstreamError."""
        assert self.exchange is not None  # noqa: S101 - `use` comes first
        return await self.exchange.send(self._head, self._body, self._patience)

    def account(self) -> None:
        """Enter in the wire journal to which record the bytes since the last time belong."""
        connection, counter = self.connection, self.traffic.counter
        if connection is not None and connection.journal is not None and counter is not None:
            connection.journal.exchanged(counter)

    def drop(self) -> None:
        """Account for what went over the connection, and end it: nothing more is expected of it."""
        if self.connection is not None:
            try:
                self.account()
            finally:  # whether the journal takes it or not
                connection, self.connection = self.connection, None
                connection.close()

    def _fail(self, error: BaseException) -> None:
        """Raises LogUnavailableError for a wire journal that cannot be written."""
        try:
            self.drop()
        except FaultError as fault:
            raise LogUnavailableError(str(fault)) from fault
        if isinstance(error, FaultError):  # what the wire journal cannot account for must not pass
            raise LogUnavailableError(str(error)) from error


def _shorten_queue(connection: Connection) -> None:
    """What waits in the kernel has passed the link already, so under a cap it must not be much."""
    socket_of = connection.transport.get_extra_info("socket")
    if socket_of is not None:
        socket_of.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CAPPED_BUFFER)
