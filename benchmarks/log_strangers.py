"""What strangers pay: verifying a log of a million entries, and one proof out of ten million.

    python benchmarks/log_strangers.py [--entries 1000000] [--tree 10000000] [--proofs 2000] [--dir DIR]

Prints JSON. *verify*: seconds and peak memory of `ullage log verify DIR` in its own process over a published
log of records (two entries each, three of them streams), from the page cache. *proof*: milliseconds for the
inclusion proof of a random entry out of tiles on disk: `cold` opens the tree anew for each, `warm` keeps the
inner nodes of tiles that it saw (the bar is on `warm`; the tile of the entry itself is new to it nearly every
time), `same_tile` asks for entries of one tile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ullage.log.entries import ChunkEntry, CloseEntry, OpenEntry, encode_entry
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.record import HeaderPart
from ullage.log.source import DirectorySource
from ullage.log.tree.prover import fetch_from
from ullage.log.tree.tile_tree import TileTree, TreeEdge
from ullage.log.tree.tiles import TILE_WIDTH, Bundle, encode_bundle
from ullage.merkle import HASH_BYTES, leaf_hash, verify_inclusion

ORIGIN = "bench.example/log"
SIGNER = NoteSigner(ORIGIN, bytes(range(32)))
_RUN = """
import resource, sys, time
from ullage.cli.main import run
start = time.monotonic()
try:
    run(sys.argv[1:])
except SystemExit as end:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stderr.write(f"{time.monotonic() - start} {peak} {end.code}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--tree", type=int, default=10_000_000)
    parser.add_argument("--proofs", type=int, default=2_000)
    parser.add_argument("--dir", type=Path, help="where the logs are made; a temporary folder without")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder = Path(name)
        result = {
            "verify": verification(folder / "log", arguments.entries),
            "proof": proofs(folder / "tree", arguments.tree, arguments.proofs),
        }
    print(json.dumps(result, indent=1))


def verification(directory: Path, count: int) -> dict[str, float]:
    size = publish(directory, count)
    key = directory / "log.pub"
    key.write_text(f"{SIGNER.verifier}\n")
    command = [sys.executable, "-c", _RUN, "log", "verify", str(directory), "--key", str(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, peak, code = done.stderr.split()
    if code != "0":
        raise SystemExit(done.stdout)
    stored = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    return {
        "entries": count,
        "seconds": round(float(seconds), 2),
        "entries_per_second": round(count / float(seconds)),
        "peak_mb": round(float(peak), 1),
        "bytes_of_entries_each": round(size / count, 1),
        "bytes_published_each": round(stored / count, 1),
    }


def publish(directory: Path, count: int) -> int:
    """A log of `count` entries; returns the bytes that they have together."""
    edge, total = TreeEdge(), 0
    for number, entries in enumerate(bundles(count)):
        total += sum(map(len, entries))
        put(directory, Bundle(number, len(entries)).path, encode_bundle(entries))
        for tile, data in edge.append(b"".join(map(leaf_hash, entries))):
            put(directory, tile.path, data)
    for tile, data in edge.partial_tiles():
        put(directory, tile.path, data)
    put(directory, "checkpoint", Checkpoint(ORIGIN, count, edge.root()).sign(SIGNER))
    return total


def bundles(count: int) -> Iterator[list[bytes]]:
    waiting: list[bytes] = []
    for number, entry in enumerate(entries_of_records()):
        if number == count:
            break
        waiting.append(entry)
        if len(waiting) == TILE_WIDTH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def entries_of_records() -> Iterator[bytes]:
    digest = "sha256:" + "0" * 64
    header = HeaderPart(
        created=1_700_000_000_000_000_000,
        dtype="float32",
        log_id=ORIGIN,
        model_digest=digest,
        profile="murmur3-gumbel/f64",
        software="ullage/bench",
    )
    yield encode_entry(header)
    counter = 0
    while True:
        commitment = "sha256:" + hashlib.sha256(counter.to_bytes(8)).hexdigest()
        seconds = 1_700_000_000 + counter // 100
        yield encode_entry(OpenEntry(commitment, counter, 100, bool(counter % 2), seconds))
        if counter % 2:
            yield encode_entry(ChunkEntry(commitment, counter, 0))
        yield encode_entry(CloseEntry(commitment, counter, "complete", 500, seconds))
        counter += 1


def proofs(directory: Path, size: int, count: int) -> dict[str, float]:
    edge, generator = TreeEdge(), random.Random(1)
    for start in range(0, size, 1 << 16):
        leaves = generator.randbytes(min(1 << 16, size - start) * HASH_BYTES)
        for tile, data in edge.append(leaves):
            put(directory, tile.path, data)
    for tile, data in edge.partial_tiles():
        put(directory, tile.path, data)
    root, fetch = edge.root(), fetch_from(DirectorySource(directory))
    indices = [generator.randrange(size) for _ in range(count)]
    warm = TileTree(size, fetch)
    for index in indices[: count // 2]:
        proof = warm.inclusion_proof(index)
        if not verify_inclusion(warm.leaf(index), index, size, proof, root):
            raise SystemExit("a proof does not hold")
    first = indices[0] // TILE_WIDTH * TILE_WIDTH
    return {
        "tree": size,
        "bytes_of_a_proof": len(proof) * HASH_BYTES,
        **timed("cold", lambda index: TileTree(size, fetch).inclusion_proof(index), indices[count // 2 :]),
        **timed("warm", warm.inclusion_proof, indices[count // 2 :]),
        **timed("same_tile", warm.inclusion_proof, [first + at % TILE_WIDTH for at in range(count)]),
    }


def timed(name: str, prove: Callable[[int], object], indices: list[int]) -> dict[str, float]:
    times = []
    for index in indices:
        start = time.perf_counter()
        prove(index)
        times.append((time.perf_counter() - start) * 1e3)
    return {
        f"{name}_ms_median": round(statistics.median(times), 4),
        f"{name}_ms_p99": round(statistics.quantiles(times, n=100)[98], 4),
    }


def put(directory: Path, path: str, data: bytes) -> None:
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


if __name__ == "__main__":
    main()
