"""The journal's files one at a time: an index that jumps, a segment that is missing, sizes that cannot be."""

from __future__ import annotations

import io
from binascii import crc32
from pathlib import Path

import pytest

from tests.log.samples import header
from ullage.errors import IntegrityError, MalformedError
from ullage.log.journal import segments
from ullage.log.journal.segments import (
    End,
    Prepared,
    SegmentHead,
    SegmentReader,
    encode_batch,
    read_frames,
    segment_path,
)

HEAD = SegmentHead.first(header(), "sha256:" + "0" * 64)


def batch(first: int, count: int, payload: bytes = b"") -> bytes:
    return encode_batch(first, [Prepared(b"entry %d" % n, b"", payload) for n in range(first, first + count)])


def read(data: bytes) -> tuple[list[int], End | None]:
    reader = SegmentReader(io.BytesIO(HEAD.to_bytes() + data))
    return [frame.index for frame in reader], reader.end


def test_frames_follow_one_another_without_a_gap() -> None:
    assert read(batch(0, 3)) == ([0, 1, 2], End.CLEAN)
    assert read(batch(0, 2) + bytes(100)) == ([0, 1], End.CLEAN)
    assert read(batch(0, 2) + batch(3, 1)) == ([0, 1], End.BROKEN)  # one was cut out
    assert read(batch(0, 2) + batch(1, 1)) == ([0, 1], End.BROKEN)  # one stands twice
    assert read(batch(1, 2)) == ([], End.BROKEN)


@pytest.mark.parametrize("present", [1, 2])
def test_a_segment_that_ends_before_the_next_begins_is_damage(tmp_path: Path, present: int) -> None:
    for first, count in ((0, present), (3, 2)):
        head = HEAD.model_copy(update={"first_index": first})
        segment_path(tmp_path, first).write_bytes(head.to_bytes() + batch(first, count))
    with pytest.raises(IntegrityError, match=f"entries {present} to 2 cannot be read"):
        list(read_frames(tmp_path))
    segment_path(tmp_path, 0).write_bytes(HEAD.to_bytes() + batch(0, 3))
    assert [frame.index for frame in read_frames(tmp_path)] == [0, 1, 2, 3, 4]
    assert [frame.index for frame in read_frames(tmp_path, 3)] == [3, 4]


def test_a_payload_longer_than_any_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_PAYLOAD_BYTES", 10)
    assert read(batch(0, 2, b"x" * 10)) == ([0, 1], End.CLEAN)
    assert read(batch(0, 2, b"x" * 11)) == ([], End.BROKEN)


def test_a_head_longer_than_any_is_not_read() -> None:
    class Watched(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            Watched.largest = max(Watched.largest, size or 0)
            return super().read(size)

    length = (1 << 30).to_bytes(4, "big")
    prefix = segments._HEAD_MAGIC + crc32(length).to_bytes(4, "big") + length
    with pytest.raises(MalformedError):
        SegmentReader(Watched(prefix + bytes(100)))
    assert Watched.largest < 1 << 20
