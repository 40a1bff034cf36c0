"""Signed notes with Ed25519 keys, byte for byte as https://c2sp.org/signed-note has them.

A note is text that ends in a newline, an empty line, and one or more signature lines
`— <name> <base64(key id ‖ signature)>`. Keys are written as in Go's `sumdb/note`, so that either side's
tools read the other's files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ullage.errors import IntegrityError, MalformedError, UsageError

MAX_NOTE_BYTES = 128 << 10
MAX_SIGNATURES = 64
_MAX_NAME_BYTES = 256
_ED25519 = b"\x01"
_PREFIX = "— "


@dataclass(frozen=True)
class NoteVerifier:
    """A public key with its name; `str()` is the verifier key text `name+hash+base64(0x01 ‖ key)`."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a verifier key. Raises MalformedError."""
        name, key_id, key = _split_key(text, "verifier key", ("",))
        verifier = cls(name, key)
        if verifier.key_id != key_id:
            raise MalformedError("The verifier key's hash does not fit its name and key; it was altered.")
        return verifier

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(_ED25519 + self.public)}"

    def verify(self, signature: bytes, text: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class NoteSigner:
    """A private key with its name; `private_text()` is `PRIVATE+KEY+name+hash+base64(0x01 ‖ seed)`."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a private key. Raises MalformedError, whose message never holds the key."""
        name, key_id, seed = _split_key(text, "private key", ("PRIVATE", "KEY"))
        signer = cls(name, seed)
        if signer.verifier.key_id != key_id:
            raise MalformedError("The private key's hash does not fit its name and key; it was altered.")
        return signer

    @property
    def verifier(self) -> NoteVerifier:
        return NoteVerifier(self.name, self._key().public_key().public_bytes_raw())

    def private_text(self) -> str:
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{encode_base64(_ED25519 + self.seed)}"

    def sign(self, text: bytes) -> bytes:
        return self._key().sign(text)

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


@dataclass(frozen=True)
class Signature:
    """One signature line, not yet verified."""

    name: str
    key_id: bytes
    value: bytes


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """The note over `text`, which must end in a newline, with one signature line a signer."""
    data = text.encode()
    if not text.endswith("\n") or not _is_plain(text) or not signers:
        raise UsageError("A note needs text that ends in a newline, without control characters, and a key.")
    lines = [
        f"{_PREFIX}{signer.name} {encode_base64(signer.verifier.key_id + signer.sign(data))}\n"
        for signer in signers
    ]
    return data + b"\n" + "".join(lines).encode()


def parse_note(data: bytes) -> tuple[str, tuple[Signature, ...]]:
    """Text and signatures of a note, nothing verified. Raises MalformedError."""
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedError(f"A signed note has at most {MAX_NOTE_BYTES} bytes, this one {len(data)}.")
    try:
        note = data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("A signed note is UTF-8 text, and this is not.") from error
    split = note.rfind("\n\n")
    if split < 1 or not note.endswith("\n") or not _is_plain(note):
        raise MalformedError(
            "This is not a signed note: text, an empty line and signature lines are expected."
        )
    text, lines = note[: split + 1], note[split + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(
            f"A signed note may have {MAX_SIGNATURES} signatures, this one has {len(lines)}."
        )
    return text, tuple(_parse_signature(line) for line in lines)


def open_note(data: bytes, verifiers: Sequence[NoteVerifier]) -> tuple[str, tuple[NoteVerifier, ...]]:
    """The note's text and those of `verifiers` whose signatures it carries, all valid.

    Signatures of unknown keys are ignored. Raises MalformedError, or IntegrityError when a signature of a
    known key is wrong or none is there.
    """
    text, signatures = parse_note(data)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    found: list[NoteVerifier] = []
    for signature in signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            continue
        if not verifier.verify(signature.value, text.encode()):
            raise IntegrityError(f"The signature of {verifier.name} does not fit the note's text.")
        if verifier not in found:
            found.append(verifier)
    if not found:
        names = ", ".join(verifier.name for verifier in verifiers)
        raise IntegrityError(f"The note is not signed by the key that was given ({names}).")
    return text, tuple(found)


def _parse_signature(line: str) -> Signature:
    name, separator, encoded = line.removeprefix(_PREFIX).partition(" ")
    value = decode_base64(encoded)
    if not line.startswith(_PREFIX) or not separator or not _is_name(name) or value is None or len(value) < 5:
        raise MalformedError(
            "A signed note has a line that is not a signature where signatures are expected."
        )
    return Signature(name, value[:4], value[4:])


def _split_key(text: str, what: str, head: tuple[str, ...]) -> tuple[str, bytes, bytes]:
    """(name, key id, 32 bytes) of `[PRIVATE+KEY+]name+hash+base64`; base64 itself may hold plus signs."""
    fields = text.strip("\n").split("+", 4 if len(head) > 1 else 2)
    if len(head) > 1:
        if tuple(fields[:2]) != head:
            raise MalformedError(f"This is not a {what}.")
        fields = fields[2:]
    if len(fields) != 3:
        raise MalformedError(f"This is not a {what}: it has the form name+hash+base64.")
    name, key_id, encoded = fields
    key = decode_base64(encoded)
    if not _is_name(name) or len(key_id) != 8 or set(key_id) - set("0123456789abcdef") or key is None:
        raise MalformedError(f"This is not a {what}: it has the form name+hash+base64.")
    if len(key) != 33 or key[:1] != _ED25519:
        raise MalformedError(f"The {what} is not one of Ed25519, the only kind that is used here.")
    return name, bytes.fromhex(key_id), key[1:]


def decode_base64(text: str) -> bytes | None:
    """Standard base64 with padding, one spelling a value (RFC 4648 §3.5); None for anything else."""
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return value if encode_base64(value) == text else None


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 §4)."""
    return base64.b64encode(data).decode("ascii")


def _is_name(name: str) -> bool:
    return (
        0 < len(name.encode("utf-8", "replace")) <= _MAX_NAME_BYTES
        and "+" not in name
        and name.isprintable()
        and not any(character.isspace() for character in name)
    )


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise UsageError(
            f"{name!r} cannot name a key: 1 to {_MAX_NAME_BYTES} bytes without spaces and plus signs."
        )


def _is_plain(text: str) -> bool:
    return not any(character < " " and character != "\n" for character in text)
