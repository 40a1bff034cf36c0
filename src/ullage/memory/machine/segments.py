"""What a server declares of its memory: pieces by kind, and the shape of a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ullage.errors import IntegrityError


class SegmentKind(IntEnum):
    """What a declared piece of memory holds."""

    WEIGHTS = 1
    KV_CACHE = 2
    BALLAST = 3
    OTHER = 4


@dataclass(frozen=True)
class Segment:
    """A declared piece of memory."""

    kind: SegmentKind
    name: str
    size: int


def readable(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments that can be read and challenged: all but those of kind OTHER, which come last.

    Raises IntegrityError when one of these stands before another kind.
    """
    found = tuple(segment for segment in segments if segment.kind is not SegmentKind.OTHER)
    if found != tuple(segments[: len(found)]):
        raise IntegrityError("The agent declares memory that cannot be read before memory that can.")
    return found


@dataclass(frozen=True)
class CacheShape:
    """What a segment of key-value memory holds: `(slots, heads, capacity, width)` elements of `item_bytes`
    each; as many such segments for keys, then values, of each of `layers` layers. All 0 without a cache."""

    layers: int
    slots: int
    heads: int
    capacity: int
    width: int
    item_bytes: int

    @property
    def segment_bytes(self) -> int:
        return self.slots * self.heads * self.capacity * self.width * self.item_bytes


NO_CACHE = CacheShape(0, 0, 0, 0, 0, 0)
