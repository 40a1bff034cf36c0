"""Lets the kernel page a share out: file-backed memory that is told to leave."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence

from ullage.memory.noise.noise import BLOCK_BYTES, Buffer
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, Setting, agent_of

_MADV_PAGEOUT = 21


class _Swap(MissingBlocksKeeper):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size = len(self.missing) * BLOCK_BYTES
        self._file = os.open(setting.folder / "swap", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)
        self._order = {block: place for place, block in enumerate(sorted(self.missing))}

    def stash(self, block: int, data: memoryview) -> None:
        start = self._order[block] * BLOCK_BYTES
        self._map[start : start + BLOCK_BYTES] = bytes(data)
        if self._order[block] == len(self._order) - 1:
            self._page_out()

    def _page_out(self) -> None:
        self._map.flush()
        self._map.madvise(_MADV_PAGEOUT)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)

    def replace(self, block: int) -> memoryview:
        start = self._order[block] * BLOCK_BYTES
        found = self._map[start : start + BLOCK_BYTES]
        self._map.madvise(_MADV_PAGEOUT, start, BLOCK_BYTES)
        return memoryview(found)

    def fetch_parts(self, wanted: Sequence[tuple[int, int]], size: int) -> Iterable[Buffer]:
        """The kernel brings a page a fault, and is told to let it go again."""
        for block, offset in wanted:
            start = self._order[block] * BLOCK_BYTES + offset
            found = self._map[start : start + size]
            self._map.madvise(_MADV_PAGEOUT, start - start % mmap.PAGESIZE, mmap.PAGESIZE)
            yield found


SWAP = MemoryCheat(
    "swap",
    "has the kernel page a share out",
    lambda setting: agent_of(_Swap(setting)),
    modes=ALL_MODES,
)
