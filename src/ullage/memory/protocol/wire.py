"""A connection that carries memory messages: frames, raw runs of bytes, a deadline on everything."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from ullage.errors import FaultError, IntegrityError, MalformedError, UsageError
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.messages import MAX_FRAME_BYTES, Code, Error, decode, encode

FRAME_SECONDS = 30.0
HELLO_SECONDS = 10.0
_RUN_BYTES = 4 << 20

M = TypeVar("M", bound=Message)

_MEANING = {
    Code.VERSION: "it speaks another version of the protocol; install the same version on both sides",
    Code.MALFORMED: "it could not read the message",
    Code.NO_MEMORY: "it cannot map that much memory; ask for less or free some",
    Code.NOT_MAPPED: "that much of the space is not mapped",
    Code.IMPOSSIBLE: "it cannot do that; only the agent inside a server can stop and start one",
    Code.SERVER: "its server could not be stopped or started",
    Code.DIGEST: "a file did not arrive with its digest",
    Code.BUSY: "another verifier is connected to it",
    Code.FAULT: "it failed; its own output says why",
}


class AgentRefusedError(IntegrityError):
    """The agent answered with an error."""

    def __init__(self, code: Code) -> None:
        super().__init__(f"The agent refuses: {_MEANING[code]}.")
        self.code = code


class LateError(IntegrityError):
    """An answer did not come within its deadline."""


class Connection:
    """One peer. Not for two threads at once."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = peer

    @classmethod
    def open(cls, host: str, port: int, timeout: float = 10.0) -> Self:
        """Connect. Raises UsageError when nobody answers there."""
        try:
            return cls(socket.create_connection((host, port), timeout))
        except (OSError, OverflowError) as error:
            raise UsageError(f"No agent answers at {host}:{port}: {error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Message, timeout: float = FRAME_SECONDS) -> None:
        """Raises FaultError when the peer is gone or takes longer."""
        self.send_run(memoryview(encode(message)), timeout)

    def beside(self) -> Self:
        """Another connection to the same peer. Raises UsageError as `open`."""
        return type(self).open(*self._socket.getpeername()[:2])

    def send_run(self, data: memoryview, timeout: float = FRAME_SECONDS) -> None:
        """Raw bytes, outside any frame; `timeout` is for a peer that takes nothing."""
        with self._sending(timeout):
            self._socket.sendall(data)

    def send_with(self, message: Message, data: memoryview, timeout: float = FRAME_SECONDS) -> None:
        """A message and the raw bytes that follow it, at once and uncopied."""
        head = memoryview(encode(message))
        with self._sending(timeout):
            sent = self._socket.sendmsg([head, data])
            self._socket.sendall(head[sent:])
            self._socket.sendall(data[max(0, sent - len(head)) :])

    @contextmanager
    def _sending(self, timeout: float) -> Iterator[None]:
        try:
            self._wait_in_kernel(socket.SO_SNDTIMEO, timeout)
            yield
        except (TimeoutError, BlockingIOError) as error:
            raise LateError(f"The peer took nothing for {timeout:.3g} seconds.") from error
        except OSError as error:
            raise FaultError(f"The connection broke: {error.strerror or error}.") from error

    def receive(self, timeout: float) -> Message:
        """The next message; it begins within `timeout` and is whole in time as well, at most
        FRAME_SECONDS later. Raises LateError, FaultError or MalformedError."""
        deadline = time.monotonic() + timeout
        head = self._exactly(5, deadline)
        length = int.from_bytes(head[:4], "big")
        if not 1 <= length <= MAX_FRAME_BYTES:
            raise MalformedError(f"A frame claims {length} bytes; 1 to {MAX_FRAME_BYTES} are allowed.")
        body = self._exactly(length - 1, min(deadline, time.monotonic() + FRAME_SECONDS))
        return decode(head[4], body)

    def expect(self, kind: type[M], timeout: float) -> M:
        """The next message, which must be of this kind. Raises AgentRefusedError for an error message."""
        message = self.receive(timeout)
        if isinstance(message, Error):
            raise AgentRefusedError(message.code)
        if not isinstance(message, kind):
            raise MalformedError(f"A {kind.__name__} was expected, not a {type(message).__name__}.")
        return message

    def ask(self, message: Message, kind: type[M], timeout: float) -> M:
        """Send, then `expect`."""
        self.send(message, timeout)
        return self.expect(kind, timeout)

    def receive_run(self, target: memoryview, timeout: float = FRAME_SECONDS) -> None:
        """Fill `target` with raw bytes; `timeout` is for each piece of 4 MiB."""
        try:
            self._wait_in_kernel(socket.SO_RCVTIMEO, timeout)
            for start in range(0, len(target), _RUN_BYTES):
                piece = target[start : start + _RUN_BYTES]
                got = self._socket.recv_into(piece, 0, socket.MSG_WAITALL)
                if got < len(piece):  # late, cut off, or a signal came
                    self._into(piece[got:], time.monotonic() + timeout)
                    self._wait_in_kernel(socket.SO_RCVTIMEO, timeout)
        except BlockingIOError as error:
            raise LateError("The answer did not come within its deadline.") from error
        except OSError as error:
            raise FaultError(f"The connection broke: {error.strerror or error}.") from error

    def is_quiet(self) -> bool:
        """Whether nothing unasked has come. A peer that floods or answers twice is not."""
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def has_peer(self) -> bool:
        """Whether the peer has not closed its end, as far as this machine knows. From any thread."""
        ends = select.poll()
        ends.register(self._socket, select.POLLRDHUP)
        return not ends.poll(0)

    def _wait_in_kernel(self, which: int, timeout: float) -> None:
        """Let one call move a whole run: with a timeout of Python's own, each piece that fits into the
        kernel's buffer costs a wait for the interpreter, which other threads of a server hold."""
        seconds = max(timeout, 1e-3)
        self._socket.settimeout(None)
        self._socket.setsockopt(
            socket.SOL_SOCKET, which, struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        )

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray(size)
        self._into(memoryview(data), deadline)
        return bytes(data)

    def _into(self, target: memoryview, deadline: float) -> None:
        got = 0
        try:
            while got < len(target):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError  # noqa: TRY301 - one handler for both ways of being late
                self._socket.settimeout(left)
                count = self._socket.recv_into(target[got:])
                if not count:
                    raise FaultError("The peer closed the connection in the middle of an exchange.")
                got += count
        except TimeoutError as error:
            raise LateError("The answer did not come within its deadline.") from error
        except OSError as error:
            raise FaultError(f"The connection broke: {error.strerror or error}.") from error


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT to its parts. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"'{text}' is not HOST:PORT, for example 127.0.0.1:8400.")
    return host.removeprefix("[").removesuffix("]"), int(port)
