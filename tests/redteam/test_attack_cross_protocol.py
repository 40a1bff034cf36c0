"""A signature or a tag made for one purpose and shown for another: no key has two messages that coincide.

What each key signs or authenticates: `log.key` checkpoints and handovers; a witness's key cosignatures;
`verdict.key` DSSE envelopes of four payload types and sealed verdicts; `seed.key` seeds and the order
within a slot; a selection's key draws of two schemes; a record's key salts and one payload key.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.audit import selection
from ullage.audit.bundle import envelope
from ullage.audit.calibration import file as noise_calibration
from ullage.audit.verdict import Outcome
from ullage.errors import IntegrityError, MalformedError
from ullage.log import entries
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint
from ullage.log.notes.cosignature import WitnessSigner, cosigned_message
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.sealed import sealing
from ullage.memory import calibration as memory_calibration
from ullage.sampling import seeds
from ullage.sealed.verdict import SealedVerdict
from ullage.work import calibration as work_calibration

KEY = NoteSigner("tap.example/log", bytes(range(32)))
OTHER = NoteSigner("tap.example/log", bytes(32))
NAMES = st.from_regex(r"[!-*,-~]{1,40}", fullmatch=True)
PAYLOAD_TYPES = (
    envelope.PAYLOAD_TYPE,
    noise_calibration.PAYLOAD_TYPE,
    memory_calibration.PAYLOAD_TYPE,
    work_calibration.PAYLOAD_TYPE,
)


@given(NAMES, st.integers(0, (1 << 63) - 1))
def test_a_handover_is_no_checkpoint(log_id: str, index: int) -> None:
    entry = entries.hand_over(KEY, OTHER.verifier, log_id, index)
    text = entries._handover(log_id, index, entry.old_key, entry.new_key).decode()
    with pytest.raises(MalformedError):
        parse_checkpoint(text)
    with pytest.raises(MalformedError):
        parse_checkpoint(text, extensions=True)


@given(NAMES, st.integers(0, (1 << 63) - 1), st.integers(1, (1 << 63) - 1))
def test_a_cosignature_is_no_signature_of_a_log(origin: str, size: int, time: int) -> None:
    text = Checkpoint(origin, size, bytes(32)).text()
    assert cosigned_message(text.encode(), time) != text.encode()
    with pytest.raises(MalformedError):
        parse_checkpoint(cosigned_message(text.encode(), time).decode(), extensions=True)
    witness = WitnessSigner(KEY.name, KEY.seed)  # the same secret in both roles
    value = witness.cosign(text, time).value
    assert not KEY.verifier.verify(value[8:], text.encode())
    assert not witness.verifier.verify(time.to_bytes(8, "big") + KEY.sign(text.encode()), text.encode())


@pytest.mark.parametrize("made", PAYLOAD_TYPES)
@pytest.mark.parametrize("asked", PAYLOAD_TYPES)
def test_an_envelope_of_one_type_is_none_of_another(made: str, asked: str) -> None:
    data = envelope.seal_payload(b"{}", made, KEY)
    if made == asked:
        assert envelope.unseal_payload(data, asked, KEY.verifier, "thing") == b"{}"
        return
    with pytest.raises(MalformedError):
        envelope.unseal_payload(data, asked, KEY.verifier, "thing")
    renamed = data.replace(made.encode(), asked.encode())  # the type is signed as well
    with pytest.raises(IntegrityError):
        envelope.unseal_payload(renamed, asked, KEY.verifier, "thing")


def test_a_sealed_verdict_is_neither_an_envelope_nor_a_note() -> None:
    verdict = SealedVerdict(Outcome.PASS, 7, bytes(32), bytes(32), bytes(32)).sign(KEY.seed)
    head, signature = verdict[:-64], verdict[-64:]
    assert KEY.verifier.verify(signature, head)
    assert not head.startswith(b"DSSEv1 ")  # what an envelope's signature covers begins so
    with pytest.raises((MalformedError, UnicodeDecodeError)):
        parse_checkpoint(head.decode())


@given(NAMES, st.integers(0, (1 << 64) - 1))
def test_no_seed_is_a_place_in_a_slot(log_id: str, counter: int) -> None:
    """The order within a slot is 16 bytes under the seed key; what a seed covers is always longer."""
    assert 0 <= seeds.issue_seed(bytes(32), log_id, counter, bytes(32)) < 1 << 63
    assert len(seeds._DOMAIN) + 1 + 4 + 8 + 32 > 16


def test_what_is_derived_from_one_key_begins_differently() -> None:
    selected = (selection._UNIFORM_DOMAIN, selection._PROPORTIONAL_DOMAIN)
    published = (selection._WINDOW_DOMAIN, selection._COMMITMENT_DOMAIN, selection._LOG_DOMAIN, *selected)
    record = (sealing._SALT, b"ullage/payload-key/v1")
    for domains in (published, record):
        for one in domains:
            assert not any(other.startswith(one) for other in domains if other is not one)
    assert sealing.seed_commitment(bytes(32)) != sealing.seal_commitment(bytes(32))
    assert selection.key_commitment(bytes(32)) not in (
        sealing.seed_commitment(bytes(32)), sealing.seal_commitment(bytes(32))
    )  # fmt: skip


def test_seals_of_one_log_record_or_part_open_no_other() -> None:
    wrap = sealing.KeyWrap("log/a", bytes(32))
    wrapped = wrap.wrap(1, bytes(32))
    assert wrap.unwrap(1, wrapped) == bytes(32)
    for other, counter in ((wrap, 2), (sealing.KeyWrap("log/b", bytes(32)), 1)):
        with pytest.raises(sealing.SealBrokenError):
            other.unwrap(counter, wrapped)
    places = {
        sealing.RecordSeal(log_id, counter, bytes(32))._place(number, kind)
        for log_id in ("log/a", "log/b")
        for counter in (0, 1)
        for number in (0, 1)
        for kind in ("open", "chunk", "close")
    }
    assert len(places) == 24
    commitments = {
        sealing.RecordSeal(log_id, 0, key).commit(number, b"x")
        for log_id in ("log/a", "log/b")
        for key in (bytes(32), bytes([1]) * 32)
        for number in (0, 1)
    }
    assert len(commitments) == 8
