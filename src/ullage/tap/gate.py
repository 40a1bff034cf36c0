"""The one place that says whether anything may be released. What it does not know, it refuses.

Whatever breaks trips the gate with a reason of the fixed list: requests in flight are cancelled, new ones get
a 503 that names the reason, and an alarm is counted. The gate opens again when every reason has been cleared
(`ullage.tap.supervisor`), without a restart.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from ullage.tap.failures import Failure, RequestRefusedError
from ullage.tap.tell import tell_operator


class Gate:
    """Requests enter and leave; `trip` closes it for all of them."""

    def __init__(self) -> None:
        self.alarms: Counter[Failure] = Counter()  # how often each reason has tripped it
        self._reasons: dict[Failure, None] = {}  # in the order in which they came
        self._inside: set[asyncio.Task[Any]] = set()

    @property
    def reason(self) -> Failure | None:
        """Why nothing is released; None while the gate is open."""
        return next(iter(self._reasons), None)

    @property
    def empty(self) -> bool:
        """Whether no request is in flight."""
        return not self._inside

    @property
    def inside(self) -> int:
        """Requests in flight."""
        return len(self._inside)

    def enter(self) -> None:
        """Begin a request in the current task. Raises RequestRefusedError while the gate is closed."""
        reason = self.reason
        if reason is not None:
            raise RequestRefusedError(reason)
        task = asyncio.current_task()
        if task is not None:
            self._inside.add(task)

    def leave(self) -> None:
        """End the current task's request. Idempotent."""
        task = asyncio.current_task()
        if task is not None:
            self._inside.discard(task)

    def holds(self, reason: Failure) -> bool:
        """Whether this reason keeps the gate closed."""
        return reason in self._reasons

    def trip(self, reason: Failure, message: str) -> None:
        """Close the gate; the operator is told once a trip, by `message` on the error output."""
        if reason in self._reasons:
            return
        self._reasons[reason] = None
        self.alarms[reason] += 1
        current = asyncio.current_task()
        for task in self._inside:  # before anything is said: what is in flight must not go on meanwhile
            if task is not current:
                task.cancel()
        tell_operator(message)

    def clear(self, reason: Failure) -> None:
        """This reason is gone; the gate opens if it was the last."""
        if reason in self._reasons:
            del self._reasons[reason]
            tell_operator(f"recovered from {reason.code}")
