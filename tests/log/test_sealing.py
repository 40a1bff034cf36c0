"""Commitments and seals: against the formulas of the format's page, and against every altered byte."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tests.log.samples import closing, opening
from tests.log.strategies import parts
from ullage.errors import IntegrityError, MalformedError
from ullage.log.record import RecordPart, canonical_bytes
from ullage.log.sealed.sealing import (
    FORGOTTEN,
    Hmac,
    KeyWrap,
    RecordSeal,
    SealBrokenError,
    seal_commitment,
    seed_commitment,
)

LOG = "tap.example/one"
NAMED = b"\x00\x0ftap.example/one"
KEY = bytes(range(32))
numbers = st.integers(0, (1 << 32) - 1)
record_keys = st.binary(min_size=32, max_size=32)


def hkdf(key: bytes, info: bytes) -> bytes:
    """The library's own HKDF, of which ours is a shortcut."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key)


@given(st.binary(max_size=64), st.lists(st.binary(max_size=200), max_size=3))
def test_a_kept_hmac_key_gives_what_the_library_gives(key: bytes, messages: list[bytes]) -> None:
    kept = Hmac(key)
    assert [kept.digest(one) for one in messages] == [hmac.digest(key, one, "sha256") for one in messages]


@given(record_keys, numbers, parts)
def test_the_formulas_of_the_page(key: bytes, number: int, part: RecordPart) -> None:
    seal = RecordSeal(LOG, part.counter, key)
    sealed = seal.seal(number, part)
    salt = hkdf(key, b"ullage/commitment-salt/v1" + number.to_bytes(4, "big"))
    data = canonical_bytes(part)
    expected = hashlib.sha256(b"ullage/commitment/v1\n" + NAMED + salt + data).hexdigest()
    assert sealed.commitment == f"sha256:{expected}"
    kind = {"open": b"\1", "chunk": b"\2", "close": b"\3"}[part.part]
    place = part.counter.to_bytes(8, "big") + number.to_bytes(4, "big") + kind
    cipher = AESGCM(hkdf(key, b"ullage/payload-key/v1"))
    opened = cipher.decrypt(sealed.payload[:12], sealed.payload[12:], b"ullage/payload/v1\n" + NAMED + place)
    assert opened == data
    assert seal.open(number, part.part, sealed.commitment, sealed.payload) == part


def test_a_fixed_vector() -> None:
    """The bytes for one key and one part, so that no refactoring moves them."""
    part = opening(7)
    seal = RecordSeal(LOG, 7, KEY)
    assert seal.commit(0, canonical_bytes(part)) == (
        "sha256:3687149cf2d9c6d51b3eebdaa1c4422372eda7e6b5ff6cd70b7fa3ee0084c9de"
    )
    payload = bytes.fromhex(
        "6465666768696a6b6c6d6e6f96fad3ae9bfd7455b6a44d6071fd28956dcab48129ea5a9218d623403d86f6ce39caacd6"
        "7d20272ac37d79d6de41db4ff32d00e933c90257b77feec6cdcb1ea59c2e0f8092fba551321553d5ed7f97c171c7fcb8"
        "b00b7f13741f41d382599206b2b6aa5805b359d6a4415daa60428f7385a1635ef1f68b334cb9349c5b36ddf3ecac0a84"
        "e085054e55a9f40c2563d4d65a8325afcd8f7a5f7d2dc65fba921019de5991d6d1f18c8369b85741960f5af864c2ad99"
        "b7c509892af8adebd2378ea7cc4df292e170d8adca26cc9485b9f8ea32f3f5d53a3ad7f97284528a67508a1bb20d85ad"
        "658496ddf0e5c4cf6156e69c11ac92e7d769e2dbc145858c057896e726322eb2367bccf1638e922a2c9355b7d21d6e5a"
        "d3c2be2a239c4ae82b3aa8caa26dae4baeea1533e96b643734bfa8c19e90476bb98fa8d03d1b291ef74160e38b75e6df"
        "dd3d15b1740db4f937e79fb9b1bee62792d2c5539761278b7a35db7feb5a945158d959b1c096b473091b3dcb8e1bc4"
    )
    close = closing(7, (5, 6, 7))
    assert seal.open(1, "close", seal.commit(1, canonical_bytes(close)), payload) == close
    wrapped = bytes.fromhex(
        "6465666768696a6b6c6d6e6f787532c06cbe252f85846ab653dc5591a1a89c99c8b52c6230ca70c164bf54e18a830511a6820d833b558feb6a8c5c6d"
    )
    assert KeyWrap(LOG, bytes(32)).unwrap(7, wrapped) == KEY
    assert (
        seed_commitment(bytes(32))
        == "sha256:f43067e5bd0e87be06468f3b3f48e7f01465a846355a4f4eecc88f695f084948"
    )
    assert (
        seal_commitment(bytes(32))
        == "sha256:55140e21730b9ba5149070996bd364b2eb5b249f804aff205e1e2bd47bc1b1d0"
    )


@given(parts, parts)
def test_commitments_differ_by_part_number_key_and_log(one: RecordPart, other: RecordPart) -> None:
    data = canonical_bytes(one)
    seal = RecordSeal(LOG, one.counter, KEY)
    commitments = {
        seal.commit(0, data),
        seal.commit(1, data),
        RecordSeal(LOG, one.counter, bytes(32)).commit(0, data),
        RecordSeal(LOG + "x", one.counter, KEY).commit(0, data),
        seal.commit(0, data + b" "),
    }
    assert len(commitments) == 5
    assert (seal.commit(0, data) == seal.commit(0, canonical_bytes(other))) == (one == other)


def test_every_altered_byte_and_every_other_place_is_refused() -> None:
    part = opening(7)
    seal = RecordSeal(LOG, 7, KEY)
    sealed = seal.seal(3, part)
    for spot in range(len(sealed.payload)):
        changed = bytearray(sealed.payload)
        changed[spot] ^= 1 << (spot % 8)
        with pytest.raises(SealBrokenError):
            seal.open(3, "open", sealed.commitment, bytes(changed))
    for end in (0, 11, 27, len(sealed.payload) - 1):
        with pytest.raises(SealBrokenError):
            seal.open(3, "open", sealed.commitment, sealed.payload[:end])
    for other in (RecordSeal(LOG, 8, KEY), RecordSeal(LOG + "x", 7, KEY), RecordSeal(LOG, 7, bytes(32))):
        with pytest.raises(SealBrokenError):
            other.open(3, "open", sealed.commitment, sealed.payload)
    for number, kind in ((4, "open"), (3, "chunk"), (3, "close")):
        with pytest.raises(SealBrokenError):
            seal.open(number, kind, sealed.commitment, sealed.payload)
    with pytest.raises(IntegrityError, match="committed"):
        seal.open(3, "open", "sha256:" + "0" * 64, sealed.payload)


def test_two_seals_of_one_part_differ_and_open_alike() -> None:
    seal = RecordSeal(LOG, 7, KEY)
    one, other = seal.seal(0, opening(7)), seal.seal(0, opening(7))
    assert one.commitment == other.commitment
    assert one.payload != other.payload
    assert RecordSeal.fresh(LOG, 7).key != RecordSeal.fresh(LOG, 7).key


@given(record_keys, record_keys, st.integers(0, (1 << 63) - 1))
def test_a_wrapped_key_comes_back_for_its_record_only(seal_key: bytes, key: bytes, counter: int) -> None:
    wrap = KeyWrap(LOG, seal_key)
    wrapped = wrap.wrap(counter, key)
    assert len(wrapped) == 60
    assert wrap.unwrap(counter, wrapped) == key
    for stranger, place in ((wrap, counter ^ 1), (KeyWrap(LOG + "x", seal_key), counter)):
        with pytest.raises(SealBrokenError):
            stranger.unwrap(place, wrapped)
    with pytest.raises(SealBrokenError):
        wrap.unwrap(counter, FORGOTTEN)
    with pytest.raises(MalformedError):
        wrap.unwrap(counter, wrapped[:-1])


def test_no_key_is_in_a_representation() -> None:
    sealed = RecordSeal(LOG, 7, KEY).seal(0, opening(7), b"wrapped-key-bytes")
    assert "wrapped-key-bytes" not in repr(sealed)
    assert KEY.hex() not in repr(RecordSeal(LOG, 7, KEY))
