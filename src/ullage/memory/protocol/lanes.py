"""Lanes: connections beside a session's own that carry the noise of a stream, both ends of them.

One connection moves about as much as one core can copy. Each lane has a run of the region to itself, and a
receipt of its own: what a lane's buffers hold on the way would be memory of somebody else's.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import threading
from collections.abc import Iterator

from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.memory.protocol.messages import TOKEN_BYTES, VERSION, Done, Lane, Stream
from ullage.memory.protocol.wire import HELLO_SECONDS, Connection, LateError


class Landing:
    """The prover's end: where the lanes that a session waits for come together."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._token = b""
        self._places: list[Connection | None] = []

    @contextlib.contextmanager
    def expecting(self, token: bytes, count: int) -> Iterator[None]:
        """Take lanes that name `token` until the block ends; then they are closed."""
        with self._changed:
            self._token, self._places = token, [None] * count
        try:
            yield
        finally:
            with self._changed:
                lanes, self._token, self._places = self._places, b"", []
            for lane in lanes:
                if lane:
                    lane.close()

    def take(self, lane: Lane, connection: Connection) -> bool:
        """Whether this lane was waited for; the connection belongs to the landing then."""
        with self._changed:
            known = hmac.compare_digest(lane.token, self._token)
            if not known or lane.number >= len(self._places) or self._places[lane.number]:
                return False
            self._places[lane.number] = connection
            self._changed.notify_all()
            return True

    def wait(self, timeout: float = HELLO_SECONDS) -> list[Connection]:
        """All lanes, in order. Raises LateError when one does not come."""
        with self._changed:
            if not self._changed.wait_for(lambda: all(self._places), timeout):
                raise LateError("Not every lane of the stream came.")
            return [lane for lane in self._places if lane]


@contextlib.contextmanager
def open_lanes(
    connection: Connection, space: int, offset: int, size: int, lane_blocks: int
) -> Iterator[list[tuple[Connection, int, int]]]:
    """The verifier's end: announce a stream over [offset, offset + size) and connect its lanes.

    Yields (lane, offset, bytes) of each, and closes them. Raises as `Connection.ask` and `Connection.open`.
    """
    stream = Stream(space, offset, size, lane_blocks, secrets.token_bytes(TOKEN_BYTES))
    connection.ask(stream, Done, HELLO_SECONDS)
    with contextlib.ExitStack() as lanes:
        opened = []
        for number, (start, count) in enumerate(stream.parts):
            lane = lanes.enter_context(connection.beside())
            lane.send(Lane(VERSION, stream.token, number))
            opened.append((lane, start, count))
        yield opened


def blocks_of_a_lane(size: int, lanes: int, multiple: int) -> int:
    """How many blocks go over each of at most `lanes` lanes: whole multiples of `multiple` blocks."""
    blocks = size // BLOCK_BYTES
    share = -(-blocks // lanes)
    return -(-share // multiple) * multiple
