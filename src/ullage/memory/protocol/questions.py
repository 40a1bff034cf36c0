"""Messages that ask about memory: passes, spots and chains. Pure, as `messages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ullage.errors import MalformedError
from ullage.memory.noise.noise import SEGMENT_STRATA, TAG_BYTES, Question
from ullage.memory.protocol.fields import Message, Number, Raw, Reader, Row

KEY_BYTES = 32
MAX_CHAIN_BLOCKS, MAX_REGION_BLOCKS = 1 << 40, (1 << 32) - 1
MAX_CHAIN_STEPS, MAX_CHAIN_WIDTH = 1 << 20, 256
MAX_STRATA, MAX_ROUND = 1 << 25, (1 << 32) - 2
MAX_SEGMENTS = 100_000

_SPACE, _U32 = Number(1), Number(4)


@dataclass(frozen=True)
class Ask(Message):
    """A question to one space."""

    kind = 5
    layout = (
        _SPACE,
        Row(
            _U32,
            Raw(KEY_BYTES),
            Number(4, "the region's number of blocks", 1, MAX_REGION_BLOCKS),
            Number(4, "a segment's number of blocks", 1),
            make=Question,
        ),
    )
    space: int
    question: Question

    @classmethod
    def read(cls, reader: Reader) -> Self:
        found = super().read(reader)
        if found.question.segments > MAX_SEGMENTS:
            raise MalformedError(f"A question asks for more than {MAX_SEGMENTS} tags.")
        return found


@dataclass(frozen=True)
class Chain(Message):
    """Walk `steps` steps over the space's first `blocks` blocks, `width` of them a step."""

    kind = 6
    layout = (
        _SPACE,
        Raw(TAG_BYTES),
        Number(4, "the number of steps", 1, MAX_CHAIN_STEPS),
        Number(2, "the blocks of a step", 1, MAX_CHAIN_WIDTH),
        Number(8, "the number of blocks", 1, MAX_CHAIN_BLOCKS),
    )
    space: int
    nonce: bytes
    steps: int
    width: int
    blocks: int


@dataclass(frozen=True)
class Spots(Message):
    """A question about one small block of each of the first `strata` strata of a space."""

    kind = 19
    layout = (
        _SPACE,
        Number(4, "the number of a round", 0, MAX_ROUND),
        Raw(KEY_BYTES),
        Number(4, "the number of strata", 1, MAX_STRATA),
    )
    space: int
    round_number: int
    key: bytes
    strata: int

    @property
    def segments(self) -> int:
        """Tags that are asked for."""
        return -(-self.strata // SEGMENT_STRATA)
