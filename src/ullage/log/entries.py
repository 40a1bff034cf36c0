"""The public entries of a log: what everybody may read. Specified in `docs/formats/log.md`.

An entry about a record holds a commitment to the sealed part (`sealing.py`) and as little else as the rules
among entries need. Each kind has one spelling by construction, so that a regular expression reads it whole:
a verifier meets millions of them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from ullage.errors import MalformedError, UsageError
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier, decode_base64, encode_base64
from ullage.log.record import (
    ChunkPart,
    ClosePart,
    HeaderPart,
    OpenPart,
    Outcome,
    RecordPart,
    canonical_bytes,
    first_problem,
)

MAX_ENTRY_BYTES = (1 << 16) - 1  # an entry bundle has two bytes for the length
NANOSECONDS = 1_000_000_000
_MAX_NATURAL = (1 << 63) - 1


class OpenEntry(NamedTuple):
    """A record was opened. Times of entries are whole seconds since 1970."""

    commitment: str
    counter: int
    prompt_tokens: int
    stream: bool
    time_received: int


class ChunkEntry(NamedTuple):
    """Bytes of a stream were about to be released: its chunk number `chunk`."""

    commitment: str
    counter: int
    chunk: int


class CloseEntry(NamedTuple):
    """A record was closed."""

    commitment: str
    counter: int
    outcome: Outcome
    output_tokens: int
    time_closed: int


class KeyEntry(NamedTuple):
    """The log's key hands over to the next, which signs every checkpoint that covers this entry."""

    new_key: str
    old_key: str
    signature: str

    def holds(self, log_id: str, index: int) -> bool:
        """Whether the old key signed the new one for this place in this log."""
        try:
            old, _ = NoteVerifier.parse(self.old_key), NoteVerifier.parse(self.new_key)
        except MalformedError:
            return False
        signature = decode_base64(self.signature)
        text = _handover(log_id, index, self.old_key, self.new_key)
        return signature is not None and old.verify(signature, text)


class VerdictEntry(NamedTuple):
    """A verdict was given on this log: the digest of its signed envelope, so that none can be erased."""

    digest: str


RecordEntry = OpenEntry | ChunkEntry | CloseEntry
Entry = HeaderPart | RecordEntry | KeyEntry | VerdictEntry


def hand_over(old: NoteSigner, new: NoteVerifier, log_id: str, index: int) -> KeyEntry:
    """The entry by which `old` hands a log over to `new`; it is good as entry `index` of that log only."""
    names = str(old.verifier), str(new)
    if not all(_KEY.fullmatch(name) for name in names):
        raise UsageError("A log's key is handed over only between keys with ASCII names without quotes.")
    signature = old.sign(_handover(log_id, index, *names))
    return KeyEntry(new_key=names[1], old_key=names[0], signature=encode_base64(signature))


def entry_of(part: RecordPart, commitment: str) -> RecordEntry:
    """What the log says publicly about a part whose payload has that commitment."""
    # Their very types, as in `state.py`: pydantic's classes answer `isinstance` in Python.
    if type(part) is OpenPart:
        seconds = part.time_received // NANOSECONDS
        return OpenEntry(commitment, part.counter, len(part.prompt_ids), part.stream, seconds)
    if type(part) is ClosePart:
        seconds = part.time_closed // NANOSECONDS
        return CloseEntry(commitment, part.counter, part.outcome, len(part.output_ids), seconds)
    if isinstance(part, ChunkPart):
        return ChunkEntry(commitment, part.counter, part.index)
    raise TypeError(f"{type(part).__name__} is not a part of a record")


def encode_entry(entry: Entry) -> bytes:
    """The one spelling of an entry (RFC 8785). Raises UsageError on a header that has none."""
    if isinstance(entry, CloseEntry):
        text = (
            f'{{"commitment":"{entry.commitment}","counter":"{entry.counter}","outcome":"{entry.outcome}",'
            f'"output_tokens":{entry.output_tokens},"part":"close","time_closed":{entry.time_closed},'
            '"version":2}'
        )
    elif isinstance(entry, OpenEntry):
        text = (
            f'{{"commitment":"{entry.commitment}","counter":"{entry.counter}","part":"open",'
            f'"prompt_tokens":{entry.prompt_tokens},"stream":{"true" if entry.stream else "false"},'
            f'"time_received":{entry.time_received},"version":2}}'
        )
    elif isinstance(entry, ChunkEntry):
        text = (
            f'{{"commitment":"{entry.commitment}","counter":"{entry.counter}","index":{entry.chunk},'
            '"part":"chunk","version":2}'
        )
    elif isinstance(entry, KeyEntry):
        text = (
            f'{{"new_key":"{entry.new_key}","old_key":"{entry.old_key}","part":"key",'
            f'"signature":"{entry.signature}","version":2}}'
        )
    elif isinstance(entry, VerdictEntry):
        text = f'{{"digest":"{entry.digest}","part":"verdict","version":2}}'
    else:
        return canonical_bytes(entry)
    return text.encode("ascii")


def parse_entry(data: bytes) -> Entry:
    """Read one entry. Raises MalformedError unless `data` is exactly how the format spells it."""
    if match := _RECORD.fullmatch(data):
        commitment, counter, chunk, outcome, output, closed, prompt, stream, received = match.groups()
        if len(counter) < 19 or int(counter) <= _MAX_NATURAL:
            digest, number = commitment.decode(), int(counter)
            if outcome is not None:
                return CloseEntry(digest, number, _OUTCOMES[outcome], int(output), int(closed))
            if prompt is not None:
                return OpenEntry(digest, number, int(prompt), stream == b"true", int(received))
            return ChunkEntry(digest, number, int(chunk))
    elif match := _KEY_ENTRY.fullmatch(data):
        new, old, signature = match.groups()
        return KeyEntry(new.decode(), old.decode(), signature.decode())
    elif match := _VERDICT_ENTRY.fullmatch(data):
        return VerdictEntry(match[1].decode())
    return _parse_header(data)


def _parse_header(data: bytes) -> HeaderPart:
    if len(data) > MAX_ENTRY_BYTES:
        raise MalformedError(f"An entry has at most {MAX_ENTRY_BYTES} bytes, this one {len(data)}.")
    try:
        header = _HEADER.validate_json(data)
    except ValidationError as error:
        raise MalformedError(
            f"The entry is none that a log of version 2 has: {first_problem(error)}."
        ) from error
    if canonical_bytes(header) != data:
        raise MalformedError("The log's header is not written in canonical JSON (RFC 8785).")
    return header


def _handover(log_id: str, index: int, old_key: str, new_key: str) -> bytes:
    return f"ullage/log-key-handover/v1\n{log_id}\n{index}\n{old_key}\n{new_key}\n".encode()


_HEADER: TypeAdapter[HeaderPart] = TypeAdapter(HeaderPart)
_OUTCOMES: dict[bytes, Outcome] = {
    b"complete": "complete",
    b"client-gone": "client-gone",
    b"upstream-failed": "upstream-failed",
    b"refused": "refused",
    b"aborted": "aborted",
}
_DIGEST = rb'"(sha256:[0-9a-f]{64})"'
_SMALL = rb"(0|[1-9][0-9]{0,9})"
_KEY = re.compile(r"[!#-\[\]-~]{1,400}", re.ASCII)
_QUOTED_KEY = rb'"([!#-\[\]-~]{1,400})"'
_RECORD = re.compile(
    rb'\{"commitment":' + _DIGEST + rb',"counter":"(0|[1-9][0-9]{0,18})",'
    rb"(?:"
    rb'"index":' + _SMALL + rb',"part":"chunk"'
    rb'|"outcome":"(' + b"|".join(_OUTCOMES) + rb')","output_tokens":' + _SMALL + rb',"part":"close"'
    rb',"time_closed":' + _SMALL + rb'|"part":"open","prompt_tokens":' + _SMALL + rb',"stream":(true|false)'
    rb',"time_received":' + _SMALL + rb')'
    rb',"version":2\}'
)  # fmt: skip
_KEY_ENTRY = re.compile(
    rb'\{"new_key":' + _QUOTED_KEY + rb',"old_key":' + _QUOTED_KEY + rb',"part":"key",'
    rb'"signature":"([A-Za-z0-9+/]{86}==)","version":2\}'
)
_VERDICT_ENTRY = re.compile(rb'\{"digest":' + _DIGEST + rb',"part":"verdict","version":2\}')
