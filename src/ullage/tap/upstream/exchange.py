"""One request and its response on one connection to the server behind the tap.

A protocol of asyncio that feeds httptools as bytes come: streams would cost a task's turn and a copy for
every piece. Whatever the server does ends in one UpstreamError; nothing that it sends is trusted beyond its
framing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, cast

import httptools

from ullage.network.journal import JournaledConnection
from ullage.tap.failures import ConnectionBrokenError, Failure, UpstreamError
from ullage.tap.upstream.cap import PIECE, LinkCap

_MAX_HEAD_BYTES: Final = 64 << 10
_FRAMING_PER_BYTE: Final = 8  # bytes of framing for each byte of body, beside a head: chunks may be short
_MAX_UNREAD_BYTES: Final = 1 << 20  # of a body that nobody has taken yet, before the server has to wait


@dataclass
class Traffic:
    """Bytes of HTTP that one request cost on the upstream's side, heads included, and for which record."""

    sent: int = 0
    received: int = 0
    counter: int | None = None  # None: for none, as the tap's own questions
    held: float = 0.0  # seconds for which the link's cap held the request up
    hold_up: Callable[[float], None] | None = None  # is told of them


@dataclass
class _Message:
    """Callbacks of the parser: one response, then nothing."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0  # of the body so far
    content_type: str = ""
    framed: bool = False  # by a length or by chunks; otherwise the connection's end ends it
    encoded: bool = False
    closing: bool = False
    begun: int = 0
    head_complete: bool = False
    complete: bool = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"content-type":
            self.content_type = value.decode("latin-1").partition(";")[0].strip().lower()
        elif lowered in (b"content-length", b"transfer-encoding"):
            self.framed = True
        elif lowered == b"content-encoding":
            self.encoded = value.strip().lower() not in (b"", b"identity")
        elif lowered == b"connection":
            self.closing = b"close" in value.lower()

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        self.complete = True


class Connection(asyncio.Protocol):
    """A connection that carries one exchange after the other."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.lost = False
        self.journal: JournaledConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def transport(self) -> asyncio.Transport:
        """The connection itself, once it is made."""
        assert self._transport is not None  # noqa: S101 - nobody has one before it is made
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.journal is not None:
            self.journal.received(data)
        if self.exchange is not None:
            self.exchange.feed(data)
        else:
            self.close()  # nobody asked for anything

    def eof_received(self) -> bool:
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        """Abort, not a polite close: a peer that does not read must not keep our buffers.

        Raises FaultError when the wire journal cannot be written.
        """
        self.lost = True
        self.transport.abort()
        if self.journal is not None:
            journal, self.journal = self.journal, None
            journal.closed()

    async def write(self, data: bytes) -> None:
        """Hand bytes over, and wait while the peer does not take them. Raises OSError."""
        if self.lost:
            raise ConnectionResetError
        self.transport.write(data)
        if self.journal is not None:
            self.journal.sent(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def _end(self, error: Exception | None) -> None:
        self.lost = True
        self._writable.set()
        if self.exchange is not None:
            self.exchange.end(error)


def _too_long(limit: int) -> UpstreamError:
    return UpstreamError(Failure.UPSTREAM_INVALID, f"a body of more than {limit} bytes")


@dataclass
class Response:
    """A response whose head has arrived; `body` reads on, within limits."""

    status: int
    content_type: str
    _exchange: Exchange

    async def body(self, limit: int) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises UpstreamError when it is too long, late or torn."""
        total = 0
        while True:
            # What came together is one piece: a server may send a megabyte in chunks of one byte.
            piece = b"".join(self._exchange.take())
            total += len(piece)
            if total > limit:
                raise _too_long(limit)
            if piece:
                yield piece
                continue  # while these were used, others may have come
            if self._exchange.finished():
                return
            await self._exchange.read_more()

    async def whole(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError."""
        exchange = self._exchange
        pieces: list[bytes] = []
        total = 0
        while True:
            for piece in exchange.take():
                total += len(piece)
                pieces.append(piece)
            if total > limit:
                raise _too_long(limit)
            if exchange.finished():
                return b"".join(pieces)
            if not exchange.has_more:
                await exchange.read_more()


class Exchange:
    """A request that is sent and a response that is read. `between` seconds may pass between two pieces."""

    def __init__(
        self, connection: Connection, traffic: Traffic, between: float, cap: LinkCap | None = None
    ) -> None:
        self._connection = connection
        self._traffic = traffic
        self._between = between
        self._cap = cap
        self._message = _Message()
        self._parser = httptools.HttpResponseParser(self._message)
        self._received = 0
        self._unread = 0
        self._paused = False  # reading, because nobody takes what has come
        self._held = 0  # pieces that may not pass yet
        self._end_after: tuple[Exception | None] | None = None
        self._ended = False
        self._error: UpstreamError | None = None
        self._wake: asyncio.Future[None] | None = None
        connection.exchange = self

    @property
    def has_more(self) -> bool:
        """Whether something of the body has come that nobody has taken."""
        return bool(self._message.pieces)

    @property
    def untouched(self) -> bool:
        """Whether not a byte of an answer has come."""
        return self._received == 0

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        message = self._message
        whole = message.complete and message.begun == 1 and not self._ended and self._error is None
        if self._held:  # bytes after the response, that the cap has not let through yet
            return False
        return whole and not message.closing and self._parser.get_http_version() == "1.1"

    async def send(self, head: bytes, body: bytes, patience: float | None) -> Response:
        """Send the request and wait for the response's head, without limit where `patience` is None."""
        data = head + body
        self._traffic.sent += len(data)
        try:
            if patience is None:
                await self._send(data)
            else:
                async with asyncio.timeout(patience):
                    await self._send(data)
        except TimeoutError as error:
            raise UpstreamError(Failure.UPSTREAM_TIMEOUT, "no response in time") from error
        except OSError as error:
            raise ConnectionBrokenError("the connection broke before a response") from error
        status = self._parser.get_status_code()
        if self._message.encoded or status < 200:
            raise UpstreamError(Failure.UPSTREAM_INVALID, "a response that was not asked for")
        return Response(status, self._message.content_type, self)

    def take(self) -> list[bytes]:
        """What has come of the body since the last time."""
        pieces, self._message.pieces = self._message.pieces, []
        self._unread = 0
        if self._paused:
            self._paused = False
            if not self._connection.lost:
                self._connection.transport.resume_reading()
        return pieces

    def finished(self) -> bool:
        """Whether the body is whole. Raises UpstreamError when more followed it."""
        if self._error is not None and self._message.complete:
            raise self._error
        return self._is_whole()

    async def read_more(self) -> None:
        """Wait for more of the body. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._between):
                await self._more()
        except TimeoutError as error:
            detail = "a pause in the response that is too long"
            raise UpstreamError(Failure.UPSTREAM_TIMEOUT, detail) from error

    def feed(self, data: bytes) -> None:
        """Bytes of the server's; under a cap they count when they may pass, and nothing is read meanwhile."""
        wait = 0.0 if self._cap is None else self._cap.from_server.reserve(len(data))
        if wait > 0:
            self._held += 1
            self._connection.transport.pause_reading()
            asyncio.get_running_loop().call_later(wait, self._pass_on, data)
        else:
            self._take_in(data)

    def end(self, error: Exception | None) -> None:
        """The server has closed the connection."""
        if self._held:
            self._end_after = (error,)
            return
        self._ended = True
        if not self._is_whole() and self._error is None:
            how = "broke" if error is not None else "was closed"
            self._error = ConnectionBrokenError(f"the connection {how} in the response")
        self._notify()

    async def _send(self, data: bytes) -> None:
        if self._cap is None:
            await self._connection.write(data)
        else:
            await self._send_capped(self._cap, data)
        while not self._message.head_complete:
            await self._more()

    async def _send_capped(self, cap: LinkCap, data: bytes) -> None:
        """Send as the cap lets it pass. What waits is known, so that others are refused in time."""
        waiting = len(data)
        cap.waiting += waiting
        try:
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                waiting -= len(piece)
                cap.waiting -= len(piece)
                held = await cap.to_server.take(len(piece))
                if held > 0:
                    self._traffic.held += held
                    if self._traffic.hold_up is not None:
                        self._traffic.hold_up(self._traffic.held)
                await self._connection.write(piece)
        finally:
            cap.waiting -= waiting

    def _is_whole(self) -> bool:
        message = self._message
        return message.complete or (self._ended and message.head_complete and not message.framed)

    async def _more(self) -> None:
        """Wait until something has come. Raises UpstreamError for what is wrong with it."""
        if self._error is None and not self._message.pieces and not self._is_whole():
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        if self._error is not None:
            raise self._error

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _pass_on(self, data: bytes) -> None:
        self._held -= 1
        if not self._connection.lost and self._held == 0:
            self._connection.transport.resume_reading()
        self._take_in(data)
        if self._end_after is not None and self._held == 0:
            self.end(*self._end_after)

    def _take_in(self, data: bytes) -> None:
        if self._error is not None:
            return
        self._received += len(data)
        self._traffic.received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._error = UpstreamError(Failure.UPSTREAM_INVALID, "bytes that are not HTTP")
        if self._message.begun > 1:
            self._error = UpstreamError(Failure.UPSTREAM_INVALID, "bytes after the response's end")
        # Heads, trailers and the framing of chunks have no other limit, and the parser keeps what has no end.
        if self._received > _MAX_HEAD_BYTES + (1 + _FRAMING_PER_BYTE) * self._message.size:
            what = "head" if not self._message.head_complete else "framing"
            self._error = self._error or UpstreamError(
                Failure.UPSTREAM_INVALID, f"a response {what} without end"
            )
        self._unread += len(data)
        if self._unread > _MAX_UNREAD_BYTES and self._cap is None and not self._paused:
            self._paused = True
            self._connection.transport.pause_reading()
        self._notify()
