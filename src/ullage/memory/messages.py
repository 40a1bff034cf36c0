"""Messages between verifier and agent, to and from bytes. `docs/formats/memory-protocol.md` specifies them.

Pure: no sockets here. Whatever does not parse raises MalformedError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from ullage.errors import MalformedError
from ullage.memory.fields import Message, Reader, text_field
from ullage.memory.noise import BLOCK_BYTES, MAX_KAPPA, SEED_BYTES, TAG_BYTES, Question

VERSION = 1
MAGIC = b"ullage-memory"
MAX_FRAME_BYTES = 8 << 20
MAX_DUMP_BYTES = 4 << 20
KEY_BYTES = 32
DIGEST_BYTES = 32
_MAX_BLOCKS = (MAX_FRAME_BYTES - 64) // 4
_MAX_SEGMENTS = 100_000
_PAGE_BYTES = 4096


class Code(IntEnum):
    """Why an agent ends a connection."""

    VERSION = 1
    MALFORMED = 2
    NO_MEMORY = 3
    NOT_MAPPED = 4
    IMPOSSIBLE = 5
    SERVER = 6
    DIGEST = 7
    BUSY = 8
    FAULT = 9


class SegmentKind(IntEnum):
    """What a declared piece of memory holds."""

    WEIGHTS = 1
    KV_CACHE = 2
    BALLAST = 3
    OTHER = 4


@dataclass(frozen=True)
class Hello(Message):
    """The verifier's first word: magic and version."""

    kind = 1
    version: int = VERSION

    def body(self) -> bytes:
        return MAGIC + struct.pack(">H", self.version)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        if reader.raw(len(MAGIC)) != MAGIC:
            raise MalformedError("The peer does not speak the memory protocol.")
        return cls(reader.number(2))


@dataclass(frozen=True)
class Map(Message):
    """Map so many bytes of a space; 0 is all that can be reached."""

    kind = 2
    space: int
    size: int

    def body(self) -> bytes:
        return struct.pack(">BQ", self.space, self.size)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.number(1), reader.number(8))


@dataclass(frozen=True)
class Stream(Map):
    """Noise for a region follows, raw, outside any frame."""

    kind = 3


@dataclass(frozen=True)
class Fill(Message):
    """Expand noise from a seed into the region, kappa encryptions a cell (mode `rate-gap`)."""

    kind = 4
    space: int
    size: int
    seed: bytes
    kappa: int

    def body(self) -> bytes:
        return struct.pack(">BQ", self.space, self.size) + self.seed + struct.pack(">I", self.kappa)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        space, size, seed = reader.number(1), reader.number(8), reader.raw(SEED_BYTES)
        return cls(space, size, seed, reader.limited(4, 1, MAX_KAPPA, "kappa"))


@dataclass(frozen=True)
class Ask(Message):
    """A question to one space."""

    kind = 5
    space: int
    question: Question

    def body(self) -> bytes:
        asked = self.question
        blocks = asked.blocks or ()
        head = struct.pack(">BI", self.space, asked.round_number) + asked.key
        sizes = struct.pack(">III", asked.region_blocks, asked.segment_blocks, len(blocks))
        return head + sizes + struct.pack(f">{len(blocks)}I", *blocks)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        space, number, key = reader.number(1), reader.number(4), reader.raw(KEY_BYTES)
        region = reader.limited(4, 1, (1 << 32) - 1, "the region's number of blocks")
        segment = reader.limited(4, 1, (1 << 32) - 1, "a segment's number of blocks")
        count = reader.limited(4, 0, _MAX_BLOCKS, "the number of listed blocks")
        blocks = struct.unpack(f">{count}I", reader.raw(4 * count)) if count else None
        if blocks is not None and max(blocks) >= region:
            raise MalformedError("A question lists a block outside its region.")
        question = Question(number, key, region, segment, blocks)
        if question.segments > _MAX_SEGMENTS:
            raise MalformedError(f"A question asks for more than {_MAX_SEGMENTS} tags.")
        return cls(space, question)


@dataclass(frozen=True)
class Chain(Message):
    """Visit blocks one after another, each named by the tag of the one before (residency)."""

    kind = 6
    space: int
    nonce: bytes
    visits: int
    block_bytes: int
    first: int
    blocks: int

    def body(self) -> bytes:
        numbers = struct.pack(">IIII", self.visits, self.block_bytes, self.first, self.blocks)
        return struct.pack(">B", self.space) + self.nonce + numbers

    @classmethod
    def read(cls, reader: Reader) -> Self:
        space, nonce = reader.number(1), reader.raw(TAG_BYTES)
        visits = reader.limited(4, 1, 1 << 24, "the number of visits")
        size = reader.limited(4, _PAGE_BYTES, MAX_DUMP_BYTES, "a block's size")
        if size % _PAGE_BYTES:
            raise MalformedError("A chain's blocks are whole pages of 4,096 bytes.")
        return cls(space, nonce, visits, size, reader.number(4), reader.limited(4, 1, 1 << 31, "blocks"))


@dataclass(frozen=True)
class Stop(Message):
    """Stop serving; what is in flight has so many seconds to end."""

    kind = 7
    seconds: int

    def body(self) -> bytes:
        return struct.pack(">I", self.seconds)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.number(4))


@dataclass(frozen=True)
class File(Message):
    """A file of the declared model follows, raw, outside any frame."""

    kind = 8
    name: str
    size: int
    sha256: bytes

    def body(self) -> bytes:
        return text_field(self.name) + struct.pack(">Q", self.size) + self.sha256

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.text(), reader.number(8), reader.raw(DIGEST_BYTES))


@dataclass(frozen=True)
class Start(Message):
    """Serve again with the files that came."""

    kind = 9


@dataclass(frozen=True)
class Declare(Message):
    """List what is in memory."""

    kind = 10


@dataclass(frozen=True)
class Release(Map):
    """Unmap a space but for so many bytes."""

    kind = 11


@dataclass(frozen=True)
class Bye(Message):
    """The conversation is over."""

    kind = 12


@dataclass(frozen=True)
class Dump(Message):
    """Read out a piece of what is declared."""

    kind = 13
    space: int
    offset: int
    size: int

    def body(self) -> bytes:
        return struct.pack(">BQI", self.space, self.offset, self.size)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        space, offset = reader.number(1), reader.number(8)
        return cls(space, offset, reader.limited(4, 1, MAX_DUMP_BYTES, "a dump's size"))


@dataclass(frozen=True)
class Welcome(Message):
    """What the agent says about its machine: the prover's word, before the wire closes."""

    kind = 129
    version: int
    machine_bytes: int
    source: str
    spaces: tuple[tuple[str, int], ...]
    unreached: tuple[tuple[str, int], ...]

    def body(self) -> bytes:
        parts = [struct.pack(">HQ", self.version, self.machine_bytes), text_field(self.source)]
        for table in (self.spaces, self.unreached):
            parts.append(struct.pack(">B", len(table)))
            parts += [text_field(name) + struct.pack(">Q", size) for name, size in table]
        return b"".join(parts)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        version, machine, source = reader.number(2), reader.number(8), reader.text()
        tables = [tuple((reader.text(), reader.number(8)) for _ in range(reader.number(1))) for _ in range(2)]
        return cls(version, machine, source, *tables)


@dataclass(frozen=True)
class Mapped(Message):
    """A region stands; whether its pages are locked."""

    kind = 130
    size: int
    locked: bool

    def body(self) -> bytes:
        return struct.pack(">QB", self.size, self.locked)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.number(8), bool(reader.limited(1, 0, 1, "locked")))


@dataclass(frozen=True)
class Done(Message):
    """The order was carried out, over so many bytes."""

    kind = 131
    size: int

    def body(self) -> bytes:
        return struct.pack(">Q", self.size)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.number(8))


@dataclass(frozen=True)
class Tags(Message):
    """The answer to a question: a tag a segment."""

    kind = 132
    round_number: int
    tags: tuple[bytes, ...]

    def body(self) -> bytes:
        return struct.pack(">II", self.round_number, len(self.tags)) + b"".join(self.tags)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        number, count = reader.number(4), reader.limited(4, 0, _MAX_SEGMENTS, "the number of tags")
        return cls(number, tuple(reader.raw(TAG_BYTES) for _ in range(count)))


@dataclass(frozen=True)
class Link(Message):
    """The answer to a chain: its last tag."""

    kind = 133
    value: bytes

    def body(self) -> bytes:
        return self.value

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.raw(TAG_BYTES))


@dataclass(frozen=True)
class Segment:
    """A declared piece of memory."""

    kind: SegmentKind
    name: str
    size: int


@dataclass(frozen=True)
class Segments(Message):
    """What the agent says is in memory."""

    kind = 134
    segments: tuple[Segment, ...]

    def body(self) -> bytes:
        parts = [struct.pack(">I", len(self.segments))]
        parts += [bytes([s.kind]) + text_field(s.name) + struct.pack(">Q", s.size) for s in self.segments]
        return b"".join(parts)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        count = reader.limited(4, 0, _MAX_SEGMENTS, "the number of segments")
        return cls(
            tuple(
                Segment(
                    SegmentKind(reader.limited(1, 1, 4, "a segment's kind")), reader.text(), reader.number(8)
                )
                for _ in range(count)
            )
        )


@dataclass(frozen=True)
class Bytes(Message):
    """A piece of memory, as asked for."""

    kind = 135
    data: bytes

    def body(self) -> bytes:
        return self.data

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True)
class Error(Message):
    """An order was refused."""

    kind = 136
    code: Code

    def body(self) -> bytes:
        return bytes([self.code])

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(Code(reader.limited(1, 1, max(Code), "an error's code")))


_REQUESTS = (Hello, Map, Stream, Fill, Ask, Chain, Stop, File, Start, Declare, Release, Bye, Dump)
_ANSWERS = (Welcome, Mapped, Done, Tags, Link, Segments, Bytes, Error)
_BY_KIND: dict[int, type[Message]] = {message.kind: message for message in (*_REQUESTS, *_ANSWERS)}
assert BLOCK_BYTES % _PAGE_BYTES == 0  # noqa: S101 - a constant of the format


def encode(message: Message) -> bytes:
    """The frame of a message."""
    body = message.body()
    return struct.pack(">IB", len(body) + 1, message.kind) + body


def decode(kind: int, body: bytes) -> Message:
    """The message in a frame. Raises MalformedError."""
    found = _BY_KIND.get(kind)
    if found is None:
        raise MalformedError(f"There is no memory message of kind {kind}.")
    reader = Reader(body)
    message = found.read(reader)
    reader.end()
    return message
