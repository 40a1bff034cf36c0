"""Asking the same kind of question again and again, against the verifier's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ullage.errors import IntegrityError
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.timing import PATIENCE, Progress, Timing
from ullage.memory.protocol.wire import Connection, LateError

Answer = TypeVar("Answer", bound=Message)


def ask_rounds(
    connection: Connection,
    questions: Iterable[tuple[Message, Callable[[Answer], bool]]],
    kind: type[Answer],
    rounds: int,
    *,
    deadline: float,
    is_enough: Callable[[Sequence[Timing]], bool],
    progress: Progress,
) -> tuple[Timing, ...]:
    """Ask until `is_enough`, an answer is wrong, or the questions are used up.

    Each comes with a function that says whether its answer is right, which is called when the clock has
    stopped. Raises as `Connection.ask`, and IntegrityError when the agent speaks unasked.
    """
    timings: list[Timing] = []
    for question, is_right in questions:
        progress("asking", len(timings), rounds)
        if not connection.is_quiet():
            raise IntegrityError("The agent sent something unasked; between questions it must be silent.")
        began = time.perf_counter()
        try:
            answer = connection.ask(question, kind, PATIENCE * deadline + 1)
        except LateError:
            timings.append(Timing(time.perf_counter() - began, late=True, correct=None))
            break  # the next answer could not be told from this one
        seconds = time.perf_counter() - began
        timings.append(Timing(seconds, late=seconds > deadline, correct=is_right(answer)))
        if not timings[-1].correct or is_enough(timings):
            break
    return tuple(timings)


def calm(seconds: float, quorum: int) -> Callable[[Sequence[Timing]], bool]:
    """Enough is a quorum within so many seconds: later rounds could hardly show more."""
    return lambda timings: sum(timing.seconds <= seconds for timing in timings) >= quorum
