"""HTTP/1.1 towards clients: one answer after the other, with limits on heads, time and silence.

A protocol of asyncio that feeds httptools; uvicorn keeps the sockets and the orderly end. Our own instead of
uvicorn's ASGI, which took a third of a short request's time (`benchmarks/tap_load.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from ullage.tap.clients.call import Call
from ullage.tap.failures import Failure, error_body

Handler = Callable[[Call], Coroutine[Any, Any, None]]

_FRAMING_PER_BYTE: Final = 8  # bytes of framing for each byte of body, beside a head: chunks may be short
_UPGRADED: Final = httptools.HttpParserUpgrade


@dataclass(frozen=True)
class ClientLimits:
    """What one client may take."""

    head_bytes: int = 32 << 10
    header_lines: int = 100
    head_seconds: float = 10.0
    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    unread_seconds: float = 60.0  # for which a client may leave bytes unread
    connections: int = 2048


class ClientProtocol(asyncio.Protocol):
    """One client's connection. Its application is a `Handler`; a subclass has other `limits`."""

    limits = ClientLimits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes protocols."""
        self._loop = _loop or asyncio.get_running_loop()
        self._handle = cast("Handler", config.loaded_app)
        self._keep_alive = config.timeout_keep_alive
        self._state = server_state
        self._parser = httptools.HttpRequestParser(self)
        # A request that closes the connection is answered, whatever follows it.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport
        self._peer = ""
        self._call: Call | None = None  # the one being answered
        self._fed: Call | None = None  # the one that is arriving
        self._waiting: deque[Call] = deque()  # pipelined behind it
        self._writable: asyncio.Event | None = None  # there while the client does not take its answer
        self._deadline: float | None = None  # for a head, or for the next request
        self._timer: asyncio.TimerHandle | None = None  # looks at the deadline, at the latest when it is due
        self._head_watched = False
        self._reading = True
        self._unread_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self._in_head = True
        self._head_bytes = 0
        self._body_bytes = 0  # since the head, framing and trailers included

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._state.connections.add(self)  # type: ignore[arg-type]
        if len(self._state.connections) > self.limits.connections:
            self._transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        for timer in (self._timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self.resume_writing()
        self._waiting.clear()
        call, self._call = self._call, None
        if call is not None and call.task is not None:
            call.gone = True
            call.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except _UPGRADED:
            pass  # the request is answered as any other; nothing else is spoken here
        except httptools.HttpParserError:
            self._refuse()
            return
        if self._in_head:
            if self._head_bytes > self.limits.head_bytes:
                self._refuse()
                return
            if not self._head_watched:
                self._watch_head()
        elif self._has_endless_framing():
            self._refuse()
            return
        if self._call is not None and self._call.task is None:
            self._start(self._call)

    def on_message_begin(self) -> None:
        self._url, self._lines = b"", []
        if not self._in_head:  # a further request in the same bytes
            self._in_head, self._head_bytes = True, 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name.lower(), value))
        if len(self._lines) > self.limits.header_lines:
            raise ValueError("too many header lines")  # the parser turns it into a 400

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.get_http_version() != "1.1":
            raise ValueError("not HTTP/1.1")  # 1.0 has no chunks, in which streams are sent
        self._in_head = self._head_watched = False
        self._body_bytes = 0
        self._deadline = None
        call = Call(self, parser.get_method(), _path_of(self._url), self._peer, self.limits.body_bytes)
        for name, value in self._lines:
            if name == b"authorization":
                call.authorizations.append(value)
            elif name == b"content-length":
                call.announce(int(value))
            elif name == b"expect":
                call.expects_continue = value.lower() == b"100-continue"
        call.keeps_connection = parser.should_keep_alive() and not parser.should_upgrade()
        self._fed = call
        if self._call is None:
            self._call = call
        else:
            self._waiting.append(call)
            self._pause_reading()

    def on_body(self, data: bytes) -> None:
        if self._fed is not None and not self._fed.ended:
            self._fed.feed(data)
            if self._fed.too_large:
                self._pause_reading()

    def on_message_complete(self) -> None:
        if self._fed is not None:
            self._fed.feed_end()

    def write(self, data: bytes) -> None:
        """Hand bytes to the client's connection."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the client does not take what it was sent."""
        if self._writable is not None:
            await self._writable.wait()

    def answered(self, call: Call) -> None:
        """The answer is whole: on to the next request, or to the end of the connection."""
        if self._call is not call:
            return
        self._call = None
        self._state.total_requests += 1
        if not call.keeps_connection:
            self._waiting.clear()
            self._close()
            return
        self._resume_reading()
        if self._waiting:
            self._call = self._waiting.popleft()
            self._start(self._call)
        elif not self._in_head:
            self._in_head, self._head_bytes = True, 0
            self._close_in(self._keep_alive)

    def shutdown(self) -> None:
        """The server ends: no further request; the one in flight is answered."""
        if self._call is None:
            self._close()
        else:
            self._call.end_connection()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._unread_timer = self._loop.call_later(self.limits.unread_seconds, self._transport.abort)

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _has_endless_framing(self) -> bool:
        """Trailers and extensions of chunks have no other limit, and the parser keeps a whole trailer."""
        call = self._fed
        if call is None or call.body_is_whole:
            return False
        return self._body_bytes > self.limits.head_bytes + (1 + _FRAMING_PER_BYTE) * call.size

    def _start(self, call: Call) -> None:
        task = self._loop.create_task(self._handle(call))
        call.task = task
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _watch_head(self) -> None:
        self._head_watched = True
        self._close_in(self.limits.head_seconds)

    def _close_in(self, seconds: float) -> None:
        """Close the connection unless a head is whole in so many seconds."""
        self._deadline = self._loop.time() + seconds
        # A timer for each request would cost more than all else here: one is left to run, and looks.
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look_at_deadline)
        else:
            self._close()

    def _close(self) -> None:
        """Close once what was written has been taken, or in the time in which it has to be."""
        self._transport.close()
        if self._end_timer is None and self._transport.get_write_buffer_size():
            self._end_timer = self._loop.call_later(self.limits.unread_seconds, self._transport.abort)

    def _pause_reading(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _refuse(self) -> None:
        """The one answer to what is not a request; the parser's own words are not sent."""
        if self._transport.is_closing():
            return
        if self._call is None or not self._call.started:
            body = error_body(Failure.INVALID_REQUEST)
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n" % len(body) + body
            )
        self._close()


def _path_of(url: bytes) -> str:
    """The path of a request's target, as it is written. Raises ValueError for what is no address."""
    if not url.startswith(b"/"):
        url = httptools.parse_url(url).path or b""
    return url.partition(b"?")[0].decode("latin-1")
