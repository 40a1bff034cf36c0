"""Filling the prover's memory: the noise itself, or the seed that it is made from."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ullage.errors import UndecidedError
from ullage.memory.agent.makers import Makers
from ullage.memory.calibration import Calibration
from ullage.memory.noise.butterfly import cost_of_passes
from ullage.memory.noise.noise import SEED_BYTES, Noise, Question, StreamNoise
from ullage.memory.protocol.messages import Done, Fill
from ullage.memory.protocol.stream import send_noise
from ullage.memory.protocol.timing import Progress, Timing, Verdict
from ullage.memory.protocol.wire import Connection

_SLOWEST_FILL = 20.0

Expected = TypeVar("Expected")
Judged = tuple[float, float, Verdict, str]
"""q*, missing share, verdict and reason."""


@dataclass(frozen=True)
class Job:
    """What a fill needs to know; `layers` is 0 for noise that is sent."""

    space: int
    size: int
    layers: int
    calibration: Calibration
    threads: int | None
    progress: Progress

    def filled(self, done: int, total: int) -> None:
        """MiB that the noise has passed."""
        self.progress("filling (MiB)", done, total)


@dataclass(frozen=True)
class Filled(Generic[Expected]):
    """Seconds until the prover had filled, those that the verifier's own part took, and what that gave."""

    seconds: float
    expand_seconds: float
    expected: Expected


@dataclass(frozen=True)
class Found:
    """What filling and asking showed."""

    fill_seconds: float
    expand_seconds: float
    deadline: float
    judged: Judged
    timings: tuple[Timing, ...]


def fill_from_seed(
    connection: Connection, job: Job, expect: Callable[[Callable[[], Noise], Callable[[], None]], Expected]
) -> Filled[Expected]:
    """The seed goes out, and meanwhile the verifier makes what it will compare with.

    `expect` takes a function that gives each thread its noise, and one to call often, which raises when
    nobody wants the rest any more.
    """
    seed = secrets.token_bytes(SEED_BYTES)
    called_off = threading.Event()

    def go_on() -> None:
        if called_off.is_set():
            raise UndecidedError("The expansion of the noise was called off.")

    slowest = _SLOWEST_FILL * job.size * cost_of_passes(job.layers) / job.calibration.rebuild_rate
    began = time.monotonic()
    with Makers(seed, job.layers, job.size) as makers, ThreadPoolExecutor(1, "lockstep") as pool:
        work = pool.submit(_timed, lambda: expect(makers.mine, go_on))
        try:
            connection.ask(Fill(job.space, job.size, seed, job.layers), Done, 30 + slowest)
        except BaseException:  # an interrupt too: or the pool's end would wait for all of it
            called_off.set()
            raise
        seconds = time.monotonic() - began
        expand_seconds, expected = work.result()
    return Filled(seconds, expand_seconds, expected)


def send(
    connection: Connection, job: Job, noise: StreamNoise, ahead: list[Question]
) -> tuple[float, list[list[bytes]]]:
    """(seconds until all of it has arrived, tags of these questions)."""
    limit = 30 + _SLOWEST_FILL * job.size / job.calibration.first_touch_rate
    return _timed(
        lambda: send_noise(
            connection, noise, (job.space, 0, job.size), ahead,
            limit=limit, lanes=job.threads, progress=job.filled,
        )
    )  # fmt: skip


def _timed(work: Callable[[], Expected]) -> tuple[float, Expected]:
    began = time.monotonic()
    found = work()
    return time.monotonic() - began, found
