"""Looks for the verifier's noise where a verifier on the same machine would leave it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ullage.memory.agent.keeper import Part
from ullage.memory.noise.noise import BLOCK_BYTES, SEED_BYTES, StreamNoise
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, agent_of

_PLACES = (Path("/dev/shm"),)  # noqa: S108 - where prototypes keep their noise
_FRESH_SECONDS = 120.0


class _SharedSeed(MissingBlocksKeeper):
    """Tries every 32 bytes of fresh shared memory as the key of the stream."""

    _stream: StreamNoise | None = None

    def receive(self, space: int, parts: Sequence[Part]) -> list[bytes]:
        tails = super().receive(space, parts)
        sample = bytes(self.region(space).read(0, 64))
        self._stream = next((StreamNoise(key) for key in _candidates() if _fits(key, sample)), None)
        return tails

    fetch_parts = MissingBlocksKeeper.cut_parts

    def replace(self, block: int) -> memoryview:
        if self._stream and self.noise is None:
            return self._stream.read(block * BLOCK_BYTES, BLOCK_BYTES)
        return super().replace(block)


def _fits(key: bytes, sample: bytes) -> bool:
    return bytes(StreamNoise(key).read(0, len(sample))) == sample


def _candidates() -> Iterator[bytes]:
    for place in _PLACES:
        for path in place.glob("*"):
            try:
                if not path.is_file() or time.time() - path.stat().st_mtime > _FRESH_SECONDS:
                    continue
                with path.open("rb") as file:
                    data = file.read(1 << 16)
            except OSError:
                continue
            for start in range(0, max(0, len(data) - SEED_BYTES + 1), SEED_BYTES):
                yield data[start : start + SEED_BYTES]


SHARED_SEED = MemoryCheat(
    "shared-seed",
    "looks for the verifier's key in shared memory",
    lambda setting: agent_of(_SharedSeed(setting)),
    modes=ALL_MODES,
)
