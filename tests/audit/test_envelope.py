"""The signed verdict: what verifies, and everything that must not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ullage.audit.bundle import envelope
from ullage.audit.verdict import Outcome
from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.notes.signed_note import NoteSigner

SIGNER = NoteSigner("test.example/verdict", bytes(range(32)))
OTHER = NoteSigner("test.example/verdict", bytes(32))


def statement(**changes: Any) -> envelope.Statement:
    predicate = envelope.Predicate(
        verdict=Outcome.FAIL,
        reasons=("5 of 10 audited tokens mismatch.",),
        rule=envelope.Rule(limit=0.0002, confidence=0.99),
        declaration=envelope.Declaration(
            log_id="test.example/tap/1",
            model="sha256:" + "1" * 64,
            profile="murmur3-gumbel/f64",
            dtype="float32",
        ),
        reference={"dtype": "float32"},
        sample=envelope.Sample(scheme="all", population=1, records=1, tokens=10, tree_size=3),
        claims="sha256:" + "2" * 64,
        evidence={"evidence/audit.parquet": "sha256:" + "3" * 64},
        software={"ullage": "0"},
        created="1",
    )
    subjects = (envelope.subject_of("log", "sha256:" + "4" * 64),)
    return envelope.Statement(subject=subjects, predicate=predicate.model_copy(update=changes))


def test_round_trip() -> None:
    assert envelope.unseal(envelope.seal(statement(), SIGNER), SIGNER.verifier) == statement()


def test_bytes_are_those_of_the_specifications() -> None:
    """Verified with nothing but Ed25519 and the DSSE and in-toto texts."""
    document = json.loads(envelope.seal(statement(), SIGNER))
    assert document["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(document["payload"])
    kind = document["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    public = Ed25519PrivateKey.from_private_bytes(SIGNER.seed).public_key()
    public.verify(base64.b64decode(document["signatures"][0]["sig"]), signed)
    body = json.loads(payload)
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert body["predicateType"] == "https://ullage.dev/verdict/v1"
    assert body["subject"] == [{"name": "log", "digest": {"sha256": "4" * 64}}]
    assert body["predicate"]["verdict"] == "fail"


def test_another_key_does_not_verify() -> None:
    with pytest.raises(IntegrityError, match="another key"):
        envelope.unseal(envelope.seal(statement(), SIGNER), OTHER.verifier)


def test_another_key_under_the_same_key_id_does_not_verify() -> None:
    good = json.loads(envelope.seal(statement(), SIGNER))
    forged = json.loads(envelope.seal(statement(verdict=Outcome.PASS), OTHER))
    forged["signatures"][0]["keyid"] = good["signatures"][0]["keyid"]
    with pytest.raises(IntegrityError):
        envelope.unseal(json.dumps(forged).encode(), SIGNER.verifier)


def test_an_exchanged_payload_does_not_verify() -> None:
    document = json.loads(envelope.seal(statement(), SIGNER))
    passing = json.loads(envelope.seal(statement(verdict=Outcome.PASS), OTHER))
    document["payload"] = passing["payload"]
    with pytest.raises(IntegrityError):
        envelope.unseal(json.dumps(document).encode(), SIGNER.verifier)


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "text/plain"},
        {"payload": "not base64!"},
        {"payload": None},
        {"signatures": []},
        {"signatures": [{"keyid": "00", "sig": "%%"}]},
        {"signatures": [{"sig": "AA=="}]},
        {"signatures": "none"},
        {"more": 1},
    ],
)
def test_what_is_not_an_envelope_is_malformed(change: dict[str, Any]) -> None:
    document = json.loads(envelope.seal(statement(), SIGNER)) | change
    with pytest.raises(MalformedError):
        envelope.unseal(json.dumps(document).encode(), SIGNER.verifier)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"payload": "e30="}', "\ufffd" * 10])
def test_other_texts_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        envelope.unseal(text.encode(), SIGNER.verifier)


def test_signed_payloads_of_other_types_are_malformed() -> None:
    """A signature of ours on something else is not a verdict."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    body = json.loads(statement().model_dump_json())
    changes: list[tuple[str, object]] = [
        ("predicateType", "https://slsa.dev/provenance/v1"), ("_type", "x"), ("extra", 1),
        ("subject", [{"name": "log", "digest": {}}]),  # about nothing
    ]  # fmt: skip
    for name, value in changes:
        changed = Envelope(json.dumps(body | {name: value}).encode(), envelope.PAYLOAD_TYPE, {})
        changed.sign(CryptoSigner(Ed25519PrivateKey.from_private_bytes(SIGNER.seed)))
        with pytest.raises(MalformedError, match="not a verdict"):
            envelope.unseal(json.dumps(changed.to_dict()).encode(), SIGNER.verifier)


@given(st.integers(0), st.integers(0, 7))
def test_no_flipped_bit_changes_what_is_read(place: int, bit: int) -> None:
    data = bytearray(envelope.seal(statement(), SIGNER))
    data[place % len(data)] ^= 1 << bit
    try:
        found = envelope.unseal(bytes(data), SIGNER.verifier)
    except IntegrityError:
        return
    assert found == statement()


def test_files_are_read_with_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "verdict"
    with pytest.raises(UsageError, match="There is no file"):
        envelope.read_verdict(path, SIGNER.verifier)
    with path.open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(MalformedError, match="longer than"):
        envelope.read_verdict(path, SIGNER.verifier)
