"""How fast parts become durable: records a second with many tasks, beside the disk's own fdatasync rate.

Prints one JSON object. `python benchmarks/log_append.py [--directory DIR] [--tasks 16] [--seconds 3]`; give a
directory on the disk in question, because a tmpfs syncs for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from ullage.log.keys import Role, TapKeys, create_keys, load_tap_keys
from ullage.log.record import ClosePart, HeaderPart, OpenPart, Parameters, canonical_bytes, parse_part
from ullage.log.store import LogReader, LogWriter

DIGEST = "sha256:" + "0" * 64
OUTPUT = tuple(range(1000, 1500))


def opening(counter: int) -> OpenPart:
    return OpenPart(
        bytes_from_client=500,
        choice=0,
        counter=counter,
        endpoint="chat",
        group=counter,
        parameters=Parameters(max_tokens=500, stop=(), temperature="0.7", top_k=0, top_p="1.0"),
        prompt_ids=tuple(range(100)),
        prompt_sources=((100, "client"),),
        request_digest=DIGEST,
        seed=1 << 62,
        stream=False,
        time_received=time.time_ns(),
    )


def closing(counter: int) -> ClosePart:
    return ClosePart(
        bytes_from_upstream=4000,
        bytes_to_client=3000,
        bytes_to_upstream=500,
        counter=counter,
        finish_reason="length",
        outcome="complete",
        output_ids=OUTPUT,
        released_digest=DIGEST,
        time_closed=time.time_ns(),
    )


async def load(writer: LogWriter, tasks: int, seconds: float) -> tuple[int, float, list[float]]:
    """Records closed, seconds taken, and the latency of every append in seconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    done = 0

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < end:
            started = time.perf_counter()
            counter = writer.next_counter
            await writer.append(opening(counter))
            middle = time.perf_counter()
            await writer.append(closing(counter))
            latencies.extend((middle - started, time.perf_counter() - middle))
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return done, time.perf_counter() - started, latencies


def sync_rate(directory: Path, seconds: float) -> float:
    """Appends of 1 KB with fdatasync each, a second."""
    descriptor = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        count, started = 0, time.perf_counter()
        while time.perf_counter() < started + seconds:
            os.write(descriptor, b"x" * 1024)
            os.fdatasync(descriptor)
            count += 1
        return count / (time.perf_counter() - started)
    finally:
        os.close(descriptor)


def measure(directory: Path, keys: TapKeys, tasks: int, seconds: float) -> dict[str, object]:
    header = HeaderPart(
        created=time.time_ns(),
        dtype="float32",
        log_id=keys.new_log_id(),
        model_digest=DIGEST,
        profile="murmur3-gumbel/f64",
        software="benchmark",
    )
    log = directory / f"log-{tasks}"
    with LogWriter.create(log, keys, header) as writer:
        done, elapsed, latencies = asyncio.run(load(writer, tasks, seconds))
    latencies.sort()
    started = time.perf_counter()
    findings = LogReader.open(log, keys.log.verifier).verify()
    verified = time.perf_counter() - started
    started = time.perf_counter()
    LogWriter.open(log, keys).close()
    return {
        "tasks": tasks,
        "records": done,
        "records_per_second": done / elapsed,
        "appends_per_second": 2 * done / elapsed,
        "append_median_ms": 1000 * latencies[len(latencies) // 2],
        "append_p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
        "bytes_per_record": (log / "entries").stat().st_size / max(done, 1),
        "verdict": findings.verdict,
        "verified_entries_per_second": findings.entries / verified,
        "reopened_entries_per_second": findings.entries / (time.perf_counter() - started),
    }


def coding() -> dict[str, float]:
    """Microseconds to write and to read one close of 500 tokens."""
    part, rounds = closing(1), 2000
    data = canonical_bytes(part)
    started = time.perf_counter()
    for _ in range(rounds):
        canonical_bytes(part)
    middle = time.perf_counter()
    for _ in range(rounds):
        parse_part(data)
    return {
        "encode_us": 1e6 * (middle - started) / rounds,
        "parse_us": 1e6 * (time.perf_counter() - middle) / rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--directory", type=Path, help="where to write; the system's temporary folder by default"
    )
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        create_keys(directory / "keys", Role.TAP)
        keys = load_tap_keys(directory / "keys")
        result = {
            "disk_fdatasync_per_second": sync_rate(directory, options.seconds / 3),
            "close_of_500_tokens": coding(),
            "runs": [measure(directory, keys, tasks, options.seconds) for tasks in (1, options.tasks)],
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
