"""The witness: every status code of tlog-witness, and a state that is durable before it answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.log.published import LOG, ORIGIN, OTHER, TIME
from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.cosignature import WitnessSigner, cosignature_time
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import Signature, parse_note, parse_signature
from ullage.log.tree.growth import Equivocation
from ullage.log.witness import state as witness_state
from ullage.log.witness.state import WitnessState
from ullage.log.witness.witness import AddCheckpoint, Answer, Witness, hash_of
from ullage.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, tree_root

SIGNER = WitnessSigner("witness.example/w1", bytes([7]) * 32)
LEAVES = [leaf_hash(bytes([number])) for number in range(40)]
FORKED = [*LEAVES[:5], leaf_hash(b"fork"), *LEAVES[6:]]
HASH = hash_of(ORIGIN)


class Clock:
    now: float = TIME

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def state(tmp_path: Path) -> Iterator[WitnessState]:
    with WitnessState.create(tmp_path / "state", SIGNER.verifier) as held:
        yield held


@pytest.fixture
def witness(state: WitnessState) -> Witness:
    return Witness(SIGNER, [LOG.verifier], state, Clock())


def note_of(size: int, leaves: list[bytes] = LEAVES) -> bytes:
    return Checkpoint(ORIGIN, size, tree_root(leaves[:size])).sign(LOG)


def growth(old: int, new: int, leaves: list[bytes] = LEAVES) -> bytes:
    proof = consistency_proof(leaves[:new], old) if old else ()
    return AddCheckpoint(old, proof, note_of(new, leaves)).to_bytes()


def line_of(answer: Answer) -> Signature:
    assert answer.status == 200
    assert answer.body.endswith(b"\n")
    return parse_signature(answer.body.decode()[:-1])


def test_growth_is_cosigned_step_by_step(witness: Witness, state: WitnessState) -> None:
    for old, new in ((0, 1), (1, 1), (1, 7), (7, 8), (8, 33), (33, 40)):
        signature = line_of(witness.add_checkpoint(growth(old, new)))
        assert SIGNER.verifier.verify(signature.value, parse_note(note_of(new))[0].encode())
        kept = state.latest(HASH)
        assert kept is not None
        assert parse_note(kept)[0] == parse_note(note_of(new))[0]
        assert len(parse_note(kept)[1]) == 2
        assert witness.latest(HASH) == kept


def test_the_empty_tree_may_be_cosigned(witness: Witness) -> None:
    note = Checkpoint(ORIGIN, 0, EMPTY_ROOT).sign(LOG)
    assert witness.add_checkpoint(AddCheckpoint(0, (), note).to_bytes()).status == 200
    wrong = Checkpoint(ORIGIN, 0, bytes(32)).sign(LOG)
    assert witness.add_checkpoint(AddCheckpoint(0, (), wrong).to_bytes()).status == 422


STRANGER = Checkpoint("elsewhere.example/log", 7, bytes(32)).sign(OTHER.named("elsewhere.example/log"))
REFUSED: dict[str, tuple[Callable[[], bytes], int]] = {
    "nothing": (lambda: b"", 400),
    "no old size": (lambda: b"\n" + note_of(7), 400),
    "old size with a zero": (lambda: b"old 07\n\n" + note_of(7), 400),
    "old size below zero": (lambda: b"old -1\n\n" + note_of(7), 400),
    "a line that is no hash": (lambda: b"old 7\nAAAA\n\n" + note_of(8), 400),
    "too many lines": (lambda: b"old 7\n" + (b"A" * 43 + b"=\n") * 64 + b"\n" + note_of(8), 400),
    "no checkpoint": (lambda: b"old 7\n\nhello\n", 400),
    "carriage returns": (lambda: growth(7, 8).replace(b"\n", b"\r\n"), 400),
    "an unknown log": (lambda: AddCheckpoint(0, (), STRANGER).to_bytes(), 404),
    "another key": (
        lambda: AddCheckpoint(7, (), Checkpoint(ORIGIN, 8, bytes(32)).sign(OTHER)).to_bytes(), 403,
    ),
    "a wrong signature": (lambda: growth(7, 8).replace(b"\n8\n", b"\n9\n"), 403),
    "an old size above the size": (lambda: AddCheckpoint(9, (), note_of(8)).to_bytes(), 400),
    "an old size that is not ours": (lambda: growth(6, 8), 409),
    "old size zero again": (lambda: growth(0, 8), 409),
    "less than was cosigned": (lambda: growth(3, 5), 409),
    "a fork": (lambda: growth(7, 8, FORKED), 422),
    "a fork of the same size": (lambda: growth(7, 7, FORKED), 422),
    "a wrong proof": (lambda: AddCheckpoint(7, (bytes(32),) * 4, note_of(8)).to_bytes(), 422),
    "no proof": (lambda: AddCheckpoint(7, (), note_of(8)).to_bytes(), 422),
    "a proof where none belongs": (lambda: AddCheckpoint(7, (bytes(32),), note_of(7)).to_bytes(), 422),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_everything_else_is_refused_with_its_code(witness: Witness, kind: str) -> None:
    assert witness.add_checkpoint(growth(0, 7)).status == 200
    body, status = REFUSED[kind]
    before = witness.latest(HASH)
    answer = witness.add_checkpoint(body())
    assert answer.status == status
    assert b"\xe2\x80\x94" not in answer.body
    if status == 409:
        assert (answer.body, answer.content_type) == (b"7\n", "text/x.tlog.size")
    assert witness.latest(HASH) == before


def test_a_proof_for_the_first_checkpoint_is_refused(witness: Witness) -> None:
    assert witness.add_checkpoint(AddCheckpoint(0, (bytes(32),), note_of(7)).to_bytes()).status == 422
    assert witness.add_checkpoint(growth(3, 7)).body == b"0\n"


def test_a_second_history_is_kept_as_evidence(witness: Witness, state: WitnessState) -> None:
    witness.add_checkpoint(growth(0, 7))
    for body in (growth(7, 7, FORKED), growth(6, 7, FORKED), growth(7, 7, FORKED), growth(7, 9, FORKED)):
        assert witness.add_checkpoint(body).status in (409, 422)
    folder = state.directory / HASH / "evidence"
    (file,) = folder.glob("*.equivocation")
    earlier, later = Equivocation.parse(file.read_bytes()).verify(Policy.of_key(LOG.verifier))
    assert (earlier.size, later.size, earlier.root != later.root) == (7, 7, True)
    assert growth(7, 9, FORKED) in [one.read_bytes() for one in folder.glob("*.request")]


def test_evidence_has_a_limit(witness: Witness, state: WitnessState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_state, "MAX_EVIDENCE", 3)
    witness.add_checkpoint(growth(0, 7))
    for number in range(6):
        witness.add_checkpoint(growth(7, 7, [leaf_hash(bytes([99, number])), *LEAVES[1:]]))
    assert len(list((state.directory / HASH / "evidence").glob("*.equivocation"))) == 3


def test_signature_lines_of_others_are_not_kept(witness: Witness, state: WitnessState) -> None:
    other = WitnessSigner("w2.example", bytes(32)).cosign(parse_note(note_of(7))[0], TIME).line().encode()
    assert witness.add_checkpoint(AddCheckpoint(0, (), note_of(7) + other).to_bytes()).status == 200
    assert b"w2.example" not in (state.latest(HASH) or b"w2.example")


def test_several_logs_and_keys(state: WitnessState) -> None:
    witness = Witness(SIGNER, [LOG.verifier, OTHER.verifier], state, Clock())
    assert witness.add_checkpoint(growth(0, 7)).status == 200
    handed_over = Checkpoint(ORIGIN, 8, tree_root(LEAVES[:8])).sign(OTHER)
    proof = consistency_proof(LEAVES[:8], 7)
    assert witness.add_checkpoint(AddCheckpoint(7, proof, handed_over).to_bytes()).status == 200
    second = Checkpoint(f"{LOG.name}/second", 3, tree_root(LEAVES[:3])).sign(LOG)
    assert witness.add_checkpoint(AddCheckpoint(0, (), second).to_bytes()).status == 200
    assert witness.latest(hash_of(f"{LOG.name}/second")) is not None


def test_time_never_runs_backwards(state: WitnessState) -> None:
    clock = Clock()
    witness = Witness(SIGNER, [LOG.verifier], state, clock)
    times = []
    for old, new, now in ((0, 1, TIME + 10), (1, 2, TIME), (2, 3, TIME + 20)):
        clock.now = now
        times.append(cosignature_time(line_of(witness.add_checkpoint(growth(old, new))).value))
    assert times == [TIME + 10, TIME + 10, TIME + 20]


def test_a_witness_remembers(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with WitnessState.create(path, SIGNER.verifier) as state:
        Witness(SIGNER, [LOG.verifier], state).add_checkpoint(growth(0, 7))
    with WitnessState.open(path, SIGNER.verifier) as state:
        again = Witness(SIGNER, [LOG.verifier], state)
        assert again.add_checkpoint(growth(0, 9, FORKED)).body == b"7\n"
        assert again.add_checkpoint(growth(7, 9)).status == 200


def test_the_state_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with pytest.raises(UsageError, match="--new"):
        WitnessState.open(path, SIGNER.verifier)
    with WitnessState.create(path, SIGNER.verifier):
        with pytest.raises(UsageError, match="Another witness"):
            WitnessState.open(path, SIGNER.verifier)
        with pytest.raises(UsageError, match="already"):
            WitnessState.create(path, SIGNER.verifier)
    with pytest.raises(UsageError, match="another key"):
        WitnessState.open(path, WitnessSigner("w2.example", bytes(32)).verifier)


def test_a_damaged_state_is_no_beginning(witness: Witness, state: WitnessState) -> None:
    witness.add_checkpoint(growth(0, 7))
    file = state.directory / HASH / "checkpoint"
    sound = file.read_bytes()
    for damaged in (b"", sound[:-9], sound.replace(b"\n7\n", b"\n5\n")):
        file.write_bytes(damaged)
        with pytest.raises(FaultError, match="damaged"):
            witness.add_checkpoint(growth(0, 8))
    other = state.directory / hash_of("another")
    other.mkdir()
    (other / "checkpoint").write_bytes(sound)
    with pytest.raises(FaultError, match="another log"):
        state.latest(other.name)


def test_nothing_is_answered_before_it_is_durable(
    witness: Witness, state: WitnessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, cosign = os.fsync, WitnessSigner.cosign

    def traced(descriptor: int) -> None:
        steps.append("fsync")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", traced)
    assert witness.add_checkpoint(growth(0, 7)).status == 200
    assert steps.count("fsync") >= 3  # the folder of the log's folder, the file, the file's folder
    assert cosign is WitnessSigner.cosign

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FaultError, match="No space"):
        witness.add_checkpoint(growth(7, 9))


def test_two_at_once_never_roll_back(witness: Witness) -> None:
    witness.add_checkpoint(growth(0, 7))
    answers: list[int] = []
    bodies = [growth(7, size) for size in range(8, 40)]
    threads = [
        threading.Thread(target=lambda body=body: answers.append(witness.add_checkpoint(body).status))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 31


def test_a_request_goes_both_ways() -> None:
    body = growth(7, 33)
    assert AddCheckpoint.parse(body).to_bytes() == body
    assert AddCheckpoint.parse(growth(0, 7)).proof == ()
    with pytest.raises(MalformedError):
        AddCheckpoint.parse(b"old 1")
