"""Provers that break the protocol, each as an agent: `python -m tests.work.provers NAME --slots N`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ullage.work.agent import run_agent
from ullage.work.protocol import MAX_FROM_PROVER, Forget, Job, Message, Open, Proof, Root, Send, Tile
from ullage.work.prover import Prover


class AnswersNan(Prover):
    """C is float32 NaN."""

    def product(self, job: Job) -> NDArray[np.int32]:
        del job
        return np.full((self.shape.rows, self.shape.columns), np.nan, dtype=np.float32).view(np.int32)


class OmitsTiles(Prover):
    """The second half of C never comes."""

    def send(self, wanted: Send) -> Iterator[Message]:
        for message in super().send(wanted):
            assert isinstance(message, Tile)
            yield Tile(message.number, message.first_row, message.data[: len(message.data) // 2])


class DoublesTiles(Prover):
    """Every tile comes twice."""

    def send(self, wanted: Send) -> Iterator[Message]:
        for message in super().send(wanted):
            yield message
            yield message


class ChangesCommitment(Prover):
    """A second root for the same job, once asked about it."""

    def answer(self, message: Message) -> Iterator[Message]:
        for answer in super().answer(message):
            yield answer
            if isinstance(answer, Root):
                yield Root(answer.number, os.urandom(32))


class Silent(Prover):
    """Answers no question about rows."""

    def answer(self, message: Message) -> Iterator[Message]:
        if not isinstance(message, Open):
            yield from super().answer(message)


class Leaves(Prover):
    """Exits after the twentieth job."""

    done = 0

    def work(self, job: Job) -> Root:
        self.done += 1
        if self.done == 20:
            os._exit(1)
        return super().work(job)


class Garbles(Prover):
    """Sends a message that no prover sends."""

    def answer(self, message: Message) -> Iterator[Message]:
        yield from super().answer(message)
        if isinstance(message, Job):
            yield Forget(3)


class Invents(Prover):
    """A root for a job that was never issued, and a path nobody asked for."""

    def answer(self, message: Message) -> Iterator[Message]:
        for answer in super().answer(message):
            if isinstance(answer, Root) and answer.number == 1:
                yield Root(1 << 40, bytes(32))
                yield Proof(0, 0, (bytes(32),) * 7)
            yield answer


class Strays(Prover):
    """Two thousand roots for a job that was never issued, after each that was."""

    def answer(self, message: Message) -> Iterator[Message]:
        yield from super().answer(message)
        if isinstance(message, Job):
            yield from (Root(1 << 40, bytes(32)) for _ in range(2000))


class Shouts(Prover):
    """A frame longer than any that a prover may send."""

    def answer(self, message: Message) -> Iterator[Message]:
        yield from super().answer(message)
        if isinstance(message, Job):
            yield Tile(message.number, 0, bytes(MAX_FROM_PROVER))


class WrongClock(Prover):
    """Its clocks are a year ahead and run twice as fast."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        year, wall, monotonic = 3.2e7, time.time, time.monotonic
        time.time = lambda: 2 * wall() + year
        time.monotonic = lambda: 2 * monotonic() + year
        time.time_ns = lambda: int(time.time() * 1e9)
        time.monotonic_ns = lambda: int(time.monotonic() * 1e9)


class Floods(Prover):
    """A root for every job at once, of nothing."""

    def work(self, job: Job) -> Root:
        return Root(job.number, os.urandom(32))


class Late(Prover):
    """Takes longer than a unit may."""

    def work(self, job: Job) -> Root:
        time.sleep(0.3)
        return super().work(job)


PROVERS: dict[str, type[Prover]] = {
    kind.__name__: kind
    for kind in (
        Prover, AnswersNan, OmitsTiles, DoublesTiles, ChangesCommitment,
        Silent, Leaves, Garbles, Invents, Strays, Shouts, WrongClock, Floods, Late,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(PROVERS))
    parser.add_argument("--slots", type=int, default=1)
    arguments = parser.parse_args()

    def announce(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    run_agent("127.0.0.1", 0, arguments.slots, PROVERS[arguments.name], announce, idle_class=False)


if __name__ == "__main__":
    main()
