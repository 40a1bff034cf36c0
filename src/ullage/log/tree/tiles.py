"""Tiles: how https://c2sp.org/tlog-tiles cuts a Merkle tree into files. Pure arithmetic, no I/O.

A *hash tile* holds up to 256 hashes of 32 bytes. At level 0 they are the leaf hashes; at level L each is the
root of a full tile of level L - 1. An *entry bundle* holds the entries whose leaf hashes are in the level-0
tile with the same index. Only the last tile of a level may be partial, and then it is in no tile above.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ullage.errors import MalformedError, UsageError
from ullage.merkle import HASH_BYTES

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_LEVEL = 63
MAX_TREE_SIZE = (1 << 63) - 1
MAX_TILE_BYTES = TILE_WIDTH * HASH_BYTES
MAX_BUNDLE_ENTRY_BYTES = (1 << 16) - 1
_LENGTH = struct.Struct(">H")
MAX_BUNDLE_BYTES = TILE_WIDTH * (_LENGTH.size + MAX_BUNDLE_ENTRY_BYTES)

_PATH = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Tile:
    """The address of a hash tile: `index` counts the tiles of a level, `width` its hashes (256: full)."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Where the tile lies under the log's prefix: `tile/<L>/<N>[.p/<W>]`."""
        return f"tile/{self.level}/{_encode_index(self.index)}{_suffix(self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The address of an entry bundle: entries 256 * `index` and following, `width` of them."""

    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Where the bundle lies under the log's prefix: `tile/entries/<N>[.p/<W>]`."""
        return f"tile/entries/{_encode_index(self.index)}{_suffix(self.width)}"


def parse_path(path: str) -> Tile | Bundle | None:
    """The address that `path` spells; None for anything else. Every address has one spelling."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    index = int("".join(digits.removeprefix("x") for digits in match[2].split("/")))
    width = int(match[3]) if match[3] else TILE_WIDTH
    if width > TILE_WIDTH:
        return None
    address = Bundle(index, width) if match[1] == "entries" else Tile(int(match[1]), index, width)
    if isinstance(address, Tile) and address.level > MAX_LEVEL:
        return None
    return address if address.path == path else None


def bundle_at(number: int, size: int) -> Bundle:
    """Bundle `number` of a log of `size` entries. Raises ValueError when it would be empty."""
    return Bundle(number, _width_at(0, number, size))


def tile_at(level: int, index: int, size: int) -> Tile:
    """Tile `index` of `level` in a tree of `size` leaves. Raises ValueError when it would be empty."""
    return Tile(level, index, _width_at(level, index, size))


def bundles_of(size: int, start: int = 0) -> Iterator[Bundle]:
    """The bundles of a log of `size` entries that hold the entries from `start` on."""
    for number in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        yield bundle_at(number, size)


def tiles_of(size: int) -> Iterator[Tile]:
    """All hash tiles of a tree of `size` leaves, level by level from the leaves."""
    return new_tiles(0, size)


def new_tiles(old_size: int, size: int) -> Iterator[Tile]:
    """The hash tiles of a tree of `size` leaves that one of `old_size` does not have."""
    if not 0 <= old_size <= size <= MAX_TREE_SIZE:
        raise ValueError(f"a tree of {size} leaves does not extend one of {old_size}")
    level = 0
    while count := hashes_at(level, size):
        before = hashes_at(level, old_size)
        if count > before:
            for index in range(before // TILE_WIDTH, -(-count // TILE_WIDTH)):
                yield tile_at(level, index, size)
        level += 1


def hashes_at(level: int, size: int) -> int:
    """How many hashes the tiles of `level` have together in a tree of `size` leaves."""
    return size >> (TILE_HEIGHT * level)


def hash_pairs(hashes: bytes) -> bytes:
    """The level of nodes above `hashes` (n * 32 bytes); a hash without a neighbour is left out."""
    sha256 = hashlib.sha256
    step = 2 * HASH_BYTES
    return b"".join(
        [
            sha256(b"\x01" + hashes[at : at + step]).digest()
            for at in range(0, len(hashes) // step * step, step)
        ]
    )


def full_tile_root(hashes: bytes) -> bytes:
    """The hash that stands for a full tile in the tile above it. Raises ValueError on a partial one."""
    if len(hashes) != MAX_TILE_BYTES:
        raise ValueError("only a full tile is hashed into the tile above it")
    while len(hashes) > HASH_BYTES:
        hashes = hash_pairs(hashes)
    return hashes


def check_tile(tile: Tile, data: bytes) -> None:
    """Raises MalformedError unless `data` has the length of `tile`."""
    if len(data) != tile.width * HASH_BYTES:
        raise MalformedError(
            f"{tile.path} has {len(data)} bytes where {tile.width} hashes of {HASH_BYTES} are expected."
        )


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Each entry with its length before it, uint16 big-endian. Raises UsageError on one that is too long."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_BUNDLE_ENTRY_BYTES:
            raise UsageError(
                f"An entry of a tiled log has at most {MAX_BUNDLE_ENTRY_BYTES} bytes, this one {len(entry)}."
            )
        parts += (_LENGTH.pack(len(entry)), entry)
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. Raises MalformedError unless they take up `data` exactly."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    while at < end and len(entries) < width:
        start = at + _LENGTH.size
        at = start + int.from_bytes(data[at:start], "big")
        if start > end or at > end:
            raise MalformedError(f"An entry bundle ends within its entry {len(entries)}.")
        entries.append(data[start:at])
    if len(entries) != width or at != end:
        raise MalformedError(f"An entry bundle does not hold exactly {width} entries.")
    return entries


def cut_bundle(data: bytes, width: int) -> bytes:
    """The first `width` entries of a wider bundle, in its bytes. Raises MalformedError when it has fewer."""
    at = 0
    for number in range(width):
        start = at + _LENGTH.size
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):
            raise MalformedError(f"An entry bundle ends within its entry {number}.")
    return data[:at]


def _width_at(level: int, index: int, size: int) -> int:
    known = 0 <= level <= MAX_LEVEL and index >= 0
    width = min(hashes_at(level, size) - index * TILE_WIDTH, TILE_WIDTH) if known else 0
    if width < 1:
        raise ValueError(f"a tree of {size} leaves has no tile {index} at level {level}")
    return width


def _encode_index(index: int) -> str:
    """Zero-padded groups of three digits, all but the last after an `x`: 1234067 is x001/x234/067."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _suffix(width: int) -> str:
    if not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"a tile is 1 to {TILE_WIDTH} wide, not {width}")
    return "" if width == TILE_WIDTH else f".p/{width}"
