"""The parts of a record, and their canonical bytes (RFC 8785). Specified in `docs/formats/record.md`.

The header is a public entry of the log. The other parts are sealed, and the log holds commitments to them.
In Python every integer is an `int`; on disk those that may pass 2^53 are decimal strings. Fields are
declared in the order of their canonical bytes, which is alphabetical, so that pydantic's encoder writes
RFC 8785 directly: names are ASCII, numbers are integers below 2^53, and a test compares with `rfc8785`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from ullage.errors import MalformedError, UsageError

MAX_PART_BYTES = 16 << 20
MAX_TOKENS = 1 << 20
MAX_STOPS = 64

_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,20})?(e-[0-9]{2,3})?", re.ASCII)


@lru_cache(maxsize=1024)  # a handful of temperatures; what is refused is not kept
def _one_spelling(text: str) -> str:
    """The shortest decimal that gives the same float64 (Python's `repr`): no freedom of spelling."""
    if not _NUMBER.fullmatch(text) or repr(float(text)) != text:
        raise ValueError(
            "a number is written as the shortest decimal that gives the same float64, such as 0.7"
        )
    return text


def _all_small(values: tuple[int, ...]) -> tuple[int, ...]:
    """Bounds of many integers at once: pydantic takes five times as long to look at each."""
    try:
        packed = struct.pack(f"<{len(values)}I", *values)
    except struct.error:
        packed = b""
    if len(packed) != 4 * len(values) or not packed[3::4].isascii():  # that is, no top bit is set
        raise ValueError("token ids are integers from 0 to 2147483647")
    return values


_decimal = PlainSerializer(str, return_type=str, when_used="json")
# Lax, because on disk these are strings; other spellings ("05", 5, 5.0) do not survive `parse_part`.
Natural = Annotated[int, Field(strict=False, ge=0, lt=1 << 63), _decimal]
Integer = Annotated[int, Field(strict=False, ge=-(1 << 63), lt=1 << 64), _decimal]
Small = Annotated[int, Field(ge=0, lt=1 << 31)]
TokenIds = Annotated[tuple[int, ...], Field(max_length=MAX_TOKENS), AfterValidator(_all_small)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,256}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
Sentence = Annotated[str, StringConstraints(max_length=1024)]
Number = Annotated[str, AfterValidator(_one_spelling)]
Source = Literal["client", "released", "inside"]
Outcome = Literal["complete", "client-gone", "upstream-failed", "refused", "aborted"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class HeaderPart(_Model):
    """The first entry of a log and only that: what the operator declares, and the log's name.

    `seed_commitment` is the writer's to fill in: it holds the key that the seeds come from.
    """

    created: Natural
    dtype: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
    log_id: Name
    model_digest: Digest
    part: Literal["header"] = "header"
    profile: Name
    reference_digest: Digest | None = None  # of the enforcer's numerics, where the tap enforces
    seed_commitment: Digest | None = None
    selection_commitment: Digest | None = None
    software: Name
    version: Literal[2] = 2


class Parameters(_Model):
    """What the client asked of the sampler; 0 for `top_k` means no filter."""

    max_tokens: Small
    stop: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=4096)], ...], Field(max_length=MAX_STOPS)
    ]
    temperature: Number
    top_k: Small
    top_p: Number


class OpenPart(_Model):
    """A choice of a request has entered the tap; written before anything is forwarded."""

    bytes_from_client: Natural
    choice: Small
    client_seed: Integer | None = None
    counter: Natural
    endpoint: Literal["chat", "completions"]
    group: Natural
    parameters: Parameters
    part: Literal["open"] = "open"
    prompt_ids: TokenIds
    prompt_sources: Annotated[tuple[tuple[Small, Source], ...], Field(max_length=MAX_TOKENS)]
    request_digest: Digest
    seed: Natural
    stream: bool
    time_received: Natural
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lengths = [length for length, _ in self.prompt_sources]
        if sum(lengths) != len(self.prompt_ids):
            raise ValueError("the runs of prompt_sources must cover prompt_ids exactly")
        if 0 in lengths or any(one[1] == following[1] for one, following in pairwise(self.prompt_sources)):
            raise ValueError("prompt_sources has an empty run, or two neighbouring runs of one source")
        if self.group > self.counter:
            raise ValueError("group is the counter of the request's first choice, so it is at most counter")
        if (self.choice == 0) != (self.group == self.counter):
            raise ValueError("the first choice of a request, and no other, has its own counter as its group")
        return self


class ChunkPart(_Model):
    """Bytes of a stream that are about to be released, and the tokens they carry."""

    bytes: Natural
    counter: Natural
    digest: Digest
    index: Small
    output_ids: TokenIds
    part: Literal["chunk"] = "chunk"
    version: Literal[1] = 1


class ClosePart(_Model):
    """How a choice ended. `aborted`: the tap ended first; recovery leaves out what it cannot know."""

    bytes_from_upstream: Natural | None
    bytes_to_client: Natural | None
    bytes_to_upstream: Natural | None
    counter: Natural
    detail: Sentence = ""
    finish_reason: Word | None
    outcome: Outcome
    output_ids: TokenIds
    part: Literal["close"] = "close"
    released_digest: Digest | None
    time_closed: Natural
    upstream_fingerprint: Sentence | None = None
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        measured = (
            self.bytes_from_upstream,
            self.bytes_to_client,
            self.bytes_to_upstream,
            self.released_digest,
        )
        if self.outcome == "aborted":
            if any(value is not None for value in measured):
                raise ValueError("an aborted close knows neither bytes nor a digest of what was released")
        elif any(value is None for value in measured):
            raise ValueError("only an aborted close may leave out bytes and released_digest")
        return self


RecordPart = OpenPart | ChunkPart | ClosePart
Part = HeaderPart | RecordPart
_ADAPTER: TypeAdapter[RecordPart] = TypeAdapter(Annotated[RecordPart, Field(discriminator="part")])


def canonical_bytes(part: Part) -> bytes:
    """RFC 8785 bytes of a part. Raises UsageError when a text holds half a surrogate pair."""
    try:
        return part.__pydantic_serializer__.to_json(part)  # `model_dump_json` without the str between
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise UsageError("A text in the record is not valid Unicode, so it cannot be recorded.") from error


def parse_part(data: bytes) -> RecordPart:
    """Read a part of a record. Raises MalformedError unless `data` is exactly its canonical bytes."""
    if len(data) > MAX_PART_BYTES:
        raise MalformedError(f"A part of a record has at most {MAX_PART_BYTES} bytes, this one {len(data)}.")
    try:
        part = _ADAPTER.validate_json(data)
    except ValidationError as error:
        raise MalformedError(f"This is not a part of a record: {first_problem(error)}.") from error
    if canonical_bytes(part) != data:
        raise MalformedError("A part of a record is not written in canonical JSON (RFC 8785).")
    return part


def first_problem(error: ValidationError) -> str:
    """Where and what is wrong, without the value itself."""
    first: Any = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


@dataclass
class Record:
    """One choice of one request, put together from its parts."""

    open: OpenPart
    chunks: list[ChunkPart] = field(default_factory=list)
    close: ClosePart | None = None
    close_index: int | None = None  # index of the close's entry in the log

    @property
    def counter(self) -> int:
        """The record's number in its log."""
        return self.open.counter

    @property
    def output_ids(self) -> tuple[int, ...]:
        """All output tokens; of a record without a close those that its chunks released."""
        if self.close is not None:
            return self.close.output_ids
        return tuple(token for chunk in self.chunks for token in chunk.output_ids)
