"""Checkpoints: what a log's key signs, as https://c2sp.org/tlog-checkpoint has them.

The note's text is three lines: the log's origin, the number of entries, the base64 of the RFC 6962 root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ullage.errors import MalformedError
from ullage.log.merkle import HASH_BYTES
from ullage.log.signed_note import (
    NoteSigner,
    NoteVerifier,
    decode_base64,
    encode_base64,
    open_note,
    sign_note,
)

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: `size` entries whose Merkle root is `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    def sign(self, signer: NoteSigner) -> bytes:
        """The signed note, ready for the file `checkpoint`."""
        return sign_note(self.text(), [signer])


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint from the text of a note. Raises MalformedError.

    Extension lines are refused: ours has none, and no monitor could check them.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise MalformedError("The checkpoint does not consist of origin, size and root, a line each.")
    origin, size, encoded, _ = lines
    root = decode_base64(encoded)
    if not _SIZE.fullmatch(size) or root is None or len(root) != HASH_BYTES:
        raise MalformedError("The checkpoint's size or root is not written as the format has it.")
    return Checkpoint(origin, int(size), root)


def open_checkpoint(note: bytes, verifier: NoteVerifier) -> Checkpoint:
    """The checkpoint in a note that `verifier` signed. Raises MalformedError, IntegrityError."""
    text, _ = open_note(note, [verifier])
    return parse_checkpoint(text)
