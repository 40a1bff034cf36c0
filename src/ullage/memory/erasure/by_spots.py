"""An erasure that is asked for by spots: one small block of every stratum, all drawn at once.

For noise that a seed gives: a chain leaves time to rebuild what a step reads, a question about many spots at
once does not. And a disk, which follows a pass at its bandwidth, has a sector to read for each of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ullage.errors import IntegrityError
from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.erasure.fill import Found, Job, Judged, fill_from_seed, send
from ullage.memory.erasure.plan import Plan, store_spot_rate
from ullage.memory.erasure.spot_expectation import expect_spots
from ullage.memory.machine.region import usable_cores
from ullage.memory.noise.noise import (
    SEED_BYTES,
    SEGMENT_STRATA,
    SPOT_BYTES,
    STRATUM_BYTES,
    Noise,
    StreamNoise,
    tags_equal,
)
from ullage.memory.protocol.messages import Tags
from ullage.memory.protocol.questions import KEY_BYTES, MAX_STRATA, Spots
from ullage.memory.protocol.rounds import ask_rounds, calm
from ullage.memory.protocol.spots import all_spot_tags
from ullage.memory.protocol.timing import Timing, verdict_of
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.chain_bound import CALM, SLACK, TIMES, fixed_times


@dataclass(frozen=True)
class SpotsRule:
    """`strata` a round; `rounds` at most, `quorum` of them in time; `error` of the bound; `rebuild_rate` of
    the whole machine, in bytes of spots a second (0 where nothing can be rebuilt)."""

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


def by_spots(connection: Connection, plan: Plan, job: Job) -> Found:
    """Spots of noise of either kind, under a fresh key each round, until a quorum came calmly, an answer is
    wrong or the rounds are used up."""
    calibration, strata = job.calibration, job.size // STRATUM_BYTES
    rebuild = plan.rebuild_rate("spots", job.layers, calibration)
    rule = SpotsRule(strata, plan.rounds, plan.quorum, plan.error, rebuild)
    asked = [
        Spots(job.space, number, secrets.token_bytes(KEY_BYTES), strata) for number in range(plan.rounds)
    ]
    fill = _fill_cells if job.layers else _fill_stream
    fill_seconds, expand_seconds, expect = fill(connection, job, asked)
    deadline = spots_deadline(strata, calibration, plan.allowance)
    timings = ask_rounds(
        connection, ((one, _compare(one, expect)) for one in asked), Tags, plan.rounds, deadline=deadline,
        is_enough=calm(CALM * spots_seconds(strata, calibration), plan.quorum), progress=job.progress,
    )  # fmt: skip
    judged = judge_spots(rule, calibration, timings, deadline=deadline)
    return Found(fill_seconds, expand_seconds, deadline, judged, timings)


_Expect = Callable[[Spots], list[bytes]]


def _fill_cells(connection: Connection, job: Job, asked: Sequence[Spots]) -> tuple[float, float, _Expect]:
    """The seed goes out, and the tags of all rounds are made while the prover fills."""

    def expect(new_noise: Callable[[], Noise], go_on: Callable[[], None]) -> list[list[bytes]]:
        return expect_spots(new_noise, asked, job.threads, job.filled, go_on)

    filled = fill_from_seed(connection, job, expect)
    return filled.seconds, filled.expand_seconds, lambda one: filled.expected[one.round_number]


def _fill_stream(connection: Connection, job: Job, _: Sequence[Spots]) -> tuple[float, float, _Expect]:
    """The noise goes out. Of this a spot costs no more than its own bytes: they are made when the clock has
    stopped."""
    noise, workers = StreamNoise(secrets.token_bytes(SEED_BYTES)), job.threads or usable_cores()
    seconds, _tags = send(connection, job, noise, [])

    def expect(asked: Spots) -> list[bytes]:
        with ThreadPoolExecutor(workers, thread_name_prefix="spots") as pool:
            return all_spot_tags(asked, lambda: noise.gather, pool, workers)

    return seconds, seconds, expect


def _compare(asked: Spots, expect: _Expect) -> Callable[[Tags], bool]:
    return lambda answer: answer.round_number == asked.round_number and tags_equal(answer.tags, expect(asked))


def judge_spots(
    rule: SpotsRule, calibration: Calibration, timings: tuple[Timing, ...], *, deadline: float
) -> Judged:
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
