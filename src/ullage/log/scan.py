"""One pass over a published log: entry bundles against hash tiles, hash tiles against each other, entries
against the rules among them. What was signed is not known here; `verify.py` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field

from ullage.errors import MalformedError
from ullage.log.entries import (
    NANOSECONDS,
    CloseEntry,
    Entry,
    KeyEntry,
    OpenEntry,
    VerdictEntry,
    parse_entry,
)
from ullage.log.findings import FindingList
from ullage.log.record import HeaderPart
from ullage.log.source import LogSource, Read, read_ahead
from ullage.log.state import LogState
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    bundle_at,
    decode_bundle,
    tiles_of,
)
from ullage.merkle import HASH_BYTES, leaf_hash

_MAX_VERDICTS = 10_000


@dataclass
class LogScan:
    """The pass, and what it saw. Memory grows with the records in flight, not with the log."""

    source: LogSource
    size: int  # how many entries the checkpoint says there are
    report: FindingList
    marks: Set[int] = frozenset()  # sizes whose root is wanted besides that of `size`
    progress: Callable[[int, int], None] = lambda done, total: None  # entries read, and all
    state: LogState = field(default_factory=LogState)
    handovers: list[KeyEntry] = field(default_factory=list)  # those that broke no rule
    verdicts: list[tuple[int, str]] = field(default_factory=list)  # entry and digest, the first of them
    edge: TreeEdge = field(default_factory=TreeEdge)  # over the entries
    tile_edge: TreeEdge | None = None  # over the level-0 tiles, from the first that differs on
    first_difference: int | None = None  # the entry where entries and tiles part
    entries: int = 0
    roots: dict[int, bytes] = field(default_factory=dict)
    first_time: int | None = None
    last_time: int | None = None
    _full: dict[Tile, bytes] = field(default_factory=dict)  # tiles that the last bundle completed

    def run(self) -> None:
        """Read everything; findings go to `report`. Raises FaultError when the source fails."""
        files = read_ahead(self.source, _addresses(self.size))
        for number in range(-(-self.size // TILE_WIDTH)):
            bundle = bundle_at(number, self.size)
            tile = Tile(0, number, bundle.width)
            entries = self._entries(bundle, next(files))
            hashes = self._checked(tile, next(files))
            if not self._take(bundle, entries, hashes):
                return
            self.progress(self.edge.size, self.size)
            for completed in _completed_above(number, self.size):
                self._compare(completed, next(files))
        for tile in _partial_above(self.size):
            self._compare(tile, next(files))

    def _entries(self, bundle: Bundle, data: Read) -> list[bytes] | None:
        if data is None:
            self._finding(
                bundle, "entries-missing", "is not there: entries that were signed are withheld or lost"
            )
            return None
        try:
            if isinstance(data, bytes):
                return decode_bundle(data, bundle.width)
            problem = data
        except MalformedError as error:
            problem = error
        self._finding(bundle, "bundle-malformed", f"is malformed: {problem}")
        return None

    def _checked(self, tile: Tile, data: Read) -> bytes | None:
        if data is None:
            self._finding(tile, "tile-missing", "is not there")
            return None
        if isinstance(data, MalformedError) or len(data) != tile.width * HASH_BYTES:
            self._finding(tile, "tile-mismatch", f"does not have the length of {tile.width} hashes")
            return None
        return data

    def _take(self, bundle: Bundle, entries: list[bytes] | None, hashes: bytes | None) -> bool:
        """The next bundle with its tile; False when neither says what the leaves are."""
        first = bundle.index * TILE_WIDTH
        if entries is None:
            self.first_difference = first if self.first_difference is None else self.first_difference
            if hashes is None:
                return False
            leaves = hashes
            self.state.entries += bundle.width
        else:
            leaves = b"".join([leaf_hash(entry) for entry in entries])
            for index, entry in enumerate(entries, first):
                self._entry(index, entry)
            self.entries += len(entries)
        if hashes is not None and leaves != hashes and self.tile_edge is None:
            self.tile_edge = self.edge.copy()
            place = next(at for at in range(bundle.width) if not _same(leaves, hashes, at))
            self.first_difference = first + place
        if self.tile_edge is not None:
            self.tile_edge.append(leaves if hashes is None else hashes)
        self._full = dict(self._append(leaves))
        return True

    def _append(self, leaves: bytes) -> list[tuple[Tile, bytes]]:
        full: list[tuple[Tile, bytes]] = []
        end = self.edge.size + len(leaves) // HASH_BYTES
        for mark in sorted(mark for mark in self.marks if self.edge.size < mark < end):
            cut = (mark - self.edge.size) * HASH_BYTES
            full += self.edge.append(leaves[:cut])
            leaves = leaves[cut:]
            self.roots[mark] = self.edge.root()
        full += self.edge.append(leaves)
        if end in self.marks or end == self.size:
            self.roots[end] = self.edge.root()
        return full

    def _entry(self, index: int, data: bytes) -> None:
        try:
            entry = parse_entry(data)
        except MalformedError as error:
            self.report.add("entry-malformed", f"Entry {index}: {error}", index=index)
            self.state.entries += 1
            return
        breach = self.state.check(entry)
        if breach is not None:
            self.report.add(breach.rule.value, f"Entry {index}: {breach.sentence}.", index=index)
        elif isinstance(entry, KeyEntry):
            self.handovers.append(entry)
        elif isinstance(entry, VerdictEntry) and len(self.verdicts) < _MAX_VERDICTS:
            self.verdicts.append((index, entry.digest))
        self.state.accept(entry)
        time = _time_of(entry)
        if time is not None:
            self.first_time = time if self.first_time is None else min(self.first_time, time)
            self.last_time = time if self.last_time is None else max(self.last_time, time)

    def _compare(self, tile: Tile, data: Read) -> None:
        """A tile of level 1 or above with what the entries make of it."""
        expected = self._full.get(tile) or dict(self.edge.partial_tiles()).get(tile)
        hashes = self._checked(tile, data)
        if hashes is not None and hashes != expected and self.tile_edge is None:
            self._finding(tile, "tile-mismatch", "does not hold the hashes of the tiles below it")

    def _finding(self, address: Tile | Bundle, code: str, sentence: str) -> None:
        level = 0 if isinstance(address, Bundle) else address.level
        index = min(address.index << (TILE_HEIGHT * (level + 1)), self.size)
        self.report.add(code, f"{address.path} {sentence}.", index=index)


def _addresses(size: int) -> Iterator[Tile | Bundle]:
    """All files of a log in the order of the pass: each full tile right after the last one that it covers."""
    for number in range(-(-size // TILE_WIDTH)):
        bundle = bundle_at(number, size)
        yield bundle
        yield Tile(0, number, bundle.width)
        yield from _completed_above(number, size)
    yield from _partial_above(size)


def _completed_above(number: int, size: int) -> Iterator[Tile]:
    """The full tiles above level 0 that level-0 tile `number` completes."""
    level, count = 1, number + 1
    if count * TILE_WIDTH > size:
        return
    while count % TILE_WIDTH == 0:
        count //= TILE_WIDTH
        yield Tile(level, count - 1)
        level += 1


def _partial_above(size: int) -> Iterator[Tile]:
    return (tile for tile in tiles_of(size) if tile.level and tile.width < TILE_WIDTH)


def _same(one: bytes, other: bytes, place: int) -> bool:
    return one[place * HASH_BYTES :][:HASH_BYTES] == other[place * HASH_BYTES :][:HASH_BYTES]


def _time_of(entry: Entry) -> int | None:
    """Nanoseconds since 1970, where the entry has a time."""
    if isinstance(entry, CloseEntry):
        return entry.time_closed * NANOSECONDS
    if isinstance(entry, OpenEntry):
        return entry.time_received * NANOSECONDS
    return entry.created if isinstance(entry, HeaderPart) else None
