"""One file that proves, offline, that an entry is in a log: https://c2sp.org/tlog-proof.

The entry itself travels as the proof's extra data, from which the leaf's hash is computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ullage.errors import IntegrityError, MalformedError
from ullage.log.entries import MAX_ENTRY_BYTES, Entry, parse_entry
from ullage.log.notes.cosignature import CosignedCheckpoint
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, decode_base64, encode_base64
from ullage.merkle import HASH_BYTES, leaf_hash, verify_inclusion

MAX_PROOF_BYTES = MAX_ENTRY_BYTES // 3 * 4 + MAX_NOTE_BYTES + (8 << 10)
_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
_MAX_HASHES = 63


@dataclass(frozen=True)
class InclusionProof:
    """Entry `index`, its bytes, its path to the root, and the signed checkpoint that has the root."""

    index: int
    entry: bytes
    hashes: tuple[bytes, ...]
    checkpoint_note: bytes

    def to_bytes(self) -> bytes:
        """The file, by custom `*.tlog-proof`."""
        lines = [_FIRST_LINE, f"extra {encode_base64(self.entry)}", f"index {self.index}"]
        lines += [encode_base64(value) for value in self.hashes]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint_note

    @classmethod
    def parse(cls, data: bytes) -> InclusionProof:
        """Read a proof; nothing is verified yet. Raises MalformedError."""
        if len(data) > MAX_PROOF_BYTES:
            raise MalformedError(f"A proof has at most {MAX_PROOF_BYTES} bytes, this one {len(data)}.")
        head, separator, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedError("This is not a proof of inclusion.") from error
        if not separator or len(lines) < 3 or lines[0] != _FIRST_LINE:
            raise MalformedError(f"This is not a proof of inclusion: its first line is not '{_FIRST_LINE}'.")
        entry = decode_base64(lines[1].removeprefix("extra ")) if lines[1].startswith("extra ") else None
        index = _INDEX.fullmatch(lines[2])
        hashes = [decode_base64(line) for line in lines[3:]]
        if entry is None or index is None or len(hashes) > _MAX_HASHES:
            raise MalformedError("The proof lacks its entry or its index, or has too many hashes.")
        if any(value is None or len(value) != HASH_BYTES for value in hashes):
            raise MalformedError("The proof has a line that is not a hash where hashes are expected.")
        return cls(int(index[1]), entry, tuple(value for value in hashes if value is not None), note)

    def verify(self, policy: Policy) -> tuple[Entry, CosignedCheckpoint]:
        """The proved entry and the checkpoint that it is under. Raises MalformedError, IntegrityError."""
        opened = policy.open(self.checkpoint_note)
        if not policy.is_quorum(cosignature.witness for cosignature in opened.cosignatures):
            raise IntegrityError(
                "The proof's checkpoint does not have the cosignatures that the policy needs."
            )
        checkpoint = opened.checkpoint
        leaf = leaf_hash(self.entry)
        if not verify_inclusion(leaf, self.index, checkpoint.size, self.hashes, checkpoint.root):
            raise IntegrityError(
                f"The proof does not lead from the entry to the root that {checkpoint.origin} signed."
            )
        return parse_entry(self.entry), opened
