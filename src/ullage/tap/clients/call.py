"""One request of a client, and the way of its answer."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final, Protocol

JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream"
_STATUS_LINES: Final = {one.value: b"HTTP/1.1 %d %s\r\n" % (one, one.phrase.encode()) for one in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyTooLargeError(Exception):
    """The request's body is longer than the limit."""


class Line(Protocol):
    """The connection of a call, as the call needs it."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the client's connection."""

    async def drain(self) -> None:
        """Wait while the client does not take what it was sent."""

    def answered(self, call: Call) -> None:
        """The call's answer is whole."""


class Call:
    """A request whose head has arrived, and its answer; implements `ullage.tap.release.Release`.

    `started` says whether a head of an answer has been sent, `ended` whether the answer is whole, `gone`
    whether the client has hung up before, `sent` how many bytes of bodies it got.
    """

    def __init__(self, line: Line, method: bytes, path: str, peer: str, body_limit: int) -> None:
        self.method = method
        self.path = path
        self.peer = peer
        self.authorizations: list[bytes] = []
        self.expects_continue = False
        self.keeps_connection = True
        self.sent = 0
        self.kept: list[bytes] | None = None  # a list: pieces of bodies are kept in it, too
        self.started = False
        self.ended = False
        self.gone = False
        self.task: asyncio.Task[None] | None = None
        self._line = line
        self._limit = body_limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole = False
        self._news: asyncio.Future[None] | None = None

    @property
    def body_is_whole(self) -> bool:
        """Whether all of the request has arrived."""
        return self._whole

    @property
    def size(self) -> int:
        """Bytes of the body so far, or all that the head announces where that is too many."""
        return self._size

    @property
    def too_large(self) -> bool:
        """Whether the body has passed its limit, so that no more of it is taken."""
        return self._size > self._limit

    def announce(self, length: int) -> None:
        """The head says how long the body will be."""
        if length > self._limit:
            self._size = length

    def feed(self, data: bytes) -> None:
        """A piece of the body."""
        self._size += len(data)
        if not self.too_large:
            self._pieces.append(data)
        self._wake()

    def feed_end(self) -> None:
        """The body is whole."""
        self._whole = True
        self._wake()

    async def read_body(self, seconds: float) -> bytes:
        """The whole body. Raises BodyTooLargeError, and TimeoutError when it takes longer."""
        if not self._whole and not self.too_large:
            if self.expects_continue:
                self._line.write(_CONTINUE)
            async with asyncio.timeout(seconds):
                while not self._whole and not self.too_large:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
        if self.too_large:
            raise BodyTooLargeError
        return b"".join(self._pieces)

    def end_connection(self) -> None:
        """Close the connection after the response: what follows on it is not a request."""
        self.keeps_connection = False

    async def send(self, status: int, body: bytes, kind: bytes = JSON) -> None:
        """A whole response."""
        self.started = True
        head = b"%scontent-type: %s\r\ncontent-length: %d\r\n%s\r\n" % (
            _STATUS_LINES[status],
            kind,
            len(body),
            self._connection_header(),
        )
        if self.method == b"HEAD":
            body = b""
        self._count(body)
        self._end(head + body)
        await self._line.drain()

    def put(self, data: bytes) -> None:
        """Bytes of a stream; the head goes before the first."""
        if data:
            self._count(data)
            self._write(b"%s%x\r\n%s\r\n" % (self._stream_head(), len(data), data))

    async def write(self, data: bytes) -> None:
        """The same, and wait while the client does not take them."""
        if data:
            self.put(data)
            await self._line.drain()

    async def finish(self, data: bytes) -> None:
        """The last bytes of a stream."""
        if self.ended:
            return
        head = self._stream_head()
        self._count(data)
        last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._end(head + last)
        await self._line.drain()

    def _count(self, data: bytes) -> None:
        self.sent += len(data)
        if self.kept is not None and not self.gone:
            self.kept.append(data)

    def _stream_head(self) -> bytes:
        if self.started:
            return b""
        self.started = True
        return b"%scontent-type: %s\r\ntransfer-encoding: chunked\r\n%s\r\n" % (
            _STATUS_LINES[200],
            EVENTS,
            self._connection_header(),
        )

    def _connection_header(self) -> bytes:
        if not self._whole:
            self.keeps_connection = False  # nobody will read the rest of the request
        return b"" if self.keeps_connection else b"connection: close\r\n"

    def _write(self, data: bytes) -> None:
        if not self.gone:
            self._line.write(data)

    def _end(self, data: bytes) -> None:
        self._write(data)
        self.ended = True
        self._line.answered(self)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
