"""Raw bytes behind a frame: all of them arrive, and a read-out that takes too long says nothing."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from ullage.errors import MalformedError, UllageError, UndecidedError
from ullage.memory.protocol.messages import Done, Dump
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.snapshot import dump, dump_whole, fetch

HELD = np.random.default_rng(1).integers(0, 256, 9 << 20, np.uint8).data


def two_ends() -> tuple[Connection, Connection]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection.open(*listener.getsockname())
        return connection, Connection(listener.accept()[0])


def agent_that(sends_less: int = 0) -> Connection:
    """A connection to one that answers dumps, of its own accord a few bytes short."""
    connection, peer = two_ends()

    def answer() -> None:
        with peer as other, suppress(UllageError):  # the test is done with it
            while isinstance(asked := other.receive(30), Dump):
                held = HELD[asked.offset :][: asked.size - sends_less]
                other.send_with(Done(len(held)), held)

    threading.Thread(target=answer, daemon=True).start()
    return connection


def test_all_of_a_space_comes_whole_or_in_pieces() -> None:
    with agent_that() as connection:
        assert dump_whole(connection, 0, len(HELD), time.monotonic() + 60) == HELD
        assert b"".join(dump(connection, 0, len(HELD))) == HELD.tobytes()
        part = memoryview(bytearray(1000))
        fetch(connection, 0, 12_345, part)
        assert part == HELD[12_345:13_345]


def test_what_a_slow_reader_takes_in_two_calls_is_whole() -> None:
    """The kernel gives up a call after a time in which it has taken a part; the rest takes another."""
    sender, reader = two_ends()
    with sender, reader, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sender.send_with, Done(len(HELD)), HELD, 0.5)
        time.sleep(0.75)
        assert reader.receive(30) == Done(len(HELD))
        held = bytearray(len(HELD))
        reader.receive_run(memoryview(held), 30)
        sent.result(30)
    assert held == HELD


def test_another_amount_than_asked_for_is_refused() -> None:
    with agent_that(sends_less=1) as connection, pytest.raises(MalformedError, match="came back with 99"):
        fetch(connection, 0, 0, memoryview(bytearray(100)))


def test_what_comes_too_late_says_nothing() -> None:
    with agent_that() as connection, pytest.raises(UndecidedError, match="nothing can be said"):
        dump_whole(connection, 0, len(HELD), time.monotonic() - 1)
