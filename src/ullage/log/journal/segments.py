"""Segments of the journal: how entries and sealed parts lie on disk. Specified in `docs/formats/sealed.md`.

This file reads and spells; `journal.py` appends.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple
from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.record import Digest, HeaderPart, Natural, first_problem
from ullage.log.sealed.sealing import FORGOTTEN, MAX_PAYLOAD_BYTES, WRAPPED_KEY_BYTES
from ullage.plain_files import open_plain_file

SEALED_FOLDER = "sealed"
CLIENT_BYTES = "client-bytes"  # beside the journal: what a tap's clients had today, no part of the log
SEGMENT_BYTES = 64 << 20
FRAME_MAGIC = b"\xabULF"
_HEAD_MAGIC = b"ULLAGES1"
_HEAD = struct.Struct(">8sII")
_MAX_HEAD_BYTES = 16 << 10
_CHECKS = struct.Struct(">4sII")
_SIZES = struct.Struct(">QIHBI")
_PREFIX = struct.Struct(_CHECKS.format + _SIZES.format[1:])
FRAME_BYTES = _CHECKS.size + _SIZES.size
_NAME = re.compile(r"([0-9]{20})\.segment", re.ASCII)
_BUFFER = 1 << 20


class Prepared(NamedTuple):
    """One entry ready for the journal; the wrapped key is there for an open, the payload for every part."""

    entry: bytes
    wrapped_key: bytes = b""
    payload: bytes = b""


@dataclass(slots=True)  # not frozen: recovery makes one for every entry, and frozen ones take thrice as long
class Frame:
    """One entry as the journal has it. `offset` is where its frame begins in the segment.

    `sealed` is the wrapped key, of `key_length` bytes, and after it the payload.
    """

    index: int
    place: int
    entry: bytes
    key_length: int
    sealed: bytes
    seal_check: int
    offset: int

    @property
    def wrapped_key(self) -> bytes:
        return self.sealed[: self.key_length]

    @property
    def payload(self) -> bytes:
        return self.sealed[self.key_length :]

    @property
    def end(self) -> int:
        return self.offset + FRAME_BYTES + len(self.entry) + len(self.sealed)

    @property
    def key_offset(self) -> int:
        """Where the wrapped key, and after it the payload, lies in the segment."""
        return self.offset + FRAME_BYTES + len(self.entry)

    @property
    def forgotten(self) -> bool:
        return self.wrapped_key == FORGOTTEN

    def seal_is_whole(self) -> bool:
        """Whether wrapped key and payload are as they were written; false once they are forgotten."""
        return crc32(self.sealed) == self.seal_check


class SegmentHead(BaseModel):
    """The state of the log before a segment's first entry."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    aborted: Natural
    closed: Natural
    first_index: Natural
    header: HeaderPart
    in_flight: Annotated[int, Field(ge=0)]
    key: Annotated[str, Field(max_length=400)] | None
    next_counter: Natural
    resume_from: Natural
    seal_commitment: Digest
    version: Literal[1] = 1

    @classmethod
    def first(cls, header: HeaderPart, seal_commitment: str) -> SegmentHead:
        """The head of a log's first segment."""
        return cls(
            aborted=0,
            closed=0,
            first_index=0,
            header=header,
            in_flight=0,
            key=None,
            next_counter=0,
            resume_from=0,
            seal_commitment=seal_commitment,
        )

    def to_bytes(self) -> bytes:
        data = self.model_dump_json().encode()
        rest = len(data).to_bytes(4, "big") + data
        return _HEAD_MAGIC + crc32(rest).to_bytes(4, "big") + rest


def encode_batch(first_index: int, batch: Sequence[Prepared]) -> bytes:
    """The frames of entries that go to the disk in one write."""
    parts: list[bytes] = []
    for place, (entry, wrapped_key, payload) in enumerate(batch):
        sizes = _SIZES.pack(first_index + place, place, len(entry), len(wrapped_key), len(payload))
        seal_check = crc32(payload, crc32(wrapped_key))
        parts += (
            _CHECKS.pack(FRAME_MAGIC, crc32(entry, crc32(sizes)), seal_check),
            sizes,
            entry,
            wrapped_key,
            payload,
        )
    return b"".join(parts)


def replace_head(segment: bytearray, head: SegmentHead) -> None:
    """Put another head of the same length over that of a segment. Raises ValueError if it is longer."""
    data, old = head.to_bytes(), _HEAD.unpack_from(segment)
    if len(data) != _HEAD.size + old[2]:
        raise ValueError("the head has another length, so it does not fit")
    segment[: len(data)] = data


def segment_path(folder: Path, first_index: int) -> Path:
    """Where the segment that begins with that entry lies in the folder `sealed`."""
    return folder / f"{first_index:020d}.segment"


def list_segments(folder: Path) -> list[int]:
    """First indices of the segments in the folder `sealed`, ascending. Raises UsageError."""
    try:
        names = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}.") from error
    return sorted(int(name[1]) for name in names if name)


class End(StrEnum):
    """How the frames of a segment end."""

    CLEAN = "clean"  # at the end of the file, or in zeros that were allotted in advance
    BROKEN = "broken"  # in something that is not a whole frame


class SegmentReader:
    """Reads a segment's head, then its frames in order; `end` and `end_offset` say where they stopped.

    A frame is yielded when its entry is whole and has the next index. Whether its seal is whole is asked of
    the frame.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Raises MalformedError when the segment has no sound head."""
        self._file = file
        self.head = _read_head(file)
        self.end: End | None = None
        self.end_offset = file.tell()
        self.next_index = self.head.first_index

    def __iter__(self) -> Iterator[Frame]:
        read = self._file.read
        while True:
            prefix = read(FRAME_BYTES)
            if len(prefix) < FRAME_BYTES or prefix[:4] != FRAME_MAGIC:
                self.end = End.CLEAN if self._only_zeros(prefix) else End.BROKEN
                return
            frame = _frame(prefix, self.end_offset, read)
            if frame is None or frame.index != self.next_index:
                self.end = End.BROKEN
                return
            self.next_index += 1
            self.end_offset = frame.end
            yield frame

    def appended(self) -> Iterator[Frame]:
        """The frames that a writer has added since the last call: to follow a journal while it grows.

        The file must not be buffered. Batches are written front to back, so a frame whose seal is not whole
        may still be on its way, and waits until another follows it.
        """
        while True:
            self._file.seek(self.end_offset)
            frame = self._next_whole(self.end_offset, self.next_index)
            if frame is None:
                return
            if not frame.seal_is_whole() and self._next_whole(frame.end, frame.index + 1) is None:
                return
            self.next_index += 1
            self.end_offset = frame.end
            yield frame

    def _next_whole(self, offset: int, index: int) -> Frame | None:
        prefix = self._file.read(FRAME_BYTES)
        if len(prefix) < FRAME_BYTES or prefix[:4] != FRAME_MAGIC:
            return None
        frame = _frame(prefix, offset, self._file.read)
        return frame if frame is not None and frame.index == index else None

    def _only_zeros(self, block: bytes) -> bool:
        while block:
            if block.strip(b"\0"):
                return False
            block = self._file.read(_BUFFER)
        return True


def open_segment(folder: Path, first_index: int) -> BinaryIO:
    """A segment for reading in order. Raises UsageError, MalformedError for a pipe or a device."""
    path = segment_path(folder, first_index)
    try:
        return open_plain_file(path, _BUFFER)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def read_frames(folder: Path, start: int = 0) -> Iterator[Frame]:
    """The frames of the journal, from that of entry `start` on, in order, as far as they are whole.

    Raises UsageError without a journal, IntegrityError where one ends before the next begins.
    """
    firsts = list_segments(folder)
    for first, following in pairwise([*firsts, None]):
        if first is None or (following is not None and following <= start):
            continue
        with open_segment(folder, first) as file:
            reader = SegmentReader(file)
            if reader.head.first_index != first:
                raise IntegrityError(f"{segment_path(folder, first)} has the head of another segment.")
            for frame in reader:
                if frame.index >= start:
                    yield frame
        if following is not None and reader.next_index != following:
            raise IntegrityError(
                f"{segment_path(folder, first)} is damaged at byte {reader.end_offset}: "
                f"entries {reader.next_index} to {following - 1} cannot be read from it."
            )


def written_later(file: BinaryIO, offset: int, index: int) -> bool:
    """Whether a whole frame after `offset` proves that entry `index` was synced before it was written."""
    file.seek(offset)
    rest = file.read()
    at = rest.find(FRAME_MAGIC, 1)
    while at >= 0:
        frame = _frame_in(rest, at)
        if frame is not None and frame.index - frame.place > index:
            return True
        at = rest.find(FRAME_MAGIC, at + 1)
    return False


def _frame_in(data: bytes, at: int) -> Frame | None:
    place = at + FRAME_BYTES

    def read(length: int) -> bytes:
        nonlocal place
        place += length
        return data[place - length : place]

    prefix = data[at : at + FRAME_BYTES]
    return _frame(prefix, at, read) if len(prefix) == FRAME_BYTES else None


def _frame(prefix: bytes, offset: int, read: Callable[[int], bytes]) -> Frame | None:
    """The frame with that prefix, its rest read by `read`; None when its entry is not whole."""
    _, entry_check, seal_check, index, place, entry_length, *lengths = _PREFIX.unpack(prefix)
    key_length, payload_length = lengths
    if (key_length and key_length != WRAPPED_KEY_BYTES) or payload_length > MAX_PAYLOAD_BYTES:
        return None
    # In two reads of which one is short: most of a frame is payload, and is not copied a second time.
    entry = read(entry_length)
    if not entry or crc32(entry, crc32(prefix[_CHECKS.size :])) != entry_check:
        return None
    sealed = read(key_length + payload_length)
    if len(sealed) != key_length + payload_length:
        return None
    return Frame(index, place, entry, key_length, sealed, seal_check, offset)


def _read_head(file: BinaryIO) -> SegmentHead:
    prefix = file.read(_HEAD.size)
    if len(prefix) == _HEAD.size:
        magic, check, length = _HEAD.unpack(prefix)
        data = file.read(length) if length <= _MAX_HEAD_BYTES else b""
        if magic == _HEAD_MAGIC and crc32(data, crc32(length.to_bytes(4, "big"))) == check:
            try:
                head = SegmentHead.model_validate_json(data)
            except ValidationError as error:
                raise MalformedError(f"A segment's head is malformed: {first_problem(error)}.") from error
            if head.to_bytes()[_HEAD.size :] == data:
                return head
    raise MalformedError(f"{getattr(file, 'name', 'A file')} is not a segment of a journal, or is damaged.")
