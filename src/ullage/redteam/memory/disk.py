"""Reads its noise from disk: a share of the blocks lies in a file, past the page cache."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from ullage.memory.noise.noise import BLOCK_BYTES, Buffer
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, Setting, agent_of

_SECTOR_BYTES = 4096


class _Disk(MissingBlocksKeeper):
    """Prefetches nothing between questions, since that would be memory again; reads as questions come."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._path = setting.folder / "noise"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._direct = _open_direct(self._path)
        self._readers = ThreadPoolExecutor(8, thread_name_prefix="disk")
        self._order = {block: place for place, block in enumerate(sorted(self.missing))}

    def stash(self, block: int, data: memoryview) -> None:
        os.pwrite(self._file, data, self._order[block] * BLOCK_BYTES)
        if self._order[block] == len(self._order) - 1:
            os.fsync(self._file)
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)

    def replace(self, block: int) -> memoryview:
        if getattr(self._local, "page", None) is None:
            self._local.page = mmap.mmap(-1, BLOCK_BYTES)  # direct reads want page alignment
        found: mmap.mmap = self._local.page
        os.preadv(self._direct, [found], self._order[block] * BLOCK_BYTES)
        return memoryview(found)

    def fetch_parts(self, wanted: Sequence[tuple[int, int]], size: int) -> Iterable[Buffer]:
        """All of a step or question at once, and no more of each than a disk has to read."""
        if len(wanted) < 2:
            return [self._sector(block, offset, size) for block, offset in wanted]
        blocks, offsets = zip(*wanted, strict=True)
        return list(self._readers.map(self._sector, blocks, offsets, repeat(size)))

    def _sector(self, block: int, offset: int, size: int) -> bytes:
        if getattr(self._local, "sector", None) is None:
            self._local.sector = mmap.mmap(-1, _SECTOR_BYTES)
        start, at = divmod(offset, _SECTOR_BYTES)
        sector: mmap.mmap = self._local.sector
        os.preadv(self._direct, [sector], self._order[block] * BLOCK_BYTES + start * _SECTOR_BYTES)
        return sector[at : at + size]


def _open_direct(path: Path) -> int:
    """Past the page cache, which would be memory again; through it where the file system has no other way."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return os.open(path, os.O_RDONLY)


DISK = MemoryCheat(
    "disk",
    "keeps a share's noise in a file and reads it when asked",
    lambda setting: agent_of(_Disk(setting)),
    modes=ALL_MODES,
)
