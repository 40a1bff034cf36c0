"""Honest agents under noisy load: how often a verdict is not `pass`, and how often it accuses.

    python benchmarks/memory_honest.py --runs 500 --region-mib 256

Two processes spin, two copy memory, one writes to disk and one floods the loopback while a real agent
answers erasures. Calibrates first, on the idle machine. A false accusation is a `fail`; `cannot-tell` is
counted apart. Prints JSON, also when it is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from ullage.memory.erasure import MODES, Plan
from ullage.memory.measure import calibrate
from ullage.memory.verifier import run_erasure
from ullage.redteam.memory.suite import agent_process


def spin() -> None:
    while True:
        sum(range(100_000))


def copy_memory() -> None:
    source = bytearray(64 << 20)
    while True:
        bytes(source)


def write_disk() -> None:
    with tempfile.NamedTemporaryFile() as file:
        while True:
            file.seek(0)
            file.write(os.urandom(16 << 20))
            os.fsync(file.fileno())


def flood_loopback() -> None:
    left, right = socket.socketpair()
    data = bytes(1 << 16)
    while True:
        left.sendall(data)
        received = 0
        while received < len(data):
            received += len(right.recv(1 << 16))


HOGS: tuple[Callable[[], None], ...] = (spin, spin, copy_memory, copy_memory, write_disk, flood_loopback)


@contextlib.contextmanager
def load() -> Iterator[None]:
    hogs = [multiprocessing.Process(target=hog, daemon=True) for hog in HOGS]
    for hog in hogs:
        hog.start()
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--region-mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--mode", choices=MODES, default="stream")
    options = parser.parse_args()
    size = options.region_mib << 20
    rates = calibrate(min(size, 256 << 20), Path(tempfile.gettempdir()))
    plan = Plan(options.mode, size, rounds=options.rounds)
    limit = ("--machine", "host", "--limit-mib", str(options.region_mib))
    verdicts: Counter[str] = Counter()
    claims: list[float] = []
    rounds = 0
    began = time.monotonic()
    with (
        agent_process("agent", "--listen", "127.0.0.1:0", *limit) as address,
        load(),
        contextlib.suppress(KeyboardInterrupt),  # prints what there is
    ):
        for _ in range(options.runs):
            found, (claim, *_) = run_erasure(address, plan, rates, size, {})
            verdicts[found.verdict] += 1
            rounds += len(found.timings)
            claims.append(claim.value or 0.0)
    claims.sort()
    done = len(claims)
    result = {
        "mode": options.mode,
        "runs": done,
        "false_accusations": verdicts["fail"],
        "cannot_tell": verdicts["cannot-tell"],
        "rounds_a_run": rounds / max(1, done),
        "claim_median": claims[done // 2] if done else None,
        "claim_least": claims[0] if done else None,
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
