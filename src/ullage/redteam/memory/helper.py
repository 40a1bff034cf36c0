"""Helpers elsewhere: another machine holds the noise, and sends blocks or finished tags over some wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from ullage.errors import UsageError
from ullage.memory.agent.agent import Agent
from ullage.memory.agent.keeper import Part, pieces
from ullage.memory.noise.noise import BLOCK_BYTES, SPOT_BYTES, Buffer, Question
from ullage.memory.protocol.lanes import open_lanes
from ullage.memory.protocol.messages import (
    Declare,
    Done,
    Fill,
    Hello,
    Link,
    Map,
    Mapped,
    Received,
    Segments,
    Tags,
    Welcome,
)
from ullage.memory.protocol.questions import Ask, Chain, Spots  # fmt: skip
from ullage.memory.protocol.spots import spot_tags
from ullage.memory.protocol.wire import Connection, address_of
from ullage.memory.residency.snapshot import fetch
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, Setting, agent_of

_CAP_BYTES_PER_SECOND = 100e3
_WAIT = 300.0


class _Helped(MissingBlocksKeeper):
    """Has an honest agent elsewhere hold all the noise; blocks that are missing here come from there."""

    cap: float | None = None

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.helper is None:
            raise UsageError("This cheat needs --helper HOST:PORT, an honest agent on another machine.")
        self._helper = Connection.open(*address_of(setting.helper))
        self._helper.ask(Hello(), Welcome, _WAIT)
        self._mapped = False

    def _prepare(self, space: int, size: int) -> None:
        if not self._mapped:
            self._helper.ask(Map(space, size), Mapped, _WAIT)
            self._mapped = True

    def fill(self, space: int, size: int, seed: bytes, layers: int) -> None:
        self._prepare(space, size)
        self._helper.ask(Fill(space, size, seed, layers), Done, _WAIT)
        super().fill(space, size, seed, layers)

    def receive(self, space: int, parts: Sequence[Part]) -> list[bytes]:
        first, size = parts[0][0], sum(count for _, count, _ in parts)
        self._prepare(space, size)
        with open_lanes(self._helper, space, first, size, parts[0][1] // BLOCK_BYTES) as lanes:
            both = [
                (offset, count, _twice(take, lane))
                for (offset, count, take), (lane, _, _) in zip(parts, lanes, strict=True)
            ]
            tails = super().receive(space, both)
            self._helper.expect(Received, _WAIT)
        return tails

    def answer(self, space: int, question: Question) -> list[bytes]:
        self._fetched = {block: self._remote(space, block) for block in sorted(self.missing)}
        return super().answer(space, question)

    def spots(self, asked: Spots) -> list[bytes]:
        """One thread, since there is one connection to the helper; it is asked for single spots."""
        gather = self.gatherer(asked.space, SPOT_BYTES)
        return spot_tags(asked, range(asked.segments), gather)

    def fetch_parts(self, wanted: Sequence[tuple[int, int]], size: int) -> Iterable[Buffer]:
        for block, offset in wanted:
            if self.cap:
                time.sleep(min(size / self.cap, 0.02))
            at = block * BLOCK_BYTES + offset
            yield self._read(0, at, size)

    def _remote(self, space: int, block: int) -> memoryview:
        if self.cap:
            time.sleep(min(BLOCK_BYTES / self.cap, 0.02))  # late in any case: no need to sit it out
        return self._read(space, block * BLOCK_BYTES, BLOCK_BYTES)

    def _read(self, space: int, offset: int, size: int) -> memoryview:
        found = memoryview(bytearray(size))
        fetch(self._helper, space, offset, found)
        return found

    def replace(self, block: int) -> memoryview:
        return self._fetched[block]


def _twice(take: Callable[[memoryview], None], lane: Connection) -> Callable[[memoryview], None]:
    """Take a piece, and pass it on."""

    def both(buffer: memoryview) -> None:
        take(buffer)
        lane.send_run(buffer)

    return both


class _Capped(_Helped):
    cap = _CAP_BYTES_PER_SECOND


class _PartialTags(_Helped):
    """The helper returns whole tags of segments in which something is missing: 16 bytes each."""

    def answer(self, space: int, question: Question) -> list[bytes]:
        there = self._helper.ask(Ask(space, question), Tags, _WAIT).tags
        gone = self.missing
        return [
            there[number]
            if gone.intersection(question.segment(number))
            else self._tag(space, question, number)
            for number in range(question.segments)
        ]

    def spots(self, asked: Spots) -> list[bytes]:
        return list(self._helper.ask(asked, Tags, _WAIT).tags)

    def chain(self, asked: Chain) -> bytes:
        """A chain is 16 bytes as well, for who has all of the noise."""
        self._helper.ask(Declare(), Segments, _WAIT)
        return self._helper.ask(asked, Link, _WAIT).value


def _second_machine(setting: Setting) -> Agent:
    class Proxy(_PartialTags):
        """Holds nothing here: every answer is the other machine's."""

        def _drop(self, space: int) -> None:
            region = self.region(space)
            for offset, size in pieces(region.size):
                region.borrow(offset, size)[:] = bytes(size)

    everything = Setting(setting.size, 1.0, setting.folder, setting.helper, setting.threads)
    return agent_of(Proxy(everything))


_WIRE = "no other byte crosses the machine's wire from seed to verdict"
CAPPED_HELPER = MemoryCheat(
    "helper-capped",
    "fetches missing blocks from another machine behind a cap of 100 KB/s",
    lambda setting: agent_of(_Capped(setting)),
    modes=ALL_MODES,
)
HELPER = MemoryCheat(
    "helper-beside",
    "fetches missing blocks from another machine beside the cap",
    lambda setting: agent_of(_Helped(setting)),
    allowed_by=_WIRE,
    modes=ALL_MODES,
)
PARTIAL_TAGS = MemoryCheat(
    "helper-tags",
    "another machine returns 16-byte tags, which no cap stops",
    lambda setting: agent_of(_PartialTags(setting)),
    allowed_by=_WIRE,
    modes=ALL_MODES,
)
SECOND_MACHINE = MemoryCheat(
    "second-machine",
    "another machine answers in its place",
    _second_machine,
    allowed_by=_WIRE,
    modes=ALL_MODES,
    withholds=lambda _: 1.0,
)
