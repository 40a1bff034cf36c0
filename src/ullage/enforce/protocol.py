"""The bytes between tap and enforcer; `docs/formats/enforcement-protocol.md` is their specification.

Pure: no socket, no torch. The tap imports this file and nothing else of the room.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, TypeVar

from ullage.errors import MalformedError, UsageError

VERSION: Final = 1
MAGIC: Final = b"ullage-enforce"
MAX_FRAME: Final = 8 << 20
MAX_CHUNK: Final = 1024
MAX_PROFILE_BYTES: Final = 256
MAX_STOPS: Final = 64
MAX_STOP_CHARACTERS: Final = 4096
LENGTH_BYTES: Final = 4
CONNECTION: Final = (1 << 64) - 1  # the request number of an error that is about the connection
ANY_REFERENCE: Final = bytes(32)
_SEED_LIMIT: Final = 1 << 63

FinishReason = Literal["stop", "length"]
Message = TypeVar("Message")
_FINISH: Final[tuple[FinishReason | None, ...]] = (None, "stop", "length")


class ErrorCode(IntEnum):
    """Why a request or a connection ended; the text is for the operator of the tap."""

    VERSION = 1, "the enforcer speaks another version of the protocol"
    MODEL = 2, "the enforcer runs another model than the one that is declared"
    PROFILE = 3, "the enforcer runs another sampler profile"
    REFERENCE = 4, "the enforcer's numerical stack is not the one that is asked for"
    MALFORMED = 5, "the enforcer got bytes that do not follow the protocol"
    FULL = 6, "the enforcer has as many requests as it keeps"
    IMPOSSIBLE = 7, "the request does not fit the reference's context or parameters"
    UNKNOWN = 8, "the enforcer has no such request"
    STEP = 9, "tap and enforcer disagree on how far a request is"
    FAILED = 10, "the reference failed to compute"

    sentence: str

    def __new__(cls, value: int, sentence: str) -> ErrorCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


@dataclass(frozen=True)
class Hello:
    """The first message of a connection. Digests are 32 bytes; ANY_REFERENCE accepts any stack."""

    model_digest: bytes
    profile: str
    reference_digest: bytes = ANY_REFERENCE
    version: int = VERSION


@dataclass(frozen=True)
class Begin:
    """A request: all that the reference's tokens depend on."""

    request: int
    seed: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    prompt_ids: tuple[int, ...]
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """Drafts for output tokens `step`, `step + 1`, …"""

    request: int
    step: int
    drafts: tuple[int, ...]


@dataclass(frozen=True)
class Decode:
    """Ask for up to `count` tokens without drafts."""

    request: int
    step: int
    count: int


@dataclass(frozen=True)
class Finish:
    """The tap has what it needs of a request."""

    request: int


@dataclass(frozen=True)
class Abort:
    """The tap gives a request up."""

    request: int


@dataclass(frozen=True)
class Welcome:
    """What the enforcer runs. `requests` is how many it keeps at once."""

    model_digest: bytes
    reference_digest: bytes
    chunk: int
    vocabulary_size: int
    context_length: int
    requests: int
    version: int = VERSION


@dataclass(frozen=True)
class Answer:
    """The reference's own tokens; the first `accepted` equal the drafts."""

    request: int
    step: int
    accepted: int
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Finished:
    """A request is let go: how many tokens it had and why it ended."""

    request: int
    tokens: int
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Refusal:
    """A request, or with CONNECTION the connection, has ended."""

    request: int
    code: ErrorCode


ToEnforcer = Hello | Begin | Check | Decode | Finish | Abort
ToTap = Welcome | Answer | Finished | Refusal


def frame_length(header: bytes, limit: int = MAX_FRAME) -> int:
    """Bytes that follow the 4 bytes of a frame's length. Raises MalformedError."""
    length: int = struct.unpack(">I", header)[0]
    if not 1 <= length <= limit:
        raise MalformedError(f"A frame has 1 to {limit} bytes, this one announces {length}.")
    return length


def encode_request(message: ToEnforcer) -> bytes:
    """The frame of a message of the tap's. Raises UsageError for values that it cannot carry."""
    try:
        kind, body = _request_body(message)
    except (struct.error, UnicodeEncodeError) as error:
        raise UsageError(f"A message to the enforcer cannot carry this value: {error}.") from error
    frame = _frame(kind, body)
    if len(frame) > MAX_FRAME + LENGTH_BYTES:
        raise UsageError(f"A message to the enforcer has at most {MAX_FRAME} bytes.")
    return frame


def _request_body(message: ToEnforcer) -> tuple[int, bytes]:
    match message:
        case Hello():
            head = struct.pack(">H32s32s", message.version, message.model_digest, message.reference_digest)
            return 1, MAGIC + head + _text(message.profile)
        case Begin():
            head = struct.pack(
                ">QQddII",
                message.request, message.seed, message.temperature, message.top_p,
                message.top_k, message.max_tokens,
            )  # fmt: skip
            stops = struct.pack(">B", len(message.stop)) + b"".join(map(_text, message.stop))
            return 2, head + _ids(message.prompt_ids) + stops
        case Check():
            return 3, struct.pack(">QI", message.request, message.step) + _ids(message.drafts)
        case Decode():
            return 4, struct.pack(">QIH", message.request, message.step, message.count)
        case Finish():
            return 5, struct.pack(">Q", message.request)
        case Abort():
            return 6, struct.pack(">Q", message.request)


def encode_answer(message: ToTap, chunk: int) -> bytes:
    """The frame of a message of the enforcer's; `chunk` is the connection's C, which sets its size."""
    match message:
        case Welcome():
            return _frame(
                129,
                struct.pack(
                    ">H32s32sHIII",
                    message.version, message.model_digest, message.reference_digest, message.chunk,
                    message.vocabulary_size, message.context_length, message.requests,
                ),
            )  # fmt: skip
        case Answer():
            finish = _FINISH.index(message.finish_reason)
            tokens = (*message.tokens, *[0] * (chunk - len(message.tokens)))
            counts = (message.accepted, len(message.tokens))
            return _frame(
                130, struct.pack(f">QIHHB{chunk}I", message.request, message.step, *counts, finish, *tokens)
            )
        case Finished():
            finish = _FINISH.index(message.finish_reason)
            return _frame(131, struct.pack(">QIB", message.request, message.tokens, finish))
        case Refusal():
            return _frame(132, struct.pack(">QB", message.request, message.code))


def parse_request(payload: bytes) -> ToEnforcer:
    """What a frame holds after its length. Raises MalformedError."""
    return _parse(payload, _REQUESTS)


def parse_answer(payload: bytes) -> ToTap:
    """The same for what the enforcer sends. Raises MalformedError."""
    return _parse(payload, _ANSWERS)


def _parse(payload: bytes, kinds: dict[int, Callable[[_Cursor], Message]]) -> Message:
    cursor = _Cursor(payload)
    (kind,) = cursor.take(">B")
    if kind not in kinds:
        raise MalformedError(f"A message of kind {kind} is not expected here.")
    message = kinds[kind](cursor)
    cursor.expect_end()
    return message


class _Cursor:
    """Reads fields off the front of a payload."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._at = payload, 0

    def bytes(self, count: int) -> bytes:
        if self._at + count > len(self._payload):
            raise MalformedError("A message is shorter than its fields.")
        self._at += count
        return self._payload[self._at - count : self._at]

    @property
    def left(self) -> int:
        return len(self._payload) - self._at

    def take(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def number(self) -> float:
        (value,) = struct.unpack(">d", self.bytes(8))
        if not math.isfinite(value):
            raise MalformedError("A message holds a number that is not finite.")
        return float(value)

    def ids(self, limit: int) -> tuple[int, ...]:
        (count,) = self.take(">I")
        if not 1 <= count <= limit:
            raise MalformedError(f"A list of token ids has 1 to {limit} of them here, not {count}.")
        return self.take(f">{count}I")

    def text(self, limit: int) -> str:
        (count,) = self.take(">H")
        try:
            text = self.bytes(count).decode()
        except UnicodeDecodeError as error:
            raise MalformedError("A text in a message is not UTF-8.") from error
        if not 1 <= len(text) <= limit:
            raise MalformedError(f"A text has 1 to {limit} characters here, not {len(text)}.")
        return text

    def finish(self) -> FinishReason | None:
        (code,) = self.take(">B")
        if code >= len(_FINISH):
            raise MalformedError(f"There is no finish reason {code}.")
        return _FINISH[code]

    def expect_end(self) -> None:
        if self.left:
            raise MalformedError("A message is longer than its fields.")


def _hello(cursor: _Cursor) -> Hello:
    if cursor.bytes(len(MAGIC)) != MAGIC:
        raise MalformedError("The connection does not begin as one to an enforcer does.")
    (version,) = cursor.take(">H")
    model, reference = cursor.bytes(32), cursor.bytes(32)
    return Hello(model, cursor.text(MAX_PROFILE_BYTES), reference, version)


def _begin(cursor: _Cursor) -> Begin:
    request, seed = _request(cursor), cursor.take(">Q")[0]
    if seed >= _SEED_LIMIT:
        raise MalformedError("A seed is below 2^63.")
    temperature, top_p = cursor.number(), cursor.number()
    top_k, max_tokens = cursor.take(">II")
    prompt_ids = cursor.ids(MAX_FRAME // 4)
    (count,) = cursor.take(">B")
    if count > MAX_STOPS:
        raise MalformedError(f"A request has at most {MAX_STOPS} stop strings, not {count}.")
    stop = tuple(cursor.text(MAX_STOP_CHARACTERS) for _ in range(count))
    return Begin(request, seed, temperature, top_p, top_k, max_tokens, prompt_ids, stop)


def _check(cursor: _Cursor) -> Check:
    request, (step,) = _request(cursor), cursor.take(">I")
    return Check(request, step, cursor.ids(MAX_CHUNK))


def _decode(cursor: _Cursor) -> Decode:
    request, (step, count) = _request(cursor), cursor.take(">IH")
    if not 1 <= count <= MAX_CHUNK:
        raise MalformedError(f"Between 1 and {MAX_CHUNK} tokens are decoded at once, not {count}.")
    return Decode(request, step, count)


def _request(cursor: _Cursor) -> int:
    (request,) = cursor.take(">Q")
    if request == CONNECTION:
        raise MalformedError("No request has the number that stands for the connection.")
    return request


def _welcome(cursor: _Cursor) -> Welcome:
    (version,) = cursor.take(">H")
    model, reference = cursor.bytes(32), cursor.bytes(32)
    chunk, vocabulary_size, context_length, requests = cursor.take(">HIII")
    if not 1 <= chunk <= MAX_CHUNK or not (vocabulary_size and context_length and requests):
        raise MalformedError("The enforcer says of itself what cannot be.")
    return Welcome(model, reference, chunk, vocabulary_size, context_length, requests, version)


def _answer(cursor: _Cursor) -> Answer:
    request, step, accepted, count = cursor.take(">QIHH")
    finish = cursor.finish()
    slots = cursor.left // 4
    tokens = cursor.take(f">{slots}I")
    if not accepted <= count <= slots or any(tokens[count:]):
        raise MalformedError("An answer does not hold the tokens that it announces.")
    return Answer(request, step, accepted, tokens[:count], finish)


def _finished(cursor: _Cursor) -> Finished:
    request, tokens = cursor.take(">QI")
    return Finished(request, tokens, cursor.finish())


def _refusal(cursor: _Cursor) -> Refusal:
    request, code = cursor.take(">QB")
    try:
        return Refusal(request, ErrorCode(code))  # type: ignore[call-arg]
    except ValueError as error:
        raise MalformedError(f"There is no error {code}.") from error


_REQUESTS: Final[dict[int, Callable[[_Cursor], ToEnforcer]]] = {
    1: _hello,
    2: _begin,
    3: _check,
    4: _decode,
    5: lambda cursor: Finish(_request(cursor)),
    6: lambda cursor: Abort(_request(cursor)),
}
_ANSWERS: Final[dict[int, Callable[[_Cursor], ToTap]]] = {
    129: _welcome,
    130: _answer,
    131: _finished,
    132: _refusal,
}


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", 1 + len(body), kind) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _ids(ids: Sequence[int]) -> bytes:
    return struct.pack(f">I{len(ids)}I", len(ids), *ids)
