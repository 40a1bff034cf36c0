"""Forgetting records, and changing the tap's keys: what is gone is gone, and the log verifies as before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.log.samples import NEVER, closing, header, make_keys, make_log, opening, read_log, segment
from ullage.errors import UsageError
from ullage.log.keys import TapKeys, load_tap_keys
from ullage.log.opened import SealedReason, SealedRecord
from ullage.log.store import LogReader, LogWriter
from ullage.log.upkeep.forgetting import forget_records
from ullage.log.upkeep.rotation import rotate_log_key, rotate_seal_key


@pytest.fixture
def keys(tmp_path: Path) -> TapKeys:
    return make_keys(tmp_path / "keys")


def test_a_forgotten_record_is_gone_and_the_log_verifies(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys, 6)
    opener = read_log(log, keys).record_keys(None)
    before = LogReader.open(log, keys.log.verifier).verify()
    sealed = segment(log).read_bytes()
    (log / "sealed" / "torn-00000000000000000000-5").write_bytes(b"something")
    forget_records(log, [1, 4])
    forget_records(log, [1])
    assert LogReader.open(log, keys.log.verifier).verify() == before
    for reader in (read_log(log, keys), LogReader.open(log, keys.log.verifier, opener)):
        assert [record.counter for record in reader.records()] == [0, 2, 3, 5]
        gone = [record for record in reader.all_records() if isinstance(record, SealedRecord)]
        assert gone == [SealedRecord(counter, SealedReason.FORGOTTEN) for counter in (1, 4)]
        findings = reader.verify()
        assert ([one.code for one in findings.findings], findings.unread) == (["record-forgotten"], 2)
    assert not list((log / "sealed").glob("torn-*"))
    # Three frames of record 1 and two of record 4: nothing of what was sealed is left in them.
    left = segment(log).read_bytes()
    assert len(left) == len(sealed)
    assert sum(one != other for one, other in zip(left, sealed, strict=True)) > 1500
    with LogWriter.open(log, keys) as writer:
        writer.append_sync(opening(6))
        writer.append_sync(closing(6, (1,)))
    assert read_log(log, keys).verify().verdict == "pass"


def test_forgetting_while_the_writer_works(tmp_path: Path, keys: TapKeys) -> None:
    with LogWriter.create(tmp_path / "log", keys, header(), NEVER) as writer:
        for counter in range(20):
            writer.append_sync(opening(counter))
            writer.append_sync(closing(counter, (counter,)))
            if counter % 5 == 4:
                writer.checkpoint()
                forget_records(tmp_path / "log", [counter])
        writer.append_sync(opening(20))
        with pytest.raises(UsageError, match="no close"):
            forget_records(tmp_path / "log", [20])
    assert read_log(tmp_path / "log", keys).verify().unread == 4
    assert read_log(tmp_path / "log", keys).verify().verdict == "pass"


def test_what_cannot_be_forgotten_is_said_and_nothing_is_touched(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys, 3)
    before = segment(log).read_bytes()
    with pytest.raises(UsageError, match="Record 7"):
        forget_records(log, [0, 7])
    assert segment(log).read_bytes() == before


def test_the_log_goes_on_under_a_new_key_and_old_holders_follow(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys, 3)
    new = rotate_log_key([log], tmp_path / "keys")
    later = load_tap_keys(tmp_path / "keys")
    assert later.log == new != keys.log
    assert (log / "log.pub").read_bytes() == (tmp_path / "keys" / "log.pub").read_bytes()
    with pytest.raises(UsageError, match="handed over"):
        LogWriter.open(log, keys)
    with LogWriter.open(log, later) as writer:
        writer.append_sync(opening(3))
        writer.append_sync(closing(3, (1,)))
    for verifier in (keys.log.verifier, new.verifier):
        reader = LogReader.open(log, verifier)
        assert reader.verify().verdict == "pass"
        assert reader.checkpoint.size == 12
        reader.prove_record(3)
    rotate_log_key([log], tmp_path / "keys")
    assert LogReader.open(log, keys.log.verifier).verify().verdict == "pass"


@pytest.mark.parametrize("after", ["new key", "handover", "everything"])
def test_an_interrupted_handover_is_finished_by_the_next(
    tmp_path: Path, keys: TapKeys, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    logs = [make_log(tmp_path / name, keys, 3) for name in ("one", "two")]

    class PowerCutError(Exception):
        pass

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        if after == "new key":
            patch.setattr("ullage.log.upkeep.rotation.LogWriter.open", cut)
        elif after == "handover":
            calls: Iterator[Callable[..., Any]] = iter([LogWriter.open, cut])

            def open_once(*given: Any) -> Any:
                return next(calls)(*given)

            patch.setattr("ullage.log.upkeep.rotation.LogWriter.open", open_once)
        else:
            patch.setattr("ullage.log.upkeep.rotation.replace", cut)
        with pytest.raises(PowerCutError):
            rotate_log_key(logs, tmp_path / "keys")
    with pytest.raises(UsageError, match="rotate-key"):
        load_tap_keys(tmp_path / "keys")
    new = rotate_log_key(logs, tmp_path / "keys")
    for log in logs:
        LogWriter.open(log, load_tap_keys(tmp_path / "keys")).close()
        assert LogReader.open(log, keys.log.verifier).verify().verdict == "pass"
        handed = [entry for entry in LogReader.open(log, new.verifier).entries() if hasattr(entry, "new_key")]
        assert len(handed) == 1


def test_a_new_seal_key_opens_all_that_was_not_forgotten(tmp_path: Path, keys: TapKeys) -> None:
    logs = [make_log(tmp_path / name, keys, 4) for name in ("one", "two")]
    forget_records(logs[0], [2])
    stolen = shutil.copytree(logs[0], tmp_path / "stolen")
    assert rotate_seal_key(logs, tmp_path / "keys") == 7
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        "log.key", "log.pub", "seal.key", "seed.key",
    ]  # fmt: skip
    later = load_tap_keys(tmp_path / "keys")
    assert later.seal != keys.seal
    for log, unread in zip(logs, (1, 0), strict=True):
        findings = read_log(log, later).verify()
        assert (findings.verdict, findings.unread) == ("pass", unread)
        assert read_log(log, keys).verify().verdict == "fail"
        with LogWriter.open(log, later) as writer:
            writer.append_sync(opening(4))
            writer.append_sync(closing(4, (1,)))
    assert read_log(stolen, later).verify().verdict == "fail", "an old copy opens with the old key only"


@pytest.mark.parametrize("count", range(6))
def test_an_interrupted_change_of_the_seal_key_is_finished_by_the_next(
    tmp_path: Path, keys: TapKeys, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The power goes at the first, second, … renaming of a file."""
    logs = [make_log(tmp_path / name, keys, 3) for name in ("one", "two")]
    real, left = Path.replace, count

    class PowerCutError(Exception):
        pass

    def cut(path: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise PowerCutError
        left -= 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with contextlib.suppress(PowerCutError):
            rotate_seal_key(logs, tmp_path / "keys")
    rotate_seal_key(logs, tmp_path / "keys")
    later = load_tap_keys(tmp_path / "keys")
    assert not list((tmp_path / "keys").glob("*.old"))
    for log in logs:
        assert read_log(log, later).verify().findings == ()
