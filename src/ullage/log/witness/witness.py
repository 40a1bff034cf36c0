"""A witness: it cosigns a log's checkpoint only if that extends everything it cosigned before.

The protocol is https://c2sp.org/tlog-witness, apart from HTTP itself. A checkpoint is durable in the state of
the witness before its cosignature leaves, and the comparison with the last one and the writing are one step.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ullage.errors import IntegrityError, MalformedError
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint, signs_for
from ullage.log.notes.cosignature import WitnessSigner, cosignature_time
from ullage.log.notes.signed_note import (
    MAX_NOTE_BYTES,
    NoteVerifier,
    Signature,
    decode_base64,
    encode_base64,
    open_note,
    parse_note,
    split_note,
)
from ullage.log.tree.growth import Equivocation
from ullage.log.witness.state import WitnessState
from ullage.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency

MAX_PROOF_LINES = 63
MAX_REQUEST_BYTES = MAX_NOTE_BYTES + 64 * 64
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)
_LOCKS = 64


@dataclass(frozen=True)
class AddCheckpoint:
    """The body of an add-checkpoint request: the size that the client believes in, the proof, the note."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """The body of `POST /add-checkpoint` (`docs/formats/witness.md`)."""
        lines = [f"old {self.old_size}", *map(encode_base64, self.proof)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Read a request; nothing is verified yet. Raises MalformedError."""
        head, separator, note = body.partition(b"\n\n")
        lines = head.decode("ascii", "replace").split("\n")
        old = _OLD.fullmatch(lines[0])
        hashes = [decode_base64(line) for line in lines[1:]]
        if old is None or not separator or len(hashes) > MAX_PROOF_LINES:
            raise MalformedError("The request is not an old size, a proof, an empty line and a checkpoint.")
        if any(value is None or len(value) != HASH_BYTES for value in hashes):
            raise MalformedError("The request has a line that is not a hash where the proof is expected.")
        return cls(int(old[1]), tuple(value for value in hashes if value is not None), note)


@dataclass(frozen=True)
class Answer:
    """What the witness says, with its HTTP status code."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE


class Witness:
    """Decides about checkpoints of the logs whose keys it was given. Safe to call from several threads."""

    def __init__(
        self,
        signer: WitnessSigner,
        logs: Sequence[NoteVerifier],
        state: WitnessState,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._logs = tuple(logs)
        self._state = state
        self._clock = clock
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer an add-checkpoint request. Raises FaultError when the state cannot be read or written."""
        try:
            request = AddCheckpoint.parse(body)
            text, _ = split_note(request.note)
            checkpoint = parse_checkpoint(text, extensions=True)
        except MalformedError as error:
            return _refusal(400, str(error))
        keys = [log.named(checkpoint.origin) for log in self._logs if signs_for(log.name, checkpoint.origin)]
        if not keys:
            return _refusal(404, "This witness does not know the log.")
        try:
            _, signed = open_note(request.note, keys)
        except IntegrityError as error:
            return _refusal(403, str(error))
        if request.old_size > checkpoint.size:
            return _refusal(400, "The old size is larger than that of the checkpoint.")
        note = _only_signed_by(request.note, {(key.name, key.key_id) for key in signed})
        with self._lock(checkpoint.origin):
            return self._decide(request, checkpoint, text, note)

    def latest(self, origin_hash: str) -> bytes | None:
        """The last checkpoint that was cosigned of the log with that hash; None if there is none."""
        return self._state.latest(origin_hash)

    def _decide(self, request: AddCheckpoint, checkpoint: Checkpoint, text: str, note: bytes) -> Answer:
        origin_hash = hash_of(checkpoint.origin)
        last_note = self._state.latest(origin_hash)
        last = None if last_note is None else parse_checkpoint(parse_note(last_note)[0], extensions=True)
        if last_note is not None and last is not None and _contradict(last, checkpoint):
            evidence = Equivocation(last_note, note, checkpoint.root, ())
            self._state.keep_evidence(origin_hash, evidence.to_bytes())
        size = 0 if last is None else last.size
        if request.old_size != size:
            return Answer(409, b"%d\n" % size, SIZE_TYPE)
        root = EMPTY_ROOT if last is None else last.root
        new = (checkpoint.size, checkpoint.root)
        if not verify_consistency(size, root, *new, request.proof):
            if last_note is not None:
                self._state.keep_suspect(origin_hash, request.to_bytes())
            return _refusal(422, "The checkpoint does not extend the one before it, or the proof is wrong.")
        now = max(int(self._clock()), 0 if last_note is None else self._last_time(last_note))
        signature = self._signer.cosign(text, now)
        line = signature.line().encode()
        self._state.put(origin_hash, note + line)
        return Answer(200, line)

    def _last_time(self, note: bytes) -> int:
        """When this witness cosigned the note: its times never run backwards."""
        own = (self._signer.name, self._signer.verifier.key_id)
        times = [cosignature_time(one.value) for one in parse_note(note)[1] if (one.name, one.key_id) == own]
        return max(times, default=0)

    def _lock(self, origin: str) -> threading.Lock:
        return self._locks[hashlib.sha256(origin.encode()).digest()[0] % _LOCKS]


def hash_of(origin: str) -> str:
    """How a witness's URLs and folders name a log: SHA-256 of the origin, in hexadecimal digits."""
    return hashlib.sha256(origin.encode()).hexdigest()


def _contradict(one: Checkpoint, other: Checkpoint) -> bool:
    return one.size == other.size and one.root != other.root


def _only_signed_by(note: bytes, keys: set[tuple[str, bytes]]) -> bytes:
    """The note without the signature lines of other keys: what is kept has a bounded size."""
    text, signatures = parse_note(note)
    kept: list[Signature] = [one for one in signatures if (one.name, one.key_id) in keys]
    return text.encode() + b"\n" + "".join(one.line() for one in dict.fromkeys(kept)).encode()


def _refusal(status: int, sentence: str) -> Answer:
    return Answer(status, f"{sentence}\n".encode())
