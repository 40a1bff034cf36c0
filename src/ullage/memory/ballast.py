"""Noise that fills what weights and key-value memory leave free, larger or smaller as they change."""

from __future__ import annotations

import secrets

from ullage.errors import IntegrityError
from ullage.memory.erasure import check_receipt
from ullage.memory.expectation import Expectation, draw_questions
from ullage.memory.messages import Map, Mapped, Release, Stream
from ullage.memory.noise import BLOCK_BYTES, SEED_BYTES, StreamNoise
from ullage.memory.wire import Connection

_FILL_SECONDS = 600.0


class Ballast:
    """Space 0 of an agent, filled up to `size` with a keystream that stays with the verifier."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.noise = StreamNoise(secrets.token_bytes(SEED_BYTES))
        self.size = 0
        connection.ask(Release(0, 0), Mapped, _FILL_SECONDS)

    def resize(self, size: int) -> None:
        """Have it shrink at its end, or grow there under noise that the agent has not seen.

        Raises IntegrityError when the agent maps another size, and as `Connection.ask`.
        """
        size = max(0, size - size % BLOCK_BYTES)
        if size < self.size:
            self._connection.ask(Release(0, size), Mapped, _FILL_SECONDS)
        elif size > self.size:
            if self._connection.ask(Map(0, size), Mapped, _FILL_SECONDS).size != size:
                raise IntegrityError(f"The agent did not map the {size} bytes of ballast.")
            self._stream(self.size, size)
        self.size = size

    def _stream(self, start: int, end: int) -> None:
        self._connection.send(Stream(0, start, end - start))
        tail = _Shifted(self.noise, start)
        # The tags of one round come with the expansion and are not used: chains ask instead.
        questions = draw_questions((end - start) // BLOCK_BYTES, 1, 0)
        Expectation(lambda: tail, questions).run(self._connection.send_run)
        check_receipt(self._connection, self.noise, end, _FILL_SECONDS)


class _Shifted(StreamNoise):
    """The keystream from an offset on."""

    def __init__(self, noise: StreamNoise, offset: int) -> None:
        self._noise, self._offset = noise, offset

    def write(self, offset: int, target: memoryview) -> None:
        self._noise.write(self._offset + offset, target)
