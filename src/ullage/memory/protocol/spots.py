"""Spots: one small block out of every stratum of a region, drawn when the question comes, and tags over them.

Memory brings a small block as fast as it finds it; a disk has to read a sector, and does a limited number of
reads a second. `docs/formats/memory-protocol.md` has the exact bytes. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ullage.memory.machine.gather import Blocks, Gather, Numbers
from ullage.memory.noise.noise import SEGMENT_STRATA, SPOT_BYTES, STRATUM_BYTES, SegmentTag

if TYPE_CHECKING:
    from ullage.memory.protocol.questions import Spots

SPOTS_OF_A_STRATUM = STRATUM_BYTES // SPOT_BYTES
_DRAW_BYTES = 2
# No tag has a round of this number in its nonce, so no keystream is used twice.
_DRAWS = b"\xff" * 8


def spot_numbers(asked: Spots, segments: range) -> Numbers:
    """Which blocks of `SPOT_BYTES` these segments ask for, one of each of their strata, in order."""
    first, end = segments.start * SEGMENT_STRATA, min(segments.stop * SEGMENT_STRATA, asked.strata)
    counter = (first * _DRAW_BYTES // 16).to_bytes(8, "big")
    stream = Cipher(algorithms.AES(asked.key), modes.CTR(_DRAWS + counter)).encryptor()
    drawn = np.frombuffer(stream.update(bytes(_DRAW_BYTES * (end - first))), "<u2")
    numbers: Numbers = np.arange(first, end) * SPOTS_OF_A_STRATUM + drawn % SPOTS_OF_A_STRATUM
    return numbers


def spot_tags(asked: Spots, segments: range, gather: Gather) -> list[bytes]:
    """The tags over the spots of each of these segments, which `gather` reads.

    By one thread, out of one buffer: fresh memory costs more than reading does. A segment at once, since
    every return to the interpreter is a wait for other threads to leave it.
    """
    numbers = spot_numbers(asked, segments)
    buffer: Blocks = np.empty((min(SEGMENT_STRATA, len(numbers)), SPOT_BYTES), np.uint8)
    found = []
    for index, segment in enumerate(segments):
        some = numbers[index * SEGMENT_STRATA : (index + 1) * SEGMENT_STRATA]
        gather(some, buffer[: len(some)])
        tag = SegmentTag(asked.key, asked.round_number, segment)
        tag.update(buffer[: len(some)].reshape(-1).data)
        found.append(tag.tag())
    return found


def all_spot_tags(
    asked: Spots, new_gather: Callable[[], Gather], pool: ThreadPoolExecutor, workers: int
) -> list[bytes]:
    """The answer: the tags of all segments, spread over so many workers, each with a gather of its own."""
    cuts = [asked.segments * worker // workers for worker in range(workers + 1)]
    begun = [
        pool.submit(lambda share: spot_tags(asked, share, new_gather()), range(first, end))
        for first, end in pairwise(cuts)
    ]
    wait(begun)  # what went wrong in one leaves none behind that still reads
    return [tag for one in begun for tag in one.result()]
