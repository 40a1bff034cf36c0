"""Commitments to parts of records, and the seals over them. Specified in `docs/formats/sealed.md`. No I/O.

A record has one random key. Salts and the payloads' key are derived from it, so whoever holds it can open the
record and check its commitments, and once it is destroyed nobody can do either.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ullage.errors import IntegrityError, MalformedError
from ullage.log.record import MAX_PART_BYTES, RecordPart, canonical_bytes, parse_part
from ullage.log.sealed.randomness import random_bytes

KEY_BYTES = 32
_NONCE_BYTES, _TAG_BYTES = 12, 16
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES
WRAPPED_KEY_BYTES = SEAL_BYTES + KEY_BYTES
MAX_PAYLOAD_BYTES = SEAL_BYTES + MAX_PART_BYTES
FORGOTTEN = bytes(WRAPPED_KEY_BYTES)

_KIND = {"open": 1, "chunk": 2, "close": 3}
_PAYLOAD_PLACE = struct.Struct(">QIB")
_SALT = b"ullage/commitment-salt/v1"
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_BLOCK_BYTES = hashlib.sha256().block_size


class SealBrokenError(IntegrityError):
    """A wrapped key or a payload does not decrypt: it was altered, or the key is another one."""


class CommitmentError(IntegrityError):
    """A part is not the one that the log committed to."""


class Hmac:
    """HMAC-SHA-256 (RFC 2104) under a key of at most 64 bytes.

    As `hmac.digest`, in half its time for a key that is used again: the padded key is hashed once.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER_PAD))
        self._outer = hashlib.sha256(padded.translate(_OUTER_PAD))

    def digest(self, message: bytes) -> bytes:
        """The 32 bytes that authenticate a message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


_WITHOUT_SALT = Hmac(bytes(hashlib.sha256().digest_size))


@dataclass(slots=True)  # one for every part; frozen ones take thrice as long
class SealedPart:
    """A part as the journal keeps it. `wrapped_key` is empty but for the open of a record."""

    commitment: str
    wrapped_key: bytes = field(repr=False)
    payload: bytes


class RecordSeal:
    """What one record's key does: it commits to parts, seals and opens them."""

    def __init__(self, log_id: str, counter: int, key: bytes) -> None:
        self._counter = counter
        self._named = _named(log_id)
        self._key = key
        # HKDF of RFC 5869: its first step here, the second where a value is derived.
        self._secret = Hmac(_WITHOUT_SALT.digest(key))
        self._cipher = AESGCM(self._derive(b"ullage/payload-key/v1"))

    @classmethod
    def fresh(cls, log_id: str, counter: int) -> RecordSeal:
        """The seal of a new record, under a random key."""
        return cls(log_id, counter, random_bytes(KEY_BYTES))

    @property
    def key(self) -> bytes:
        """The record key. Whoever has it can read the record."""
        return self._key

    def commit(self, number: int, payload: bytes) -> str:
        """The commitment to the part with that number in its record, from its canonical bytes."""
        salt = self._derive(_SALT + number.to_bytes(4, "big"))
        return (
            "sha256:" + hashlib.sha256(b"ullage/commitment/v1\n" + self._named + salt + payload).hexdigest()
        )

    def seal(self, number: int, part: RecordPart, wrapped_key: bytes = b"") -> SealedPart:
        """Commit to a part and encrypt it. Raises UsageError on a text that is not valid Unicode."""
        data = canonical_bytes(part)
        nonce = random_bytes(_NONCE_BYTES)
        payload = nonce + self._cipher.encrypt(nonce, data, self._place(number, part.part))
        return SealedPart(self.commit(number, data), wrapped_key, payload)

    def open(self, number: int, kind: str, commitment: str, payload: bytes) -> RecordPart:
        """Decrypt a part, check it against its commitment, read it.

        Raises SealBrokenError, CommitmentError, MalformedError.
        """
        if not SEAL_BYTES <= len(payload) <= MAX_PAYLOAD_BYTES:
            raise SealBrokenError(f"The payload of record {self._counter} has an impossible length.")
        nonce = payload[:_NONCE_BYTES]
        try:
            data = self._cipher.decrypt(nonce, payload[_NONCE_BYTES:], self._place(number, kind))
        except InvalidTag as error:
            raise SealBrokenError(
                f"Part {number} of record {self._counter} does not decrypt: altered, or the key is wrong."
            ) from error
        if not hmac.compare_digest(self.commit(number, data), commitment):
            raise CommitmentError(
                f"Part {number} of record {self._counter} is not the one that the log committed to."
            )
        return parse_part(data)

    def _derive(self, info: bytes) -> bytes:
        return self._secret.digest(info + b"\x01")

    def _place(self, number: int, kind: str) -> bytes:
        place = _PAYLOAD_PLACE.pack(self._counter, number, _KIND[kind])
        return b"ullage/payload/v1\n" + self._named + place


class KeyWrap:
    """`seal.key`: encrypts the keys of records where they are kept."""

    def __init__(self, log_id: str, seal_key: bytes) -> None:
        self._named = _named(log_id)
        self._cipher = AESGCM(seal_key)

    def wrap(self, counter: int, key: bytes) -> bytes:
        """The wrapped key, 60 bytes."""
        nonce = random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, self._place(counter))

    def unwrap(self, counter: int, wrapped: bytes) -> bytes:
        """The record key. Raises SealBrokenError, MalformedError; see `FORGOTTEN`."""
        if len(wrapped) != WRAPPED_KEY_BYTES:
            raise MalformedError(
                f"The wrapped key of record {counter} does not have {WRAPPED_KEY_BYTES} bytes."
            )
        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], self._place(counter))
        except InvalidTag as error:
            raise SealBrokenError(
                f"The key of record {counter} does not decrypt: altered, or the seal key is another one."
            ) from error

    def _place(self, counter: int) -> bytes:
        return b"ullage/record-key/v1\n" + self._named + counter.to_bytes(8, "big")


def seed_commitment(seed_key: bytes) -> str:
    """What a log's header says of the key that seeds are issued with."""
    return "sha256:" + hashlib.sha256(b"ullage/seed-commitment/v1\n" + seed_key).hexdigest()


def seal_commitment(seal_key: bytes) -> str:
    """What a segment says of the key that wraps the record keys in it."""
    return "sha256:" + hashlib.sha256(b"ullage/seal-commitment/v1\n" + seal_key).hexdigest()


def _named(log_id: str) -> bytes:
    name = log_id.encode()
    return len(name).to_bytes(2, "big") + name
