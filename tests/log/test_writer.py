"""Appending: order, durability, group commit, one writer, rules, failing disks."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.log.samples import NEVER, chunk, closing, header, make_keys, make_log, opening, records
from ullage.errors import FaultError, UsageError
from ullage.log.files import frame
from ullage.log.record import HeaderPart, OpenPart, Part, canonical_bytes
from ullage.log.store import CheckpointPolicy, LogReader, LogWriter


def test_what_is_on_disk_is_what_the_page_says(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    make_log(tmp_path / "log", keys, 2)
    parts = [header(), *records(2)]
    assert (tmp_path / "log" / "entries").read_bytes() == frame([canonical_bytes(part) for part in parts])
    assert (tmp_path / "log" / "log.pub").read_bytes() == (tmp_path / "keys" / "log.pub").read_bytes()
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["checkpoint", "entries", "log.pub"]
    reader = LogReader.open(tmp_path / "log", keys.log.verifier)
    assert list(reader.entries()) == parts
    assert reader.header == parts[0]
    assert [record.counter for record in reader.records()] == [0, 1]


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
    release, real = threading.Event(), os.fdatasync

    def slow(descriptor: int) -> None:
        release.wait(5)
        real(descriptor)

    async def check(writer: LogWriter) -> None:
        task = asyncio.create_task(writer.append(opening(0)))
        await asyncio.sleep(0.1)
        assert not task.done()
        release.set()
        assert await task == 1

    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header()) as writer:
        monkeypatch.setattr(os, "fdatasync", slow)
        asyncio.run(check(writer))


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

    with LogWriter.create(tmp_path / "log", keys, header(), CheckpointPolicy(1e9, 3)) as writer:
        for counter in range(3):
            assert signed() == 1
            writer.append_sync(opening(counter))
        assert signed() == 4
        writer.append_sync(closing(0, ()))
        assert signed() == 4
        assert writer.checkpoint().size == 5 == signed()
    with LogWriter.open(tmp_path / "log", keys, CheckpointPolicy(0.2, 1000)) as writer:
        before = signed()
        writer.append_sync(opening(3))
        for _ in range(100):
            if signed() == before + 1:
                break
            threading.Event().wait(0.05)
        assert signed() == before + 1


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


@pytest.mark.parametrize("call", ["write", "fdatasync"])
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
    writer = LogWriter.create(tmp_path / "log", keys, header())
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        results = asyncio.run(appends(writer))
    assert all(isinstance(result, FaultError) for result in results)
    with pytest.raises(FaultError, match="full" if number == errno.ENOSPC else "failed"):
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
from ullage.log.store import LogWriter
from tests.log.samples import header, opening
writer = LogWriter.create(Path(sys.argv[1]), load_tap_keys(Path(sys.argv[2])), header())
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
