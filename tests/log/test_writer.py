"""Appending: order, durability, group commit, one writer, rules, failing disks."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.log.samples import (
    NEVER,
    chunk,
    closing,
    header,
    make_keys,
    make_log,
    opening,
    read_log,
    records,
    segment,
)
from ullage.errors import FaultError, UsageError
from ullage.log.entries import VerdictEntry, encode_entry
from ullage.log.journal.segments import SegmentReader
from ullage.log.record import HeaderPart, OpenPart, Part
from ullage.log.sealed.sealing import seed_commitment
from ullage.log.store import CheckpointPolicy, LogReader, LogWriter, holds_log
from ullage.log.tree.tiles import decode_bundle
from ullage.merkle import leaf_hash, tree_root


def test_what_is_on_disk_is_what_the_pages_say(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    log = make_log(tmp_path / "log", keys, 2)
    assert (log / "log.pub").read_bytes() == (tmp_path / "keys" / "log.pub").read_bytes()
    assert sorted(path.name for path in log.iterdir()) == ["checkpoint", "log.pub", "sealed", "tile"]
    assert (log / "sealed").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (log / "sealed").iterdir()} == {0o600}
    reader = read_log(log, keys)
    entries = [encode_entry(entry) for entry in reader.entries()]
    assert decode_bundle((log / "tile" / "entries" / "000.p" / "7").read_bytes(), 7) == entries
    leaves = [leaf_hash(entry) for entry in entries]
    assert (log / "tile" / "0" / "000.p" / "7").read_bytes() == b"".join(leaves)
    assert reader.checkpoint.root == tree_root(leaves)
    with segment(log).open("rb") as file:
        assert [frame.entry for frame in SegmentReader(file)] == entries
    assert reader.header == header().model_copy(update={"seed_commitment": seed_commitment(keys.seed)})
    parts = list(records(2))
    assert [(record.open, record.chunks, record.close) for record in reader.records()] == [
        (parts[0], [], parts[1]),
        (parts[2], [parts[3], parts[4]], parts[5]),
    ]


def test_what_strangers_can_read_holds_no_token_and_no_seed(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", make_keys(tmp_path / "keys"), 4)
    everything = b"".join(path.read_bytes() for path in sorted(log.rglob("*")) if path.is_file())
    public = b"".join(path.read_bytes() for path in sorted((log / "tile").rglob("*")) if path.is_file())
    assert b"output_tokens" in public
    for secret in (b'seed":', b"output_ids", b"prompt_ids", b"fp_1", b"9223372036854775807"):
        assert secret not in everything


def test_many_tasks_share_syncs_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fdatasync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)

    async def one(writer: LogWriter, indices: list[int]) -> None:
        for _ in range(10):
            counter = writer.next_counter
            opened = await writer.append(opening(counter))
            closed = await writer.append(closing(counter, (1,)))
            assert closed > opened
            indices += [opened, closed]

    async def all_tasks() -> list[int]:
        indices: list[int] = []
        with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
            await asyncio.gather(*(one(writer, indices) for _ in range(16)))
        return indices

    indices = asyncio.run(all_tasks())
    assert sorted(indices) == list(range(1, 321))
    assert syncs < 160
    findings = LogReader.open(tmp_path / "log").verify()
    assert (findings.verdict, findings.opened, findings.closed) == ("pass", 160, 160)


def test_an_append_returns_only_after_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fdatasync, []

    def slow(descriptor: int) -> None:
        threading.Event().wait(0.1)
        real(descriptor)
        synced.append(time.monotonic())

    async def check(writer: LogWriter) -> None:
        assert await writer.append(opening(0)) == 1
        assert time.monotonic() > synced[0]
        assert len(synced) == 1

    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        monkeypatch.setattr(os, "fdatasync", slow)
        asyncio.run(check(writer))


def test_a_slow_disk_does_not_hold_up_an_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        threading.Event().wait(0.2)
        real(descriptor)

    async def check(writer: LogWriter) -> float:
        """The longest pause of the loop during an append, after the first sync was seen to be slow."""
        await writer.append(opening(0))
        longest, appended = 0.0, asyncio.ensure_future(writer.append(opening(1)))
        while not appended.done():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        assert await appended == 2
        return longest

    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        monkeypatch.setattr(os, "fdatasync", slow)
        assert asyncio.run(check(writer)) < 0.15


def test_a_cancelled_append_is_durable_and_harms_nobody(tmp_path: Path) -> None:
    async def cancel(writer: LogWriter) -> None:
        task = asyncio.create_task(writer.append(opening(0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await writer.append(closing(0, (1,))) == 2

    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        asyncio.run(cancel(writer))
    assert LogReader.open(tmp_path / "log").verify().verdict == "pass"


def test_parts_of_one_request_stand_together(tmp_path: Path) -> None:
    def choice(counter: int, group: int) -> OpenPart:
        return opening(counter).model_copy(update={"group": group, "choice": counter - group})

    async def request(writer: LogWriter) -> int:
        first = writer.next_counter
        return await writer.append_all([choice(first + index, first) for index in range(3)])

    async def both(writer: LogWriter) -> list[int]:
        return list(await asyncio.gather(request(writer), request(writer)))

    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        assert asyncio.run(both(writer)) == [1, 4]
        assert writer.next_counter == 6


@pytest.mark.parametrize(
    "part",
    [
        header(),
        opening(0),
        opening(3),
        chunk(1, 1, (5,)),
        chunk(0, 0, (5,)),
        chunk(9, 0, (5,)),
        closing(1, (5,)),
        closing(0, (5,)),
    ],
    ids=[
        "second header", "counter again", "gap", "chunk out of order", "chunk of a closed record",
        "chunk without open", "output that no chunk had", "second close",
    ],
)  # fmt: skip
def test_parts_that_break_a_rule_are_refused_and_leave_no_trace(tmp_path: Path, part: Part) -> None:
    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        writer.append_sync(opening(0))
        writer.append_sync(closing(0, (5,)))
        writer.append_sync(opening(1, stream=True))
        with pytest.raises(UsageError, match="refuses"):
            writer.append_sync(part)
        writer.append_sync(chunk(1, 0, (5,)))
        writer.append_sync(closing(1, (5,)))
    assert LogReader.open(tmp_path / "log").verify().verdict == "pass"


def test_a_chunk_of_a_plain_record_and_too_few_bytes_are_refused(tmp_path: Path) -> None:
    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        writer.append_sync(opening(0))
        with pytest.raises(UsageError, match="no stream"):
            writer.append_sync(chunk(0, 0, (5,)))
        writer.append_sync(opening(1, stream=True))
        writer.append_sync(chunk(1, 0, (5,)))
        with pytest.raises(UsageError, match="fewer bytes"):
            writer.append_sync(closing(1, (5,), bytes_to_client=9))


def test_nothing_is_appended_after_close(tmp_path: Path) -> None:
    writer = LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header())
    writer.close()
    writer.close()
    with pytest.raises(UsageError, match="closed"):
        writer.append_sync(opening(0))


def test_checkpoints_come_by_themselves(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")

    def signed() -> int:
        return LogReader.open(tmp_path / "log", keys.log.verifier).checkpoint.size

    def wait_for(size: int) -> None:
        for _ in range(100):
            if signed() == size:
                return
            threading.Event().wait(0.05)
        raise AssertionError(f"no checkpoint of {size} entries")

    with LogWriter.create(tmp_path / "log", keys, header(), CheckpointPolicy(1e9, 3)) as writer:
        for counter in range(3):
            assert signed() == 1
            writer.append_sync(opening(counter))
        wait_for(4)
        writer.append_sync(closing(0, ()))
        assert signed() == 4
        assert writer.checkpoint().size == 5 == signed()
    with LogWriter.open(tmp_path / "log", keys, CheckpointPolicy(0.2, 1000)) as writer:
        before = signed()
        writer.append_sync(opening(3))
        wait_for(before + 1)


def test_the_last_state_is_signed_on_close(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    with LogWriter.create(tmp_path / "log", keys, header(), NEVER) as writer:
        writer.append_sync(opening(0))
        assert LogReader.open(tmp_path / "log").verify().verdict == "cannot-tell"
    assert LogReader.open(tmp_path / "log").verify().verdict == "pass"


def test_a_log_is_neither_overwritten_nor_made_for_another_key(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    with pytest.raises(UsageError, match="id must be"):
        LogWriter.create(tmp_path / "log", keys, header("tap.example/onetwo"))
    LogWriter.create(tmp_path / "log", keys, header(keys.new_log_id())).close()
    with pytest.raises(UsageError, match="already holds"):
        LogWriter.create(tmp_path / "log", keys, header())
    with pytest.raises(UsageError, match="no log"):
        LogWriter.open(tmp_path, keys)


SECOND_WRITER = """
import sys
from pathlib import Path
from ullage.errors import UsageError
from ullage.log.keys import load_tap_keys
from ullage.log.store import LogWriter
try:
    LogWriter.open(Path(sys.argv[1]), load_tap_keys(Path(sys.argv[2])))
except UsageError as error:
    print(error)
"""


def test_a_second_writer_is_refused_from_here_and_from_another_process(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    with LogWriter.create(tmp_path / "log", keys, header()):
        with pytest.raises(UsageError, match="Another process"):
            LogWriter.open(tmp_path / "log", keys)
        command = [sys.executable, "-c", SECOND_WRITER, str(tmp_path / "log"), str(tmp_path / "keys")]
        assert "Another process" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    LogWriter.open(tmp_path / "log", keys).close()


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_ends_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    async def appends(writer: LogWriter) -> list[int | BaseException]:
        return await asyncio.gather(
            *(writer.append(opening(counter)) for counter in range(3)), return_exceptions=True
        )

    keys = make_keys(tmp_path / "keys")
    writer = LogWriter.create(tmp_path / "log", keys, header(), CheckpointPolicy(reopen_seconds=1e6))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        results = asyncio.run(appends(writer))
    assert all(isinstance(result, FaultError) for result in results)
    with pytest.raises(FaultError, match="full" if number == errno.ENOSPC else "cannot be written"):
        writer.append_sync(opening(3))
    with pytest.raises(FaultError):
        writer.checkpoint()
    with pytest.raises(FaultError):
        writer.close()
    with LogWriter.open(tmp_path / "log", keys) as again:
        again.append_sync(opening(again.next_counter))
    assert LogReader.open(tmp_path / "log").verify().verdict == "pass"


LIMITED = """
import resource, sys
from pathlib import Path
from ullage.errors import FaultError
from ullage.log.keys import load_tap_keys
from ullage.log.store import CheckpointPolicy, LogWriter
from tests.log.samples import header, opening
policy = CheckpointPolicy(reopen_seconds=1e6)
writer = LogWriter.create(Path(sys.argv[1]), load_tap_keys(Path(sys.argv[2])), header(), policy)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for counter in range(1000):
    try:
        writer.append_sync(opening(counter))
    except FaultError as error:
        print(counter, error, flush=True)
        try:
            writer.append_sync(opening(counter + 1))
        except FaultError:
            print("still failed", flush=True)
        break
"""


def test_a_file_that_may_not_grow_ends_in_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "log"), str(tmp_path / "keys")]
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    first, second = result.stdout.splitlines()
    assert "full" in first
    assert second == "still failed"
    acknowledged = int(first.split()[0])
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.next_counter == acknowledged
        assert writer.recovery.aborted == tuple(range(acknowledged))
        assert writer.recovery.cut_bytes > 0
    findings = LogReader.open(tmp_path / "log", keys.log.verifier).verify()
    assert (findings.verdict, findings.opened, findings.aborted) == ("pass", acknowledged, acknowledged)


def test_the_header_is_at_hand(tmp_path: Path) -> None:
    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        assert isinstance(writer.header, HeaderPart)
        assert writer.directory == tmp_path / "log"


def test_of_several_parts_all_are_taken_or_none(tmp_path: Path) -> None:
    wrong: list[list[Part]] = [
        [chunk(0, 0, (5,)), closing(0, (5, 6))],  # the close contradicts the chunk before it
        [opening(1), opening(3)],
        [closing(0, ()), closing(0, ())],
        [opening(1), chunk(0, 1, (5,))],
    ]

    async def refused(writer: LogWriter) -> None:
        for parts in wrong:
            with pytest.raises(UsageError, match="refuses"):
                await writer.append_all(parts)
        assert writer.next_counter == 1
        assert await writer.append_all([chunk(0, 0, (5,)), closing(0, (5,)), opening(1)]) == 2

    keys = make_keys(tmp_path / "keys")
    with LogWriter.create(tmp_path / "log", keys, header()) as writer:
        writer.append_sync(opening(0, stream=True))
        asyncio.run(refused(writer))
        writer.append_sync(closing(1, ()))
    assert read_log(tmp_path / "log", keys).verify().verdict == "pass"


def test_a_verdict_is_noted_in_the_log(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    with LogWriter.create(tmp_path / "log", keys, header()) as writer:
        assert writer.append_verdict("sha256:" + "a" * 64) == 1
    assert list(read_log(tmp_path / "log", keys).entries())[1] == VerdictEntry("sha256:" + "a" * 64)


def test_a_log_is_there_from_its_first_moment(tmp_path: Path) -> None:
    assert not holds_log(tmp_path / "log")
    LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()).close()
    assert holds_log(tmp_path / "log")


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync"])
def test_the_writer_goes_on_by_itself_when_the_disk_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    keys = make_keys(tmp_path / "keys")
    policy = CheckpointPolicy(seconds=0.05, reopen_seconds=0.05)
    with LogWriter.create(tmp_path / "log", keys, header(), policy) as writer:
        writer.append_sync(opening(0, stream=True))
        writer.append_sync(chunk(0, 0, (5, 6)))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            if call == "fsync":  # only checkpoints need it: an append goes through, the next checkpoint fails
                writer.append_sync(opening(1))
                for _ in range(200):
                    if writer.failure is not None:
                        break
                    threading.Event().wait(0.02)
            with pytest.raises(FaultError):
                writer.append_sync(closing(0, (5, 6)))
        for _ in range(200):
            if writer.failure is None:
                break
            threading.Event().wait(0.05)
        # What was written and not synced may be there all the same: it was only never acknowledged.
        assert writer.recovery.aborted == {"pwrite": (0,), "fdatasync": (), "fsync": (0, 1)}[call]
        with pytest.raises(UsageError, match="closed before"):
            writer.append_sync(closing(0, (5, 6)))
        counter = writer.next_counter
        writer.append_sync(opening(counter))
        writer.append_sync(closing(counter, (7,)))
    reader = read_log(tmp_path / "log", keys)
    assert reader.verify().verdict == "pass"
    closed = reader.record(0).close
    assert closed is not None
    assert closed.outcome == ("complete" if call == "fdatasync" else "aborted")
    assert closed.output_ids == (5, 6)
    assert reader.record(counter).output_ids == (7,)


def test_a_journal_that_was_damaged_meanwhile_is_not_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    keys = make_keys(tmp_path / "keys")
    writer = LogWriter.create(tmp_path / "log", keys, header(), CheckpointPolicy(reopen_seconds=0.05))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(FaultError):
            writer.append_sync(opening(0))
        path = segment(tmp_path / "log")
        path.write_bytes(b"x" * path.stat().st_size)
    for _ in range(100):
        if "segment" in str(writer.failure):
            break
        threading.Event().wait(0.05)
    with pytest.raises(FaultError, match="segment"):
        writer.append_sync(opening(0))
    with pytest.raises(FaultError):
        writer.close()


def test_a_new_segment_begins_when_the_last_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ullage.log.journal.append.SEGMENT_BYTES", 20_000)
    keys = make_keys(tmp_path / "keys")
    with LogWriter.create(tmp_path / "log", keys, header(), NEVER) as writer:
        writer.append_sync(opening(0, stream=True))  # in flight from the first segment to the last
        for counter in range(1, 121):
            writer.append_sync(opening(counter))
            writer.append_sync(chunk(0, counter - 1, (counter,)))
            writer.append_sync(closing(counter, ()))
        writer.append_verdict("sha256:" + "a" * 64)
    assert len(list((tmp_path / "log" / "sealed").glob("*.segment"))) > 5
    with LogWriter.open(tmp_path / "log", keys) as writer:
        assert writer.recovery.aborted == (0,)
    reader = read_log(tmp_path / "log", keys)
    assert reader.verify().verdict == "pass"
    assert reader.record(0).output_ids == tuple(range(1, 121))
    assert [record.counter for record in reader.records()] == [*range(1, 121), 0]
