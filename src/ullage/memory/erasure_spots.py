"""An erasure that is asked for by spots: one small block of every stratum, all drawn at once.

For noise that a seed gives: a chain leaves time to rebuild what a step reads, a question about many spots at
once does not. And a disk, which follows a pass at its bandwidth, has a sector to read for each of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ullage.errors import IntegrityError
from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.chain_bound import CALM, SLACK, TIMES, fixed_times
from ullage.memory.messages import KEY_BYTES, MAX_STRATA, Spots, Tags
from ullage.memory.noise import SEGMENT_STRATA, Noise, tags_equal
from ullage.memory.region import usable_cores
from ullage.memory.rounds import ask_rounds, calm
from ullage.memory.spots import SPOT_BYTES, STRATUM_BYTES, all_spot_tags
from ullage.memory.timing import Progress, Timing, Verdict, verdict_of
from ullage.memory.wire import Connection


@dataclass(frozen=True)
class SpotsRule:
    """`strata` a round; `rounds` at most, `quorum` of them in time; `error` of the bound; `rebuild_rate` of
    the whole machine, in bytes of noise a second (0 where nothing can be rebuilt)."""

    strata: int
    rounds: int
    quorum: int
    error: float
    rebuild_rate: float

    def __post_init__(self) -> None:
        if not 1 <= self.strata <= MAX_STRATA:
            raise IntegrityError(
                "The agent mapped more memory than a question about spots can be about; ask with --by pass."
            )

    @property
    def asked_bytes(self) -> int:
        return self.strata * SPOT_BYTES


def spots_seconds(strata: int, calibration: Calibration) -> float:
    """What a round takes on the verifier's twin."""
    return strata * SPOT_BYTES / calibration.spot_rate


def spots_deadline(strata: int, calibration: Calibration, allowance: float) -> float:
    """Seconds that a round may take."""
    return SLACK * spots_seconds(strata, calibration) + allowance


def store_spot_rate(calibration: Calibration) -> float:
    """Bytes of spots a second that the fastest other store delivers: one spot for each of its reads, and one
    for each stratum that it reads in a row."""
    return (calibration.store_reads + calibration.store_rate / STRATUM_BYTES) * SPOT_BYTES


def ask_spots(
    connection: Connection,
    new_noise: Callable[[], Noise],
    space: int,
    rule: SpotsRule,
    calibration: Calibration,
    *,
    deadline: float,
    threads: int | None = None,
    progress: Progress,
) -> tuple[Timing, ...]:
    """Ask about spots until a quorum came calmly, an answer is wrong or the rounds are used up.

    Every round has a fresh key. The verifier makes the few bytes that it asked for when the clock has
    stopped, a noise of its own for each of `threads`. Raises as `ask_rounds`.
    """

    def questions() -> Iterator[tuple[Spots, Callable[[Tags], bool]]]:
        for number in range(rule.rounds):
            asked = Spots(space, number, secrets.token_bytes(KEY_BYTES), rule.strata)
            yield asked, partial(_is_right, asked, new_noise, threads or usable_cores())

    enough = calm(CALM * spots_seconds(rule.strata, calibration), rule.quorum)
    return ask_rounds(
        connection, questions(), Tags, rule.rounds, deadline=deadline, is_enough=enough, progress=progress
    )


def _is_right(asked: Spots, new_noise: Callable[[], Noise], workers: int, answer: Tags) -> bool:
    with ThreadPoolExecutor(workers, thread_name_prefix="spots") as pool:
        tags = all_spot_tags(asked, lambda: new_noise().gather, pool, workers)
    return answer.round_number == asked.round_number and tags_equal(answer.tags, tags)


def judge_spots(
    rule: SpotsRule, calibration: Calibration, timings: tuple[Timing, ...], *, deadline: float
) -> tuple[float, float, Verdict, str]:
    """(q*, missing share, verdict, reason) of the rounds; no I/O.

    The time is one that was fixed before the draw: the shortest of `fixed_times` within which a quorum came,
    each at its part of the error, as for chains.
    """
    verdict, reason = verdict_of(timings, rule.quorum)
    in_time = sorted(one.seconds for one in timings if one.correct and one.seconds <= deadline)
    if verdict == "fail" or len(in_time) < rule.quorum:
        return 1.0, 1.0, verdict, reason
    within = next(time for time in fixed_times(deadline) if in_time[rule.quorum - 1] <= time)
    recoverable = bounds.recoverable_share(
        rule.rebuild_rate, store_spot_rate(calibration), within, rule.asked_bytes
    )
    segments = -(-rule.strata // SEGMENT_STRATA)
    forged = bounds.forgery_probability(rule.rounds * segments, SEGMENT_STRATA * SPOT_BYTES)
    missing = bounds.missing_share(
        recoverable,
        rule.strata,
        rule.strata + 1,
        rule.rounds,
        rule.quorum,
        error=(rule.error - forged) / TIMES,
    )  # a sample, and never the whole
    return recoverable, missing, verdict, reason
