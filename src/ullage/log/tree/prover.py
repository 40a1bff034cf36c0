"""Proofs out of a published log: that an entry is in it, and that it extends what it was before.

The few tiles that a proof needs are fetched, and every proof is checked against the signed root before it is
handed out: a source that lies gets an error, never a proof.
"""

from __future__ import annotations

from ullage.errors import IntegrityError, UsageError
from ullage.log.entries import CloseEntry, OpenEntry, parse_entry
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.source import LogSource, read_bundle, read_tile
from ullage.log.tree.proof import InclusionProof
from ullage.log.tree.tile_tree import Fetch, TileTree
from ullage.log.tree.tiles import TILE_WIDTH, Tile, bundle_at, decode_bundle
from ullage.merkle import leaf_hash, verify_consistency, verify_inclusion


def fetch_from(source: LogSource) -> Fetch:
    """Tiles of a source for a `TileTree`; one that is not there raises IntegrityError."""

    def fetch(level: int, index: int, width: int) -> bytes:
        tile = Tile(level, index, width)
        data = read_tile(source, tile)
        if data is None:
            raise IntegrityError(f"The log lacks the hash tile {tile.path}, so it cannot be checked.")
        return data

    return fetch


class Prover:
    """Proofs under one checkpoint, whose signature the caller has verified."""

    def __init__(self, source: LogSource, checkpoint: Checkpoint, note: bytes) -> None:
        self.checkpoint = checkpoint
        self._source = source
        self._note = note
        self._tree = TileTree(checkpoint.size, fetch_from(source))

    def entry(self, index: int) -> InclusionProof:
        """Proof that entry `index` is under the checkpoint. Raises UsageError, IntegrityError."""
        size, root = self.checkpoint.size, self.checkpoint.root
        if not 0 <= index < size:
            raise UsageError(f"Entry {index} is not among the {size} entries that the checkpoint covers.")
        entry = self._bundle(index // TILE_WIDTH)[index % TILE_WIDTH]
        hashes = self._tree.inclusion_proof(index)
        if not verify_inclusion(leaf_hash(entry), index, size, hashes, root):
            raise IntegrityError("The log's entries and tiles are not those that the checkpoint signs.")
        return InclusionProof(index, entry, hashes, self._note)

    def record(self, counter: int) -> InclusionProof:
        """Proof of the entry that closed a record. Raises UsageError, IntegrityError."""
        for number in range(self._first_bundle(counter), -(-self.checkpoint.size // TILE_WIDTH)):
            for place, data in enumerate(self._bundle(number)):
                entry = parse_entry(data)
                if isinstance(entry, CloseEntry) and entry.counter == counter:
                    return self.entry(number * TILE_WIDTH + place)
        raise UsageError(f"Record {counter} has no close under the checkpoint, so it cannot be proved.")

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Proof that this tree extends its own first `old_size` entries, as a witness wants it.

        Whether these are the entries that the witness saw is for the witness to say. Raises IntegrityError.
        """
        size, root = self.checkpoint.size, self.checkpoint.root
        hashes = self._tree.consistency_proof(old_size)
        if not verify_consistency(old_size, self._tree.root(old_size), size, root, hashes):
            raise IntegrityError("The log's hash tiles are not those that the checkpoint signs.")
        return hashes

    def _first_bundle(self, counter: int) -> int:
        """The bundle with the open of `counter`, or one before it; counters grow in the order of the log."""
        low, high = 0, -(-self.checkpoint.size // TILE_WIDTH)
        while high - low > 1:
            middle = (low + high) // 2
            first = self._first_counter(middle, high)
            if first is not None and first <= counter:
                low = middle
            else:
                high = middle
        return low

    def _first_counter(self, number: int, end: int) -> int | None:
        """The counter of the first record that is opened in bundles `number` to `end` - 1."""
        for candidate in range(number, end):
            for data in self._bundle(candidate):
                entry = parse_entry(data)
                if isinstance(entry, OpenEntry):
                    return entry.counter
        return None

    def _bundle(self, number: int) -> list[bytes]:
        bundle = bundle_at(number, self.checkpoint.size)
        data = read_bundle(self._source, bundle)
        if data is None:
            raise IntegrityError(f"The log lacks the entry bundle {bundle.path}, which was signed.")
        return decode_bundle(data, bundle.width)
