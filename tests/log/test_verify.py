"""Verification: each finding from the damage it names; every flipped bit, every truncation; claims."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.log.samples import NAME, NEVER, chunk, closing, header, make_keys, make_log, opening, records
from ullage.claims import Evidence, Reading
from ullage.errors import ExitCode, IntegrityError, MalformedError, UsageError
from ullage.log.checkpoint import Checkpoint
from ullage.log.claims import log_claims
from ullage.log.files import frame
from ullage.log.findings import LogFindings, Severity
from ullage.log.keys import TapKeys
from ullage.log.merkle import leaf_hash, tree_root
from ullage.log.proof import InclusionProof
from ullage.log.record import Part, canonical_bytes
from ullage.log.signed_note import NoteSigner
from ullage.log.store import LogReader, LogWriter


@pytest.fixture
def keys(tmp_path: Path) -> TapKeys:
    return make_keys(tmp_path / "keys")


def forge(directory: Path, keys: TapKeys, parts: list[Part | bytes], origin: str = NAME) -> Path:
    """A log that a dishonest holder of the key wrote: any entries, well signed."""
    entries = [part if isinstance(part, bytes) else canonical_bytes(part) for part in parts]
    directory.mkdir()
    (directory / "entries").write_bytes(frame(entries))
    checkpoint = Checkpoint(origin, len(entries), tree_root([leaf_hash(entry) for entry in entries]))
    (directory / "checkpoint").write_bytes(checkpoint.sign(keys.log))
    return directory


def codes(findings: LogFindings) -> set[str]:
    return {finding.code for finding in findings.findings}


def test_a_sound_log_passes_without_a_finding(tmp_path: Path, keys: TapKeys) -> None:
    findings = LogReader.open(make_log(tmp_path / "log", keys, 5), keys.log.verifier).verify()
    assert findings.findings == ()
    assert (findings.verdict, findings.exit_code, findings.integrity) == ("pass", ExitCode.PASS, 1)
    assert (findings.opened, findings.closed, findings.entries) == (5, 5, findings.covered)
    assert (findings.first_time, findings.last_time) == (1_700_000_000_000_000_000, 1_700_000_000_000_000_006)


FORGED: dict[str, list[Part | bytes]] = {
    "empty": [],
    "header-missing": [*records(1)],
    "header-repeated": [header(), header()],
    "counter-gap": [header(), opening(0), closing(0, ()), opening(2)],
    "counter-repeated": [header(), opening(0), closing(0, ()), opening(0)],
    "part-without-open": [header(), closing(0, ())],
    "part-after-close": [header(), opening(0), closing(0, ()), closing(0, ())],
    "chunk-unexpected": [header(), opening(0), chunk(0, 0, (1,))],
    "chunk-order": [header(), opening(0, stream=True), chunk(0, 1, (1,))],
    "output-mismatch": [header(), opening(0, stream=True), chunk(0, 0, (1,)), closing(0, (1, 2))],
    "bytes-mismatch": [
        header(),
        opening(0, stream=True),
        chunk(0, 0, (1,)),
        closing(0, (1,), bytes_to_client=9),
    ],
    "entry-malformed": [header(), b"{}"],
    "origin-mismatch": [header("tap.example/one/other")],
}


@pytest.mark.parametrize("code", FORGED)
def test_a_well_signed_log_that_breaks_a_rule_fails(tmp_path: Path, keys: TapKeys, code: str) -> None:
    directory = forge(tmp_path / "log", keys, FORGED[code])
    findings = LogReader.open(directory, keys.log.verifier).verify()
    assert code in codes(findings)
    assert (findings.verdict, findings.integrity) == ("fail", 0)
    assert all(finding.sentence.endswith(".") for finding in findings.findings)


def test_missing_and_foreign_files(tmp_path: Path, keys: TapKeys) -> None:
    with pytest.raises(UsageError):
        LogReader.open(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    assert codes(LogReader.open(tmp_path / "folder", keys.log.verifier).verify()) == {"not-a-log"}
    (tmp_path / "folder" / "entries").write_bytes(b"")
    assert codes(LogReader.open(tmp_path / "folder", keys.log.verifier).verify()) == {
        "no-checkpoint",
        "empty",
    }
    (tmp_path / "folder" / "entries").write_bytes(b"<html>this is not a log</html>")
    found = LogReader.open(tmp_path / "folder", keys.log.verifier).verify()
    assert codes(found) == {"no-checkpoint", "empty", "entry-malformed"}
    (tmp_path / "folder" / "checkpoint").write_bytes(b"x" * (1 << 20))
    found = LogReader.open(tmp_path / "folder", keys.log.verifier).verify()
    assert "bad-signature" in codes(found)
    assert found.verdict == "fail"


def test_another_key_and_the_logs_own_key(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys)
    other = make_keys(tmp_path / "others").log.verifier
    assert codes(LogReader.open(directory, other).verify()) == {"bad-signature"}
    own = LogReader.open(directory).verify()
    assert codes(own) == {"key-from-log"}
    assert own.verdict == "pass"
    assert own.findings[0].severity is Severity.NOTE
    for claim in log_claims(own):
        assert any("vouches for itself" in sentence for sentence in claim.assumptions)
    (directory / "log.pub").unlink()
    assert "bad-signature" in codes(LogReader.open(directory).verify())


def test_entries_after_the_checkpoint_are_not_a_pass(tmp_path: Path, keys: TapKeys) -> None:
    with LogWriter.create(tmp_path / "log", keys, header(), NEVER) as writer:
        for part in records(2):
            writer.append_sync(part)
        writer.checkpoint()
        writer.append_sync(opening(2))
        reader = LogReader.open(tmp_path / "log", keys.log.verifier)
        findings = reader.verify()
        assert codes(findings) == {"not-covered"}
        assert (findings.verdict, findings.exit_code) == ("cannot-tell", ExitCode.CANNOT_TELL)
        assert (findings.integrity, findings.opened, findings.closed) == (1, 2, 2)
        assert "1 after them" in " ".join(log_claims(findings)[0].assumptions)
        assert [record.counter for record in reader.records()] == [0, 1]
        assert [record.counter for record in reader.records(include_uncovered=True)] == [0, 1, 2]
        writer.checkpoint()
        assert [record.counter for record in reader.records()] == [
            0,
            1,
        ]  # still the checkpoint it was opened with


def test_a_record_without_a_close_lowers_the_coverage(tmp_path: Path, keys: TapKeys) -> None:
    directory = forge(tmp_path / "log", keys, [header(), *records(3), opening(3)])
    findings = LogReader.open(directory, keys.log.verifier).verify()
    assert codes(findings) == {"still-open"}
    integrity, coverage = log_claims(findings)
    assert (integrity.value, coverage.value) == (1.0, 0.75)
    assert coverage.evidence is Evidence.PROVEN
    assert coverage.read_as(Reading.INSPECTOR) == coverage


def test_a_failed_log_claims_nothing_about_coverage(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys)
    (directory / "checkpoint").unlink()
    integrity, coverage = log_claims(LogReader.open(directory, keys.log.verifier).verify())
    assert integrity.value == 0
    assert (coverage.value, coverage.evidence) == (None, Evidence.NOT_COVERED)


def test_every_flipped_bit_is_found(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys, 2)
    for name in ("entries", "checkpoint", "log.pub"):
        original = (directory / name).read_bytes()
        key = None if name == "log.pub" else keys.log.verifier
        for spot in range(len(original)):
            changed = bytearray(original)
            changed[spot] ^= 1 << (spot % 8)
            (directory / name).write_bytes(changed)
            findings = LogReader.open(directory, key).verify()
            assert findings.verdict == "fail", (name, spot)
            assert log_claims(findings)[0].value == 0
        (directory / name).write_bytes(original)
    assert LogReader.open(directory, keys.log.verifier).verify().verdict == "pass"


def test_an_altered_entry_that_is_still_well_formed(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys, 2)
    entries = (directory / "entries").read_bytes()
    (directory / "entries").write_bytes(entries.replace(b'"top_k":0', b'"top_k":9', 1))
    assert codes(LogReader.open(directory, keys.log.verifier).verify()) == {"root-mismatch"}
    (directory / "entries").write_bytes(entries[: entries.rfind(b"\0\0")])
    found = codes(LogReader.open(directory, keys.log.verifier).verify())
    assert found == {"entries-missing"}


def test_every_truncation_is_found(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys, 2)
    for name in ("entries", "checkpoint"):
        original = (directory / name).read_bytes()
        for end in range(len(original)):
            (directory / name).write_bytes(original[:end])
            assert LogReader.open(directory, keys.log.verifier).verify().verdict == "fail", (name, end)
        (directory / name).write_bytes(original)


def test_swapped_spliced_and_added_entries_are_found(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys, 3)
    entries = [canonical_bytes(part) for part in (header(), *records(3))]
    dropped = entries[:1] + entries[2:]
    swapped = [entries[0], entries[2], entries[1], *entries[3:]]
    doubled = entries[:2] + entries[1:]
    for changed in (dropped, swapped, doubled, entries[::-1], [*entries, entries[-1]]):
        (directory / "entries").write_bytes(frame(changed))
        assert LogReader.open(directory, keys.log.verifier).verify().verdict == "fail"


def test_an_older_checkpoint_leaves_the_rest_unsure(tmp_path: Path, keys: TapKeys) -> None:
    with LogWriter.create(tmp_path / "log", keys, header(), NEVER) as writer:
        old = (tmp_path / "log" / "checkpoint").read_bytes()
        writer.append_sync(opening(0))
    (tmp_path / "log" / "checkpoint").write_bytes(old)
    assert LogReader.open(tmp_path / "log", keys.log.verifier).verify().verdict == "cannot-tell"


def test_a_very_broken_log_gives_a_bounded_report(tmp_path: Path, keys: TapKeys) -> None:
    directory = forge(tmp_path / "log", keys, [header(), *(closing(1, ()) for _ in range(500))])
    findings = LogReader.open(directory, keys.log.verifier).verify()
    assert len(findings.findings) == 51
    assert "more" in codes(findings)


@given(entries=st.binary(max_size=200), checkpoint=st.binary(max_size=200))
def test_any_bytes_fail_without_an_exception(
    tmp_path_factory: pytest.TempPathFactory, entries: bytes, checkpoint: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any"
    directory.mkdir(exist_ok=True)
    (directory / "entries").write_bytes(entries)
    (directory / "checkpoint").write_bytes(checkpoint)
    key = NoteSigner("x", bytes(32)).verifier
    assert LogReader.open(directory, key).verify().verdict == "fail"


def test_a_proof_convinces_offline(tmp_path: Path, keys: TapKeys) -> None:
    reader = LogReader.open(make_log(tmp_path / "log", keys, 6), keys.log.verifier)
    for counter in range(6):
        data = reader.prove_record(counter).to_bytes()
        part, checkpoint = InclusionProof.parse(data).verify(keys.log.verifier)
        assert part == reader.record(counter).close
        assert checkpoint == reader.checkpoint
    with pytest.raises(UsageError):
        reader.prove_record(6)
    with pytest.raises(UsageError):
        reader.prove(reader.checkpoint.size)


def test_every_changed_byte_of_a_proof_is_found(tmp_path: Path, keys: TapKeys) -> None:
    reader = LogReader.open(make_log(tmp_path / "log", keys, 3), keys.log.verifier)
    data = reader.prove_record(1).to_bytes()
    for spot in range(len(data)):
        changed = bytearray(data)
        changed[spot] ^= 1 << (spot % 8)
        with pytest.raises(IntegrityError):
            InclusionProof.parse(bytes(changed)).verify(keys.log.verifier)
    for end in range(len(data)):
        with pytest.raises(IntegrityError):
            InclusionProof.parse(data[:end]).verify(keys.log.verifier)


def test_nothing_is_proved_from_altered_entries(tmp_path: Path, keys: TapKeys) -> None:
    directory = make_log(tmp_path / "log", keys, 3)
    entries = (directory / "entries").read_bytes()
    (directory / "entries").write_bytes(entries.replace(b'"top_k":0', b'"top_k":9', 1))
    with pytest.raises(IntegrityError, match="nothing to prove"):
        LogReader.open(directory, keys.log.verifier).prove_record(1)
    (directory / "entries").write_bytes(entries[:-10])
    with pytest.raises(IntegrityError, match="cut"):
        list(LogReader.open(directory, keys.log.verifier).records())


def test_verification_needs_little_memory(tmp_path: Path, keys: TapKeys) -> None:
    """Peak memory must not grow with the log."""
    ids = tuple(range(100_000, 120_000))
    with LogWriter.create(tmp_path / "log", keys, header()) as writer:
        for counter in range(40):
            writer.append_sync(opening(counter))
            writer.append_sync(closing(counter, ids))
    assert (tmp_path / "log" / "entries").stat().st_size > 5 << 20
    tracemalloc.start()
    try:
        assert LogReader.open(tmp_path / "log", keys.log.verifier).verify().verdict == "pass"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_the_header_of_something_else_is_malformed(tmp_path: Path, keys: TapKeys) -> None:
    directory = forge(tmp_path / "log", keys, [opening(0)])
    with pytest.raises(MalformedError):
        _ = LogReader.open(directory, keys.log.verifier).header
