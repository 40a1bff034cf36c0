"""An erasure that is asked for by passes over everything."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from ullage.memory import bounds
from ullage.memory.erasure.fill import Filled, Found, Job, Judged, fill_from_seed, send
from ullage.memory.erasure.plan import Plan
from ullage.memory.noise.noise import BLOCK_BYTES, SEED_BYTES, Question, StreamNoise, tags_equal
from ullage.memory.protocol.expectation import Expectation, draw_questions
from ullage.memory.protocol.messages import Tags
from ullage.memory.protocol.questions import Ask
from ullage.memory.protocol.rounds import ask_rounds, calm
from ullage.memory.protocol.timing import Timing, verdict_of
from ullage.memory.protocol.wire import Connection

# How many rounds' tags are made at a time when those that went with the stream were late.
_LATER_ROUNDS = 2

_Expected = Iterator[tuple[Question, list[bytes]]]


def by_pass(connection: Connection, plan: Plan, job: Job) -> Found:
    """Tags over everything, which the verifier makes in lockstep with the fill; keys are drawn before."""
    calibration = job.calibration
    questions = draw_questions(job.size // BLOCK_BYTES, plan.rounds)
    deadline = plan.slack * job.size / calibration.read_rate + plan.allowance
    if job.layers:
        filled = _fill_cells(connection, job, questions)
    else:
        filled = _fill_stream(connection, job, questions, plan.quorum)
    asked = ((Ask(plan.space, question), _compare(question, tags)) for question, tags in filled.expected)
    timings = ask_rounds(
        connection, asked, Tags, plan.rounds, deadline=deadline, is_enough=calm(deadline, plan.quorum),
        progress=job.progress,
    )  # fmt: skip
    rebuild = plan.rebuild_rate("pass", job.layers, calibration)
    judged = judge(plan, rebuild, calibration.store_rate, questions[0], timings)
    return Found(filled.seconds, filled.expand_seconds, deadline, judged, timings)


def _compare(question: Question, tags: list[bytes]) -> Callable[[Tags], bool]:
    return lambda answer: answer.round_number == question.round_number and tags_equal(answer.tags, tags)


def _fill_cells(connection: Connection, job: Job, questions: list[Question]) -> Filled[_Expected]:
    filled = fill_from_seed(
        connection,
        job,
        lambda new_noise, go_on: Expectation(new_noise, questions, job.threads, job.filled, go_on).run(),
    )
    expected = zip(questions, filled.expected, strict=True)
    return Filled(filled.seconds, filled.expand_seconds, expected)


def _fill_stream(
    connection: Connection, job: Job, questions: list[Question], quorum: int
) -> Filled[_Expected]:
    """The noise itself goes out; its key stays here."""
    noise = StreamNoise(secrets.token_bytes(SEED_BYTES))
    # Tags of as many rounds as have to be in time, and of one that may be late, are made on the way while the
    # noise lies in cache. To make those of others later takes as long as the whole fill.
    ahead, later = questions[: quorum + 1], questions[quorum + 1 :]
    seconds, expected = send(connection, job, noise, ahead)

    def rounds() -> _Expected:
        yield from zip(ahead, expected, strict=True)
        step = max(quorum, _LATER_ROUNDS)
        for some in (later[at : at + step] for at in range(0, len(later), step)):
            tags = Expectation(lambda: noise, some, job.threads).run()
            yield from zip(some, tags, strict=True)

    return Filled(seconds, seconds, rounds())


def judge(
    plan: Plan, rebuild: float, store: float, question: Question, timings: tuple[Timing, ...]
) -> Judged:
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
