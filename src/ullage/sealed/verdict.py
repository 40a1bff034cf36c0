"""The sealed verdict: 256 bytes, of which the reader knows all but the outcome beforehand.

    0    16  "ullage-sealed/1\\n"
    16    1  outcome: 0 pass, 1 fail, 2 cannot-tell
    17    7  zero
    24    8  size of the log's tree, big-endian
    32   32  root of the log
    64   32  digest of the declared model
    96   32  digest of what was asked for
    128  32  the signer's public key (Ed25519)
    160  32  zero
    192  64  signature of the first 192 bytes

Root, model and request are fixed before the audit, and Ed25519 signatures are a function of key and message,
so the bytes tell one outcome in three; whether there are any at all is a fourth.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ullage.audit.verdict import Outcome
from ullage.errors import IntegrityError, MalformedError, UsageError

SIZE: Final = 256
BITS: Final = math.log2(4)
"""Pass, fail, cannot-tell, or no verdict."""
_MAGIC: Final = b"ullage-sealed/1\n"
_LAYOUT: Final = struct.Struct(">16sB7xQ32s32s32s32s32x")
_OUTCOMES: Final = (Outcome.PASS, Outcome.FAIL, Outcome.CANNOT_TELL)


def outcome_byte(outcome: Outcome) -> bytes:
    """All that leaves the sealed process."""
    return bytes([_OUTCOMES.index(outcome)])


def read_outcome(data: bytes) -> Outcome | None:
    """What the sealed process said; None for anything but one byte that is an outcome: no verdict."""
    return _OUTCOMES[data[0]] if len(data) == 1 and data[0] < len(_OUTCOMES) else None


@dataclass(frozen=True)
class SealedVerdict:
    """What the bytes say."""

    outcome: Outcome
    tree_size: int
    root: bytes
    model: bytes
    request: bytes

    def sign(self, seed: bytes) -> bytes:
        """The 256 bytes, from the 32-byte seed of an Ed25519 key. Raises UsageError for other sizes."""
        if not all(len(part) == 32 for part in (self.root, self.model, self.request, seed)):
            raise UsageError("A sealed verdict has digests and a key of 32 bytes.")
        key = Ed25519PrivateKey.from_private_bytes(seed)
        head = _LAYOUT.pack(
            _MAGIC,
            _OUTCOMES.index(self.outcome),
            self.tree_size,
            self.root,
            self.model,
            self.request,
            key.public_key().public_bytes_raw(),
        )
        return head + key.sign(head)

    @classmethod
    def read(cls, data: bytes, public: bytes) -> Self:
        """Raises MalformedError for other bytes, IntegrityError for another key or a broken signature."""
        if len(data) != SIZE:
            raise MalformedError(f"A sealed verdict has {SIZE} bytes; these are {len(data)}.")
        head, signature = data[: _LAYOUT.size], data[_LAYOUT.size :]
        magic, outcome, size, root, model, request, signer = _LAYOUT.unpack(head)
        if magic != _MAGIC or outcome >= len(_OUTCOMES) or any(head[17:24]) or any(head[160:]):
            raise MalformedError("These bytes are not a sealed verdict of this version.")
        if signer != public:
            raise IntegrityError("Another key signed this verdict.")
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, head)
        except InvalidSignature as error:
            raise IntegrityError("The sealed verdict's signature does not hold: it was changed.") from error
        return cls(_OUTCOMES[outcome], size, root, model, request)
