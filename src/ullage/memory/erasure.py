"""The verifier's side of an erasure: noise in, questions against the clock, and what the answers prove."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from ullage.errors import IntegrityError, UllageError, UsageError
from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.chain import WIDTH
from ullage.memory.chain_bound import ChainRule
from ullage.memory.erasure_chain import ask_chains, chain_deadline, judge_chain_rounds
from ullage.memory.erasure_spots import SpotsRule, ask_spots, judge_spots, spots_deadline, store_spot_rate
from ullage.memory.expectation import Expectation, draw_questions
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
    Noise,
    Question,
    StreamNoise,
    tags_equal,
)
from ullage.memory.rounds import ask_rounds, calm
from ullage.memory.spots import STRATUM_BYTES
from ullage.memory.stream import send_noise
from ullage.memory.timing import Progress, Timing, Verdict, verdict_of
from ullage.memory.wire import Connection

Mode = Literal["stream", "rate-gap"]
By = Literal["pass", "spots", "chain"]
"""How it is asked for: by a pass over everything, against the rate of other stores; by one small block of
every stratum, against the reads that they do in a second; or by chains of small blocks, against their
latency."""
MODES: tuple[Mode, ...] = ("stream", "rate-gap")
WAYS: tuple[By, ...] = ("pass", "spots", "chain")

_MAP_SECONDS = 300.0
# How many rounds' tags are made at a time when those that went with the stream were late.
_LATER_ROUNDS = 2
_SLOWEST_FILL = 20.0


@dataclass(frozen=True)
class Plan:
    """How an erasure is asked for; `by` None takes what proves more."""

    mode: Mode
    size: int = 0
    """Bytes to erase of the space; 0 for all that the agent reaches."""
    space: int = 0
    """0 is main memory, 1 … are devices, `keeper.EVERYTHING` is all of them at once."""
    rounds: int = 20
    quorum: int = 1
    slack: float = 1.2
    """Of a pass: its deadline over the calibrated time."""
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
        if not 0 < self.error < 1 or self.allowance < 0:
            raise UsageError("An error probability lies in (0, 1), and times are not negative.")
        if self.by == "chain" and self.mode != "stream":
            raise UsageError(
                "Chains are for mode 'stream': a block that a seed gives is rebuilt sooner than a disk "
                "delivers one."
            )
        if not 1 <= self.steps <= MAX_CHAIN_STEPS:
            raise UsageError(f"A chain has 1 to {MAX_CHAIN_STEPS} steps.")

    def asks_by(self, calibration: Calibration) -> By:
        """`by`, or what leaves least to other stores on such a machine."""
        if self.by or self.space:  # a device is reached over a slow bus
            return self.by or "pass"
        left: dict[By, float] = {
            "pass": min(1.0, calibration.store_rate / calibration.read_rate),
            "spots": min(1.0, store_spot_rate(calibration) / calibration.spot_rate),
        }
        if self.mode == "stream":
            steps = bounds.missing_steps(calibration.step_seconds, 1, calibration.alternative_seconds)
            left["chain"] = bounds.missing_blocks(steps, WIDTH)
        return min(left, key=lambda by: left[by])

    def iterations(self, by: By, calibration: Calibration) -> int:
        """kappa of noise that a seed gives."""
        read = calibration.spot_rate if by == "spots" else calibration.read_rate
        rebuild = calibration.rebuild_rate * self.advantage
        return self.kappa or bounds.iterations_for(rebuild, read, 1.0, self.rebuild_target)


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
    job = _Job(plan.space, mapped.size, calibration, threads, progress)
    by = plan.asks_by(calibration)
    kappa = plan.iterations(by, calibration) if plan.mode == "rate-gap" else 0
    close_wire()
    ask = {"pass": _by_pass, "spots": _by_spots, "chain": _by_chain}[by]
    found = ask(connection, plan, job, kappa)
    return Erasure(
        plan, by, kappa, welcome, mapped.size, mapped.locked, mapped.seconds, found.fill_seconds,
        found.expand_seconds, found.deadline, *found.judged, found.timings,
    )  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """What filling and asking showed."""

    fill_seconds: float
    expand_seconds: float
    deadline: float
    judged: tuple[float, float, Verdict, str]
    timings: tuple[Timing, ...]


def _by_pass(connection: Connection, plan: Plan, job: _Job, kappa: int) -> _Found:
    """Tags over everything, which the verifier makes in lockstep with the fill; keys are drawn before."""
    calibration = job.calibration
    questions = draw_questions(job.size // BLOCK_BYTES, plan.rounds)
    deadline = plan.slack * job.size / calibration.read_rate + plan.allowance
    if kappa:
        filled = _fill_cells(connection, job, questions, kappa)
    else:
        filled = _fill_stream(connection, job, questions, plan.quorum)
    fill_seconds, expand_seconds, expected = filled
    asked = ((Ask(plan.space, question), _compare(question, tags)) for question, tags in expected)
    timings = ask_rounds(
        connection, asked, Tags, plan.rounds, deadline=deadline, is_enough=calm(deadline, plan.quorum),
        progress=job.progress,
    )  # fmt: skip
    rebuild = calibration.rebuild_rate * plan.advantage / kappa if kappa else 0.0
    judged = judge(plan, rebuild, calibration.store_rate, questions[0], timings)
    return _Found(fill_seconds, expand_seconds, deadline, judged, timings)


def _compare(question: Question, tags: list[bytes]) -> Callable[[Tags], bool]:
    return lambda answer: answer.round_number == question.round_number and tags_equal(answer.tags, tags)


def _by_spots(connection: Connection, plan: Plan, job: _Job, kappa: int) -> _Found:
    """Spots of noise of either kind; the verifier makes what it asked for afterwards."""
    calibration, strata = job.calibration, job.size // STRATUM_BYTES
    rebuild = calibration.rebuild_rate * plan.advantage / kappa if kappa else 0.0
    rule = SpotsRule(strata, plan.rounds, plan.quorum, plan.error, rebuild)
    secret = secrets.token_bytes(SEED_BYTES)
    new_noise: Callable[[], Noise]
    if kappa:
        new_noise = partial(CellNoise, secret, kappa)
        began = time.monotonic()
        connection.ask(Fill(job.space, job.size, secret, kappa), Done, job.longest_fill(kappa))
        fill_seconds = time.monotonic() - began
    else:
        new_noise = partial(StreamNoise, secret)
        fill_seconds = _send(connection, job, StreamNoise(secret), [])[0]
    deadline = spots_deadline(strata, calibration, plan.allowance)
    timings = ask_spots(
        connection, new_noise, job.space, rule, calibration, deadline=deadline, threads=job.threads,
        progress=job.progress,
    )  # fmt: skip
    judged = judge_spots(rule, calibration, timings, deadline=deadline)
    return _Found(fill_seconds, fill_seconds, deadline, judged, timings)


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


def _by_chain(connection: Connection, plan: Plan, job: _Job, _: int) -> _Found:
    """Chains over noise that is sent, which needs no tags on its way."""
    calibration, noise = job.calibration, StreamNoise(secrets.token_bytes(SEED_BYTES))
    fill_seconds = _send(connection, job, noise, [])[0]
    rule = ChainRule(plan.steps, plan.rounds, plan.quorum, plan.error)
    deadline = chain_deadline(rule, calibration, plan.allowance)
    timings = ask_chains(
        connection, noise, (job.space, job.size), rule, calibration, deadline=deadline, progress=job.progress
    )
    judged = judge_chain_rounds(rule, calibration, job.size, timings, deadline=deadline)
    return _Found(fill_seconds, fill_seconds, deadline, judged, timings)


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

    def longest_fill(self, kappa: int) -> float:
        """Seconds that are granted for it."""
        return 30 + _SLOWEST_FILL * self.size * kappa / self.calibration.rebuild_rate


_Expected = Iterator[tuple[Question, list[bytes]]]
_Filled = tuple[float, float, _Expected]


def _fill_cells(connection: Connection, job: _Job, questions: list[Question], kappa: int) -> _Filled:
    """The seed goes out, and the verifier expands the blocks that it will ask for meanwhile."""
    seed = secrets.token_bytes(SEED_BYTES)
    expectation = Expectation(lambda: CellNoise(seed, kappa), questions, job.threads, job.filled)
    began = time.monotonic()
    with ThreadPoolExecutor(1, thread_name_prefix="lockstep") as pool:
        work = pool.submit(_timed, expectation.run)
        try:
            connection.ask(Fill(job.space, job.size, seed, kappa), Done, job.longest_fill(kappa))
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
    ahead, later = questions[: quorum + 1], questions[quorum + 1 :]
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


def judge(
    plan: Plan, rebuild: float, store: float, question: Question, timings: tuple[Timing, ...]
) -> tuple[float, float, Verdict, str]:
    """(q*, missing share, verdict, reason) of a pass's rounds; no I/O.

    `rebuild` and `store` are rates in bytes a second.

    Every block is asked for, so nothing is sampled and no deadline is needed: what the fastest right answer
    left time to rebuild bounds what was missing. The deadline then says only whether the machine was as fast
    as its kind; a right but late answer is no accusation. A wrong one is.
    """
    right = [timing.seconds for timing in timings if timing.correct]
    verdict, reason = verdict_of(timings, plan.quorum)
    if verdict == "fail" or not right:
        return 1.0, 1.0, verdict, reason
    missing = bounds.recoverable_share(rebuild, store, min(right), question.asked_bytes)
    return missing, missing, verdict, reason
