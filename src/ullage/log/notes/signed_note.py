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
from typing import Protocol, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ullage.errors import IntegrityError, MalformedError, UsageError

MAX_NOTE_BYTES = 128 << 10
MAX_SIGNATURES = 64
_MAX_NAME_BYTES = 256
ED25519 = b"\x01"  # signature types of signed-note: a key of one type is never taken for another
ED25519_COSIGNATURE = b"\x04"
_PREFIX = "— "
_PRIVATE = "PRIVATE+KEY+"


class NoteKey(Protocol):
    """What `open_note` needs of a public key, whatever its signatures cover."""

    @property
    def name(self) -> str: ...

    @property
    def key_id(self) -> bytes: ...

    def verify(self, signature: bytes, text: bytes) -> bool: ...


Key = TypeVar("Key", bound=NoteKey)


def key_id(name: str, kind: bytes, public: bytes) -> bytes:
    """SHA-256(name ‖ 0x0A ‖ signature type ‖ public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def verify_ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is that of `message` under the 32-byte public key (RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class NoteVerifier:
    """A public key with its name; `str()` is the verifier key text `name+hash+base64(0x01 ‖ key)`."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, ED25519, self.public)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a verifier key. Raises MalformedError."""
        return cls(*split_key(text, "verifier key", ED25519))

    def named(self, name: str) -> Self:
        """The same key under another name, and so with another key id."""
        return type(self)(name, self.public)

    def __str__(self) -> str:
        return join_key(self.name, ED25519, self.public)

    def verify(self, signature: bytes, text: bytes) -> bool:
        return verify_ed25519(self.public, signature, text)


@dataclass(frozen=True)
class NoteSigner:
    """A private key with its name; `private_text()` is `PRIVATE+KEY+name+hash+base64(0x01 ‖ seed)`."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a private key. Raises MalformedError, whose message never holds the key."""
        return cls(*split_private_key(text, ED25519))

    @property
    def verifier(self) -> NoteVerifier:
        return NoteVerifier(self.name, public_bytes(self.seed))

    def named(self, name: str) -> Self:
        """The same key under another name, and so with another key id."""
        return type(self)(name, self.seed)

    def private_text(self) -> str:
        return join_private_key(self.name, ED25519, self.seed)

    def sign(self, text: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(text)


@dataclass(frozen=True)
class Signature:
    """One signature line, not yet verified."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """`— <name> <base64(key id ‖ signature)>` and a newline."""
        return f"{_PREFIX}{self.name} {encode_base64(self.key_id + self.value)}\n"


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """The note over `text`, which must end in a newline, with one signature line a signer."""
    data = text.encode()
    if not text.endswith("\n") or not _is_plain(text) or not signers:
        raise UsageError("A note needs text that ends in a newline, without control characters, and a key.")
    lines = [
        Signature(signer.name, signer.verifier.key_id, signer.sign(data)).line().encode()
        for signer in signers
    ]
    return data + b"\n" + b"".join(lines)


def split_note(data: bytes) -> tuple[str, list[str]]:
    """The text of a note and its signature lines, which are not parsed. Raises MalformedError."""
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
    return text, lines


def parse_note(data: bytes) -> tuple[str, tuple[Signature, ...]]:
    """Text and signatures of a note, nothing verified. Raises MalformedError."""
    text, lines = split_note(data)
    return text, tuple(parse_signature(line) for line in lines)


def open_note(data: bytes, verifiers: Sequence[Key]) -> tuple[str, tuple[Key, ...]]:
    """The note's text and those of `verifiers` whose signatures it carries, all valid.

    Signatures of unknown keys are ignored. Raises MalformedError, or IntegrityError when a signature of a
    known key is wrong or none is there.
    """
    text, signatures = parse_note(data)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    found: list[Key] = []
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


def parse_signature(line: str) -> Signature:
    """Read a signature line without its newline. Raises MalformedError."""
    name, separator, encoded = line.removeprefix(_PREFIX).partition(" ")
    value = decode_base64(encoded)
    if not line.startswith(_PREFIX) or not separator or not _is_name(name) or value is None or len(value) < 5:
        raise MalformedError(
            "A signed note has a line that is not a signature where signatures are expected."
        )
    return Signature(name, value[:4], value[4:])


def public_bytes(seed: bytes) -> bytes:
    """The 32-byte public key of an Ed25519 seed (RFC 8032)."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def join_key(name: str, kind: bytes, public: bytes) -> str:
    """The text of a verifier key: `name+hex(key id)+base64(type ‖ public key)`."""
    return f"{name}+{key_id(name, kind, public).hex()}+{encode_base64(kind + public)}"


def split_key(text: str, what: str, kind: bytes) -> tuple[str, bytes]:
    """Name and 32-byte public key of `join_key`'s text. Raises MalformedError."""
    name, identity, public = _split(text.strip("\n"), what, kind)
    if key_id(name, kind, public) != identity:
        raise MalformedError(f"The {what}'s hash does not fit its name and key; it was altered.")
    return name, public


def join_private_key(name: str, kind: bytes, seed: bytes) -> str:
    """The text of a private key: `PRIVATE+KEY+name+hex(key id)+base64(type ‖ seed)`."""
    identity = key_id(name, kind, public_bytes(seed))
    return f"{_PRIVATE}{name}+{identity.hex()}+{encode_base64(kind + seed)}"


def split_private_key(text: str, kind: bytes) -> tuple[str, bytes]:
    """Name and 32-byte seed of `join_private_key`'s text. Raises MalformedError."""
    text = text.strip("\n")
    if not text.startswith(_PRIVATE):
        raise MalformedError("This is not a private key.")
    name, identity, seed = _split(text.removeprefix(_PRIVATE), "private key", kind)
    if key_id(name, kind, public_bytes(seed)) != identity:
        raise MalformedError("The private key's hash does not fit its name and key; it was altered.")
    return name, seed


def _split(text: str, what: str, kind: bytes) -> tuple[str, bytes, bytes]:
    """(name, key id, 32 bytes) of `name+hash+base64`; base64 itself may hold plus signs."""
    fields = text.split("+", 2)
    if len(fields) != 3:
        raise MalformedError(f"This is not a {what}: it has the form name+hash+base64.")
    name, identity, encoded = fields
    key = decode_base64(encoded)
    if not _is_name(name) or len(identity) != 8 or set(identity) - set("0123456789abcdef") or key is None:
        raise MalformedError(f"This is not a {what}: it has the form name+hash+base64.")
    if len(key) != 33 or key[:1] != kind:
        raise MalformedError(
            f"The {what} has signature type {int.from_bytes(key[:1])} where an Ed25519 key of type {kind[0]} "
            "is needed."
        )
    return name, bytes.fromhex(identity), key[1:]


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


def check_name(name: str) -> None:
    """Raises UsageError unless signed-note allows `name` for a key."""
    if not _is_name(name):
        raise UsageError(
            f"{name!r} cannot name a key: 1 to {_MAX_NAME_BYTES} bytes without spaces and plus signs."
        )


def _is_plain(text: str) -> bool:
    return not any(character < " " and character != "\n" for character in text)
