"""Opening after a crash: torn tails cut, flights closed as aborted, damage refused; real kills."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.log.samples import NEVER, chunk, closing, header, make_keys, make_log, opening
from ullage.errors import IntegrityError, UsageError
from ullage.log.files import frame
from ullage.log.keys import TapKeys
from ullage.log.record import ClosePart, HeaderPart, canonical_bytes
from ullage.log.store import LogReader, LogWriter


@pytest.fixture
def keys(tmp_path: Path) -> TapKeys:
    return make_keys(tmp_path / "keys")


def test_records_in_flight_are_closed_as_aborted_with_what_was_released(
    tmp_path: Path, keys: TapKeys
) -> None:
    with LogWriter.create(tmp_path / "log", keys, header()) as writer:
        writer.append_sync(opening(0, stream=True))
        writer.append_sync(opening(1))
        writer.append_sync(chunk(0, 0, (5, 6)))
        writer.append_sync(chunk(0, 1, (7,)))
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.recovery.aborted == (0, 1)
        assert writer.recovery.cut_bytes == 0
        assert writer.next_counter == 2
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.recovery.aborted == ()
    reader = LogReader.open(tmp_path / "log", keys.log.verifier)
    closes = {record.counter: record.close for record in reader.records()}
    assert isinstance(closes[0], ClosePart)
    assert isinstance(closes[1], ClosePart)
    assert (closes[0].outcome, closes[0].output_ids, closes[0].released_digest) == (
        "aborted",
        (5, 6, 7),
        None,
    )
    assert closes[1].output_ids == ()
    findings = reader.verify()
    assert (findings.verdict, findings.closed, findings.aborted) == ("pass", 2, 2)


def test_a_tail_torn_at_any_byte_is_cut_and_nothing_before_it(
    tmp_path: Path, keys: TapKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("fsync", "fdatasync"):  # hundreds of logs: the disk itself is tested elsewhere
        monkeypatch.setattr(os, call, lambda _: None)
    with LogWriter.create(tmp_path / "whole", keys, header(), NEVER) as writer:
        writer.append_sync(opening(0))
        writer.append_sync(closing(0, (1,)))
        writer.checkpoint()
        durable = (tmp_path / "whole" / "entries").stat().st_size
        writer.append_sync(opening(1))
        shutil.copytree(tmp_path / "whole", tmp_path / "crashed")
    entries = (tmp_path / "crashed" / "entries").read_bytes()
    for end in range(durable, len(entries)):
        directory = tmp_path / "torn"
        shutil.copytree(tmp_path / "crashed", directory)
        (directory / "entries").write_bytes(entries[:end])
        with LogWriter.open(directory, keys, NEVER) as writer:
            assert writer.recovery.cut_bytes == end - durable
            assert writer.next_counter == 1
            if end > durable and entries[durable:end].strip(b"\0"):
                assert writer.recovery.cut_file is not None
                assert writer.recovery.cut_file.read_bytes() == entries[durable:end].rstrip(b"\0")
        assert (directory / "entries").read_bytes() == entries[:durable]
        assert LogReader.open(directory, keys.log.verifier).verify().verdict == "pass"
        shutil.rmtree(directory)


def test_zeros_that_a_file_system_added_are_cut(tmp_path: Path, keys: TapKeys) -> None:
    make_log(tmp_path / "log", keys)
    with (tmp_path / "log" / "entries").open("ab") as file:
        file.write(bytes(5000))
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.recovery.cut_bytes == 5000
        assert writer.recovery.cut_file is None


def damage(kind: str, directory: Path) -> None:
    entries = (directory / "entries").read_bytes()
    match kind:
        case "cut":
            (directory / "entries").write_bytes(entries[: len(entries) // 2])
        case "emptied":
            (directory / "entries").write_bytes(b"")
        case "altered":
            (directory / "entries").write_bytes(entries.replace(b'"top_k":0', b'"top_k":9', 1))
        case "malformed":
            (directory / "entries").write_bytes(entries.replace(b'"top_k":0', b'"top_k":x', 1))
        case "absurd length":
            (directory / "entries").write_bytes(entries + b"\xff" * 8)
        case "no checkpoint":
            (directory / "checkpoint").unlink()
        case "checkpoint altered":
            note = (directory / "checkpoint").read_bytes()
            (directory / "checkpoint").write_bytes(note.replace(b"\n1", b"\n2", 1))
        case "repeated entry":
            last = canonical_bytes(closing(3, (5, 6, 7)))
            (directory / "entries").write_bytes(entries + frame([last]))


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "emptied",
        "altered",
        "malformed",
        "absurd length",
        "no checkpoint",
        "checkpoint altered",
        "repeated entry",
    ],
)
def test_a_damaged_log_is_refused_and_left_as_it_is(tmp_path: Path, keys: TapKeys, kind: str) -> None:
    make_log(tmp_path / "log", keys, 4)
    damage(kind, tmp_path / "log")
    before = {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()}
    with pytest.raises(IntegrityError):
        LogWriter.open(tmp_path / "log", keys)
    assert {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before


def test_another_taps_key_is_refused(tmp_path: Path, keys: TapKeys) -> None:
    make_log(tmp_path / "log", keys)
    with pytest.raises(IntegrityError, match="not signed by the key"):
        LogWriter.open(tmp_path / "log", make_keys(tmp_path / "others"))


def test_a_creation_that_was_interrupted(tmp_path: Path, keys: TapKeys) -> None:
    make_log(tmp_path / "log", keys, 0)
    (tmp_path / "log" / "checkpoint").unlink()
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.next_counter == 0
    assert LogReader.open(tmp_path / "log").verify().verdict == "pass"
    (tmp_path / "log" / "checkpoint").unlink()
    (tmp_path / "log" / "entries").write_bytes(b"\0\0")
    with pytest.raises(UsageError, match="never finished"):
        LogWriter.open(tmp_path / "log", keys)


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.log.samples import chunk, closing, opening
from ullage.log.keys import load_tap_keys
from ullage.log.store import CheckpointPolicy, LogWriter

async def client(writer):
    while True:
        counter = writer.next_counter
        ids = (counter,)
        for part in (opening(counter, stream=True), chunk(counter, 0, ids), closing(counter, ids)):
            index = await writer.append(part)
            sys.stdout.write(f"{index} {counter} {part.part}\\n")
            sys.stdout.flush()

async def main():
    writer = LogWriter.open(Path(sys.argv[1]), load_tap_keys(Path(sys.argv[2])), CheckpointPolicy(0.02, 50))
    print("ready", flush=True)
    await asyncio.gather(*(client(writer) for _ in range(4)))

asyncio.run(main())
"""


def test_killed_at_random_moments_every_acknowledged_entry_is_there(tmp_path: Path, keys: TapKeys) -> None:
    generator = random.Random(4)
    LogWriter.create(tmp_path / "log", keys, header()).close()
    command = [sys.executable, "-c", CHILD, str(tmp_path / "log"), str(tmp_path / "keys")]
    acknowledged: dict[int, tuple[int, str]] = {}
    for _ in range(20):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0.0, 0.12))
            child.kill()
            lines = child.stdout.read().split("\n")[:-1]  # what follows the last newline was cut by the kill
        for line in lines:
            place, number, name = line.split()
            acknowledged[int(place)] = (int(number), name)
        parts = list(LogReader.open(tmp_path / "log", keys.log.verifier).entries(include_uncovered=True))
        for index, (counter, kind) in acknowledged.items():
            part = parts[index]
            assert part.part == kind
            assert not isinstance(part, HeaderPart)
            assert part.counter == counter
    assert len(acknowledged) > 100
    LogWriter.open(tmp_path / "log", keys).close()
    findings = LogReader.open(tmp_path / "log", keys.log.verifier).verify()
    assert findings.verdict == "pass"
    assert findings.closed == findings.opened
    assert findings.aborted > 0
