"""What cheats against memory proofs have in common: a keeper that lies, and a record of what it keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ullage.memory.agent.agent import Agent, Host
from ullage.memory.agent.inventory import Inventory
from ullage.memory.agent.keeper import Keeper, Part, stop_unless
from ullage.memory.erasure import MODES
from ullage.memory.machine.gather import Blocks, Gather, Numbers
from ullage.memory.machine.region import Region
from ullage.memory.machine.segments import NO_CACHE, CacheShape, Segment
from ullage.memory.noise.butterfly import ButterflyNoise
from ullage.memory.noise.noise import BLOCK_BYTES, Buffer

CHAIN = "chain"
"""Mode `stream`, asked for by chains."""
SPOTS = "spots"
"""Mode `rate-gap`, asked for by spots."""
HOLD = "hold"
"""The mode in which a cheat answers chains over noise, as one that serves would."""


@dataclass(frozen=True)
class Setting:
    """Where a cheat runs: bytes of the region, the share that it keeps for itself, a folder on disk for its
    use, the address of an honest agent elsewhere that helps it, and how many cores it has."""

    size: int
    share: float
    folder: Path
    helper: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class MemoryCheat:
    """One way to cheat.

    `withholds` is the share of the machine's memory that it really keeps at share x; `allowed_by` names the
    assumption under which it may pass, or is None for one that has to be caught.
    """

    name: str
    summary: str
    build: Callable[[Setting], Agent]
    allowed_by: str | None = None
    modes: tuple[str, ...] = (*MODES, CHAIN, SPOTS)
    """Of `ALL_MODES`."""
    machine_bytes: Callable[[Setting], int] | None = None
    """The machine as declared or inspected; None: the region is the machine."""
    withholds: Callable[[Setting], float] = lambda setting: setting.share


_FETCHED_TOGETHER = 256

ALL_MODES = (*MODES, CHAIN, SPOTS, HOLD)


class MissingBlocksKeeper(Keeper):
    """Keeps a share of the region for itself: those blocks are not written, and come from `replace`.

    The secret takes the place of the noise; here it is zeros, which cost the same memory.
    """

    concentrated = False

    def __init__(self, setting: Setting) -> None:
        super().__init__((setting.size,), (), setting.threads)
        self.setting = setting
        self.noise: Callable[[], ButterflyNoise] | None = None
        blocks = setting.size // BLOCK_BYTES
        count = max(1, round(setting.share * blocks))
        if self.concentrated:
            self.missing = frozenset(range(blocks - count, blocks))
        else:
            self.missing = frozenset(index * blocks // count for index in range(count))
        self._local = threading.local()

    def replace(self, block: int) -> memoryview:
        """A block that is not in memory, as well as this cheat can: rebuilt from the seed."""
        if self.noise is None:
            return memoryview(bytes(BLOCK_BYTES))
        if getattr(self._local, "made_by", None) is not self.noise:
            self._local.noise, self._local.made_by = self.noise(), self.noise
            self._local.buffer = memoryview(bytearray(BLOCK_BYTES))
        self._local.noise.write(block * BLOCK_BYTES, self._local.buffer)
        buffer: memoryview = self._local.buffer
        return buffer

    def stash(self, block: int, data: memoryview) -> None:
        """Put a missing block elsewhere while the region is filled. The base cheat does not."""

    def forget(self) -> None:
        """A new fill begins: what was stashed is of no use."""

    def fill(self, space: int, size: int, seed: bytes, layers: int) -> None:
        super().fill(space, size, seed, layers)
        self.noise = lambda: ButterflyNoise(seed, layers)
        self._drop(space)

    def receive(self, space: int, parts: Sequence[Part]) -> list[bytes]:
        tails = super().receive(space, parts)
        self.noise = None
        self._drop(space)
        return tails

    def _drop(self, space: int) -> None:
        self.forget()
        region = self.region(space)
        zeros = memoryview(bytes(BLOCK_BYTES))
        for block in sorted(self.missing):
            self.stash(block, region.read(block * BLOCK_BYTES, BLOCK_BYTES))
            region.borrow(block * BLOCK_BYTES, BLOCK_BYTES)[:] = zeros

    def reader(self, space: int) -> Callable[[int, int], memoryview]:
        region, missing = self.region(space), self.missing

        def read(offset: int, size: int) -> memoryview:
            first, last = offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES
            gone = [block for block in range(first, last + 1) if block in missing]
            if not gone:
                return region.read(offset, size)
            whole = bytearray(region.read(first * BLOCK_BYTES, (last - first + 1) * BLOCK_BYTES))
            for block in gone:
                at = (block - first) * BLOCK_BYTES
                whole[at : at + BLOCK_BYTES] = self.replace(block)
            start = offset - first * BLOCK_BYTES
            return memoryview(whole)[start : start + size]

        return read

    def gatherer(self, space: int, block_bytes: int) -> Gather:
        """Of what is asked for only what is missing comes from elsewhere: no time is lost on the rest."""
        honest, blocks = super().gatherer(space, block_bytes), self.region(space).size // BLOCK_BYTES
        missing = np.isin(np.arange(blocks), np.fromiter(self.missing, np.intp))
        parts = BLOCK_BYTES // block_bytes

        def gather(numbers: Numbers, out: Blocks) -> None:
            honest(numbers, out)
            inside = numbers // parts
            gone = np.flatnonzero(missing[inside])
            for start in range(0, len(gone), _FETCHED_TOGETHER):
                if start:  # a cheat that is too late would work on, and keep the next verifier waiting
                    stop_unless(self.is_wanted)
                rows = gone[start : start + _FETCHED_TOGETHER]
                offsets = (numbers[rows] % parts * block_bytes).tolist()
                wanted = list(zip(inside[rows].tolist(), offsets, strict=True))
                for row, found in zip(rows.tolist(), self.fetch_parts(wanted, block_bytes), strict=True):
                    out[row] = np.frombuffer(found, np.uint8)

        return gather

    def fetch_parts(self, wanted: Sequence[tuple[int, int]], size: int) -> Iterable[Buffer]:
        """Small blocks of `size` bytes that are missing, of a question or of a step: (block, offset in it).

        Rebuilt from the seed, and no more than these.
        """
        found = np.zeros((len(wanted), size), np.uint8)
        if self.noise and wanted:
            numbers = [(block * BLOCK_BYTES + offset) // size for block, offset in wanted]
            self.noise().gather(np.array(numbers), found)
        return [row.data for row in found]

    def cut_parts(self, wanted: Sequence[tuple[int, int]], size: int) -> Iterable[Buffer]:
        """The same out of what `replace` brings, for cheats that have whole blocks."""
        for block, offset in wanted:
            yield self.replace(block)[offset : offset + size]


def plain_inventory(size: int) -> Callable[[], Inventory]:
    """A machine that is its region and nothing else."""
    return lambda: Inventory(size, "the cheat's word", size, ())


def agent_of(keeper: Keeper, machine_bytes: int | None = None, host: Host | None = None) -> Agent:
    """An agent that looks honest from outside."""
    size = keeper.limits[0]
    return Agent(keeper, plain_inventory(machine_bytes or size), host)


class StillHost:
    """A server that only stands still: for maps that lie."""

    def stop(self, seconds: float) -> None:
        """Nothing runs."""

    def begin_file(self, name: str, size: int) -> memoryview:
        """Room that nobody keeps."""
        return memoryview(bytearray(size))

    def start(self) -> None:
        """As `stop`."""

    def abandon(self) -> None:
        """As `stop`."""

    def freeze(self, seconds: float) -> None:
        """As `stop`."""

    def thaw(self) -> bool:
        return True

    def segments(self) -> tuple[tuple[Segment, Region], ...]:
        return ()

    def others(self) -> tuple[Segment, ...]:
        return ()

    def sequences(self) -> tuple[CacheShape, tuple[tuple[int, ...], ...]]:
        return NO_CACHE, ()
