"""Growth from one checkpoint to the next, proofs out of published logs, and evidence where a log forked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.log.published import LOG, ORIGIN, OTHER, TIME, log_entries, publish, put
from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.entries import CloseEntry, parse_entry
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.cosignature import WitnessSigner, add_cosignatures
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import parse_note
from ullage.log.source import DirectorySource
from ullage.log.tree.growth import Equivocation, GrowthFindings, verify_growth
from ullage.log.tree.proof import InclusionProof
from ullage.log.tree.prover import Prover
from ullage.merkle import leaf_hash, tree_root, verify_consistency

KEY = Policy.of_key(LOG.verifier)
ENTRIES = log_entries(614)  # 1,536 entries, six full bundles


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    publish(directory, ENTRIES)
    return directory


def note_of(entries: list[bytes], origin: str = ORIGIN) -> bytes:
    return Checkpoint(origin, len(entries), tree_root([leaf_hash(one) for one in entries])).sign(LOG)


def grow(directory: Path, *earlier: bytes, policy: Policy = KEY) -> GrowthFindings:
    return verify_growth(DirectorySource(directory), policy, earlier)


def codes(found: GrowthFindings) -> list[str]:
    return [finding.code for finding in found.findings.findings]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1000, 1024, len(ENTRIES)])
def test_a_log_extends_what_it_was(log: Path, size: int) -> None:
    found = grow(log, note_of(ENTRIES[:size]))
    assert (found.findings.verdict, found.findings.findings, found.evidence) == ("pass", (), ())
    assert found.findings.covered == len(ENTRIES)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000, 1024, len(ENTRIES)])
def test_a_fork_is_found_and_its_evidence_convinces_others(log: Path, size: int) -> None:
    forked = [*ENTRIES[: size - 1], b"another"]
    found = grow(log, note_of(forked), note_of(ENTRIES[:7]))
    assert (codes(found), found.findings.verdict) == (["equivocation"], "fail")
    (evidence,) = found.evidence
    assert Equivocation.parse(evidence.to_bytes()) == evidence
    earlier, later = evidence.verify(KEY)
    assert (earlier.size, later.size) == (size, len(ENTRIES))


def test_what_does_not_extend_is_named(log: Path, tmp_path: Path) -> None:
    assert codes(grow(log, note_of([*ENTRIES, b"more"]))) == ["rolled-back"]
    assert codes(grow(log, note_of(ENTRIES[:9], f"{LOG.name}/other"))) == ["origin-mismatch"]
    assert codes(grow(log, b"nothing")) == ["bad-signature"]
    foreign = Checkpoint(ORIGIN, 1, tree_root([leaf_hash(ENTRIES[0])])).sign(OTHER)
    assert codes(grow(log, foreign)) == ["bad-signature"]
    assert codes(grow(tmp_path, note_of(ENTRIES[:9]))) == ["no-checkpoint"]
    put(tmp_path, "checkpoint", (log / "checkpoint").read_bytes())
    assert codes(grow(tmp_path, note_of(ENTRIES[:9]))) == ["tile-missing"]
    put(tmp_path, "tile/0/000", bytes(8192))
    put(tmp_path, "tile/1/000.p/6", bytes(6 * 32))
    assert codes(grow(tmp_path, note_of(ENTRIES[:9]))) == ["tile-mismatch"]


def test_growth_under_a_policy_needs_its_quorum(log: Path, tmp_path: Path) -> None:
    witness = WitnessSigner("w.example", bytes(32))
    text = f"log {LOG.verifier}\nwitness w {witness.verifier}\nquorum w\n"
    policy = Policy.parse(text.encode())
    assert codes(grow(log, note_of(ENTRIES[:9]), policy=policy)) == ["not-witnessed"]
    note = (log / "checkpoint").read_bytes()
    publish(tmp_path, ENTRIES)
    put(tmp_path, "checkpoint", add_cosignatures(note, (witness.cosign(parse_note(note)[0], TIME),)))
    assert grow(tmp_path, note_of(ENTRIES[:9]), policy=policy).findings.verdict == "pass"


def test_evidence_that_shows_nothing_is_refused(log: Path) -> None:
    (evidence,) = grow(log, note_of([*ENTRIES[:99], b"another"])).evidence
    honest = note_of(ENTRIES[:100])
    root = tree_root([leaf_hash(one) for one in ENTRIES[:100]])
    with pytest.raises(IntegrityError, match="nothing is wrong"):
        Equivocation(honest, evidence.later, root, evidence.proof).verify(KEY)
    with pytest.raises(IntegrityError, match="does not show"):
        Equivocation(honest, evidence.later, bytes(32), evidence.proof).verify(KEY)
    other = note_of(ENTRIES[:100], f"{LOG.name}/other")
    with pytest.raises(IntegrityError, match="different logs"):
        Equivocation(other, evidence.later, root, evidence.proof).verify(KEY)
    with pytest.raises(IntegrityError):
        evidence.verify(Policy.of_key(OTHER.verifier))


def changed(evidence: Equivocation, **fields: Any) -> bytes:
    return json.dumps(json.loads(evidence.to_bytes()) | fields).encode()


def test_malformed_evidence_is_refused(log: Path) -> None:
    (evidence,) = grow(log, note_of([*ENTRIES[:99], b"another"])).evidence
    for data in (
        b"", b"{", b"[]", b"{}", b"[" * 100_000, b"x" * (1 << 20), changed(evidence, extra=1),
        changed(evidence, kind="x"), changed(evidence, version=2), changed(evidence, proof=None),
        changed(evidence, proof=["x"]), changed(evidence, proof=["A" * 43 + "="] * 64),
        changed(evidence, root=1), changed(evidence, earlier=1), changed(evidence, later="\ud800"),
    ):  # fmt: skip
        with pytest.raises(MalformedError):
            Equivocation.parse(data).verify(KEY)


@given(st.binary(max_size=200))
def test_any_bytes_are_evidence_or_malformed(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Equivocation.parse(data).verify(KEY)


def prover(directory: Path) -> Prover:
    note = (directory / "checkpoint").read_bytes()
    return Prover(DirectorySource(directory), KEY.open(note).checkpoint, note)


@given(st.integers(0, len(ENTRIES) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_every_entry_can_be_proved(log: Path, index: int) -> None:
    proof = InclusionProof.parse(prover(log).entry(index).to_bytes())
    entry, opened = proof.verify(KEY)
    assert (entry, opened.checkpoint.size) == (parse_entry(ENTRIES[index]), len(ENTRIES))


@pytest.mark.parametrize("counter", [0, 1, 101, 102, 103, 204, 410, 613])
def test_every_record_can_be_proved(log: Path, counter: int) -> None:
    entry, _ = prover(log).record(counter).verify(KEY)
    assert isinstance(entry, CloseEntry)
    assert entry.counter == counter


def test_what_is_not_there_cannot_be_proved(log: Path) -> None:
    with pytest.raises(UsageError, match="checkpoint"):
        prover(log).record(614)
    for index in (-1, len(ENTRIES)):
        with pytest.raises(UsageError, match="checkpoint"):
            prover(log).entry(index)


def test_no_proof_comes_out_of_a_log_that_lies(tmp_path: Path) -> None:
    publish(tmp_path, ENTRIES)
    put(tmp_path, "tile/0/001", bytes(8192))
    with pytest.raises(IntegrityError, match="not those that the checkpoint signs"):
        prover(tmp_path).entry(300)
    (tmp_path / "tile/0/001").unlink()
    with pytest.raises(IntegrityError, match="tile/0/001"):
        prover(tmp_path).entry(300)
    (tmp_path / "tile/entries/001").unlink()
    with pytest.raises(IntegrityError, match="tile/entries/001"):
        prover(tmp_path).entry(300)


def test_growth_is_proved_to_a_witness(log: Path) -> None:
    root = tree_root([leaf_hash(one) for one in ENTRIES])
    for size in (0, 1, 256, 700, len(ENTRIES)):
        old = tree_root([leaf_hash(one) for one in ENTRIES[:size]])
        assert verify_consistency(size, old, len(ENTRIES), root, prover(log).consistency(size))


def test_a_proof_under_a_policy_needs_its_quorum(log: Path) -> None:
    witness = WitnessSigner("w.example", bytes(32))
    policy = Policy.parse(f"log {LOG.verifier}\nwitness w {witness.verifier}\nquorum w\n".encode())
    proof = prover(log).entry(5)
    with pytest.raises(IntegrityError, match="cosignatures"):
        proof.verify(policy)
    signed = add_cosignatures(
        proof.checkpoint_note, (witness.cosign(parse_note(proof.checkpoint_note)[0], TIME),)
    )
    cosigned = InclusionProof(proof.index, proof.entry, proof.hashes, signed)
    assert cosigned.verify(policy)[1].cosignatures[0].time == TIME
