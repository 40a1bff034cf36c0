"""Several spaces as one region: what is erased at once cannot wait in one while another is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from ullage.memory.machine.gather import Gather, gather_by_reading
from ullage.memory.machine.region import Region


class TogetherRegion:
    """Regions one after the other, each a whole number of blocks, read and written as one.

    Runs that cross from one into the next are copied; all others go to the region itself.
    """

    def __init__(self, parts: Sequence[Region]) -> None:
        self._parts = list(parts)
        self._starts = list(accumulate((part.size for part in parts), initial=0))
        self.size = self._starts.pop()
        self.locked = all(part.locked for part in parts)

    def _cuts(self, offset: int, size: int) -> Iterator[tuple[Region, int, int]]:
        """(part, offset in it, bytes) that cover a run."""
        while size:
            index = bisect_right(self._starts, offset) - 1
            part, at = self._parts[index], offset - self._starts[index]
            count = min(size, part.size - at)
            yield part, at, count
            offset, size = offset + count, size - count

    def read(self, offset: int, size: int) -> memoryview:
        part, at, count = next(self._cuts(offset, size))
        if count == size:
            return part.read(at, size)
        found = bytearray()
        for part, at, count in self._cuts(offset, size):
            found += part.read(at, count)
        return memoryview(found)

    def gatherer(self, block_bytes: int) -> Gather:
        return gather_by_reading(self.read, block_bytes)

    def view(self) -> None:
        """Nothing: it is not at one address."""

    def borrow(self, offset: int, size: int) -> memoryview:
        part, at, count = next(self._cuts(offset, size))
        return part.borrow(at, size) if count == size else memoryview(bytearray(size))

    def commit(self, offset: int, data: memoryview) -> None:
        cuts = list(self._cuts(offset, len(data)))
        if len(cuts) == 1:
            part, at, _ = cuts[0]
            part.commit(at, data)
            return
        done = 0
        for part, at, count in cuts:
            buffer = part.borrow(at, count)
            buffer[:] = data[done : done + count]
            part.commit(at, buffer)
            done += count

    def grow(self, size: int) -> bool:
        return size <= self.size

    def keep(self, size: int) -> None:
        """The spaces are given back one by one."""

    def close(self) -> None:
        """As `keep`."""
