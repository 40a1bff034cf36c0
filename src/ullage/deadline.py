"""A deadline for work that has none of its own, such as a request to a server that nobody trusts.

A timeout of a socket begins anew with every byte: a server that sends one now and then holds a client for
weeks, in the head of its answer above all, of which nothing is heard before it is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from ullage.errors import FaultError

_T = TypeVar("_T")


def within(seconds: float, work: Callable[[], _T], late: str) -> _T:
    """What `work` returns or raises; FaultError with the sentence `late` after so many seconds.

    The work is done in a thread of its own, which is left to itself then and does not keep the process.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="ullage-deadline", daemon=True).start()
    if wait([outcome], seconds).not_done:  # not `result`: the work may raise a TimeoutError itself
        raise FaultError(late)
    return outcome.result()
