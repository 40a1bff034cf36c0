"""The messages of `docs/formats/work-protocol.md`: bytes to values and back, every size limited. No I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from ullage.errors import MalformedError, UsageError
from ullage.merkle import HASH_BYTES
from ullage.work.operands import SEED_BYTES
from ullage.work.shape import Shape

VERSION = 3
MAGIC = b"ullage-work"
MAX_FROM_VERIFIER = 65_536
MAX_FROM_PROVER = 2_048
MAX_TILE_BYTES = 4 << 20
MAX_TILE = MAX_TILE_BYTES + 64
MAX_DEPTH = 8
MAX_PATH = 14
SESSION_BYTES = 16
LENGTH = struct.Struct(">I")

_HELLO = struct.Struct(f">{len(MAGIC)}sBBIIIB{SESSION_BYTES}s")
_JOB = struct.Struct(f">Q{SEED_BYTES}s")
_ROOT = struct.Struct(f">Q{HASH_BYTES}s")
_OPEN = struct.Struct(">QI")
_PROOF = struct.Struct(">QIB")
_TILE = struct.Struct(">QI")
_NUMBER = struct.Struct(">Q")


class Kind(IntEnum):
    """The type byte of a frame."""

    HELLO = 0x01
    JOB = 0x02
    OPEN = 0x03
    SEND = 0x04
    FORGET = 0x05
    READY = 0x81
    ROOT = 0x82
    PROOF = 0x83
    TILE = 0x84
    REFUSE = 0x85


class Mode(IntEnum):
    """What travels: roots and paths, or the products themselves."""

    OPENINGS = 0
    FULL = 1


@dataclass(frozen=True)
class Hello:
    """The terms of a session, which the verifier sets."""

    mode: Mode
    shape: Shape
    depth: int
    session: bytes


@dataclass(frozen=True)
class Job:
    """One unit to compute."""

    number: int
    seed: bytes


@dataclass(frozen=True)
class Root:
    """The commitment to one product."""

    number: int
    root: bytes


@dataclass(frozen=True)
class Open:
    """A row that the verifier asks about."""

    number: int
    row: int


@dataclass(frozen=True)
class Proof:
    """The path of one row."""

    number: int
    row: int
    path: tuple[bytes, ...]


@dataclass(frozen=True)
class Send:
    """C of this job is wanted."""

    number: int


@dataclass(frozen=True)
class Tile:
    """Some rows of C, int32 little-endian."""

    number: int
    first_row: int
    data: bytes


@dataclass(frozen=True)
class Forget:
    """Nothing will be asked about this job or an earlier one."""

    number: int


@dataclass(frozen=True)
class Ready:
    """The prover accepts the terms."""


@dataclass(frozen=True)
class Refuse:
    """The prover does not."""

    code: int


Message = Hello | Job | Open | Send | Forget | Ready | Root | Proof | Tile | Refuse


def encode(message: Message) -> bytes:  # noqa: PLR0911 - one line a message
    """The frame of a message, its length included."""
    match message:
        case Hello(mode, shape, depth, session):
            sizes = (shape.rows, shape.inner, shape.columns)
            return _frame(Kind.HELLO, _HELLO.pack(MAGIC, VERSION, mode, *sizes, depth, session))
        case Job(number, seed):
            return _frame(Kind.JOB, _JOB.pack(number, seed))
        case Open(number, row):
            return _frame(Kind.OPEN, _OPEN.pack(number, row))
        case Send(number):
            return _frame(Kind.SEND, _NUMBER.pack(number))
        case Forget(number):
            return _frame(Kind.FORGET, _NUMBER.pack(number))
        case Ready():
            return _frame(Kind.READY, bytes([VERSION]))
        case Root(number, root):
            return _frame(Kind.ROOT, _ROOT.pack(number, root))
        case Proof(number, row, path):
            return _frame(Kind.PROOF, _PROOF.pack(number, row, len(path)) + b"".join(path))
        case Tile(number, first_row, data):
            return _frame(Kind.TILE, _TILE.pack(number, first_row) + data)
        case Refuse(code):
            return _frame(Kind.REFUSE, bytes([code]))


def decode(frame: bytes) -> Message:
    """The message in a frame without its length. Raises MalformedError."""
    if not frame:
        raise MalformedError("A frame of the work protocol is empty.")
    body = frame[1:]
    try:
        return _decode(Kind(frame[0]), body)
    except (struct.error, ValueError) as error:
        raise MalformedError(
            f"A frame of type {frame[0]:#04x} with {len(body)} bytes is misshapen."
        ) from error
    except UsageError as error:
        raise MalformedError(f"The terms of a session are out of range: {error}") from error


def _decode(kind: Kind, body: bytes) -> Message:  # noqa: PLR0911 - one line a message
    match kind:
        case Kind.HELLO:
            return _hello(body)
        case Kind.JOB:
            return Job(*_JOB.unpack(body))
        case Kind.OPEN:
            return Open(*_OPEN.unpack(body))
        case Kind.SEND:
            return Send(*_NUMBER.unpack(body))
        case Kind.FORGET:
            return Forget(*_NUMBER.unpack(body))
        case Kind.ROOT:
            return Root(*_ROOT.unpack(body))
        case Kind.PROOF:
            return _proof(body)
        case Kind.TILE:
            number, first_row = _TILE.unpack_from(body)
            return Tile(number, first_row, body[_TILE.size :])
        case Kind.READY:
            if body != bytes([VERSION]):
                raise ValueError("another version")
            return Ready()
        case Kind.REFUSE:
            (code,) = struct.unpack("B", body)
            return Refuse(code)


def _hello(body: bytes) -> Hello:
    magic, version, mode, rows, inner, columns, depth, session = _HELLO.unpack(body)
    if magic != MAGIC or version != VERSION or not 1 <= depth <= MAX_DEPTH:
        raise ValueError("not a session of this version")
    return Hello(Mode(mode), Shape(rows, inner, columns), depth, session)


def _proof(body: bytes) -> Proof:
    number, row, count = _PROOF.unpack_from(body)
    hashes = body[_PROOF.size :]
    if count > MAX_PATH or len(hashes) != count * HASH_BYTES:
        raise ValueError("a path of another length")
    steps = range(0, len(hashes), HASH_BYTES)
    return Proof(number, row, tuple(hashes[step : step + HASH_BYTES] for step in steps))


def _frame(kind: Kind, body: bytes) -> bytes:
    return LENGTH.pack(1 + len(body)) + bytes([kind]) + body
