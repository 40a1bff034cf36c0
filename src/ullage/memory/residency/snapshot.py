"""A dump beside the declared model: what is as declared, and what else is there, by size and entropy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ullage.errors import MalformedError, UndecidedError
from ullage.memory.agent.keeper import FIRST_SEGMENT
from ullage.memory.machine.segments import Segment
from ullage.memory.protocol.messages import MAX_DUMP_BYTES, Done, Dump
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.declared import Source
from ullage.memory.residency.density import byte_entropy

_DUMP_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One segment: bytes that are as declared, bytes that are not, and the entropy (bits a byte) of those."""

    name: str
    size: int
    matching: int
    foreign: int
    foreign_entropy: float
    zeros: int
    """Foreign bytes that are zero: empty rather than hidden."""


def compare(name: str, size: int, found: Iterator[memoryview], declared: Source) -> Finding:
    """Compare the pieces of a segment, in order, with what it should hold."""
    at = matching = zeros = 0
    histogram = np.zeros(256, np.int64)
    for piece in found:
        seen = np.frombuffer(piece, np.uint8)
        expected = np.frombuffer(declared.read(at, len(piece)), np.uint8)
        foreign = seen[seen != expected]
        matching += len(seen) - len(foreign)
        histogram += np.bincount(foreign, minlength=256)
        at += len(piece)
    zeros = int(histogram[0])
    return Finding(name, size, matching, size - matching, byte_entropy(histogram.tolist()), zeros)


def snapshot(connection: Connection, parts: Sequence[tuple[int, Segment, Source]]) -> list[Finding]:
    """Dump segments, each with its number in the map, through the agent and compare.

    The dump is the prover's word: what stands behind it is that the same bytes answer timed chains.
    """
    return [
        compare(segment.name, segment.size, dump(connection, FIRST_SEGMENT + index, segment.size), source)
        for index, segment, source in parts
    ]


def dump(connection: Connection, space: int, size: int) -> Iterator[memoryview]:
    """All of a space, piece by piece. Raises as `fetch`."""
    for offset in range(0, size, MAX_DUMP_BYTES):
        piece = memoryview(bytearray(min(MAX_DUMP_BYTES, size - offset)))
        fetch(connection, space, offset, piece)
        yield piece


def dump_whole(connection: Connection, space: int, size: int, until: float) -> memoryview:
    """All of a space at once. Raises as `fetch`, and UndecidedError when it is not there by `until`, in
    seconds of the monotonic clock."""
    whole = np.empty(size, np.uint8).data  # a bytearray would be zeroed first
    for offset in range(0, size, MAX_DUMP_BYTES):
        if time.monotonic() > until:
            raise UndecidedError("Key-value memory did not come while it stood still: nothing can be said.")
        fetch(connection, space, offset, whole[offset : offset + MAX_DUMP_BYTES])
    return whole


def fetch(connection: Connection, space: int, offset: int, target: memoryview) -> None:
    """Fill `target` with what the space holds there. Raises as `Connection.ask` and `receive_run`, and
    MalformedError for an agent that would send another amount."""
    sent = connection.ask(Dump(space, offset, len(target)), Done, _DUMP_SECONDS).size
    if sent != len(target):
        raise MalformedError(f"A dump of {len(target)} bytes came back with {sent}.")
    connection.receive_run(target, _DUMP_SECONDS)
