"""Frames that come slowly, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ullage.errors import FaultError
from ullage.work.protocol import Ready, encode
from ullage.work.stream import Stream


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, Stream]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    stream = Stream(near, 2048)
    try:
        yield far, stream
    finally:
        far.close()
        stream.close()


def test_the_time_is_for_the_whole_frame() -> None:
    """One byte at a time would else hold a slot for days."""
    with connected() as (far, stream):

        def drip() -> None:
            with contextlib.suppress(OSError):
                for byte in (100).to_bytes(4, "big") + bytes(100):
                    far.sendall(bytes([byte]))
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        before = time.monotonic()
        with pytest.raises(FaultError, match="did not answer in time"):
            stream.receive(0.5)
        assert time.monotonic() - before < 3


def test_a_frame_in_pieces_is_whole_in_time() -> None:
    with connected() as (far, stream):
        for byte in encode(Ready()):
            far.sendall(bytes([byte]))
        assert stream.receive(5.0) == Ready()
        far.shutdown(socket.SHUT_WR)
        assert stream.receive(5.0) is None
