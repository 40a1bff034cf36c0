"""Checkpoints: what a log's key signs, as https://c2sp.org/tlog-checkpoint has them.

The note's text is three lines: the log's origin, the number of entries, the base64 of the RFC 6962 root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.notes.signed_note import (
    NoteSigner,
    NoteVerifier,
    decode_base64,
    encode_base64,
    open_note,
    parse_note,
    sign_note,
)
from ullage.merkle import HASH_BYTES

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_SIZE = (1 << 63) - 1


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: `size` entries whose Merkle root is `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    def sign(self, signer: NoteSigner) -> bytes:
        """The signed note, ready for the file `checkpoint`; the signature is named after the origin."""
        if not signs_for(signer.name, self.origin):
            raise UsageError(f"The key {signer.name} cannot sign for the log {self.origin}.")
        return sign_note(self.text(), [signer.named(self.origin)])


def parse_checkpoint(text: str, *, extensions: bool = False) -> Checkpoint:
    """Read a checkpoint from the text of a note. Raises MalformedError.

    Extension lines are refused unless `extensions`: our logs have none, and no monitor could check them.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or (len(lines) > 4 and not extensions):
        raise MalformedError("The checkpoint does not consist of origin, size and root, a line each.")
    origin, size, encoded = lines[:3]
    root = decode_base64(encoded)
    if not _SIZE.fullmatch(size) or int(size) > _MAX_SIZE or root is None or len(root) != HASH_BYTES:
        raise MalformedError("The checkpoint's size or root is not written as the format has it.")
    return Checkpoint(origin, int(size), root)


def note_origin(note: bytes) -> str:
    """The origin that a note claims to be a checkpoint of; nothing is verified. Raises MalformedError."""
    return parse_checkpoint(parse_note(note)[0], extensions=True).origin


def signs_for(key_name: str, origin: str) -> bool:
    """Whether a log key of that name may sign for `origin`: its own name, or the name, a slash and more."""
    return origin == key_name or origin.startswith(f"{key_name}/")


def open_checkpoint(note: bytes, verifier: NoteVerifier) -> Checkpoint:
    """The checkpoint in a note that `verifier` signed. Raises MalformedError, IntegrityError."""
    origin = note_origin(note)
    if not signs_for(verifier.name, origin):
        raise IntegrityError(f"The checkpoint is of {origin}, for which {verifier.name} does not sign.")
    text, _ = open_note(note, [verifier.named(origin)])
    return parse_checkpoint(text)
