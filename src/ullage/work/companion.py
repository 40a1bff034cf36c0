"""A companion: an agent of the verifier's own that does filler beside the machine, in the same windows.

On hardware that several share, speed changes from minute to minute, and a machine that is slower by q looks
like one that gives q to a tenant (docs/work.md, Drift). A companion on the same hardware is slowed as the
machine is, so what the machine accounts for over what the companion does is free of that drift. What only one
of the two feels stays: a neighbour of one core, and whoever slows the companion on purpose.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

from ullage.errors import FaultError
from ullage.work.verifier import Clock, Session, Terms
from ullage.work.window import Worth

_FORGET_SECONDS = 1.0


class Companion:
    """The companion's session. Its products are not checked: it is the verifier's own."""

    def __init__(self, terms: Terms, worth: Worth, clock: Clock = time.monotonic_ns) -> None:
        self._session = Session(terms, clock)
        self._worth = worth

    def start(self) -> None:
        """Connect its slots. Raises FaultError unless all of them answer."""
        if not self._session.start():
            raise FaultError(_unanswered(self._session.terms))

    def stop(self) -> None:
        """Close its connections."""
        self._session.stop()

    def close(self, start: int, end: int) -> tuple[float, list[str]]:
        """What it accounted for in [start, end] at median times, and what went wrong with it, in words.

        0 if anything did: a machine that lost a slot did less, but a companion that lost one shows less than
        could be done, and a tenant would hide behind the difference.
        """
        slots = self._session.terms.slots
        answered = self._session.answered_in(start, end)
        units = Counter(unit.slot for unit in answered)
        findings = [f"companion: {finding}" for finding in self._session.take_findings()]
        if late := sum(unit.late for unit in answered):
            findings.append(f"companion: {late} units came too late")
        findings += [f"companion: slot {slot} did nothing" for slot in range(slots) if not units[slot]]
        self._session.forget_settled(end)
        if findings:
            return 0.0, findings
        return len(answered) * self._worth.median / (slots * (end - start) / 1e9), []


@contextlib.contextmanager
def kept_busy(terms: Terms | None, clock: Clock = time.monotonic_ns) -> Iterator[Session | None]:
    """The companion at work meanwhile, as it is beside every account; nothing without one.

    What is timed here takes what it takes beside it. Yields its session. Raises FaultError if not all of its
    slots answer, and, at the end, if one was lost.
    """
    if terms is None:
        yield None
        return
    session, over = Session(terms, clock), threading.Event()

    def forget() -> None:
        while not over.wait(_FORGET_SECONDS):
            session.forget_settled(clock())

    keeper = threading.Thread(target=forget, daemon=True)
    try:
        if not session.start():
            raise FaultError(_unanswered(terms))
        keeper.start()
        yield session
        if findings := session.take_findings():
            raise FaultError(f"The companion did not work all the while: {findings[0]}. Calibrate again.")
    finally:
        over.set()
        session.stop()


def _unanswered(terms: Terms) -> str:
    return (
        f"The companion at {terms.host}:{terms.port} does not answer on all of {terms.slots} slots; "
        "start it with `ullage work agent --full-priority --slots N`, and give the same N here."
    )
