"""Frames over a TCP connection, with limits on size and time, and a count of the bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.work.protocol import LENGTH, Message, decode, encode


class Stream:
    """One connection. Sending is safe from several threads; one thread receives."""

    def __init__(self, connection: socket.socket, limit: int, send_seconds: float | None = None) -> None:
        """`limit`: the longest frame that is taken. `send_seconds`: how long sending may stand still."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if send_seconds is not None:
            # The socket's own timeout would hold for the thread that receives as well.
            whole, rest = divmod(send_seconds, 1.0)
            limit_for_kernel = struct.pack("@ll", int(whole), int(rest * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit_for_kernel)
        self._connection = connection
        self._limit = limit
        self._sending = threading.Lock()
        self.bytes_sent = 0
        self.bytes_received = 0

    def send(self, *messages: Message) -> None:
        """Raises FaultError when the other side is gone or does not read."""
        data = b"".join(map(encode, messages))
        try:
            with self._sending:
                self._connection.sendall(data)
                self.bytes_sent += len(data)
        except BlockingIOError as error:
            raise FaultError("The other side does not read what it is sent.") from error
        except OSError as error:
            raise FaultError(f"The connection broke while sending: {error}.") from error

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, None at the end of the stream.

        `timeout` is for the whole of it, however small the pieces that it comes in. Raises MalformedError,
        FaultError (also for time).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        head = self._exactly(LENGTH.size, deadline, may_end=True)
        if not head:
            return None
        (length,) = LENGTH.unpack(head)
        if not 1 <= length <= self._limit:
            raise MalformedError(f"A frame of {length} bytes came; {self._limit} is the most here.")
        return decode(self._exactly(length, deadline))

    def close(self) -> None:
        """Close, whatever state the connection is in."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _exactly(self, count: int, deadline: float | None, *, may_end: bool = False) -> bytes:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            try:
                # Never 0, which would mean not to wait at all.
                left = None if deadline is None else max(1e-3, deadline - time.monotonic())
                self._connection.settimeout(left)
                got = self._connection.recv_into(view[done:])
            except TimeoutError as error:
                raise FaultError("The other side did not answer in time.") from error
            except OSError as error:
                raise FaultError(f"The connection broke: {error}.") from error
            if got == 0:
                if done == 0 and may_end:
                    return b""
                raise FaultError("The connection ended within a frame.")
            done += got
        self.bytes_received += count
        return bytes(data)


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`. Raises UsageError for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise UsageError(f"'{text}' is no address; write HOST:PORT, for example 127.0.0.1:8700.")
    return host.strip("[]"), int(port)
