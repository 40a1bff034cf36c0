"""Against software that others wrote: theirs is accepted by ours, and ours by theirs.

The files in `golden/c2sp` were made by `conformance/main.go` with the Go packages that signed notes, tiles
and tlog-proofs come from; `golden/litewitness.hurl` is the transcript that another witness is tested with.
The other direction runs that program over a log of ours: where Go is installed, or with ULLAGE_CONFORMANCE
set to the built program.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.log.processes import serving
from tests.log.published import LOG, ORIGIN, log_entries, publish, put
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.cosignature import WitnessSigner, WitnessVerifier, add_cosignatures
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import NoteVerifier, encode_base64, key_id, parse_note
from ullage.log.source import DirectorySource
from ullage.log.tree.growth import verify_growth
from ullage.log.tree.proof import InclusionProof
from ullage.log.tree.prover import Prover
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import bundles_of, encode_bundle
from ullage.log.witness.state import WitnessState
from ullage.log.witness.witness import Witness
from ullage.merkle import leaf_hash, verify_inclusion

GOLDEN = Path(__file__).with_name("golden") / "c2sp"
TRANSCRIPT = Path(__file__).with_name("golden") / "litewitness.hurl"
PROGRAM = Path(__file__).with_name("conformance")
ENTRIES = [f"golden entry {number}".encode() for number in range(1000)]


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def golden_policy() -> Policy:
    lines = [b"log " + golden("log.pub"), b"witness w " + golden("witness.pub"), b"quorum w\n"]
    return Policy.parse(b"".join(lines))


@pytest.mark.parametrize("size", [700, 1000])
def test_their_checkpoint_and_cosignature_hold(size: int) -> None:
    policy = golden_policy()
    opened = policy.open(golden(f"checkpoint.{size}"))
    assert opened.checkpoint.origin == "golden.example/log"
    assert opened.checkpoint.size == size
    assert policy.is_quorum(one.witness for one in opened.cosignatures)
    assert 1_700_000_000 < opened.cosignatures[0].time < 5_000_000_000
    assert str(opened.log_key) == golden("log.pub").decode().strip()


@pytest.mark.parametrize("size", [700, 1000])
def test_our_tiles_are_their_tiles(size: int) -> None:
    edge = TreeEdge()
    tiles = edge.append(b"".join(map(leaf_hash, ENTRIES[:size])))
    for tile, data in [*tiles, *edge.partial_tiles()]:
        assert golden(tile.path) == data
    for bundle in bundles_of(size):
        start = bundle.index * 256
        assert golden(bundle.path) == encode_bundle(ENTRIES[start : start + bundle.width])
    assert golden_policy().open(golden(f"checkpoint.{size}")).checkpoint.root == edge.root()


def test_there_is_no_tile_that_we_do_not_know() -> None:
    known = set()
    for size in (700, 1000):
        edge = TreeEdge()
        known |= {tile.path for tile, _ in edge.append(b"".join(map(leaf_hash, ENTRIES[:size])))}
        known |= {tile.path for tile, _ in edge.partial_tiles()}
        known |= {bundle.path for bundle in bundles_of(size)}
    assert {str(one.relative_to(GOLDEN)) for one in (GOLDEN / "tile").rglob("*") if one.is_file()} == known


def test_their_proof_is_ours_byte_for_byte() -> None:
    data = golden("entry.tlog-proof")
    proof = InclusionProof.parse(data)
    checkpoint = golden_policy().open(proof.checkpoint_note).checkpoint
    assert proof.entry == ENTRIES[proof.index]
    leaf = leaf_hash(proof.entry)
    assert verify_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    prover = Prover(DirectorySource(GOLDEN), checkpoint, proof.checkpoint_note)
    assert prover.entry(proof.index).to_bytes() == data
    growth = "".join(f"{encode_base64(value)}\n" for value in prover.consistency(700))
    assert growth.encode() == golden("growth")


def test_growth_of_their_log(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    put(tmp_path, "checkpoint", golden("checkpoint.1000"))
    found = verify_growth(DirectorySource(tmp_path), golden_policy(), (golden("checkpoint.700"),))
    assert (found.findings.verdict, found.findings.covered) == ("pass", 1000)


def exchanges() -> Iterator[tuple[bytes, int, str]]:
    """Bodies of the transcript, with the status and what is said of the answer."""
    pattern = r"POST \S+/add-checkpoint\n```\n(.*?)```\nHTTP (\d+)\n\[Asserts\]\n(.*?)\n"
    for body, status, answer in re.findall(pattern, TRANSCRIPT.read_text(), re.DOTALL):
        yield body.encode(), int(status), answer


def test_our_witness_answers_as_another_one_does(tmp_path: Path) -> None:
    public = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
    origin = parse_note(next(exchanges())[0])[1][0].name
    key = NoteVerifier(origin, public)
    assert key.key_id == key_id(origin, b"\x01", public)
    signer = WitnessSigner("example.com/witness", bytes(32))
    count = 0
    with WitnessState.create(tmp_path / "state", signer.verifier) as state:
        witness = Witness(signer, [key], state)
        for body, status, said in exchanges():
            answer = witness.add_checkpoint(body)
            # The protocol asks for 404 now where that version still answered 403.
            assert answer.status == (404 if "unknown log" in said else status), said
            if status == 409:
                assert repr(answer.body.decode())[1:-1] in said
            if status == 200:
                assert answer.body.startswith("— example.com/witness ".encode())
            count += 1
    assert count == 9


def _program() -> list[str]:
    built = os.environ.get("ULLAGE_CONFORMANCE")
    if built:
        return [built]
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed, and ULLAGE_CONFORMANCE does not name the built program")
    usable = subprocess.run([go, "list", "-m"], cwd=PROGRAM, capture_output=True, text=True, check=False)
    if usable.returncode:
        pytest.skip(f"this Go cannot build the program: {usable.stderr.strip()}")
    return [go, "run", "."]


@pytest.mark.slow
def test_our_log_is_accepted_by_theirs(tmp_path: Path) -> None:
    entries = log_entries(26_300)  # three levels of tiles
    log, evidence = tmp_path / "log", tmp_path / "evidence"
    old = publish(tmp_path / "old", entries[:40_000])
    new = publish(log, entries)
    witness = WitnessSigner("w.example", bytes(range(32)))
    note = (log / "checkpoint").read_bytes()
    note = add_cosignatures(note, (witness.cosign(parse_note(note)[0], 1_700_000_000),))
    put(log, "checkpoint", note)
    prover = Prover(DirectorySource(log), new, note)
    put(evidence, "log.pub", f"{LOG.named(ORIGIN).verifier}\n".encode())
    put(evidence, "witness.pub", f"{witness.verifier}\n".encode())
    put(evidence, "entry.tlog-proof", prover.record(12_345).to_bytes())
    put(evidence, "checkpoint.old", old.sign(LOG))
    put(
        evidence,
        "growth",
        "".join(f"{encode_base64(one)}\n" for one in prover.consistency(old.size)).encode(),
    )
    with serving("log", "serve", log) as url:
        assert _accepts(url, evidence)
        for name in ("entry.tlog-proof", "growth", "witness.pub", "checkpoint.old"):
            sound = (evidence / name).read_bytes()
            put(evidence, name, sound.replace(b"A", b"B", 1))
            assert not _accepts(url, evidence), name
            put(evidence, name, sound)
        put(log, "tile/entries/001", (log / "tile/entries/002").read_bytes())
        assert not _accepts(url, evidence)


def _accepts(url: str, evidence: Path) -> bool:
    result = subprocess.run(
        [*_program(), "check", url, str(evidence)],
        cwd=PROGRAM, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return (result.returncode, result.stdout) == (0, "accepted\n")


def test_keys_are_read_and_written_as_theirs() -> None:
    log, witness = golden("log.pub").decode().strip(), golden("witness.pub").decode().strip()
    assert str(NoteVerifier.parse(log)) == log
    assert str(WitnessVerifier.parse(witness)) == witness
    assert Checkpoint("golden.example/log", 0, bytes(32)).origin == NoteVerifier.parse(log).name
