"""From entries to what strangers see: tiles, bundles, and the checkpoint over them.

Tiles are derived: whatever is lost here can be made again from the journal.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ullage.log.files import replace, replace_all
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import TILE_WIDTH, Bundle, Tile, encode_bundle
from ullage.merkle import leaf_hash

CHECKPOINT, PUBLIC_KEY = "checkpoint", "log.pub"
_STEP = 2048  # entries that are hashed at once while appends may be waiting


@dataclass(frozen=True)
class Publication:
    """What has to be on disk for one checkpoint and was not there for the one before."""

    checkpoint: Checkpoint
    tiles: Sequence[tuple[Tile, bytes]]
    first_bundle: int
    entries: Sequence[bytes]  # from the first entry of that bundle to the checkpoint's last


class Publisher:
    """Grows the tree and gathers what the next checkpoint needs. One user at a time; no I/O."""

    def __init__(self, edge: TreeEdge, published: int, entries: Sequence[bytes]) -> None:
        """`edge` is the tree before the bundle that is unfinished in a checkpoint of `published` entries.

        `entries` are all that come after it; those after the checkpoint are what will be written.
        """
        self._edge = edge
        self._published = published
        self._full: list[tuple[Tile, bytes]] = []
        self._entries: list[bytes] = []
        self._base = edge.size  # index of the first of `_entries`
        self._entries += entries  # a log that was left with many of them goes on before they are hashed

    @property
    def size(self) -> int:
        """Entries so far."""
        return self._base + len(self._entries)

    def add(self, entries: Sequence[bytes]) -> None:
        """Take entries that are durable now. They are hashed in batches: one alone should cost nothing."""
        self._entries += entries
        if self.behind:
            self.catch_up()

    @property
    def behind(self) -> bool:
        """Whether there is a bundle that was not hashed yet."""
        return self.size - self._edge.size >= TILE_WIDTH

    def catch_up(self) -> None:
        """Hash some of what was added, which takes a few milliseconds at most."""
        self._hash(_STEP)

    def take(self, log_id: str) -> Publication:
        """All that a checkpoint over what was added so far needs; the next call returns what comes later."""
        self._hash(self.size)
        done = self._base // TILE_WIDTH
        publication = Publication(
            Checkpoint(log_id, self.size, self._edge.root()),
            [*self._full, *self._edge.partial_tiles()],
            done,
            self._entries.copy(),
        )
        finished = len(self._entries) // TILE_WIDTH * TILE_WIDTH
        del self._entries[:finished]
        self._base += finished
        self._full = []
        self._published = self.size
        return publication

    def _hash(self, most: int) -> None:
        start = self._edge.size - self._base
        fresh = self._entries[start : start + most]
        full = self._edge.append(b"".join([leaf_hash(entry) for entry in fresh]))
        self._full += [(tile, data) for tile, data in full if _last_leaf(tile) > self._published]


def write_publication(directory: Path, publication: Publication, signer: NoteSigner) -> None:
    """Put tiles and bundles in place, then the signed checkpoint; everything durable. Raises OSError.

    A log that was moved away is not begun anew where it was: then it could not be moved back.
    """
    bundles = list(_bundles(publication))
    files = [(directory / tile.path, data) for tile, data in publication.tiles]
    files += [(directory / bundle.path, data) for bundle, data in bundles]
    replace_all(files, within=directory)
    replace(directory / CHECKPOINT, publication.checkpoint.sign(signer), within=directory)
    addresses: list[Tile | Bundle] = [tile for tile, _ in publication.tiles]
    addresses += [bundle for bundle, _ in bundles]
    for address in addresses:
        if address.width == TILE_WIDTH:
            # The partial ones that the full one replaces; a reader who misses them takes the full one.
            with contextlib.suppress(OSError):
                shutil.rmtree(directory / f"{address.path}.p")


def _bundles(publication: Publication) -> list[tuple[Bundle, bytes]]:
    entries = publication.entries
    return [
        (
            Bundle(publication.first_bundle + at // TILE_WIDTH, min(TILE_WIDTH, len(entries) - at)),
            encode_bundle(entries[at : at + TILE_WIDTH]),
        )
        for at in range(0, len(entries), TILE_WIDTH)
    ]


def _last_leaf(tile: Tile) -> int:
    """How many leaves the tree has at least when this tile is full."""
    return (tile.index + 1) << (8 * (tile.level + 1))
