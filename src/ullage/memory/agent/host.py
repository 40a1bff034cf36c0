"""A server as an agent sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ullage.memory.machine.gather import Gather, gather_from_views
from ullage.memory.machine.region import Region
from ullage.memory.machine.segments import NO_CACHE, CacheShape, Segment, SegmentKind


class Readable(Protocol):
    """A named piece of the server's memory."""

    name: str
    size: int

    def read(self, offset: int, size: int) -> memoryview: ...


class Cached(Protocol):
    """Key-value memory: its tensors (keys, then values, layer by layer), and their shape
    `(layers, slots, heads, capacity, width, bytes an element)`."""

    @property
    def shape(self) -> tuple[int, int, int, int, int, int]: ...
    @property
    def pieces(self) -> Sequence[Readable]: ...


class Server(Protocol):
    """What a server offers; `ullage.server.maintenance.Maintenance` is one."""

    def stop(self, seconds: float) -> None: ...
    def begin_file(self, name: str, size: int) -> memoryview: ...
    def start(self) -> None: ...
    def abandon(self) -> None: ...
    def freeze(self, seconds: float) -> None: ...
    def thaw(self) -> bool: ...
    def weights(self) -> Sequence[Readable]: ...
    def copied(self) -> int: ...
    def cache(self) -> Cached | None: ...
    def tokens(self) -> Sequence[Sequence[int]]: ...


class SegmentRegion:
    """A segment as a region that is only read."""

    locked = False

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.size = source.size
        self.read = source.read

    def gatherer(self, block_bytes: int) -> Gather:
        return gather_from_views([self.view()], block_bytes)

    def view(self) -> memoryview:
        return self._source.read(0, self.size)

    def borrow(self, offset: int, size: int) -> memoryview:
        """Refused: a verifier does not write into a server."""
        raise PermissionError

    def commit(self, offset: int, data: memoryview) -> None:
        """Refused, as `borrow`."""
        raise PermissionError

    def grow(self, size: int) -> bool:
        return size <= self.size

    def keep(self, size: int) -> None:
        """The server frees its own memory."""

    def close(self) -> None:
        """As `keep`."""


class ServerHost:
    """A server's hooks, with its weights as segments."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.stop = server.stop
        self.begin_file = server.begin_file
        self.start = server.start
        self.abandon = server.abandon
        self.freeze = server.freeze
        self.thaw = server.thaw

    def segments(self) -> tuple[tuple[Segment, Region], ...]:
        """Weights, then key-value memory."""
        cache = self._server.cache()
        kinds = [(SegmentKind.WEIGHTS, piece) for piece in self._server.weights()]
        kinds += [(SegmentKind.KV_CACHE, piece) for piece in (cache.pieces if cache else ())]
        return tuple((Segment(kind, piece.name, piece.size), SegmentRegion(piece)) for kind, piece in kinds)

    def others(self) -> tuple[Segment, ...]:
        """Weights that the server computes on when they are not those of the files."""
        copied = self._server.copied()
        return (Segment(SegmentKind.OTHER, "weights in another precision", copied),) if copied else ()

    def sequences(self) -> tuple[CacheShape, tuple[tuple[int, ...], ...]]:
        """Shape of the key-value memory, and what it stands for."""
        cache = self._server.cache()
        if cache is None:
            return NO_CACHE, ()
        return CacheShape(*cache.shape), tuple(tuple(row) for row in self._server.tokens())
