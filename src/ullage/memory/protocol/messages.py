"""Messages between verifier and agent, to and from bytes. `docs/formats/memory-protocol.md` specifies them.

Pure: no sockets here. Whatever does not parse raises MalformedError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from ullage.errors import MalformedError
from ullage.memory.machine.segments import CacheShape, Segment, SegmentKind
from ullage.memory.noise.butterfly import MAX_LAYERS
from ullage.memory.noise.noise import BLOCK_BYTES, SEED_BYTES, TAG_BYTES
from ullage.memory.protocol.fields import (
    Behind,
    Choice,
    Flag,
    Message,
    Number,
    Numbers,
    Raw,
    Reader,
    Row,
    Table,
    Text,
)
from ullage.memory.protocol.questions import MAX_SEGMENTS, Ask, Chain, Spots

VERSION = 9
MAGIC = b"ullage-memory"
MAX_FRAME_BYTES, MAX_DUMP_BYTES = 8 << 20, 4 << 20
DIGEST_BYTES, TOKEN_BYTES = 32, 16
MAX_FREEZE_SECONDS, MAX_LANES = 60, 16
_MAX_TOKENS = 1 << 20

_SPACE, _U8, _U16, _U32, _U64 = Number(1), Number(1), Number(2), Number(4), Number(8)
_VERSION = Behind(MAGIC, _U16, "The peer does not speak the memory protocol.")


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


@dataclass(frozen=True)
class Hello(Message):
    """The verifier's first word: magic and version."""

    kind = 1
    layout = (_VERSION,)
    version: int = VERSION


@dataclass(frozen=True)
class Map(Message):
    """Have so many bytes of a space mapped; 0 for all that can be reached."""

    kind = 2
    layout = (_SPACE, _U64)
    space: int
    size: int


@dataclass(frozen=True)
class Stream(Message):
    """`size` raw bytes for [offset, offset + size) are to come over lanes, `lane_blocks` over each, the last
    maybe less. Lanes name the `token`, which binds them to this session."""

    kind = 3
    layout = (_SPACE, _U64, _U64, Number(4, "the blocks of a lane", 1), Raw(TOKEN_BYTES))
    space: int
    offset: int
    size: int
    lane_blocks: int
    token: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        found = super().read(reader)
        if not found.size or found.size % BLOCK_BYTES or found.offset % BLOCK_BYTES:
            raise MalformedError("A stream is a whole number of blocks, and at least one.")
        if found.size > MAX_LANES * found.lane_blocks * BLOCK_BYTES:
            raise MalformedError(f"A stream has at most {MAX_LANES} lanes.")
        return found

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(offset, bytes) in the space, lane by lane."""
        step, end = self.lane_blocks * BLOCK_BYTES, self.offset + self.size
        return [(at, min(step, end - at)) for at in range(self.offset, end, step)]


@dataclass(frozen=True)
class Fill(Message):
    """Write the noise of a seed, of so many layers, over the first `size` bytes."""

    kind = 4
    layout = (_SPACE, _U64, Raw(SEED_BYTES), Number(4, "the number of layers", 1, MAX_LAYERS))
    space: int
    size: int
    seed: bytes
    layers: int


@dataclass(frozen=True)
class Stop(Message):
    """Let requests in flight end within `seconds`, and empty the server."""

    kind = 7
    layout = (_U32,)
    seconds: int


@dataclass(frozen=True)
class File(Message):
    """A file of the declared model; its bytes follow outside any frame."""

    kind = 8
    layout = (Text(), _U64, Raw(DIGEST_BYTES))
    name: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class Start(Message):
    """Serve again with the files that came."""

    kind = 9


@dataclass(frozen=True)
class Declare(Message):
    """List what is in memory."""

    kind = 10


@dataclass(frozen=True)
class Release(Message):
    """Give a space back, all but its first `size` bytes."""

    kind = 11
    layout = (_SPACE, _U64)
    space: int
    size: int


@dataclass(frozen=True)
class Bye(Message):
    """The conversation is over."""

    kind = 12


@dataclass(frozen=True)
class Dump(Message):
    """Send what a space holds there."""

    kind = 13
    layout = (_SPACE, _U64, Number(4, "a dump's size", 1, MAX_DUMP_BYTES))
    space: int
    offset: int
    size: int


@dataclass(frozen=True)
class Freeze(Message):
    """Hold the server between two steps, for `seconds` at most, and declare its memory as it is then."""

    kind = 14
    layout = (Number(4, "the seconds of a pause", 1, MAX_FREEZE_SECONDS),)
    seconds: int


@dataclass(frozen=True)
class Thaw(Message):
    """Let a frozen server go on."""

    kind = 15


@dataclass(frozen=True)
class Sequences(Message):
    """Say which tokens the key-value memory of a frozen server stands for."""

    kind = 16


@dataclass(frozen=True)
class Lane(Message):
    """The first word on a connection that carries one lane of a stream; its raw bytes follow at once."""

    kind = 17
    layout = (_VERSION, Raw(TOKEN_BYTES), Number(1, "the number of a lane", 0, MAX_LANES - 1))
    version: int
    token: bytes
    number: int


@dataclass(frozen=True)
class Commit(Message):
    """Say what the key-value memory of a frozen server is, before anybody knows what will be asked of it."""

    kind = 18


@dataclass(frozen=True)
class Welcome(Message):
    """What the agent says about its machine: the prover's word, before the wire closes."""

    kind = 129
    layout = (_U16, _U64, Text(), Table(_U8, Row(Text(), _U64)), Table(_U8, Row(Text(), _U64)))
    version: int
    machine_bytes: int
    source: str
    spaces: tuple[tuple[str, int], ...]
    unreached: tuple[tuple[str, int], ...]

    @property
    def device_bytes(self) -> int:
        """Memory of the devices, which is not part of `machine_bytes`."""
        return sum(size for _, size in self.spaces[1:])


@dataclass(frozen=True)
class Mapped(Message):
    """A region stands; whether its pages are locked."""

    kind = 130
    layout = (_U64, Flag("locked"))
    size: int
    locked: bool


@dataclass(frozen=True)
class Done(Message):
    """The order was carried out, over so many bytes."""

    kind = 131
    layout = (_U64,)
    size: int


@dataclass(frozen=True)
class Tags(Message):
    """The answer to a question: a tag a segment."""

    kind = 132
    layout = (_U32, Table(Number(4, "the number of tags", 0, MAX_SEGMENTS), Raw(TAG_BYTES)))
    round_number: int
    tags: tuple[bytes, ...]


@dataclass(frozen=True)
class Link(Message):
    """The answer to a chain: its last tag."""

    kind = 133
    layout = (Raw(TAG_BYTES),)
    value: bytes


@dataclass(frozen=True)
class Segments(Message):
    """What the agent says is in memory."""

    kind = 134
    layout = (
        Table(
            Number(4, "the number of segments", 0, MAX_SEGMENTS),
            Row(Choice(SegmentKind, "a segment's kind"), Text(), _U64, make=Segment),
        ),
    )
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Error(Message):
    """An order was refused."""

    kind = 136
    layout = (Choice(Code, "an error's code"),)
    code: Code


@dataclass(frozen=True)
class Received(Message):
    """The last 16 bytes of every lane: nobody has them while a part of the lane is still under way."""

    kind = 137
    layout = (Table(Number(1, "the number of lanes", 1, MAX_LANES), Raw(TAG_BYTES)),)
    tails: tuple[bytes, ...]


@dataclass(frozen=True)
class Tokens(Message):
    """The shape of the key-value memory, and the token ids of slot 0, 1, …, each as far as it is written."""

    kind = 138
    layout = (
        Row(*[Number(4, "a number of the cache's shape", 0, 1 << 24)] * 6, make=CacheShape),
        Table(
            Number(4, "the number of sequences", 0, 1 << 16), Numbers("the tokens of a sequence", _MAX_TOKENS)
        ),
    )
    shape: CacheShape
    sequences: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Committed(Message):
    """BLAKE3 over the BLAKE3 of each segment of key-value memory."""

    kind = 139
    layout = (Raw(DIGEST_BYTES),)
    digest: bytes


_REQUESTS = (
    Hello, Map, Stream, Fill, Ask, Chain, Stop, File, Start, Declare, Release, Bye, Dump, Freeze, Thaw,
    Sequences, Lane, Commit, Spots,
)  # fmt: skip
_ANSWERS = (Welcome, Mapped, Done, Tags, Link, Segments, Error, Received, Tokens, Committed)
_BY_KIND: dict[int, type[Message]] = {message.kind: message for message in (*_REQUESTS, *_ANSWERS)}


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
