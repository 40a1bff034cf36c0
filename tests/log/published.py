"""Published logs for tests: the files that a stranger sees, made from entries without the writer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ullage.log.entries import ChunkEntry, CloseEntry, Entry, OpenEntry, encode_entry
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.record import HeaderPart
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import TILE_WIDTH, bundles_of, encode_bundle
from ullage.merkle import leaf_hash

LOG = NoteSigner("tap.example/one", bytes(range(32)))
OTHER = NoteSigner("tap.example/one", bytes(range(1, 33)))
ORIGIN = "tap.example/one/4f1c9a7e21d08b36"
TIME = 1_700_000_000


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def header(log_id: str = ORIGIN) -> HeaderPart:
    return HeaderPart(
        created=TIME * 10**9,
        dtype="float32",
        log_id=log_id,
        model_digest=digest("model"),
        profile="murmur3-gumbel/f64",
        software="ullage/0.1.0",
    )


def record_entries(count: int, first: int = 0) -> Iterator[Entry]:
    """Plain and streamed records in turn: five entries for two records."""
    for counter in range(first, first + count):
        stream = bool(counter % 2)
        yield OpenEntry(digest(f"o{counter}"), counter, 10, stream, TIME + counter)
        if stream:
            yield ChunkEntry(digest(f"c{counter}"), counter, 0)
        yield CloseEntry(digest(f"e{counter}"), counter, "complete", 7, TIME + counter + 1)


def log_entries(records: int) -> list[bytes]:
    return [encode_entry(entry) for entry in (header(), *record_entries(records))]


def publish(
    directory: Path,
    entries: Sequence[bytes],
    signer: NoteSigner = LOG,
    origin: str = ORIGIN,
    sizes: Iterable[int] = (),
) -> Checkpoint:
    """Write the whole log; `sizes` are earlier ones whose partial files are kept too."""
    checkpoint = Checkpoint(origin, 0, b"")
    for size in (*sizes, len(entries)):
        edge = TreeEdge()
        leaves = b"".join(leaf_hash(entry) for entry in entries[:size])
        tiles = [*edge.append(leaves), *edge.partial_tiles()]
        for tile, data in tiles:
            put(directory, tile.path, data)
        for bundle in bundles_of(size):
            start = bundle.index * TILE_WIDTH
            put(directory, bundle.path, encode_bundle(entries[start : start + bundle.width]))
        checkpoint = Checkpoint(origin, size, edge.root())
    put(directory, "checkpoint", checkpoint.sign(signer))
    return checkpoint


def put(directory: Path, path: str, data: bytes) -> None:
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
