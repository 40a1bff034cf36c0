"""What each declared segment has to hold, and how much room that takes at least: the verifier's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ullage.errors import IntegrityError
from ullage.memory.machine.segments import Segment, SegmentKind
from ullage.memory.noise.noise import StreamNoise
from ullage.memory.residency.cache_check import Recompute
from ullage.memory.residency.density import incompressible_bytes
from ullage.model.identity import ModelIdentity

_PAGE_BYTES = 4096


class Source(Protocol):
    """What the verifier expects at an offset of a segment."""

    def read(self, offset: int, size: int) -> memoryview: ...


class BufferSource:
    """Bytes at hand, zeros after their end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> memoryview:
        found = self._data[offset : offset + size]
        return found if len(found) == size else memoryview(bytes(found) + bytes(size - len(found)))


@dataclass(frozen=True)
class Content:
    """What weights and ballast hold, by name of segment: the source, its size on whole pages, and the bytes
    that no known code could hold in less room."""

    source: Source
    size: int
    counted: int


class DeclaredState:
    """A model's weights and `ballast` bytes of noise, each of which a machine may declare once.

    `recompute` is the reference's way from tokens to keys and values; without it key-value memory is read
    and challenged, and not counted.
    """

    def __init__(self, folder: Path, model: ModelIdentity, recompute: Recompute | None = None) -> None:
        self.recompute = recompute
        self._weights: dict[str, Content] = {}
        seen: set[bytes] = set()  # of all files: one copy of a page serves each of them
        for file in model.files:
            if file.name.endswith(".safetensors"):
                data = memoryview((folder / file.name).read_bytes())
                size = -(-len(data) // _PAGE_BYTES) * _PAGE_BYTES
                self._weights[file.name] = Content(BufferSource(data), size, incompressible_bytes(data, seen))
        self.noise: StreamNoise | None = None
        self.ballast = 0

    def contents(self, segments: Sequence[Segment]) -> list[Content | None]:
        """One entry a segment; None for key-value memory, whose content depends on the moment.

        Raises IntegrityError for weights that the declared model does not have, for one that is declared
        twice or larger than it is (zeros behind it would need no memory), and for content nobody can say.
        """
        free = dict(self._weights)
        if self.noise is not None:
            free["ballast"] = Content(self.noise, self.ballast, self.ballast)
        found: list[Content | None] = []
        for segment in segments:
            if segment.kind is SegmentKind.KV_CACHE:
                found.append(None)
                continue
            kind = SegmentKind.BALLAST if segment.name == "ballast" else SegmentKind.WEIGHTS
            content = free.pop(segment.name, None)
            if content is None or segment.kind is not kind or segment.size != content.size:
                raise IntegrityError(
                    f"The agent declares '{segment.name}' of {segment.size} bytes, which is no part of what "
                    "it should hold, or was declared before."
                )
            found.append(content)
        return found
