"""The Merkle tree of a log over its tiles: growing it, and proofs out of it. No I/O of its own.

`TreeEdge` is for who appends or reads everything in order: it keeps the unfinished tile of each level.
`TileTree` is for who wants one proof out of millions of entries: it fetches the few tiles that this takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from ullage.errors import MalformedError
from ullage.log.tree.tiles import (
    MAX_TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    check_tile,
    full_tile_root,
    hash_pairs,
    hashes_at,
    tile_at,
)
from ullage.merkle import EMPTY_ROOT, HASH_BYTES, node_hash

Fetch = Callable[[int, int, int], bytes]  # (level, index, width) -> the hashes of that tile, width * 32 bytes


class TreeEdge:
    """The right edge of a growing tree: its size and the unfinished tile of each level.

    Appending costs 255/256 node hashes a leaf, all of them when a tile fills up; the root costs at most 255
    for each level.
    """

    def __init__(self) -> None:
        self.size = 0
        self._partial: list[bytearray] = []

    @classmethod
    def load(cls, size: int, fetch: Fetch) -> TreeEdge:
        """The edge of a tree of `size` leaves from its partial tiles. Raises MalformedError."""
        edge = cls()
        edge.size = size
        level = 0
        while count := hashes_at(level, size):
            width = count % TILE_WIDTH
            data = fetch(level, count // TILE_WIDTH, width) if width else b""
            if width:
                check_tile(Tile(level, count // TILE_WIDTH, width), data)
            edge._partial.append(bytearray(data))
            level += 1
        return edge

    def append(self, leaves: bytes) -> list[tuple[Tile, bytes]]:
        """Add leaf hashes (n * 32 bytes); returns the tiles that are full now, those of low levels first."""
        if len(leaves) % HASH_BYTES:
            raise ValueError("leaf hashes have 32 bytes each")
        self.size += len(leaves) // HASH_BYTES
        full: list[tuple[Tile, bytes]] = []
        level = 0
        while leaves:
            if level == len(self._partial):
                self._partial.append(bytearray())
            pending = self._partial[level]
            # Index of the first hash of `pending` among those of its level, before `leaves` came in.
            first = hashes_at(level, self.size) - (len(pending) + len(leaves)) // HASH_BYTES
            pending += leaves
            above = bytearray()
            whole = len(pending) // MAX_TILE_BYTES * MAX_TILE_BYTES
            for at in range(0, whole, MAX_TILE_BYTES):
                data = bytes(pending[at : at + MAX_TILE_BYTES])
                full.append((Tile(level, (first + at // HASH_BYTES) // TILE_WIDTH), data))
                above += full_tile_root(data)
            del pending[:whole]
            leaves = bytes(above)
            level += 1
        return full

    def partial_tiles(self) -> Iterator[tuple[Tile, bytes]]:
        """The unfinished tiles, those that are not empty."""
        for level, hashes in enumerate(self._partial):
            if hashes:
                width = len(hashes) // HASH_BYTES
                yield Tile(level, hashes_at(level, self.size) // TILE_WIDTH, width), bytes(hashes)

    def root(self) -> bytes:
        """The root of the tree so far (RFC 6962 §2.1)."""
        root: bytes | None = None
        for hashes in self._partial:
            for subtree in _edge_subtrees(bytes(hashes)):
                root = subtree if root is None else node_hash(subtree, root)
        return EMPTY_ROOT if root is None else root

    def copy(self) -> TreeEdge:
        other = TreeEdge()
        other.size, other._partial = self.size, [bytearray(hashes) for hashes in self._partial]
        return other


class TileTree:
    """A tree of `size` leaves over tiles; the `cached` tiles used last are kept with their inner nodes.

    Nothing fetched is trusted more than its source: check a proof against a root that was signed.
    """

    def __init__(self, size: int, fetch: Fetch, cached: int = 1024) -> None:
        self.size = size
        self._fetch = fetch
        self._cached = cached
        self._cache: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    def leaf(self, index: int) -> bytes:
        """The leaf hash of entry `index`. Raises ValueError, and what `fetch` raises."""
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """The root of the tree, or of what it was at an earlier `size`."""
        size = self.size if size is None else size
        if not 0 <= size <= self.size:
            raise ValueError(f"a tree of {self.size} entries was never one of {size}")
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """PATH(index, D[size]) of RFC 6962 §2.1.1, from the leaf's sibling up."""
        if not 0 <= index < self.size:
            raise ValueError(f"entry {index} is not in a tree of {self.size} entries")
        path: list[bytes] = []
        start, end = 0, self.size
        while end - start > 1:
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, old_size: int) -> tuple[bytes, ...]:
        """PROOF(old_size, D[size]) of RFC 6962 §2.1.2; empty for an old size of 0 or the same size."""
        if not 0 <= old_size <= self.size:
            raise ValueError(f"a tree of {self.size} entries does not extend one of {old_size}")
        if old_size in (0, self.size):
            return ()
        path: list[bytes] = []
        start, end, known = 0, self.size, True
        while end != old_size:
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            if old_size <= middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start, known = middle, False
        if not known:
            path.append(self._range(start, end))
        return tuple(reversed(path))

    def _range(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) where start is a multiple of the least power of two >= end - start."""
        root: bytes | None = None
        length = end - start
        while length:
            height = (length & -length).bit_length() - 1  # the smallest complete subtree is the rightmost
            length -= 1 << height
            node = self._node(height, (start + length) >> height)
            root = node if root is None else node_hash(node, root)
        if root is None:
            raise ValueError("an empty range has no root")
        return root

    def _node(self, height: int, index: int) -> bytes:
        """The root of the complete subtree over leaves [index << height, (index + 1) << height)."""
        level, rise = divmod(height, TILE_HEIGHT)
        tile, place = (index << rise) // TILE_WIDTH, index % (TILE_WIDTH >> rise)
        nodes = self._cache.get((level, tile))
        if nodes is None:
            nodes = self._expand(level, tile)
        else:
            self._cache.move_to_end((level, tile))
        return nodes[rise][place * HASH_BYTES : (place + 1) * HASH_BYTES]

    def _expand(self, level: int, index: int) -> list[bytes]:
        """The nodes within a tile: at r those of height r above the tile's hashes, r < 8."""
        address = tile_at(level, index, self.size)
        data = self._fetch(level, index, address.width)
        check_tile(address, data)
        nodes = [data]
        for _ in range(TILE_HEIGHT - 1):
            nodes.append(hash_pairs(nodes[-1]))
        self._cache[level, index] = nodes
        if len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return nodes


def _edge_subtrees(hashes: bytes) -> list[bytes]:
    """Roots of the complete subtrees that a partial tile decomposes into, the rightmost (smallest) first."""
    if len(hashes) >= MAX_TILE_BYTES:
        raise MalformedError("a partial tile has fewer than 256 hashes")
    subtrees: list[bytes] = []
    while hashes:
        if len(hashes) // HASH_BYTES % 2:
            subtrees.append(hashes[-HASH_BYTES:])
            hashes = hashes[:-HASH_BYTES]
        hashes = hash_pairs(hashes)
    return subtrees
