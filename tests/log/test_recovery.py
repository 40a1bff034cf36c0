"""Opening after a crash: torn tails cut, flights closed as aborted, damage refused; real kills."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.log import crash_campaign
from tests.log.samples import (
    NEVER,
    chunk,
    closing,
    header,
    make_keys,
    make_log,
    opening,
    read_log,
    segment,
)
from ullage.errors import IntegrityError, UsageError
from ullage.log.journal.recovery import recover
from ullage.log.journal.segments import SegmentReader
from ullage.log.keys import TapKeys
from ullage.log.record import ClosePart
from ullage.log.store import LogReader, LogWriter, Recovery


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
    reader = read_log(tmp_path / "log", keys)
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


@pytest.fixture
def crashed(tmp_path: Path, keys: TapKeys, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """A log whose last batch (a close, an open, a chunk, never signed) was being written when the power went.

    Returns its folder and where in its segment that batch begins.
    """
    for call in ("fsync", "fdatasync"):  # thousands of logs: the disk itself is tested elsewhere
        monkeypatch.setattr(os, call, lambda _: None)
    with LogWriter.create(tmp_path / "whole", keys, header(), NEVER) as writer:
        writer.append_sync(opening(0))
        writer.checkpoint()
        writer.append_sync(closing(0, (1,)))
        durable = _end_of_frames(tmp_path / "whole")
        asyncio.run(writer.append_all([opening(1, stream=True), chunk(1, 0, (5, 6))]))
        shutil.copytree(tmp_path / "whole", tmp_path / "crashed")
    path = segment(tmp_path / "crashed")
    os.truncate(path, _end_of_frames(tmp_path / "crashed"))
    return tmp_path / "crashed", durable


def _end_of_frames(log: Path) -> int:
    with segment(log).open("rb") as file:
        reader = SegmentReader(file)
        list(reader)
    return reader.end_offset


def _reopened(crashed: Path, keys: TapKeys, data: bytes) -> tuple[Recovery, int]:
    """What opening makes of the crashed log with other bytes in its segment, and the next counter."""
    directory = crashed.with_name("torn")
    shutil.copytree(crashed, directory)
    segment(directory).write_bytes(data)
    try:
        with LogWriter.open(directory, keys, NEVER) as writer:
            recovery, counter = writer.recovery, writer.next_counter
        assert read_log(directory, keys).verify().verdict == "pass"
        kept = [path.read_bytes() for path in (directory / "sealed").glob("torn-*")]
        assert sum(map(len, kept)) == recovery.cut_bytes
        return recovery, counter
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_batch_torn_at_any_byte_loses_nothing_before_it(
    crashed: tuple[Path, int], keys: TapKeys, step: int
) -> None:
    directory, durable = crashed
    data = segment(directory).read_bytes()
    opens = []
    for end in [*range(durable, len(data), step), len(data)]:
        for torn in (data[:end], data[:end] + bytes(500)):  # as it grows, and in space allotted before
            recovery, counter = _reopened(directory, keys, torn)
            assert counter in (1, 2)
            assert recovery.aborted == ((1,) if counter == 2 else ())
            whole = end in (durable, len(data))
            assert not recovery.cut_bytes or not whole
            opens.append(counter)
    assert opens == sorted(opens)
    assert opens[-1] == 2


def test_a_batch_of_which_any_piece_is_missing_is_cut(crashed: tuple[Path, int], keys: TapKeys) -> None:
    """A disk writes the sectors of one write in any order: a piece in the middle may still be zeros."""
    directory, durable = crashed
    data = segment(directory).read_bytes()
    for start in range(durable, len(data), 53):
        torn = data[:start] + bytes(min(64, len(data) - start)) + data[start + 64 :]
        recovery, counter = _reopened(directory, keys, torn)
        assert recovery.cut_bytes > 0
        assert counter in (1, 2)


def test_the_last_batch_alone_is_written_once_more(
    crashed: tuple[Path, int], keys: TapKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sync may have failed; everything before it was synced, or it would not be there."""
    log, begin = crashed
    places: list[int] = []
    write = os.pwrite

    def noting(descriptor: int, data: bytes, offset: int) -> int:
        places.append(offset)
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", noting)
    recover(log, keys).journal.abandon()
    assert places == [begin]
    LogWriter.open(log, keys).close()
    places.clear()
    recover(log, keys).journal.abandon()
    assert places == []  # a checkpoint covers it


def test_a_long_backlog_is_signed_beside_the_first_appends(
    crashed: tuple[Path, int], keys: TapKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = crashed
    monkeypatch.setattr("ullage.log.writer.LONG_BACKLOG", 0)
    signed = LogReader.open(log, keys.log.verifier).checkpoint.size
    with LogWriter.open(log, keys) as writer:
        size = writer.append_sync(opening(writer.next_counter)) + 1
        deadline = time.monotonic() + 20
        while LogReader.open(log, keys.log.verifier).checkpoint.size == signed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    findings = LogReader.open(log, keys.log.verifier).verify()
    assert (findings.verdict, findings.covered) == ("pass", size)


def test_a_flipped_bit_in_the_last_batch_is_cut_and_kept(crashed: tuple[Path, int], keys: TapKeys) -> None:
    directory, durable = crashed
    data = segment(directory).read_bytes()
    for spot in range(durable, len(data), 41):
        changed = bytearray(data)
        changed[spot] ^= 1 << (spot % 8)
        recovery, _ = _reopened(directory, keys, bytes(changed))
        assert recovery.cut_bytes > 0


def test_a_flipped_bit_before_the_last_batch_is_refused(crashed: tuple[Path, int], keys: TapKeys) -> None:
    """It had been durable, as the batch after it shows; nobody may cut that off."""
    directory, durable = crashed
    sound = segment(directory).read_bytes()
    with segment(directory).open("rb") as file:
        frames = list(SegmentReader(file))
    (unsigned,) = (frame for frame in frames if frame.end == durable)
    for spot in range(unsigned.offset, durable, 3):
        changed = bytearray(sound)
        changed[spot] ^= 1 << (spot % 8)
        segment(directory).write_bytes(changed)
        with pytest.raises(IntegrityError, match="had been durable"):
            LogWriter.open(directory, keys)
        assert segment(directory).read_bytes() == changed
    # A seal that a checkpoint covers is not looked at: it may be forgotten. Its entry is.
    for spot in range(frames[0].offset, unsigned.offset, 3):
        changed = bytearray(sound)
        changed[spot] ^= 1 << (spot % 8)
        segment(directory).write_bytes(changed)
        in_seal = any(frame.key_offset <= spot < frame.end for frame in frames)
        check = any(frame.offset + 8 <= spot < frame.offset + 12 for frame in frames)
        if not in_seal and not check:
            with pytest.raises(IntegrityError):
                LogWriter.open(directory, keys)


def test_zeros_that_were_allotted_are_no_damage(tmp_path: Path, keys: TapKeys) -> None:
    make_log(tmp_path / "log", keys)
    with segment(tmp_path / "log").open("ab") as file:
        file.write(bytes(5000))
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.recovery.cut_bytes == 0
        assert writer.recovery.cut_file is None
        writer.append_sync(opening(3))
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.recovery.aborted == (3,)


def damage(kind: str, directory: Path, keys: TapKeys) -> None:
    path = segment(directory)
    data = path.read_bytes()
    match kind:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "altered":
            path.write_bytes(data.replace(b'"prompt_tokens":3', b'"prompt_tokens":4', 1))
        case "another history":
            shutil.rmtree(directory / "sealed")
            shutil.copytree(make_log(directory.with_name("other"), keys, 5) / "sealed", directory / "sealed")
        case "head":
            path.write_bytes(data.replace(b'"closed":"0"', b'"closed":"1"', 1))
        case "no checkpoint":
            (directory / "checkpoint").unlink()
        case "checkpoint altered":
            note = (directory / "checkpoint").read_bytes()
            (directory / "checkpoint").write_bytes(note.replace(b"\n1", b"\n2", 1))
        case "forked":
            fork = make_log(directory.with_name("fork"), keys, 4)
            shutil.copy(fork / "checkpoint", directory / "checkpoint")


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "emptied",
        "altered",
        "another history",
        "head",
        "no checkpoint",
        "checkpoint altered",
        "forked",
    ],
)
def test_a_damaged_log_is_refused_and_left_as_it_is(tmp_path: Path, keys: TapKeys, kind: str) -> None:
    make_log(tmp_path / "log", keys, 4)
    damage(kind, tmp_path / "log", keys)
    before = _contents(tmp_path / "log")
    with pytest.raises(IntegrityError):
        LogWriter.open(tmp_path / "log", keys)
    assert _contents(tmp_path / "log") == before


def _contents(log: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}


def test_a_log_without_its_journal_cannot_go_on_but_verifies(tmp_path: Path, keys: TapKeys) -> None:
    make_log(tmp_path / "log", keys, 4)
    shutil.rmtree(tmp_path / "log" / "sealed")
    with pytest.raises(UsageError, match="sealed"):
        LogWriter.open(tmp_path / "log", keys)
    findings = read_log(tmp_path / "log", keys).verify()
    assert findings.verdict == "pass"
    assert [finding.code for finding in findings.findings] == ["payload-missing"]
    assert findings.unread == 4


def test_other_secrets_are_refused(tmp_path: Path, keys: TapKeys) -> None:
    make_log(tmp_path / "log", keys)
    with pytest.raises(UsageError, match=r"seed\.key"):
        LogWriter.open(tmp_path / "log", dataclasses.replace(keys, seed=bytes(32)))
    with pytest.raises(UsageError, match=r"seal\.key"):
        LogWriter.open(tmp_path / "log", dataclasses.replace(keys, seal=bytes(32)))


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
    with segment(tmp_path / "log").open("rb") as file:
        head = SegmentReader(file).end_offset
    os.truncate(segment(tmp_path / "log"), head + 2)
    with pytest.raises(UsageError, match="never finished"):
        LogWriter.open(tmp_path / "log", keys)


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_random_moments_every_acknowledged_entry_is_there(tmp_path: Path, kills: int) -> None:
    result = crash_campaign.run(tmp_path, kills, seed=kills)
    assert result["sound"], result
    assert result["kills"] == kills
    acknowledged = result["acknowledged"]
    assert isinstance(acknowledged, int)
    assert acknowledged > kills
