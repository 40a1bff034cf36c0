"""Spots: one small block out of every stratum of a region, drawn when the question comes, and tags over them.

Memory brings a small block as fast as it finds it; a disk has to read a sector, and does a limited number of
reads a second. `docs/formats/memory-protocol.md` has the exact bytes. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ullage.memory.gather import Blocks, Gather, Numbers
from ullage.memory.noise import SEGMENT_STRATA, SegmentTag

if TYPE_CHECKING:
    from ullage.memory.messages import Spots

SPOT_BYTES = 512
STRATUM_BYTES = 64 * 1024
SPOTS_OF_A_STRATUM = STRATUM_BYTES // SPOT_BYTES
_DRAW_BYTES = 2
# No tag has a round of this number in its nonce, so no keystream is used twice.
_DRAWS = b"\xff" * 8


def spot_numbers(asked: Spots, segment: int) -> Numbers:
    """Which blocks of `SPOT_BYTES` a segment asks for, one of each of its strata, in order."""
    first = segment * SEGMENT_STRATA
    count = min(SEGMENT_STRATA, asked.strata - first)
    counter = (first * _DRAW_BYTES // 16).to_bytes(8, "big")
    stream = Cipher(algorithms.AES(asked.key), modes.CTR(_DRAWS + counter)).encryptor()
    drawn = np.frombuffer(stream.update(bytes(_DRAW_BYTES * count)), "<u2").astype(np.intp)
    return np.arange(first, first + count) * SPOTS_OF_A_STRATUM + drawn % SPOTS_OF_A_STRATUM


def spot_tag(asked: Spots, segment: int, gather: Gather) -> bytes:
    """The tag over the spots of one segment, one after the other, which `gather` reads."""
    numbers = spot_numbers(asked, segment)
    read: Blocks = np.empty((len(numbers), SPOT_BYTES), np.uint8)
    gather(numbers, read)
    tag = SegmentTag(asked.key, asked.round_number, segment)
    tag.update(read.reshape(-1).data)
    return tag.tag()
