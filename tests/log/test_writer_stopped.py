"""A writer that is stopped at its work, by an interrupt or want of memory, says nothing that is not so."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.log.samples import header, make_keys, opening, read_log
from ullage.errors import FaultError
from ullage.log.journal import segments
from ullage.log.store import CheckpointPolicy, LogReader, LogWriter

QUICK = CheckpointPolicy(seconds=1e9, reopen_seconds=0.02)


def wait_until_well(writer: LogWriter) -> None:
    for _ in range(200):
        if writer.failure is None:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"the writer did not go on: {writer.failure}")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=["interrupt", "memory"])
def test_nobody_is_told_that_an_interrupted_batch_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A second thread's entry lies in the batch that the first one is stopped at."""
    keys = make_keys(tmp_path / "keys")
    told: list[int | FaultError] = []

    def another() -> None:
        try:
            told.append(writer.append_sync(opening(1)))
        except FaultError as failure:
            told.append(failure)

    def stopped(*_: object) -> None:
        other.start()
        while not writer._queue:  # it has its place, and waits for the right to write
            threading.Event().wait(0.01)
        raise error

    with LogWriter.create(tmp_path / "log", keys, header(), QUICK) as writer:
        other = threading.Thread(target=another)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", stopped)
            with pytest.raises((type(error), FaultError)):
                writer.append_sync(opening(0))
            other.join()
        assert len(told) == 1
        assert isinstance(told[0], FaultError)
        wait_until_well(writer)
        counter = writer.next_counter
        index = writer.append_sync(opening(counter))
    reader = read_log(tmp_path / "log", keys)
    assert reader.verify().verdict == "pass"
    assert getattr(list(reader.entries())[index], "counter", None) == counter


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=["interrupt", "memory"])
def test_a_checkpoint_that_was_interrupted_leaves_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """More than a bundle is taken for a checkpoint whose files are never written."""

    def stopped(*_: object, **__: object) -> None:
        raise error

    keys = make_keys(tmp_path / "keys")
    with LogWriter.create(tmp_path / "log", keys, header(), QUICK) as writer:
        for counter in range(300):
            writer.append_sync(opening(counter))
        with monkeypatch.context() as patch:
            patch.setattr("ullage.log.journal.publisher.replace_all", stopped)
            with pytest.raises((type(error), FaultError)):
                writer.checkpoint()
        wait_until_well(writer)
        assert writer.checkpoint().size == 601  # all were closed as aborted
    assert read_log(tmp_path / "log", keys).verify().verdict == "pass"


def wait_for_size(log: Path, size: int) -> None:
    """Until the newest checkpoint covers so many entries."""
    for _ in range(1000):
        if LogReader.open(log).checkpoint.size == size:
            return
        threading.Event().wait(0.02)
    assert LogReader.open(log).checkpoint.size == size


def test_the_thread_that_signs_outlives_what_it_stumbles_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise MemoryError

    keys, policy = make_keys(tmp_path / "keys"), CheckpointPolicy(seconds=0.02, reopen_seconds=0.02)
    with LogWriter.create(tmp_path / "log", keys, header(), policy) as writer:
        with monkeypatch.context() as patch:
            patch.setattr("ullage.log.journal.durable.DurableLog.catch_up", stopped)
            patch.setattr(
                "ullage.log.journal.durable.DurableLog.take", stopped
            )  # a checkpoint may be on its way
            patch.setattr("ullage.log.writer.recover", stopped)
            writer.append_sync(opening(0))
            for _ in range(1000):
                if writer.failure is not None:
                    break
                threading.Event().wait(0.02)
            assert "MemoryError" in str(writer.failure)
            threading.Event().wait(0.1)  # some attempts to open the log anew fail, too
        wait_until_well(writer)
        wait_for_size(tmp_path / "log", 3)


def test_a_journal_that_cannot_be_read_for_a_while_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few descriptors, for example: a client that holds many connections must not end a log for good."""
    refused: list[Path] = []

    def few(path: Path, *_: object) -> object:
        refused.append(path)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with LogWriter.create(tmp_path / "log", make_keys(tmp_path / "keys"), header(), QUICK) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(segments, "open_plain_file", few)
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(FaultError):
                writer.append_sync(opening(0))
            for _ in range(200):
                if len(refused) > 1:
                    break
                threading.Event().wait(0.02)
        wait_until_well(writer)
        writer.append_sync(opening(writer.next_counter))
    assert len(refused) > 1
