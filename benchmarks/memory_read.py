"""What limits the reading of a region: tags from cache, tags and sums from memory, small and huge pages.

    python benchmarks/memory_read.py --region-mib 1024

Every rate is the best of some repeats, taken in turn so that other work on the machine meets all alike; rates
are of all threads together, in GB/s. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import mmap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ullage.memory.machine.region import usable_cores
from ullage.memory.noise.noise import BLOCK_BYTES, SegmentTag

Work = Callable[[memoryview], object]
_TAG_BYTES = 1 << 20


def mapped(size: int, advice: int) -> memoryview:
    """Touched memory under this advice on huge pages."""
    found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found.madvise(advice)
    view = memoryview(found)
    for start in range(0, size, BLOCK_BYTES):
        view[start : start + BLOCK_BYTES] = bytes([1]) * BLOCK_BYTES
    return view


def tags(data: memoryview) -> None:
    tag = SegmentTag(bytes(32), 0, 0)
    for start in range(0, len(data), _TAG_BYTES):
        tag.update(data[start : start + _TAG_BYTES])
    tag.tag()


def tags_in_cache(data: memoryview) -> None:
    """As many bytes, all from one block."""
    tag, block = SegmentTag(bytes(32), 0, 0), data[:BLOCK_BYTES]
    for _ in range(0, len(data), BLOCK_BYTES):
        tag.update(block)
    tag.tag()


def plain_sum(data: memoryview) -> None:
    np.frombuffer(data, np.uint64).sum()


def rate(pool: ThreadPoolExecutor, threads: int, work: Work, data: memoryview) -> float:
    """Bytes a second with a run of the data for each thread."""
    share = len(data) // threads // BLOCK_BYTES * BLOCK_BYTES
    parts = [data[number * share : (number + 1) * share] for number in range(threads)]
    began = time.perf_counter()
    list(pool.map(work, parts))
    return share * threads / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--region-mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    size = options.region_mib << 20
    pages = {"small": mapped(size, mmap.MADV_NOHUGEPAGE), "huge": mapped(size, mmap.MADV_HUGEPAGE)}
    works: dict[str, Work] = {"tags": tags, "plain sum": plain_sum}
    found: dict[str, float] = {}
    for threads in sorted({1, usable_cores()}):
        cases = [(f"{name}, {kind} pages", work, data)
                 for name, work in works.items() for kind, data in pages.items()]  # fmt: skip
        cases.append(("tags in cache", tags_in_cache, pages["small"]))
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(options.repeats):
                for name, work, data in cases:
                    label = f"{name}, {threads} threads"
                    found[label] = max(found.get(label, 0.0), rate(pool, threads, work, data) / 1e9)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
