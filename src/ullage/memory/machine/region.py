"""Memory that an agent maps for noise: host pages locked into RAM, or a device's memory through torch."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from ullage.errors import FaultError
from ullage.memory.machine.gather import (
    CHAIN_BLOCK_BYTES,
    Blocks,
    Gather,
    Numbers,
    gather_by_reading,
    gather_from_views,
    join_reads,
    whole_blocks,
)
from ullage.memory.noise.noise import BLOCK_BYTES

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mlock.argtypes = _LIBC.munlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Region(Protocol):
    """A run of bytes that can be written and read in pieces, by several threads at once."""

    size: int
    locked: bool

    def borrow(self, offset: int, size: int) -> memoryview:
        """A buffer to fill with what belongs at `offset`; `commit` makes it so."""

    def commit(self, offset: int, data: memoryview) -> None: ...

    def read(self, offset: int, size: int) -> memoryview:
        """The bytes at `offset`. Valid until this thread's next call."""

    def gatherer(self, block_bytes: int) -> Gather:
        """What reads scattered blocks of this size. Valid until the region changes its size."""

    def view(self) -> memoryview | None:
        """All of it, where this process has it at one address. Valid as `gatherer`."""

    def grow(self, size: int) -> bool:
        """Take up to the first size back; False if the region was never that large."""

    def keep(self, size: int) -> None:
        """Give everything beyond the first `size` bytes back to the system."""

    def close(self) -> None: ...


class HostRegion:
    """Anonymous memory on huge pages where the system has them, locked if it may be.

    Addresses for `capacity` bytes are set aside, so that it can grow in place; pages come when it does.
    """

    def __init__(self, size: int, capacity: int = 0) -> None:
        if size % BLOCK_BYTES:
            raise ValueError("a region is a whole number of blocks")
        self.size = size
        self._capacity = max(size, capacity - capacity % BLOCK_BYTES)
        self.locked = False
        try:
            self._map = mmap.mmap(
                -1, max(self._capacity, BLOCK_BYTES), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        except OSError as error:
            raise FaultError(f"{size >> 20} MiB cannot be mapped: {error.strerror}.") from error
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._view = memoryview(self._map)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def lock(self) -> bool:
        """Touch every page and keep it in RAM; False if the system does not allow that."""
        self.locked = self.size > 0 and _LIBC.mlock(self._address, self.size) == 0
        return self.locked

    def borrow(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]

    def commit(self, offset: int, data: memoryview) -> None:
        """Nothing to do: `borrow` hands out the region itself."""

    def read(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]

    def gatherer(self, block_bytes: int) -> Gather:
        return gather_from_views([self.view()], block_bytes)

    def view(self) -> memoryview:
        return self._view[: self.size]

    def grow(self, size: int) -> bool:
        if not self.size < size <= self._capacity:
            return size <= self.size
        self.size = size
        self.lock()
        return True

    def keep(self, size: int) -> None:
        size = max(0, size - size % BLOCK_BYTES)
        if size < self.size:
            _LIBC.munlock(self._address + size, self.size - size)
            self._map.madvise(mmap.MADV_DONTNEED, size, self.size - size)
            self.size = size

    def close(self) -> None:
        self.keep(0)
        self._view.release()


class DeviceRegion:
    """Memory of a torch device. Host threads reach it through a staging buffer each."""

    def __init__(self, size: int, device: str) -> None:
        import torch

        self.size = size
        self.locked = device != "cpu"  # a device does not swap
        self._torch = torch
        try:
            self._memory: Any = torch.empty(size, dtype=torch.uint8, device=device)
        except RuntimeError as error:
            raise FaultError(f"{size >> 20} MiB cannot be mapped on {device}: {error}") from error
        self._local = threading.local()

    def _staging(self, size: int) -> Any:
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            pinned = self._memory.device.type == "cuda"
            buffer = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=pinned)
            self._local.buffer = buffer
        return buffer[:size]

    def borrow(self, offset: int, size: int) -> memoryview:
        return memoryview(self._staging(size).numpy())

    def commit(self, offset: int, data: memoryview) -> None:
        import numpy as np

        source = self._torch.from_numpy(np.asarray(data))
        self._memory[offset : offset + len(data)].copy_(source)

    def read(self, offset: int, size: int) -> memoryview:
        staging = self._staging(size)
        staging.copy_(self._memory[offset : offset + size])
        return memoryview(staging.numpy())

    def gatherer(self, block_bytes: int) -> Gather:
        blocks = self._memory[: self.size - self.size % block_bytes].view(-1, block_bytes)
        torch = self._torch

        def gather(numbers: Numbers, out: Blocks) -> None:
            wanted = torch.from_numpy(numbers).to(blocks.device)
            torch.from_numpy(out).copy_(blocks.index_select(0, wanted))

        return gather

    def view(self) -> None:
        """Nothing: it is the device's memory."""

    def grow(self, size: int) -> bool:
        return size <= self.size

    def keep(self, size: int) -> None:
        size = max(0, size - size % BLOCK_BYTES)
        if size < self.size:
            self._memory = (
                self._memory[:size].clone() if size else self._torch.empty(0, dtype=self._torch.uint8)
            )
            self.size = size
            if self._torch.cuda.is_available():
                self._torch.cuda.empty_cache()

    def close(self) -> None:
        self.keep(0)


class JoinedRegion:
    """Regions one after the other, each cut to a whole number of chain blocks; only read."""

    locked = False

    def __init__(self, parts: Sequence[Region]) -> None:
        sizes = [part.size for part in parts]
        self._parts = list(parts)
        self.size = sum(map(whole_blocks, sizes))
        self.read = join_reads([part.read for part in parts], sizes)

    def gatherer(self, block_bytes: int) -> Gather:
        """Blocks of a chain only: the parts are cut to these."""
        if block_bytes != CHAIN_BLOCK_BYTES:
            raise ValueError("segments are cut to the blocks of a chain")
        views = [part.view() for part in self._parts]
        if None in views:
            return gather_by_reading(self.read, block_bytes)
        return gather_from_views([view for view in views if view is not None], block_bytes)

    def view(self) -> None:
        """Nothing: its parts lie apart."""

    def borrow(self, offset: int, size: int) -> memoryview:
        """Refused: this is a view for challenges."""
        raise PermissionError

    def commit(self, offset: int, data: memoryview) -> None:
        """Refused, as `borrow`."""
        raise PermissionError

    def grow(self, size: int) -> bool:
        return size <= self.size

    def keep(self, size: int) -> None:
        """Its parts belong to others."""

    def close(self) -> None:
        """As `keep`."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
