"""Cosignatures of witnesses, `cosignature/v1` of https://c2sp.org/tlog-cosignature, byte for byte.

A witness states with one: at this time, this was the largest tree of that log that I saw, and it extends all
that I saw before. Its keys have signature type 0x04, so that none can be taken for a log's key.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Self

from ullage.errors import UsageError
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint
from ullage.log.notes.signed_note import (
    ED25519_COSIGNATURE,
    NoteKey,
    NoteSigner,
    NoteVerifier,
    Signature,
    check_name,
    join_key,
    join_private_key,
    key_id,
    open_note,
    parse_note,
    public_bytes,
    split_key,
    split_private_key,
    verify_ed25519,
)

MAX_TIME = (1 << 63) - 1
_TIME = struct.Struct(">Q")
_SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class WitnessVerifier:
    """A witness's public key with its name; `str()` is `name+hash+base64(0x04 ‖ key)`."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, ED25519_COSIGNATURE, self.public)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a verifier key of type 0x04. Raises MalformedError."""
        return cls(*split_key(text, "witness's verifier key", ED25519_COSIGNATURE))

    def __str__(self) -> str:
        return join_key(self.name, ED25519_COSIGNATURE, self.public)

    def verify(self, signature: bytes, text: bytes) -> bool:
        """Whether `signature` (time ‖ Ed25519) is this witness's over the text of a checkpoint."""
        if len(signature) != _TIME.size + _SIGNATURE_BYTES:
            return False
        time = cosignature_time(signature)
        if not 0 < time <= MAX_TIME:
            return False
        return verify_ed25519(self.public, signature[_TIME.size :], cosigned_message(text, time))


@dataclass(frozen=True)
class WitnessSigner:
    """A witness's private key; `private_text()` is `PRIVATE+KEY+name+hash+base64(0x04 ‖ seed)`."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a private key of type 0x04. Raises MalformedError, whose message never holds the key."""
        return cls(*split_private_key(text, ED25519_COSIGNATURE))

    @property
    def verifier(self) -> WitnessVerifier:
        return WitnessVerifier(self.name, public_bytes(self.seed))

    def private_text(self) -> str:
        return join_private_key(self.name, ED25519_COSIGNATURE, self.seed)

    def cosign(self, text: str, time: int) -> Signature:
        """The cosignature over the text of a checkpoint at `time`, seconds since 1970. Raises UsageError."""
        if not 0 < time <= MAX_TIME:
            raise UsageError("A cosignature needs a time after 1970; check the clock of this machine.")
        parse_checkpoint(text, extensions=True)  # nothing but a checkpoint is ever signed with this key
        message = cosigned_message(text.encode(), time)
        value = _TIME.pack(time) + NoteSigner(self.name, self.seed).sign(message)
        return Signature(self.name, self.verifier.key_id, value)


@dataclass(frozen=True)
class Cosignature:
    """A verified cosignature: who saw the checkpoint, and when (seconds since 1970)."""

    witness: WitnessVerifier
    time: int


@dataclass(frozen=True)
class CosignedCheckpoint:
    """A checkpoint whose log signature holds, with the valid cosignatures of known witnesses, one each."""

    checkpoint: Checkpoint
    log_key: NoteVerifier
    cosignatures: tuple[Cosignature, ...]
    note: bytes


def cosigned_message(text: bytes, time: int) -> bytes:
    """What a v1 cosignature signs: a fixed line, the time, and the whole text of the checkpoint."""
    return b"cosignature/v1\ntime %d\n" % time + text


def cosignature_time(value: bytes) -> int:
    """The time within a signature's value (without the key id), seconds since 1970."""
    (time,) = _TIME.unpack_from(value)
    return int(time)


def open_cosigned(
    note: bytes, log_keys: tuple[NoteVerifier, ...], witnesses: tuple[WitnessVerifier, ...]
) -> CosignedCheckpoint:
    """Verify a checkpoint with all signatures of known keys: one of the log is needed, none of a witness.

    `log_keys` have the name that signs, the log's origin. Raises MalformedError, IntegrityError.
    """
    text, signed = open_note(note, log_keys)
    keys: tuple[NoteKey, ...] = (*log_keys, *witnesses)
    open_note(note, keys)  # a wrong signature of any known key spoils the note
    times: dict[tuple[str, bytes], int] = {}
    for signature in parse_note(note)[1]:
        identity = (signature.name, signature.key_id)
        if len(signature.value) == _TIME.size + _SIGNATURE_BYTES:
            times[identity] = max(times.get(identity, 0), cosignature_time(signature.value))
    cosignatures = tuple(
        Cosignature(witness, times[witness.name, witness.key_id])
        for witness in witnesses
        if (witness.name, witness.key_id) in times
    )
    return CosignedCheckpoint(parse_checkpoint(text), signed[0], cosignatures, note)


def add_cosignatures(note: bytes, signatures: tuple[Signature, ...]) -> bytes:
    """The note with these signature lines at its end, each witness's older ones left out.

    The caller has verified them. Raises MalformedError when there are too many.
    """
    text, present = parse_note(note)
    fresh = {(signature.name, signature.key_id) for signature in signatures}
    kept = [one for one in present if (one.name, one.key_id) not in fresh]
    lines = "".join(signature.line() for signature in (*kept, *signatures))
    merged = text.encode() + b"\n" + lines.encode()
    parse_note(merged)  # a note has limits
    return merged
