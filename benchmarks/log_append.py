"""How fast a tap's log becomes durable, beside the disk's own fdatasync rate.

`python benchmarks/log_append.py [--directory DIR] [--seconds 3]` prints one JSON object. Give a directory on
the disk in question: a tmpfs syncs for nothing. The disk's rate depends on how a file is written, so it is
measured in two ways, each in short turns between ours: `growing` appends 1 KB and syncs, `allotted` does the
same in space that was written before, which is the best that the disk can do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from ullage.log.journal.append import Journal
from ullage.log.journal.collector import calm_collector
from ullage.log.journal.durable import DurableLog
from ullage.log.journal.preparer import Preparer
from ullage.log.journal.publisher import Publisher
from ullage.log.journal.segments import FRAME_BYTES, Prepared, SegmentHead, encode_batch
from ullage.log.keys import Role, TapKeys, create_keys, load_tap_keys
from ullage.log.record import ClosePart, HeaderPart, OpenPart, Parameters, canonical_bytes, parse_part
from ullage.log.sealed.openers import SealKey
from ullage.log.sealed.sealing import seal_commitment
from ullage.log.state import LogState
from ullage.log.store import CheckpointPolicy, LogReader, LogWriter
from ullage.log.tree.tile_tree import TreeEdge
from ullage.merkle import leaf_hash

DIGEST = "sha256:" + "0" * 64
PROMPT, OUTPUT = list(range(100)), list(range(1000, 1500))
KILOBYTE = 1024
GROUP = 256
CHECKPOINT_EVERY = CheckpointPolicy().entries
TURN_S, TURNS = 0.3, 7
RESTART_ENTRIES = 100_000


def opening(counter: int, prompt: list[int]) -> OpenPart:
    return OpenPart(
        bytes_from_client=500,
        choice=0,
        counter=counter,
        endpoint="chat",
        group=counter,
        parameters=Parameters(max_tokens=500, stop=(), temperature="0.7", top_k=0, top_p="1.0"),
        prompt_ids=tuple(prompt),
        prompt_sources=((len(prompt), "client"),),
        request_digest=DIGEST,
        seed=1 << 62,
        stream=False,
        time_received=time.time_ns(),
    )


def closing(counter: int, output: list[int]) -> ClosePart:
    return ClosePart(
        bytes_from_upstream=4000,
        bytes_to_client=3000,
        bytes_to_upstream=500,
        counter=counter,
        finish_reason="length",
        outcome="complete",
        output_ids=tuple(output),
        released_digest=DIGEST,
        time_closed=time.time_ns(),
    )


def header(keys: TapKeys) -> HeaderPart:
    return header_of(keys.new_log_id())


def header_of(log_id: str) -> HeaderPart:
    return HeaderPart(
        created=time.time_ns(),
        dtype="float32",
        log_id=log_id,
        model_digest=DIGEST,
        profile="murmur3-gumbel/f64",
        software="benchmark",
    )


def prepared_entry() -> Prepared:
    """1 KB in the journal: a public entry of 186 bytes, its sealed part, the frame around them."""
    entry = bytes(186)
    return Prepared(entry, b"", os.urandom(KILOBYTE - len(entry) - FRAME_BYTES))


def durable_log(folder: Path, keys: TapKeys) -> DurableLog:
    """The writer's hold on the disk, without rules and seals."""
    declared = header(keys)
    (folder / "sealed").mkdir(parents=True)
    journal = Journal.begin(folder / "sealed", SegmentHead.first(declared, seal_commitment(keys.seal)))
    return DurableLog(folder, declared.log_id, journal, Publisher(TreeEdge(), 0, []), None)


def turn(step: Callable[[], object], seconds: float) -> float:
    """Steps a second."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        step()
        count += 1
    return count / (time.perf_counter() - started)


def probe(path: Path, *, allotted: int) -> Callable[[], None]:
    """One append of 1 KB with `fdatasync` to a file of its own."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(descriptor, bytes(allotted), 0)
    os.fsync(descriptor)
    data, offset = os.urandom(KILOBYTE), 0

    def step() -> None:
        nonlocal offset
        os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)
        offset = (offset + KILOBYTE) % allotted if allotted else offset + KILOBYTE

    return step


def lone_appends(directory: Path, keys: TapKeys) -> dict[str, float]:
    """Prepared entries of 1 KB, each made durable alone, in turns with the disk's own rate."""
    log, entry = durable_log(directory / "lone", keys), [prepared_entry()]
    steps = {
        "growing": probe(directory / "growing", allotted=0),
        "allotted": probe(directory / "allotted", allotted=64 << 20),
        "ours": lambda: log.commit(entry),
    }
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TURNS):
        for name, step in steps.items():
            rates[name].append(turn(step, TURN_S))
    log.close()
    found = {f"{name}_per_second": statistics.median(measured) for name, measured in rates.items()}
    for name in ("growing", "allotted"):
        shares = [ours / disk for ours, disk in zip(rates["ours"], rates[name], strict=True)]
        found[f"share_of_{name}"] = statistics.median(shares)
    return found


def grouped_appends(directory: Path, keys: TapKeys, seconds: float) -> dict[str, float]:
    """Prepared entries of 1 KB in durable groups of 256, their tiles and checkpoints included."""
    log, batch = durable_log(directory / "grouped", keys), [prepared_entry()] * GROUP
    groups, checkpoints, publishing = 0, 0, 0.0
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        log.commit(batch)
        groups += 1
        if log.unsigned >= CHECKPOINT_EVERY and (publication := log.take()):
            began = time.perf_counter()
            log.publish(publication, keys.log)
            publishing += time.perf_counter() - began
            checkpoints += 1
    elapsed = time.perf_counter() - started
    log.close()
    return {
        "entries_per_second": groups * GROUP / elapsed,
        "entries_per_second_without_checkpoints": groups * GROUP / (elapsed - publishing),
        "milliseconds_of_a_checkpoint": 1000 * publishing / max(checkpoints, 1),
    }


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
            await writer.append(opening(counter, PROMPT))
            middle = time.perf_counter()
            await writer.append(closing(counter, OUTPUT))
            latencies.extend((middle - started, time.perf_counter() - middle))
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return done, time.perf_counter() - started, latencies


def full_records(directory: Path, keys: TapKeys, tasks: int, seconds: float) -> dict[str, object]:
    """Records of 100 + 500 tokens from token ids to durable: checked, sealed, committed to, synced.

    On the event loop that the tap runs on, with the collector as the tap has it.
    """
    calm_collector()
    log = directory / f"records-{tasks}"
    with LogWriter.create(log, keys, header(keys)) as writer:
        processor = time.process_time()
        done, elapsed, latencies = uvloop.run(load(writer, tasks, seconds))
        processor = time.process_time() - processor
    latencies.sort()
    started = time.perf_counter()
    findings = LogReader.open(log, keys.log.verifier).verify()
    verified = time.perf_counter() - started
    started = time.perf_counter()
    opened = LogReader.open(log, keys.log.verifier, SealKey(keys.seal)).verify()
    return {
        "tasks": tasks,
        "records": done,
        "records_per_second": done / elapsed,
        "processor_us_per_record": 1e6 * processor / done,
        "append_median_ms": 1000 * latencies[len(latencies) // 2],
        "append_p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
        "bytes_per_record": {
            "public": size_of(log / "tile") / done,
            "sealed": size_of(log / "sealed") / done,
            "parts": len(canonical_bytes(opening(done, PROMPT)) + canonical_bytes(closing(done, OUTPUT))),
        },
        "verdict": findings.verdict,
        "verified_entries_per_second": findings.entries / verified,
        "verdict_on_opened_records": opened.verdict,
        "opened_records_per_second": done / (time.perf_counter() - started),
    }


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def restart(directory: Path, keys: TapKeys) -> dict[str, float]:
    """Seconds until a log goes on that was left with 100,000 entries that no checkpoint covers.

    It goes on when the first part that was appended is durable; when all is signed is printed beside.
    """
    log, copy = directory / "left", directory / "crashed"
    never = CheckpointPolicy(seconds=1e9, entries=1 << 60)

    async def fill(writer: LogWriter) -> None:
        for first in range(0, RESTART_ENTRIES // 2, GROUP):
            counters = range(first, first + GROUP)
            await writer.append_all([opening(counter, PROMPT) for counter in counters])
            await writer.append_all([closing(counter, OUTPUT) for counter in counters])

    with LogWriter.create(log, keys, header(keys), never) as writer:
        asyncio.run(fill(writer))
        shutil.copytree(log, copy)
    os.sync()
    started, processor = time.perf_counter(), time.process_time()
    with LogWriter.open(copy, keys) as writer:
        writer.append_sync(opening(writer.next_counter, PROMPT))
        first, processor = time.perf_counter() - started, time.process_time() - processor
        writer.checkpoint()
        signed = time.perf_counter() - started
    started = time.perf_counter()
    with LogWriter.open(log, keys) as writer:
        writer.append_sync(opening(writer.next_counter, PROMPT))
        clean = time.perf_counter() - started
    return {
        "entries": RESTART_ENTRIES,
        "seconds_if_nothing_was_signed": first,
        "processor_seconds_if_nothing_was_signed": processor,
        "seconds_until_all_is_signed": signed,
        "seconds_if_all_was_signed": clean,
    }


def steps() -> dict[str, float]:
    """Microseconds of processor time for each step of a record of 100 + 500 tokens, and to read its close.

    The best of many short turns: what else runs on the machine hardly counts here, unlike everywhere above.
    """
    declared = header_of("benchmark.example/steps")
    preparer = Preparer(LogState(declared, 1), {}, declared.log_id, bytes(32))
    parts = opening(0, PROMPT), closing(0, OUTPUT)
    frames = preparer.prepare(parts)
    data = canonical_bytes(parts[1])

    def seal() -> None:
        preparer.state.next_counter = 0
        for part in parts:
            preparer.prepare([part])

    measured: dict[str, Callable[[], object]] = {
        "build_open_and_close": lambda: (opening(0, PROMPT), closing(0, OUTPUT)),
        "check_encode_commit_seal": seal,
        "frame_and_hash": lambda: (encode_batch(0, frames), [leaf_hash(one.entry) for one in frames]),
        "parse_close": lambda: parse_part(data),
    }
    return {name: best_us(step) for name, step in measured.items()}


def best_us(step: Callable[[], object], turns: int = 400, rounds: int = 30) -> float:
    """Microseconds of processor time a call, in the best of `turns`."""
    best = float("inf")
    for _ in range(turns):
        started = time.process_time()
        for _ in range(rounds):
            step()
        best = min(best, time.process_time() - started)
    return 1e6 * best / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--directory", type=Path, help="where to write; the system's temporary folder by default"
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        create_keys(directory / "keys", Role.TAP)
        keys = load_tap_keys(directory / "keys")
        result = {
            "lone_appends_of_1_kb": lone_appends(directory, keys),
            "groups_of_256_entries_of_1_kb": grouped_appends(directory, keys, options.seconds),
            "records_of_500_tokens": [
                full_records(directory, keys, tasks, options.seconds) for tasks in (1, 16, GROUP)
            ],
            "restart": restart(directory, keys),
            "processor_us_of_each_step": steps(),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
