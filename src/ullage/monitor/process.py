"""The reading of answers in a process of its own, so that a tap neither waits for it nor dies of it.

A scan takes the interpreter for milliseconds, in which a tap would miss its slots; and what is scanned was
written by whoever wants to harm the scanner. The child holds no key and no door but one socket, on which it
gets a client's name and the bytes released, and answers a line of JSON:

    request   lengths of the two as big-endian 32-bit numbers, name, bytes
    answer    [[bits, [kind, …]], …] and a line's end, one pair a text
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from typing import Final

from ullage.monitor.finding import Seen
from ullage.threads import ALONE

_HEAD: Final = struct.Struct(">II")
_MOST_ANSWER: Final = 1 << 20
_MOST_MEMORY: Final = 1 << 30  # bytes of data of the child
_PATIENCE: Final = 30.0  # seconds for one answer, the start of the child included
_MOST_KINDS: Final = 16


class UnreadableError(Exception):
    """The child died over an answer, took too long, or said what makes no sense."""


class ReaderProcess:
    """As `Reader`; the child is started when it is first needed, and anew after it was lost."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._closed = False

    def read(self, client: str, released: bytes) -> list[Seen]:
        """What each text of a response's body held. Raises UnreadableError."""
        try:
            line = self._line or self._start()
            line.settimeout(self._patience)
            name = client.encode()
            line.sendall(_HEAD.pack(len(name), len(released)) + name + released)
            return _parsed(_receive_line(line))
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            self._lose()
            raise UnreadableError(f"the monitor's process failed ({type(error).__name__})") from error

    def close(self) -> None:
        """End the child for good; another thread that waits for its answer gets UnreadableError."""
        self._closed = True
        if self._child is not None:
            self._child.kill()

    def _lose(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _start(self) -> socket.socket:
        if self._closed:
            raise ConnectionResetError
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "ullage.monitor.process"],
                stdin=theirs.fileno(),
                env=os.environ | ALONE,
            )
        self._line = ours
        return ours


def _receive_line(line: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        piece = line.recv(1 << 16)
        if not piece or len(data) > _MOST_ANSWER:
            raise ConnectionResetError
        data += piece
    return data


def _parsed(answer: bytes) -> list[Seen]:
    """Nothing is believed of a child that was attacked but numbers and short names."""
    found = []
    for bits, kinds in json.loads(answer):
        if type(bits) is not int or not 0 <= bits < 1 << 53:
            raise ValueError
        found.append(Seen(bits, tuple(ascii(kind).strip("'")[:64] for kind in kinds[:_MOST_KINDS])))
    return found


def _serve(line: socket.socket) -> None:
    """Answer until the other end is closed."""
    from ullage.monitor.reader import Reader

    reader = Reader()
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    with line, line.makefile("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            name, size = _HEAD.unpack(head)
            client = file.read(name).decode()
            seen = reader.read(client, file.read(size))
            line.sendall(json.dumps([[one.bits, one.kinds[:_MOST_KINDS]] for one in seen]).encode() + b"\n")


def main() -> None:
    """The child: its standard input is the socket. The tap ends it; signals to the terminal do not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, MemoryError):
        _serve(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
