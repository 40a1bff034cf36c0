"""Reading with keys: what opens, what is only sealed, and each way in which a record contradicts the log."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.samples import (
    NAME,
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
from ullage.errors import ExitCode, IntegrityError, MalformedError, UsageError
from ullage.log.claims import log_claims
from ullage.log.entries import encode_entry, entry_of
from ullage.log.findings import LogFindings, Severity
from ullage.log.journal.publisher import Publisher, write_publication
from ullage.log.journal.segments import FRAME_MAGIC, Prepared, SegmentHead, encode_batch
from ullage.log.keys import TapKeys
from ullage.log.opened import OpenedError, SealedReason, SealedRecord
from ullage.log.record import RecordPart
from ullage.log.sealed.openers import RecordKeys, SealKey, load_opener
from ullage.log.sealed.sealing import KeyWrap, RecordSeal, seal_commitment
from ullage.log.store import LogReader, LogWriter
from ullage.log.tree.tile_tree import TreeEdge


@pytest.fixture
def keys(tmp_path: Path) -> TapKeys:
    return make_keys(tmp_path / "keys")


def codes(findings: LogFindings) -> list[str]:
    return [finding.code for finding in findings.findings]


def forge(directory: Path, keys: TapKeys, prepared: Sequence[Prepared]) -> Path:
    """A log that a dishonest holder of every key wrote: any entries and seals, well signed."""
    (directory / "sealed").mkdir(parents=True)
    head = SegmentHead.first(header(), seal_commitment(keys.seal))
    batch = [Prepared(encode_entry(header())), *prepared]
    segment(directory).write_bytes(head.to_bytes() + encode_batch(0, batch))
    publisher = Publisher(TreeEdge(), 0, [one.entry for one in batch])
    write_publication(directory, publisher.take(NAME), keys.log)
    return directory


def seal(keys: TapKeys, parts: Sequence[RecordPart], shown: Sequence[RecordPart] = ()) -> list[Prepared]:
    """One record, sealed; its public entries speak of `shown` instead where that is given."""
    record = RecordSeal(NAME, parts[0].counter, bytes(range(32)))
    wrapped = KeyWrap(NAME, keys.seal).wrap(parts[0].counter, record.key)
    prepared = []
    for number, (part, public) in enumerate(zip(parts, shown or parts, strict=True)):
        sealed = record.seal(number, part)
        entry = encode_entry(entry_of(public, sealed.commitment))
        prepared.append(Prepared(entry, b"" if number else wrapped, sealed.payload))
    return prepared


def test_a_sound_log_opens_without_a_finding(tmp_path: Path, keys: TapKeys) -> None:
    reader = read_log(make_log(tmp_path / "log", keys, 5), keys)
    findings = reader.verify()
    assert findings.findings == ()
    assert (findings.verdict, findings.unread, findings.opened) == ("pass", 0, 5)
    parts = [part for record in reader.records() for part in (record.open, *record.chunks, record.close)]
    assert parts == list(records(5))


def test_without_keys_the_log_verifies_and_the_records_stay_sealed(tmp_path: Path, keys: TapKeys) -> None:
    reader = LogReader.open(make_log(tmp_path / "log", keys, 5), keys.log.verifier)
    assert reader.verify().verdict == "pass"
    assert len(list(reader.entries())) == 15
    for read in (reader.records, lambda: reader.record(1), lambda: reader.record_keys(None)):
        with pytest.raises(UsageError, match="--"):
            read()


def test_keys_of_records_open_these_and_no_others(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys, 5)
    read_log(log, keys).record_keys([1, 3]).write(tmp_path / "opened.json")
    assert (tmp_path / "opened.json").stat().st_mode & 0o777 == 0o600
    opener = RecordKeys.load(tmp_path / "opened.json")
    reader = LogReader.open(log, keys.log.verifier, opener)
    assert [record.counter for record in reader.records()] == [1, 3]
    sealed = [record for record in reader.all_records() if isinstance(record, SealedRecord)]
    assert sealed == [SealedRecord(counter, SealedReason.UNOPENED) for counter in (0, 2, 4)]
    findings = reader.verify()
    assert (codes(findings), findings.unread, findings.verdict) == (["record-unopened"], 3, "pass")
    assert findings.findings[0].severity is Severity.NOTE
    with pytest.raises(UsageError, match="record-unopened"):
        reader.record(0)
    with pytest.raises(UsageError, match="no record 9"):
        read_log(log, keys).record_keys([9])
    other = make_log(tmp_path / "other", keys, 2)
    assert (
        LogReader.open(other, keys.log.verifier, dataclasses.replace(opener, log_id="x")).verify().unread == 2
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"keys":{"1":"00"},"log_id":"x","version":1}',
        '{"keys":{"01":"%s"},"log_id":"x","version":1}',
        '{"keys":{"1":"%s"},"log_id":"x","version":2}',
        '{"keys":{"1":"%s"},"log_id":"x","version":1,"more":1}',
    ],
)
def test_a_file_of_keys_that_is_not_exactly_right_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text.replace("%s", "ab" * 32))
    path.chmod(0o600)
    with pytest.raises(MalformedError) as caught:
        RecordKeys.load(path)
    assert "ab" * 32 not in str(caught.value)


def test_keys_that_others_can_read_are_refused_and_none_are_overwritten(
    tmp_path: Path, keys: TapKeys
) -> None:
    path = tmp_path / "keys.json"
    one = RecordKeys("x", {1: bytes(32)})
    one.write(path)
    with pytest.raises(UsageError, match="never overwritten"):
        one.write(path)
    assert bytes(32).hex() not in repr(one)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        RecordKeys.load(path)
    assert isinstance(load_opener(tmp_path / "keys"), SealKey)
    assert isinstance(load_opener(None, tmp_path / "keys"), SealKey)
    assert load_opener(tmp_path) is None
    assert keys.seal.hex() not in repr(SealKey(keys.seal))


STREAM = (opening(0, stream=True), chunk(0, 0, (5, 6)), closing(0, (5, 6)))
PLAIN = (opening(0), closing(0, (5,)))
CONTRADICTIONS: dict[str, tuple[Sequence[RecordPart], Sequence[RecordPart]]] = {
    "output-mismatch": ((STREAM[0], STREAM[1], closing(0, (5, 7))), ()),
    "bytes-mismatch": ((STREAM[0], STREAM[1], closing(0, (5, 6), bytes_to_client=9)), ()),
    "payload-mismatch": (PLAIN, (opening(0, prompt=(1,)), PLAIN[1])),
    "payload-mismatch of outcome": (
        PLAIN, (PLAIN[0], PLAIN[1].model_copy(update={"outcome": "refused"})),
    ),
    "payload-mismatch of length": (PLAIN, (PLAIN[0], closing(0, (5, 6)))),
    "payload-mismatch of time": (
        PLAIN, (PLAIN[0].model_copy(update={"time_received": 1_700_000_001_000_000_000}), PLAIN[1]),
    ),
    "payload-mismatch of stream": (
        (STREAM[0].model_copy(update={"stream": False}), *STREAM[1:]), STREAM,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_record_that_says_something_else_than_the_log_fails(
    tmp_path: Path, keys: TapKeys, name: str
) -> None:
    parts, shown = CONTRADICTIONS[name]
    log = forge(tmp_path / "log", keys, seal(keys, parts, shown))
    assert LogReader.open(log, keys.log.verifier).verify().verdict == "pass", "strangers cannot see it"
    findings = read_log(log, keys).verify()
    assert codes(findings) == [name.partition(" ")[0]]
    assert (findings.verdict, findings.exit_code) == ("fail", ExitCode.FAIL)
    assert log_claims(findings)[0].value == 0
    with pytest.raises(OpenedError):
        list(read_log(log, keys).records())


def test_swapped_altered_and_foreign_seals_fail(tmp_path: Path, keys: TapKeys) -> None:
    honest = seal(keys, PLAIN)
    other = seal(keys, (opening(0), closing(0, (6,))))
    swapped = [honest[0]._replace(payload=honest[1].payload), honest[1]]
    altered = [honest[0], honest[1]._replace(payload=honest[1].payload[:-1] + b"\0")]
    foreign = [honest[0]._replace(wrapped_key=KeyWrap(NAME, bytes(32)).wrap(0, bytes(32))), honest[1]]
    committed = [honest[0], honest[1]._replace(payload=other[1].payload)]
    for number, (prepared, code) in enumerate(
        [
            (swapped, "seal-broken"),
            (altered, "seal-broken"),
            (foreign, "seal-broken"),
            (committed, "commitment-mismatch"),
        ]
    ):
        log = forge(tmp_path / str(number), keys, prepared)
        assert codes(read_log(log, keys).verify()) == [code]


def test_a_payload_that_is_no_part_fails(
    tmp_path: Path, keys: TapKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ullage.log.sealed.sealing.canonical_bytes", lambda part: b"{}")
        prepared = seal(keys, PLAIN)
    log = forge(tmp_path / "log", keys, prepared)
    assert codes(read_log(log, keys).verify()) == ["payload-malformed"]


def test_entries_after_the_checkpoint_are_not_a_pass(tmp_path: Path, keys: TapKeys) -> None:
    with LogWriter.create(tmp_path / "log", keys, header(), NEVER) as writer:
        for part in records(2):
            writer.append_sync(part)
        writer.checkpoint()
        writer.append_sync(opening(2))
        reader = read_log(tmp_path / "log", keys)
        findings = reader.verify()
        assert codes(findings) == ["not-covered"]
        assert (findings.verdict, findings.exit_code) == ("cannot-tell", ExitCode.CANNOT_TELL)
        assert (findings.integrity, findings.opened, findings.closed) == (1, 2, 2)
        assert "1 after them" in " ".join(log_claims(findings)[0].assumptions)
        assert [record.counter for record in reader.records()] == [0, 1]
        assert [record.counter for record in reader.records(include_uncovered=True)] == [0, 1, 2]
        writer.checkpoint()
        assert [record.counter for record in reader.records()] == [0, 1], "the checkpoint it was opened with"


def test_a_journal_that_is_not_the_logs_is_refused(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys, 3)
    other = make_log(tmp_path / "other", keys, 4)
    shutil.copy(segment(other), segment(log))
    with pytest.raises(IntegrityError, match="another one in its journal"):
        list(read_log(log, keys).records())
    assert "journal-damaged" in codes(read_log(log, keys).verify())


def test_a_damaged_journal_never_passes_for_a_sound_one(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys, 2)
    sound = segment(log).read_bytes()
    first = sound.index(FRAME_MAGIC)  # of the header, which has nothing sealed: its second check says nothing
    for spot in set(range(0, len(sound), 7)) - set(range(first + 8, first + 12)):
        changed = bytearray(sound)
        changed[spot] ^= 1 << (spot % 8)
        segment(log).write_bytes(changed)
        findings = read_log(log, keys).verify()
        assert findings.findings, spot
        assert findings.verdict == "fail" or findings.unread


def test_nothing_that_is_a_log(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        LogReader.open(tmp_path / "nothing")
    assert codes(LogReader.open(tmp_path).verify()) == ["not-a-log"]
    (tmp_path / "checkpoint").write_bytes(b"x" * (1 << 20))
    findings = LogReader.open(tmp_path).verify()
    assert codes(findings) == ["bad-signature"]
    assert findings.verdict == "fail"


def test_the_logs_own_key_vouches_for_itself(tmp_path: Path, keys: TapKeys) -> None:
    log = make_log(tmp_path / "log", keys)
    found = LogReader.open(log).verify()
    assert (codes(found), found.verdict) == (["key-from-log"], "pass")
    (log / "log.pub").unlink()
    assert codes(LogReader.open(log).verify()) == ["bad-signature"]
    other = make_keys(tmp_path / "others").log.verifier
    assert "bad-signature" in codes(LogReader.open(log, other).verify())


def test_proofs_come_out_of_the_tiles(tmp_path: Path, keys: TapKeys) -> None:
    reader = LogReader.open(make_log(tmp_path / "log", keys, 6), keys.log.verifier)
    assert reader.prove_record(3).index == 12
    with pytest.raises(UsageError):
        reader.prove_record(6)
    with pytest.raises(UsageError):
        reader.prove(reader.checkpoint.size)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("checkpoint", "bad-signature"),
        ("log.pub", "bad-signature"),
        ("sealed/00000000000000000000.segment", "journal-damaged"),
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, keys: TapKeys, name: str, found: str
) -> None:
    log = make_log(tmp_path / "log", keys)
    (log / name).unlink()
    os.mkfifo(log / name)
    key = None if name == "log.pub" else keys.log.verifier
    findings = LogReader.open(log, key, SealKey(keys.seal)).verify()
    assert codes(findings) == [found]
    assert findings.exit_code is ExitCode.FAIL
