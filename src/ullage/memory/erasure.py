"""The verifier's side of an erasure: noise in, questions against the clock, and what the answers prove."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from ullage.errors import IntegrityError, UllageError, UsageError
from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.chain import WIDTH
from ullage.memory.chain_bound import ChainRule
from ullage.memory.erasure_chain import ask_chains, chain_deadline, judge_chain_rounds
from ullage.memory.expectation import SEGMENT_BLOCKS, Expectation, draw_questions
from ullage.memory.keeper import EVERYTHING
from ullage.memory.messages import (
    MAX_CHAIN_STEPS,
    MAX_REGION_BLOCKS,
    VERSION,
    Ask,
    Done,
    Fill,
    Hello,
    Map,
    Mapped,
    Tags,
    Welcome,
)  # fmt: skip
from ullage.memory.noise import (
    BLOCK_BYTES,
    SEED_BYTES,
    CellNoise,
    Question,
    StreamNoise,
    tags_equal,
)
from ullage.memory.stream import send_noise
from ullage.memory.timing import PATIENCE, Progress, Timing, Verdict, verdict_of
from ullage.memory.wire import Connection, LateError

Mode = Literal["stream", "rate-gap"]
By = Literal["pass", "chain"]
"""How it is asked for: by a pass over all blocks or a sample of them, against the rate of other stores, or by
chains of scattered small reads, against their latency."""
MODES: tuple[Mode, ...] = ("stream", "rate-gap")
WAYS: tuple[By, ...] = ("pass", "chain")

_MAP_SECONDS = 300.0
# How many rounds' tags are made at a time when those that went with the stream were late.
_LATER_ROUNDS = 2
_SLOWEST_FILL = 20.0


@dataclass(frozen=True)
class Plan:
    """How an erasure is asked for. `sample` blocks a round, 0 for all; `by` None takes what proves more."""

    mode: Mode
    size: int = 0
    """Bytes to erase of the space; 0 for all that the agent reaches."""
    space: int = 0
    """0 is main memory, 1 … are devices, `keeper.EVERYTHING` is all of them at once."""
    rounds: int = 20
    quorum: int = 1
    sample: int = 0
    slack: float = 1.2
    advantage: float = 1.25
    """How much faster than the calibration the prover's best kernel may be."""
    rebuild_target: float = 0.03
    """kappa is chosen so that at most this share can be rebuilt in time."""
    kappa: int | None = None
    error: float = 1e-6
    allowance: float = 0.002
    """Seconds for a round trip; part of the deadline, hence of what the prover may use."""
    by: By | None = None
    steps: int = 2048
    """Of a chain."""

    def __post_init__(self) -> None:
        if not 1 <= self.quorum <= self.rounds <= 1000 or self.slack < 1 or self.advantage < 1:
            raise UsageError("A plan has 1 to R rounds in its quorum, and slack and advantage of at least 1.")
        if not 0 < self.error < 1 or self.sample < 0 or self.allowance < 0:
            raise UsageError("An error probability lies in (0, 1); sizes and times are not negative.")
        if self.by == "chain" and (self.mode != "stream" or self.sample):
            raise UsageError(
                "Chains are for mode 'stream' without a sample: a block that a seed gives is rebuilt sooner "
                "than a disk delivers one."
            )
        if not 1 <= self.steps <= MAX_CHAIN_STEPS:
            raise UsageError(f"A chain has 1 to {MAX_CHAIN_STEPS} steps.")

    def asks_by(self, calibration: Calibration) -> By:
        """`by`, or what proves more on such a machine."""
        if self.by or self.mode != "stream" or self.sample or self.space:
            return self.by or "pass"
        steps = bounds.missing_steps(calibration.step_seconds, 1, calibration.alternative_seconds)
        scattered = bounds.missing_blocks(steps, WIDTH)
        in_bulk = min(1.0, calibration.store_rate / calibration.read_rate)
        return "chain" if scattered < in_bulk else "pass"


@dataclass(frozen=True)
class Erasure:
    """What happened, and what it proves. `missing` is a share of `region_bytes`; `recoverable` is one of the
    bytes asked for, or of the steps where chains asked."""

    plan: Plan
    by: By
    kappa: int
    welcome: Welcome
    region_bytes: int
    locked: bool
    map_seconds: float
    """Until the region stood: first touch where it did not stand before."""
    fill_seconds: float
    expand_seconds: float
    deadline: float
    recoverable: float
    missing: float
    verdict: Verdict
    reason: str
    timings: tuple[Timing, ...] = field(default=())

    @property
    def proven_bytes(self) -> float:
        return self.region_bytes * (1 - self.missing)

    @property
    def fill_rate(self) -> float:
        return self.region_bytes / self.fill_seconds


def greet(connection: Connection, timeout: float = 10.0) -> Welcome:
    """Begin a session. Raises as `Connection.ask`."""
    welcome = connection.ask(Hello(), Welcome, timeout)
    if welcome.version != VERSION:
        raise IntegrityError(f"The agent speaks version {welcome.version}; this verifier speaks {VERSION}.")
    return welcome


def erase(
    connection: Connection,
    welcome: Welcome,
    plan: Plan,
    calibration: Calibration,
    *,
    machine: int | None = None,
    close_wire: Callable[[], None] = lambda: None,
    threads: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Erasure:
    """Run one erasure on a greeted connection. `machine` is the machine's memory in bytes as declared or
    inspected, None for the agent's word; `close_wire` is called before the seed leaves.

    Raises AgentRefusedError, LateError, MalformedError or FaultError when the agent breaks the protocol; a
    wrong or late answer is a verdict, not an exception.
    """
    mapped = _map(connection, welcome, plan, machine, progress)
    size, blocks = mapped.size, mapped.size // BLOCK_BYTES
    job = _Job(plan.space, size, calibration, threads, progress)
    if plan.asks_by(calibration) == "chain":
        close_wire()
        return _by_chain(connection, welcome, plan, job, mapped)
    questions = draw_questions(blocks, plan.rounds, plan.sample)  # before the seed is sent
    kappa = plan.kappa or bounds.iterations_for(
        calibration.rebuild_rate * plan.advantage,
        calibration.read_rate,
        plan.slack if 0 < plan.sample < blocks else 1.0,  # in a full pass the measured time counts
        plan.rebuild_target,
    )
    deadline = plan.slack * questions[0].asked_bytes / calibration.read_rate + plan.allowance
    close_wire()
    if plan.mode == "rate-gap":
        filled = _fill_cells(connection, job, questions, kappa)
    else:
        kappa = 0
        filled = _fill_stream(connection, job, questions, plan.quorum)
    fill_seconds, expand_seconds, expected = filled
    timings = _ask_rounds(connection, plan, expected, deadline, progress)
    rebuild = calibration.rebuild_rate * plan.advantage / kappa if kappa else 0.0
    recoverable, missing, verdict, reason = judge(
        plan, rebuild, calibration.store_rate, questions[0], timings, deadline=deadline
    )
    return Erasure(
        plan, "pass", kappa, welcome, size, mapped.locked, mapped.seconds, fill_seconds, expand_seconds,
        deadline, recoverable, missing, verdict, reason, timings,
    )  # fmt: skip


@dataclass(frozen=True)
class _Region:
    """What the agent mapped: whole blocks, and how long that took."""

    size: int
    locked: bool
    seconds: float


def _map(
    connection: Connection, welcome: Welcome, plan: Plan, machine: int | None, progress: Progress
) -> _Region:
    progress("taking the memory", 0, 0)
    began = time.monotonic()
    mapped = connection.ask(Map(plan.space, plan.size), Mapped, _MAP_SECONDS)
    seconds = time.monotonic() - began
    size = mapped.size - mapped.size % BLOCK_BYTES
    if size <= 0 or (plan.size and mapped.size > plan.size):
        raise IntegrityError(
            f"The agent mapped {mapped.size} bytes of the {plan.size} that it was asked for."
        )
    _check_region(mapped.size, plan.space, welcome, machine)
    if size // BLOCK_BYTES > MAX_REGION_BLOCKS:
        raise IntegrityError("The agent mapped more memory than a question can be about.")
    return _Region(size, mapped.locked, seconds)


def _by_chain(connection: Connection, welcome: Welcome, plan: Plan, job: _Job, mapped: _Region) -> Erasure:
    """The rest of `erase` where chains ask: the noise is sent, and needs no tags on its way."""
    calibration = job.calibration
    noise = StreamNoise(secrets.token_bytes(SEED_BYTES))
    fill_seconds = _send(connection, job, noise, [])[0]
    rule = ChainRule(plan.steps, plan.rounds, plan.quorum, plan.error)
    deadline = chain_deadline(rule, calibration, plan.allowance)
    timings = ask_chains(
        connection, noise, (job.space, job.size), rule, calibration, deadline=deadline, progress=job.progress
    )
    gone, missing, verdict, reason = judge_chain_rounds(
        rule, calibration, job.size, timings, deadline=deadline
    )
    return Erasure(
        plan, "chain", 0, welcome, job.size, mapped.locked, mapped.seconds, fill_seconds, fill_seconds,
        deadline, gone, missing, verdict, reason, timings,
    )  # fmt: skip


def _check_region(size: int, space: int, welcome: Welcome, machine: int | None) -> None:
    """Raise IntegrityError for a region beyond the machine: the noise for it would be made all the same, and
    time to fill it granted."""
    stated = {0: welcome.machine_bytes, EVERYTHING: welcome.machine_bytes + welcome.device_bytes}
    stated |= {number: room for number, (_, room) in enumerate(welcome.spaces) if number}
    if size > stated.get(space, 0):
        raise IntegrityError("The agent mapped more memory than it said that there is.")
    if machine is not None and size > machine:
        raise IntegrityError(
            f"The agent mapped {size >> 20} MiB, and the machine has {machine >> 20} MiB as declared or "
            "inspected: one of the two is wrong. Correct --machine-mib, or ask for less with --size-mib."
        )


@dataclass(frozen=True)
class _Job:
    """What a fill needs to know."""

    space: int
    size: int
    calibration: Calibration
    threads: int | None
    progress: Progress

    def filled(self, done: int, total: int) -> None:
        """MiB that the noise has passed."""
        self.progress("filling (MiB)", done, total)


_Expected = Iterator[tuple[Question, list[bytes]]]
_Filled = tuple[float, float, _Expected]


def _fill_cells(connection: Connection, job: _Job, questions: list[Question], kappa: int) -> _Filled:
    """The seed goes out, and the verifier expands the blocks that it will ask for meanwhile."""
    seed = secrets.token_bytes(SEED_BYTES)
    limit = 30 + _SLOWEST_FILL * job.size * kappa / job.calibration.rebuild_rate
    expectation = Expectation(lambda: CellNoise(seed, kappa), questions, job.threads, job.filled)
    began = time.monotonic()
    with ThreadPoolExecutor(1, thread_name_prefix="lockstep") as pool:
        work = pool.submit(_timed, expectation.run)
        try:
            connection.ask(Fill(job.space, job.size, seed, kappa), Done, limit)
        except UllageError:
            expectation.cancel()
            raise
        seconds = time.monotonic() - began
        expand_seconds, expected = work.result()
    return seconds, expand_seconds, zip(questions, expected, strict=True)


def _fill_stream(connection: Connection, job: _Job, questions: list[Question], quorum: int) -> _Filled:
    """The noise itself goes out; its key stays here."""
    noise = StreamNoise(secrets.token_bytes(SEED_BYTES))
    # Tags of as many rounds as have to be in time, and of one that may be late, are made on the way while the
    # noise lies in cache. To make those of others later takes as long as the whole fill.
    ahead = questions[: quorum + 1] if questions[0].blocks is None else []
    later = questions[len(ahead) :]
    seconds, expected = _send(connection, job, noise, ahead)

    def rounds() -> _Expected:
        yield from zip(ahead, expected, strict=True)
        step = max(quorum, _LATER_ROUNDS)
        for some in (later[at : at + step] for at in range(0, len(later), step)):
            tags = Expectation(lambda: noise, some, job.threads).run()
            yield from zip(some, tags, strict=True)

    return seconds, seconds, rounds()


def _send(
    connection: Connection, job: _Job, noise: StreamNoise, ahead: list[Question]
) -> tuple[float, list[list[bytes]]]:
    """(seconds until all of it has arrived, tags of these questions)."""
    limit = 30 + _SLOWEST_FILL * job.size / job.calibration.first_touch_rate
    began = time.monotonic()
    tags = send_noise(
        connection, noise, (job.space, 0, job.size), ahead,
        limit=limit, lanes=job.threads, progress=job.filled,
    )  # fmt: skip
    return time.monotonic() - began, tags


def _timed(work: Callable[[], list[list[bytes]]]) -> tuple[float, list[list[bytes]]]:
    began = time.monotonic()
    found = work()
    return time.monotonic() - began, found


def _ask_rounds(
    connection: Connection,
    plan: Plan,
    expected: _Expected,
    deadline: float,
    progress: Progress,
) -> tuple[Timing, ...]:
    """Ask until a quorum is in time, an answer is wrong, or the rounds are used up."""
    timings: list[Timing] = []
    for question, tags in expected:
        progress("asking", len(timings), plan.rounds)
        if not connection.is_quiet():
            raise IntegrityError("The agent sent something unasked; between questions it must be silent.")
        began = time.perf_counter()
        try:
            answer = connection.ask(Ask(plan.space, question), Tags, PATIENCE * deadline + 1)
        except LateError:
            timings.append(Timing(time.perf_counter() - began, late=True, correct=None))
            break  # the next answer could not be told from this one
        seconds = time.perf_counter() - began
        correct = answer.round_number == question.round_number and tags_equal(answer.tags, tags)
        timings.append(Timing(seconds, late=seconds > deadline, correct=correct))
        if not correct or sum(not timing.late for timing in timings) >= plan.quorum:
            break
    return tuple(timings)


def judge(
    plan: Plan,
    rebuild: float,
    store: float,
    question: Question,
    timings: tuple[Timing, ...],
    *,
    deadline: float,
) -> tuple[float, float, Verdict, str]:
    """(q*, missing share, verdict, reason) of the rounds; no I/O.

    `rebuild` and `store` are rates in bytes a second.

    When every block is asked for, nothing is sampled and no deadline is needed: what the fastest right answer
    left time to rebuild bounds what was missing. The deadline then says only whether the machine was as fast
    as its kind; a right but late answer is no accusation. A wrong one is.
    """
    whole = question.count == question.region_blocks
    right = [timing for timing in timings if timing.correct]
    verdict, reason = verdict_of(timings, plan.quorum)
    if verdict == "fail" or not right or (verdict != "pass" and not whole):
        return 1.0, 1.0, verdict, reason
    clock = min(timing.seconds for timing in right) if whole else deadline
    recoverable = bounds.recoverable_share(rebuild, store, clock, question.asked_bytes)
    forged = bounds.forgery_probability(plan.rounds * question.segments, SEGMENT_BLOCKS * BLOCK_BYTES)
    missing = bounds.missing_share(
        recoverable,
        question.count,
        question.region_blocks,
        plan.rounds,
        plan.quorum,
        error=plan.error - forged,
    )
    return recoverable, missing, verdict, reason
