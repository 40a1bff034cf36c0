"""An erasure that is asked for by latency-bound chains: scattered small reads instead of a pass over all.

In a pass a prover may fetch what is missing at a disk's bandwidth, and a disk is not much slower than memory
at that. At small scattered reads it is a hundred times slower.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterator
from functools import partial

from ullage.errors import IntegrityError
from ullage.memory.calibration import Calibration
from ullage.memory.erasure.fill import Found, Job, Judged, send
from ullage.memory.erasure.plan import Plan
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES
from ullage.memory.noise.noise import SEED_BYTES, TAG_BYTES, StreamNoise
from ullage.memory.protocol.chain import WIDTH, walk
from ullage.memory.protocol.messages import Link
from ullage.memory.protocol.questions import MAX_CHAIN_BLOCKS, Chain
from ullage.memory.protocol.rounds import ask_rounds, calm
from ullage.memory.protocol.timing import Progress, Timing, verdict_of
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.chain_bound import CALM, SLACK, ChainRule, chain_bound, chain_seconds


def by_chain(connection: Connection, plan: Plan, job: Job) -> Found:
    """Chains over noise that is sent, which needs no tags on its way."""
    calibration, noise = job.calibration, StreamNoise(secrets.token_bytes(SEED_BYTES))
    fill_seconds = send(connection, job, noise, [])[0]
    rule = ChainRule(plan.steps, plan.rounds, plan.quorum, plan.error)
    deadline = chain_deadline(rule, calibration, plan.allowance)
    timings = ask_chains(
        connection, noise, (job.space, job.size), rule, calibration, deadline=deadline, progress=job.progress
    )
    judged = judge_chain_rounds(rule, calibration, job.size, timings, deadline=deadline)
    return Found(fill_seconds, fill_seconds, deadline, judged, timings)


def chain_deadline(rule: ChainRule, calibration: Calibration, allowance: float) -> float:
    """Seconds that a chain may take."""
    return SLACK * chain_seconds(rule.steps, calibration) + allowance


def ask_chains(
    connection: Connection,
    noise: StreamNoise,
    region: tuple[int, int],
    rule: ChainRule,
    calibration: Calibration,
    *,
    deadline: float,
    progress: Progress,
) -> tuple[Timing, ...]:
    """Ask chains over a region, (space, bytes), until a quorum came calmly, an answer is wrong or the rounds
    are used up. Raises as `ask_rounds`, and IntegrityError for what cannot be asked."""
    space, size = region
    blocks = size // CHAIN_BLOCK_BYTES
    if blocks > MAX_CHAIN_BLOCKS:
        raise IntegrityError("The agent mapped more memory than a chain can run over.")

    def questions() -> Iterator[tuple[Chain, Callable[[Link], bool]]]:
        for _ in range(rule.rounds):
            asked = Chain(space, secrets.token_bytes(TAG_BYTES), rule.steps, WIDTH, blocks)
            yield asked, partial(_is_right, asked, noise)

    enough = calm(CALM * chain_seconds(rule.steps, calibration), rule.quorum)
    return ask_rounds(
        connection, questions(), Link, rule.rounds, deadline=deadline, is_enough=enough, progress=progress
    )


def _is_right(asked: Chain, noise: StreamNoise, answer: Link) -> bool:
    return hmac.compare_digest(answer.value, walk(asked, noise.gather))


def judge_chain_rounds(
    rule: ChainRule, calibration: Calibration, size: int, timings: tuple[Timing, ...], *, deadline: float
) -> Judged:
    """(share of steps that can have gone elsewhere, missing share, verdict, reason); no I/O.

    The bound is about one of the chains that kept to its time, nobody knows which; while the slowest of them
    ran a prover can have read ahead most.
    """
    verdict, reason = verdict_of(timings, rule.quorum)
    right = [timing.seconds for timing in timings if timing.correct]
    bound = chain_bound(rule, calibration, right, deadline) if verdict != "fail" else None
    if bound is None:
        return 1.0, 1.0, verdict, reason
    slowest = max(one for one in right if one <= bound.within)
    return bound.gone, bound.missing_bytes(calibration, size, slowest) / size, verdict, reason
