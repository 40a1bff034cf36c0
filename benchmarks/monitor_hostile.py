"""What hostile input costs the monitor: speed in CPU time, findings, the process's peak of memory.

    python benchmarks/monitor_hostile.py [--megabytes 1000] [--others 10]

Each line is a process of its own. Prints Markdown.
"""

from __future__ import annotations

import argparse
import base64
import bz2
import gzip
import lzma
import os
import random
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from ullage.monitor.stream import scan_stream

PROSE = b"It was the best of times, it was the worst of times, and nobody had written down which it was.\n"
TURNED = b"Gur Mra bs Clguba ol Gvz Crgref orngvshy vf orggre guna htyl naq fb ba naq fb ba\n"


def repeated(block: bytes, size: int) -> Iterator[bytes]:
    """At least `size` bytes in blocks of about 256 KiB."""
    piece = block * max(1, (256 << 10) // len(block))
    for _ in range(-(-size // len(piece))):
        yield piece


def nested(_: int) -> Iterator[bytes]:
    """A sentence under 25 layers of base64."""
    data = PROSE
    for _layer in range(25):
        data = base64.b64encode(data)
    yield data


def bomb(compress: Callable[[bytes], bytes], _: int) -> Iterator[bytes]:
    """100 MB of zeros, compressed, in base64."""
    return iter([base64.b64encode(compress(bytes(100_000_000)))])


def no_text(size: int) -> Iterator[bytes]:
    """Prose with every fourth byte replaced by one that UTF-8 never has."""
    block = bytearray(PROSE * 4)
    block[::4] = b"\xff" * len(block[::4])
    return repeated(bytes(block), size)


def noise(size: int) -> Iterator[bytes]:
    """Lines of prose and of random printable characters, by a fixed seed."""
    draw = random.Random(1)
    signs = bytes(range(33, 127))
    lines = [PROSE if draw.random() < 0.5 else bytes(draw.choices(signs, k=90)) + b"\n" for _ in range(3000)]
    yield from repeated(b"".join(lines), size)


INPUTS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "prose": lambda size: repeated(PROSE, size),
    "one letter, no line's end": lambda size: repeated(b"a", size),
    "four letters over and over, one line": lambda size: repeated(b"x9Qz", size),
    "base64 of random bytes, one line": lambda size: repeated(base64.b64encode(os.urandom(3 << 16)), size),
    "tokens of 16 random bytes": lambda size: repeated(os.urandom(16).hex().encode() + b" the ", size),
    "random printable lines": noise,
    "rotated prose": lambda size: repeated(TURNED, size),
    "zero-width characters": lambda size: repeated("\u200b\u200c".encode(), size),
    "binary": lambda size: repeated(os.urandom(256 << 10), size),
    "25 layers of base64": nested,
    "invalid UTF-8": no_text,
    "bomb, zlib": partial(bomb, zlib.compress),
    "bomb, gzip": partial(bomb, gzip.compress),
    "bomb, bzip2": partial(bomb, bz2.compress),
    "bomb, xz": partial(bomb, partial(lzma.compress, preset=1)),
}


def measure(name: str, size: int) -> None:
    """Scan one input and print its line."""
    chunks = INPUTS[name](size)
    start = time.process_time()
    report = scan_stream(chunks)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    kinds = ", ".join(sorted({one.kind for one in report.findings})) or "none"
    speed = report.bytes_scanned / seconds / 1e6
    print(
        f"| {name} | {report.bytes_scanned / 1e6:.1f} | {seconds:.1f} | {speed:.1f} | {peak} | "
        f"{len(report.findings)} + {report.unlisted} | {kinds} |",
        flush=True,
    )


def main() -> None:
    """All inputs, each in a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="of prose")
    parser.add_argument("--others", type=int, default=10, help="megabytes of each other input")
    parser.add_argument("--one")
    given = parser.parse_args()
    if given.one:
        measure(given.one, (given.megabytes if given.one == "prose" else given.others) * 1_000_000)
        return
    print("| input | MB | CPU s | MB/s | peak MiB | findings, + unlisted | kinds |")
    print("|---|---:|---:|---:|---:|---:|---|", flush=True)
    for name in INPUTS:
        sizes = ["--megabytes", str(given.megabytes), "--others", str(given.others)]
        command = [sys.executable, __file__, *sizes, "--one", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
