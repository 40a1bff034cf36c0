"""What an agent does to its regions: map, fill, read back, tag. The honest way; cheats override it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from ullage.errors import FaultError, UllageError
from ullage.memory.agent.makers import Makers
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES, Gather
from ullage.memory.machine.region import DeviceRegion, HostRegion, JoinedRegion, Region, usable_cores
from ullage.memory.machine.together import TogetherRegion
from ullage.memory.noise.butterfly import PIECE_BYTES
from ullage.memory.noise.noise import (
    BLOCK_BYTES,
    SPOT_BYTES,
    STRATUM_BYTES,
    TAG_BYTES,
    Question,
    SegmentTag,
)
from ullage.memory.protocol.chain import walk
from ullage.memory.protocol.commitment import commitment, segment_digest
from ullage.memory.protocol.messages import Code
from ullage.memory.protocol.questions import Chain, Spots
from ullage.memory.protocol.spots import all_spot_tags

_PIECE_BYTES = 4 << 20
# A fill's pieces take about as long however many layers there are: one that nobody waits for ends soon.
_LEAST_PIECE_BYTES, _QUICK_LAYERS = PIECE_BYTES, 32
# GMAC looks up the bytes in pieces that a call's overhead vanishes beside.
_TAG_BYTES = 1 << 20

FIRST_SEGMENT = 128
"""The space of a server's first declared segment."""
EVERYTHING = 254
"""Main memory and all devices as one region, to be erased at once."""
WHOLE_MAP = 255
"""The space in which all declared segments lie one after the other."""

T = TypeVar("T")

Part = tuple[int, int, Callable[[memoryview], None]]
"""One lane of a stream: offset and bytes in the space, and what fills a buffer with the next of them."""


class RefusedError(UllageError):
    """The agent ends the connection with this code."""

    def __init__(self, code: Code) -> None:
        super().__init__(f"refused: {code.name.lower()}")
        self.code = code


def pieces(size: int, piece: int = _PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """(offset, bytes) that cover `size`."""
    for start in range(0, size, piece):
        yield start, min(piece, size - start)


class Keeper:
    """The regions of an agent, by space: 0 is main memory, 1 … are devices.

    `limits` is the most that each space may map. `threads` share the work on host cores. `is_wanted` is asked
    between pieces of long work, which ends with FaultError when nobody waits for it any more.
    """

    def __init__(
        self, limits: tuple[int, ...], devices: tuple[str, ...] = (), threads: int | None = None
    ) -> None:
        self.limits = limits
        self.threads = threads or usable_cores()
        self._devices = devices
        self._regions: dict[int, Region] = {}
        self._adopted: tuple[Region, ...] = ()
        self._whole: Region | None = None
        self._together: Region | None = None
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="memory")
        self.is_wanted: Callable[[], bool] = lambda: True

    def map(self, space: int, size: int) -> Region:
        """Map `size` bytes (0: all). A region that is there is used again, so that warm pages stay warm."""
        if space == EVERYTHING:
            if size:
                raise RefusedError(Code.IMPOSSIBLE)
            self._together = TogetherRegion([self.map(one, 0) for one in range(len(self.limits))])
            return self._together
        limit = self._limit(space)
        size = (size or limit) // BLOCK_BYTES * BLOCK_BYTES
        if size > limit or size == 0:
            raise RefusedError(Code.NO_MEMORY)
        found = self._regions.get(space)
        if found and found.grow(size):
            found.keep(size)
            return found
        if found:
            self.release(space)
        self._regions[space] = self._new_region(space, size)
        return self._regions[space]

    def _new_region(self, space: int, size: int) -> Region:
        try:
            if space:
                return DeviceRegion(size, self._devices[space - 1])
            region = HostRegion(size, self._limit(space))
        except FaultError as error:
            raise RefusedError(Code.NO_MEMORY) from error
        region.lock()
        return region

    def _limit(self, space: int) -> int:
        if space >= len(self.limits):
            raise RefusedError(Code.IMPOSSIBLE)
        return self.limits[space]

    def region(self, space: int, size: int = 0) -> Region:
        """The mapped region of a space. Raises RefusedError when it is smaller than `size`."""
        found = self._regions.get(space)
        if FIRST_SEGMENT <= space < FIRST_SEGMENT + len(self._adopted):
            found = self._adopted[space - FIRST_SEGMENT]
        if space in (EVERYTHING, WHOLE_MAP):
            found = self._together if space == EVERYTHING else self._whole
        if found is None or found.size < size:
            raise RefusedError(Code.NOT_MAPPED)
        return found

    def adopt(self, regions: tuple[Region, ...]) -> None:
        """Make declared segments readable, as spaces FIRST_SEGMENT and on, and together as WHOLE_MAP."""
        self._adopted = regions
        self._whole = JoinedRegion(regions) if regions else None

    def mapped(self, space: int) -> int:
        """Bytes that are mapped now."""
        found = self._regions.get(space)
        return found.size if found else 0

    def release(self, space: int, keep: int = 0) -> None:
        """Give memory back to the system, all but the first `keep` bytes.

        Of EVERYTHING the devices go back whole, and as much of main memory as is to be given back in all.
        """
        if space == EVERYTHING:
            given = (self._together.size if self._together else 0) - keep
            self._together = None
            for device in range(1, len(self.limits)):
                self.release(device)
            space, keep = 0, max(0, self.mapped(0) - given)
        found = self._regions.get(space)
        if found:
            found.keep(keep)
            if not keep:
                found.close()
                del self._regions[space]

    def fill(self, space: int, size: int, seed: bytes, layers: int) -> None:
        """Write the noise of the seed over the first `size` bytes."""
        region, is_wanted = self.region(space, size), self.is_wanted
        quick = _PIECE_BYTES * _QUICK_LAYERS // max(_QUICK_LAYERS, layers)
        piece = max(_LEAST_PIECE_BYTES, quick // PIECE_BYTES * PIECE_BYTES)

        def work(worker: int) -> None:
            noise = makers.mine()
            for offset, count in islice(pieces(size, piece), worker, None, self.threads):
                stop_unless(is_wanted)
                buffer = region.borrow(offset, count)
                noise.write(offset, buffer)
                region.commit(offset, buffer)

        with ThreadPoolExecutor(self.threads, "fill") as pool, Makers(seed, layers, size) as makers:
            begun = [pool.submit(work, worker) for worker in range(self.threads)]
            wait(begun)
        for one in begun:
            one.result()

    def receive(self, space: int, parts: Sequence[Part]) -> list[bytes]:
        """Write what comes over the lanes of a stream where it belongs, all lanes at once.

        Returns the last bytes of each, a tag's worth: the receipt.
        """
        region = self.region(space, max(offset + size for offset, size, _ in parts))

        def work(part: Part) -> bytes:
            offset, size, take = part
            tail = b""
            for start, count in pieces(size):
                buffer = region.borrow(offset + start, count)
                take(buffer)
                tail = bytes(buffer[-TAG_BYTES:])
                region.commit(offset + start, buffer)
            return tail

        # A thread each: a lane that waited for another would hold up its sender.
        with ThreadPoolExecutor(len(parts), thread_name_prefix="lane") as pool:
            return list(pool.map(work, parts))

    def reader(self, space: int) -> Callable[[int, int], memoryview]:
        """A function from (offset, bytes) to what the region holds there."""
        return self.region(space).read

    def gatherer(self, space: int, block_bytes: int) -> Gather:
        """What reads scattered blocks of this size from the region."""
        return self.region(space).gatherer(block_bytes)

    def fetch(self, space: int, offset: int, size: int) -> memoryview:
        """What the region holds there."""
        self.region(space, offset + size)
        return self.reader(space)(offset, size)

    def answer(self, space: int, question: Question) -> list[bytes]:
        """One tag a segment."""
        self.region(space, question.asked_bytes)
        return self._spread(lambda number: self._tag(space, question, number), range(question.segments))

    def _tag(self, space: int, question: Question, number: int) -> bytes:
        stop_unless(self.is_wanted)
        tag, read = SegmentTag(question.key, question.round_number, number), self.reader(space)
        blocks = question.segment(number)
        for start, count in pieces(len(blocks) * BLOCK_BYTES, _TAG_BYTES):
            tag.update(read(blocks.start * BLOCK_BYTES + start, count))
        return tag.tag()

    def digest(self, spaces: Sequence[int]) -> bytes:
        """The commitment to what these spaces hold."""

        def one(space: int) -> bytes:
            read = self.reader(space)
            return segment_digest(read(*piece) for piece in pieces(self.region(space).size))

        return commitment(self._spread(one, spaces))

    def spots(self, asked: Spots) -> list[bytes]:
        """One tag a segment of the strata."""
        self.region(asked.space, asked.strata * STRATUM_BYTES)
        gather = self.gatherer(asked.space, SPOT_BYTES)
        return all_spot_tags(asked, lambda: gather, self._pool, self.threads)

    def chain(self, asked: Chain) -> bytes:
        """Walk the latency-bound chain."""
        self.region(asked.space, asked.blocks * CHAIN_BLOCK_BYTES)
        gather = self.gatherer(asked.space, CHAIN_BLOCK_BYTES)
        return walk(asked, gather, lambda: stop_unless(self.is_wanted))

    def _spread(self, work: Callable[[int], T], items: Iterable[int]) -> list[T]:
        """In order, when all have ended: what went wrong in one leaves none behind that still writes."""
        begun = [self._pool.submit(work, item) for item in items]
        wait(begun)
        return [one.result() for one in begun]


def stop_unless(is_wanted: Callable[[], bool]) -> None:
    """Between two pieces of work. Raises FaultError if nobody waits for the rest."""
    if not is_wanted():
        raise FaultError("The verifier went away in the middle of its work; the rest was left.")
