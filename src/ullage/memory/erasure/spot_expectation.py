"""The verifier's own answers about spots of noise that a seed gives.

A spot costs as much to make as the whole stratum that it lies in. So keys are drawn before the seed leaves,
and all noise is made once for all rounds, while the prover fills.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ullage.memory.machine.region import usable_cores
from ullage.memory.noise.noise import SEGMENT_STRATA, SPOT_BYTES, STRATUM_BYTES, Noise, SegmentTag
from ullage.memory.protocol.questions import Spots
from ullage.memory.protocol.spots import spot_numbers

_RUN_STRATA = 64


def expect_spots(
    new_noise: Callable[[], Noise],
    questions: Sequence[Spots],
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    go_on: Callable[[], None] = lambda: None,
) -> list[list[bytes]]:
    """The tags of each question, all of which ask about the same strata.

    `new_noise` gives the calling thread its noise. `progress` takes MiB so far and MiB of all; `go_on` is
    called between pieces of work and raises what is to end it.
    """
    strata, segments = questions[0].strata, questions[0].segments
    tags: list[list[bytes]] = [[] for _ in questions]
    with ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="expand") as pool:
        for segment in range(segments):
            first, end = segment * SEGMENT_STRATA, min((segment + 1) * SEGMENT_STRATA, strata)
            wanted = np.stack([spot_numbers(asked, range(segment, segment + 1)) for asked in questions])
            found = np.empty((len(questions), end - first, SPOT_BYTES), np.uint8)

            def work(start: int, first: int = first, wanted: Wanted = wanted, found: Found = found) -> None:
                go_on()
                run = slice(start - first, start - first + _RUN_STRATA)
                _pick(new_noise(), start, wanted[:, run], found[:, run])

            list(pool.map(work, range(first, end, _RUN_STRATA)))
            for asked, found_tags, spots in zip(questions, tags, found, strict=True):
                tag = SegmentTag(asked.key, asked.round_number, segment)
                tag.update(spots.reshape(-1).data)
                found_tags.append(tag.tag())
            progress(end * STRATUM_BYTES >> 20, strata * STRATUM_BYTES >> 20)
    return tags


Wanted = NDArray[np.intp]
Found = NDArray[np.uint8]


def _pick(noise: Noise, first: int, wanted: Wanted, found: Found) -> None:
    """Make the strata from `first` on and copy out the spots: `wanted` is `(rounds, strata)` numbers of
    blocks, `found` `(rounds, strata, SPOT_BYTES)`."""
    made = noise.read(first * STRATUM_BYTES, wanted.shape[1] * STRATUM_BYTES)
    blocks = np.frombuffer(made, np.uint8).reshape(-1, SPOT_BYTES)
    np.take(blocks, wanted - first * (STRATUM_BYTES // SPOT_BYTES), axis=0, out=found, mode="clip")
