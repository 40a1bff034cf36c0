"""Noise that fills what weights and key-value memory leave free, larger or smaller as they change."""

from __future__ import annotations

import secrets

from ullage.errors import IntegrityError
from ullage.memory.noise.noise import BLOCK_BYTES, SEED_BYTES, StreamNoise
from ullage.memory.protocol.messages import Map, Mapped, Release
from ullage.memory.protocol.stream import send_noise
from ullage.memory.protocol.wire import Connection

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
            run = (0, self.size, size - self.size)
            send_noise(self._connection, self.noise, run, limit=_FILL_SECONDS)
        self.size = size
