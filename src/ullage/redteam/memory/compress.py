"""Compresses what it has to hold, as far as that goes, and drops what does not fit."""

from __future__ import annotations

import zlib

from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, Setting, agent_of


class _Compress(MissingBlocksKeeper):
    """Packs the missing share of blocks into half of their room; the rest is lost, or rebuilt."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._packed: dict[int, bytes] = {}
        self._room = len(self.missing) * BLOCK_BYTES // 2

    def forget(self) -> None:
        self._packed.clear()
        self._room = len(self.missing) * BLOCK_BYTES // 2

    def stash(self, block: int, data: memoryview) -> None:
        if self._room < BLOCK_BYTES // 64:
            return
        packed = zlib.compress(data, 1)
        if len(packed) <= self._room:
            self._room -= len(packed)
            self._packed[block] = packed

    fetch_parts = MissingBlocksKeeper.cut_parts

    def replace(self, block: int) -> memoryview:
        packed = self._packed.get(block)
        return memoryview(zlib.decompress(packed)) if packed else super().replace(block)


COMPRESS = MemoryCheat(
    "compress",
    "compresses a share into half its room",
    lambda setting: agent_of(_Compress(setting)),
    withholds=lambda setting: setting.share / 2,
    modes=ALL_MODES,
)
