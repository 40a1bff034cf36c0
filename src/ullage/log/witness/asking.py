"""Asking witnesses for their cosignatures, as a log's operator or anybody who watches a log does.

The client of https://c2sp.org/tlog-witness. A cosignature is verified before it is kept. A refusal is told
apart from a missing answer, because it may mean that the log was forked or cut back.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from ullage.deadline import within
from ullage.errors import FaultError, IntegrityError, MalformedError, UllageError, UsageError
from ullage.log.files import read_limited, replace
from ullage.log.notes.cosignature import CosignedCheckpoint, WitnessVerifier, add_cosignatures, open_cosigned
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, Signature, parse_note, parse_signature
from ullage.log.source import LogSource
from ullage.log.tree.prover import Prover
from ullage.log.verify import CHECKPOINT, COSIGNED
from ullage.log.witness.witness import SIZE_TYPE, AddCheckpoint

WRITER_LOCK = Path("sealed", "lock")
_MAX_ANSWER = 64 << 10
_ATTEMPTS = 4
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True)
class WitnessClient:
    """A witness: its key, and the prefix of its URLs."""

    key: WitnessVerifier
    url: str
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"{self.url!r} is not the http or https URL of a witness.")

    def cosign(self, prover: Prover, note: bytes, guess: int = 0) -> Signature:
        """The witness's cosignature of the checkpoint that `prover` is for.

        `guess`: the size that the witness is thought to have seen; it says so if that is wrong. Raises
        IntegrityError when the witness refuses because the log does not extend what it saw, FaultError when
        it does not answer as a witness does.
        """
        size = prover.checkpoint.size
        old = min(guess, size)
        text = parse_note(note)[0].encode()
        with httpx.Client(follow_redirects=False, timeout=self.timeout_s) as client:
            for _ in range(_ATTEMPTS):
                proof = prover.consistency(old)
                late = f"{self.key.name} at {self.url} took more than {2 * self.timeout_s:g} seconds."
                request = AddCheckpoint(old, proof, note).to_bytes()
                status, kind, body = within(2 * self.timeout_s, partial(self._post, client, request), late)
                match = _SIZE.fullmatch(body) if status == 409 and kind == SIZE_TYPE else None
                if match is None:
                    break
                old = int(match[1])
                if old > size:
                    raise IntegrityError(
                        f"{self.key.name} saw {old} entries, and the log has {size} now: it was cut back."
                    )
        if status == 200:
            return self._own(body, text)
        reason = body.decode("utf-8", "replace").strip()[:200]
        if status == 422:
            raise IntegrityError(f"{self.key.name} saw another history of this log: {reason}")
        raise FaultError(f"{self.key.name} at {self.url} answers {status}: {reason}")

    def _post(self, client: httpx.Client, body: bytes) -> tuple[int, str, bytes]:
        url = self.url.rstrip("/") + "/add-checkpoint"
        try:
            with client.stream("POST", url, content=body) as response:
                answer = b""
                for part in response.iter_bytes():
                    answer += part
                    if len(answer) > _MAX_ANSWER:
                        raise FaultError(f"{url} answers with more than {_MAX_ANSWER} bytes.")
                return response.status_code, response.headers.get("content-type", ""), answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FaultError(f"{url} cannot be reached: {error or type(error).__name__}.") from error

    def _own(self, body: bytes, text: bytes) -> Signature:
        """The line of this witness among those of the answer, verified."""
        for line in body.decode("utf-8", "replace").splitlines():
            try:
                signature = parse_signature(line)
            except MalformedError:
                continue
            if (signature.name, signature.key_id) != (self.key.name, self.key.key_id):
                continue
            if self.key.verify(signature.value, text):
                return signature
        raise FaultError(f"{self.url} answers without a valid cosignature of {self.key.name}.")


@dataclass(frozen=True)
class Cosigning:
    """What came of asking: the note with all cosignatures, and the witnesses that gave none, and why."""

    opened: CosignedCheckpoint
    refused: tuple[tuple[WitnessClient, UllageError], ...]

    @property
    def contradicted(self) -> bool:
        """Whether a witness says that the log does not extend what it saw."""
        return any(isinstance(error, IntegrityError) for _, error in self.refused)


def cosign_log(source: LogSource, policy: Policy, witnesses: Sequence[WitnessClient]) -> Cosigning:
    """Ask each witness once to cosign the log's checkpoint. Raises IntegrityError, FaultError, UsageError."""
    note = source.read(CHECKPOINT, MAX_NOTE_BYTES)
    if note is None:
        raise UsageError("The log has no checkpoint that could be cosigned.")
    opened = policy.open(note)
    prover = Prover(source, opened.checkpoint, note)
    guess, note = _continue(source.read(COSIGNED, MAX_NOTE_BYTES), note, policy)
    signatures: list[Signature] = []
    refused: list[tuple[WitnessClient, UllageError]] = []
    for witness in witnesses:
        try:
            signatures.append(witness.cosign(prover, note, guess))
        except UllageError as error:
            refused.append((witness, error))
    merged = add_cosignatures(note, tuple(signatures))
    keys = dict.fromkeys((*(one.key for one in policy.witnesses), *(one.key for one in witnesses)))
    return Cosigning(open_cosigned(merged, (opened.log_key,), tuple(keys)), tuple(refused))


def _continue(before: bytes | None, note: bytes, policy: Policy) -> tuple[int, bytes]:
    """The size that witnesses saw last, and the note to add to: the older one if its text is the same."""
    try:
        size = 0 if before is None else policy.open(before).checkpoint.size
    except IntegrityError:
        return 0, note
    same = before is not None and parse_note(before)[0] == parse_note(note)[0]
    return size, before if same and before is not None else note


def keep_cosigned(directory: Path, cosigned: CosignedCheckpoint) -> None:
    """Put the note in `cosigned`, and in `checkpoint` where no writer lives and that has the same text.

    Raises FaultError.
    """
    try:
        replace(directory / COSIGNED, cosigned.note)
        lock = _writers_lock(directory / WRITER_LOCK)
        if lock is None:
            return
        try:
            present = read_limited(directory / CHECKPOINT, MAX_NOTE_BYTES)
            if parse_note(present)[0] == parse_note(cosigned.note)[0]:
                replace(directory / CHECKPOINT, cosigned.note)
        finally:
            os.close(lock)
    except OSError as error:
        raise FaultError(f"The cosignatures cannot be written to {directory}: {error.strerror}.") from error


def _writers_lock(path: Path) -> int | None:
    """The lock of the log's writer, if nobody holds it; while one lives, `checkpoint` is its own."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
